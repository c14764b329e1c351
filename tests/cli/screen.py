"""A terminal for what is written in this process."""

from __future__ import annotations

import os
import pty
import re
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flyx.cli import streams

# What is written for bars: lines cleared, the cursor up, colours.
OF_BARS = re.compile(r"\x1b\[[JK]|\x1b\[[0-9]*A|\x1b\[[0-9;]*m|\r")

_PATIENCE = 30.0


class Screen:
    """What was written to the terminal."""

    def __init__(self, inside: int) -> None:
        """Args:
        inside: a descriptor of the terminal.
        """
        self.raw = b""
        self._inside = inside
        # Of what is read.
        self._news = threading.Condition()
        self._marks = 0

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal as wide and high as that."""
        termios.tcsetwinsize(self._inside, (rows, columns))

    def take(self, chunk: bytes) -> None:
        """This has been read."""
        with self._news:
            self.raw += chunk
            self._news.notify_all()

    def settle(self) -> None:
        """Wait until all that was written so far has been read."""
        streams.flush()
        with self._news:
            self._marks += 1
            mark = b"\x1b]%d\x07" % self._marks
            os.write(self._inside, mark)
            assert self._news.wait_for(lambda: self.raw.endswith(mark), _PATIENCE), self.raw[-1000:]
            self.raw = self.raw.removesuffix(mark)

    @property
    def text(self) -> str:
        """All of it, without what moves and colours bars; lines end with a newline."""
        return OF_BARS.sub("", self.raw.decode("utf-8", "surrogateescape"))


@contextmanager
def on_terminal(*, columns: int = 100, lines: int = 24) -> Iterator[Screen]:
    """Have standard output and standard error be a terminal of this size."""
    outside, inside = pty.openpty()
    screen = Screen(inside)
    screen.resize(columns, lines)

    def read() -> None:
        try:
            while chunk := os.read(outside, 1 << 16):
                screen.take(chunk)
        except OSError:
            # The end, once nobody has the other side.
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with (
            os.fdopen(inside, "w", encoding="utf-8", errors="backslashreplace") as file,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("TERM", "xterm-256color")
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            yield screen
            streams.flush()
    finally:
        reader.join()
        os.close(outside)
