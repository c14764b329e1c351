"""Signals: a command may handle those that would end it, and leaves a clean screen when it is stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ONE_SIGNAL = 0.3
"""Seconds within which signals count as one: `timeout` sends its signal to a process, and then to its
group."""

ENDING = (signal.SIGINT, signal.SIGTERM)

ENDING_ON_TERMINAL = (*ENDING, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""A terminal that is closed sends SIGHUP. Windows has none."""


@contextmanager
def signals_taken_by(
    take: Callable[[int], bool], numbers: Sequence[signal.Signals] = ENDING
) -> Iterator[None]:
    """Offer each signal to take(); one that it does not want ends the process, and so does any afterwards.

    SIGHUP is left alone if it is ignored, as after `nohup`.

    Args:
        take: called with the number of a signal, between two instructions of whatever the main thread runs,
            also when the event loop turns no more. It must not wait. It returns whether the signal was of
            use.
        numbers: of the signals.
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

    taken = [
        number for number in numbers if number in ENDING or signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in taken:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        # The loop that take() would wake is about to close.
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stops_prepared_by(
    soon: Callable[[Callable[[], None]], object], leave: Callable[[], None], come_back: Callable[[], None]
) -> Iterator[None]:
    """Have Ctrl-Z stop the process after leave(), and call come_back() when it goes on.

    A second Ctrl-Z stops it at once, whatever it is busy with. Nothing is done if SIGTSTP is ignored, or
    where there is none.

    Args:
        soon: has the event loop call something; callable from a signal handler.
    """
    if not hasattr(signal, "SIGTSTP") or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return

    def stop() -> None:
        leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # To all threads: it returns when the process goes on.
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, on_signal)
        come_back()

    def on_signal(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        soon(stop)

    signal.signal(signal.SIGTSTP, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
