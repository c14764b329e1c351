"""The sender's disk: what is offered, and the blocks of it.

scan() lists the files and directories that a person named, once, before anything is offered. A SourceReader
then reads blocks for one receiver, and makes sure that each file is still the one that was listed: what
changes on the way is reported, never sent as if it were whole.

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
from dataclasses import dataclass
from itertools import accumulate

from flyx.errors import InputError, LocalProtocolError, StorageError
from flyx.storage.failures import storage_error
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.manifest import (
    BLOCK_SIZE,
    DIGEST_SIZE,
    MAX_ENTRIES,
    MAX_FILE_SIZE,
    MAX_PATHS_SIZE,
    MAX_ROOTS,
    MAX_ROOTS_SIZE,
    MAX_TOTAL_SIZE,
    Entries,
    Entry,
    EntryKind,
    Manifest,
    block_count,
    block_digest,
)
from flyx.transfer.names import NameLedger, is_state_directory

# O_NONBLOCK: a file that became a FIFO must not hang us; it changes nothing about regular files.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

# What the kernel reads ahead by itself; larger files gain from being announced as read from start to end.
_READ_AHEAD = 128 * 1024

_SPECIAL = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}

_VANISHED = {errno.ENOENT, errno.ENOTDIR}
# Of O_NOFOLLOW where a symbolic link is, and of an open socket where a file was.
_CHANGED = {errno.ELOOP, errno.ENXIO}


class Sources:
    """Where the entries of a manifest come from, and the exact time that each had; 8 bytes an entry."""

    def __init__(self) -> None:
        # Where each root is, by the name that it is sent under.
        self._roots: dict[str, str] = {}
        # Of each entry, in nanoseconds, modulo 2 ** 64: filesystems have times beyond.
        self._times = array("Q")

    def add_root(self, name: str, path: str) -> None:
        """The entries below this name come from below this path."""
        self._roots[name] = path

    def add(self, status: os.stat_result) -> None:
        """Take note of the next entry."""
        self._times.append(status.st_mtime_ns % _TIMES)

    def path(self, entry: Entry) -> str:
        """Where an entry comes from."""
        root, _, below = entry.path.partition("/")
        return f"{self._roots[root]}/{below}" if below else self._roots[root]

    def has_time(self, file: int, status: os.stat_result) -> bool:
        """Whether a file has the time that it was listed with."""
        return self._times[file] == status.st_mtime_ns % _TIMES


_TIMES = 1 << 64


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something inside a directory that is not sent, and what it is."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What there is to send.

    Attributes:
        manifest: the entries.
        sources: where they come from.
        skipped: what was found and left out.
    """

    manifest: Manifest
    sources: Sources
    skipped: tuple[Skipped, ...]


def scan(paths: Sequence[str | os.PathLike[str]]) -> Scan:
    """List files and directories, with all that is in the directories, in an order that never varies.

    A path is sent under the last part of the path that it resolves to: a symbolic link that a person names is
    followed. Those inside directories are skipped, and so are devices, FIFOs, sockets and flyx's own state.

    Raises:
        InputError: a path that does not exist or cannot be sent, or two that would have one name: the person
            has to name something else.
        StorageError: something cannot be read.
        UnsafeName: a receiver would refuse a name, so nothing is offered.
    """
    scanner = _Scanner()
    for path in paths:
        scanner.add_root(os.fsdecode(path))
    if not scanner.entries:
        raise InputError(reason="there is nothing to send")
    return Scan(Manifest(scanner.entries), scanner.sources, tuple(scanner.skipped))


class _Scanner:
    def __init__(self) -> None:
        self.entries = Entries()
        self.sources = Sources()
        self.skipped: list[Skipped] = []
        self._ledger = NameLedger(self.entries)
        # The paths given, by the name they are sent under; bytes in those names.
        self._roots: dict[str, str] = {}
        self._roots_size = 0

    def add_root(self, path: str) -> None:
        try:
            status = os.stat(path)
            resolved = os.path.realpath(path, strict=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            # The person's own input, as a wrong option is: not a failure of the disk.
            raise InputError(reason=f"there is no file or directory {path}") from error
        except OSError as error:
            raise storage_error(error, "read", path) from error
        except ValueError as error:
            # A NUL, or half of a surrogate pair that stands for no byte.
            raise InputError(reason=f"no file or directory can be called {path}") from error
        name = os.path.basename(resolved)
        if not name:
            raise InputError(
                reason=f"{path} has no name to be sent under", hint="name a directory or file inside it"
            )
        if name in self._roots:
            raise InputError(
                reason=f"{self._roots[name]} and {path} would both be sent as {name}",
                hint="rename one of them, or send them one after the other",
            )
        self._roots[name] = path
        self._roots_size += len(os.fsencode(name))
        if len(self._roots) > MAX_ROOTS or self._roots_size > MAX_ROOTS_SIZE:
            raise InputError(
                reason="too many files and directories are named", hint="put them into one and send that"
            )
        self.sources.add_root(name, resolved)
        if stat.S_ISDIR(status.st_mode):
            self._add_directory(resolved, name, status)
        elif stat.S_ISREG(status.st_mode):
            self._add_file(resolved, name, status)
        else:
            raise InputError(reason=f"{path} is a {_kind(status)}, not a file or directory")

    def _add_directory(self, path: str, name: str, status: os.stat_result) -> None:
        self._add(Entry(name, EntryKind.DIRECTORY, 0, *_mode_and_time(status)), status)
        try:
            with os.scandir(path) as found:
                inside = sorted(found, key=lambda item: item.name)
        except OSError as error:
            raise storage_error(error, "read", path) from error
        for item in inside:
            self._add_item(item, f"{name}/{item.name}")

    def _add_item(self, item: os.DirEntry[str], name: str) -> None:
        try:
            status = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            self.skipped.append(Skipped(item.path, "it vanished"))
            return
        except OSError as error:
            raise storage_error(error, "read", item.path) from error
        if is_state_directory(item.name):
            self.skipped.append(Skipped(item.path, "flyx keeps its own files there"))
        elif stat.S_ISREG(status.st_mode):
            self._add_file(item.path, name, status)
        elif stat.S_ISDIR(status.st_mode):
            self._add_directory(item.path, name, status)
        else:
            self.skipped.append(Skipped(item.path, f"it is a {_kind(status)}"))

    def _add_file(self, path: str, name: str, status: os.stat_result) -> None:
        if status.st_size > MAX_FILE_SIZE:
            raise InputError(reason=f"{path} is too large")
        # Better now than when the receiver has half of the rest.
        if not os.access(path, os.R_OK):
            raise StorageError(action="read", path=path, reason="permission denied")
        self._add(Entry(name, EntryKind.FILE, status.st_size, *_mode_and_time(status)), status)

    def _add(self, entry: Entry, status: os.stat_result) -> None:
        if len(self.entries) == MAX_ENTRIES:
            raise InputError(
                reason=f"there are more than {MAX_ENTRIES:,} files and directories",
                hint=_TOO_MANY,
            )
        self._ledger.add(entry.path, entry.kind is EntryKind.DIRECTORY)
        if self.entries.paths_size + len(entry.path.encode()) > MAX_PATHS_SIZE:
            raise InputError(
                reason="the names of the files and directories are too long in all", hint=_TOO_MANY
            )
        if self.entries.total_bytes + entry.size > MAX_TOTAL_SIZE:
            raise InputError(reason="the files are too large in all")
        self.entries.append(entry)
        self.sources.add(status)


_TOO_MANY = "put them into an archive and send that"


def _mode_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_mode & 0o777, status.st_mtime_ns // 1000


def _kind(status: os.stat_result) -> str:
    return _SPECIAL.get(stat.S_IFMT(status.st_mode), "special file")


class BlockDigests:
    """What the blocks of a scan hash to, remembered: each is hashed once, however many receivers there are.

    Safe to use from several threads. 32 bytes for each block of BLOCK_SIZE bytes that has been read; shorter
    ones, the last of their files, cost less to hash anew than to look for.
    """

    def __init__(self, found: Scan) -> None:
        # The number of the first block of each file, of all blocks of all files.
        self._first = array("Q", accumulate((block_count(e.size) for e in found.manifest.entries), initial=0))
        # The digests of so many blocks in a row; zeros for those that were not read.
        self._pages: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(_PAGE_BLOCKS * DIGEST_SIZE))

    def of(self, request: BlockRequest, data: bytes) -> bytes:
        """Return the SHA-256 of a block, given what was read of it now or of the unchanged file earlier."""
        if request.length != BLOCK_SIZE:
            return block_digest(data)
        page, place = divmod(self._first[request.file] + request.offset // BLOCK_SIZE, _PAGE_BLOCKS)
        digests, begin = self._pages[page], place * DIGEST_SIZE
        digest = bytes(digests[begin : begin + DIGEST_SIZE])
        if digest == _NOT_READ:
            digest = digests[begin : begin + DIGEST_SIZE] = block_digest(data)
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
        try:
            data = self._read_block(request, entry)
        except OSError as error:
            data, code = None, _code(error)
        else:
            code = "file_changed"
        if data is None:
            self._close_file()
            self._failed = request.file, code
            return BlockFailed(request, code)
        return BlockRead(request, data, self._digests.of(request, data))

    def _read_block(self, request: BlockRequest, entry: Entry) -> bytes | None:
        """Return the bytes, None if the file is not what it was."""
        if self._open is None or self._open[0] != request.file:
            self._close_file()
            self._open = request.file, os.open(self._sources.path(entry), _OPEN)
            if not self._unchanged(entry):
                return None
            _announce(self._open[1], entry)
        handle = self._open[1]
        data = os.pread(handle, request.length, request.offset)
        # Only network filesystems give less than there is.
        while len(data) < request.length:
            more = os.pread(handle, request.length - len(data), request.offset + len(data))
            if not more:
                return None
            data += more
        if request.offset + request.length == entry.size:
            if not self._unchanged(entry):
                return None
            self._close_file()
        return data

    def _unchanged(self, entry: Entry) -> bool:
        assert self._open is not None
        file, handle = self._open
        status = os.fstat(handle)
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == entry.size
            and self._sources.has_time(file, status)
        )

    def _close_file(self) -> None:
        if self._open:
            handle, self._open = self._open[1], None
            # What was read stays read: that a network filesystem has something to say now changes nothing.
            with suppress(OSError):
                os.close(handle)


def _announce(handle: int, entry: Entry) -> None:
    if hasattr(os, "posix_fadvise") and entry.size > _READ_AHEAD:
        # Advice: a filesystem that takes none can be read all the same.
        with suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def _code(error: OSError) -> str:
    if error.errno in _VANISHED:
        return "file_vanished"
    return "file_changed" if error.errno in _CHANGED else "file_unreadable"
