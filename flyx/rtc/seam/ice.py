"""ICE: candidates of ours, and the pair in use.

aiortc gathers all candidates before it gives an SDP, and one STUN server that does not answer costs 5 s
there. Here the host candidates are gathered first; server-reflexive ones are asked for over the same sockets
and told as they are found (trickle ICE, RFC 8838).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol
from aiortc import RTCDtlsTransport, RTCIceCandidate, RTCPeerConnection
from aiortc.rtcicetransport import RTCIceGatherer, candidate_from_aioice

from flyx.net.names import resolve
from flyx.rtc.attempts import PairAttempt, PairState
from flyx.rtc.seam.connection import COMPONENT, IceConnection, pair_in_use

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    RTCIceGatherer: ("_connection",),
    Connection: (
        *("_check_list", "_local_candidates", "_pair_remote_candidate", "_protocols"),
        "_remote_candidates",
    ),
}
"""Attributes that instances of these classes have and this module uses."""

STUN_TIMEOUT = 5.0
"""Seconds for a STUN server to answer: four requests, the last of which has 1.5 s for its answer."""

ADDRESSES_ASKED = 2
"""Of the addresses of a STUN server, so many of each family are asked by each socket."""

LOOPBACK_ADDRESSES = ["127.0.0.1"]


def _gatherer(pc: RTCPeerConnection) -> RTCIceGatherer:
    assert pc.sctp is not None, "data channels are created or offered first"
    return pc.sctp.transport.transport.iceGatherer


def connection_of(pc: RTCPeerConnection) -> Connection:
    """Return the ICE connection of a peer connection."""
    return _gatherer(pc)._connection


def connection_below(dtls: RTCDtlsTransport) -> Connection:
    """Return the ICE connection that a DTLS transport sends through."""
    return dtls.transport.iceGatherer._connection


def hurry(pc: RTCPeerConnection) -> None:
    """Let data take a direct pair before one is nominated: the peer takes it there."""
    ice = connection_of(pc)
    assert isinstance(ice, IceConnection)
    ice.hurries = True


def add_local_candidate(ice: Connection, candidate: Candidate, protocol: StunProtocol) -> None:
    """Use a candidate with a socket of its own, whenever it comes: the checks may have begun."""
    ice._protocols.append(protocol)
    ice._local_candidates.append(candidate)
    # What the peer has told before is paired with our other candidates.
    for remote in list(ice._remote_candidates):
        ice._pair_remote_candidate(remote)
    ice.sort_check_list()


async def gather_host_candidates(
    pc: RTCPeerConnection, addresses: Sequence[str], *, loopback: bool = True
) -> list[RTCIceCandidate]:
    """Gather and return the host candidates of these addresses; call before setLocalDescription.

    A machine without any network still has its loopback: then that is used, if it may be, so that two
    processes on one machine always find each other.
    """
    gatherer = _gatherer(pc)
    ice = gatherer._connection
    assert isinstance(ice, IceConnection)
    ice.addresses = addresses
    await gatherer.gather()
    if loopback and not ice.local_candidates:
        ice._local_candidates += await ice.bind(LOOPBACK_ADDRESSES)
    return gatherer.getLocalCandidates()


def refuse_remote(pc: RTCPeerConnection, host: str, port: int) -> None:
    """Have nothing to do with an address of the peer, also when it checks ours from there."""
    ice = connection_of(pc)
    assert isinstance(ice, IceConnection)
    ice.refuse(host, port)


def host_addresses(pc: RTCPeerConnection) -> list[str]:
    """Return the addresses of our host candidates, as far as they are gathered."""
    return [candidate.host for candidate in connection_of(pc)._local_candidates if candidate.type == "host"]


async def gather_server_reflexive(
    pc: RTCPeerConnection, server: tuple[str, int], on_candidate: Callable[[RTCIceCandidate], None]
) -> None:
    """Ask a STUN server (host, port) for our addresses as it sees them; each is told as soon as it is known.

    RFC 8489; the host candidates' own sockets ask, so that the answers are their mappings. A socket whose
    network has no way to the server gets no answer: that ends after STUN_TIMEOUT, and nothing waits for it.

    Raises:
        TimeoutError: the server has answered none of them.
        OSError: it cannot be asked: its name is not found, say.
    """
    ice = connection_of(pc)
    answers: list[bool] = []
    try:
        async with asyncio.timeout(STUN_TIMEOUT):
            addresses = await resolve(*server, socktype=socket.SOCK_DGRAM)
            async with asyncio.TaskGroup() as asking:
                for protocol in ice._protocols:
                    local = ipaddress.ip_address(protocol.local_candidate.host)
                    if protocol.local_candidate.type != "host" or local.is_link_local:
                        continue
                    family = socket.AF_INET6 if local.version == 6 else socket.AF_INET
                    reachable = [each.sockaddr for each in addresses if each.family == family]
                    for address in reachable[:ADDRESSES_ASKED]:
                        asking.create_task(_ask(ice, protocol, address, on_candidate, answers))
    except TimeoutError:
        # Some of our networks may have no way to it.
        pass
    if not answers:
        raise TimeoutError


async def _ask(
    ice: Connection,
    protocol: StunProtocol,
    server: tuple[Any, ...],
    on_candidate: Callable[[RTCIceCandidate], None],
    answers: list[bool],
) -> None:
    local = protocol.local_candidate
    try:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        response, _ = await protocol.request(request, server)
        host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    except (stun.TransactionError, OSError, KeyError):
        return
    answers.append(True)
    candidate = Candidate(
        candidate_foundation("srflx", "udp", local.host),
        COMPONENT,
        "udp",
        candidate_priority(COMPONENT, "srflx", local.priority >> 8 & 0xFFFF),
        host,
        port,
        "srflx",
        related_address=local.host,
        related_port=local.port,
    )
    if not _is_redundant(candidate, ice._local_candidates):
        ice._local_candidates.append(candidate)
        on_candidate(candidate_from_aioice(candidate))


def _is_redundant(candidate: Candidate, others: Iterable[Candidate]) -> bool:
    """Whether a candidate of the same address and the same base is known (RFC 8445 §5.1.3).

    A host without a NAT is told its own address, and several servers tell the same.
    """
    base = candidate.related_address, candidate.related_port
    return any(
        (other.host, other.port) == (candidate.host, candidate.port)
        and base in ((other.host, other.port), (other.related_address, other.related_port))
        for other in others
    )


def attempted_pairs(pc: RTCPeerConnection) -> list[PairAttempt]:
    """Return the pairs that were to be checked and how far that has come, the best first."""
    return [
        PairAttempt(
            local_type=pair.local_candidate.type,
            remote_type=pair.remote_candidate.type,
            family=ipaddress.ip_address(pair.local_candidate.host).version,
            state=PairState[pair.state.name],
            local_address=_host_and_port(*pair.local_addr),
            remote_address=_host_and_port(*pair.remote_addr),
            tunnelled=pair.local_candidate.transport.lower() != "udp",
        )
        for pair in connection_of(pc)._check_list
    ]


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def count_told_candidates(pc: RTCPeerConnection) -> int:
    """Return how many usable candidates the peer has told; those learned by checks are not counted."""
    return sum(candidate.type != "prflx" for candidate in connection_of(pc)._remote_candidates)


def selected_pair(pc: RTCPeerConnection) -> tuple[RTCIceCandidate, RTCIceCandidate] | None:
    """Return the candidate pair in use, local and remote; None before there is one."""
    pair = pair_in_use(connection_of(pc))
    if pair is None:
        return None
    return candidate_from_aioice(pair.local_candidate), candidate_from_aioice(pair.remote_candidate)
