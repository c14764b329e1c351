"""What is shown on standard error: lines that stay, a question, and below all of it lines that change.

Every line that flyx says to a person goes through here, so that each has a line of its own, whatever stands
on the screen. The cursor is never hidden and no mode of the terminal is changed: whatever ends or stops the
program, nothing has to be put back.
"""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from collections.abc import Sequence
from typing import TextIO

from flyx.cli.streams import flush_for, is_behind, write_talk
from flyx.cli.terminal import screen_size

FLUSH_TIME = 0.5
"""Seconds that a terminal gets to show the last of it before the program is stopped."""

_END_LINE, _END_SCREEN = "\x1b[K", "\x1b[J"
"""ECMA-48: erase to the end of the line (EL), and of the screen (ED)."""

_CLIPBOARD, _BELL = "\x1b]52;c;", "\x07"
"""OSC 52 of xterm, which others have taken over: manipulate selection data, of the clipboard (c)."""

Line = tuple[str, int]
"""What is written, colours included, and the columns that it takes."""


class Screen:
    """Standard error, whichever that is at the time."""

    def __init__(self) -> None:
        # The lines that change, as they stand on the screen. The cursor is at the beginning of the last one,
        # so that what the terminal shows of keys (^C, ^Z) breaks none of them.
        self._shown: Sequence[Line] = ()
        # What stands before the place where a person types, and whether that line is not at its end.
        self._question = ""
        self._is_open = False

    def line(self, text: str, *, last: bool = False) -> None:
        """Write a line that stays; what stands below it stays below it.

        Args:
            text: without controls.
            last: the program is about to end: no question is answered any more.
        """
        if last:
            self.hide()
            self._question = ""
        start = self._start()
        if not start and last and sys.stderr.isatty():
            # The terminal shows Ctrl-C as ^C.
            start = "\r"
        end = self._question or self._end()
        write_talk(sys.stderr, f"{start}{text}{_END_LINE if self._shown else ''}\n{end}")
        self._is_open = bool(self._question)

    def question(self, text: str) -> None:
        """Write what stands before the place where a person types."""
        self.hide()
        write_talk(sys.stderr, f"{self._start()}{text}")
        self._question, self._is_open = text, True

    def answered(self, *, ended: bool) -> None:
        """Nothing is typed any more; `ended`: the person has ended the line."""
        self._question = ""
        self._is_open &= not ended

    def show(self, lines: Sequence[Line]) -> None:
        """Show these as the lines that change: fewer than the screen has, each shorter than it is wide."""
        if self._is_open or is_behind(sys.stderr) or not _in_foreground():
            # Nothing is drawn in the background, or where it would be in the way.
            return
        start, self._shown = self._start(), lines
        write_talk(sys.stderr, start + self._end())

    def hide(self) -> None:
        """Take the lines that change off the screen."""
        if self._shown:
            write_talk(sys.stderr, self._start() + _END_SCREEN)
            self._shown = ()

    def copy(self, text: str) -> bool:
        """Have the terminal put text on its clipboard, which moves nothing on the screen.

        Returns:
            Whether there is a terminal. It does not answer: many have to be told in their settings to obey.
        """
        for stream in (sys.stderr, sys.stdout):
            if _is_able(stream):
                write_talk(stream, f"{_CLIPBOARD}{b64encode(text.encode()).decode()}{_BELL}")
                return True
        return False

    def leave(self) -> None:
        """The program is about to be stopped, and the terminal is another's."""
        self.hide()
        flush_for(FLUSH_TIME)

    def come_back(self) -> None:
        """The program goes on."""
        if self._question:
            write_talk(sys.stderr, f"\r{self._question}")

    def _start(self) -> str:
        """What leads to the beginning of the lines that change, or of a new line."""
        if self._is_open:
            return "\n"
        if not self._shown:
            return ""
        # A terminal that has become narrower has broken lines; one that has become wider has joined them.
        columns = screen_size().columns
        above = sum(max(1, -(-width // columns)) for _, width in self._shown[:-1])
        return "\r" + (f"\x1b[{above}A" if above else "")

    def _end(self) -> str:
        """What draws the lines that change, from their beginning on."""
        if not self._shown:
            return ""
        return "\n".join(f"{text}{_END_LINE}" for text, _ in self._shown) + _END_SCREEN + "\r"


screen = Screen()
"""The only one: a process has one standard error."""


def can_draw() -> bool:
    """Whether standard error is a terminal that moves its cursor."""
    return _is_able(sys.stderr)


def _is_able(stream: TextIO) -> bool:
    """Whether a stream leads to a terminal that knows control sequences."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def _in_foreground() -> bool:
    """Whether the terminal is ours: a job in the background draws nothing over what another shows."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        # Not the terminal that signals come from, or no terminal.
        return True
