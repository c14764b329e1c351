"""The network as STUN servers show it: do they answer, what does the NAT do, how large may a datagram be?"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from flyx.client.doctor.finding import Finding, FindingState, milliseconds
from flyx.client.doctor.nat import (
    Endpoint,
    Filtering,
    Mapping,
    filtering_finding,
    filtering_of,
    mapping_finding,
    mapping_of,
)
from flyx.net.interfaces import source_towards, sources
from flyx.net.names import Address, resolve
from flyx.net.udp import LINUX
from flyx.rtc.attempts import NO_NAME_SERVER, failure_outcome
from flyx.rtc.seam.stun import CHANGE_IP, CHANGE_PORT, PATIENCE, Answer, StunSocket, request_size
from flyx.rtc.servers import StunAddress

logger = logging.getLogger("flyx.client")

MTUS = (1500, 1400, 1280)
"""Sizes of IP packets that are tried: Ethernet, most tunnels, the least of IPv6 (RFC 8200 §5)."""

LOOK_UP_TIMEOUT = 4.0
"""Seconds for the name of a server."""

_IP_AND_UDP = {socket.AF_INET: 28, socket.AF_INET6: 48}


@dataclass(frozen=True, slots=True)
class Asked:
    """One address of a STUN server, and its answer."""

    server: StunAddress
    address: Address
    answer: Answer | None


async def check_network(
    servers: Sequence[StunAddress], *, has_relay: bool, patience: float = PATIENCE
) -> list[Finding]:
    """Return the findings of stun, ipv6, mapping, filtering and mtu.

    Args:
        servers: to ask.
        has_relay: whether there is a relay for what finds no direct path.
        patience: seconds to wait for an answer; the questions come in two rounds.
    """
    if not servers:
        meaning = "no direct path between computers behind different NATs; within one network all is well"
        advice = "the server's operator can name one: `flyx serve --stun URL`"
        return [Finding("stun", FindingState.WARNING, "the server names no STUN server", meaning, advice)]
    async with _Sockets(patience) as sockets:
        asked, unresolved = await _ask_all(sockets, servers)
        answered = [one for one in asked if one.answer is not None]
        findings = [_stun_finding(servers, asked, unresolved), _ipv6_finding(asked)]
        if not answered:
            return findings
        ipv4 = [one for one in answered if one.address.family == socket.AF_INET]
        nat, mtu = await asyncio.gather(
            _nat_findings(sockets, ipv4, has_relay), _mtu_finding((ipv4 or answered)[0].address, patience)
        )
        return [*findings, *nat, mtu]


class _Sockets:
    """One socket for each IP version that there is: it is their mappings that are compared."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.by_family: dict[int, StunSocket] = {}

    async def __aenter__(self) -> _Sockets:
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                asking = StunSocket(family, patience=self.patience)
                await asking.open()
                self.by_family[family] = asking
        return self

    async def __aexit__(self, *_: object) -> None:
        for asking in self.by_family.values():
            asking.close()


async def _ask_all(
    sockets: _Sockets, servers: Sequence[StunAddress]
) -> tuple[list[Asked], dict[StunAddress, str]]:
    """Ask one address of each IP version of each server; return also what is wrong with their names."""
    unresolved: dict[StunAddress, str] = {}

    async def ask(server: StunAddress) -> list[Asked]:
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT):
                addresses = await resolve(server.host, server.port, socktype=socket.SOCK_DGRAM)
        except TimeoutError:
            unresolved[server] = NO_NAME_SERVER
            return []
        except OSError as error:
            unresolved[server] = failure_outcome(error)
            return []
        first = {address.family: address for address in reversed(addresses)}
        there = [address for address in first.values() if address.family in sockets.by_family]
        answers = await asyncio.gather(*(sockets.by_family[a.family].ask(a) for a in there))
        return [Asked(server, address, answer) for address, answer in zip(there, answers, strict=True)]

    found = [one for asked in await asyncio.gather(*map(ask, servers)) for one in asked]
    for one in found:
        logger.debug("STUN %s: %s", one.address.sockaddr, one.answer)
    return found, unresolved


def _stun_finding(
    servers: Sequence[StunAddress], asked: Sequence[Asked], unresolved: dict[StunAddress, str]
) -> Finding:
    fastest: dict[StunAddress, float] = {}
    for one in asked:
        if one.answer is not None:
            fastest[one.server] = min(one.answer.seconds, fastest.get(one.server, 60.0))
    figures = {
        "servers": [
            {"host": server.host, "rtt": round(fastest[server], 6) if server in fastest else None}
            for server in servers
        ]
    }
    silent = [server for server in servers if server not in fastest]
    failures = [f"{server.host} {unresolved.get(server, 'does not answer')}" for server in silent]
    if not fastest:
        words = "; ".join(failures)
        if unresolved:
            meaning = "no direct path between computers behind different NATs; within one network all is well"
            advice = "are names looked up here at all? A server can be named by its address"
        else:
            meaning = "UDP to the outside seems blocked: then only a relay by TCP or TLS helps"
            advice = "have UDP let through, or use another network, or a server with a relay (turns: on 443)"
        return Finding("stun", FindingState.FAILING, words, meaning, advice, figures)
    answering = [f"{server.host} answers in {milliseconds(seconds)}" for server, seconds in fastest.items()]
    words = "; ".join(answering + failures)
    meaning = "UDP passes to the outside and back"
    return Finding("stun", FindingState.OK, words, meaning, figures=figures)


def _ipv6_finding(asked: Sequence[Asked]) -> Finding:
    over_ipv6 = [one for one in asked if one.address.family == socket.AF_INET6]
    if any(one.answer is not None for one in over_ipv6):
        return Finding("ipv6", FindingState.OK, "works", "direct paths over IPv6, where there are no NATs")
    if not any(":" in source for source in sources()):
        meaning = "computers that have only IPv6 are reached through a relay that has both"
        return Finding("ipv6", FindingState.OK, "there is none here", meaning)
    if not over_ipv6:
        return Finding("ipv6", FindingState.OK, "there is a way out; no STUN server could be asked over it")
    meaning = "connecting can take longer while its addresses are tried"
    advice = "mend the router's IPv6, or switch it off here"
    return Finding(
        "ipv6", FindingState.WARNING, "there is an address, but nothing comes back", meaning, advice
    )


async def _nat_findings(sockets: _Sockets, answered: Sequence[Asked], has_relay: bool) -> list[Finding]:
    """Ask as RFC 5780 §4.3 and §4.4 say, over IPv4."""
    if not answered:
        return []
    with_other = [one for one in answered if one.answer and one.answer.other]
    main = (with_other or answered)[0]
    asking = sockets.by_family[socket.AF_INET]
    first = main.answer
    assert first is not None
    local = (source_towards(main.address.sockaddr) or "", asking.port)
    elsewhere = [
        one.answer.mapped for one in answered if one is not main and one.answer and one.answer.mapped
    ]
    other_address: Answer | None = None
    other_port: Answer | None = None
    filtering = Filtering.UNKNOWN
    if first.other:
        (other_address, other_port), (from_other, from_other_port) = await asyncio.gather(
            _ask_other(asking, main.address, first.other), _answered_from(main.address, sockets.patience)
        )
        filtering = filtering_of(
            other_works=other_address is not None, from_other=from_other, from_other_port=from_other_port
        )
    mapping = mapping_of(local, first.mapped, _mapped(other_address), _mapped(other_port), elsewhere)
    if mapping is Mapping.NONE and not first.other:
        return [mapping_finding(mapping, has_relay)]
    return [mapping_finding(mapping, has_relay), filtering_finding(filtering, mapping)]


def _mapped(answer: Answer | None) -> Endpoint | None:
    return answer.mapped if answer else None


async def _ask_other(
    asking: StunSocket, main: Address, other: Endpoint
) -> tuple[Answer | None, Answer | None]:
    """Ask a server's other address, at its first port and at its other one."""
    ports = main.sockaddr[1], other[1]
    there = [Address(main.family, (other[0], port)) for port in ports]
    first, second = await asyncio.gather(*(asking.ask(address) for address in there))
    return first, second


async def _answered_from(main: Address, patience: float) -> tuple[bool, bool]:
    """Whether answers from the other address, and from the other port, come in to a new port of ours."""
    async with StunSocket(main.family, patience=patience) as asking:
        from_other, from_other_port = await asyncio.gather(
            asking.ask(main, change=CHANGE_IP | CHANGE_PORT), asking.ask(main, change=CHANGE_PORT)
        )
    # A server that does not know the question answers from where it was asked.
    host, port = main.sockaddr[:2]
    return (
        from_other is not None and from_other.source[0] != host,
        from_other_port is not None and from_other_port.source[1] != port,
    )


async def _mtu_finding(server: Address, patience: float) -> Finding:
    """Send requests of several sizes that no router may fragment, and see which are answered."""
    if not LINUX:
        return Finding("mtu", FindingState.OK, "not measured on this system")
    headers = _IP_AND_UDP[server.family]
    async with StunSocket(server.family, fragments=False, patience=patience) as asking:
        least, *answers = await asyncio.gather(
            asking.ask(server, padding=4),
            *(asking.ask(server, padding=mtu - headers - request_size(4) + 4) for mtu in MTUS),
        )
    if least is None:
        return Finding(
            "mtu", FindingState.OK, "not known: the STUN server ignores padded requests (RFC 5780)"
        )
    passed = [mtu for mtu, answer in zip(MTUS, answers, strict=True) if answer is not None]
    figures = {"mtu": passed[0] if passed else None}
    if not passed:
        words = f"packets of {MTUS[-1]:,} bytes do not pass"
        meaning = "connections may not be made, or be slow: even IPv6 wants that much"
        advice = "look for a tunnel (VPN, PPPoE) with too small an MTU"
        return Finding("mtu", FindingState.WARNING, words, meaning, advice, figures)
    if passed[0] == MTUS[0]:
        return Finding(
            "mtu", FindingState.OK, f"{passed[0]:,} bytes pass", "packets of full size", figures=figures
        )
    words = f"{passed[0]:,} bytes pass, {MTUS[0]:,} do not"
    meaning = "there is a tunnel on the way: flyx finds the size that fits by itself"
    return Finding("mtu", FindingState.OK, words, meaning, figures=figures)
