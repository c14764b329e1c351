"""STUN and TURN servers, as their URLs name them. Pure.

    stun:HOST[:PORT]                        RFC 7064
    turn:HOST[:PORT][?transport=udp|tcp]    RFC 7065
    turns:HOST[:PORT][?transport=tcp]

HOST is a name, an IPv4 address or an IPv6 address in brackets. Schemes and transports are taken in any case.
What cannot be used is named with the reason, and the rest is used.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct

STUN_SERVERS_ASKED = 3
"""So many of the STUN servers that we are given are asked, all at once."""

TURN_SERVERS_ASKED = 16
"""The same for URLs of TURN servers."""

_DEFAULT_PORT, _DEFAULT_TLS_PORT = 3478, 5349


class Transport(Enum):
    """What a TURN server is spoken to over, the best first."""

    UDP = "UDP"
    TCP = "TCP"
    TLS = "TLS"


class TurnServer(Struct, frozen=True):
    """A TURN server (RFC 8656) and what it is to be told, as the signaling server or the person says.

    Attributes:
        url: see above.
    """

    url: str
    username: str
    credential: str


class StunAddress(Struct, frozen=True):
    """Where a STUN server listens, by UDP.

    Attributes:
        host: name or address, without brackets.
        url: where this comes from.
    """

    host: str
    port: int
    url: str


class TurnAddress(Struct, frozen=True):
    """One way to a TURN server, and how to be let in.

    Attributes:
        host: name or address, without brackets.
        url: where this comes from.
    """

    host: str
    port: int
    transport: Transport
    username: str
    credential: str
    url: str


class Unusable(Struct, frozen=True):
    """A URL that is not used, and why: a clause."""

    url: str
    reason: str


_URL = re.compile(
    r"(?P<scheme>stuns?|turns?):(?:\[(?P<literal>[^\[\]]*)\]|(?P<host>[^\[\]:?/@]*))"
    r"(?::(?P<port>\d{1,5}))?(?:\?transport=(?P<transport>[a-z]+))?",
    re.ASCII | re.IGNORECASE,
)
# RFC 1123 §2.1, with underscores, which some use.
_LABEL = "[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_NAME = re.compile(rf"(?=.{{1,254}}$){_LABEL}(?:\.{_LABEL})*\.?")
_NUMERIC = re.compile(r"[0-9.]+")


def stun_servers(urls: Iterable[str]) -> tuple[tuple[StunAddress, ...], tuple[Unusable, ...]]:
    """Return the STUN servers among URLs, and which of the stun: URLs are not used."""
    found: list[StunAddress] = []
    unusable = []
    for url in urls:
        if not url.lower().startswith("stun"):
            continue
        try:
            scheme, host, port, transport = _split(url)
            if scheme == "stuns":
                raise ValueError("STUN over TLS tells nothing of addresses for UDP")
            if transport is not None:
                raise ValueError("a stun: URL has no transport")
            address = StunAddress(host, port or _DEFAULT_PORT, url)
            if len(found) == STUN_SERVERS_ASKED and address not in found:
                raise ValueError(f"only {STUN_SERVERS_ASKED} STUN servers are asked")
        except ValueError as error:
            unusable.append(Unusable(url, str(error)))
            continue
        if address not in found:
            found.append(address)
    return tuple(found), tuple(unusable)


def turn_servers(servers: Sequence[TurnServer]) -> tuple[tuple[TurnAddress, ...], tuple[Unusable, ...]]:
    """Return the ways to TURN servers, and which of their URLs are not used."""
    found: list[TurnAddress] = []
    unusable = []
    for server in servers:
        try:
            address = _turn_address(server)
            if len(found) == TURN_SERVERS_ASKED and address not in found:
                raise ValueError(f"only {TURN_SERVERS_ASKED} TURN servers are asked")
        except ValueError as error:
            unusable.append(Unusable(server.url, str(error)))
            continue
        if address not in found:
            found.append(address)
    return tuple(found), tuple(unusable)


def check_url(url: str) -> None:
    """Check that a URL names a STUN or TURN server that can be asked.

    Raises:
        ValueError: it does not; the text says why.
    """
    if url.lower().startswith("turn"):
        _turn_address(TurnServer(url, "", ""))
        return
    unusable = stun_servers([url])[1] if url.lower().startswith("stun") else (Unusable(url, _MALFORMED),)
    if unusable:
        raise ValueError(unusable[0].reason)


def _turn_address(server: TurnServer) -> TurnAddress:
    scheme, host, port, text = _split(server.url)
    secure = scheme == "turns"
    match (secure, text):
        case (False, None | "udp"):
            transport = Transport.UDP
        case (False, "tcp"):
            transport = Transport.TCP
        case (True, None | "tcp"):
            transport = Transport.TLS
        case (True, "udp"):
            # RFC 7350.
            raise ValueError("flyx does not speak DTLS to TURN servers; turns:…?transport=tcp is TLS")
        case _ if scheme in ("turn", "turns"):
            raise ValueError("the transport is neither udp nor tcp")
        case _:
            raise ValueError(_MALFORMED)
    port = port or (_DEFAULT_TLS_PORT if secure else _DEFAULT_PORT)
    return TurnAddress(host, port, transport, server.username, server.credential, server.url)


_MALFORMED = "it is not the URL of a STUN or TURN server"


def _split(url: str) -> tuple[str, str, int | None, str | None]:
    """Return scheme, host, port and transport of a URL, the last two None where they are not given.

    Raises:
        ValueError: it has another form.
    """
    matched = _URL.fullmatch(url)
    if matched is None:
        raise ValueError(_MALFORMED)
    scheme, transport = matched["scheme"].lower(), matched["transport"]
    port = int(matched["port"]) if matched["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("the port is not between 1 and 65535")
    host = matched["literal"] if matched["host"] is None else matched["host"]
    if matched["host"] is None:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("what is in brackets is not an IPv6 address") from None
    elif _NUMERIC.fullmatch(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError("the host is neither a name nor an address") from None
    elif not _NAME.fullmatch(host):
        raise ValueError("the host is neither a name nor an address")
    return scheme, host, port, transport.lower() if transport else None
