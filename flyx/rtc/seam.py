"""The only user of private names of aiortc and aioice.

aiortc gathers all candidates before it gives an SDP, and one STUN server that does not answer costs 5 s
there. Here the host candidates are gathered first; server-reflexive ones are asked for over the same sockets
and told as they are found (trickle ICE, RFC 8838). Each private name is in PRIVATE_NAMES, and a test makes
sure that the pinned release still has it.
"""

from __future__ import annotations

import asyncio

from aioice import Connection, stun
from aioice.ice import server_reflexive_candidate
from aiortc import RTCIceCandidate, RTCPeerConnection
from aiortc.rtcicetransport import RTCIceGatherer, candidate_from_aioice

PRIVATE_NAMES = {
    RTCIceGatherer: ("_connection",),
    Connection: ("_local_candidates", "_nominated", "_protocols"),
}
"""Attributes that instances of these classes have and this module uses."""

COMPONENT = 1
"""The only component of a data channel's ICE stream."""

LOOPBACK_ADDRESSES = ["127.0.0.1"]


def _gatherer(pc: RTCPeerConnection) -> RTCIceGatherer:
    assert pc.sctp is not None, "data channels are created or offered first"
    return pc.sctp.transport.transport.iceGatherer


def _ice(pc: RTCPeerConnection) -> Connection:
    return _gatherer(pc)._connection


async def gather_host_candidates(pc: RTCPeerConnection) -> list[RTCIceCandidate]:
    """Gather and return the host candidates; call before setLocalDescription, with no ICE servers configured.

    A machine without any network still has its loopback, which aioice leaves out: then that is used, so that
    two processes on one machine always find each other.
    """
    gatherer = _gatherer(pc)
    await gatherer.gather()
    ice = gatherer._connection
    if not ice.local_candidates:
        ice._local_candidates += await ice.get_component_candidates(COMPONENT, LOOPBACK_ADDRESSES)
    return gatherer.getLocalCandidates()


async def server_reflexive_candidates(
    pc: RTCPeerConnection, server: tuple[str, int]
) -> list[RTCIceCandidate]:
    """Ask a STUN server (host, port) for our addresses as it sees them; none if it does not answer.

    RFC 8489; the host candidates' own sockets ask, so that the answers are their mappings.
    """
    ice = _ice(pc)
    asked = [
        asyncio.ensure_future(server_reflexive_candidate(protocol, server))
        for protocol in ice._protocols
        # The name of the server is looked up as IPv4 only.
        if ":" not in protocol.local_candidate.host
    ]
    found = []
    try:
        for answer in asked:
            try:
                candidate, _ = await answer
            except (stun.TransactionError, OSError, KeyError):
                continue
            ice._local_candidates.append(candidate)
            found.append(candidate_from_aioice(candidate))
    finally:
        for answer in asked:
            answer.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return found


def selected_pair(pc: RTCPeerConnection) -> tuple[RTCIceCandidate, RTCIceCandidate] | None:
    """Return the nominated candidate pair, local and remote; None before there is one."""
    pair = _ice(pc)._nominated.get(COMPONENT)
    if pair is None:
        return None
    return candidate_from_aioice(pair.local_candidate), candidate_from_aioice(pair.remote_candidate)
