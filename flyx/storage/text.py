"""The receiver's disk for a text: memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from flyx.errors import CorruptData, FlyxError, LocalProtocolError, RemoteProtocolError
from flyx.storage.blocks import BlockWriter
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import (
    BlockWritten,
    DiscardFile,
    EntriesPlanned,
    FileDiscarded,
    FileRestarted,
    FileSaved,
    FinishFile,
    FinishTree,
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


class TextDestination:
    """Takes a text, which is one block at most (manifest.Content)."""

    keeps = False
    outlives_connection = False

    def __init__(self) -> None:
        self._data = b""
        self._algorithm = Algorithm.SHA256
        # Set when all of it is here.
        self.text: str | None = None

    def abandon(self) -> None:
        """Do nothing: no work takes long."""

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        """Carry out operations in order, and return what came of each, as Destination.apply() does."""
        results: list[OperationResult] = []
        for operation in operations:
            try:
                results.append(self._carry_out(operation))
            except FlyxError as error:
                results.append(OperationFailed(error))
                break
        return results

    def _carry_out(self, operation: Operation) -> OperationResult:
        match operation:
            case PlanTree(algorithms=algorithms):
                self._algorithm = algorithms[0]
                return TreePlanned(fresh=True, algorithm=self._algorithm)
            case PlanEntries(first=first, entries=entries):
                return EntriesPlanned(first + len(entries))
            case WriteBlock():
                return self._write(operation)
            case FinishFile(file=file):
                try:
                    self.text = self._data.decode()
                except UnicodeDecodeError as error:
                    raise RemoteProtocolError(reason="a text that is no UTF-8") from error
                return FileSaved(file, None)
            case DiscardFile(file=file):
                return FileDiscarded(file)
            case RestartFile(file=file):
                self._data = b""
                return FileRestarted(file)
            case FinishTree():
                return TreeFinished()
            case HashFiles() | SettleFiles():
                raise LocalProtocolError(reason="a text that is in doubt")
        assert_never(operation)

    def _write(self, block: WriteBlock) -> BlockWritten:
        if self._data or block.offset or block.hole:
            raise LocalProtocolError(reason="a text of more than one block")
        try:
            self._data = bytes(BlockWriter().gather(block.parts, block.unpacked))
        except ValueError:
            raise CorruptData(path="the text") from None
        if self._algorithm.digest(self._data) != block.digest:
            raise CorruptData(path="the text")
        return BlockWritten(block.file, block.offset, len(self._data), buffered=sum(map(len, block.parts)))
