"""Runs a command's coroutine: the fastest event loop there is, and signals as cancellation."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine
from types import FrameType
from typing import Any

ONE_SIGNAL = 0.3
"""Seconds within which signals count as one: `timeout` sends its signal to a process, and then to its
group."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run work to its end.

    The first SIGINT or SIGTERM cancels it, so that it can tell its peers; a second one ends the process,
    whatever the event loop does.

    Raises:
        KeyboardInterrupt: a signal ended it.
    """
    from flyx.net.loop import calm_allocator, calm_collector, new_event_loop

    calm_collector()
    calm_allocator()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_cancelled_by_signals(work))


async def _cancelled_by_signals(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    first: float | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        # Not loop.add_signal_handler, which not every platform has, and which needs a loop that turns: Python
        # runs this between two instructions of whatever the loop is stuck in.
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
            loop.call_soon_threadsafe(task.cancel)
        elif now - first >= ONE_SIGNAL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        if first is None:
            raise
        raise KeyboardInterrupt from None
    finally:
        # The loop that they would wake is about to close.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
