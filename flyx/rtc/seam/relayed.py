"""Relayed candidates: an ICE candidate whose address is on a TURN server (RFC 8445 §5.1.1.2)."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_address
from typing import Any

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol
from aiortc import RTCIceCandidate, RTCPeerConnection
from aiortc.rtcicetransport import candidate_from_aioice

from flyx.rtc.seam.connection import COMPONENT
from flyx.rtc.seam.ice import add_local_candidate, connection_of
from flyx.rtc.seam.turn import TurnClient, version_of


class RelayTransport(asyncio.DatagramTransport):
    """A datagram transport whose address is on a TURN server.

    get_extra_info() knows "sockname", the relayed address, and "related_address", ours as the server sees it.
    """

    def __init__(self, client: TurnClient, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__({"sockname": client.relayed_address, "related_address": client.mapped_address})
        self._client = client
        client.receiver = protocol
        protocol.connection_made(self)

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a datagram; after the end it is dropped."""
        if not self._client.closing:
            self._client.send_to_peer(bytes(data), addr)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to this protocol from now on."""
        assert isinstance(protocol, asyncio.DatagramProtocol)
        self._client.receiver = protocol

    @property
    def addresses(self) -> tuple[Any, Any]:
        """Return the addresses of our socket and of what it sends to: the server, or a proxy."""
        return self._client.addresses

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait for room on the way to the server."""
        return self._client.backlog

    def is_closing(self) -> bool:
        """Whether the allocation is given back, or lost."""
        return self._client.closing

    def close(self) -> None:
        """Give the allocation back; connection_lost(None) follows at once."""
        self._client.close()

    abort = close


def remote_versions(pc: RTCPeerConnection) -> set[int]:
    """Return the IP versions of the peer's candidates that are known, names apart."""
    versions: set[int] = set()
    for candidate in connection_of(pc).remote_candidates:
        with contextlib.suppress(ValueError):
            versions.add(ip_address(candidate.host).version)
    return versions


def add_relayed_candidate(
    pc: RTCPeerConnection, client: TurnClient, *, hide_related_address: bool, preference: int
) -> RTCIceCandidate:
    """Have a peer connection use an allocation, which lives and ends with it; return the candidate.

    Args:
        pc: in any state.
        client: has an allocation.
        hide_related_address: say nothing of our own address (RFC 8839 §5.1, RFC 9429 §3.5.3).
        preference: of 0 to 65,535, among relayed candidates (RFC 8445 §5.1.2.1).
    """
    candidate = use_allocation(connection_of(pc), client, hide_related_address, preference)
    return candidate_from_aioice(candidate)


def use_allocation(
    ice: Connection, client: TurnClient, hide_related_address: bool, preference: int
) -> Candidate:
    """Do the same for an ICE connection."""
    protocol = StunProtocol(ice)
    transport = RelayTransport(client, protocol)
    host, port = transport.get_extra_info("sockname")
    related = transport.get_extra_info("related_address")
    if hide_related_address:
        related = ("0.0.0.0" if version_of((host, port)) == 4 else "::", 9)  # noqa: S104  # says nothing
    candidate = protocol.local_candidate = Candidate(
        foundation=candidate_foundation("relay", "udp", host),
        component=COMPONENT,
        transport="udp",
        priority=candidate_priority(COMPONENT, "relay", preference),
        host=host,
        port=port,
        type="relay",
        related_address=related[0],
        related_port=related[1],
    )
    add_local_candidate(ice, candidate, protocol)
    return candidate
