"""Runs a transfer machine over its two channels and its disk.

One task a transfer: after every input (a message, room in the send buffer, an answer of the disk, a
deadline) the machine is drained. The disk works on threads, one batch at a time for each transfer, so the
event loop never waits for it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from flyx.client import events
from flyx.client.confirmation import Confirmation
from flyx.client.failures import failure_of
from flyx.client.limits import Cause, Limit, Shares, Waits
from flyx.client.processor import busy_seconds
from flyx.errors import ConnectionLost, FlyxError, LocalProtocolError, StorageError, TransferInterrupted
from flyx.net.changes import Change, Moved, Route, RouteState, Slept
from flyx.rtc.path import CandidatePair
from flyx.transfer.left_out import NOT_NEEDED, reason
from flyx.transfer.session import Failed, RoundTrip, TransferSession

if TYPE_CHECKING:
    from flyx.rtc.channel import Channel, Channels
    from flyx.rtc.peer import PeerConnection

CLOSE_TIMEOUT = 2.0
"""Seconds that the other side gets to read our last message and close."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress events."""

CONDITION_INTERVAL = 1.0
"""Seconds between two events that tell how the path is, and what limits the transfer."""

Machine = TypeVar("Machine", bound=TransferSession)
Work = TypeVar("Work")
Result = TypeVar("Result")


class DriverContext(Struct, frozen=True):
    """What a driver is connected to.

    Attributes:
        connection: asked which path it takes; its owner closes it after run().
        channels: of that connection, open.
        disk: runs the blocking work.
        peer: number of the peer in events.
        on_event: told what happens.
    """

    connection: PeerConnection
    channels: Channels
    disk: Executor
    peer: int
    on_event: Callable[[events.Event], None]


# What has been told of an entry.
_COMPLETE = 1
_MISSING = 2


class Driver(ABC, Generic[Machine, Work, Result]):
    """Drives one machine to its end; subclasses know what the machine asks of the disk and what it tells."""

    def __init__(self, machine: Machine, context: DriverContext) -> None:
        """Args:
        machine: newly made; the driver is its only user from now on.
        context: the rest of the world.
        """
        self.machine = machine
        self.peer = context.peer
        self.on_event = context.on_event
        self._connection = context.connection
        self._control = context.channels.control
        self._data = context.channels.data
        self._disk = context.disk
        # Set when the machine may be able to go on.
        self._wake = asyncio.Event()
        self._disk_task: asyncio.Task[None] | None = None
        # What run() raises in the end, or returns.
        self._error: FlyxError | None = None
        self._confirmation: Confirmation | None = None
        # Why on_event failed (its output is closed): raised at the end of the transfer.
        self._output_gone: BrokenPipeError | None = None
        # Set once PeerConnected has been told.
        self._path_told = asyncio.Event()
        self._next_progress = 0.0
        # What was told last.
        self._progress_told: tuple[int, int | None, int] | None = None
        # When the transfer was accepted.
        self._started: float | None = None
        # What has been told: by entry, that it is complete or missing; the manifest, and whether over an
        # earlier connection.
        self._told = bytearray()
        self.manifest_told = False
        self.goes_on = False
        # Bytes that were there from an earlier try.
        self._resumed = 0
        # Bytes that compression has spared over earlier connections.
        self._spared = 0
        # The way of the path in use, if it has one that can be watched.
        self._route: Route | None = None
        # The transfer has ended because the channels closed: the other side, if it lives, knows of it.
        self.was_closed = False
        # What we wait for since the transfer was accepted, and when the next event says so.
        self._waits: Waits | None = None
        self._next_condition = 0.0
        # The path that was told last.
        self._path: CandidatePair | None = None
        # How many entries the receiver does not have; path and code of the first of them.
        self._missing = 0
        self._first_missing = "", ""
        # How many files and links it does not need, by code.
        self.not_needed: Counter[str] = Counter()

    async def run(self) -> Confirmation:
        """Drive the machine until it ends, and return what both sides have confirmed.

        Raises:
            FlyxError: they have confirmed nothing; the other side has been told.
        """
        self._follow_route()
        self._control.listen(_Listener(self, self.machine.receive_control))
        self._data.listen(_Listener(self, self.receive_data))
        try:
            while not self.machine.ended:
                self._drain()
                await self._wait()
        except asyncio.CancelledError:
            self.machine.cancel(TransferInterrupted(reason="it was stopped"))
            raise
        except BrokenPipeError:
            # Our own output is gone, and the program with it.
            self.machine.cancel(TransferInterrupted(reason="it was stopped"))
            raise
        except Exception as error:
            self.machine.cancel(failure_of(error, "a transfer"))
        finally:
            await self._finish()
        if self._error:
            raise self._error
        if self._confirmation is None:
            raise LocalProtocolError(reason="a transfer has ended without a result")
        return self._confirmation

    def peer_gone(self) -> None:
        """The server says that the other side has left the room."""
        self.machine.peer_gone(time.monotonic())
        self.wake()

    def check_path(self, suspicion: str) -> None:
        """There is reason to think that the path is gone: a clause."""
        self.machine.check_path(time.monotonic(), suspicion)
        self.wake()

    def network_changed(self, change: Change) -> None:
        """Something has happened to this computer that may have ended the path."""
        now = time.monotonic()
        match change:
            case Slept(seconds=seconds):
                self.machine.stood_still(seconds, now)
            case Moved() if self._route is not None:
                match self._route.look():
                    case RouteState.GONE:
                        self._connection.fall_silent()
                        self.machine.path_gone("the network of this computer has changed")
                    case RouteState.BACK:
                        self.machine.check_path(now, "this computer had no network")
                    case RouteState.SAME:
                        return
            case Moved():
                return
        self.wake()

    def _follow_route(self) -> None:
        ends = self._connection.ends()
        if ends is None:
            self._route = None
        elif self._route is None or self._route.ends != ends:
            self._route = Route(*ends)

    def channel_closed(self) -> None:
        """A channel has closed: the connection is lost, or the other side broke its protocol."""
        # Our own closing of them comes later.
        self.was_closed |= not self.machine.ended
        if self._control.violation:
            self.machine.cancel(self._control.violation)
        else:
            self.machine.channel_closed(time.monotonic())
        self.wake()

    def wake(self) -> None:
        """Have the machine drained soon."""
        self._wake.set()

    async def path_told(self) -> None:
        """Wait until PeerConnected has been told: people read first how they are connected."""
        await self._path_told.wait()

    def go_on_after(self, earlier: Driver[Machine, Work, Result]) -> None:
        """Go on with the transfer of a driver whose connection was lost: what was told is not told again."""
        self._started = earlier._started
        self._resumed = earlier._resumed
        self._spared = earlier._spared + earlier.spared_bytes
        self._told = earlier._told
        self.goes_on = earlier.goes_on or earlier.manifest_told

    def begin(self) -> None:
        """The transfer has been accepted: its time starts."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
        self._waits = Waits(now, busy_seconds())
        self._next_condition = now + CONDITION_INTERVAL

    def resume(self, files: int, size: int) -> None:
        """So much was there from an earlier try."""
        if self.goes_on:
            return
        self._resumed += size
        self.on_event(events.Resuming(self.peer, files, size))

    def finish_file(self, index: int, event: events.FileFinished | events.TextReceived) -> None:
        """A file is complete at the receiver, which is to be told like this."""
        if self._is_news(index, _COMPLETE):
            self.on_event(event)

    def lose(self, index: int, path: str, code: str) -> None:
        """The receiver will not have this entry."""
        if code in NOT_NEEDED:
            self.not_needed[code] += 1
            return
        self.count_missing(1, path, code)
        if self._is_news(index, _MISSING):
            self.on_event(events.FileLost(self.peer, path, reason(code)))

    def count_missing(self, count: int, path: str, code: str) -> None:
        """The receiver will not have so many entries, this one and others."""
        if not self._missing:
            self._first_missing = path, code
        self._missing += count

    def _is_news(self, index: int, fate: int) -> bool:
        """Take note of what has become of an entry; return whether it was not told before."""
        if index >= len(self._told):
            self._told.extend(bytes(index + 1 - len(self._told)))
        news = self._told[index] != fate
        self._told[index] = fate
        return news

    def succeed(self, files: int, size: int, digest: str) -> None:
        """Everything that could be delivered is complete, and both sides have confirmed its digest."""
        self._confirmation = Confirmation(files, size, digest, self._missing, self._first_missing)
        self.on_event(events.Progress(self.peer, size, size))
        seconds = time.monotonic() - (self._started or time.monotonic())
        counts = self._resumed, self._missing, self._spared + self.spared_bytes
        algorithm = self.machine.algorithm.value
        self.on_event(events.TransferDone(self.peer, files, size, seconds, digest, *counts, algorithm))

    @abstractmethod
    def next_work(self) -> Work | None:
        """What the machine asks of the disk now, if anything."""

    @abstractmethod
    def do_work(self, work: Work) -> Result:
        """Do it; blocking, on a thread."""

    async def perform(self, work: Work) -> Result:
        """Have it done."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, self.do_work, work)

    async def settle(self, work: Work, result: Result) -> Result:
        """Return the result that counts: another one, if a person decides so."""
        return result

    def stop_work(self) -> None:
        """Have work that is under way end early, as its result does not matter any more; on a thread."""

    @abstractmethod
    def work_done(self, result: Result, now: float) -> None:
        """Give the machine the result."""

    @abstractmethod
    def handle_event(self, event: object) -> None:
        """Tell an event of the machine on."""

    @abstractmethod
    def waits_for(self) -> Cause | None:
        """What the transfer waits for now on our side, None if nothing."""

    @abstractmethod
    def limit_of(self, shares: Shares) -> Limit | None:
        """What keeps the transfer from being faster, by how we have spent our time."""

    @abstractmethod
    def progress(self) -> tuple[int, int | None, int]:
        """File bytes verified at the receiver, in all (None: nobody knows), and those that have come and are
        not verified."""

    @abstractmethod
    def next_data(self) -> bytes | None:
        """The next message for the data channel."""

    @property
    def next_data_time(self) -> float | None:
        """When next_data() is to be asked again, though nothing else happens; None: not before."""
        return None

    @abstractmethod
    def receive_data(self, message: bytes | str, now: float) -> None:
        """Give the machine a message of the data channel."""

    def _drain(self) -> None:
        _fill(self._control, self.machine.next_control)
        if self._disk_task is None and (work := self.next_work()) is not None:
            self._disk_task = asyncio.create_task(self._do(work))
        _fill(self._data, self.next_data)
        while (event := self.machine.next_event()) is not None:
            self._handle(event)
        now = time.monotonic()
        if self._started is not None and now >= self._next_progress and not self.machine.ended:
            self._next_progress = now + PROGRESS_INTERVAL
            self._progress_told = self.progress()
            self.on_event(events.Progress(self.peer, *self._progress_told))
        if self._waits is not None:
            self._waits.wait_for(self.waits_for(), now)
            if now >= self._next_condition and not self.machine.ended:
                self._next_condition = now + CONDITION_INTERVAL
                self._tell_condition(self._waits, now)

    def _tell_condition(self, waits: Waits, now: float) -> None:
        """Tell how the path is, and what keeps the transfer from being faster."""
        shares, path = waits.shares(now, busy_seconds()), self._connection.statistics()
        if shares is None:
            return
        self.on_event(
            events.Condition(
                self.peer,
                limit=self.limit_of(shares),
                rtt=path.rtt if path else None,
                delivered=path.delivered if path else 0,
                resent=path.resent if path else 0,
            )
        )

    @property
    def spared_bytes(self) -> int:
        """Bytes that compression has spared over this connection."""
        return 0

    @property
    def may_go_on(self) -> bool:
        """Whether another connection may go on with a transfer that has ended."""
        return isinstance(self._error, ConnectionLost)

    @property
    def disk_is_busy(self) -> bool:
        """Whether the disk has work of ours."""
        return self._disk_task is not None

    @property
    def channel_is_full(self) -> bool:
        """Whether the data channel takes nothing more now."""
        return not self._data.writable

    def _handle(self, event: object) -> None:
        match event:
            case RoundTrip(seconds=rtt):
                # ICE may have chosen another one.
                self._follow_route()
                path = self._connection.path()
                if path is not None and not (self._path and path.is_like(self._path)):
                    self._path = path
                    self._path_told.set()
                    self.on_event(events.PeerConnected(self.peer, path, rtt))
            case Failed(error=error):
                self._error = error
            case _:
                self.handle_event(event)

    async def _wait(self) -> None:
        """Wait for an input or the next deadline."""
        deadline = self.machine.next_timeout()
        times = (deadline, self.next_data_time, self._progress_due)
        due = min((at for at in times if at is not None), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            self.machine.handle_timeout(now)

    @property
    def _progress_due(self) -> float | None:
        """When progress is to be told that was made too soon after the last."""
        is_told = self._started is None or self.progress() == self._progress_told
        return None if is_told else self._next_progress

    async def _do(self, work: Work) -> None:
        try:
            result = await self.perform(work)
            self.work_done(await self.settle(work, result), time.monotonic())
        except FlyxError as error:
            self.machine.cancel(error)
        except OSError as error:
            self.machine.cancel(StorageError(action="use", path="the disk", reason=str(error)))
        except Exception as error:
            self.machine.cancel(failure_of(error, "the disk's work"))
        finally:
            self._disk_task = None
            self.wake()

    async def _finish(self) -> None:
        """Let the disk end what it does, and the other side read our last message: it closes when it has.

        What fails now takes back no confirmation.
        """
        self._drain_last()
        if self._disk_task:
            stopping = asyncio.get_running_loop().run_in_executor(None, self.stop_work)
            await asyncio.wait([self._disk_task, stopping])
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                while self.machine.has_last_word and not self._control.closed:
                    self._wake.clear()
                    await self._wake.wait()
                    self._drain_last()
        if self._output_gone:
            raise self._output_gone

    def _drain_last(self) -> None:
        try:
            self._drain()
        except BrokenPipeError as error:
            self._output_gone = error
        except Exception as error:
            failure = failure_of(error, "the end of a transfer")
            if self._confirmation is None:
                self._error = self._error or failure


class _Listener:
    """Passes what happens on one channel to the machine."""

    def __init__(self, driver: Driver[Machine, Work, Result], receive: Callable[[bytes | str, float], None]):
        self._driver = driver
        self._receive = receive

    def message_received(self, message: bytes | str) -> None:
        try:
            self._receive(message, time.monotonic())
        except Exception as error:
            # The connection calls us: an exception would break it, and it would be repaired again and again.
            self._driver.machine.cancel(failure_of(error, "a message"))
        self._driver.wake()

    def channel_writable(self) -> None:
        self._driver.wake()

    def channel_closed(self) -> None:
        self._driver.channel_closed()


def _fill(channel: Channel, next_message: Callable[[], bytes | str | None]) -> None:
    """Send while the channel takes and the machine has."""
    while channel.writable and (message := next_message()) is not None:
        channel.send(message)
