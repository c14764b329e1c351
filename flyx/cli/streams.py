"""Standard output and standard error, written without waiting for slow readers.

A terminal that is stopped by Ctrl-S, or a program that does not read its pipe, would stop the event loop with
the next line: no ping is answered then, and after 20 s the other side takes the path for broken. Here such
lines wait, and a thread writes them. A program that does read is written to at once, so that its end is known
at once.

Data is never left out. Text for people (talk) is left out when the reader has been slow for long; and if it
cannot be written, that is no error, as no person reads it.

The mode of a stream is never changed: the shell and other programs share it.
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
"""Bytes of data that wait at most: with more, writing waits as it would without this module."""

MAX_TALK = 1 << 20
"""Bytes that may wait before talk is left out."""

_PIECE = 4096
"""Bytes that are written at once: what a pipe takes whole if it takes anything (PIPE_BUF of Linux)."""


class PatientFile:
    """What is written to one file, pipe or terminal, in order, over whatever descriptors."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        # That a terminal takes something does not mean that it takes a whole piece at once.
        self._direct = not is_terminal
        # Each with the descriptor that it goes to; and their bytes.
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0
        # Changes of these.
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        # What has come of a piece that waited; raised once.
        self._error: OSError | None = None
        # How often something was left out since the last time that it was not.
        self._left_out = 0

    @property
    def is_behind(self) -> bool:
        """Whether something waits."""
        return bool(self._pieces)

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of it, now or when it can be.

        Raises:
            OSError: it cannot, or something before it could not.
        """
        with self._news:
            self._raise()
            if self._direct and not self._pieces:
                data = _write_at_once(descriptor, data)
            if not data:
                return
            self._pieces.extend((descriptor, data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))
            self._size += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_waiting, daemon=True)
                self._thread.start()
            self._news.notify_all()
            self._news.wait_for(lambda: self._size <= MAX_WAITING)

    def talk(self, descriptor: int, data: bytes) -> None:
        """Write all of it, now or later, or leave it out if the reader has been slow for long.

        Raises:
            OSError: it cannot be written, or something before it could not.
        """
        with self._news:
            if self._size + len(data) > MAX_TALK:
                self._left_out += 1
                return
            if self._left_out:
                data = b"(%d lines were left out here: nobody has read them)\n" % self._left_out + data
                self._left_out = 0
        self.write(descriptor, data)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything is written; `timeout`: seconds after which to wait no more.

        Raises:
            OSError: something could not be.
        """
        with self._news:
            self._news.wait_for(lambda: not self._pieces, timeout)
            self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_waiting(self) -> None:
        """Write what waits, whenever something does; on a thread."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._pieces)
                descriptor, piece = self._pieces[0]
            error: OSError | None = None
            try:
                _write_patiently(descriptor, piece)
            except OSError as failed:
                error = failed
            with self._news:
                self._pieces.popleft()
                self._size -= len(piece)
                if error is not None:
                    # The rest cannot be written either.
                    self._error = error
                    self._pieces.clear()
                    self._size = 0
                self._news.notify_all()


# By device and number of the file: two descriptors of one terminal share their order.
_files: dict[tuple[int, int], PatientFile] = {}


def write_bytes(stream: TextIO, data: bytes) -> None:
    """Write bytes to a stream of bytes, after what was written before.

    Raises:
        OSError: it cannot be written to.
    """
    if found := _file_of(stream):
        file, descriptor = found
        file.write(descriptor, data)
    else:
        stream.buffer.write(data)
        stream.flush()


def write_text(stream: TextIO, text: str) -> None:
    """Write text to a stream, after what was written before; characters that it does not know are escaped.

    Raises:
        OSError: it cannot be written to.
    """
    if found := _file_of(stream):
        file, descriptor = found
        file.write(descriptor, _encoded(stream, text))
    else:
        stream.write(text)
        stream.flush()


def write_talk(stream: TextIO, text: str) -> None:
    """Write a text for a person, as write_text() does, unless it is not being read."""
    # ValueError: it has been closed.
    with suppress(OSError, ValueError):
        if found := _file_of(stream):
            file, descriptor = found
            file.talk(descriptor, _encoded(stream, text))
        else:
            stream.write(text)
            stream.flush()


def is_behind(stream: TextIO) -> bool:
    """Whether something waits that was written to a stream."""
    try:
        found = _file_of(stream)
    except (OSError, ValueError):
        return False
    return found is not None and found[0].is_behind


def flush() -> None:
    """Wait until all that waits is written, or cannot be."""
    flush_for(None)


def flush_for(seconds: float | None) -> None:
    """Wait for so long for each file until all that waits is written, or cannot be; None: without end."""
    for file in _files.values():
        with suppress(OSError):
            file.flush(seconds)


class ConsoleFile:
    """A stream as rich wants it for a console, and logging for its handlers."""

    def __init__(self, stream: TextIO, *, talk: bool) -> None:
        """Args:
        stream: where it goes.
        talk: whether it is text for people, and not data.
        """
        self._stream = stream
        self._write = write_talk if talk else write_text
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write text."""
        self._write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: what waits here cannot be written."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._stream.fileno()


def _file_of(stream: TextIO) -> tuple[PatientFile, int] | None:
    """Return where a stream leads, and its descriptor; None if it has none: it is a test's, or a console's.

    Raises:
        OSError: it cannot be written to.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return None
    stream.flush()
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return None
    status = os.fstat(descriptor)
    place = status.st_dev, status.st_ino
    if place not in _files:
        _files[place] = PatientFile(is_terminal=os.isatty(descriptor))
    return _files[place], descriptor


def _encoded(stream: TextIO, text: str) -> bytes:
    encoding = stream.encoding or "utf-8"
    try:
        return text.encode(encoding, stream.errors or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def _write_patiently(descriptor: int, data: bytes) -> None:
    """Write all of it; this may take long."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Another program that has it open made it non-blocking.
            select.select([], [descriptor], [])


def _write_at_once(descriptor: int, data: bytes) -> bytes:
    """Write what is taken at once; return the rest."""
    if not hasattr(select, "poll"):
        # Windows tells it of sockets alone.
        return data
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    with suppress(BlockingIOError):
        while data and poll.poll(0):
            data = data[os.write(descriptor, data[:_PIECE]) :]
    return data


def _flush_at_exit() -> None:
    # Ctrl-C ends the wait for a reader.
    with suppress(KeyboardInterrupt):
        flush()


atexit.register(_flush_at_exit)
