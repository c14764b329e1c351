"""How a room that its sender serves itself is announced on the local network, and which answers are believed.

DNS-SD (RFC 6763) of the service type SERVICE_TYPE. The instance name is a random label (draw_label); its TXT
record holds `txtvers=1` and `room=TAG`. Words are never in it, and the room id is not either: a client that
knows it may guess words, three times for all, so that any listener could close every room of a network. TAG
is the scrypt (RFC 7914) of the room id under the label, which a receiver computes in 50 ms, and which cost a
listener the work of 2^30 such to take back.

Everything here that comes from the network is hostile: it says where to look, and what is found there has to
prove itself like any server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import scrypt
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

SERVICE_TYPE = "_flyx._tcp.local."

LOCAL_PORTS = (13599, 13600, 13601, 13602)
"""Ports that a sender which serves itself takes if it can: a receiver on the same computer asks them, also
without any network, and a firewall can be told of them. Not assigned by IANA, nor given out by systems."""

MAX_ADDRESSES = 16
"""Addresses of one announcement that are tried."""

_LABEL_SIZE, _TAG_SIZE = 8, 16
"""Bytes of randomness in a label, and of a tag."""

_COST = {"n": 1 << 14, "r": 8, "p": 1}
"""RFC 7914 §2: 16 MiB and about 50 ms."""

_LABEL = re.compile(r"[0-9a-f]{16}")
_TAG = re.compile(rb"[0-9a-f]{32}")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def draw_label(token: Callable[[int], bytes]) -> str:
    """Return a new instance name; token returns so many random bytes, such as `secrets.token_bytes`."""
    return token(_LABEL_SIZE).hex()


def is_label(text: str) -> bool:
    """Whether an instance name is one of ours."""
    return _LABEL.fullmatch(text) is not None


def properties_of(room_id: str, label: str) -> dict[str, str]:
    """Return what the TXT record of a room says. Takes 50 ms and 16 MiB."""
    return {"txtvers": "1", "room": _tag(room_id, label).decode()}


def is_announced(room_id: str, label: str, properties: Mapping[bytes, bytes | None]) -> bool:
    """Whether this is what the sender of a room would announce. Takes 50 ms and 16 MiB if it may be.

    Args:
        room_id: normalised.
        label: the instance name, from the network.
        properties: of its TXT record, from the network.
    """
    tag = properties.get(b"room")
    if properties.get(b"txtvers") != b"1" or tag is None or not is_label(label) or not _TAG.fullmatch(tag):
        return False
    return compare_digest(_tag(room_id, label), tag)


def _tag(room_id: str, label: str) -> bytes:
    return scrypt(room_id.encode(), salt=label.encode(), dklen=_TAG_SIZE, **_COST).hex().encode()


def worth_trying(texts: Iterable[str], own: Iterable[Network]) -> list[str]:
    """Return the addresses of an announcement that a room on the local network can have, likely ones first.

    An announcement must not make us speak to whatever its author likes: to this computer itself, which asks
    its own ports anyway, or to the internet.

    Args:
        texts: from the network; IPv6 link-local ones with their scope, such as fe80::1%2.
        own: networks that our interfaces are in.

    Returns:
        MAX_ADDRESSES at most: first those of our own networks, then link-local ones, then those of other
        private networks. Each once, and in each group IPv6 first.
    """
    networks = list(own)
    ranked: dict[str, tuple[int, int]] = {}
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if (rank := _rank(address, networks)) is not None:
            ranked[str(address)] = rank, -address.version
    return sorted(ranked, key=ranked.__getitem__)[:MAX_ADDRESSES]


def _rank(address: Address, own: list[Network]) -> int | None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    special = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
    if mapped is not None or special:
        return None
    scoped = isinstance(address, IPv6Address) and address.scope_id is not None
    if address.is_link_local:
        # An IPv6 one leads nowhere without its interface; an IPv4 one is in a network of ours, or is not.
        return 1 if scoped or address.version == 4 else None
    if scoped:
        return None
    if any(address.version == network.version and address in network for network in own):
        return 0
    return 2 if address.is_private else None


def url_of_address(address: str, port: int) -> str:
    """Return the URL of a server at an address that worth_trying() returned."""
    return f"ws://[{address}]:{port}" if ":" in address else f"ws://{address}:{port}"
