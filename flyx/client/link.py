"""One peer connection and the signaling that makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from flyx.client.failures import failure_of
from flyx.client.signaling import Signaling
from flyx.client.tunnel import TunnelSocket, open_tunnel
from flyx.errors import FlyxError, NoRelay
from flyx.net.interfaces import offered_addresses
from flyx.rtc.attempts import Attempts
from flyx.rtc.policy import ANY_PATH, IcePolicy
from flyx.rtc.servers import TurnServer, turn_servers
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    IceCandidate,
    IceCandidateData,
    IceServer,
    Message,
    Offer,
    OfferData,
)
from flyx.signaling.messages import IceCandidateInit as WireCandidate
from flyx.transfer.messages import CONTROL_CHANNEL, DATA_CHANNEL, MIN_MESSAGE_SIZE

if TYPE_CHECKING:
    from flyx.rtc.channel import Channels
    from flyx.rtc.peer import IceCandidateInit, Reply

TELL_AFTER = 5.0
"""Seconds of connecting after which people want to know what is tried."""


class ConnectionOptions(Struct, frozen=True):
    """What the person allows connections, and has them ask.

    Attributes:
        policy: which paths they may take.
        ice_servers: asked before those of the signaling server.
    """

    policy: IcePolicy = ANY_PATH
    ice_servers: tuple[IceServer, ...] = ()

    def check(self, signaling: Signaling) -> None:
        """Check that there is a way to connect at all.

        Raises:
            NoRelay: only relays may be used, and there is no TURN server.
        """
        if self.policy.relay_only and not turn_servers(_turn_servers(self, signaling))[0]:
            raise NoRelay


ANY_CONNECTION = ConnectionOptions()


def _turn_servers(options: ConnectionOptions, signaling: Signaling) -> list[TurnServer]:
    return [
        TurnServer(url, server.username, server.credential)
        for server in (*options.ice_servers, *signaling.ice_servers)
        if server.username and server.credential
        for url in server.urls
        if url.lower().startswith("turn")
    ]


class Link:
    """A peer connection whose descriptions and candidates travel through the room.

    Feed it the peer's messages with take(); wait for the channels with connected().
    """

    def __init__(
        self,
        signaling: Signaling,
        target_id: str | None,
        *,
        options: ConnectionOptions = ANY_CONNECTION,
        congestion: str | None = None,
        probes: bool = True,
        reply: Reply | None = None,
    ) -> None:
        """Args:
        signaling: the room both are in.
        target_id: the receiver to talk to; None when we are the receiver: ours always go to the sender.
        options: what the person allows.
        congestion: name of the congestion control of what we send; None for the default.
        probes: look for packets larger than those that every path takes.
        reply: what a receiver has to say to the sender's first messages; see PeerConnection.answer().
        """
        from flyx.rtc.peer import PeerConnection

        self._signaling = signaling
        self._target_id = target_id
        # Whom a tunnel would lead to; a receiver knows that by the offer.
        self._peer_id = target_id
        self._reply = reply
        servers = (*options.ice_servers, *signaling.ice_servers)
        labels = (CONTROL_CHANNEL, DATA_CHANNEL)
        self.connection = PeerConnection(
            labels,
            [url for server in servers for url in server.urls],
            self._tell_candidate,
            min_message_size=MIN_MESSAGE_SIZE,
            turn_servers=_turn_servers(options, signaling),
            congestion=congestion,
            addresses=offered_addresses(on_link=True) if signaling.on_link else None,
            policy=options.policy,
            open_tunnel=self._open_tunnel if signaling.joined.tunnel is not None else None,
            probes=probes,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        # Set when the sender has offered us a connection.
        self.offered = asyncio.Event()
        # Set when the receiver has answered our offer, or we have given up.
        self.settled = asyncio.Event()

    async def connected(self, tell: Callable[[Attempts], None]) -> Channels:
        """Wait until the channels are open, and tell what is tried if that takes TELL_AFTER.

        Raises:
            FlyxError: no connection comes about; see PeerConnection.connected().
        """
        connecting = asyncio.ensure_future(self.connection.connected())
        try:
            done, _ = await asyncio.wait((connecting,), timeout=TELL_AFTER)
            if not done:
                tell(self.connection.attempts())
            return await connecting
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)

    async def offer(self, first: Sequence[str] = ()) -> None:
        """Offer a connection to the receiver, and with it these first messages of the control channel."""
        sdp = await self.connection.offer(first)
        self._signaling.post(Offer(data=OfferData(sdp=sdp, target_id=self._target_id)))

    def take(self, message: Message) -> None:
        """Take an offer, answer or candidate of the peer. A bad one is the end of the attempt to connect."""
        match message:
            case Offer(data=data) if not self.offered.is_set():
                self.offered.set()
                self._peer_id = data.client_id
                self._spawn(partial(self._answer, data.sdp))
            case Answer(data=data) if not self.settled.is_set():
                self.settled.set()
                self._spawn(partial(self.connection.accept_answer, data.sdp))
            case IceCandidate(data=data):
                self._spawn(partial(self.connection.add_candidate, _candidate(data.candidate)))
            case _:
                pass

    def give_up(self, error: FlyxError) -> None:
        """Have connected() raise this error, unless the connection is made."""
        self.connection.give_up(error)
        self.settled.set()
        self.offered.set()

    async def close(self) -> None:
        """Close the connection and end what is under way for it. What fails in that changes no result."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.connection.close()
        except Exception as error:
            failure_of(error, "closing a connection")

    async def _answer(self, offer: str) -> None:
        sdp = await self.connection.answer(offer, self._reply)
        self._signaling.post(Answer(data=AnswerData(sdp=sdp)))

    async def _open_tunnel(self) -> TunnelSocket | None:
        return await open_tunnel(self._signaling, self._peer_id) if self._peer_id else None

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        # Descriptions and candidates may wait for name lookups: one peer's must not hold up another's.
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        # Made here: a task that is cancelled before it begins would leave a coroutine that nobody awaits.
        try:
            await work()
        except Exception as error:
            self.connection.give_up(failure_of(error, "signaling of a connection"))

    def _tell_candidate(self, candidate: IceCandidateInit | None) -> None:
        wire = None
        if candidate is not None:
            wire = WireCandidate(
                candidate=candidate["candidate"],
                sdp_mid=candidate["sdpMid"],
                sdp_m_line_index=candidate["sdpMLineIndex"],
            )
        self._signaling.post(IceCandidate(data=IceCandidateData(candidate=wire, target_id=self._target_id)))


def _candidate(wire: WireCandidate | None) -> IceCandidateInit | None:
    if wire is None:
        return None
    return {"candidate": wire.candidate, "sdpMid": wire.sdp_mid, "sdpMLineIndex": wire.sdp_m_line_index}
