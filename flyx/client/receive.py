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
from flyx.client.signaling import Signaling
from flyx.errors import FlyxError, LocalProtocolError, SenderLeft, SignalingError
from flyx.signaling.messages import Disconnect, Offer, Role
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import Operation, Outcome
from flyx.transfer.manifest import Manifest
from flyx.transfer.receiver import (
    FileReceived,
    ManifestReceived,
    Offered,
    Received,
    Receiver,
)
from flyx.transfer.session import FileLost

_SENDER = 1
"""The number of the only peer."""

Confirm = Callable[[Manifest], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What to receive, and where to.

    Attributes:
        room_id: normalised.
        directory: where the files go; made if missing.
        confirm: asks the person; None to accept whatever is offered.
    """

    server: str
    room_id: str
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


class _Reception:
    """One attempt to receive from the sender of a room."""

    def __init__(
        self, options: ReceiveOptions, signaling: Signaling, on_event: Callable[[events.Event], None]
    ) -> None:
        self._options = options
        self._signaling = signaling
        self._on_event = on_event
        self._link = Link(signaling, None)
        # Set when the connection is up.
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
            case ManifestReceived(manifest=manifest, question=question):
                if question:
                    self._asking = asyncio.create_task(self._ask(manifest))
                else:
                    self.on_event(events.ManifestKnown(manifest))
            case FileReceived(file=file, path=saved_as, sha256=sha256):
                path = self.machine.path_of(file)
                self.on_event(events.FileFinished(self.peer, path, saved_as, sha256))
            case FileLost(file=file, code=code):
                self.lose(self.machine.path_of(file), code)
            case Received(files=files, bytes=size, sha256=sha256):
                self.succeed(files, size, sha256)
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")

    async def _ask(self, manifest: Manifest) -> None:
        assert self._confirm is not None
        await self.path_told()
        self.on_event(events.ManifestKnown(manifest))
        try:
            accepted = await self._confirm(manifest)
        except FlyxError as error:
            self.machine.cancel(error)
        else:
            self.begin()
            self.machine.answer(accepted)
        self.wake()
