"""How much work code does, in steps that are the same on every machine: the lines of flyx that it runs.

What a library or an operation on a whole list does in C is not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import flyx

_ROOT = str(Path(flyx.__file__).parent)


class TooMuchWork(AssertionError):
    """An input costs more steps than it may."""


@cache
def _is_ours(filename: str) -> bool:
    return filename.startswith(_ROOT)


def steps(call: Callable[[], object], limit: int | None = None) -> int:
    """Run something and return the steps that it takes.

    Raises:
        TooMuchWork: it takes more than `limit`; it is cut short there, however long it would go on.
    """
    count = 0

    def on_line(_frame: FrameType) -> None:
        nonlocal count
        count += 1
        if limit is not None and count > limit:
            raise TooMuchWork(f"more than {limit} steps")

    _trace(call, on_line)
    if limit is not None and count > limit:
        # Something on the way took the exception for one of its own.
        raise TooMuchWork(f"more than {limit} steps")
    return count


def lines(call: Callable[[], object]) -> set[tuple[str, int]]:
    """Run something and return the lines of flyx that it reaches: file and number."""
    reached: set[tuple[str, int]] = set()
    _trace(call, lambda frame: reached.add((frame.f_code.co_filename, frame.f_lineno)))
    return reached


def _trace(call: Callable[[], object], on_line: Callable[[FrameType], None]) -> None:
    def within(frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            on_line(frame)
        return within

    def on_call(frame: FrameType, _event: str, _arg: object) -> Any:
        return within if _is_ours(frame.f_code.co_filename) else None

    previous = sys.gettrace()
    sys.settrace(on_call)
    try:
        call()
    finally:
        sys.settrace(previous)
