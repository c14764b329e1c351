"""One transfer as a program has it: its events, one after the other, and the end of it all on the way out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeAlias

from flyx.client import events
from flyx.errors import FlyxError, as_flyx_error

MAX_UNREAD = 10_000
"""Events that wait to be read: a few megabytes, or 60 where all names are as long as they may be."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """So many events were given up, the oldest first, as nobody read them and 10,000 others waited."""

    count: int


Event: TypeAlias = events.Event | EventsLost
"""What a transfer tells."""

Work = Callable[[Callable[[events.Event], None]], Coroutine[Any, Any, None]]
"""Does a transfer, and tells what happens."""

# The only reference to a transfer that still ends when its Transfer has been dropped.
_tasks: set[asyncio.Task[None]] = set()


class Transfer:
    """One transfer: an asynchronous iterator of its events.

    It begins when the first event is asked for, or when it is entered as an asynchronous context manager, and
    goes on whether its events are read or not. It ends by itself, or early:

    - when its `async with` block is left, or aclose() is called; all of it is gone when that returns;
    - when nothing refers to it any more, as after `break` in a loop over `flyx.send(...)`; soon after that.

    The other side is told. What has arrived is kept: another transfer goes on from there.
    """

    def __init__(self, work: Work) -> None:
        """Args:
        work: does the transfer.
        """
        self._work = work
        self._inbox = Inbox()
        # Set once it has begun.
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return what happens next. Waiting for it may be cancelled, which loses no event and ends nothing.

        Raises:
            FlyxError: the transfer has failed; after its last event, once.
            StopAsyncIteration: it is over.
        """
        self._begin()
        event = await self._inbox.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it if it is not over, and wait until all of it is gone; up to a few seconds.

        What was not read is dropped, an error as well.
        """
        if not self._closed:
            self._closed = True
            self._inbox.close()
            if self._task:
                self._task.cancel()
        if self._task:
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        if self._task or self._closed:
            return
        # The task must not hold us: that we are gone ends it.
        self._task = asyncio.create_task(_run(self._work, self._inbox))
        _tasks.add(self._task)
        self._task.add_done_callback(_tasks.discard)

    def __del__(self) -> None:
        if self._task and not self._closed and not self._task.done():
            # From any thread; if the loop is closed, its tasks have ended with it.
            with suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


async def _run(work: Work, inbox: Inbox) -> None:
    """Do the work, and have the inbox know how it ends."""
    try:
        await work(inbox.put)
    except Exception as error:
        inbox.fail(as_flyx_error(error))
    finally:
        inbox.end()


class Inbox:
    """Events that wait to be read, at most MAX_UNREAD.

    What only tells how things are now takes the place of what told that before, if nobody has read it. When
    there are too many all the same, the oldest are given up, and counted.
    """

    def __init__(self) -> None:
        # By what they may be replaced by, in the order in which they are read.
        self._unread: OrderedDict[Hashable, Event] = OrderedDict()
        self._numbers = count()
        self._lost = 0
        # How it has ended: raised once, after the last event.
        self._error: FlyxError | None = None
        self._ended = False
        # Set when next() may have something to return.
        self._news = asyncio.Event()

    def put(self, event: events.Event) -> None:
        """Keep an event."""
        if self._ended:
            return
        self._unread[_place(event) or next(self._numbers)] = event
        if len(self._unread) > MAX_UNREAD:
            self._unread.popitem(last=False)
            self._lost += 1
        self._news.set()

    def fail(self, error: FlyxError) -> None:
        """Have this be raised after the last event."""
        if not self._ended:
            self._error = error

    def end(self) -> None:
        """There will be no more events."""
        self._ended = True
        self._news.set()

    def close(self) -> None:
        """Forget all that is unread, and end."""
        self._unread.clear()
        self._lost = 0
        self._error = None
        self.end()

    async def next(self) -> Event | None:
        """Wait for an event; None after the last.

        Raises:
            FlyxError: that of fail(), once.
        """
        while True:
            if self._lost:
                lost, self._lost = self._lost, 0
                return EventsLost(lost)
            if self._unread:
                return self._unread.popitem(last=False)[1]
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()


def _place(event: events.Event) -> tuple[object, ...] | None:
    """Return what an event shares with those that say the same of a later time; None if it says more."""
    match event:
        case events.Listing() | events.ManifestKnown():
            return (type(event),)
        case events.Connecting(peer=peer) | events.Condition(peer=peer) | events.Progress(peer=peer):
            return type(event), peer
        case _:
            return None
