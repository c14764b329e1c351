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

# What rich writes for bars: the cursor hidden and shown, lines cleared, the cursor up, colours.
OF_BARS = re.compile(r"\x1b\[\?25[hl]|\x1b\[2K|\x1b\[1?A|\x1b\[[0-9;]*m|\r")


class Screen:
    """What was written to the terminal."""

    def __init__(self) -> None:
        self.raw = b""

    @property
    def text(self) -> str:
        """All of it, without what moves and colours bars; lines end with a newline."""
        return OF_BARS.sub("", self.raw.decode("utf-8", "surrogateescape"))


@contextmanager
def on_terminal() -> Iterator[Screen]:
    """Have standard output and standard error be a terminal of 100 columns."""
    screen = Screen()
    outside, inside = pty.openpty()
    termios.tcsetwinsize(inside, (24, 100))

    def read() -> None:
        try:
            while chunk := os.read(outside, 1 << 16):
                screen.raw += chunk
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
