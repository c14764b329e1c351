"""The receiver's disk for a stream: a file of unknown size, with which no later run goes on."""

from __future__ import annotations

from collections.abc import Sequence

from flyx.storage.plan import ExistingPolicy, Skip
from flyx.storage.tree import Tree
from flyx.storage.writer import Destination
from flyx.transfer.disk import (
    EntriesPlanned,
    FileSaved,
    FinishFile,
    GoesOn,
    Operation,
    Outcome,
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
        super()._begin(tree, existing, skip)
        self._partials.is_stream = True
        # Set by the first connection: what it came to. And how much there was when it was saved.
        self._planned: tuple[TreePlanned, EntriesPlanned | None] | None = None
        self._whole: GoesOn | None = None
        self._saved_as: FileSaved | None = None

    def _plan_tree(self, operation: PlanTree) -> TreePlanned:
        if self._planned is None:
            self._planned = super()._plan_tree(operation), None
        return self._planned[0]

    def _plan_entries(self, first: int, entries: Sequence[Entry]) -> EntriesPlanned:
        assert self._planned is not None
        tree, planned = self._planned
        if planned is None:
            planned = super()._plan_entries(first, entries)
            self._planned = tree, planned
            return planned
        stream = self._whole or self._partials.goes_on(first)
        return EntriesPlanned(planned.below, (stream,) if stream else (), planned.left_out)

    def _carry_out(self, operation: Operation, position: int) -> Outcome:
        # Over another connection, the end of what is saved already.
        if isinstance(operation, FinishFile) and self._saved_as:
            return self._saved_as
        return super()._carry_out(operation, position)

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        outcomes = super().apply(operations)
        for outcome in outcomes:
            if isinstance(outcome, FileSaved):
                self._saved_as = outcome
        return outcomes

    def _most_bytes(self, entry: Entry) -> int:
        return MAX_FILE_SIZE

    def _size(self, file: int, entry: Entry) -> int:
        self._whole = self._partials.goes_on(file)
        return self._partials.written(file)
