"""What there is to send: files and directories that a person named, listed before anything is offered.

One entry never stops the others: what cannot be sent is left out, and told with the rest. Nothing is refused
for its name but what no receiver could take; what a receiver can have is its own to judge.

Blocking, for threads; POSIX only.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from flyx.errors import InputError
from flyx.storage.exclusions import NOTHING_EXCLUDED, Excluder, Exclusions
from flyx.storage.failures import storage_error
from flyx.storage.holes import bytes_in_holes, may_have_holes
from flyx.storage.links import Links
from flyx.storage.opening import OPEN_FLAGS, read_to_end
from flyx.transfer.left_out import (
    BY_NATURE,
    CHANGED,
    LINK_OUTSIDE,
    LINK_SKIPPED,
    MAX_TOLD,
    NAME_TOO_LONG,
    REASONS,
    SPECIAL,
    STATE,
    TOO_LARGE,
    UNREADABLE,
    VANISHED,
    LeftOut,
)
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
    path_bytes,
    path_of_bytes,
)
from flyx.transfer.names import (
    MAX_PART_BYTES,
    MAX_PATH_BYTES,
    is_state_directory,
    is_too_long,
    link_stays_inside,
)

NEWS_INTERVAL = 0.5
"""Seconds between two words on how far a scan is."""

MAX_FAULTS_SHOWN = 10
"""Paths that a message names; the others are counted."""

MAX_CONTENT = 64 << 20
"""Bytes in all files that have another size than they say, as those in /proc: they are kept in memory."""

_SPECIAL = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}

_MISSING = {errno.ENOENT, errno.ENOTDIR}


class Sources:
    """Where the entries of a manifest come from, and the exact time that each had; 8 bytes an entry."""

    def __init__(self, *, follow_links: bool) -> None:
        """Args:
        follow_links: an entry may be what a symbolic link leads to.
        """
        self.follow_links = follow_links
        # Where each root is, by the name that it is sent under.
        self._roots: dict[str, str] = {}
        # Of each entry, in nanoseconds, modulo 2 ** 64: filesystems have times beyond.
        self._times = array("Q")
        # What was read of files that have another size than they say, by entry.
        self._contents: dict[int, bytes] = {}

    def add_root(self, name: str, path: str) -> None:
        """The entries below this name come from below this path."""
        self._roots[name] = path

    def add(self, status: os.stat_result) -> None:
        """Take note of the next entry."""
        self.add_time(status.st_mtime_ns)

    def add_time(self, mtime_ns: int) -> None:
        """Take note of the next entry, which has this time."""
        self._times.append(mtime_ns % _TIMES)

    def add_content(self, content: bytes) -> None:
        """The next entry is a file that has this content, whatever size it says."""
        self._contents[len(self._times)] = content

    def content(self, file: int) -> bytes | None:
        """Return the content of a file that has another size than it says."""
        return self._contents.get(file)

    def is_same_as(self, earlier: Sources) -> bool:
        """Whether entries of one list come from where they came from earlier, and are the same."""
        return (
            self._roots == earlier._roots
            and self._times == earlier._times
            and self._contents == earlier._contents
        )

    def path(self, entry: Entry) -> str:
        """Where an entry comes from."""
        root, _, below = entry.path.partition("/")
        return f"{self._roots[root]}/{below}" if below else self._roots[root]

    def has_time(self, file: int, status: os.stat_result) -> bool:
        """Whether a file has the time that it was listed with."""
        return self._times[file] == status.st_mtime_ns % _TIMES


_TIMES = 1 << 64


class Scan(Struct, frozen=True):
    """What there is to send.

    Attributes:
        manifest: the entries, and what is left out.
        sources: where they come from.
        faults: what is wrong with paths that were named and are left out: a clause, by the name that each
            would have been sent under.
        excluded: how many files and directories are excluded, as the person wants; what is in such a
            directory is not counted.
    """

    manifest: Manifest
    sources: Sources
    faults: dict[str, str]
    excluded: int

    def is_same_as(self, earlier: Scan) -> bool:
        """Whether all that is sent and left out is as it was, to the exact time of each entry."""
        return (
            self.manifest.id == earlier.manifest.id
            and self.manifest.left_out == earlier.manifest.left_out
            and self.sources.is_same_as(earlier.sources)
        )

    def left_out_texts(self) -> Iterator[str]:
        """Say of each entry left out that is named why it is, as a clause."""
        for path, code in self.manifest.left_out.named:
            yield self.faults.get(path) or f"{path} is left out: {REASONS[code]}"


def scan(
    paths: Sequence[str | os.PathLike[str]],
    links: Links = Links.KEEP,
    on_news: Callable[[int], None] | None = None,
    exclusions: Exclusions = NOTHING_EXCLUDED,
) -> Scan:
    """List files and directories, with all that is in the directories, in an order that never varies.

    A path is sent under the last part of the path that it resolves to: a symbolic link that a person names is
    followed. What cannot be sent, named or inside a directory, is left out as long as something can be.

    Args:
        paths: what the person named.
        links: what becomes of symbolic links inside directories.
        on_news: called at most every NEWS_INTERVAL with how many entries have been found; what it raises ends
            the scan.
        exclusions: what is passed over as if it were not there.

    Raises:
        InputError: nothing of it can be sent, two paths would have one name, it is too much, or a .gitignore
            file that is to be heeded cannot be read: the person has to name something else.
    """
    scanner = _Scanner(links, on_news, exclusions)
    for path in paths:
        scanner.name(os.fsdecode(path))
    return scanner.scan()


class _LeftOutList:
    """Collects what is left out; no more of it is kept than is reported."""

    def __init__(self) -> None:
        self._failures: list[tuple[str, str]] = []
        self._others: list[tuple[str, str]] = []
        self._counts = [0, 0]

    def add(self, path: str, code: str) -> None:
        by_nature = code in BY_NATURE
        self._counts[by_nature] += 1
        named = self._others if by_nature else self._failures
        if len(named) < MAX_TOLD:
            # Of one that is too long, as much as a path can be.
            named.append((path_of_bytes(path_bytes(path)[:MAX_PATH_BYTES]), code))

    def value(self) -> LeftOut:
        named = (*self._failures, *self._others)[:MAX_TOLD]
        return LeftOut(named, failures=self._counts[False], others=self._counts[True])


class _Scanner:
    def __init__(self, links: Links, on_news: Callable[[int], None] | None, exclusions: Exclusions) -> None:
        self._links = links
        self._excluder = Excluder(exclusions) if exclusions else None
        self._excluded = 0
        self._on_news = on_news
        self._next_news = time.monotonic() + NEWS_INTERVAL
        self._found = 0
        self._entries = Entries()
        self._hole_bytes = 0
        self._content_left = MAX_CONTENT
        self._sources = Sources(follow_links=links is Links.FOLLOW)
        self._left_out = _LeftOutList()
        # What was named and where that is, by the name it is sent under; bytes in those names.
        self._roots: dict[str, tuple[str, str]] = {}
        self._roots_size = 0
        # What was named and cannot be sent, by the name it would have had; and what was named in vain.
        self._faults: dict[str, str] = {}
        self._mistakes: list[str] = []
        # The entry of each file that has another name somewhere, by device and inode.
        self._named_twice: defaultdict[int, dict[int, int]] = defaultdict(dict)
        # Device and inode of the directories above what is being listed; only where links are followed.
        self._above: set[tuple[int, int]] = set()

    def name(self, path: str) -> None:
        """A person has named this path."""
        if not path:
            raise InputError(reason="the path of a file or directory is empty")
        try:
            status = os.stat(path)
            resolved = os.path.realpath(path, strict=True)
        except OSError as error:
            self._fault(path, _fault_of(path, error), _code(error))
            return
        except ValueError as error:
            # A NUL, or half of a surrogate pair that stands for no byte.
            raise InputError(reason=f"no file or directory can be called {path}") from error
        name = os.path.basename(resolved)
        if not name:
            raise InputError(
                reason=f"{path} has no name to be sent under", hint="name a directory or file inside it"
            )
        if name in self._roots:
            other, place = self._roots[name]
            if place != resolved:
                self._mistakes.append(f"{other} and {path} would both be sent as {name}")
            return
        if kind := _SPECIAL.get(stat.S_IFMT(status.st_mode)):
            self._fault(path, f"{path} is a {kind}, not a file or directory", SPECIAL)
            return
        self._roots[name] = path, resolved
        self._roots_size += len(path_bytes(name))
        if len(self._roots) > MAX_ROOTS or self._roots_size > MAX_ROOTS_SIZE:
            raise InputError(
                reason="too many files and directories are named", hint="put them into one and send that"
            )

    def scan(self) -> Scan:
        """List what was named."""
        if self._mistakes:
            raise InputError(
                reason=_listed(self._mistakes), hint="rename one of them, or send them one after the other"
            )
        self._exclude_roots()
        for name, (given, path) in self._roots.items():
            self._sources.add_root(name, path)
            if code := self._add(path, name):
                self._faults[name] = f"{given} cannot be sent: {REASONS[code]}"
        left_out = self._left_out.value()
        manifest = Manifest(self._entries, hole_bytes=self._hole_bytes, left_out=left_out)
        found = Scan(manifest, self._sources, self._faults, self._excluded)
        if not self._entries:
            faults = [*found.left_out_texts()]
            if self._excluded and not faults:
                raise InputError(reason="all that was named is excluded", hint=_ALL_EXCLUDED)
            raise InputError(reason=_listed(faults) or "there is nothing to send")
        return found

    def _exclude_roots(self) -> None:
        """Pass over what was named and is excluded."""
        if self._excluder is None:
            return
        for name, (_, path) in list(self._roots.items()):
            if self._excluder.excludes_root(name, is_directory=os.path.isdir(path)):
                del self._roots[name]
                self._excluded += 1

    def _fault(self, path: str, reason: str, code: str) -> None:
        """A path that was named cannot be sent."""
        name = os.path.basename(os.path.normpath(path))
        if name in {"", ".", ".."}:
            raise InputError(reason=reason)
        # What was named may be of any length.
        name = name[:MAX_PART_BYTES]
        self._faults[name] = reason
        self._left_out.add(name, code)

    def _add(self, path: str, name: str) -> str | None:
        """Add what is at a path under this name, with all that is in it, or return why it is left out."""
        self._tell_news()
        try:
            code = self._judge(path, name) or self._add_any(path, name, os.lstat(path))
        except OSError as error:
            code = _code(error)
        if code:
            self._left_out.add(name, code)
        return code

    def _judge(self, path: str, name: str) -> str | None:
        """Return why nothing of this name can be sent, if nothing can."""
        part = name.rpartition("/")[2]
        if is_state_directory(part):
            return STATE
        if len(path_bytes(part)) > MAX_PART_BYTES or is_too_long(name):
            return NAME_TOO_LONG
        return None

    def _add_any(self, path: str, name: str, status: os.stat_result) -> str | None:
        """Add an entry of whatever kind; return why it is left out, if it is."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            return self._add_file(path, name, status)
        if kind == stat.S_IFDIR:
            return self._add_directory(path, name, status)
        if kind != stat.S_IFLNK:
            return SPECIAL
        match self._links:
            case Links.KEEP:
                return self._add_link(path, name, status)
            case Links.FOLLOW:
                return self._add_any(path, name, os.stat(path))
            case Links.SKIP:
                return LINK_SKIPPED

    def _add_directory(self, path: str, name: str, status: os.stat_result) -> str | None:
        place = status.st_dev, status.st_ino
        if place in self._above:
            # A link to a directory that it is in: all of that is sent already.
            return LINK_SKIPPED
        inside = self._list(path)
        self._append(Entry(name, EntryKind.DIRECTORY, 0, *_mode_and_time(status)), status)
        if self._links is Links.FOLLOW:
            self._above.add(place)
        if self._excluder:
            self._excluder.enter(path, name)
        for part in inside:
            if self._excluder and self._is_excluded(self._excluder, f"{path}/{part}", f"{name}/{part}"):
                self._excluded += 1
            else:
                self._add(f"{path}/{part}", f"{name}/{part}")
        if self._excluder:
            self._excluder.leave()
        self._above.discard(place)
        return None

    def _is_excluded(self, excluder: Excluder, path: str, name: str) -> bool:
        """Whether what is at a path inside a directory is excluded, could it be sent or not."""
        self._tell_news()
        try:
            status = os.stat(path) if self._links is Links.FOLLOW else os.lstat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
        except OSError:
            is_directory = False
        return excluder.excludes(name, is_directory=is_directory)

    def _list(self, path: str) -> Iterable[str]:
        """Return the names in a directory in order: of their bytes, which take less memory than strings."""
        parts = []
        with os.scandir(os.fsencode(path)) as found:
            for item in found:
                parts.append(item.name)
                self._found += 1
                self._tell_news()
        parts.sort()
        return map(os.fsdecode, parts)

    def _add_link(self, path: str, name: str, status: os.stat_result) -> str | None:
        target = os.readlink(path)
        if not link_stays_inside(name, target, self._roots):
            return LINK_OUTSIDE
        mtime_us = _mode_and_time(status)[1]
        self._append(Entry(name, EntryKind.SYMBOLIC_LINK, 0, 0, mtime_us, target=target), status)
        return None

    def _add_file(self, path: str, name: str, status: os.stat_result) -> str | None:
        same_as = self._named_twice[status.st_dev].get(status.st_ino) if status.st_nlink > 1 else None
        # Some network filesystems give one inode to several files.
        if same_as is not None and self._is_unchanged(same_as, status):
            mtime_us = _mode_and_time(status)[1]
            self._append(Entry(name, EntryKind.HARD_LINK, 0, 0, mtime_us, same_as=same_as), status)
            return None
        if status.st_size > min(MAX_FILE_SIZE, MAX_TOTAL_SIZE - self._entries.total_bytes):
            return TOO_LARGE
        if _may_be_made_when_read(status):
            return self._add_made_file(path, name)
        return self._add_stored_file(path, name, status)

    def _add_stored_file(self, path: str, name: str, status: os.stat_result) -> str | None:
        # Better now than when the receiver has half of the rest.
        if not os.access(path, os.R_OK):
            return UNREADABLE
        if may_have_holes(status):
            self._hole_bytes += _bytes_in_holes(path, status.st_size)
        self._append_file(name, status.st_size, status)
        return None

    def _add_made_file(self, path: str, name: str) -> str | None:
        """Add a file that may have another size than it says: what it has is read now."""
        handle = os.open(path, OPEN_FLAGS)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or not _may_be_made_when_read(status):
                return CHANGED
            content = read_to_end(handle, self._content_left + 1)
        finally:
            os.close(handle)
        if status.st_size and len(content) == status.st_size:
            return self._add_stored_file(path, name, status)
        if len(content) > self._content_left:
            return TOO_LARGE
        self._content_left -= len(content)
        if len(content) != status.st_size:
            self._sources.add_content(content)
        self._append_file(name, len(content), status)
        return None

    def _append_file(self, name: str, size: int, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            self._named_twice[status.st_dev][status.st_ino] = len(self._entries)
        self._append(Entry(name, EntryKind.FILE, size, *_mode_and_time(status)), status)

    def _is_unchanged(self, file: int, status: os.stat_result) -> bool:
        return self._entries[file].size == status.st_size and self._sources.has_time(file, status)

    def _append(self, entry: Entry, status: os.stat_result) -> None:
        if len(self._entries) == MAX_ENTRIES:
            raise InputError(
                reason=f"there are more than {MAX_ENTRIES:,} files and directories", hint=_TOO_MANY
            )
        size = len(path_bytes(entry.path)) + len(path_bytes(entry.target))
        if self._entries.paths_size + size + 1 > MAX_PATHS_SIZE:
            raise InputError(
                reason="the names of the files and directories are too long in all", hint=_TOO_MANY
            )
        self._entries.append(entry)
        self._sources.add(status)

    def _tell_news(self) -> None:
        if self._on_news and (now := time.monotonic()) >= self._next_news:
            self._next_news = now + NEWS_INTERVAL
            self._on_news(self._found)


_ALL_EXCLUDED = "a pattern without a slash, such as *, excludes what is named as well"

_TOO_MANY = "put them into an archive and send that"


def _may_be_made_when_read(status: os.stat_result) -> bool:
    """Whether a file may be made when it is read: /proc says that such files are empty, /sys that they have
    a page, stored nowhere."""
    return status.st_size == 0 or (status.st_size == mmap.PAGESIZE and status.st_blocks == 0)


def _bytes_in_holes(path: str, size: int) -> int:
    handle = os.open(path, OPEN_FLAGS)
    try:
        return bytes_in_holes(handle, size)
    finally:
        os.close(handle)


def _mode_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_mode & 0o777, status.st_mtime_ns // 1000


def _code(error: OSError) -> str:
    """Return the code of the reason why an entry could not be looked at."""
    if error.errno in _MISSING or error.errno == errno.ELOOP:
        return VANISHED
    if error.errno == errno.ENAMETOOLONG:
        return NAME_TOO_LONG
    return UNREADABLE


def _fault_of(path: str, error: OSError) -> str:
    """Say as a clause why a path that a person named cannot be had."""
    if error.errno not in _MISSING:
        return str(storage_error(error, "read", path))
    try:
        return f"{path} is a link to {os.readlink(path)}, which is missing"
    except OSError:
        return f"there is no file or directory {path}"


def _listed(clauses: Sequence[str]) -> str:
    """Join clauses, not too many of them."""
    more = len(clauses) - MAX_FAULTS_SHOWN
    return "; ".join(clauses[:MAX_FAULTS_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
