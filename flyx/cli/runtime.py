"""Runs a command's coroutine: the fastest event loop there is, and signals as cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from flyx.cli.screen import screen
from flyx.cli.signals import ENDING_ON_TERMINAL, signals_taken_by, stops_prepared_by

# For many receivers at once, each with sockets and a file, where macOS begins with 256 and Linux with 1,024.
_FILES = 65_536

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run work to its end, and return what it returns.

    The first SIGINT, SIGTERM or SIGHUP (the terminal has been closed) cancels it, so that it can tell its
    peers; a second one ends the process, whatever the event loop does.

    Raises:
        KeyboardInterrupt: a signal ended it.
    """
    from flyx.net.loop import calm_allocator, calm_collector, new_event_loop, raise_file_limit

    calm_collector()
    calm_allocator()
    raise_file_limit(_FILES)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_cancelled_by_signals(work))


async def _cancelled_by_signals(work: Coroutine[Any, Any, Result]) -> Result:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    interrupted = False

    def take(_: int) -> bool:
        nonlocal interrupted
        if interrupted:
            return False
        interrupted = True
        loop.call_soon_threadsafe(task.cancel)
        return True

    with (
        signals_taken_by(take, ENDING_ON_TERMINAL),
        stops_prepared_by(loop.call_soon_threadsafe, screen.leave, screen.come_back),
    ):
        try:
            return await task
        except asyncio.CancelledError:
            if not interrupted:
                raise
            raise KeyboardInterrupt from None
