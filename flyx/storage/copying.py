"""Copying a finished file into a directory on another filesystem, where it cannot be moved.

Below an output directory there may be other mounts. What is copied has no name until it is complete and on
the disk, or one of ours where the filesystem knows no files without (O_TMPFILE); that is removed in every way
out but a kill.

Blocking, for a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flyx.storage.attributes import set_attributes
from flyx.storage.durability import Durability
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.names import STATE_DIRECTORY

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMELESS = os.O_WRONLY | os.O_CLOEXEC | getattr(os, "O_TMPFILE", 0)
_NAMED = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_ZEROS = bytes(BLOCK_SIZE)


@contextmanager
def copied(source: tuple[int, str], directory: int, durability: Durability) -> Iterator[str]:
    """Copy a file, with its mode and time, and make that durable; remove what is left of it at the end.

    Args:
        source: the directory that the file is in, and its name there.
        directory: the handle of the directory for the copy.
        durability: of the transfer.

    Yields:
        The name of the copy there: ours, to be given another.

    Raises:
        OSError: it cannot be copied.
    """
    name = f"{STATE_DIRECTORY}-{secrets.token_hex(8)}"
    original = _open(source)
    try:
        if not _copy_without_a_name(original, name, directory, durability):
            with _opened(name, _NAMED, directory) as copy:
                _copy(original, copy)
                durability.sync([copy])
        yield name
    finally:
        os.close(original)
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _open(source: tuple[int, str]) -> int:
    directory, name = source
    try:
        return os.open(name, _READ, dir_fd=directory)
    except PermissionError:
        # It has its final mode, which may let its owner not read it.
        mode = stat.S_IMODE(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        os.chmod(name, 0o600, dir_fd=directory)
        try:
            return os.open(name, _READ, dir_fd=directory)
        finally:
            os.chmod(name, mode, dir_fd=directory)


def _copy_without_a_name(original: int, name: str, directory: int, durability: Durability) -> bool:
    """Copy, and give the copy its name when it is complete; return whether the filesystem lets us."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        with _opened(".", _NAMELESS, directory) as copy:
            _copy(original, copy)
            durability.sync([copy])
            with suppress(OSError):
                os.link(f"/proc/self/fd/{copy}", name, dst_dir_fd=directory, follow_symlinks=True)
                return True
    except OSError:
        durability.check()
    return False


@contextmanager
def _opened(name: str, flags: int, directory: int) -> Iterator[int]:
    handle = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        yield handle
    finally:
        os.close(handle)


def _copy(original: int, copy: int) -> None:
    """Copy content, mode and time; blocks of zeros become holes."""
    status = os.fstat(original)
    at = 0
    while block := os.pread(original, BLOCK_SIZE, at):
        done = 0 if block != _ZEROS[: len(block)] else len(block)
        while done < len(block):
            done += os.pwrite(copy, block[done:], at + done)
        at += len(block)
    os.ftruncate(copy, at)
    set_attributes(copy, stat.S_IMODE(status.st_mode), status.st_atime_ns, status.st_mtime_ns // 1000)
