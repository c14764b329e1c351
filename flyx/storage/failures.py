"""What the operating system says, as errors that people can read."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from flyx.errors import DestinationExists, FlyxError, NoSpace, StorageError, size_text
from flyx.transfer import left_out
from flyx.transfer.manifest import BLOCK_SIZE

_REFUSALS = {
    errno.EINVAL: left_out.NOT_HERE,
    errno.EILSEQ: left_out.NOT_HERE,
    errno.ENAMETOOLONG: left_out.NOT_HERE,
    errno.EEXIST: left_out.IN_THE_WAY,
    errno.EISDIR: left_out.IN_THE_WAY,
    errno.ENOTDIR: left_out.IN_THE_WAY,
    errno.ELOOP: left_out.IN_THE_WAY,
    errno.EACCES: left_out.NOT_WRITTEN,
    errno.EPERM: left_out.NOT_WRITTEN,
    # Of a mount below the output directory, and of a directory that has as many as can be.
    errno.EROFS: left_out.NOT_WRITTEN,
    errno.EMLINK: left_out.NOT_WRITTEN,
}
"""What the system says of one name, or one directory, and not of the disk."""


_GIVEN_BACK = 2 * BLOCK_SIZE
"""Bytes that are free again when a block did not fit: its own, and the reserve (partial.py)."""


def storage_error(error: OSError, action: str, path: str | Path) -> StorageError:
    """Return the error to show when `action` on `path` failed: "Cannot read notes.txt: Permission denied"."""
    return StorageError(action=action, path=str(path), reason=error.strerror or str(error))


def write_error(
    error: OSError,
    action: str,
    path: str | Path,
    directory: Path,
    missing: int | None,
    size: int | None = None,
) -> FlyxError:
    """Return the error to show when something below the output directory could not be written.

    Args:
        error: that of the operating system.
        action: a verb that people know.
        path: what it was done to.
        directory: the output directory.
        missing: bytes of the transfer that are not on the disk yet; None if nobody knows: of a stream.
        size: bytes of a file that was to be given its name: if another filesystem is mounted there, it needs
            room for all of it.
    """
    if size is not None and _is_elsewhere(Path(path).parent, directory):
        directory, missing = Path(path).parent, size
    if error.errno == errno.EDQUOT:
        hint = "free some space, or ask for more"
        return NoSpace(directory=str(directory), shortage="your disk quota is used up", hint=hint)
    if error.errno == errno.ENOSPC:
        free = free_space(directory) or 0
        if missing is None and free <= _GIVEN_BACK:
            return NoSpace(directory=str(directory), shortage="the stream is longer than what was free")
        if missing is not None and free <= missing:
            return no_space(directory, missing, free)
        return _other_shortage(directory)
    return storage_error(error, action, path)


def _is_elsewhere(one: Path, other: Path) -> bool:
    """Whether two directories are on different filesystems."""
    with suppress(OSError):
        return one.stat().st_dev != other.stat().st_dev
    return False


def no_space(directory: Path, needed: int, free: int) -> NoSpace:
    """Return the error that says how much is needed and how much is there."""
    shortage = f"{size_text(needed)} needed, {size_text(free)} free"
    return NoSpace(directory=str(directory), shortage=shortage)


def _other_shortage(directory: Path) -> NoSpace:
    """Return the error that says what a filesystem that has bytes lacks."""
    # XFS, which makes inodes of free bytes, has none either when it has no bytes. FAT and btrfs count none.
    status = os.statvfs(directory)
    if status.f_files and not status.f_favail:
        shortage = "its filesystem has no room for more files (inodes)"
        hint = "remove some files there, or choose another directory with -o"
    else:
        shortage = "the storage that its filesystem lies on is full, though the filesystem is not"
        hint = "enlarge it, or choose another directory with -o"
    return NoSpace(directory=str(directory), shortage=shortage, hint=hint)


def free_space(directory: Path) -> int | None:
    """Return the bytes that this user may still write in `directory`, None if the filesystem does not say."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    # Some network and FUSE filesystems report zero for everything.
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def refusal_code(error: OSError | FlyxError) -> str | None:
    """Return why one entry alone cannot be had (a code of left_out.py); None if the error ends all."""
    if isinstance(error, DestinationExists):
        return left_out.IN_THE_WAY
    return _REFUSALS.get(error.errno or 0) if isinstance(error, OSError) else None
