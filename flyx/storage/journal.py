"""The journal of an unfinished transfer: what of it is durable, so that a later run need not get it again.

A file of lines, each a CRC-32 in hex, a space, and a JSON array; the first element is the kind of the record.
Names are those of the manifest, where a byte that is not UTF-8 is half a surrogate pair, and so in JSON, too:

    flyx    version, manifest id, digest of the roots, first root, time, and in version 2, what all digests
            are by (transfer/digests.py): always the first line. They are by SHA-256 in version 1, which who
            knows no other goes on with; version 2 they leave alone
    name    root, the name it was given here
    made    a directory that the transfer made, by its parts
    opened  a directory that was there, by its parts, and its mode, which it gets back: it was closed to its
            owner, and is not while the transfer goes on
    file    number, path, size, mtime_us, inode: a partial file
    blocks  number, index of the first, their digests in one string: these blocks are durable in it
    drop    number: the partial file counts no more
    saved   path, size, mtime_us, parts of its final name, inode, mtime_ns there, digest: the file is about
            to get that name, and has it if a file of this inode, size and time is there. Some filesystems
            give a file another inode or time after a while: one of this size is then read back

Data is made durable before a record says so, and a final name is given only after both. A line that is cut
short, damaged or impossible ends the journal: nothing after it is believed. When a journal is taken up again
it is written anew, whole, and moved over the old one.

After a sync has failed nothing is written to the journal any more, and it gets another name, DOUBTED_NAME.
What it says was durable before; a later run reads it back from the disk all the same before it believes it.
When all of it has been read back, and the transfer goes on, the journal that is written anew has the usual
name again.
The new name itself is never synced: what it warns of are bytes that only the page cache has, and they are
gone with the name if the power is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from flyx.storage.durability import Durability
from flyx.storage.tree import Parts, Tree, names_in
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.manifest import BLOCK_SIZE, Entry, path_bytes

NAME = "journal"
DOUBTED_NAME = "journal.doubted"
_NEW_NAME = "journal.new"
_VERSION = 1
_VERSION_WITH_ALGORITHM = 2

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_BLOCKS_IN_RECORD = 1024
"""Block digests in one record of a journal that is written anew: 64 kB."""

_LONGEST_FIRST_LINE = 1 << 16

Record = Sequence[Any]


class Identity(Struct, frozen=True):
    """What a file must have in common with one offered earlier to be taken for the same."""

    path: str
    size: int
    mtime_us: int

    @classmethod
    def of(cls, entry: Entry) -> Identity:
        """The identity of an entry of a manifest."""
        return cls(entry.path, entry.size, entry.mtime_us)


@dataclass(slots=True)
class Begun:
    """A partial file: `identity` says of which file, `digests` has that of each of its blocks."""

    identity: Identity
    inode: int
    digests: bytearray = field(default_factory=bytearray)

    @property
    def size(self) -> int:
        """Bytes that are durable in it."""
        return min(len(self.digests) // DIGEST_SIZE * BLOCK_SIZE, self.identity.size)


class Saved(Struct, frozen=True):
    """A file that got, or was about to get, its final name `parts`; `digest` is that of digests.py."""

    identity: Identity
    parts: Parts
    inode: int
    mtime_ns: int
    digest: bytes

    def is_like(self, status: os.stat_result) -> bool:
        """Whether what is there now can be that file, untouched; if it is_same(), it is."""
        if not stat.S_ISREG(status.st_mode) or status.st_size != self.identity.size:
            return False
        # A filesystem that did not take the time that the file should have had gives it others later, too.
        takes_times = _is_cut(self.identity.mtime_us * 1000, self.mtime_ns)
        return not takes_times or _is_cut(self.mtime_ns, status.st_mtime_ns)

    def is_same(self, status: os.stat_result) -> bool:
        """Whether what is like that file has its inode and its time."""
        return status.st_ino == self.inode and _is_cut(self.mtime_ns, status.st_mtime_ns)

    def record(self) -> Record:
        """The record of that."""
        path, size, mtime_us = self.identity.path, self.identity.size, self.identity.mtime_us
        return [
            "saved",
            path,
            size,
            mtime_us,
            list(self.parts),
            self.inode,
            self.mtime_ns,
            self.digest.hex(),
        ]


class Heading(Struct, frozen=True):
    """The first line: which transfer this is. `first_root` and `time` (Unix seconds) are for people.

    Attributes:
        algorithm: what the digests of blocks and files are by.
    """

    manifest_id: str
    roots: str
    first_root: str
    time: int
    algorithm: Algorithm = Algorithm.SHA256

    @classmethod
    def of(
        cls, manifest_id: str, roots: Sequence[str], time: int, algorithm: Algorithm = Algorithm.SHA256
    ) -> Heading:
        """The heading of a transfer of these roots."""
        digest = hashlib.sha256(b"\0".join(sorted(map(path_bytes, roots)))).hexdigest()
        return cls(manifest_id, digest, roots[0] if roots else "", time, algorithm)

    def record(self) -> Record:
        """The record of that."""
        says = [self.manifest_id, self.roots, self.first_root, self.time]
        if self.algorithm is Algorithm.SHA256:
            return ["flyx", _VERSION, *says]
        return ["flyx", _VERSION_WITH_ALGORITHM, *says, self.algorithm.value]


class Contents:
    """What a journal says, record by record.

    Attributes:
        doubted: a sync has failed since it was begun.
    """

    def __init__(self, heading: Heading) -> None:
        self.heading = heading
        self.doubted = False
        self.names: dict[str, str] = {}
        self.made: set[Parts] = set()
        self.opened_up: dict[Parts, int] = {}
        # Partial files by their number, and saved ones by their path in the manifest.
        self.begun: dict[int, Begun] = {}
        self.saved: dict[str, Saved] = {}

    def apply(self, record: Record) -> None:
        """Take one more record.

        Raises:
            ValueError: no such record can follow those before.
        """
        match record:
            case ["name", str(root), str(name)]:
                self.names[root] = name
            case ["made", [*parts]] if _stay_below(parts):
                self.made.add(tuple(parts))
            case ["opened", [*parts], int(mode)] if _stay_below(parts) and 0 <= mode <= 0o7777:
                self.opened_up[tuple(parts)] = mode
            case ["file", int(number), str(path), int(size), int(mtime_us), int(inode)] if (
                number not in self.begun and size >= 0
            ):
                self.begun[number] = Begun(Identity(path, size, mtime_us), inode)
            case ["blocks", int(number), int(first), str(digests)] if number in self.begun:
                self._add_blocks(self.begun[number], first, bytes.fromhex(digests))
            case ["drop", int(number)] if number in self.begun:
                del self.begun[number]
            case [
                "saved",
                str(path),
                int(size),
                int(mtime_us),
                [*parts],
                int(inode),
                int(time),
                str(sha),
            ] if size >= 0 and _stay_below(parts) and len(bytes.fromhex(sha)) == DIGEST_SIZE:
                identity = Identity(path, size, mtime_us)
                self.saved[path] = Saved(identity, tuple(parts), inode, time, bytes.fromhex(sha))
            case _:
                raise ValueError("an impossible record")

    def _add_blocks(self, begun: Begun, first: int, digests: bytes) -> None:
        end = first * DIGEST_SIZE + len(digests)
        blocks = -(-begun.identity.size // BLOCK_SIZE)
        if first * DIGEST_SIZE != len(begun.digests) or len(digests) % DIGEST_SIZE:
            raise ValueError("blocks out of place")
        if end > blocks * DIGEST_SIZE:
            raise ValueError("more blocks than the file has")
        begun.digests += digests

    def records(self) -> Iterator[Record]:
        """Yield the fewest records that say all this."""
        yield self.heading.record()
        for root, name in self.names.items():
            yield ["name", root, name]
        for parts in self.made:
            yield ["made", list(parts)]
        for parts, mode in self.opened_up.items():
            yield opened_record(parts, mode)
        for number, begun in self.begun.items():
            yield begun_record(number, begun.identity, begun.inode)
            step = _BLOCKS_IN_RECORD * DIGEST_SIZE
            for at in range(0, len(begun.digests), step):
                yield blocks_record(number, at // DIGEST_SIZE, begun.digests[at : at + step])
        for saved in self.saved.values():
            yield saved.record()


_TIME_UNITS = (1, 100, 1000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""Nanoseconds, as filesystems count them: most, NTFS, some in FUSE, exFAT, SFTP, FAT."""


def _is_cut(time: int, later: int) -> bool:
    """Whether a time that a file was given, or had, can be the one that it has later.

    Some filesystems cut a time only when the file gets its name, or when they are mounted anew; until then
    they tell it in full.
    """
    return any(later == time // unit * unit for unit in _TIME_UNITS)


def _stay_below(parts: Sequence[object]) -> bool:
    """Whether these are the parts of a path that leads to something below the output directory."""
    return bool(parts) and all(
        isinstance(part, str) and part not in {"", ".", ".."} and not {"/", "\0"} & set(part)
        for part in parts
    )


def opened_record(parts: Parts, mode: int) -> Record:
    """The record of a directory that is to get its mode back."""
    return ["opened", list(parts), mode]


def begun_record(number: int, identity: Identity, inode: int) -> Record:
    """The record of a partial file."""
    return ["file", number, identity.path, identity.size, identity.mtime_us, inode]


def blocks_record(number: int, first: int, digests: bytes | bytearray) -> Record:
    """The record of blocks that have become durable; `first` is the index of the first of them."""
    return ["blocks", number, first, digests.hex()]


def serialize(record: Record) -> bytes:
    """Return the line of a record."""
    try:
        text = _JSON.encode(record)
    except UnicodeEncodeError:
        # A name that is no UTF-8: its bytes are halves of surrogate pairs.
        text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


_JSON = msgspec.json.Encoder()


def parse(data: bytes) -> Contents | None:
    """Return what a journal says, up to the first line that cannot be believed; None if that is the first."""
    lines = data.split(b"\n")
    # After the last newline there is nothing, or a line that was cut short.
    lines.pop()
    heading = _heading(lines[0]) if lines else None
    if heading is None:
        return None
    contents = Contents(heading)
    with suppress(ValueError, RecursionError):
        for line in lines[1:]:
            contents.apply(_parse_line(line))
    return contents


def _parse_line(line: bytes) -> Record:
    text = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(text):
        raise ValueError("a damaged line")
    record = json.loads(text)
    if not isinstance(record, list):
        raise ValueError("not a record")
    return record


def _heading(line: bytes) -> Heading | None:
    with suppress(ValueError, RecursionError):
        match _parse_line(line):
            case ["flyx", version, str(manifest_id), str(roots), str(first), int(time)] if (
                version == _VERSION
            ):
                return Heading(manifest_id, roots, first, time)
            case ["flyx", version, str(manifest_id), str(roots), str(first), int(time), algorithm] if (
                version == _VERSION_WITH_ALGORITHM
            ):
                return Heading(manifest_id, roots, first, time, Algorithm(algorithm))
    return None


def read_heading(directory: int, tree: Tree) -> Heading | None:
    """Return the first line of the journal in a directory, given by its handle; None if it has none.

    `tree` is the output directory.
    """
    for name in (NAME, DOUBTED_NAME):
        with suppress(OSError), open(_open_private(name, directory, tree), "rb") as file:
            return _heading(file.read(_LONGEST_FIRST_LINE).partition(b"\n")[0])
    return None


def read(directory: int, tree: Tree) -> Contents | None:
    """Return what the journal in a directory says, None if it has none."""
    for name in (NAME, DOUBTED_NAME):
        with suppress(OSError), open(_open_private(name, directory, tree), "rb") as file:
            contents = parse(file.read())
            if contents:
                contents.doubted = name == DOUBTED_NAME
            return contents
    return None


def doubt(directory: int) -> None:
    """A sync has failed: have later runs doubt the journal in a directory, if there is one."""
    # If this fails, it says nothing all the same that was not durable once.
    with suppress(OSError):
        os.rename(NAME, DOUBTED_NAME, src_dir_fd=directory, dst_dir_fd=directory)


def exists(directory: int) -> bool:
    """Whether there is a journal in a directory, good or not."""
    return not {NAME, DOUBTED_NAME}.isdisjoint(names_in(directory))


def _open_private(name: str, directory: int, tree: Tree) -> int:
    """Open a file to read it, if nobody else may write to it; OSError if not."""
    handle = os.open(name, _READ, dir_fd=directory)
    try:
        if not tree.is_private(os.fstat(handle), stat.S_IFREG):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    except OSError:
        os.close(handle)
        raise
    return handle


class Journal:
    """A journal that is being written."""

    def __init__(
        self, directory: int, records: Iterable[Record], durability: Durability, *, doubted: bool = False
    ) -> None:
        """Begin a journal with these records; it takes the place of one that is there, at once and durably.

        Args:
            directory: handle of the directory it is in.
            records: the heading, and what is known already.
            durability: of the transfer.
            doubted: whether this one is, because not all of the one that is there has been read back.
        """
        self._handle = os.open(_NEW_NAME, _CREATE, 0o600, dir_fd=directory)
        self._durability = durability
        self._size = 0
        try:
            self.append(records)
            durability.sync([self._handle])
            name = DOUBTED_NAME if doubted else NAME
            os.rename(_NEW_NAME, name, src_dir_fd=directory, dst_dir_fd=directory)
            durability.sync([directory])
            if not doubted:
                with suppress(FileNotFoundError):
                    os.unlink(DOUBTED_NAME, dir_fd=directory)
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def handle(self) -> int:
        """The file's descriptor, to make what was appended durable together with other files."""
        return self._handle

    def append(self, records: Iterable[Record]) -> None:
        """Write records. If that fails, none of them counts, and later ones can still follow.

        They are durable after the next sync of `handle`.

        Raises:
            OSError: they cannot be written, or a sync has failed.
        """
        self._durability.check()
        lines = memoryview(b"".join(serialize(record) for record in records))
        offset = self._size
        try:
            while lines:
                done = os.pwrite(self._handle, lines, offset)
                offset += done
                lines = lines[done:]
        except OSError:
            # Whatever would follow half a line would not be believed.
            os.ftruncate(self._handle, self._size)
            raise
        self._size = offset

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
