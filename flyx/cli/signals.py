"""SIGINT and SIGTERM: asked of a command first, and then the end of it, whatever it is busy with."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ONE_SIGNAL = 0.3
"""Seconds within which signals count as one: `timeout` sends its signal to a process, and then to its
group."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_taken_by(take: Callable[[int], bool]) -> Iterator[None]:
    """Offer each signal to take(); one that it does not want ends the process, and so does any afterwards.

    Args:
        take: called with the number of a signal, between two instructions of whatever the main thread runs,
            also when the event loop turns no more. It must not wait. It returns whether the signal was of
            use.
    """
    last: float | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        # Not loop.add_signal_handler, which not every platform has, and which needs a loop that turns.
        nonlocal last
        now = time.monotonic()
        if last is not None and now - last < ONE_SIGNAL:
            return
        last = now
        if not take(number):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        # The loop that take() would wake is about to close.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
