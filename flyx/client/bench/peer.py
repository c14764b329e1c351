"""The path to another computer: one side waits in a room (host), the other comes with the code (visit).

Both prove to know the code, as for any transfer, over each of two connections: over the first the visitor
sends to the host, over the second the host to the visitor. Either needs the other to be capable of this
(pairing.MEASUREMENTS), which ends the pairing with a `flyx send` or a `flyx receive` before words are given:
no try is used up, and its code stays good.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from flyx.client import events
from flyx.client.bench.measured import Measured
from flyx.client.bench.noise import Amount
from flyx.client.bench.one_way import PEER, OneWay, Tell, as_the_other_side_saw
from flyx.client.codes import format_code
from flyx.client.failures import failure_of
from flyx.client.link import ANY_CONNECTION, ConnectionOptions, Link
from flyx.client.local import Serve, find_rooms, make_room
from flyx.client.pairing import MEASUREMENTS, Pairing, PairingGate, begin_receiving
from flyx.client.server_messages import MAX_PEERS
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import FlyxError, PeerUnreachable, SenderLeft, TransferInterrupted
from flyx.pairing.exchange import Code, WordsWanted
from flyx.pairing.keys import PairingSession
from flyx.pairing.words import password_for
from flyx.rtc.description import MAX_REMOTE_CANDIDATES
from flyx.signaling.messages import Answer, Disconnect, IceCandidate, Join, Message, Offer, Role
from flyx.transfer.digests import algorithms_of

if TYPE_CHECKING:
    from flyx.rtc.channel import Channels
    from flyx.rtc.peer import Reply

NEEDS = frozenset({MEASUREMENTS})

OFFER_TIMEOUT = 20.0
"""Seconds for the host to offer a connection: it may be connecting to somebody else."""


class Meeting(Struct, frozen=True):
    """Where the two meet, and what is measured.

    Attributes:
        server: URL of the server to ask; None: of none.
        amount: of noise, in the direction in which we send.
        connections: what the person allows them.
        probes: look for packets larger than those that every path takes.
    """

    server: str | None
    amount: Amount
    connections: ConnectionOptions = ANY_CONNECTION
    probes: bool = True


class _End:
    """One side: what is under way with the other, which may leave at any time."""

    def __init__(self, meeting: Meeting, signaling: Signaling, tell: Tell) -> None:
        self._meeting = meeting
        self._signaling = signaling
        self._tell = tell
        # Set as it comes to that.
        self.link: Link | None = None
        self._pairing: Pairing | None = None
        self._way: OneWay | None = None

    @asynccontextmanager
    async def open(self, target_id: str | None, reply: Reply | None = None) -> AsyncIterator[Link]:
        """Begin a connection to a visitor, or to the host (None), whose first messages reply() answers; it
        ends with the block."""
        link = self.link = Link(
            self._signaling,
            target_id,
            options=self._meeting.connections,
            probes=self._meeting.probes,
            reply=reply,
        )
        try:
            yield link
        finally:
            self.link = self._pairing = self._way = None
            await link.close()

    async def connect(self, link: Link, pairing: Pairing) -> Channels:
        """Wait for the connection, over which this pairing goes on; return its channels."""
        channels = await link.connected(lambda attempts: self._tell(events.Connecting(PEER, attempts)))
        self._way = OneWay(link, channels, self._tell)
        self._pairing = pairing
        return channels

    def paired(self, features: frozenset[str]) -> OneWay:
        """Return the direction to measure: the two know each other, and have these features in common."""
        assert self._way is not None
        self._way.algorithms = algorithms_of(features)
        self._pairing = None
        return self._way

    def give_up(self, error: FlyxError) -> None:
        """Make no connection, for this reason; one that there is may live all the same."""
        if self._pairing:
            self._pairing.give_up(error)
        elif self._way and self._way.driver:
            self._way.driver.peer_gone()
        elif self.link:
            self.link.give_up(error)


# The side that waits.


async def host(
    meeting: Meeting, serve: Serve | None, code: Code, api_token: str | None, tell: Tell
) -> list[Measured]:
    """Wait for the other side, and measure the path to it in both directions.

    Args:
        meeting: where.
        serve: makes a server of our own if there is none; None: then it is an error.
        code: what the other side has to know.
        api_token: what the server wants of those who create rooms.
        tell: told what happens.

    Raises:
        FlyxError: it could not be measured.
    """
    async with make_room(meeting.server, serve, api_token, tell, hold=0.0) as made:
        signaling, room_id = made.signaling, made.signaling.joined.room_id
        meeting.connections.check(signaling)
        tell(
            events.RoomOpened(
                room_id,
                format_code(room_id, code.password),
                made.server,
                made.local,
                pass_on=made.pass_on,
                here_only=made.here_only,
            )
        )
        return await _Host(meeting, signaling, PairingGate(room_id, code, needs=NEEDS), tell).run()


class _Host:
    """Takes one visitor after another, until one of them has measured the path with us."""

    def __init__(self, meeting: Meeting, signaling: Signaling, gate: PairingGate, tell: Tell) -> None:
        self._meeting = meeting
        self._signaling = signaling
        self._gate = gate
        self._tell = tell
        # Those who are in the room and wait, and the one that is being served.
        self._waiting: deque[str] = deque()
        self._visitor: str | None = None
        # Some visitor knew the code.
        self._has_paired = False
        self._end = _End(meeting, signaling, tell)
        # Why nobody else can come; None while they can.
        self._gone: FlyxError | None = None
        # Set when something has changed.
        self._news = asyncio.Event()

    async def run(self) -> list[Measured]:
        """Return what was measured."""
        listening = asyncio.create_task(self._listen())
        try:
            number = 0
            while True:
                self._visitor = await self._next()
                number += 1
                self._tell(events.PeerJoined(number))
                try:
                    return await self._measure(self._visitor, number)
                except FlyxError as error:
                    if self._has_paired or error.closes_room or self._gone:
                        raise
                    self._tell(events.PeerEnded(number, error, code_is_good=True))
                finally:
                    self._visitor = None
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _next(self) -> str:
        while not self._waiting:
            if self._gone:
                raise self._gone
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def _measure(self, visitor: str, number: int) -> list[Measured]:
        async with self._connected(visitor) as way:
            self._has_paired = True
            self._tell(events.PeerPaired(number))
            self._signaling.tell_paired(visitor)
            received, _ = await way.receive()
        async with self._connected(visitor) as way:
            return [await way.send(self._meeting.amount, received), received]

    @asynccontextmanager
    async def _connected(self, visitor: str) -> AsyncIterator[OneWay]:
        async with self._end.open(visitor) as link:
            pairing = self._gate.begin()
            await link.offer(pairing.first_messages())
            channels = await self._end.connect(link, pairing)
            paired = await self._gate.pair(pairing, link.connection, channels)
            yield self._end.paired(paired.features)

    async def _listen(self) -> None:
        try:
            while True:
                self._react(await self._signaling.receive())
        except Exception as error:
            self._gone = failure_of(error, "signaling")
            self._end.give_up(self._gone)
        self._news.set()

    def _react(self, item: Message | Interrupted | Restored) -> None:
        match item:
            case Join(data=data) if data.role is Role.RECEIVER:
                is_new = data.client_id not in (self._visitor, *self._waiting)
                if is_new and len(self._waiting) < MAX_PEERS:
                    self._waiting.append(data.client_id)
            case Answer(data=data) | IceCandidate(data=data):
                if data.client_id == self._visitor and self._end.link:
                    self._end.link.take(item)
            case Disconnect(data=data) if not data.away:
                if data.client_id == self._visitor:
                    self._end.give_up(TransferInterrupted(reason="the other side left"))
                elif data.client_id in self._waiting:
                    self._waiting.remove(data.client_id)
            case _:
                pass
        self._news.set()


# The side that comes.


async def visit(
    meeting: Meeting, room_id: str, words: tuple[str, ...], tell: Tell, *, local: bool
) -> list[Measured]:
    """Measure the path to who waits in a room, in both directions.

    Args:
        meeting: where.
        room_id: normalised.
        words: of the code, in their common form; not empty.
        tell: told what happens.
        local: look for the room on this computer and its network as well.

    Raises:
        FlyxError: it could not be measured.
    """
    rooms = find_rooms(room_id, meeting.server, tell, local=local, hold=0.0)
    async with aclosing(rooms):
        async for room in rooms:
            meeting.connections.check(room.signaling)
            tell(events.RoomJoined(room_id, room.server, room.local))
            room.signaling.farewell = "the measurement is over"
            return await _Visitor(meeting, room.signaling, room_id, words, tell).run()
    raise AssertionError("without a room there is an error")


class _Visitor:
    """Answers the two connections that the host offers."""

    def __init__(
        self, meeting: Meeting, signaling: Signaling, room_id: str, words: tuple[str, ...], tell: Tell
    ) -> None:
        self._meeting = meeting
        self._signaling = signaling
        self._room_id = room_id
        self._words = words
        self._tell = tell
        self._end = _End(meeting, signaling, tell)
        # Set by the first pairing.
        self._session: PairingSession | None = None
        # The offer that no connection was begun for, and what followed it.
        self._offered: list[Message] = []
        self._gone: FlyxError | None = None
        self._news = asyncio.Event()

    async def run(self) -> list[Measured]:
        """Return what was measured."""
        listening = asyncio.create_task(self._listen())
        try:
            async with self._connected() as way:
                self._tell(events.PeerPaired(PEER))
                sent = await way.send(self._meeting.amount)
            async with self._connected() as way:
                received, told = await way.receive()
            if told.received:
                sent = as_the_other_side_saw(sent, told.received)
            return [sent, received]
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[OneWay]:
        offered = await self._offer()
        pairing = begin_receiving(self._room_id, self._session, known=self._password, needs=NEEDS)
        async with self._end.open(None, pairing.reply) as link:
            for message in offered:
                link.take(message)
            channels = await self._end.connect(link, pairing)
            paired = await pairing.run(link.connection, channels)
            self._session = paired.session
            yield self._end.paired(paired.features)

    async def _offer(self) -> list[Message]:
        """Return the next offer, and what has followed it."""
        try:
            async with asyncio.timeout(OFFER_TIMEOUT):
                while not self._offered:
                    if self._gone:
                        raise self._gone
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            reason = f"the other side has offered none within {OFFER_TIMEOUT:g} s"
            raise PeerUnreachable(reason=reason) from None
        offered, self._offered = self._offered, []
        return offered

    def _password(self, wanted: WordsWanted) -> str:
        return password_for(self._words, wanted.count)

    async def _listen(self) -> None:
        try:
            while True:
                self._react(await self._signaling.receive())
        except Exception as error:
            self._leave(failure_of(error, "signaling"))

    def _leave(self, error: FlyxError) -> None:
        self._gone = error
        self._end.give_up(error)
        self._news.set()

    def _react(self, item: Message | Interrupted | Restored) -> None:
        match item:
            case Offer():
                self._offered = [item]
                self._news.set()
            case IceCandidate():
                if self._offered:
                    if len(self._offered) <= MAX_REMOTE_CANDIDATES:
                        self._offered.append(item)
                elif self._end.link:
                    self._end.link.take(item)
            case Disconnect(data=data) if not data.away:
                self._leave(SenderLeft())
            case _:
                pass
