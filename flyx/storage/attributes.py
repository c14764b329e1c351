"""Modes and times of what a transfer makes, as far as a filesystem has such things."""

from __future__ import annotations

import errno
import os

from flyx.transfer.manifest import MAX_MTIME_US

_NO_ATTRIBUTES = {
    *(errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.EINVAL, errno.ERANGE, errno.EOVERFLOW),
}
"""Of filesystems that have no such mode or time, or none at all."""


def set_attributes(handle: int, mode: int, atime_ns: int, mtime_us: int) -> None:
    """Set the mode and the times of an open file or directory; where one of the two is refused, the other.

    Raises:
        OSError: it could not be done where it can be.
    """
    set_mode(handle, mode)
    set_times(handle, atime_ns, mtime_us)


def set_mode(handle: int, mode: int) -> None:
    """Set the mode of an open file or directory, unless that is refused.

    Raises:
        OSError: it could not be done where it can be.
    """
    # We may change files of ours, except where the filesystem cannot: some FUSE and network ones.
    try:
        os.fchmod(handle, mode)
    except OSError as error:
        _raise_unless_refused(error)


def set_times(handle: int, atime_ns: int, mtime_us: int) -> None:
    """Set the times of an open file or directory, unless that is refused.

    Raises:
        OSError: it could not be done where it can be.
    """
    mtime_us = max(-MAX_MTIME_US, min(mtime_us, MAX_MTIME_US))
    try:
        os.utime(handle, ns=(atime_ns, mtime_us * 1000))
    except OSError as error:
        _raise_unless_refused(error)


def _raise_unless_refused(error: OSError) -> None:
    if error.errno not in _NO_ATTRIBUTES:
        raise error
