"""What the state machines ask of a disk, and what it answers.

The sender asks for blocks (BlockRequest) and gets BlockRead or BlockFailed. The receiver orders Operations
and gets OperationResults; Operations other than those that plan mean that the transfer was accepted. storage/
serves both on a thread, many at a time; the simulator in the tests serves them from memory. A file is named
by its index in the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from msgspec import Struct

from flyx.errors import FlyxError
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.manifest import Content, Entry


class BlockRequest(Struct, frozen=True):
    """Read one block. `length` 0 stands for the only "block" of an empty file, which must still be there.

    Of a stream, the next block has `length` bytes at most.

    Attributes:
        algorithm: what its digest is to be by.
    """

    file: int
    offset: int
    length: int
    algorithm: Algorithm = Algorithm.SHA256


class BlockRead(Struct, frozen=True):
    """The bytes of a requested block and their digest.

    After the last block of a file the reader has made sure that the file is still what the manifest says.

    Attributes:
        data: empty if it is a hole.
        digest: that of the zeros, if it is a hole.
        hole: nothing is stored of this block, and it reads as zeros.
        packed: the same bytes, compressed for the way; empty if they are to be sent as they are.
    """

    request: BlockRequest
    data: bytes
    digest: bytes
    hole: bool = False
    packed: bytes = b""


class StreamEnded(Struct, frozen=True):
    """In the place of a block of a stream: there is none any more. `digest` is that of all of it."""

    request: BlockRequest
    digest: bytes


class BlockFailed(Struct, frozen=True):
    """A block cannot be had: the file has changed, vanished or cannot be read.

    Attributes:
        code: why, from left_out.REASONS.
    """

    request: BlockRequest
    code: str


class PlanTree(Struct, frozen=True):
    """Prepare for a transfer: look at the roots already there and at the free space, before any entry.

    Find what an earlier run has left of the same transfer, or of one of the same roots; change nothing.

    Attributes:
        hole_bytes: how many of all the bytes need no space.
        content: what it is that is offered.
        algorithms: what both sides can hash with, the fastest first: the disk chooses (TreePlanned).
    """

    roots: tuple[str, ...]
    total_bytes: int
    manifest_id: str = ""
    hole_bytes: int = 0
    content: Content = Content.FILES
    algorithms: tuple[Algorithm, ...] = (Algorithm.SHA256,)


class PlanEntries(Struct, frozen=True):
    """Check the next entries of the manifest (`first` is the index of the first) against what exists."""

    first: int
    entries: Sequence[Entry]


class HashFiles(Struct, frozen=True):
    """Hash what is here under the names of these files, which are in doubt (EntriesPlanned)."""

    files: Sequence[int]


class SettleFiles(Struct, frozen=True):
    """All entries are planned: decide about the files in doubt, of which these are the same as those here."""

    same: Set[int]


class WriteBlock(Struct, frozen=True):
    """Verify one block against its digest and append it to the file's partial file, in order of offset.

    A hole is a block of zeros, as long as a block is at that offset, that has no parts and takes no room.

    Attributes:
        unpacked: bytes of the block, if the parts are it compressed, as they came from the sender; else 0.
    """

    file: int
    offset: int
    parts: Sequence[bytes | memoryview]
    digest: bytes
    hole: bool = False
    unpacked: int = 0


class FinishFile(Struct, frozen=True):
    """All blocks of the file are written: make it durable and give it its name, mode and time."""

    file: int


class DiscardFile(Struct, frozen=True):
    """The sender cannot complete this file: remove what has been written of it."""

    file: int


class RestartFile(Struct, frozen=True):
    """The sender begins this file anew, though there is a part of it: remove that."""

    file: int


class FinishTree(Struct, frozen=True):
    """All files are finished: make the links, and the directories that are still missing; give each directory
    its mode and time."""


Planning = PlanTree | PlanEntries | HashFiles | SettleFiles
Operation = Planning | WriteBlock | FinishFile | DiscardFile | RestartFile | FinishTree


class TreePlanned(Struct, frozen=True):
    """Attributes:
    fresh: nothing is there yet under any of the roots, so no entry can be in the way of another.
    unfinished: other transfers into the same directory that wait to be gone on with.
    algorithm: what all digests of the transfer are by: what those from an earlier run are, if that can be.
    """

    fresh: bool
    unfinished: tuple[Unfinished, ...] = ()
    algorithm: Algorithm = Algorithm.SHA256


class Unfinished(Struct, frozen=True):
    """A transfer that was not completed: its first root, and when it last began, in Unix seconds."""

    root: str
    time: int


class Kept(Struct, frozen=True):
    """A file is complete under `path`, its final name, from before. `digest` is the one of digests.py."""

    file: int
    path: str
    digest: bytes


class BlocksKept(Struct, frozen=True):
    """The first blocks of a file are here from before. `digests` are theirs, one after the other."""

    file: int
    digests: bytes


class GoesOn(Struct, frozen=True):
    """The first `offset` bytes of a stream are here, from an earlier connection of the same run.

    Attributes:
        digest: of their blocks; to be added to.
    """

    file: int
    offset: int
    digest: RunningDigest


class Changed(Struct, frozen=True):
    """There is a part of another file of this path; it is removed when the transfer is accepted."""

    file: int


class EntriesPlanned(Struct, frozen=True):
    """Entries below this index may be written, but for those that are left out.

    Attributes:
        found: what there is of those that are new.
        left_out: those of them that cannot be had here, and why: codes of left_out.py.
        in_doubt: files that may be here already: what they hash to decides (SettleFiles).
    """

    below: int
    found: tuple[Kept | BlocksKept | GoesOn | Changed, ...] = ()
    left_out: tuple[tuple[int, str], ...] = ()
    in_doubt: tuple[int, ...] = ()


class FilesHashed(Struct, frozen=True):
    """The digest of each file, as digests.py defines it; None if it is not of the size any more, or cannot
    be read."""

    digests: tuple[bytes | None, ...]


class FilesSettled(Struct, frozen=True):
    """No file is in doubt any more; these are left out, and why (left_out.py)."""

    left_out: tuple[tuple[int, str], ...] = ()


class BlockWritten(Struct, frozen=True):
    """The block is verified and handed to the system, or is a hole. Its parts had `buffered` bytes."""

    file: int
    offset: int
    length: int
    buffered: int


class FileSaved(Struct, frozen=True):
    """The file is complete under `path`, its final name on this machine; None: it was passed on instead."""

    file: int
    path: str | None


class FileRefused(Struct, frozen=True):
    """The file was complete, but cannot have its name here, so it is gone. `code` says why: left_out.py."""

    file: int
    code: str


class FileDiscarded(Struct, frozen=True):
    """Nothing is left of the file."""

    file: int


class FileRestarted(Struct, frozen=True):
    """Nothing is left of the file; its blocks may come from the first one on."""

    file: int


class TreeFinished(Struct, frozen=True):
    """The transfer is complete on disk, but for these directories and links, and why (left_out.py)."""

    left_out: tuple[tuple[int, str], ...] = ()


class PlanDropped(Struct, frozen=True):
    """The person wants something else made of what exists: nothing that was planned counts any more.

    It takes the place of the failure of an operation that plans; nothing has been accepted.
    """


class OperationFailed(Struct, frozen=True):
    """An operation failed; those after it in the same batch were not begun."""

    error: FlyxError


OperationResult = (
    TreePlanned
    | EntriesPlanned
    | FilesHashed
    | FilesSettled
    | BlockWritten
    | FileSaved
    | FileRefused
    | FileDiscarded
    | FileRestarted
    | TreeFinished
    | PlanDropped
    | OperationFailed
)
