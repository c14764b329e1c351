"""One receiver of a sender: its connections, one after another, and what is sent over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from flyx.client import events
from flyx.client.compression import Compression, CompressionPolicy
from flyx.client.confirmation import Confirmation
from flyx.client.driver import Driver, DriverContext
from flyx.client.failures import failure_of
from flyx.client.limits import Cause, Limit, Shares, senders_limit
from flyx.client.link import Link
from flyx.client.pairing import Pairing, PairingGate
from flyx.client.roster import Receiver
from flyx.errors import (
    FlyxError,
    LocalProtocolError,
    PeerUnreachable,
    RemoteProtocolError,
    TransferInterrupted,
)
from flyx.net.changes import Change, networks
from flyx.storage.packing import BlockPacker
from flyx.storage.reader import SourceReader
from flyx.transfer.digests import algorithms_of
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest, StreamEnded
from flyx.transfer.left_out import NOT_WANTED
from flyx.transfer.manifest import Manifest
from flyx.transfer.messages import EAGER, ZSTD
from flyx.transfer.rate_limit import Allowance, RateLimit
from flyx.transfer.sender import Sender
from flyx.transfer.sender_events import Accepted, Comparing, Delivered, FileConfirmed, Resumed
from flyx.transfer.session import EntryLeftOut

if TYPE_CHECKING:
    from flyx.rtc.channel import Channels


def gone() -> TransferInterrupted:
    """Return a new error each time: one that is raised keeps the frames that it passed, with all in them."""
    return TransferInterrupted(reason="the receiver left")


class ReceiverLink:
    """What connects us to one receiver, from its first connection on."""

    def __init__(self, receiver: Receiver, compression: Compression) -> None:
        self._receiver = receiver
        self._compression = compression
        # What both it and we can do.
        self._features: frozenset[str] = frozenset()
        # Set while there is a connection, or one is being made.
        self.link: Link | None = None
        self._pairing: Pairing | None = None
        # Of the connection that there is, and of the last one that was lost.
        self._driver: SendDriver | None = None
        self._earlier: SendDriver | None = None
        # The server says that it has left the room.
        self.has_left = False
        # The networks of this computer when the connection that is being made anew was begun.
        self._networks: frozenset[str] | None = None
        # Set when these are others now: another try may fare better.
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def connect(
        self, link: Link, gate: PairingGate, on_event: Callable[[events.Event], None], *, anew: bool
    ) -> AsyncIterator[Channels]:
        """Connect over this link and pair; the connection ends with the block.

        Args:
            link: newly made.
            gate: what the receiver has to pass.
            on_event: told what happens.
            anew: there was a connection before. It may take long until a receiver that has lost the server
                as well reads the offer.

        Raises:
            FlyxError: there is no connection, or the peer does not know the code.
        """
        self.link = link
        self._earlier, self._driver = self._driver or self._earlier, None
        self._pairing = None
        self._networks = networks() if anew else None
        self._moved.clear()
        try:
            pairing = gate.begin()
            await link.offer(pairing.first_messages())
            if anew:
                await link.settled.wait()
            channels = await link.connected(
                lambda attempts: on_event(events.Connecting(self._receiver.number, attempts))
            )
            self._pairing = pairing
            paired = await gate.pair(pairing, link.connection, channels)
            self._features = paired.features
            yield channels
        finally:
            await link.close()

    async def serve(
        self,
        channels: Channels,
        reader: SourceReader | StreamReader,
        disk: Executor,
        on_event: Callable[[events.Event], None],
        admit: Callable[[], bool],
        limit: RateLimit | None,
    ) -> Confirmation:
        """Send everything. Return what the receiver has confirmed.

        Args:
            channels: to the receiver, which has paired.
            reader: of what is sent; closed at the end.
            disk: runs the reads.
            on_event: told what happens.
            admit: called first; returns whether the receiver's turn has come, else release() follows. If it
                fails, the receiver is told.
            limit: what it shares with all receivers; None: nothing.

        Raises:
            FlyxError: the receiver does not have everything.
        """
        assert self.link is not None
        machine = Sender(
            reader.manifest,
            max_message_size=channels.max_message_size,
            now=time.monotonic(),
            rate=limit.rate if limit else None,
            eager=algorithms_of(self._features)[0] if EAGER in self._features else None,
        )
        compression = self._compression if ZSTD in self._features else Compression.OFF
        context = DriverContext(self.link.connection, channels, disk, self._receiver.number, on_event)
        try:
            self._driver = SendDriver(machine, context, reader, compression, limit)
            if self._earlier:
                self._driver.go_on_after(self._earlier)
            try:
                if admit():
                    machine.release()
            except Exception as error:
                machine.cancel(failure_of(error, f"receiver {self._receiver.number}"))
            return await self._driver.run()
        finally:
            reader.close()

    def release(self) -> None:
        """Its turn has come."""
        assert self._driver is not None
        self._driver.machine.release()
        self._driver.wake()

    def refuse(self, error: FlyxError) -> None:
        """Its turn will never come, for this reason."""
        assert self._driver is not None
        self._driver.machine.cancel(error)
        self._driver.wake()

    @property
    def is_connecting(self) -> bool:
        """Whether we have told it how to connect, and are not connected yet."""
        return self.link is not None and self._driver is None

    def network_changed(self, change: Change) -> None:
        """Something has happened to this computer that may have ended the connection, or let make another."""
        if self._driver:
            self._driver.network_changed(change)
        elif self._networks not in (None, networks()):
            self._moved.set()
            self.give_up(PeerUnreachable(reason="the network of this computer has changed"))

    async def pause(self, seconds: float) -> None:
        """Wait for so long between two tries to connect, or until the network changes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()

    def check(self) -> None:
        """The receiver began again, as if it had lost the connection: so do we, unless it answers."""
        if self._driver:
            self._driver.check_path("the receiver has lost the connection")

    def doubt(self) -> None:
        """The server has lost this receiver: so have we, unless it sends something soon."""
        if self._driver:
            self._driver.peer_gone()

    def leave(self) -> None:
        """The server says that this receiver has gone."""
        self.has_left = True
        if self._driver:
            self._driver.peer_gone()
        else:
            self.give_up(gone())

    def give_up(self, error: FlyxError) -> None:
        """Make no connection to it, for this reason."""
        if self._pairing:
            self._pairing.give_up(error)
        elif self.link:
            self.link.give_up(error)


Blocks = Sequence[BlockRead | StreamEnded | BlockFailed]


class StreamBlocks(Protocol):
    """Where the blocks of a stream come from; Broadcast says more."""

    async def read(self, receiver: int, requests: Sequence[BlockRequest]) -> Blocks:
        """Return blocks when they are there."""
        ...

    def verified(self, receiver: int, size: int) -> None:
        """A receiver has so much of it."""
        ...


class StreamReader:
    """Reads the blocks of a stream for one receiver."""

    def __init__(self, manifest: Manifest, blocks: StreamBlocks, receiver: int) -> None:
        """Args:
        manifest: of the stream.
        blocks: where it comes from.
        receiver: its number.
        """
        self.manifest = manifest
        self._blocks = blocks
        self._receiver = receiver

    async def read(self, requests: Sequence[BlockRequest]) -> Blocks:
        """Return blocks when they are there."""
        return await self._blocks.read(self._receiver, requests)

    def verified(self, size: int) -> None:
        """The receiver has so much of the stream."""
        self._blocks.verified(self._receiver, size)

    def close(self) -> None:
        """Do nothing: the receiver may come back over another connection."""


class SendDriver(Driver[Sender, list[BlockRequest], Blocks]):
    """Drives a Sender: its disk work is reading blocks, and compressing them where that pays; data leaves as
    fast as all limits let it."""

    def __init__(
        self,
        machine: Sender,
        context: DriverContext,
        reader: SourceReader | StreamReader,
        compression: Compression = Compression.OFF,
        limit: RateLimit | None = None,
    ) -> None:
        """Args:
        machine: newly made.
        context: the rest of the world.
        reader: of what is sent.
        compression: what of it is compressed.
        limit: what this receiver shares with all others; None: nothing.
        """
        super().__init__(machine, context)
        self._reader = reader
        # Set while blocks of a stream are waited for: the loop that waits, and the wait.
        self._awaited: tuple[asyncio.AbstractEventLoop, asyncio.Task[Blocks]] | None = None
        self._allowance = Allowance(limit) if limit else Allowance()
        self._policy = CompressionPolicy(compression, time.monotonic())
        self._packer = BlockPacker()
        self._is_packing = False
        # Bytes of data messages that the channel was given.
        self._given = 0

    async def run(self) -> Confirmation:
        try:
            return await super().run()
        finally:
            self._allowance.close()

    def _drain(self) -> None:
        # Also while a block is waited for: there may be none until others are dropped.
        if isinstance(self._reader, StreamReader):
            self._reader.verified(self.machine.bytes_confirmed)
        super()._drain()

    def next_work(self) -> list[BlockRequest] | None:
        return self.machine.next_reads() or None

    async def perform(self, work: list[BlockRequest]) -> Blocks:
        if not isinstance(self._reader, StreamReader):
            return await super().perform(work)
        # No thread has to wait for it.
        blocks = asyncio.create_task(self._reader.read(work))
        self._awaited = asyncio.get_running_loop(), blocks
        return await blocks

    def stop_work(self) -> None:
        # The program that writes the stream may write nothing for days.
        if awaited := self._awaited:
            loop, blocks = awaited
            loop.call_soon_threadsafe(blocks.cancel)

    def do_work(self, work: list[BlockRequest]) -> Blocks:
        assert not isinstance(self._reader, StreamReader)
        return self._reader.read(work)

    async def settle(self, work: list[BlockRequest], result: Blocks) -> Blocks:
        size = sum(map(_length, result))
        left, now = self._given - self._data.queued, time.monotonic()
        if not size or not self._policy.wants(size, left=left, waiting=self._waiting, now=now):
            return result
        self._is_packing = True
        self.wake()
        try:
            loop = asyncio.get_running_loop()
            packed, seconds = await loop.run_in_executor(self._disk, self._pack, result)
        finally:
            self._is_packing = False
        self._policy.tried(
            size, sum(map(_length, packed)), seconds, waiting=self._waiting, now=time.monotonic()
        )
        return packed

    @property
    def _waiting(self) -> int:
        """Bytes that wait for the path; what may not leave waits for the receiver."""
        return 0 if self.machine.awaits_credit else self.machine.ready_bytes + self._data.queued

    def _pack(self, blocks: Blocks) -> tuple[Blocks, float]:
        """Compress blocks, on a thread; return them, and the seconds of a processor that it took."""
        begun = time.thread_time()
        packed = [
            replace(block, packed=self._packer.pack(block.data))
            if isinstance(block, BlockRead) and block.data
            else block
            for block in blocks
        ]
        return packed, time.thread_time() - begun

    def work_done(self, result: Blocks, now: float) -> None:
        self.machine.blocks_read(result, now)

    def next_data(self) -> bytes | None:
        size = self.machine.next_data_size
        if size is None or not self._allowance.take(size, time.monotonic()):
            return None
        self._given += size
        return self.machine.next_data()

    @property
    def spared_bytes(self) -> int:
        return self.machine.spared_bytes

    @property
    def next_data_time(self) -> float | None:
        return self._allowance.next_time

    def receive_data(self, message: bytes | str, now: float) -> None:
        self.machine.cancel(RemoteProtocolError(reason="data from a receiver"))

    def waits_for(self) -> Cause | None:
        if self.channel_is_full:
            return Cause.NETWORK
        if self.machine.awaits_credit:
            return Cause.CREDIT
        if self.next_data_time is not None:
            return Cause.RATE
        if self._is_packing:
            return Cause.COMPRESSION
        # A stream waits for the program that writes it, or for another receiver.
        reads_disk = self.disk_is_busy and not isinstance(self._reader, StreamReader)
        return Cause.DISK if reads_disk else None

    def limit_of(self, shares: Shares) -> Limit | None:
        return senders_limit(shares)

    def progress(self) -> tuple[int, int | None, int]:
        return self.machine.bytes_confirmed, self.machine.expected_bytes, 0

    def handle_event(self, event: object) -> None:
        entries = self.machine.manifest.entries
        match event:
            # First what there are thousands of.
            case FileConfirmed(file=file):
                self.finish_file(file, events.FileFinished(self.peer, entries.path(file), None, None))
            case Comparing():
                self.on_event(events.Notice(f"Receiver {self.peer} compares files that it has with these"))
            case Accepted():
                self.manifest_told = True
                if (rate := self.machine.rate) is not None:
                    self._allowance.add(RateLimit(rate, time.monotonic()))
                self.begin()
            case Resumed(files=files, bytes=size):
                self.resume(files, size)
            case EntryLeftOut(index=index, code=code):
                self.lose(index, entries.path(index), code)
            case Delivered(files=files, bytes=size, digest=digest):
                if (left_out := self.machine.manifest.left_out).failures:
                    self.count_missing(left_out.failures, *left_out.first_failure)
                for code, count in sorted(self.not_needed.items()):
                    which = f"{count:,} of the files and links"
                    did = f"did not want {which}" if code == NOT_WANTED else f"had {which} already"
                    self.on_event(events.Notice(f"Receiver {self.peer} {did}"))
                self.succeed(files, size, digest)
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")


def _length(block: BlockRead | StreamEnded | BlockFailed) -> int:
    """Bytes that are sent of a block."""
    return len(block.packed or block.data) if isinstance(block, BlockRead) else 0
