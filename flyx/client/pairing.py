"""Runs the pairing of two ends: its beginning while they connect, the rest over their control channel."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

import flyx
from flyx.client.failures import failure_of
from flyx.errors import FlyxError, MissingFeature, RemoteProtocolError
from flyx.pairing.exchange import (
    Code,
    Exchange,
    Failed,
    Greeting,
    Paired,
    ReceiverExchange,
    SenderExchange,
    WordsWanted,
)
from flyx.pairing.keys import PairingSession, Role
from flyx.pairing.states import PairingState
from flyx.pairing.tries import Tries
from flyx.transfer.digests import BLAKE3
from flyx.transfer.messages import EAGER, ZSTD

if TYPE_CHECKING:
    from flyx.rtc.channel import Channels
    from flyx.rtc.peer import PeerConnection

CLOSE_TIMEOUT = 2.0
"""Seconds that the other side gets to read why we reject it."""

KnownWords = Callable[[WordsWanted], str]
AskWords = Callable[[WordsWanted], Awaitable[str]]
"""Return the password, or raise the FlyxError for which there is none. One has the words, the other asks."""

STREAMS = "streams"
TEXTS = "texts"
"""What a receiver may be capable of (Hello.features): manifests of these contents (manifest.Content)."""

MEASUREMENTS = "bench"
"""What either side of a measurement is capable of, and needs of the other (flyx.client.bench)."""

_NO_MEASUREMENT = "`flyx bench CODE` goes with the code of `flyx bench --wait`, and with no other"

_GREETING = Greeting(flyx.AGENT, frozenset({STREAMS, TEXTS, ZSTD, BLAKE3}))


class PairingGate:
    """What the receivers of one room have to pass: its code, and the tries that are left."""

    def __init__(self, room_id: str, code: Code, needs: frozenset[str] = frozenset()) -> None:
        """Args:
        room_id: normalised.
        code: what receivers have to know.
        needs: what they have to be capable of.
        """
        self._greeting = replace(_GREETING, features=_GREETING.features | {EAGER}, needs=needs)
        self._room_id = room_id
        self._code = code
        self._tries = Tries()
        # By id. A receiver that comes back over a new connection goes by its session.
        self._sessions: dict[str, PairingSession] = {}

    @property
    def tries_left(self) -> int:
        """How often wrong words may still be given."""
        return self._tries.limit - self._tries.failed

    def begin(self) -> Pairing:
        """Begin to pair with a receiver that is to be connected to."""
        exchange = SenderExchange(
            *(self._room_id, self._greeting, self._code, self._tries, self._sessions),
            entropy=secrets.token_bytes,
        )
        return Pairing(exchange)

    async def pair(self, pairing: Pairing, connection: PeerConnection, channels: Channels) -> Paired:
        """Pair with a receiver that is connected to.

        Args:
            pairing: what was begun; the receiver may have read its first_messages().
            connection: up.
            channels: of that connection.

        Raises:
            FlyxError: it did not prove itself.
        """
        paired = await pairing.run(connection, channels)
        if paired.session:
            self._sessions[paired.session.id] = paired.session
        return paired


def begin_receiving(
    room_id: str,
    session: PairingSession | None,
    *,
    known: KnownWords | None = None,
    ask: AskWords | None = None,
    needs: frozenset[str] = frozenset(),
    eager: bool = False,
) -> Pairing:
    """Begin to pair with a sender.

    Args:
        room_id: normalised.
        session: of an earlier pairing with it in this room.
        known: has the words of the code, so the sender must want some; None if it has none.
        ask: asked in its place.
        needs: what the sender has to be capable of.
        eager: whatever it offers will be taken: it may send some of that as soon as it has paired.
    """
    features = _GREETING.features | ({EAGER} if eager else frozenset())
    greeting, has_words = replace(_GREETING, features=features, needs=needs), known is not None
    exchange = ReceiverExchange(room_id, greeting, session, has_words=has_words, entropy=secrets.token_bytes)
    return Pairing(exchange, known, ask, eager=eager)


class Pairing:
    """A pairing: it may begin while its connection is made, and ends over that."""

    def __init__(
        self,
        exchange: Exchange,
        known: KnownWords | None = None,
        ask: AskWords | None = None,
        *,
        eager: bool = False,
    ) -> None:
        """Args:
        exchange: newly made.
        known, ask, eager: of a receiver; see begin_receiving().
        """
        self._exchange = exchange
        self._eager = eager
        self._known = known
        self._ask_person = ask
        # What the sender wants and nobody has been asked for yet.
        self._wanted: WordsWanted | None = None
        # Set when the exchange may be able to go on.
        self._wake = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._result: Paired | FlyxError | None = None
        # Those of the connection that there is.
        self._channels: Channels | None = None

    def first_messages(self) -> list[str]:
        """Return what is to be said first: it may leave with the description of a connection."""
        self._take_events()
        return list(iter(self._exchange.next_message, None))

    def reply(self, first: Sequence[str], ours: bytes, theirs: bytes) -> list[str]:
        """Answer the sender's first messages before there is a connection, as far as no person has to think.

        Args:
            first: its messages.
            ours, theirs: SHA-256 of both certificates, as the descriptions claim them.
        """
        now = time.monotonic()
        self._exchange.bind(self._fingerprints(ours, theirs), now)
        for message in first:
            # Nothing that follows the end of pairing can be known before there is a connection.
            if not self._exchange.ended:
                self._exchange.receive(message, now)
        return self.first_messages()

    def _fingerprints(self, ours: bytes, theirs: bytes) -> Mapping[Role, bytes]:
        role = self._exchange.role
        return {role: ours, role.other: theirs}

    def give_up(self, error: FlyxError) -> None:
        """End it for this reason: the server says that the other side has left."""
        self._exchange.cancel(error)
        self._wake.set()

    async def run(self, connection: PeerConnection, channels: Channels) -> Paired:
        """Drive the exchange to its end over a connection; its channels are then free for the transfer.

        Raises:
            FlyxError: the two are not paired; the other side has been told.
        """
        exchange = self._exchange
        self._channels = channels
        exchange.bind(self._fingerprints(*connection.fingerprints()), time.monotonic())
        if exchange.state is not PairingState.PAIRED:
            channels.control.listen(_Control(self, exchange))
            if not self._eager:
                channels.data.listen(_Data(self, exchange))
        try:
            while True:
                self._drain(channels)
                if exchange.ended:
                    break
                await self._wait()
        except asyncio.CancelledError:
            exchange.stop()
            raise
        finally:
            if self._asking:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)
            await self._finish(channels)
        assert self._result is not None
        if isinstance(self._result, FlyxError):
            if isinstance(self._result, MissingFeature) and MEASUREMENTS in str(self._result):
                self._result.hint = _NO_MEASUREMENT
            raise self._result
        return self._result

    def release(self) -> None:
        """Leave what comes next to the transfer."""
        assert self._channels is not None
        self._channels.control.release()
        self._channels.data.release()

    def channel_closed(self) -> None:
        """A channel has closed: the connection is lost, or the other side broke its protocol."""
        assert self._channels is not None
        if violation := self._channels.control.violation:
            self._exchange.cancel(violation)
        else:
            self._exchange.channel_closed()
        self.wake()

    def wake(self) -> None:
        """Have the exchange drained soon."""
        self._wake.set()

    def _drain(self, channels: Channels) -> None:
        for message in self.first_messages():
            channels.control.send(message)
        if self._wanted is not None:
            self._asking = asyncio.create_task(self._ask(self._wanted))
            self._wanted = None

    def _take_events(self) -> None:
        while (event := self._exchange.next_event()) is not None:
            match event:
                case WordsWanted() if self._known is not None:
                    self._give(event, self._known)
                case WordsWanted():
                    self._wanted = event
                case Paired():
                    self._result = event
                case Failed(error=error):
                    self._result = error

    def _give(self, wanted: WordsWanted, known: KnownWords) -> None:
        assert isinstance(self._exchange, ReceiverExchange)
        try:
            password = known(wanted)
        except FlyxError as error:
            self._exchange.cancel(error)
        else:
            self._exchange.give_words(password, time.monotonic())

    async def _ask(self, wanted: WordsWanted) -> None:
        assert isinstance(self._exchange, ReceiverExchange)
        assert self._ask_person is not None
        try:
            password = await self._ask_person(wanted)
        except Exception as error:
            self._exchange.cancel(failure_of(error, "the question for the words"))
        else:
            self._exchange.give_words(password, time.monotonic())
        self.wake()

    async def _wait(self) -> None:
        """Wait for an input or the next deadline."""
        deadline = self._exchange.next_timeout()
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        self._exchange.handle_timeout(time.monotonic())

    async def _finish(self, channels: Channels) -> None:
        """Let the other side read why we reject it: it closes the connection when it has."""
        self._drain(channels)
        if self._exchange.state is PairingState.PAIRED:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                while self._exchange.has_last_word and not channels.control.closed:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass


class _Control:
    """Passes what happens on the control channel to the exchange."""

    def __init__(self, pairing: Pairing, exchange: Exchange) -> None:
        self._pairing = pairing
        self._exchange = exchange

    def message_received(self, message: bytes | str) -> None:
        try:
            self._exchange.receive(message, time.monotonic())
        except Exception as error:
            self._exchange.cancel(failure_of(error, "pairing"))
        if self._exchange.state is PairingState.PAIRED:
            self._pairing.release()
        self._pairing.wake()

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self._pairing.channel_closed()


class _Data:
    """Nothing may come on the data channel before the two are paired.

    To an eager receiver it may: what its sender sends behind its proof can overtake that on the way. Nobody
    listens then, and the channel keeps a little of it for the transfer.
    """

    def __init__(self, pairing: Pairing, exchange: Exchange) -> None:
        self._pairing = pairing
        self._exchange = exchange

    def message_received(self, message: bytes | str) -> None:
        self._exchange.cancel(RemoteProtocolError(reason="data before pairing"))
        self._pairing.wake()

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self._pairing.channel_closed()
