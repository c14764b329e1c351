"""Making files survive a power cut without paying for each of them.

An fsync is a journal commit and a flush of the disk's cache. One for each of 10,000 small files, and another
for the directory after each, costs far more than all their bytes. So files are saved in groups, and a large
group is made durable by one syncfs: one commit, one flush, whatever the number.

Measured on ext4, files of 4 kB created, made durable, linked to their names, directory made durable; time for
a file, relative to doing none of it durably:

    fsync of each file and directory, one after another   11
    groups of 64: fsync of each                            5.8
                  fdatasync of each                        5
                  fsync from 8 threads                     3.5
                  sync_file_range of all, then fsync       3
                  syncfs                                   1.6

Groups of 16 cost a quarter more with syncfs; groups of 512 gain nothing. On that disk a flush is nearly free;
where it is not, only syncfs and the threads save flushes, and the distance grows.

The price: syncfs writes what other programs have left unwritten on the same filesystem, too. A few files
therefore get an fsync each.

A sync that has failed cannot be made good by another one. Linux tells each descriptor once that pages could
not be written, and takes these pages for clean from then on: the next fsync returns 0, reads find the bytes
in the page cache, and the disk has never had them (fsync(2); "PostgreSQL's fsync() surprise", LWN 752063).
So the first failure is the last sync of a transfer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

GROUP = 64
"""Files to save together, if as many may be open."""

_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
"""Of filesystems that know no sync, or none of directories: what they store, they store when they like."""

_FEW = 8
"""Fewer handles than this get an fsync each."""


class Durability:
    """Makes the files and directories of one transfer durable, until that fails for the first time.

    Attributes:
        failed: a sync has failed: what was written since the last one that did not may be lost, whatever can
            be read of it now.
    """

    def __init__(self) -> None:
        self.failed = False
        # Set when first asked.
        self._served: bool | None = None

    def sync(self, handles: Iterable[int], count: int = 1) -> None:
        """Make files or directories durable.

        Args:
            handles: open descriptors; each is done with before the next is asked for, and all are asked for.
            count: how many they are.

        Raises:
            OSError: something could not be written; of a large group it is not known what. Or a sync has
                failed before: then this one tries nothing.
        """
        self.check()
        # Those on the filesystem of the first are synced together, at the end: it needs a handle then.
        kept = device = None
        try:
            for handle in handles:
                if kept is None and count >= _FEW and _syncfs is not None and not self._is_served(handle):
                    with suppress(OSError):
                        device = os.fstat(handle).st_dev
                        kept = os.dup(handle)
                if kept is None or os.fstat(handle).st_dev != device:
                    self._once(os.fsync, handle)
            if kept is not None and _syncfs is not None:
                self._once(_syncfs, kept)
        finally:
            if kept is not None:
                os.close(kept)

    def sync_alike(self, handles: Sequence[int]) -> None:
        """Make files durable that are known to be on one filesystem; sync() asks each where it is."""
        self.check()
        if len(handles) >= _FEW and _syncfs is not None and not self._is_served(handles[0]):
            self._once(_syncfs, handles[0])
            return
        for handle in handles:
            self._once(os.fsync, handle)

    def _is_served(self, handle: int) -> bool:
        """Whether a program serves the output directory's filesystem (FUSE): no syncfs gets there."""
        if self._served is None:
            self._served = _filesystem_type(handle) == _FUSE
        return self._served

    def _once(self, call: Callable[[int], None], handle: int) -> None:
        try:
            call(handle)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in _NO_SYNC:
                return
            self.failed = True
            raise

    def check(self) -> None:
        """Raise OSError if a sync has failed: nothing may be vouched for any more."""
        if self.failed:
            raise OSError(errno.EIO, "the disk has failed to store what was written before")


def group_size() -> int:
    """Return how many files to save together: GROUP, or fewer where this process may open few."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return GROUP
    # Half of what is left is for all else that a transfer opens meanwhile.
    return max(1, min(GROUP, (limit - len(os.listdir("/dev/fd"))) // 2))


_FUSE = 0x65735546
"""FUSE_SUPER_MAGIC of Linux."""


def _filesystem_type(handle: int) -> int | None:
    """Return what Linux calls the type of a filesystem (statfs(2)); None elsewhere, or if it does not say."""
    if platform.system() != "Linux":
        return None
    # Longer than a struct statfs of any architecture, which begins with the type.
    status = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None, use_errno=True).fstatfs(handle, status) != 0:
        return None
    return ctypes.c_long.from_buffer(status).value


def _find_syncfs() -> Callable[[int], None] | None:
    """Return Linux's syncfs, which Python does not offer, if it reports errors: since 5.8."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or release is None or (int(release[1]), int(release[2])) < (5, 8):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return None

    def syncfs(handle: int) -> None:
        if function(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return syncfs


_syncfs = _find_syncfs()
