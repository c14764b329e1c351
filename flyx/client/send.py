"""`flyx send`: one room, one peer connection for each receiver, each at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from flyx.client import events
from flyx.client.broadcast import Broadcast, Stream
from flyx.client.codes import format_code
from flyx.client.compression import Compression
from flyx.client.confirmation import Confirmation
from flyx.client.failures import failure_of
from flyx.client.link import ANY_CONNECTION, ConnectionOptions, Link
from flyx.client.listing import Listed, Lists, OneList
from flyx.client.local import Serve, make_room
from flyx.client.meeting import RECONNECT_TIME
from flyx.client.pairing import STREAMS, TEXTS, PairingGate
from flyx.client.roster import Receiver, ReceiverState, Roster
from flyx.client.server_messages import MAX_PEERS
from flyx.client.serving import ReceiverLink, StreamReader, gone
from flyx.client.signaling import Interrupted, Restored, Signaling
from flyx.errors import (
    ConnectionLost,
    FilesFailed,
    FlyxError,
    InputError,
    NobodyCame,
    NothingToSend,
    PairingTimedOut,
    PeerUnreachable,
    ServerProtocolError,
    SignalingError,
    StorageError,
    StreamBegun,
    TransferInterrupted,
    WrongWords,
    without_credentials,
)
from flyx.net.changes import Change, NetworkWatch
from flyx.pairing.exchange import Code
from flyx.signaling.messages import Answer, Disconnect, IceCandidate, Join, Message, Role
from flyx.storage.exclusions import NOTHING_EXCLUDED, Exclusions
from flyx.storage.links import Links
from flyx.storage.reader import SourceReader
from flyx.storage.single import scan_of_stream, scan_of_text
from flyx.storage.stream_source import StreamSource
from flyx.transfer.manifest import Content
from flyx.transfer.rate_limit import RateLimit

if TYPE_CHECKING:
    from flyx.rtc.channel import Channels

MAX_UNPAIRED = 8
"""Receivers at a time that have not proved themselves: strangers cannot take every place, nor much memory."""

DRAIN_TIMEOUT = 1.0
"""Seconds for receivers that have everything to leave the room before we do."""

RECONNECT_PAUSE = 1.0
"""Seconds between two tries to repair a lost connection."""

NEEDS = {
    Content.FILES: frozenset[str](),
    Content.STREAM: frozenset({STREAMS}),
    Content.TEXT: frozenset({TEXTS}),
}
"""What a receiver has to be capable of (Hello.features)."""

DISK_THREADS = 8
"""Reads under way at once, whatever the number of receivers."""


class SendOptions(Struct, frozen=True):
    """What to send, and to how many.

    Attributes:
        paths: files and directories; none if there is a stream or a text.
        server: URL of the server to ask; None: of none.
        serve: makes a server of our own if there is none; None: then it is an error.
        code: what receivers have to know.
        receivers: how many receivers must have everything before we are done; 0 for no end.
        wait: seconds without any receiver after which we give up; None for never.
        congestion: name of the congestion control; None for the default.
        api_token: what the server wants of those who create rooms; None if it wants nothing.
        reconnect: seconds for which a lost connection to a receiver is tried again; 0: not at all.
        connections: what the person allows them.
        links: what becomes of symbolic links inside directories.
        exclusions: which entries below the paths are left out.
        stream: sent in the place of files, to a number of receivers that is known.
        text: the same, for a person to read.
        limit: data bytes a second that all receivers get together at most; None: as many as can be.
        room_id: of the room, normalised; None: the server draws it.
        compression: what is compressed for the way.
    """

    server: str | None
    paths: Sequence[Path]
    code: Code
    receivers: int = 1
    wait: float | None = None
    congestion: str | None = None
    api_token: str | None = None
    reconnect: float = RECONNECT_TIME
    serve: Serve | None = None
    connections: ConnectionOptions = ANY_CONNECTION
    links: Links = Links.KEEP
    exclusions: Exclusions = NOTHING_EXCLUDED
    stream: Stream | None = None
    text: str | None = None
    limit: int | None = None
    room_id: str | None = None
    compression: Compression = Compression.AUTO

    @property
    def content(self) -> Content:
        """What it is that is sent."""
        if self.stream:
            return Content.STREAM
        return Content.FILES if self.text is None else Content.TEXT


async def send(options: SendOptions, on_event: Callable[[events.Event], None]) -> None:
    """Send to as many receivers as asked for; on_event gets what happens.

    Raises:
        FlyxError: it did not work; the class says which exit status it deserves.
    """
    with (
        ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="flyx-read") as disk,
        contextlib.closing(_lists(options, disk)) as lists,
    ):
        await lists.current(on_event)
        room = make_room(
            options.server,
            options.serve,
            options.api_token,
            on_event,
            hold=options.reconnect,
            room_id=options.room_id,
        )
        async with room as made:
            signaling, room_id = made.signaling, made.signaling.joined.room_id
            options.connections.check(signaling)
            code = format_code(room_id, options.code.password)
            on_event(
                events.RoomOpened(
                    room_id, code, made.server, made.local, pass_on=made.pass_on, here_only=made.here_only
                )
            )
            if made.pass_on and options.server and without_credentials(options.server) != options.server:
                on_event(events.Notice(_CREDENTIALS))
            if options.code.kind == "open":
                on_event(events.Notice(_OPEN))
            try:
                await SendSession(options, lists, signaling, disk, on_event).run()
            except asyncio.CancelledError:
                signaling.farewell = "the sender stopped"
                raise


def _lists(options: SendOptions, disk: Executor) -> Lists | OneList:
    if options.stream:
        return OneList(scan_of_stream(options.stream.name))
    if options.text is not None:
        return OneList(scan_of_text(options.text))
    return Lists(options.paths, options.links, disk, options.exclusions)


_STREAM_GONE = "a stream that has begun cannot be sent again; begin it anew with another `flyx send`"
_CREDENTIALS = (
    "The name and the password for the server are not shown: the other side puts its own into the URL."
)
_OPEN = (
    "This code has no words: whoever learns it can receive, and the server is trusted to bring only them "
    "together with this sender."
)


class Ended(Struct, frozen=True):
    """The task that served a receiver is over: with what it confirmed, or why it confirmed nothing."""

    receiver: Receiver
    result: Confirmation | FlyxError


class RoomGone(Struct, frozen=True):
    """Nothing more will come from the room, for this reason."""

    error: FlyxError


class OutputGone(Struct, frozen=True):
    """What happens can be told no more, for this reason."""

    error: BrokenPipeError | StorageError


# What there is to react to; None if a place may have become free, or a stream has begun.
_Item: TypeAlias = "Message | Interrupted | Restored | Ended | RoomGone | OutputGone | None"


class SendSession:
    """Serves the receivers of one room; the roster knows in what state each of them is."""

    def __init__(
        self,
        options: SendOptions,
        lists: Lists | OneList,
        signaling: Signaling,
        disk: Executor,
        on_event: Callable[[events.Event], None],
    ) -> None:
        self._options = options
        self._lists = lists
        self._signaling = signaling
        self._disk = disk
        self._on_event = on_event
        self._gate = PairingGate(signaling.joined.room_id, options.code, needs=NEEDS[options.content])
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue()
        self._limit = RateLimit(options.limit, time.monotonic()) if options.limit is not None else None
        self._roster = Roster(options.receivers, MAX_UNPAIRED)
        # Of the receivers that are connected to, or were, and have not ended.
        self._links: dict[Receiver, ReceiverLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle_since = time.monotonic()
        # Set when no more receivers are taken; those that have paired go on.
        self._closed: FlyxError | None = None
        # Set when the server keeps the room no more: a connection that is lost stays lost.
        self._room_gone: FlyxError | None = None
        # Set while a stream is sent.
        self._broadcast: Broadcast | None = None
        # Set when files could not be read as offered: another try would fare no better.
        self._incomplete: FilesFailed | None = None

    async def run(self) -> None:
        """Serve until enough receivers have everything.

        Raises:
            FlyxError: they have not.
        """
        listener = asyncio.create_task(self._listen())
        if stream := self._options.stream:
            source = StreamSource(stream.descriptor)
            self._broadcast = Broadcast(
                source,
                self._options.receivers,
                on_wait=self._tell_stream_waits,
                on_begin=lambda: self._inbox.put_nowait(None),
            )
        try:
            async with NetworkWatch(self._network_changed):
                while not self._roster.is_complete:
                    if self._closed and not self._is_under_way(self._closed):
                        raise self._closed
                    self._react(await self._next())
                    self._fill_places()
            await self._drain()
        finally:
            tasks = [listener, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._broadcast:
                await self._broadcast.close()
        if self._incomplete:
            raise self._incomplete

    def _tell_stream_waits(self, missing: int) -> None:
        which = "1 more receiver" if missing == 1 else f"{missing:,} more receivers"
        self._tell(events.Notice(f"The stream is too long to be kept, and waits for {which}."))

    async def _drain(self) -> None:
        """Let the receivers that have everything leave first: the room ends with us."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while self._roster.has_served_present and not self._closed:
                    self._react(await self._inbox.get())

    def _network_changed(self, change: Change) -> None:
        self._signaling.network_changed(change)
        for link in self._links.values():
            link.network_changed(change)

    async def _listen(self) -> None:
        try:
            while True:
                self._inbox.put_nowait(await self._signaling.receive())
        except Exception as error:
            self._inbox.put_nowait(RoomGone(failure_of(error, "signaling")))

    async def _next(self) -> _Item:
        wait = self._options.wait
        while True:
            remaining = None
            if wait is not None and not self._roster.is_serving:
                remaining = self._idle_since + wait - time.monotonic()
            try:
                async with asyncio.timeout(remaining):
                    return await self._inbox.get()
            except TimeoutError:
                # A receiver may have paired meanwhile, which nothing in the inbox tells.
                if not self._roster.is_serving:
                    raise NobodyCame(seconds=wait) from None

    def _react(self, item: _Item) -> None:
        match item:
            case Join(data=data) if data.role is Role.RECEIVER:
                self._arrived(data.client_id, recovered=data.recovered)
            case Answer(data=data) | IceCandidate(data=data):
                receiver = self._roster.find(data.client_id)
                if receiver in self._links and (link := self._links[receiver].link):
                    link.take(item)
            case Disconnect(data=data):
                receiver = self._roster.find(data.client_id)
                if receiver and data.away:
                    self._doubt(receiver)
                elif receiver:
                    self._left(receiver)
            case Interrupted(reason=reason):
                self._on_event(events.server_lost(reason))
            case Restored(recovered=recovered):
                self._on_event(events.SERVER_BACK)
                if not recovered:
                    self._resync()
            case Ended(receiver=receiver, result=result):
                self._ended(receiver, result)
            case OutputGone(error=error):
                raise error
            case RoomGone(error=error):
                self._room_gone = error
                for receiver in self._roster.in_state(ReceiverState.REPAIRING):
                    self._links[receiver].give_up(error)
                self._close(error)
            case _:
                pass

    def _close(self, error: FlyxError) -> None:
        """Take no more receivers. Those that have paired go on: their sessions prove it without words."""
        if self._closed:
            return
        self._closed = error
        for receiver in self._roster.in_state(ReceiverState.WAITING):
            self._unserved(receiver, error)
        if self._roster.is_serving:
            self._on_event(events.Notice(f"{str(error).rstrip('.')}. What is being sent goes on."))

    def _arrived(self, client_id: str, *, recovered: bool) -> None:
        """A receiver is here: a new one, or one that lost its connection to the server for a while."""
        if known := self._roster.find(client_id):
            link = self._links.get(known)
            if link is None:
                # It waits.
                return
            if not link.is_connecting:
                # What took its connection to the server may have taken that to us, which nobody says if no
                # packet could leave from its old address.
                link.check()
                return
            if recovered:
                # What we told it goes on.
                return
            if known.state is ReceiverState.REPAIRING:
                link.give_up(PeerUnreachable(reason="an offer was lost"))
                return
            # Our messages on the way to a connection may be lost: begin again.
            self._left(known)
        if self._closed:
            return
        if self._roster.present >= MAX_PEERS:
            self._react(RoomGone(ServerProtocolError(reason="more receivers than a room can have")))
            return
        receiver = self._roster.arrive(client_id)
        self._on_event(events.PeerJoined(receiver.number))

    def _resync(self) -> None:
        """Forget the receivers that left while we were away; a `join` follows for each that is here."""
        for receiver in self._roster.absent({peer.client_id for peer in self._signaling.joined.peers}):
            self._left(receiver)

    def _doubt(self, receiver: Receiver) -> None:
        if link := self._links.get(receiver):
            link.doubt()

    def _left(self, receiver: Receiver) -> None:
        self._roster.depart(receiver)
        if receiver.state is ReceiverState.WAITING:
            self._unserved(receiver, gone())
        elif link := self._links.get(receiver):
            link.leave()

    def _fill_places(self) -> None:
        """Serve receivers that have paired, and connect to those that wait, as far as there are places."""
        has_begun = self._broadcast is not None and self._broadcast.has_begun
        if has_begun:
            self._refuse_late()
        while receiver := self._roster.serve_next():
            self._links[receiver].release()
        while not self._closed and (receiver := self._roster.connect_next(in_vain=has_begun)):
            self._links[receiver] = ReceiverLink(receiver, self._options.compression)
            task = asyncio.create_task(self._serve(receiver))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _refuse_late(self) -> None:
        """Tell those who wait for a place that the stream has begun without them."""
        assert self._broadcast is not None
        for receiver in self._roster.in_state(ReceiverState.QUEUED):
            if not self._broadcast.can_serve(receiver.number):
                self._links[receiver].refuse(StreamBegun())

    def _is_under_way(self, closed: FlyxError) -> bool:
        """Whether receivers are served still, or may come to be: a connection needs no server to pair."""
        connecting = self._roster.in_state(ReceiverState.CONNECTING)
        return self._roster.is_serving or bool(connecting and not closed.closes_room)

    async def _serve(self, receiver: Receiver) -> None:
        """Connect to a receiver and send to it; the roster learns of every end."""
        result: Confirmation | FlyxError = TransferInterrupted(reason="it was stopped")
        try:
            result = await self._deliver(receiver)
        except Exception as error:
            result = failure_of(error, f"receiver {receiver.number}")
        finally:
            self._inbox.put_nowait(Ended(receiver, result))

    async def _deliver(self, receiver: Receiver) -> Confirmation:
        """Send to a receiver over one connection after another, if need be.

        Raises:
            FlyxError: it has not confirmed that it has everything.
        """
        lost: ConnectionLost | None = None
        # Made while the connection is, and good for those that follow.
        listing = asyncio.create_task(self._lists.current(self._tell))
        try:
            if self._lists.takes_long:
                await asyncio.wait({listing})
                if self._links[receiver].has_left:
                    raise gone()
            while True:
                try:
                    return await self._attempt(receiver, listing, lost)
                except ConnectionLost as error:
                    lost = error
                    self._lose(receiver, error)
                except (PeerUnreachable, PairingTimedOut, SignalingError):
                    if lost:
                        # That another connection could not be made says less than why it was wanted.
                        raise lost from None
                    raise
        finally:
            listing.cancel()
            await asyncio.gather(listing, return_exceptions=True)

    def _lose(self, receiver: Receiver, error: ConnectionLost) -> None:
        """The connection is lost: begin to make another one, if there is a way to.

        Raises:
            ConnectionLost: there is not.
        """
        self._roster.lose(receiver)
        self._inbox.put_nowait(None)
        if self._room_gone or self._links[receiver].has_left or not self._options.reconnect:
            raise error
        self._tell(events.PeerLost(receiver.number, error))

    async def _attempt(
        self, receiver: Receiver, listing: asyncio.Task[Listed], lost: ConnectionLost | None
    ) -> Confirmation:
        """Connect and send; if a connection was lost, try for as long as the person wants.

        Raises:
            FlyxError: the receiver does not have everything.
        """
        peer = self._links[receiver]
        try:
            async with asyncio.timeout(self._options.reconnect if lost else None) as patience:
                while True:
                    if lost and (self._room_gone or peer.has_left):
                        raise PeerUnreachable(reason="the room or the receiver is gone")
                    if lost and not self._signaling.there.is_set():
                        # Nobody would hear of an offer; and what asks STUN servers meanwhile, from whatever
                        # address, may keep us from the server: see PeerConnection.fall_silent().
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(RECONNECT_PAUSE):
                                await self._signaling.there.wait()
                        continue
                    link = Link(
                        self._signaling,
                        receiver.client_id,
                        options=self._options.connections,
                        congestion=self._options.congestion,
                    )
                    try:
                        async with peer.connect(
                            link, self._gate, self._tell, anew=lost is not None
                        ) as channels:
                            patience.reschedule(None)
                            return await self._send(receiver, channels, listing)
                    except (PeerUnreachable, PairingTimedOut):
                        if lost is None:
                            raise
                    await peer.pause(RECONNECT_PAUSE)
        except TimeoutError:
            if not patience.expired():
                raise
            raise PeerUnreachable(reason=f"none within {self._options.reconnect:g} s") from None

    async def _send(
        self, receiver: Receiver, channels: Channels, listing: asyncio.Task[Listed]
    ) -> Confirmation:
        """Send to a receiver that has paired, when it is its turn."""
        await asyncio.wait({listing})
        error = listing.exception()
        listed = self._lists.last if error else listing.result()
        # Without a first list there is no session.
        assert listed is not None

        def admit() -> bool:
            if error:
                reason = error.fields["reason"] if isinstance(error, InputError) else error
                raise NothingToSend(reason=reason) from error
            if self._broadcast and not self._broadcast.can_serve(receiver.number):
                raise StreamBegun
            if receiver.state is ReceiverState.CONNECTING:
                self._tell(events.PeerPaired(receiver.number))
            self._signaling.tell_paired(receiver.client_id)
            return self._roster.pair(receiver)

        reader: SourceReader | StreamReader
        if self._broadcast:
            reader = StreamReader(listed.found.manifest, self._broadcast, receiver.number)
        else:
            reader = SourceReader(listed.found, listed.digests)
        link = self._links[receiver]
        return await link.serve(channels, reader, self._disk, self._tell, admit, limit=self._limit)

    def _tell(self, event: events.Event) -> None:
        """Emit an event of a receiver; if the output is closed, the session ends."""
        try:
            self._on_event(event)
        except (BrokenPipeError, StorageError) as error:
            self._inbox.put_nowait(OutputGone(error))
            raise

    def _ended(self, receiver: Receiver, result: Confirmation | FlyxError) -> None:
        del self._links[receiver]
        is_irreplaceable = self._broadcast is not None and self._broadcast.ends_with(receiver.number)
        if self._broadcast:
            self._broadcast.leave(receiver.number)
        if receiver.state is not ReceiverState.CONNECTING:
            # A stranger's visit is not what --wait waits for.
            self._idle_since = time.monotonic()
        if not isinstance(result, FlyxError) and result.is_of_nothing:
            # It is not served: the code is good for another try, of this one or another.
            result = result.error or result
        if isinstance(result, FlyxError):
            if is_irreplaceable:
                result.hint = _STREAM_GONE
            self._unserved(receiver, result, closes=is_irreplaceable)
            return
        self._roster.confirm(receiver, result)
        self._incomplete = result.error or self._incomplete
        self._on_event(events.PeerEnded(receiver.number, result.error))

    def _unserved(self, receiver: Receiver, error: FlyxError, *, closes: bool = False) -> None:
        """A receiver will not have everything; `closes`: nor can any other that comes now."""
        self._roster.fail(receiver, error)
        closes = closes or error.closes_room
        is_over = closes or self._closed is not None or self._roster.is_complete
        # What one is too late for, all are.
        is_over = is_over or isinstance(error, StreamBegun)
        self._on_event(events.PeerEnded(receiver.number, error, code_is_good=not is_over))
        if isinstance(error, WrongWords):
            left = self._gate.tries_left
            tries = "1 more wrong try" if left == 1 else f"{left} more wrong tries"
            self._on_event(events.Notice(f"Wrong words were given. After {tries} the code stops working."))
        if closes:
            self._close(error)
