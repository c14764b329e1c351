"""What there is to send: files and directories that a person named, listed before anything is offered.

Blocking, for threads; POSIX only.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from flyx.errors import InputError, StorageError
from flyx.storage.failures import storage_error
from flyx.transfer.manifest import (
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
)
from flyx.transfer.names import is_state_directory

_SPECIAL = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


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
