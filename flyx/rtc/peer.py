"""One peer connection with the two data channels of a transfer.

The sender offers: offer(), then accept_answer(). The receiver answers: answer(). Candidates are in the SDP as
far as they are known, and on_candidate gets them as well; those of the other side go to add_candidate().
connected() gives the channels once both are open. flyx.rtc.description judges what a peer sends.

What comes first on the control channel may travel in the descriptions, a round trip and more before there is
a channel: the offer has the sender's first messages, the answer the receiver's if it has read those. If not,
as with a browser, they are sent when the channel is open. To who listens to a channel it is the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any, TypedDict

import flyx.rtc.seam  # noqa: F401  # loads aiortc without what we do not use

# isort: split
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceCandidate, RTCSessionDescription
from aiortc.sdp import candidate_to_sdp

from flyx.errors import FlyxError, PeerUnreachable, RemoteProtocolError, as_flyx_error
from flyx.net.interfaces import offered_addresses
from flyx.rtc import servers
from flyx.rtc.attempts import (
    OK,
    Attempts,
    ServerAttempt,
    failure_hint,
    failure_outcome,
    failure_text,
    log_lines,
    server_host,
)
from flyx.rtc.channel import Channel, Channels
from flyx.rtc.description import (
    CHANNELS,
    EARLY_DATA,
    FEATURES,
    MAX_REMOTE_CANDIDATES,
    MDNS_SUFFIX,
    Description,
    RemoteCandidates,
    Told,
    extend,
    judge,
)
from flyx.rtc.path import CandidatePair, is_of_local_network
from flyx.rtc.policy import ANY_PATH, IcePolicy
from flyx.rtc.relays import gather_relayed_candidates
from flyx.rtc.sctp_transport import SctpTransport, make_peer_connection
from flyx.rtc.seam import dtls, flights, ice, tunnel
from flyx.rtc.servers import StunAddress, TurnServer
from flyx.rtc.tunnel import DatagramSocket
from flyx.sctp.transmission import SendStatistics

logger = logging.getLogger("flyx.rtc")

Reply = Callable[[Sequence[str], bytes, bytes], Sequence[str]]
"""Takes the first messages of the peer that offers, the SHA-256 of our certificate, and of that which the
offer claims for the peer; returns our first messages, or none if it has not taken those."""

CONNECT_TIMEOUT = 20.0
"""Seconds from the descriptions to open channels. ICE gives up before, once every pair has failed."""

TUNNEL_PATIENCE = 5.0
"""Seconds from the descriptions to the last resort, a tunnel through the signaling server."""


class IceCandidateInit(TypedDict):
    """RTCIceCandidateInit of the W3C WebRTC specification, §4.8.1."""

    candidate: str
    sdpMid: str | None
    sdpMLineIndex: int | None


class PeerConnection:
    """An RTCPeerConnection, its candidates trickled, its two channels."""

    def __init__(
        self,
        labels: tuple[str, str],
        stun_urls: Sequence[str],
        on_candidate: Callable[[IceCandidateInit | None], None],
        *,
        min_message_size: int = 0,
        turn_servers: Sequence[TurnServer] = (),
        congestion: str | None = None,
        addresses: Sequence[str] | None = None,
        policy: IcePolicy = ANY_PATH,
        open_tunnel: Callable[[], Awaitable[DatagramSocket | None]] | None = None,
        probes: bool = True,
    ) -> None:
        """Args:
        labels: of the control channel and the data channel.
        stun_urls: "stun:host:port" (RFC 7064), to learn server-reflexive candidates from.
        on_candidate: called with each local candidate, and with None after the last.
        min_message_size: bytes of the largest message that has to be sent whole: a peer that accepts less
            is refused.
        turn_servers: to be reached through when there is no other path.
        congestion: name of the congestion control; None for the default.
        addresses: of this machine, to be offered to the peer, the best first; None for those that suit.
        policy: which paths may be used.
        open_tunnel: opens the last resort, which the peer does as well; None if there is none.
        probes: look for packets larger than those that every path takes.
        """
        self._labels = labels
        self._addresses = addresses
        self._policy = policy
        self._stun_servers, malformed = servers.stun_servers([] if policy.relay_only else stun_urls)
        self._turn_servers, unusable = servers.turn_servers([] if policy.no_relay else turn_servers)
        # By URL, those that are asked or have been.
        self._servers: dict[str, ServerAttempt] = {}
        self._open_tunnel = None if policy.no_relay else open_tunnel
        # We offer; else we answer.
        self._offering = False
        # Both descriptions are there.
        self._described = asyncio.Event()
        for each in malformed:
            self._note(ServerAttempt(each.url, "stun", f"cannot be asked: {each.reason}"))
        for each in unusable:
            self._note(ServerAttempt(each.url, "turn", f"cannot be asked: {each.reason}"))
        self._on_candidate = on_candidate
        self._min_message_size = min_message_size
        # What the peer accepts, and can do beyond WebRTC; set by its description.
        self._max_message_size = 0
        self._peer_features: frozenset[str] = frozenset()
        # No ICE servers here: aiortc would wait for them; see seam.
        # The channels that the peer may open: none unless it offers.
        self._expected: set[str] = set()
        self._pc = make_peer_connection(
            RTCConfiguration(iceServers=[]),
            congestion,
            expected=self._expected,
            on_violation=self._on_violation,
            probes=probes,
        )
        self._pc.on("datachannel", self._on_datachannel)
        self._pc.on("connectionstatechange", self._on_state)
        self._channels: dict[str, Channel] = {}
        # Those that we offer.
        self._offered: list[RTCDataChannel] = []
        # Messages for the control channel that have not reached the peer by our description.
        self._first: Sequence[str] = ()
        self._opened: set[str] = set()
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Remote candidates that came before both descriptions were there (None: the last has come); None once
        # they are.
        self._early_candidates: list[str | None] | None = []
        self._remote_candidates = RemoteCandidates()
        self._trickling: asyncio.Task[None] | None = None
        self._relaying: asyncio.Task[None] | None = None
        # Done when there is a relayed candidate.
        self._relayed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Our own candidates are all there, and the peer has told its last.
        self._gathered = self._peer_gathered = False
        # What ended a way to the peer that should have led there, or said why it does not.
        self._mistake: FlyxError | None = None
        # The candidates that came early and have names.
        self._adding: asyncio.Future[list[None]] | None = None

    async def offer(self, first: Sequence[str] = ()) -> str:
        """Create the channels and return the SDP that offers them.

        Args:
            first: messages of the control channel, which the peer may read in the offer.
        """
        self._offering = True
        self._first = first
        self._offered = [self._pc.createDataChannel(label) for label in self._labels]
        for channel in self._offered:
            self._await_open(channel)
        return await self._describe_ourselves(first)

    async def answer(self, offer: str, reply: Reply | None = None) -> str:
        """Take the peer's offer and return the SDP that answers it.

        Args:
            offer: its SDP.
            reply: given the first messages that the offer has; None to wait for them on the channel.

        Raises:
            RemoteProtocolError: the offer is not one of data channels over DTLS.
        """
        judged = await self._describe_peer(offer, "offer")
        if CHANNELS in self._peer_features:
            for stream_id, label in enumerate(self._labels):
                self._await_open(self._pc.createDataChannel(label, negotiated=True, id=stream_id))
        else:
            self._expected.update(self._labels)
        first: Sequence[str] = ()
        can_tell = isinstance(self._pc.sctp, SctpTransport)
        if reply and can_tell and judged.told.messages and judged.fingerprint:
            first = reply(judged.told.messages, dtls.own_fingerprint(self._pc), judged.fingerprint)
        return await self._describe_ourselves(first)

    async def accept_answer(self, answer: str) -> None:
        """Take the peer's answer to our offer.

        Raises:
            RemoteProtocolError: it is not an answer to that offer.
        """
        judged = await self._describe_peer(answer, "answer")
        if CHANNELS in self._peer_features and isinstance(self._pc.sctp, SctpTransport):
            self._pc.sctp.agree_on(self._offered)
        if judged.told.messages and self._first:
            # It has taken ours.
            self._first = ()
            self._channels[self._labels[0]].take_first(judged.told.messages)
        await self._add_early_candidates()
        self._add_named_candidates()

    async def add_candidate(self, candidate: IceCandidateInit | None) -> None:
        """Take a candidate of the peer, None after its last. One that is refused is ignored: others may work.

        It may wait for the address behind a name (mDNS).
        """
        # An empty candidate also means the end (W3C WebRTC §4.4.2, addIceCandidate).
        value = candidate["candidate"] if candidate else ""
        if self._early_candidates is None:
            await self._add_candidate(value or None)
        elif len(self._early_candidates) <= MAX_REMOTE_CANDIDATES:
            self._early_candidates.append(value or None)

    async def connected(self) -> Channels:
        """Wait until both channels are open.

        Raises:
            PeerUnreachable: ICE or DTLS failed, or it took more than CONNECT_TIMEOUT.
            RemoteProtocolError: the peer broke the protocol of data channels.
            FlyxError: the one given to give_up(); or no connection comes about, and a way to the peer was
                ended by a mistake of ours.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._outcome), CONNECT_TIMEOUT)
        except TimeoutError:
            reason = f"it was not made within {CONNECT_TIMEOUT:.0f} s"
            raise self._unreachable(reason) from None
        control, data = (self._channels[label] for label in self._labels)
        for message in self._first:
            control.send(message)
        self._first = ()
        return Channels(control, data, self._max_message_size)

    def path(self) -> CandidatePair | None:
        """The candidate pair in use, once there is one."""
        pair = ice.selected_pair(self._pc)
        if pair is None:
            return None
        local, remote = pair
        if tunnel.is_tunnelled(self._pc):
            return CandidatePair(local.type, remote.type, tunnelled=True)
        hosts = {server_host(each.url) for each in self._servers.values() if _relays(each)}
        return CandidatePair(
            local.type,
            remote.type,
            family=ip_address(local.ip.partition("%")[0]).version,
            is_local=local.type == remote.type == "host" and is_of_local_network(remote.ip),
            relay=hosts.pop() if local.type == "relay" and len(hosts) == 1 else None,
        )

    def statistics(self) -> SendStatistics | None:
        """What sending has shown of the path; None if nothing yet, or another association is in use."""
        sctp = self._pc.sctp
        return sctp.statistics() if isinstance(sctp, SctpTransport) else None

    def attempts(self) -> Attempts:
        """What has been tried so far to reach the other side, after close() as well."""
        if self._pc.sctp is None:
            # Nothing has been offered yet.
            return Attempts(servers=tuple(self._servers.values()))
        pairs, told = ice.attempted_pairs(self._pc), ice.count_told_candidates(self._pc)
        return Attempts(tuple(pairs), tuple(self._servers.values()), told)

    def ends(self) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
        """The address of our socket on the path in use, and the one that it sends to: that of the peer, of a
        TURN server, of a tunnel's server or of a proxy; None if there is no path, or they are not known."""
        return dtls.socket_addresses(self._pc)

    def fall_silent(self) -> None:
        """Send nothing more: the network of this computer has changed, and our addresses are not the way out.

        What is still sent goes out by the new way, where Linux asks for the new router in the name of the
        last packet that waits for it (ARP). A strict router does not answer for an address of another
        network, and nothing of ours leaves until such packets cease. The kernel's own answers to what still
        comes for closed sockets (ICMP) are such packets: the sockets outlive close() for a while.
        """
        dtls.fall_silent(self._pc)

    def _unreachable(self, reason: str) -> FlyxError:
        """Return the error that says what was tried; addresses are for --debug alone."""
        attempts = self.attempts()
        for line in log_lines(attempts):
            logger.debug("tried %s", line)
        if self._mistake is not None:
            return self._mistake
        hint = failure_hint(attempts, refuses_relays=self._policy.no_relay)
        return PeerUnreachable(reason=failure_text(attempts, reason), hint=hint)

    def fingerprints(self) -> tuple[bytes, bytes]:
        """The SHA-256 of our DTLS certificate and of the peer's, once connected() has returned."""
        return dtls.certificate_fingerprints(self._pc)

    def give_up(self, error: FlyxError) -> None:
        """Have connected() raise this error, unless the connection is made."""
        self._settle(error)

    async def close(self) -> None:
        """Close everything; safe to call at any time, more than once."""
        under_way = [task for task in (self._trickling, self._relaying, self._adding) if task]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        self._settle(PeerUnreachable(reason="the connection was closed"))
        # Retrieved, so that asyncio does not complain of an outcome nobody waited for.
        self._outcome.exception()
        await self._pc.close()

    async def _add_early_candidates(self) -> None:
        """Take the candidates that came before the checks begin; those with names, and the end, wait."""
        early, self._early_candidates = self._early_candidates or [], []
        for value in early:
            if value is None or MDNS_SUFFIX in value:
                self._early_candidates.append(value)
            else:
                await self._add_candidate(value)

    def _add_named_candidates(self) -> None:
        """Take those, now that our description is there: a browser that offers tells no address before."""
        named, self._early_candidates = self._early_candidates or [], None
        self._described.set()
        # All of these begin before the end is told, which waits for those whose name is looked up.
        named.sort(key=lambda value: value is None)
        self._adding = asyncio.gather(*map(self._add_candidate, named))

    async def _add_candidate(self, value: str | None) -> None:
        if value is None:
            self._peer_gathered = True
            await self._end_candidates()
            return
        candidate = self._remote_candidates.judge(value, ice.host_addresses(self._pc))
        if candidate is None:
            logger.debug("ignored a candidate")
            return
        if self._policy.no_relay and candidate.type == "relay":
            ice.refuse_remote(self._pc, candidate.ip, candidate.port)
            return
        if self._policy.relay_only and MDNS_SUFFIX in value:
            # To ask for it by multicast would tell our address.
            return
        candidate.sdpMLineIndex = 0
        try:
            await self._pc.addIceCandidate(candidate)
        except (ValueError, OSError) as error:
            # It came after the last one, or the multicast for its name cannot be sent.
            logger.debug("ignored a candidate: %s", type(error).__name__)

    async def _end_candidates(self) -> None:
        """Tell ICE that no candidate will follow, once that is so on both sides.

        It ends its checks when no pair is left to check, and would not check those of a candidate of ours
        that comes later.
        """
        if self._gathered and self._peer_gathered:
            await self._pc.addIceCandidate(None)

    async def _describe_ourselves(self, first: Sequence[str]) -> str:
        answering = self._pc.signalingState == "have-remote-offer"
        description = await (self._pc.createAnswer() if answering else self._pc.createOffer())
        if self._policy.limits_addresses:
            addresses = self._policy.offered_addresses()
        else:
            addresses = offered_addresses() if self._addresses is None else list(self._addresses)
        candidates = await ice.gather_host_candidates(
            self._pc, addresses, loopback=not self._policy.limits_addresses
        )
        relaying = self._relaying = asyncio.create_task(self._gather_relayed(candidates))
        if self._policy.relay_only:
            # aiortc begins no checks without a candidate of ours.
            await asyncio.wait((relaying, self._relayed), return_when=asyncio.FIRST_COMPLETED)
        if answering:
            await self._add_early_candidates()
        await self._pc.setLocalDescription(description)
        self._trickling = asyncio.create_task(self._trickle(candidates, relaying))
        if answering:
            self._add_named_candidates()
        # More candidates may follow: the SDP must not say that these are all (RFC 8838 §8.2).
        sdp: str = self._pc.localDescription.sdp.replace("a=end-of-candidates\r\n", "")
        sctp = self._pc.sctp
        if not isinstance(sctp, SctpTransport):
            return sdp
        features = FEATURES if self._offering else FEATURES & self._peer_features
        told = Told(sctp.init_chunk(offering=self._offering), features, tuple(first))
        return extend(sdp, description.type, told)

    async def _describe_peer(self, sdp: str, kind: str) -> Description:
        judged = judge(sdp, kind, min_message_size=self._min_message_size)
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=judged.sdp, type=kind))
        except Exception as error:
            # aiortc raises any exception where it meets what it does not expect.
            logger.debug("bad %s", kind, exc_info=error)
            raise RemoteProtocolError(reason=f"a bad session description ({kind})") from error
        self._max_message_size = judged.max_message_size
        assert self._early_candidates is not None, "described once"
        self._early_candidates[:0] = judged.candidates[:MAX_REMOTE_CANDIDATES]
        if judged.complete:
            self._early_candidates.append(None)
        sctp, told = self._pc.sctp, judged.told
        if isinstance(sctp, SctpTransport):
            self._peer_features = told.features
            if told.init_chunk is not None:
                sctp.take_init_chunk(told.init_chunk)
            if told.features:
                flights.repeat(self._pc)
            if EARLY_DATA in told.features:
                ice.hurry(self._pc)
        return judged

    async def _gather_relayed(self, early: list[RTCIceCandidate]) -> None:
        """Gather relayed candidates: those that come before our description are added to the early ones."""

        def take(candidate: RTCIceCandidate) -> None:
            if self._trickling is None:
                early.append(candidate)
            else:
                self._tell_candidate(candidate)
            if not self._relayed.done():
                self._relayed.set_result(None)

        await gather_relayed_candidates(self._pc, self._turn_servers, self._policy, take, self._note)

    async def _trickle(self, early: list[RTCIceCandidate], relaying: asyncio.Task[None]) -> None:
        for candidate in early:
            self._tell_candidate(candidate)
        asked = [asyncio.create_task(self._trickle_from(server)) for server in self._stun_servers]
        asked.append(relaying)
        if self._open_tunnel is not None:
            # Until it is decided, candidates may follow, for the peer as well: ICE does not fail.
            asked.append(asyncio.create_task(self._tunnel(self._open_tunnel)))
        try:
            results = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            for task in asked:
                task.cancel()
        for result in results:
            if isinstance(result, Exception):
                # A mistake of ours: the other ways may still lead to the peer.
                self._mistake = as_flyx_error(result)
                logger.error("a way to the peer failed", exc_info=result)
        self._on_candidate(None)
        self._gathered = True
        await self._end_candidates()

    async def _trickle_from(self, server: StunAddress) -> None:
        self._note(ServerAttempt(server.url, "stun"))
        try:
            await ice.gather_server_reflexive(self._pc, (server.host, server.port), self._tell_candidate)
        except OSError as error:
            self._note(ServerAttempt(server.url, "stun", failure_outcome(error)))
        else:
            self._note(ServerAttempt(server.url, "stun", OK))

    def _note(self, attempt: ServerAttempt) -> None:
        self._servers[attempt.url] = attempt

    def _tell_candidate(self, candidate: RTCIceCandidate) -> None:
        self._on_candidate(_candidate_init(candidate))

    async def _tunnel(self, open_tunnel: Callable[[], Awaitable[DatagramSocket | None]]) -> None:
        """Have a tunnel when no other path has been found in time."""
        await self._described.wait()
        await asyncio.wait((self._outcome,), timeout=TUNNEL_PATIENCE)
        if self._outcome.done() or self.path() is not None:
            return
        socket = await open_tunnel()
        if socket is not None:
            tunnel.add_tunnel(self._pc, socket, offering=self._offering)

    def _await_open(self, channel: RTCDataChannel) -> None:
        self._channels[channel.label] = Channel(channel)
        channel.on("open", lambda: self._on_open(channel.label))

    def _on_datachannel(self, channel: RTCDataChannel) -> None:
        self._channels[channel.label] = Channel(channel)
        self._on_open(channel.label)

    def _on_violation(self, error: RemoteProtocolError) -> None:
        self._settle(error)
        # They close next.
        for channel in self._channels.values():
            channel.violation = error

    def _on_open(self, label: str) -> None:
        self._opened.add(label)
        if len(self._opened) == len(self._labels):
            self._settle(None)

    def _settle(self, error: FlyxError | None) -> None:
        """Decide what connected() tells, unless that is decided."""
        if self._outcome.done():
            return
        if error:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(None)

    def _on_state(self) -> None:
        state = self._pc.connectionState
        logger.debug("connection %s", state)
        if state in ("failed", "closed"):
            self._settle(
                self._unreachable("it could not be made")
                if state == "failed"
                else PeerUnreachable(reason="the connection was closed")
            )
            for channel in self._channels.values():
                channel.mark_closed()


def _relays(server: ServerAttempt) -> bool:
    return server.kind == "turn" and server.outcome == OK


def _candidate_init(candidate: RTCIceCandidate) -> IceCandidateInit:
    return {"candidate": "candidate:" + candidate_to_sdp(candidate), "sdpMid": "0", "sdpMLineIndex": 0}
