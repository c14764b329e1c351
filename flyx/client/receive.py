"""`flyx receive`: join a room, let its sender connect, and take what is offered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flyx.client import events
from flyx.client.driver import Driver, Wiring
from flyx.client.link import Link
from flyx.client.pairing import Pairing
from flyx.client.signaling import Signaling
from flyx.errors import FlyxError, InputError, LocalProtocolError, SenderLeft, SignalingError
from flyx.pairing.exchange import WordsWanted
from flyx.pairing.words import password_of, resolve_words
from flyx.rtc.peer import Channels
from flyx.signaling.messages import Disconnect, Offer, Role
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import Operation, Outcome, Unfinished
from flyx.transfer.manifest import Manifest
from flyx.transfer.receiver import (
    FileReceived,
    ManifestReceived,
    Offered,
    Received,
    Receiver,
    UnfinishedFound,
)
from flyx.transfer.session import FileLost

_SENDER = 1
"""The number of the only peer."""

Confirm = Callable[[Manifest], Awaitable[bool]]

AskWords = Callable[[int], Awaitable[tuple[str, ...]]]
"""Returns so many words of the list (0: words of the sender's own, in their common form)."""


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What to receive, and where to.

    Attributes:
        room_id: normalised.
        words: of the code, in their common form; empty if it has none.
        ask_words: asks the person for the words; None if there is nobody to ask.
        directory: where the files go; made if missing.
        confirm: asks the person; None to accept whatever is offered.
    """

    server: str
    room_id: str
    words: tuple[str, ...]
    ask_words: AskWords | None
    directory: Path
    existing: ExistingPolicy
    confirm: Confirm | None


async def receive(options: ReceiveOptions, on_event: Callable[[events.Event], None]) -> None:
    """Receive everything that the sender of the room offers. What happens is told through on_event.

    Raises:
        FlyxError: it did not work; the class says which exit status it deserves.
    """
    async with Signaling(options.server, options.room_id, Role.RECEIVER) as signaling:
        on_event(events.RoomJoined(options.room_id))
        on_event(events.PeerJoined(_SENDER))
        try:
            await _Reception(options, signaling, on_event).run()
        except asyncio.CancelledError:
            signaling.farewell = "the receiver stopped"
            raise


_OPEN = "This code has no words: the server is trusted to have connected us with the right sender."


class _Reception:
    """One attempt to receive from the sender of a room."""

    def __init__(
        self, options: ReceiveOptions, signaling: Signaling, on_event: Callable[[events.Event], None]
    ) -> None:
        self._options = options
        self._signaling = signaling
        self._on_event = on_event
        self._link = Link(signaling, None)
        # Set when the connection is up, and when both sides have paired.
        self._pairing: Pairing | None = None
        self._driver: ReceiveDriver | None = None

    async def run(self) -> None:
        """Connect and receive.

        Raises:
            FlyxError: not everything was received.
        """
        offered = asyncio.Event()
        listener = asyncio.create_task(self._listen(offered))
        try:
            # The sender may be busy with others: as long as it stays in the room, its turn will come.
            await offered.wait()
            channels = await self._link.connection.connected()
            await self._pair(channels)
            with (
                ThreadPoolExecutor(1, thread_name_prefix="flyx-write") as disk,
                Destination(self._options.directory, self._options.existing) as destination,
            ):
                wiring = Wiring(self._link.connection, channels, disk, _SENDER, self._on_event)
                confirm = self._options.confirm
                machine = Receiver(ask=confirm is not None, now=time.monotonic())
                self._driver = ReceiveDriver(machine, wiring, destination, confirm)
                await self._driver.run()
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await self._link.close()

    async def _pair(self, channels: Channels) -> None:
        """Prove to know the sender's code, and have it prove the same."""
        options = self._options
        self._pairing = Pairing(self._link.connection, channels)
        paired = await self._pairing.receive(
            options.room_id, None, self._password, has_words=bool(options.words)
        )
        self._on_event(events.PeerPaired(_SENDER))
        if paired.session is None:
            self._on_event(events.Notice(_OPEN))

    async def _password(self, wanted: WordsWanted) -> str:
        options = self._options
        if options.words:
            words = resolve_words(options.words, wanted.count) if wanted.count else options.words
        elif options.ask_words:
            words = await options.ask_words(wanted.count)
        else:
            hint = "give the whole code, such as K7M2QX-lemon-otter, or run this on a terminal to be asked"
            raise InputError(reason="the sender's code has words, and this one has none", hint=hint)
        return password_of(words)

    async def _listen(self, offered: asyncio.Event) -> None:
        """Pass on what the room says. Its end matters only while we are not connected."""
        try:
            while True:
                message = await self._signaling.receive()
                if isinstance(message, Disconnect):
                    self._sender_left()
                elif isinstance(message, Offer):
                    offered.set()
                self._link.take(message)
        except SignalingError as error:
            self._link.connection.give_up(error)
        finally:
            offered.set()

    def _sender_left(self) -> None:
        if self._driver:
            self._driver.peer_gone()
        elif self._pairing:
            self._pairing.give_up(SenderLeft())
        else:
            self._link.connection.give_up(SenderLeft())


class ReceiveDriver(Driver[Receiver, list[Operation], Sequence[Outcome]]):
    """Drives a Receiver: its disk work is writing, and a person may have to be asked."""

    def __init__(
        self, machine: Receiver, wiring: Wiring, destination: Destination, confirm: Confirm | None
    ) -> None:
        super().__init__(machine, wiring)
        self._destination = destination
        self._confirm = confirm
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._asking:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    def next_work(self) -> list[Operation] | None:
        return self.machine.next_operations() or None

    def do_work(self, work: list[Operation]) -> Sequence[Outcome]:
        return self._destination.apply(work)

    def work_done(self, result: Sequence[Outcome], now: float) -> None:
        self.machine.operations_done(result, now)

    def next_data(self) -> bytes | None:
        return None

    def receive_data(self, message: bytes | str, now: float) -> None:
        self.machine.receive_data(message, now)

    def progress(self) -> tuple[int, int]:
        return self.machine.bytes_written, self.machine.expected_bytes

    def handle_event(self, event: object) -> None:
        match event:
            case Offered():
                if self._confirm is None:
                    self.begin()
            case ManifestReceived(question=True):
                self._asking = asyncio.create_task(self._ask(event))
            case ManifestReceived():
                self._tell(event)
            case UnfinishedFound(transfers=transfers):
                for transfer in transfers:
                    self.on_event(events.Notice(self._unfinished(transfer)))
            case FileReceived(file=file, path=saved_as, sha256=sha256):
                path = self.machine.path_of(file)
                self.on_event(events.FileFinished(self.peer, path, saved_as, sha256))
            case FileLost(file=file, code=code):
                self.lose(self.machine.path_of(file), code)
            case Received(files=files, bytes=size, sha256=sha256):
                self.succeed(files, size, sha256)
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")

    def _tell(self, received: ManifestReceived) -> None:
        """Tell what is offered, and what of it is here."""
        self.on_event(events.ManifestKnown(received.manifest))
        for file in received.changed:
            path = received.manifest.entries[file].path
            self.on_event(events.Notice(f"{path} has changed since the last try: it starts anew."))
        if received.kept_files or received.found_bytes:
            self.resume(received.kept_files, received.found_bytes)

    def _unfinished(self, transfer: Unfinished) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(transfer.time))
        state = self._destination.state_directory
        return f"An unfinished transfer of {transfer.root} from {since} is kept in {state}."

    async def _ask(self, received: ManifestReceived) -> None:
        assert self._confirm is not None
        await self.path_told()
        self._tell(received)
        try:
            accepted = await self._confirm(received.manifest)
        except FlyxError as error:
            self.machine.cancel(error)
        else:
            self.begin()
            self.machine.answer(accepted)
        self.wake()
