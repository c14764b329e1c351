"""`flyx send`: one room, one peer connection for each receiver, each at its own pace."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flyx.client import events
from flyx.client.driver import Driver, Wiring
from flyx.client.link import Link
from flyx.client.signaling import Signaling
from flyx.errors import (
    FilesFailed,
    FlyxError,
    LocalProtocolError,
    NobodyCame,
    RemoteProtocolError,
    SignalingError,
    TransferInterrupted,
)
from flyx.signaling.messages import Answer, Disconnect, IceCandidate, Join, Message, Role
from flyx.storage.reader import Scan, SourceReader, scan
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.sender import Accepted, Delivered, FileConfirmed, Sender
from flyx.transfer.session import FileLost

MAX_MESSAGE_SIZE = 256 * 1024
"""Bytes in a data message, if the peer takes as much: what libwebrtc and aiortc take at most."""

DISK_THREADS = 8
"""Reads under way at once, whatever the number of receivers."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What to send, and to how many.

    Attributes:
        receivers: how many receivers must have everything before we are done; 0 for no end.
        wait: seconds without any receiver after which we give up; None for never.
        congestion: name of the congestion control; None for the default.
    """

    server: str
    paths: Sequence[Path]
    receivers: int = 1
    wait: float | None = None
    congestion: str | None = None


async def send(options: SendOptions, on_event: Callable[[events.Event], None]) -> None:
    """Send to as many receivers as asked for. What happens is told through on_event.

    Raises:
        FlyxError: it did not work; the class says which exit status it deserves.
    """
    with ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="flyx-read") as disk:
        found = await asyncio.get_running_loop().run_in_executor(disk, scan, options.paths)
        for skipped in found.skipped:
            on_event(events.Notice(f"skipped {skipped.path}: {skipped.reason}"))
        on_event(events.ManifestKnown(found.manifest))
        async with Signaling(options.server, None, Role.SENDER) as signaling:
            room_id = signaling.joined.room_id
            on_event(events.RoomOpened(room_id, code=room_id))
            try:
                await _Share(options, found, signaling, disk, on_event).run()
            except asyncio.CancelledError:
                signaling.farewell = "the sender stopped"
                raise


class _Share:
    """The receivers of one room: who waits, who is served, who is done."""

    def __init__(
        self,
        options: SendOptions,
        found: Scan,
        signaling: Signaling,
        disk: Executor,
        on_event: Callable[[events.Event], None],
    ) -> None:
        self._options = options
        self._found = found
        self._signaling = signaling
        self._disk = disk
        self._on_event = on_event
        # What there is to react to: a message, a transfer that has ended, or the end of the room.
        self._inbox: asyncio.Queue[Message | _Outgoing | SignalingError] = asyncio.Queue()
        self._arrivals = 0
        # Receivers in the room by client id; those of them that wait for a place; those being served.
        self._peers: dict[str, _Outgoing] = {}
        self._waiting: deque[_Outgoing] = deque()
        self._serving: set[_Outgoing] = set()
        self._done = 0
        self._idle_since = time.monotonic()
        # Set when no more receivers can come; those being served go on without a server.
        self._room_lost: SignalingError | None = None
        # Set when files could not be read as offered: another try would fare no better.
        self._incomplete: FilesFailed | None = None

    async def run(self) -> None:
        """Serve until enough receivers have everything.

        Raises:
            FlyxError: they have not.
        """
        listener = asyncio.create_task(self._listen())
        try:
            while not 0 < self._options.receivers <= self._done:
                if self._room_lost and not self._serving:
                    raise self._room_lost
                self._react(await self._next())
                self._fill_places()
        finally:
            tasks = [listener, *(peer.task for peer in self._serving if peer.task)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._incomplete:
            raise self._incomplete

    async def _listen(self) -> None:
        try:
            while True:
                self._inbox.put_nowait(await self._signaling.receive())
        except SignalingError as error:
            self._inbox.put_nowait(error)

    async def _next(self) -> Message | _Outgoing | SignalingError:
        deadline = None
        if self._options.wait is not None and not self._serving:
            deadline = self._idle_since + self._options.wait - time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                return await self._inbox.get()
        except TimeoutError:
            raise NobodyCame(seconds=self._options.wait) from None

    def _react(self, item: Message | _Outgoing | SignalingError) -> None:
        match item:
            case Join(data=data) if data.role is Role.RECEIVER and data.client_id not in self._peers:
                self._arrivals += 1
                peer = _Outgoing(self._arrivals, data.client_id)
                self._peers[data.client_id] = peer
                self._waiting.append(peer)
                self._on_event(events.PeerJoined(peer.number))
            case Answer(data=data) | IceCandidate(data=data):
                speaker = self._peers.get(data.client_id)
                if speaker and speaker.link:
                    speaker.link.take(item)
            case Disconnect(data=data):
                self._left(self._peers.pop(data.client_id, None))
            case _Outgoing():
                self._ended(item)
            case SignalingError():
                self._room_lost = item
                self._waiting.clear()
                if self._serving:
                    self._on_event(events.Notice(f"{str(item).rstrip('.')}. What is being sent goes on."))
            case _:
                pass

    def _left(self, peer: _Outgoing | None) -> None:
        if peer is None:
            return
        if peer in self._serving:
            peer.leave()
        else:
            self._waiting.remove(peer)
            self._on_event(events.PeerEnded(peer.number, _GONE))

    def _fill_places(self) -> None:
        """Begin to serve those who wait, as far as there are places."""
        wanted = self._options.receivers
        while self._waiting and (not wanted or self._done + len(self._serving) < wanted):
            peer = self._waiting.popleft()
            self._serving.add(peer)
            peer.task = asyncio.create_task(self._serve(peer))

    async def _serve(self, peer: _Outgoing) -> None:
        try:
            link = Link(self._signaling, peer.client_id, congestion=self._options.congestion)
            await peer.serve(link, self._found, self._disk, self._on_event)
        except FlyxError as error:
            peer.error = error
        finally:
            self._inbox.put_nowait(peer)

    def _ended(self, peer: _Outgoing) -> None:
        self._serving.discard(peer)
        self._peers.pop(peer.client_id, None)
        self._idle_since = time.monotonic()
        if isinstance(peer.error, FilesFailed):
            self._incomplete = peer.error
        if peer.error is None or self._incomplete is peer.error:
            self._done += 1
        self._on_event(events.PeerEnded(peer.number, peer.error))


_GONE = TransferInterrupted(reason="the receiver left")


class _Outgoing:
    """One receiver, from its arrival on."""

    def __init__(self, number: int, client_id: str) -> None:
        self.number = number
        self.client_id = client_id
        # Set while it is served.
        self.task: asyncio.Task[None] | None = None
        self.link: Link | None = None
        self._driver: SendDriver | None = None
        # Why it was not served, in the end.
        self.error: FlyxError | None = None

    async def serve(
        self, link: Link, found: Scan, disk: Executor, on_event: Callable[[events.Event], None]
    ) -> None:
        """Connect over this link and send everything.

        Raises:
            FlyxError: the receiver does not have everything.
        """
        reader = SourceReader(found)
        self.link = link
        try:
            await link.offer()
            channels = await link.connection.connected()
            size = min(MAX_MESSAGE_SIZE, channels.max_message_size)
            machine = Sender(found.manifest, max_message_size=size, now=time.monotonic())
            wiring = Wiring(link.connection, channels, disk, self.number, on_event)
            self._driver = SendDriver(machine, wiring, reader)
            await self._driver.run()
        finally:
            await link.close()
            reader.close()

    def leave(self) -> None:
        """The server says that this receiver has gone."""
        if self._driver:
            self._driver.peer_gone()
        elif self.link:
            self.link.connection.give_up(_GONE)


class SendDriver(Driver[Sender, list[BlockRequest], list[BlockRead | BlockFailed]]):
    """Drives a Sender: its disk work is reading blocks."""

    def __init__(self, machine: Sender, wiring: Wiring, reader: SourceReader) -> None:
        super().__init__(machine, wiring)
        self._reader = reader

    def next_work(self) -> list[BlockRequest] | None:
        return self.machine.next_reads() or None

    def do_work(self, work: list[BlockRequest]) -> list[BlockRead | BlockFailed]:
        return self._reader.read(work)

    def work_done(self, result: list[BlockRead | BlockFailed], now: float) -> None:
        self.machine.blocks_read(result, now)

    def next_data(self) -> bytes | None:
        return self.machine.next_data()

    def receive_data(self, message: bytes | str, now: float) -> None:
        self.machine.cancel(RemoteProtocolError(reason="data from a receiver"))

    def progress(self) -> tuple[int, int]:
        return self.machine.bytes_confirmed, self.machine.manifest.total_bytes

    def handle_event(self, event: object) -> None:
        entries = self.machine.manifest.entries
        match event:
            case Accepted():
                self.begin()
            case FileConfirmed(file=file):
                self.on_event(events.FileFinished(self.peer, entries[file].path, None, None))
            case FileLost(file=file, code=code):
                self.lose(entries[file].path, code)
            case Delivered(files=files, bytes=size, sha256=sha256):
                self.succeed(files, size, sha256)
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")
