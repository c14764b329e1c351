"""Links, made of what is there in the end: what an earlier run has left, and what has happened meanwhile."""

from __future__ import annotations

from pathlib import Path

from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import (
    EntriesPlanned,
    FinishFile,
    FinishTree,
    Kept,
    Operation,
    PlanEntries,
    PlanTree,
    TreeFinished,
)
from flyx.transfer.manifest import Entry, EntryKind, Manifest
from tests.storage.support import MTIME_US, directory_entry, file_entry, succeed, write_block

CONTENT = b"content"
ENTRIES = [
    directory_entry("d"),
    file_entry("d/file", len(CONTENT)),
    Entry("d/hard", EntryKind.HARD_LINK, 0, 0, MTIME_US, same_as=1),
    Entry("d/soft", EntryKind.SYMBOLIC_LINK, 0, 0, MTIME_US, target="file"),
]
FILE: list[Operation] = [write_block(1, 0, CONTENT), FinishFile(1)]


def plan(destination: Destination, entries: list[Entry] = ENTRIES) -> EntriesPlanned:
    manifest = Manifest(entries)
    tree = PlanTree(manifest.roots, manifest.total_bytes, manifest.id)
    planned = succeed(destination, [tree, PlanEntries(0, entries)])[-1]
    assert isinstance(planned, EntriesPlanned)
    return planned


def finish(destination: Destination) -> tuple[tuple[int, str], ...]:
    finished = succeed(destination, [FinishTree()])[-1]
    assert isinstance(finished, TreeFinished)
    return finished.left_out


def test_a_file_that_an_earlier_run_saved_under_another_name_is_what_gets_the_second_name(
    tmp_path: Path,
) -> None:
    entries = [file_entry("file", len(CONTENT)), Entry("hard", EntryKind.HARD_LINK, 0, 0, 0, same_as=0)]
    content: list[Operation] = [write_block(0, 0, CONTENT), FinishFile(0)]
    with Destination(tmp_path, ExistingPolicy.RENAME) as destination:
        plan(destination, entries)
        # The person makes one, after we have looked.
        (tmp_path / "file").write_bytes(b"mine")
        succeed(destination, content)
    with Destination(tmp_path, ExistingPolicy.RENAME) as destination:
        assert [type(one) for one in plan(destination, entries).found] == [Kept]
        assert finish(destination) == ()
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert (tmp_path / "file").stat().st_nlink == 1
    assert (tmp_path / "hard").read_bytes() == CONTENT
