"""Partial files: what has arrived of each file, out of reach of every name that a sender can give.

They live in a directory of random name, of one transfer, below STATE_DIRECTORY in the output directory: on
the same filesystem, so that a finished file only needs a name; never at a path that names.check_path accepts;
never shared with another transfer into the same directory. All access is by handle, so nobody can move the
ground away.

What a later transfer needs to go on with these files belongs here as well, beside them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress

from flyx.errors import StorageError
from flyx.storage.tree import Tree, open_directory
from flyx.transfer.names import STATE_DIRECTORY

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KNOWN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC

# Buffers that one pwritev takes: IOV_MAX, on Linux and macOS alike.
_MOST_BUFFERS = 1024

# Attempts to make the state directory while other transfers, ending, remove it.
_ATTEMPTS = 20


class Partials:
    """The partial files of one transfer, by the index of the file in the manifest.

    One of them is open at a time, however many there are.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._name = secrets.token_hex(8)
        # The state directory, and in it the one of this transfer: set when the first file is begun.
        self._state: int | None = None
        self._own: int | None = None
        # Bytes written of each file that has been begun and not taken.
        self._written: dict[int, int] = {}
        # The file in use and its handle.
        self._open: tuple[int, int] | None = None
        # Mode bits that the umask, or the directory's default ACL, lets new files have. Set with _own.
        self.permitted = 0

    def written(self, file: int) -> int:
        """Bytes written of a file so far."""
        return self._written.get(file, 0)

    def append(self, file: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write bytes after those written before.

        If it fails, what part of them was written does not count, and will be written over.
        """
        handle = self._handle(file)
        start = offset = self._written[file]
        buffers = [memoryview(part) for part in parts if len(part)]
        while buffers:
            done = os.pwritev(handle, buffers[:_MOST_BUFFERS], offset)
            offset += done
            buffers = _after(buffers, done)
        self._written[file] = offset
        _start_writeback(handle, start, offset - start)

    def take(self, file: int) -> int:
        """Return the handle of a file, begun or not, to be closed by the caller: all of it is written.

        The file stays where source() says until it is moved away from there or discarded.
        """
        handle = self._handle(file)
        self._open = None
        del self._written[file]
        return handle

    def source(self, file: int) -> tuple[int, str]:
        """Where a file that has been begun is: the handle of its directory, and its name there."""
        assert self._own is not None
        return self._own, f"{file}.part"

    def discard(self, file: int) -> None:
        """Remove what there is of a file."""
        if file not in self._written:
            return
        self._close_file()
        del self._written[file]
        directory, name = self.source(file)
        os.unlink(name, dir_fd=directory)

    def remove(self) -> None:
        """Remove all partial files, and the state directory if no other transfer uses it."""
        self._close_file()
        self._written.clear()
        if self._own is not None:
            for name in os.listdir(self._own):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._own)
            os.close(self._own)
            self._own = None
        if self._state is not None:
            with suppress(OSError):
                os.rmdir(self._name, dir_fd=self._state)
            os.close(self._state)
            self._state = None
            with suppress(OSError):
                os.rmdir(STATE_DIRECTORY, dir_fd=self._tree.base)

    def _handle(self, file: int) -> int:
        if self._open and self._open[0] == file:
            return self._open[1]
        self._close_file()
        if self._own is None:
            self._make()
        directory, name = self.source(file)
        if file in self._written:
            handle = os.open(name, _KNOWN, dir_fd=directory)
        else:
            handle = os.open(name, _NEW, 0o600, dir_fd=directory)
            self._written[file] = 0
        self._open = file, handle
        return handle

    def _close_file(self) -> None:
        if self._open:
            os.close(self._open[1])
            self._open = None

    def _make(self) -> None:
        for attempt in range(_ATTEMPTS):
            with suppress(FileExistsError):
                os.mkdir(STATE_DIRECTORY, 0o700, dir_fd=self._tree.base)
            try:
                self._state = open_directory(STATE_DIRECTORY, self._tree.base)
                os.mkdir(self._name, 0o700, dir_fd=self._state)
                break
            except NotADirectoryError:
                path = self._tree.shown((STATE_DIRECTORY,))
                raise StorageError(action="use", path=path, reason="it is not a directory") from None
            except FileNotFoundError:
                # Another transfer has just removed it as empty.
                if self._state is not None:
                    os.close(self._state)
                    self._state = None
                if attempt == _ATTEMPTS - 1:
                    raise
        assert self._state is not None
        self._own = open_directory(self._name, self._state)
        self.permitted = self._probe()

    def _probe(self) -> int:
        """Ask the kernel what mode a new file gets: to read the umask is to change it, for all threads."""
        assert self._own is not None
        handle = os.open("probe", _NEW, 0o777, dir_fd=self._own)
        try:
            return os.fstat(handle).st_mode & 0o777
        finally:
            os.close(handle)
            os.unlink("probe", dir_fd=self._own)


def _after(buffers: list[memoryview], done: int) -> list[memoryview]:
    """What is left of the buffers when the first `done` bytes are written."""
    for index, buffer in enumerate(buffers):
        if done < len(buffer):
            return [buffer[done:], *buffers[index + 1 :]]
        done -= len(buffer)
    return []


def _start_writeback(handle: int, offset: int, length: int) -> None:
    """Let the kernel start writing a block out now, so that the fsync at the end of a large file is short.

    That is what Linux makes of this advice for pages that are dirty: it drops none of them.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, offset, length, os.POSIX_FADV_DONTNEED)
