"""What is offered: the entries of a transfer.

A file is a row of blocks of BLOCK_SIZE bytes (the last may be shorter; an empty file has none), which
digests.py says how to hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import overload

import msgspec
from msgspec import Struct

from flyx.errors import LocalProtocolError
from flyx.transfer.left_out import NOTHING, LeftOut

BLOCK_SIZE = 1 << 20
"""Bytes in a block; the unit of verification."""

MAX_ENTRIES = 1_000_000
"""Entries in one manifest, with the directories that only their paths name: more than people send at once.
A million of 67 bytes a path take 220 MB at a receiver (tests/transfer/test_memory.py)."""

MAX_PATHS_SIZE = 1 << 27
"""Bytes in all paths of one manifest, and in the targets of its symbolic links: 134 for each of MAX_ENTRIES,
and not much more memory."""

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


MAX_TEXT_SIZE = BLOCK_SIZE
"""Bytes in a text that is sent as one: a block."""

MAX_TARGET_BYTES = 3072
"""Bytes in the target of a symbolic link, as in a path (names.MAX_PATH_BYTES)."""


class Content(Enum):
    """What a manifest offers.

    A stream and a text are the only entry of theirs, a file whose path is one name.
    """

    FILES = "files"
    """Files, directories and links."""
    STREAM = "stream"
    """Bytes whose number nobody knows before the last of them; the size of the entry is 0. Its blocks have
    any length up to BLOCK_SIZE: what comes slowly goes on as it comes."""
    TEXT = "text"
    """A text in UTF-8 of at most MAX_TEXT_SIZE bytes, for the person at the receiver to read."""


class EntryKind(Enum):
    """What an entry of the manifest is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMBOLIC_LINK = "symbolic_link"
    HARD_LINK = "hard_link"
    """Another name of a file that is an entry before it."""


class Entry(Struct, frozen=True):
    """One file, directory or link of a transfer.

    Paths and targets are bytes on disk, which need not be UTF-8: here they are strings as os.fsdecode() makes
    them, each byte that is not UTF-8 being half a surrogate pair (PEP 383).

    Attributes:
        path: relative, its parts joined by "/"; the first part is the root that the sender named.
        kind: what it is.
        size: bytes; 0 unless it is a file.
        mode: permission bits, at most 0o777; 0 for a link.
        mtime_us: modification time in microseconds since the epoch, within MAX_MTIME_US of it.
        target: what a symbolic link has for its target; else empty.
        same_as: of a hard link, the index of the file that it is another name of; else 0.
    """

    path: str
    kind: EntryKind
    size: int
    mode: int
    mtime_us: int
    target: str = ""
    same_as: int = 0

    @property
    def root(self) -> str:
        """The first part of the path."""
        return self.path.split("/", 1)[0]


class Entries(Sequence[Entry]):
    """The entries of a manifest, in order; they can be added to, and never change.

    An Entry with its strings and numbers takes 250 bytes; here it is the bytes of its path and 26 more, and
    made when asked for, if it is another one than the last. A slice is a view, good as long as the entries:
    other threads may read through one while entries are added.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._paths = bytearray()
        # By entry: where its path ends in _paths (with a NUL and its target, if it is a symbolic link), its
        # size (or the index that a hard link has), time, and mode with its kind above.
        self._ends = array("Q", [0])
        self._sizes = array("Q")
        self._mtimes = array("q")
        self._modes = array("H")
        self._id = hashlib.sha256()
        self.file_count = 0
        self.directory_count = 0
        self.total_bytes = 0
        # Distinct first parts of the paths, in order, and the same to look one up.
        self.roots: list[str] = []
        self._known_roots: set[str] = set()
        self._last_root: str | None = None
        # The entry that was asked for last, and its index: who has to do with a file asks many times.
        self._recent: tuple[int, Entry] | None = None
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        """Add an entry. A time beyond MAX_MTIME_US becomes that: files may have any, and few care.

        Raises:
            LocalProtocolError: size, mode, path or target is impossible; the caller makes sure that none is.
        """
        mtime_us = max(-MAX_MTIME_US, min(entry.mtime_us, MAX_MTIME_US))
        if not (0 <= entry.size <= MAX_FILE_SIZE and 0 <= entry.mode < 1 << _KIND_SHIFT):
            raise LocalProtocolError(reason="an entry in a manifest with an impossible size or mode")
        if not (can_be_on_disk(entry.path) and can_be_on_disk(entry.target)):
            raise LocalProtocolError(reason="an entry in a manifest with an impossible path or target")
        path = path_bytes(entry.path)
        number = entry.size
        if entry.kind is EntryKind.SYMBOLIC_LINK:
            path += b"\0" + path_bytes(entry.target)
        elif entry.kind is EntryKind.HARD_LINK:
            number = entry.same_as
        self._id.update(_row_hashed(entry, mtime_us))
        self._sizes.append(number)
        self._mtimes.append(mtime_us)
        self._modes.append(entry.mode | _KINDS.index(entry.kind) << _KIND_SHIFT)
        self._paths += path
        # The last, since this is what makes it an entry: another thread may be reading.
        self._ends.append(len(self._paths))
        self.file_count += entry.kind is EntryKind.FILE
        self.directory_count += entry.kind is EntryKind.DIRECTORY
        self.total_bytes += entry.size
        self._note_root(entry.root)

    def _note_root(self, root: str) -> None:
        if root != self._last_root:
            self._last_root = root
            if root not in self._known_roots:
                self._known_roots.add(root)
                self.roots.append(root)

    def only(self, indexes: Iterable[int]) -> Entries:
        """Return some of the entries, in order. The id is that of all, as are the indexes in hard links."""
        part = Entries()
        part._id = self._id.copy()
        for index in indexes:
            path = self._paths[self._ends[index] : self._ends[index + 1]]
            kind = self.kind(index)
            part._paths += path
            part._ends.append(len(part._paths))
            part._sizes.append(self._sizes[index])
            part._mtimes.append(self._mtimes[index])
            part._modes.append(self._modes[index])
            part.file_count += kind is EntryKind.FILE
            part.directory_count += kind is EntryKind.DIRECTORY
            part.total_bytes += self._sizes[index] if kind is EntryKind.FILE else 0
            part._note_root(path_of_bytes(re.split(b"[/\\0]", path, maxsplit=1)[0]))
        return part

    @property
    def id(self) -> str:
        """The SHA-256 (hex) that names exactly these entries, with all that they say."""
        return self._id.hexdigest()

    @property
    def paths_size(self) -> int:
        """Bytes in all paths, and in the targets of symbolic links."""
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
        """Whether a path has exactly this part at `offset`, in bytes, where one of its parts begins."""
        encoded = path_bytes(part)
        start = self._ends[index] + offset
        stop, end = start + len(encoded), self._ends[index + 1]
        return self._paths[start:stop] == encoded and (stop == end or self._paths[stop] in b"/\0")

    def part(self, index: int, offset: int) -> str:
        """The part of a path that begins at `offset`, in bytes."""
        start, end = self._ends[index] + offset, self._ends[index + 1]
        return path_of_bytes(re.split(b"[/\0]", self._paths[start:end], maxsplit=1)[0])

    def path(self, index: int) -> str:
        """The path of an entry, not counted from the end."""
        path = self._paths[self._ends[index] : self._ends[index + 1]]
        if self.kind(index) is EntryKind.SYMBOLIC_LINK:
            path, _, _ = path.partition(b"\0")
        return path_of_bytes(path)

    def kind(self, index: int) -> EntryKind:
        """What an entry is, not counted from the end."""
        return _KINDS[self._modes[index] >> _KIND_SHIFT]

    def size(self, index: int) -> int:
        """The size of an entry, not counted from the end."""
        return 0 if self.kind(index) is EntryKind.HARD_LINK else self._sizes[index]

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
        recent = self._recent
        if recent is not None and recent[0] == index:
            return recent[1]
        place = index if 0 <= index < len(self._ends) - 1 else range(len(self))[index]
        entry = self._make(place)
        self._recent = place, entry
        return entry

    def _make(self, place: int) -> Entry:
        both = self._modes[place]
        kind, mode = _KINDS[both >> _KIND_SHIFT], both & _MODE_BITS
        number, mtime_us = self._sizes[place], self._mtimes[place]
        path = self._paths[self._ends[place] : self._ends[place + 1]]
        if kind is EntryKind.HARD_LINK:
            return Entry(path_of_bytes(path), kind, 0, mode, mtime_us, same_as=number)
        if kind is not EntryKind.SYMBOLIC_LINK:
            return Entry(path_of_bytes(path), kind, number, mode, mtime_us)
        path, _, target = path.partition(b"\0")
        return Entry(path_of_bytes(path), kind, number, mode, mtime_us, target=path_of_bytes(target))


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


# The kind of an entry, in two bits above those of its mode.
_KINDS = tuple(EntryKind)
_KIND_SHIFT = 14
# Halves of surrogate pairs that stand for no byte.
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_MODE_BITS = (1 << _KIND_SHIFT) - 1


def path_bytes(path: str) -> bytes:
    """Return a path or target as the bytes that it is on disk."""
    return path.encode("utf-8", "surrogateescape")


def can_be_on_disk(path: str) -> bool:
    """Whether a path or target stands for bytes without a NUL."""
    return "\0" not in path and (path.isascii() or not _NO_BYTE.search(path))


def path_of_bytes(path: bytes | bytearray) -> str:
    """Return the path or target that is these bytes on disk."""
    return path.decode("utf-8", "surrogateescape")


def _row_hashed(entry: Entry, mtime_us: int) -> bytes:
    """What the id of a manifest is the SHA-256 of, for one entry."""
    row: list[str | int] = [entry.path, entry.kind.value, entry.size, entry.mode, mtime_us]
    if entry.kind is EntryKind.SYMBOLIC_LINK:
        row.append(entry.target)
    elif entry.kind is EntryKind.HARD_LINK:
        row.append(entry.same_as)
    text = entry.path + entry.target
    if text.isascii() and text.isprintable():
        return _ROW_JSON.encode(row) + b"\n"
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


_ROW_JSON = msgspec.json.Encoder()
"""Of rows in printable ASCII it makes what json.dumps() does, which escapes all else."""


class Manifest:
    """The entries of one transfer, in the order in which they are sent; complete, so no more are added."""

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        hole_bytes: int = 0,
        left_out: LeftOut = NOTHING,
        content: Content = Content.FILES,
    ) -> None:
        """Args:
        entries: what is sent.
        hole_bytes: how many of the bytes in the files are in whole blocks that are holes, where nothing is
            stored.
        left_out: what is not sent of what the person named.
        content: what it is that is sent.
        """
        self.entries = entries if isinstance(entries, Entries) else Entries(entries)
        self.hole_bytes = hole_bytes
        self.left_out = left_out
        self.file_count = self.entries.file_count
        self.total_bytes = self.entries.total_bytes
        self.roots: tuple[str, ...] = tuple(self.entries.roots)
        self.content = content
        self.id = self.entries.id if content is Content.FILES else _id_of(content, self.entries.id)


def _id_of(content: Content, entries_id: str) -> str:
    """The id of a manifest whose content is not files: no manifest of files has the same."""
    return hashlib.sha256(f"{content.value} {entries_id}".encode()).hexdigest()


def block_count(size: int) -> int:
    """Return how many blocks a file of this size has."""
    return -(-size // BLOCK_SIZE)
