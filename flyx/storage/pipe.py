"""The receiver's disk where it is none: one file, or a stream, goes to a descriptor, such as standard output.

Only whole blocks that match their digests are written, each once. After a lost connection the next one goes
on where the last block ended, so this outlives connections, as a Destination does for a stream.

Blocking, for a thread; POSIX only.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import assert_never

from flyx.errors import CorruptData, FlyxError, LocalProtocolError, NotOneFile, StorageError
from flyx.storage.blocks import BlockWriter
from flyx.storage.failures import storage_error
from flyx.storage.pipe_size import enlarge_pipe
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import (
    BlocksKept,
    BlockWritten,
    DiscardFile,
    EntriesPlanned,
    FileDiscarded,
    FileRestarted,
    FileSaved,
    FinishFile,
    FinishTree,
    GoesOn,
    HashFiles,
    Operation,
    OperationFailed,
    OperationResult,
    PlanEntries,
    PlanTree,
    RestartFile,
    SettleFiles,
    TreeFinished,
    TreePlanned,
    WriteBlock,
)
from flyx.transfer.left_out import NOT_WANTED
from flyx.transfer.manifest import BLOCK_SIZE, Content, EntryKind
from flyx.transfer.selection import Selection

_PLACE = "standard output"
_PIECE = 4096
"""Bytes that a pipe or socket that takes any takes at once (PIPE_BUF of Linux)."""

_LOOK_INTERVAL = 0.1
"""Seconds between two looks at whether the transfer still waits for the write."""


class PipeDestination:
    """Passes one file on.

    One batch of operations at a time; abandon() may be called from another thread, and waits for the batch,
    which a reader that does not read cannot keep up.
    """

    keeps = False
    outlives_connection = True

    def __init__(self, descriptor: int, selection: Selection | None = None) -> None:
        """Args:
        descriptor: where it goes; open as long as this is used, and not closed.
        selection: what is wanted of what is offered; None: all of it.
        """
        self._descriptor = descriptor
        self._selection = selection
        self._writer: _Writer | None = None
        self._blocks = BlockWriter()
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        # What is offered, and the file that is wanted of it; set anew over each connection.
        self._content = Content.FILES
        self._file: int | None = None
        self._path = ""
        self._size = 0
        # How many bytes are out, and the digests of their blocks; what these are by, over each connection.
        self._written = 0
        self._digests = bytearray()
        self._hash_with(Algorithm.SHA256)

    def abandon(self) -> None:
        """Write no more. Any number of times."""
        self._given_up.set()
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        """Carry out operations in order, and return what came of each, as Destination.apply() does."""
        results: list[OperationResult] = []
        with self._lock:
            for operation in operations:
                try:
                    results.append(self._carry_out(operation))
                except OSError as error:
                    results.append(OperationFailed(_translated(error)))
                except FlyxError as error:
                    results.append(OperationFailed(error))
                if isinstance(results[-1], OperationFailed):
                    break
        return results

    def _carry_out(self, operation: Operation) -> OperationResult:
        if self._given_up.is_set():
            raise LocalProtocolError(reason="the destination was given up")
        match operation:
            case PlanTree(content=content, algorithms=algorithms):
                self._content, self._file = content, None
                if not self._written:
                    self._hash_with(algorithms[0])
                # Only all entries say which of them is the one.
                return TreePlanned(fresh=False, algorithm=self._algorithm)
            case PlanEntries():
                return self._plan_entries(operation)
            case WriteBlock():
                return self._write(operation)
            case FinishFile(file=file):
                return FileSaved(file, None)
            case DiscardFile(file=file):
                return FileDiscarded(file)
            case RestartFile(file=file):
                if self._written:
                    reason = f"a part of {self._path} is out already, and it has changed at the sender"
                    raise StorageError(action="write to", path=_PLACE, reason=reason)
                return FileRestarted(file)
            case FinishTree():
                if self._file is None:
                    raise NotOneFile()
                return TreeFinished()
            case HashFiles() | SettleFiles():
                raise LocalProtocolError(reason="a file that is in doubt")
        assert_never(operation)

    def _hash_with(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._digest = RunningDigest(algorithm)

    def _plan_entries(self, operation: PlanEntries) -> EntriesPlanned:
        unwanted: list[tuple[int, str]] = []
        found: list[BlocksKept | GoesOn] = []
        for index, entry in enumerate(operation.entries, operation.first):
            if entry.kind is EntryKind.DIRECTORY:
                continue
            wants = self._selection is None or self._selection.wants(entry.path, is_directory=False)
            if not wants or entry.kind is not EntryKind.FILE:
                unwanted.append((index, NOT_WANTED))
                continue
            if self._file is not None:
                raise NotOneFile()
            self._file, self._path, self._size = index, entry.path, entry.size
            if self._written and self._content is Content.STREAM:
                found.append(GoesOn(index, self._written, self._digest.copy()))
            elif self._written:
                found.append(BlocksKept(index, bytes(self._digests)))
        return EntriesPlanned(operation.first + len(operation.entries), tuple(found), tuple(unwanted))

    def _write(self, block: WriteBlock) -> BlockWritten:
        if block.file != self._file or block.offset != self._written:
            raise LocalProtocolError(reason="a block out of sequence")
        try:
            if block.hole:
                data = memoryview(bytes(min(BLOCK_SIZE, self._size - block.offset)))
            else:
                data = self._blocks.gather(block.parts, block.unpacked)
        except ValueError:
            raise CorruptData(path=self._path) from None
        if self._algorithm.digest(data) != block.digest:
            raise CorruptData(path=self._path)
        self._pass_on(data)
        self._written += len(data)
        if self._content is Content.STREAM:
            self._digest.add(block.digest)
        else:
            self._digests += block.digest
        return BlockWritten(block.file, block.offset, len(data), buffered=sum(map(len, block.parts)))

    def _pass_on(self, block: memoryview) -> None:
        """Write a block that has been verified."""
        if self._writer is None:
            self._writer = _Writer(self._descriptor, self._given_up)
        self._writer.write(block)


def _translated(error: OSError) -> FlyxError:
    if error.errno == errno.EPIPE:
        return StorageError(action="write to", path=_PLACE, reason="the program that reads it has gone")
    return storage_error(error, "write to", _PLACE)


class _Writer:
    """Writes to a descriptor, whose mode it leaves as it is: it is shared with other programs.

    No write outlasts the transfer that waits for it, even if the pipe is not read.
    """

    def __init__(self, descriptor: int, given_up: threading.Event) -> None:
        self._given_up = given_up
        self._mode = os.fstat(descriptor).st_mode
        self._is_patient = False
        self._handle = self._open(descriptor)

    def _open(self, descriptor: int) -> int:
        if stat.S_ISFIFO(self._mode):
            # A pipe that is opened anew has a mode of its own, and takes more than a piece at once.
            with suppress(OSError):
                handle = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._is_patient = True
                enlarge_pipe(handle)
                return handle
        return os.dup(descriptor)

    def write(self, data: memoryview) -> None:
        """Write all of it.

        Raises:
            OSError: it cannot be.
            LocalProtocolError: the transfer that waited for it has ended.
        """
        if stat.S_ISREG(self._mode):
            while data:
                data = data[os.write(self._handle, data) :]
            return
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        piece = len(data) if self._is_patient else _PIECE
        while data:
            if self._given_up.is_set():
                raise LocalProtocolError(reason="the destination was given up")
            if poll.poll(_LOOK_INTERVAL * 1000):
                with suppress(BlockingIOError):
                    data = data[os.write(self._handle, data[:piece]) :]

    def close(self) -> None:
        """Close what was opened here."""
        with suppress(OSError):
            os.close(self._handle)
