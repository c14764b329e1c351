"""`flyx send`: one room, one peer connection for each receiver, each at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from flyx.client import events
from flyx.client.codes import format_code
from flyx.client.driver import RECONNECT_TIME, Driver, Wiring
from flyx.client.link import Link
from flyx.client.pairing import Gate, Pairing
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    ConnectionLost,
    FilesFailed,
    FlyxError,
    LocalProtocolError,
    NobodyCame,
    PairingTimedOut,
    PeerUnreachable,
    RemoteProtocolError,
    SignalingError,
    TransferInterrupted,
    WrongWords,
)
from flyx.pairing.exchange import Code
from flyx.rtc.peer import Channels
from flyx.signaling.messages import Answer, Disconnect, IceCandidate, Join, Message, Role
from flyx.storage.reader import BlockDigests, Scan, SourceReader, scan
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.sender import Accepted, Delivered, FileConfirmed, Resumed, Sender
from flyx.transfer.session import FileLost

MAX_MESSAGE_SIZE = 256 * 1024
"""Bytes in a data message, if the peer takes as much: what libwebrtc and aiortc take at most."""

MAX_UNPAIRED = 8
"""Receivers at a time that have not proved themselves: strangers cannot take every place, nor much memory."""

SEE_OFF_TIMEOUT = 1.0
"""Seconds for receivers that have everything to leave the room before we do."""

RECONNECT_PAUSE = 1.0
"""Seconds between two tries to make a lost connection anew."""

DISK_THREADS = 8
"""Reads under way at once, whatever the number of receivers."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What to send, and to how many.

    Attributes:
        code: what receivers have to know.
        receivers: how many receivers must have everything before we are done; 0 for no end.
        wait: seconds without any receiver after which we give up; None for never.
        congestion: name of the congestion control; None for the default.
        api_token: what the server wants of those who create rooms; None if it wants nothing.
        reconnect: seconds for which a lost connection to a receiver is tried to be made anew; 0 for not.
    """

    server: str
    paths: Sequence[Path]
    code: Code
    receivers: int = 1
    wait: float | None = None
    congestion: str | None = None
    api_token: str | None = None
    reconnect: float = RECONNECT_TIME


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
        async with Signaling(options.server, None, Role.SENDER, api_token=options.api_token) as signaling:
            room_id = signaling.joined.room_id
            on_event(events.RoomOpened(room_id, format_code(room_id, options.code.password)))
            if options.code.kind == "open":
                on_event(events.Notice(_OPEN))
            try:
                await _Share(options, found, signaling, disk, on_event).run()
            except asyncio.CancelledError:
                signaling.farewell = "the sender stopped"
                raise


_OPEN = (
    "This code has no words: whoever learns it can receive, and the server is trusted to bring only them "
    "together with this sender."
)

# What there is to react to: a message, the connection to the server, a transfer that has ended, the end of
# the room; None if a place may have become free.
_Item: TypeAlias = "Message | Interrupted | Restored | _Outgoing | SignalingError | None"


class _Share:
    """The receivers of one room: who waits, who proves to know the code, who is served, who is done."""

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
        self._digests = BlockDigests(found)
        self._signaling = signaling
        self._disk = disk
        self._on_event = on_event
        self._gate = Gate(signaling.joined.room_id, options.code)
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue()
        self._arrivals = 0
        # Receivers in the room by client id. Those of them that wait; those with a connection that have not
        # paired; those that have, while all places are taken; those being served.
        self._peers: dict[str, _Outgoing] = {}
        self._waiting: deque[_Outgoing] = deque()
        self._unpaired: set[_Outgoing] = set()
        self._held: deque[_Outgoing] = deque()
        self._serving: set[_Outgoing] = set()
        # Those whose connection was lost in the middle, and which keep no place until there is another one.
        self._repairing: set[_Outgoing] = set()
        # Those in the room that have everything.
        self._leaving: set[str] = set()
        self._done = 0
        self._idle_since = time.monotonic()
        # Set when no more receivers are taken; those that have paired go on.
        self._closed: FlyxError | None = None
        # Set when the server keeps the room no more: a connection that is lost stays lost.
        self._room_gone: SignalingError | None = None
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
                if self._closed and not self._is_under_way(self._closed):
                    raise self._closed
                self._react(await self._next())
                self._fill_places()
            await self._see_off()
        finally:
            served = (*self._unpaired, *self._held, *self._serving, *self._repairing)
            tasks = [listener, *(peer.task for peer in served if peer.task)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._incomplete:
            raise self._incomplete

    async def _see_off(self) -> None:
        """Let those who have everything leave first: the room ends with us, and they have more to say."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEE_OFF_TIMEOUT):
                while self._leaving and not self._closed:
                    self._react(await self._inbox.get())

    async def _listen(self) -> None:
        try:
            while True:
                self._inbox.put_nowait(await self._signaling.receive())
        except SignalingError as error:
            self._inbox.put_nowait(error)

    async def _next(self) -> _Item:
        wait = self._options.wait
        while True:
            remaining = None
            if wait is not None and not self._is_somebody_served():
                remaining = self._idle_since + wait - time.monotonic()
            try:
                async with asyncio.timeout(remaining):
                    return await self._inbox.get()
            except TimeoutError:
                # Somebody may have paired meanwhile, which nothing in the inbox tells.
                if not self._is_somebody_served():
                    raise NobodyCame(seconds=wait) from None

    def _react(self, item: _Item) -> None:
        match item:
            case Join(data=data) if data.role is Role.RECEIVER:
                self._arrived(data.client_id, recovered=data.recovered)
            case Answer(data=data) | IceCandidate(data=data):
                speaker = self._peers.get(data.client_id)
                if speaker and speaker.link:
                    speaker.link.take(item)
            case Disconnect(data=data) if data.away:
                if peer := self._peers.get(data.client_id):
                    peer.doubt()
            case Disconnect(data=data):
                self._leaving.discard(data.client_id)
                self._left(self._peers.pop(data.client_id, None))
            case Interrupted(reason=reason):
                self._on_event(events.server_lost(reason))
            case Restored(recovered=recovered):
                self._on_event(events.SERVER_BACK)
                if not recovered:
                    self._look_around()
            case _Outgoing():
                self._ended(item)
            case SignalingError():
                self._room_gone = item
                for peer in self._repairing:
                    peer.give_up(item)
                self._close(item)
            case _:
                pass

    def _close(self, error: FlyxError) -> None:
        """Take no more receivers. Those that have paired go on: they prove it anew without words."""
        if self._closed:
            return
        self._closed = error
        self._waiting.clear()
        if self._is_somebody_served():
            self._on_event(events.Notice(f"{str(error).rstrip('.')}. What is being sent goes on."))

    def _arrived(self, client_id: str, *, recovered: bool) -> None:
        """A receiver is here: a new one, or one that lost its connection to the server for a while."""
        known = self._peers.get(client_id)
        if client_id in self._leaving or (known and (recovered or not known.is_connecting)):
            # What it has from us needs no server, or goes on through it.
            return
        if known in self._repairing:
            known.give_up(PeerUnreachable(reason="an offer was lost"))
            return
        # What we told it on the way to a connection may be lost: we begin anew.
        self._left(self._peers.pop(client_id, None))
        self._arrivals += 1
        peer = _Outgoing(self._arrivals, client_id)
        self._peers[client_id] = peer
        self._waiting.append(peer)
        self._on_event(events.PeerJoined(peer.number))

    def _look_around(self) -> None:
        """Forget the receivers that have left unheard; those that are here will be told of."""
        present = {peer.client_id for peer in self._signaling.joined.peers}
        for client_id in self._peers.keys() - present:
            self._left(self._peers.pop(client_id))

    def _left(self, peer: _Outgoing | None) -> None:
        if peer is None:
            return
        if peer in self._waiting:
            self._waiting.remove(peer)
            self._on_event(events.PeerEnded(peer.number, _GONE))
        else:
            peer.leave()

    def _fill_places(self) -> None:
        """Serve those who have paired, and connect to those who wait, as far as there are places."""
        while self._held and self._has_place():
            peer = self._held.popleft()
            self._serving.add(peer)
            peer.release()
        while self._waiting and self._has_place() and len(self._unpaired) < MAX_UNPAIRED and not self._closed:
            peer = self._waiting.popleft()
            self._unpaired.add(peer)
            peer.task = asyncio.create_task(self._serve(peer))

    def _is_under_way(self, closed: FlyxError) -> bool:
        """Whether receivers are served still, or may come to be: a connection needs no server to pair."""
        return self._is_somebody_served() or bool(self._unpaired and not closed.closes_room)

    def _is_somebody_served(self) -> bool:
        return bool(self._serving or self._repairing)

    def _has_place(self) -> bool:
        wanted = self._options.receivers
        return not wanted or self._done + len(self._serving) < wanted

    async def _serve(self, peer: _Outgoing) -> None:
        lost: ConnectionLost | None = None
        try:
            while True:
                try:
                    await self._attempt(peer, lost)
                    return
                except ConnectionLost as error:
                    lost = error
                    self._lose(peer, error)
        except FlyxError as error:
            # That another connection could not be made says less than why it was wanted.
            peer.error = (
                lost
                if lost and isinstance(error, PeerUnreachable | PairingTimedOut | SignalingError)
                else error
            )
        finally:
            self._inbox.put_nowait(peer)

    def _lose(self, peer: _Outgoing, error: ConnectionLost) -> None:
        """The connection is lost: begin to make another one, if there is a way to.

        Raises:
            ConnectionLost: there is not.
        """
        self._held = deque(other for other in self._held if other is not peer)
        self._serving.discard(peer)
        self._repairing.add(peer)
        self._inbox.put_nowait(None)
        if self._room_gone or peer.has_left or not self._options.reconnect:
            raise error
        self._on_event(events.PeerLost(peer.number, error))

    async def _attempt(self, peer: _Outgoing, lost: ConnectionLost | None) -> None:
        """Connect and send; if a connection was lost, try for as long as the person wants.

        Raises:
            FlyxError: the receiver does not have everything.
        """
        try:
            async with asyncio.timeout(self._options.reconnect if lost else None) as patience:
                while True:
                    if lost and (self._room_gone or peer.has_left):
                        raise self._room_gone or _GONE
                    link = Link(self._signaling, peer.client_id, congestion=self._options.congestion)
                    try:
                        async with peer.connect(link, self._gate, anew=lost is not None) as channels:
                            patience.reschedule(None)
                            await self._send(peer, channels)
                            return
                    except (PeerUnreachable, PairingTimedOut):
                        if lost is None:
                            raise
                    await asyncio.sleep(RECONNECT_PAUSE)
        except TimeoutError:
            assert lost is not None
            raise PeerUnreachable(reason=f"none within {self._options.reconnect:g} s") from None

    async def _send(self, peer: _Outgoing, channels: Channels) -> None:
        """Send to a receiver that has paired, when it is its turn."""
        if peer not in self._repairing:
            self._on_event(events.PeerPaired(peer.number))
        self._unpaired.discard(peer)
        self._repairing.discard(peer)
        held = not self._has_place()
        if held:
            self._held.append(peer)
        else:
            self._serving.add(peer)
        reader = SourceReader(self._found, self._digests)
        await peer.serve(channels, reader, self._disk, self._on_event, held=held)

    def _ended(self, peer: _Outgoing) -> None:
        if peer in self._unpaired:
            self._unpaired.discard(peer)
        else:
            # A stranger's visit is not what --wait waits for.
            self._idle_since = time.monotonic()
        if peer in self._held:
            self._held.remove(peer)
        self._serving.discard(peer)
        self._repairing.discard(peer)
        if self._peers.get(peer.client_id) is peer:
            del self._peers[peer.client_id]
            if peer.error is None:
                self._leaving.add(peer.client_id)
        if isinstance(peer.error, FilesFailed):
            self._incomplete = peer.error
        if peer.error is None or self._incomplete is peer.error:
            self._done += 1
        self._on_event(events.PeerEnded(peer.number, peer.error))
        if isinstance(peer.error, WrongWords):
            left = self._gate.tries_left
            tries = "1 more try" if left == 1 else f"{left} more tries"
            self._on_event(events.Notice(f"Wrong words were given. After {tries} the room will be closed."))
        if peer.error and peer.error.closes_room:
            self._close(peer.error)


_GONE = TransferInterrupted(reason="the receiver left")


class _Outgoing:
    """One receiver, from its arrival on."""

    def __init__(self, number: int, client_id: str) -> None:
        self.number = number
        self.client_id = client_id
        # Set while it is served.
        self.task: asyncio.Task[None] | None = None
        self.link: Link | None = None
        self._pairing: Pairing | None = None
        # Of the connection that there is, and of the last one that was lost.
        self._driver: SendDriver | None = None
        self._earlier: SendDriver | None = None
        # The server says that it has left the room.
        self.has_left = False
        # Why it was not served, in the end.
        self.error: FlyxError | None = None

    @asynccontextmanager
    async def connect(self, link: Link, gate: Gate, *, anew: bool) -> AsyncIterator[Channels]:
        """Connect over this link and pair; the connection ends with the block.

        Args:
            link: newly made.
            gate: what the receiver has to pass.
            anew: there was a connection before. It may take long until a receiver that has lost the server
                as well reads the offer.

        Raises:
            FlyxError: there is no connection, or who is at its other end does not know the code.
        """
        self.link = link
        self._earlier, self._driver = self._driver or self._earlier, None
        self._pairing = None
        try:
            await link.offer()
            if anew:
                await link.settled.wait()
            channels = await link.connection.connected()
            self._pairing = Pairing(link.connection, channels)
            await gate.pair(self._pairing)
            yield channels
        finally:
            await link.close()

    async def serve(
        self,
        channels: Channels,
        reader: SourceReader,
        disk: Executor,
        on_event: Callable[[events.Event], None],
        *,
        held: bool,
    ) -> None:
        """Send everything; if held, after release().

        Raises:
            FlyxError: the receiver does not have everything.
        """
        assert self.link is not None
        size = min(MAX_MESSAGE_SIZE, channels.max_message_size)
        machine = Sender(reader.manifest, max_message_size=size, now=time.monotonic(), held=held)
        wiring = Wiring(self.link.connection, channels, disk, self.number, on_event)
        try:
            self._driver = SendDriver(machine, wiring, reader)
            if self._earlier:
                self._driver.go_on_after(self._earlier)
            await self._driver.run()
        finally:
            reader.close()

    def release(self) -> None:
        """Its turn has come."""
        assert self._driver is not None
        self._driver.machine.release()
        self._driver.wake()

    @property
    def is_connecting(self) -> bool:
        """Whether we have told it how to connect, and are not connected yet."""
        return self.link is not None and self._driver is None

    def doubt(self) -> None:
        """The server has lost this receiver: so have we, unless we hear from it soon."""
        if self._driver:
            self._driver.peer_gone()

    def leave(self) -> None:
        """The server says that this receiver has gone."""
        self.has_left = True
        if self._driver:
            self._driver.peer_gone()
        else:
            self.give_up(_GONE)

    def give_up(self, error: FlyxError) -> None:
        """Make no connection to it, for this reason."""
        if self._pairing:
            self._pairing.give_up(error)
        elif self.link:
            self.link.give_up(error)


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
                self.manifest_told = True
                self.begin()
            case Resumed(files=files, bytes=size):
                self.resume(files, size)
            case FileConfirmed(file=file):
                self.finish_file(entries[file].path, None, None)
            case FileLost(file=file, code=code):
                self.lose(entries[file].path, code)
            case Delivered(files=files, bytes=size, sha256=sha256):
                self.succeed(files, size, sha256)
            case _:
                raise LocalProtocolError(reason=f"unknown event {event}")
