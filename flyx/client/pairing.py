"""Runs the pairing of two ends over the control channel of their new connection."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import flyx
from flyx.client.failures import failure_of
from flyx.errors import FlyxError, MissingFeature, RemoteProtocolError
from flyx.pairing.exchange import (
    Code,
    Exchange,
    Failed,
    Greeting,
    Paired,
    PairingState,
    ReceiverExchange,
    SenderExchange,
    WordsWanted,
)
from flyx.pairing.keys import Binding, PairingSession, Role
from flyx.pairing.tries import Tries
from flyx.transfer.digests import BLAKE3
from flyx.transfer.messages import ZSTD

if TYPE_CHECKING:
    from flyx.rtc.peer import Channels, PeerConnection

CLOSE_TIMEOUT = 2.0
"""Seconds that the other side gets to read why we reject it."""

AskWords = Callable[[WordsWanted], Awaitable[str]]
"""Returns the password, or raises the FlyxError for which there is none."""

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
        self._greeting = replace(_GREETING, needs=needs)
        self._room_id = room_id
        self._code = code
        self._tries = Tries()
        # By id. A receiver that comes back over a new connection goes by its session.
        self._sessions: dict[str, PairingSession] = {}

    @property
    def tries_left(self) -> int:
        """How often wrong words may still be given."""
        return self._tries.limit - self._tries.failed

    async def pair(self, pairing: Pairing) -> Paired:
        """Pair with a receiver.

        Raises:
            FlyxError: it did not prove itself.
        """
        exchange = SenderExchange(
            pairing.binding(self._room_id, Role.SENDER),
            self._greeting,
            self._code,
            self._tries,
            self._sessions,
            entropy=secrets.token_bytes,
            now=time.monotonic(),
        )
        paired = await pairing.run(exchange, None)
        if paired.session:
            self._sessions[paired.session.id] = paired.session
        return paired


class Pairing:
    """The pairing over one connection."""

    def __init__(self, connection: PeerConnection, channels: Channels) -> None:
        self._connection = connection
        self._control = channels.control
        self._data = channels.data
        # Set when the exchange may be able to go on.
        self._wake = asyncio.Event()
        self._exchange: Exchange | None = None
        self._asking: asyncio.Task[None] | None = None
        self._result: Paired | FlyxError | None = None

    def binding(self, room_id: str, role: Role) -> Binding:
        """Return what the exchange is bound to, for the end that we are."""
        ours, theirs = self._connection.fingerprints()
        return Binding(room_id, {role: ours, role.other: theirs})

    async def receive(
        self,
        room_id: str,
        session: PairingSession | None,
        ask: AskWords,
        *,
        has_words: bool,
        needs: frozenset[str] = frozenset(),
    ) -> Paired:
        """Pair with a sender.

        Args:
            room_id: normalised.
            session: of an earlier pairing with it in this room.
            ask: called if the sender wants words.
            has_words: the code has some, so the sender must want them.
            needs: what the sender has to be capable of.

        Raises:
            FlyxError: it did not prove itself, or it was not satisfied with us.
        """
        exchange = ReceiverExchange(
            self.binding(room_id, Role.RECEIVER),
            replace(_GREETING, needs=needs),
            session,
            has_words=has_words,
            entropy=secrets.token_bytes,
            now=time.monotonic(),
        )
        return await self.run(exchange, ask)

    def give_up(self, error: FlyxError) -> None:
        """End it for this reason: the server says that the other side has left."""
        if self._exchange:
            self._exchange.cancel(error)
            self._wake.set()

    async def run(self, exchange: Exchange, ask: AskWords | None) -> Paired:
        """Drive the exchange to its end; the channels are then free for the transfer.

        Raises:
            FlyxError: the two are not paired; the other side has been told.
        """
        self._exchange = exchange
        self._control.listen(_Control(self, exchange))
        self._data.listen(_Data(self, exchange))
        try:
            while True:
                self._drain(exchange, ask)
                if exchange.ended:
                    break
                await self._wait(exchange)
        except asyncio.CancelledError:
            exchange.stop()
            raise
        finally:
            if self._asking:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)
            await self._finish(exchange)
        assert self._result is not None
        if isinstance(self._result, FlyxError):
            if isinstance(self._result, MissingFeature) and MEASUREMENTS in str(self._result):
                self._result.hint = _NO_MEASUREMENT
            raise self._result
        return self._result

    def release(self) -> None:
        """Leave what comes next to the transfer."""
        self._control.release()
        self._data.release()

    def channel_closed(self, exchange: Exchange) -> None:
        """A channel has closed: the connection is lost, or the other side broke its protocol."""
        if self._control.violation:
            exchange.cancel(self._control.violation)
        else:
            exchange.channel_closed()
        self.wake()

    def wake(self) -> None:
        """Have the exchange drained soon."""
        self._wake.set()

    def _drain(self, exchange: Exchange, ask: AskWords | None) -> None:
        while (message := exchange.next_message()) is not None:
            self._control.send(message)
        while (event := exchange.next_event()) is not None:
            match event:
                case WordsWanted():
                    assert ask is not None
                    assert isinstance(exchange, ReceiverExchange)
                    self._asking = asyncio.create_task(self._ask(exchange, event, ask))
                case Paired():
                    self._result = event
                case Failed(error=error):
                    self._result = error

    async def _ask(self, exchange: ReceiverExchange, wanted: WordsWanted, ask: AskWords) -> None:
        try:
            password = await ask(wanted)
        except Exception as error:
            exchange.cancel(failure_of(error, "the question for the words"))
        else:
            exchange.give_words(password, time.monotonic())
        self.wake()

    async def _wait(self, exchange: Exchange) -> None:
        """Wait for an input or the next deadline."""
        deadline = exchange.next_timeout()
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        exchange.handle_timeout(time.monotonic())

    async def _finish(self, exchange: Exchange) -> None:
        """Let the other side read why we reject it: it closes the connection when it has."""
        self._drain(exchange, None)
        if exchange.state is PairingState.PAIRED:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                while exchange.has_last_word and not self._control.closed:
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
        self._pairing.channel_closed(self._exchange)


class _Data:
    """Nothing may come on the data channel before the two are paired."""

    def __init__(self, pairing: Pairing, exchange: Exchange) -> None:
        self._pairing = pairing
        self._exchange = exchange

    def message_received(self, message: bytes | str) -> None:
        self._exchange.cancel(RemoteProtocolError(reason="data before pairing"))
        self._pairing.wake()

    def channel_writable(self) -> None:
        pass

    def channel_closed(self) -> None:
        self._pairing.channel_closed(self._exchange)
