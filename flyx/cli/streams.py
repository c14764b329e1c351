"""Standard output and standard error without waiting for whoever reads them.

A terminal that is stopped by Ctrl-S, or a program that does not read its pipe, would stop the event loop with
the next line: no ping is answered then, and after 20 s the other side takes the path for broken. Here such
lines wait, and a thread writes them. A program that does read is written to at once, so that its end is known
at once.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import threading
from collections import deque
from contextlib import suppress
from typing import TextIO

MAX_WAITING = 64 << 20
"""Bytes that wait at most: with more, writing waits as it would without this module."""

_PIECE = 4096
"""Bytes that are written at once: what a pipe takes whole if it takes anything (PIPE_BUF of Linux)."""


class PatientFile:
    """What is written to one file, pipe or terminal, in order, over whatever descriptors."""

    def __init__(self) -> None:
        # Each with the descriptor that it goes to; and their bytes.
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0
        # Changes of these.
        self._news = threading.Condition()
        # What has come of a piece that waited; raised once.
        self._error: OSError | None = None

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of it, now or when it can be.

        Raises:
            OSError: it cannot, or something before it could not.
        """
        # That a terminal takes something does not mean that it takes a whole piece at once.
        direct = not os.isatty(descriptor)
        with self._news:
            self._raise()
            if direct and not self._pieces:
                data = _write_at_once(descriptor, data)
            if not data:
                return
            if not self._pieces:
                threading.Thread(target=self._write_waiting, daemon=True).start()
            self._pieces.extend((descriptor, data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))
            self._size += len(data)
            self._news.wait_for(lambda: self._size <= MAX_WAITING)

    def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: something could not be.
        """
        with self._news:
            self._news.wait_for(lambda: not self._pieces)
            self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_waiting(self) -> None:
        """Write what waits until nothing does; on a thread."""
        while True:
            with self._news:
                if not self._pieces:
                    return
                descriptor, piece = self._pieces[0]
            error: OSError | None = None
            try:
                rest = piece
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            except OSError as failed:
                error = failed
            with self._news:
                self._pieces.popleft()
                self._size -= len(piece)
                if error is not None:
                    # Nobody will take the rest either.
                    self._error = error
                    self._pieces.clear()
                    self._size = 0
                self._news.notify_all()
                if not self._pieces:
                    return


# By device and number of the file: two descriptors of one terminal share their order.
_files: dict[tuple[int, int], PatientFile] = {}


def write_bytes(stream: TextIO, data: bytes) -> None:
    """Write bytes to a stream of bytes, after what was written before.

    Raises:
        OSError: it cannot be written to.
    """
    if not _write(stream, data):
        stream.buffer.write(data)
        stream.flush()


def write_text(stream: TextIO, text: str) -> None:
    """Write text to a stream, as it would encode it, after what was written before.

    Raises:
        OSError: it cannot be written to.
    """
    if not _write(stream, text.encode(stream.encoding or "utf-8", stream.errors or "strict")):
        stream.write(text)
        stream.flush()


def flush() -> None:
    """Wait until all that waits is written, or cannot be."""
    for file in _files.values():
        with suppress(OSError):
            file.flush()


class ConsoleFile:
    """A stream as rich wants it for a console."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write text."""
        write_text(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: what waits here is what nobody takes."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._stream.fileno()


def _write(stream: TextIO, data: bytes) -> bool:
    """Write to the descriptor of a stream; False if it has none: it is a test's, or leads to a console."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    stream.flush()
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return False
    status = os.fstat(descriptor)
    _files.setdefault((status.st_dev, status.st_ino), PatientFile()).write(descriptor, data)
    return True


def _write_at_once(descriptor: int, data: bytes) -> bytes:
    """Write what is taken at once; return the rest."""
    if not hasattr(select, "poll"):
        # Windows tells it of sockets alone.
        return data
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while data and poll.poll(0):
        data = data[os.write(descriptor, data[:_PIECE]) :]
    return data


def _flush_at_exit() -> None:
    # Ctrl-C ends the wait for who does not read.
    with suppress(KeyboardInterrupt):
        flush()


atexit.register(_flush_at_exit)
