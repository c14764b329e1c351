"""Runs a command's coroutine: the fastest event loop there is, and signals as cancellation.

What connections are made of takes a third of the time to load a transfer, and is needed last: it is loaded on
a thread while the program waits for a server and its peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import closing, suppress
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar

from flyx.cli.screen import screen
from flyx.cli.signals import ENDING_ON_TERMINAL, signals_taken_by, stops_prepared_by

_FILES = 65_536
"""For many receivers at once, each with sockets and a file, where macOS begins with 256 and Linux with
1,024."""

CONNECTIONS = "flyx.rtc.peer"
"""The module that makes them."""

Result = TypeVar("Result")

_logger = logging.getLogger("flyx.cli")


def run(work: Coroutine[Any, Any, Result], *, loading: str | None = None) -> Result:
    """Run work to its end, and return what it returns.

    Args:
        work: what to do.
        loading: a module that it imports later, to be loaded meanwhile; None: it needs none.

    The first SIGINT, SIGTERM or SIGHUP (the terminal has been closed) cancels it, so that it can tell its
    peers; a second one ends the process, whatever the event loop does.

    Raises:
        KeyboardInterrupt: a signal ended it.
        InputError: FLYX_TRACE names a file that cannot be made.
        OSError: this process may have too few files open.
    """
    from flyx.cli.process import raise_file_limit, require_files, tune_gc, tune_malloc
    from flyx.net.loop import new_event_loop
    from flyx.rtc import trace

    # What ends before it has begun is closed here.
    with closing(work):
        if loading == CONNECTIONS:
            # A file that cannot be made fails now, and not when the first peer has come.
            trace.start()
        tune_malloc()
        raise_file_limit(_FILES)
        require_files()
        if loading is None:
            tune_gc()
        else:
            Thread(target=_load, args=[loading], name="flyx-load").start()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_cancelled_by_signals(work))


def _load(module: str) -> None:
    """Load a module, and only then have the garbage collector back, for which loading is nothing but work."""
    from flyx.cli.process import tune_gc

    # The import that needs the module raises the same.
    with suppress(Exception):
        import_module(module)
        _logger.debug("%s is loaded", module)
    tune_gc()


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
