"""What is offered: the entries of a transfer, and how their content is hashed.

A file is a row of blocks of BLOCK_SIZE bytes (the last may be shorter; an empty file has none). Each block
has its SHA-256; the digest of a file is the SHA-256 over its block digests, in order; the digest of a
transfer is the SHA-256 over its file digests, in the order of the manifest. So a receiver can verify, keep
and later resume block by block, and a file's digest never needs a second pass over its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

BLOCK_SIZE = 1 << 20
"""Bytes in a block; the unit of verification."""

DIGEST_SIZE = 32
"""Bytes in a SHA-256."""

MAX_ENTRIES = 1_000_000
"""Entries in one manifest: about 300 MB of memory on either side, and more files than people send at once."""

MAX_PATH_CHARACTERS = 1 << 27
"""Characters in all paths of one manifest: 134 for each of MAX_ENTRIES; nobody fills a memory with more."""

MAX_FILE_SIZE = 1 << 53
"""Bytes in one file: the largest integer that a browser's number holds exactly."""


MAX_MTIME_US = 1 << 53
"""Microseconds before and after 1970 of the earliest and latest modification time: to 2255, as exact as a
browser's number. What is beyond is sent as the nearest of these."""


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


class Manifest:
    """The entries of one transfer, in the order in which they are sent."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries: tuple[Entry, ...] = tuple(entries)
        self.file_count = sum(1 for entry in self.entries if entry.kind is EntryKind.FILE)
        self.total_bytes = sum(entry.size for entry in self.entries)
        # Distinct first parts of the paths, in order.
        self.roots: tuple[str, ...] = tuple(dict.fromkeys(entry.root for entry in self.entries))
        self.id = manifest_id(self.entries)


def manifest_id(entries: Sequence[Entry]) -> str:
    """Return the SHA-256 (hex) that names exactly these entries: paths, kinds, sizes, modes and times."""
    digest = hashlib.sha256()
    for entry in entries:
        row = [entry.path, entry.kind.value, entry.size, entry.mode, entry.mtime_us]
        digest.update(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


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
