"""The sender's disk: the blocks of what is offered.

A SourceReader reads blocks of what scan() has listed, for one receiver, and makes sure that each file is
still the one that was listed: what changes on the way is reported, never sent as if it were whole.

Blocking, for threads; POSIX only.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from array import array
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate

from flyx.errors import LocalProtocolError
from flyx.storage.holes import is_hole, may_have_holes
from flyx.storage.opening import OPEN_FLAGS
from flyx.storage.scan import Scan
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.left_out import CHANGED, UNREADABLE, VANISHED
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind, block_count

_READ_AHEAD = 128 * 1024
"""What the kernel reads ahead by itself; larger files gain from being announced as read from start to end."""

_VANISHED = {errno.ENOENT, errno.ENOTDIR}
_CHANGED = {errno.ELOOP, errno.ENXIO}
"""Of O_NOFOLLOW where a symbolic link is, and of an open socket where a file was."""


class BlockDigests:
    """What the blocks of a scan hash to, remembered: each is hashed once by each algorithm that receivers ask
    for, however many they are.

    Safe to use from several threads. 32 bytes for each block of BLOCK_SIZE bytes that has been read; shorter
    ones, the last of their files, cost less to hash anew than to look for.
    """

    def __init__(self, found: Scan) -> None:
        # The number of the first block of each file, of all blocks of all files.
        entries = found.manifest.entries
        counts = map(block_count, map(entries.size, range(len(entries))))
        self._first = array("Q", accumulate(counts, initial=0))
        # The digests of so many blocks in a row, by one algorithm; zeros for those that were not read.
        self._pages: defaultdict[tuple[Algorithm, int], bytearray] = defaultdict(
            lambda: bytearray(_PAGE_BLOCKS * DIGEST_SIZE)
        )

    def of(self, request: BlockRequest, data: bytes) -> bytes:
        """Return the digest of a block, given what was read of it now or of the unchanged file earlier."""
        algorithm = request.algorithm
        if request.length != BLOCK_SIZE:
            return algorithm.digest(data)
        page, place = divmod(self._first[request.file] + request.offset // BLOCK_SIZE, _PAGE_BLOCKS)
        digests, begin = self._pages[algorithm, page], place * DIGEST_SIZE
        digest = bytes(digests[begin : begin + DIGEST_SIZE])
        if digest == _NOT_READ:
            digest = digests[begin : begin + DIGEST_SIZE] = algorithm.digest(data)
        return digest


_PAGE_BLOCKS = 1024
_NOT_READ = bytes(DIGEST_SIZE)


class SourceReader:
    """Reads the blocks of a scan for one receiver.

    One call at a time; close() may come from another thread, and waits for the call.
    """

    def __init__(self, found: Scan, digests: BlockDigests | None = None) -> None:
        """Args:
        found: what to read.
        digests: those of the same scan, shared by its readers; None: its own.
        """
        self.manifest = found.manifest
        self._digests = digests or BlockDigests(found)
        self._sources = found.sources
        # The file in use and its handle.
        self._open: tuple[int, int] | None = None
        # Whether it may have holes.
        self._sparse = False
        # The last file that failed, and why.
        self._failed: tuple[int, str] | None = None
        self._lock = threading.Lock()
        self._closed = False

    def read(self, requests: Sequence[BlockRequest]) -> list[BlockRead | BlockFailed]:
        """Read blocks: of one file after the other, and each file's in order.

        With its last block a file is checked once more against the scan: only if it was the same file at the
        start and at the end is that block BlockRead. A file that has failed stays so.
        """
        with self._lock:
            if self._closed:
                raise LocalProtocolError(reason="blocks were asked of a reader that is closed")
            return [self._read(request) for request in requests]

    def close(self) -> None:
        """Close what is open. Any number of times."""
        with self._lock:
            self._closed = True
            self._close_file()

    def _read(self, request: BlockRequest) -> BlockRead | BlockFailed:
        entry = self.manifest.entries[request.file]
        if entry.kind is not EntryKind.FILE or request.offset + request.length > entry.size:
            raise LocalProtocolError(reason=f"a block that {entry.path} does not have")
        if self._failed and self._failed[0] == request.file:
            return BlockFailed(request, self._failed[1])
        code, data = CHANGED, None
        try:
            data = self._read_block(request, entry)
        except OSError as error:
            code = _code(error)
        if data is None:
            self._close_file()
            self._failed = request.file, code
            return BlockFailed(request, code)
        if len(data) < request.length:
            return BlockRead(request, b"", request.algorithm.hole_digest(request.length), hole=True)
        return BlockRead(request, data, self._digests.of(request, data))

    def _read_block(self, request: BlockRequest, entry: Entry) -> bytes | None:
        """Return the bytes, none if all of them are in holes; None if the file is not what it was."""
        if (content := self._sources.content(request.file)) is not None:
            return content[request.offset : request.offset + request.length]
        if self._open is None or self._open[0] != request.file:
            self._close_file()
            flags = OPEN_FLAGS if self._sources.follow_links else OPEN_FLAGS | os.O_NOFOLLOW
            self._open = request.file, os.open(self._sources.path(entry), flags)
            status = os.fstat(self._open[1])
            if not self._is_same(request.file, entry, status):
                return None
            self._sparse = may_have_holes(status)
            _announce(self._open[1], entry)
        handle = self._open[1]
        hole = self._sparse and is_hole(handle, request.offset, request.length)
        data = b"" if hole else _read_whole(handle, request)
        if data is not None and request.offset + request.length == entry.size:
            if not self._is_same(request.file, entry, os.fstat(handle)):
                return None
            self._close_file()
        return data

    def _is_same(self, file: int, entry: Entry, status: os.stat_result) -> bool:
        """Whether what is open is still what was listed."""
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == entry.size
            and self._sources.has_time(file, status)
        )

    def _close_file(self) -> None:
        if self._open:
            handle, self._open = self._open[1], None
            try:
                os.close(handle)
            except OSError:
                # What was read stays read: that a network filesystem has something to say changes nothing.
                pass


def _read_whole(handle: int, request: BlockRequest) -> bytes | None:
    """Return the bytes of a block, None if the file is too short for it."""
    data = os.pread(handle, request.length, request.offset)
    # Only network filesystems give less than there is.
    while len(data) < request.length:
        more = os.pread(handle, request.length - len(data), request.offset + len(data))
        if not more:
            return None
        data += more
    return data


def _announce(handle: int, entry: Entry) -> None:
    if entry.size > _READ_AHEAD and hasattr(os, "posix_fadvise"):
        # Advice: a filesystem that takes none can be read all the same.
        with suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def _code(error: OSError) -> str:
    if error.errno in _VANISHED:
        return VANISHED
    return CHANGED if error.errno in _CHANGED else UNREADABLE
