"""A transfer as a program has it: what it reads, what it misses, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from flyx.api import transfer
from flyx.api.transfer import Event, EventsLost, Transfer
from flyx.client.events import (
    Condition,
    FileFinished,
    Listing,
    ManifestKnown,
    PeerJoined,
    Progress,
    TransferDone,
)
from flyx.client.events import Event as ClientEvent
from flyx.errors import LocalProtocolError, NobodyCame
from flyx.transfer.manifest import Manifest

Tell = Callable[[ClientEvent], None]


def done(peer: int = 1) -> TransferDone:
    return TransferDone(peer, 1, 1, 1.0, "00")


def condition(peer: int, delivered: int) -> Condition:
    return Condition(peer, None, None, delivered, 0)


def finished(number: int) -> FileFinished:
    return FileFinished(1, f"file {number}", None, None)


class Work:
    """Does a transfer that tells what it is given, and then goes on until it is stopped, if it shall."""

    def __init__(self, *events: ClientEvent, endless: bool = False, error: Exception | None = None) -> None:
        self._events = events
        self._endless = endless
        self._error = error
        self.told = asyncio.Event()
        self.stopped = asyncio.Event()
        # How long its end takes.
        self.goodbye = asyncio.Event()
        self.goodbye.set()

    async def __call__(self, tell: Tell) -> None:
        try:
            for event in self._events:
                tell(event)
            self.told.set()
            if self._endless:
                await asyncio.Event().wait()
            if self._error:
                raise self._error
        except asyncio.CancelledError:
            await self.goodbye.wait()
            self.stopped.set()
            raise


async def all_of(given: Transfer) -> list[Event]:
    return [event async for event in given]


async def unread(work: Work) -> list[Event]:
    """What is read when all has been told before anything is."""
    async with Transfer(work) as given:
        await work.told.wait()
        return await all_of(given)


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


# What is read.


async def test_events_come_in_order_and_then_the_end() -> None:
    told: list[ClientEvent] = [PeerJoined(1), Progress(1, 1, 1), finished(1), done()]
    assert await all_of(Transfer(Work(*told))) == told
    assert not others()


async def test_nothing_happens_before_the_first_event_is_asked_for() -> None:
    work = Work(PeerJoined(1))
    given = Transfer(work)
    await asyncio.sleep(0)
    assert not work.told.is_set()
    assert await anext(given) == PeerJoined(1)
    await given.aclose()


async def test_an_error_is_raised_once_after_the_last_event() -> None:
    given = Transfer(Work(PeerJoined(1), error=NobodyCame(seconds=1)))
    assert await anext(given) == PeerJoined(1)
    with pytest.raises(NobodyCame):
        await anext(given)
    with pytest.raises(StopAsyncIteration):
        await anext(given)


async def test_what_nobody_foresaw_is_an_error_of_flyx_with_its_cause() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        await all_of(Transfer(Work(error=ZeroDivisionError("mistaken"))))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_waiting_for_an_event_may_be_cancelled_and_loses_nothing() -> None:
    go = asyncio.Event()

    async def work(tell: Tell) -> None:
        await go.wait()
        tell(done())

    given = Transfer(work)
    waiting = asyncio.ensure_future(anext(given))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    go.set()
    assert await all_of(given) == [done()]


async def test_two_readers_share_the_events() -> None:
    given = Transfer(Work(finished(1), finished(2), finished(3)))
    read = await asyncio.gather(all_of(given), all_of(given))
    assert sorted(event.path for each in read for event in each if isinstance(event, FileFinished)) == [
        "file 1",
        "file 2",
        "file 3",
    ]


# What is not read in time.


async def test_what_tells_how_things_are_is_replaced_while_it_is_unread() -> None:
    old, new = Manifest([]), Manifest([], hole_bytes=1)
    first: list[ClientEvent] = [Listing(1), ManifestKnown(old), PeerJoined(1), Progress(1, 1, 9)]
    second: list[ClientEvent] = [
        Progress(2, 4, 9),
        condition(1, 5),
        Listing(2),
        finished(1),
        Progress(1, 2, 9),
    ]
    third: list[ClientEvent] = [
        ManifestKnown(new),
        condition(1, 6),
        condition(2, 7),
        Progress(1, 9, 9),
        done(),
    ]
    assert await unread(Work(*first, *second, *third)) == [
        Listing(2),
        ManifestKnown(new),
        PeerJoined(1),
        Progress(1, 9, 9),
        Progress(2, 4, 9),
        condition(1, 6),
        finished(1),
        condition(2, 7),
        done(),
    ]


async def test_what_has_been_read_is_not_replaced() -> None:
    given = Transfer(Work(Progress(1, 1, 9)))
    assert await all_of(given) == [Progress(1, 1, 9)]
    news = asyncio.Event()

    async def work(tell: Tell) -> None:
        tell(Progress(1, 1, 9))
        await news.wait()
        tell(Progress(1, 2, 9))

    given = Transfer(work)
    assert await anext(given) == Progress(1, 1, 9)
    news.set()
    assert await all_of(given) == [Progress(1, 2, 9)]


async def test_of_too_many_the_oldest_are_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_UNREAD", 3)
    told: list[ClientEvent] = [*map(finished, range(5)), done()]
    assert await unread(Work(*told)) == [EventsLost(3), *told[3:]]


async def test_a_million_files_that_nobody_reads_of_end_all_the_same() -> None:
    class Many:
        async def __call__(self, tell: Tell) -> None:
            for number in range(1_000_000):
                tell(finished(number))
            tell(done())

    read = await all_of(Transfer(Many()))
    assert read[0] == EventsLost(1_000_001 - transfer.MAX_UNREAD)
    assert len(read) == transfer.MAX_UNREAD + 1
    assert read[-1] == done()


# How it ends early.


async def test_leaving_the_block_waits_until_all_is_gone() -> None:
    work = Work(PeerJoined(1), endless=True)
    async with Transfer(work) as given:
        async for _ in given:
            break
        work.goodbye.clear()
        asyncio.get_running_loop().call_later(0.01, work.goodbye.set)
    assert work.stopped.is_set()
    assert not others()


async def test_a_loop_that_is_left_by_break_goes_on_with_the_next_loop() -> None:
    async with Transfer(Work(PeerJoined(1), PeerJoined(2))) as given:
        async for event in given:
            assert event == PeerJoined(1)
            break
        assert await all_of(given) == [PeerJoined(2)]


async def left_by_break(work: Work) -> None:
    async for _ in Transfer(work):
        break


async def left_by_an_exception(work: Work) -> None:
    with suppress(LookupError):
        async for _ in Transfer(work):
            raise LookupError


async def left_by_cancellation(work: Work) -> None:
    async def read() -> None:
        async for _ in Transfer(work):
            pass

    task = asyncio.create_task(read())
    await work.told.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def dropped_on_another_thread(work: Work) -> None:
    held = [Transfer(work)]
    await anext(held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize(
    "leave", [left_by_break, left_by_an_exception, left_by_cancellation, dropped_on_another_thread]
)
async def test_a_transfer_that_nothing_refers_to_ends(
    leave: Callable[[Work], Coroutine[Any, Any, None]],
) -> None:
    work = Work(PeerJoined(1), endless=True)
    await leave(work)
    gc.collect()
    await work.stopped.wait()
    await asyncio.gather(*others(), return_exceptions=True)


def test_a_transfer_that_outlives_its_loop_is_dropped_without_a_word() -> None:
    async def begin() -> Transfer:
        given = Transfer(Work(PeerJoined(1), endless=True))
        await anext(given)
        return given

    given = asyncio.run(begin())
    # A complaint would be an error here (PytestUnraisableExceptionWarning).
    del given
    gc.collect()


async def test_closing_twice_lets_the_end_go_on() -> None:
    work = Work(PeerJoined(1), endless=True)
    given = Transfer(work)
    await anext(given)
    work.goodbye.clear()
    first = asyncio.create_task(given.aclose())
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.create_task(given.aclose())
    await asyncio.wait({first})
    work.goodbye.set()
    await second
    assert work.stopped.is_set()


async def test_whoever_waits_for_an_event_learns_that_it_is_closed() -> None:
    given = Transfer(Work(endless=True))
    reading = asyncio.create_task(all_of(given))
    await asyncio.sleep(0)
    await given.aclose()
    assert await reading == []


async def test_what_was_closed_tells_nothing_more_not_even_its_error() -> None:
    work = Work(PeerJoined(1), error=NobodyCame(seconds=1))
    async with Transfer(work) as given:
        await work.told.wait()
    assert await all_of(given) == []


async def test_what_was_closed_before_it_began_never_begins() -> None:
    work = Work(PeerJoined(1))
    given = Transfer(work)
    await given.aclose()
    assert await all_of(given) == []
    assert not work.told.is_set()
