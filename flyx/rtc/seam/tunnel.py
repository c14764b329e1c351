"""ICE: a candidate pair that is a tunnel through the signaling server (flyx.rtc.tunnel).

Neither of its two candidates is told to the peer. Each side adds both when the server says that the two ends
are there, so that no older peer, and no socket of ours, ever sends to their addresses. Their transport is not
UDP: no other candidate pairs with them (RFC 8445 §6.1.2.2).
"""

from __future__ import annotations

from aioice import Candidate, Connection
from aioice.candidate import candidate_priority
from aioice.ice import StunProtocol
from aiortc import RTCPeerConnection

from flyx.rtc.seam.connection import COMPONENT
from flyx.rtc.seam.ice import add_local_candidate, connection_of
from flyx.rtc.tunnel import RECEIVER_ADDRESS, SENDER_ADDRESS, Address, DatagramSocket, TunnelTransport

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {Connection: ("_nominated", "_remote_candidates")}
"""Attributes that instances of these classes have and this module uses."""

TRANSPORT = "tunnel"
"""The transport of both candidates."""

_FOUNDATION = "tunnel"
_PRIORITY = candidate_priority(COMPONENT, "relay", 0)
"""The least that there is: every other relayed pair is better."""


def add_tunnel(pc: RTCPeerConnection, socket: DatagramSocket, *, offering: bool) -> None:
    """Use a tunnel to the peer, which adds its end at the same time.

    Args:
        pc: both descriptions are there.
        socket: lives and ends with the connection from now on.
        offering: we are the sender.
    """
    ice = connection_of(pc)
    ours, theirs = SENDER_ADDRESS, RECEIVER_ADDRESS
    if not offering:
        ours, theirs = theirs, ours
    protocol = StunProtocol(ice)
    protocol.local_candidate = _candidate(ours)
    ice._remote_candidates.append(_candidate(theirs))
    # Before the first datagram of the peer is read.
    TunnelTransport(socket, protocol, ours, theirs)
    add_local_candidate(ice, protocol.local_candidate, protocol)


def is_tunnelled(pc: RTCPeerConnection) -> bool:
    """Whether the pair in use is the tunnel."""
    pair = connection_of(pc)._nominated.get(COMPONENT)
    return pair is not None and pair.local_candidate.transport == TRANSPORT


def _candidate(address: Address) -> Candidate:
    return Candidate(_FOUNDATION, COMPONENT, TRANSPORT, _PRIORITY, *address, "relay")
