"""The terminal on which a person is asked: what is typed there, and how much it shows."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TextIO

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Stands in a line for each byte that is no text in the terminal's encoding."""

_CHUNK = 4096
"""Bytes of one read. A terminal gives one line at most, and none that is longer."""

_PATIENCE = 0.2
"""Seconds for the thread that reads to end. It may hang where another program took what was typed."""

_USUAL_SIZE = os.terminal_size((80, 24))


def screen_size() -> os.terminal_size:
    """Return the columns and lines of the screen on which standard error is shown, with a guess for none."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return _USUAL_SIZE
    # A terminal that does not know its size says 0.
    return os.terminal_size((size.columns or _USUAL_SIZE.columns, size.lines or _USUAL_SIZE.lines))


def forget_typed(keyboard: TextIO) -> None:
    """Pass over the lines that were typed before: they do not answer a question that nobody has seen."""
    import termios

    # It may be gone: that is for the next to read from it to tell.
    with suppress(termios.error):
        termios.tcflush(keyboard, termios.TCIFLUSH)


async def read_line(keyboard: TextIO) -> str:
    """Read a line that a person types, without blocking the event loop.

    Not by the keyboard's own methods: `readline` waits for the end of the line, and raises at bytes that are
    no text. Nor by the event loop: uvloop's makes what it watches non-blocking, for all that have the
    terminal open, and leaves it so; the shell and whatever else writes there would fail.

    Args:
        keyboard: a terminal; whatever its buffer holds is passed over.

    Returns:
        The line up to its newline and including it, bytes that are no text as UNREADABLE. Without a newline
        it is the last one; empty when there is none, or the terminal is gone.
    """
    import asyncio
    import threading

    from flyx.cli.screen import screen

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bytes] = loop.create_future()

    def end(typed: bytes) -> None:
        if not ended.done():
            ended.set_result(typed)

    def tell(typed: bytes) -> None:
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(end, typed)

    # Then the terminal has shown the end of the line already, above the question that it answers.
    was_typed_before = bool(select.select([keyboard], [], [], 0)[0])
    stopped, stop = os.pipe()
    thread = threading.Thread(target=_read, args=(keyboard.fileno(), stopped, tell), daemon=True)
    thread.start()
    typed = b""
    try:
        typed = await ended
    finally:
        screen.answered(ended=typed.endswith(b"\n") and not was_typed_before)
        os.write(stop, b"\n")
        thread.join(_PATIENCE)
        if not thread.is_alive():
            os.close(stopped)
            os.close(stop)
    return typed.decode(keyboard.encoding, "replace")


def _read(keyboard: int, stopped: int, tell: Callable[[bytes], None]) -> None:
    """Tell what is typed up to the end of a line or of everything, unless `stopped` can be read before."""
    typed = b""
    while True:
        readable, _, _ = select.select([keyboard, stopped], [], [])
        if stopped in readable:
            return
        try:
            chunk = os.read(keyboard, _CHUNK)
        except BlockingIOError:
            # Another program on this terminal was faster, and has made it non-blocking.
            continue
        except OSError:
            # The terminal has been closed, perhaps in the middle of a line: that is no answer.
            tell(b"")
            return
        typed += chunk
        # What comes without a newline is half a line, handed over with Ctrl-D: the rest follows.
        if not chunk or b"\n" in chunk:
            tell(typed)
            return


def run_program(
    command: Sequence[str], text: bytes | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Wait for another program that has the terminal meanwhile, and return its status.

    Args:
        command: its name and its arguments.
        text: what it reads; None: the terminal.
        environment: all of it; None: that of flyx.

    Raises:
        OSError: it cannot be started.
    """
    # Ctrl-C is for it. A handler, unlike SIG_IGN, is not handed down.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command, input=text, env=environment, check=False).returncode  # noqa: S603
    finally:
        signal.signal(signal.SIGINT, former)
