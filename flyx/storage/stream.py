"""The receiver's disk for a stream: a file of unknown size, with which no later run goes on."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from flyx.storage.plan import ExistingPolicy, Skip
from flyx.storage.tree import Tree
from flyx.storage.writer import Destination
from flyx.transfer.disk import (
    EntriesPlanned,
    FileSaved,
    FinishFile,
    GoesOn,
    Operation,
    OperationResult,
    PlanEntries,
    PlanTree,
    TreePlanned,
)
from flyx.transfer.manifest import MAX_FILE_SIZE, Entry


class StreamDestination(Destination):
    """Writes a stream into a directory.

    What there is of it is known in this process alone, so this outlives the connection: the next one goes on
    where the last block ended.
    """

    outlives_connection = True

    def _begin(self, tree: Tree, existing: ExistingPolicy, skip: Skip) -> None:
        # Nobody knows whether what is there is the same.
        super()._begin(tree, existing, skip if skip is Skip.EXISTING else Skip.NOTHING)
        self._partials.is_stream = True
        # What planning came to, over the first connection.
        self._tree_planned: TreePlanned | None = None
        self._entries_planned: EntriesPlanned | None = None
        # How much there was when it was saved, and what that came to.
        self._whole: GoesOn | None = None
        self._saved_as: FileSaved | None = None

    def _carry_out(self, operation: Operation, position: int) -> OperationResult:
        match operation:
            case PlanTree() if self._tree_planned:
                return self._tree_planned
            case PlanEntries(first=first) if self._entries_planned:
                stream = self._whole or self._partials.goes_on(first)
                return replace(self._entries_planned, found=(stream,) if stream else ())
            case FinishFile() if self._saved_as:
                # Over another connection, the end of what is saved already.
                return self._saved_as
        result = super()._carry_out(operation, position)
        match result:
            case TreePlanned():
                self._tree_planned = result
            case EntriesPlanned():
                self._entries_planned = result
        return result

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        results = super().apply(operations)
        # A name is known at the end of a batch.
        self._saved_as = next((one for one in results if isinstance(one, FileSaved)), self._saved_as)
        return results

    @property
    def _missing_bytes(self) -> None:
        return None

    def _discard(self, file: int) -> None:
        # A connection that comes later does not go on with it.
        self._whole = None
        super()._discard(file)

    def _most_bytes(self, entry: Entry) -> int:
        return MAX_FILE_SIZE

    def _size(self, file: int, entry: Entry) -> int:
        self._whole = self._partials.goes_on(file)
        return self._partials.written(file)
