"""What is offered: the entries of a transfer, and how their content is hashed.

A file is a row of blocks of BLOCK_SIZE bytes (the last may be shorter; an empty file has none). Each block
has its SHA-256; the digest of a file is the SHA-256 over its block digests, in order; the digest of a
transfer is the SHA-256 over its file digests, in the order of the manifest. So a receiver can verify, keep
and later resume block by block, and a file's digest never needs a second pass over its bytes.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import overload

from flyx.errors import LocalProtocolError

BLOCK_SIZE = 1 << 20
"""Bytes in a block; the unit of verification."""

DIGEST_SIZE = 32
"""Bytes in a SHA-256."""

MAX_ENTRIES = 1_000_000
"""Entries in one manifest, with the directories that only their paths name: more than people send at once.
A million of 67 bytes a path take 220 MB at a receiver (tests/transfer/test_memory.py)."""

MAX_PATHS_SIZE = 1 << 27
"""UTF-8 bytes in all paths of one manifest: 134 for each of MAX_ENTRIES, and not much more memory."""

MAX_ROOTS = 100_000
"""Roots in one manifest. They are kept as strings, and each is looked for on the receiver's disk."""

MAX_ROOTS_SIZE = 1 << 22
"""UTF-8 bytes in all roots: twice what Linux lets a command line hold."""

MAX_FILE_SIZE = 1 << 53
"""Bytes in one file: the largest integer that a browser's number holds exactly."""

MAX_TOTAL_SIZE = 1 << 62
"""Bytes in all files of one manifest."""

MAX_MTIME_US = 1 << 53
"""The last modification time that a manifest has, and as far before 1970 the first: the year 2255, in
microseconds the largest integer that a browser's number holds exactly."""


class EntryKind(Enum):
    """What an entry of the manifest is."""

    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory of a transfer.

    Attributes:
        path: relative, its parts joined by "/"; the first part is the root that the sender named.
        kind: file or directory.
        size: bytes; 0 for a directory.
        mode: permission bits, at most 0o777.
        mtime_us: modification time in microseconds since the epoch, within MAX_MTIME_US of it.
    """

    path: str
    kind: EntryKind
    size: int
    mode: int
    mtime_us: int

    @property
    def root(self) -> str:
        """The first part of the path."""
        return self.path.split("/", 1)[0]


class Entries(Sequence[Entry]):
    """The entries of a manifest, in order; they can be added to, and never change.

    An Entry with its strings and numbers takes 250 bytes; here it is its path in UTF-8 and 26 bytes more, and
    made when asked for. A slice is a view, good as long as the entries: other threads may read through one
    while entries are added.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._paths = bytearray()
        # By entry: where its path ends in _paths, the rest, and the mode with _DIRECTORY_BIT.
        self._ends = array("Q", [0])
        self._sizes = array("Q")
        self._mtimes = array("q")
        self._modes = array("H")
        self._id = hashlib.sha256()
        self.file_count = 0
        self.total_bytes = 0
        # Distinct first parts of the paths, in order, and the same to look one up.
        self.roots: list[str] = []
        self._known_roots: set[str] = set()
        self._last_root: str | None = None
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        """Add an entry. A time beyond MAX_MTIME_US becomes that: files may have any, and few care.

        Raises:
            LocalProtocolError: size or mode is impossible; the caller makes sure that they are not.
        """
        mtime_us = max(-MAX_MTIME_US, min(entry.mtime_us, MAX_MTIME_US))
        # Half a surrogate pair is for names.py to refuse.
        path = entry.path.encode(errors="surrogatepass")
        if not (0 <= entry.size <= MAX_FILE_SIZE and 0 <= entry.mode < _DIRECTORY_BIT):
            raise LocalProtocolError(reason="an entry in a manifest with an impossible size or mode")
        is_directory = entry.kind is EntryKind.DIRECTORY
        self._id.update(_row_hashed(entry.path, entry.kind, entry.size, entry.mode, mtime_us))
        self._sizes.append(entry.size)
        self._mtimes.append(mtime_us)
        self._modes.append(entry.mode | (_DIRECTORY_BIT if is_directory else 0))
        self._paths += path
        # The last, since this is what makes it an entry: another thread may be reading.
        self._ends.append(len(self._paths))
        self.file_count += not is_directory
        self.total_bytes += entry.size
        root = entry.root
        if root != self._last_root:
            self._last_root = root
            if root not in self._known_roots:
                self._known_roots.add(root)
                self.roots.append(root)

    @property
    def id(self) -> str:
        """The SHA-256 (hex) that names exactly these entries: paths, kinds, sizes, modes and times."""
        return self._id.hexdigest()

    @property
    def paths_size(self) -> int:
        """UTF-8 bytes in all paths."""
        return len(self._paths)

    def followed_by(self, more: Sequence[Entry]) -> Entries:
        """Return the entries with `more` after them.

        If `more` is a slice of others, and all before it are these, then those others are the answer: a
        manifest that is told in pieces is in memory once, however many keep it. Else `more` is added here.
        """
        if isinstance(more, _View) and (more.entries is self or more.indexes.start == len(self)):
            return more.entries
        for entry in more:
            self.append(entry)
        return self

    def has_part(self, index: int, offset: int, part: str) -> bool:
        """Whether a path has exactly this part at `offset`, in UTF-8 bytes, where one of its parts begins."""
        encoded = part.encode()
        start = self._ends[index] + offset
        stop, end = start + len(encoded), self._ends[index + 1]
        return self._paths[start:stop] == encoded and (stop == end or self._paths[stop] == _SLASH)

    def path(self, index: int) -> str:
        """The path of an entry, not counted from the end."""
        return self._paths[self._ends[index] : self._ends[index + 1]].decode(errors="surrogatepass")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return _View(self, range(len(self))[index])
        place = range(len(self))[index]
        mode = self._modes[place]
        kind = EntryKind.DIRECTORY if mode & _DIRECTORY_BIT else EntryKind.FILE
        return Entry(
            self.path(place), kind, self._sizes[place], mode & ~_DIRECTORY_BIT, self._mtimes[place]
        )


class _View(Sequence[Entry]):
    """A slice of Entries."""

    def __init__(self, entries: Entries, indexes: range) -> None:
        self.entries = entries
        self.indexes = indexes

    def __len__(self) -> int:
        return len(self.indexes)

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return _View(self.entries, self.indexes[index])
        return self.entries[self.indexes[index]]

    def __iter__(self) -> Iterator[Entry]:
        return map(self.entries.__getitem__, self.indexes)


_SLASH = ord("/")

# Above the permission bits.
_DIRECTORY_BIT = 1 << 15


def _row_hashed(path: str, kind: EntryKind, size: int, mode: int, mtime_us: int) -> bytes:
    """What the id of a manifest is the SHA-256 of, for one entry."""
    return json.dumps([path, kind.value, size, mode, mtime_us], separators=(",", ":")).encode() + b"\n"


class Manifest:
    """The entries of one transfer, in the order in which they are sent; complete, so no more are added."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = entries if isinstance(entries, Entries) else Entries(entries)
        self.file_count = self.entries.file_count
        self.total_bytes = self.entries.total_bytes
        self.roots: tuple[str, ...] = tuple(self.entries.roots)
        self.id = self.entries.id


def block_digest(block: bytes | bytearray | memoryview) -> bytes:
    """Return the SHA-256 of one block."""
    return hashlib.sha256(block).digest()


class RunningDigest:
    """The digest of a file from its block digests, or of a transfer from its file digests."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, digest: bytes | bytearray) -> None:
        """Append the next digest, or several in one string; order matters."""
        self._hash.update(digest)

    def value(self) -> bytes:
        """The digest of all added so far, DIGEST_SIZE bytes."""
        return self._hash.digest()


class TransferDigest:
    """The digest of a transfer from the digests of its files, of which some were there before it began.

    Those are told with keep(), the others with add(); each kind in the order of the manifest, and a file that
    is kept before any that follows it there is added.
    """

    def __init__(self) -> None:
        self._digest = RunningDigest()
        # Oldest first: index and digest.
        self._kept: deque[tuple[int, bytes]] = deque()

    def keep(self, file: int, digest: bytes) -> None:
        """This file is complete already."""
        self._kept.append((file, digest))

    def add(self, file: int, digest: bytes) -> None:
        """This file has become complete."""
        self._catch_up(file)
        self._digest.add(digest)

    def value(self) -> bytes:
        """The digest, DIGEST_SIZE bytes: all files have been told."""
        self._catch_up(MAX_ENTRIES + 1)
        return self._digest.value()

    def _catch_up(self, file: int) -> None:
        while self._kept and self._kept[0][0] < file:
            self._digest.add(self._kept.popleft()[1])


def block_count(size: int) -> int:
    """Return how many blocks a file of this size has."""
    return -(-size // BLOCK_SIZE)
