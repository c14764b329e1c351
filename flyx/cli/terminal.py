"""The terminal of a person who is asked something: what is typed there, and how much it shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Stands in a line for each byte that is no text in the terminal's encoding."""

_CHUNK = 4096
"""Bytes of one read. A terminal gives one line at most, and none that is longer."""

_USUAL_SIZE = os.terminal_size((80, 24))


def screen_size() -> os.terminal_size:
    """Return the columns and lines of the screen on which standard error is shown, with a guess for none."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except OSError:
        return _USUAL_SIZE
    # A terminal that does not know its size says 0.
    return os.terminal_size((size.columns or _USUAL_SIZE.columns, size.lines or _USUAL_SIZE.lines))


async def read_line(keyboard: TextIO) -> str:
    """Read a line that a person types, without blocking the event loop.

    Not by the keyboard's own methods: `readline` waits for the end of the line, and raises at bytes that are
    no text.

    Args:
        keyboard: a terminal; whatever its buffer holds is passed over.

    Returns:
        The line up to its newline and including it, bytes that are no text as UNREADABLE. Without a newline
        it is the last one; empty when there is none, or the terminal is gone.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    descriptor = keyboard.fileno()
    typed = bytearray()
    ended: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            # Another program on this terminal was faster.
            return
        except OSError:
            # The terminal has been closed, perhaps in the middle of a line: that is no answer.
            typed.clear()
            chunk = b""
        typed.extend(chunk)
        # What comes without a newline is half a line, handed over with Ctrl-D: the rest follows.
        if (not chunk or b"\n" in chunk) and not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, read)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
    return typed.decode(keyboard.encoding, "replace")


def run_program(
    command: Sequence[str], text: bytes | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Wait for another program that has the terminal meanwhile, and return its status.

    Args:
        command: Its name and its arguments.
        text: What it reads; None: the terminal.
        environment: All of it; None: that of flyx.

    Raises:
        OSError: It cannot be started.
    """
    # Ctrl-C is for it. A handler, unlike SIG_IGN, is not handed down.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command, input=text, env=environment, check=False).returncode  # noqa: S603
    finally:
        signal.signal(signal.SIGINT, former)
