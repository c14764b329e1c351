from __future__ import annotations

import asyncio

import pytest

from flyx.server.redis.tasks import Tasks
from flyx.server.rooms.store import StoreUnavailable
from tests.server.redis.parts import in_virtual_time


@in_virtual_time
async def test_owned_work_goes_on_when_the_caller_is_cancelled() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(1.0)
        done.set()

    caller = asyncio.create_task(tasks.owned(work()))
    await asyncio.sleep(0.5)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.wait_for(done.wait(), 1.0)


@in_virtual_time
async def test_the_result_and_the_error_of_owned_work_are_the_callers() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise StoreUnavailable

    assert await tasks.owned(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(StoreUnavailable):
        await tasks.owned(fail())


@pytest.mark.parametrize(("error", "logged"), [(StoreUnavailable(), False), (ValueError(), True)])
def test_only_an_unexpected_failure_is_logged(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def run() -> None:
        async def fail() -> None:
            raise error

        await asyncio.wait([Tasks().spawn(fail())])
        await asyncio.sleep(0)

    run()
    assert any("a task failed" in record.getMessage() for record in caplog.records) is logged


@in_virtual_time
async def test_closing_waits_a_moment_and_then_cancels_whatever_is_started_meanwhile_too() -> None:
    tasks, ended = Tasks(), []

    async def work(name: str, seconds: float, following: bool) -> None:
        try:
            await asyncio.sleep(seconds)
            ended.append(name)
        finally:
            if following:
                tasks.spawn(work("following", 100.0, False))

    tasks.spawn(work("quick", 0.5, False))
    tasks.spawn(work("slow", 100.0, True))
    await tasks.close()
    assert ended == ["quick"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
