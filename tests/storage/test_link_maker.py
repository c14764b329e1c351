"""Links, made of what is there in the end: what an earlier run has left, and what has happened meanwhile."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flyx.errors import DestinationExists
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
from tests.storage.test_refusals import refuse

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


def receive(out: Path, existing: ExistingPolicy = ExistingPolicy.REFUSE) -> tuple[tuple[int, str], ...]:
    """Receive what has not been kept; return what is left out in the end."""
    with Destination(out, existing) as destination:
        kept = plan(destination).found
        if not kept:
            succeed(destination, FILE)
        return finish(destination)


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


@pytest.mark.parametrize("mode", [0o644, 0o200, 0])
@pytest.mark.parametrize("existing", [ExistingPolicy.REFUSE, ExistingPolicy.OVERWRITE])
def test_a_filesystem_without_hard_links_has_a_copy_also_when_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: ExistingPolicy, mode: int
) -> None:
    refuse(monkeypatch, "link", errno.EPERM)
    with monkeypatch.context() as patch:
        # The disk fills up while directories are given their times.
        refuse(patch, "utime", errno.ENOSPC, lambda *args, **kwargs: os.path.isdir(args[0]))
        with Destination(tmp_path, existing) as destination:
            plan(destination)
            succeed(destination, FILE)
            destination.apply([FinishTree()])
    assert (tmp_path / "d" / "hard").read_bytes() == CONTENT
    assert receive(tmp_path, existing) == ()
    assert (tmp_path / "d" / "hard").read_bytes() == CONTENT
    assert (tmp_path / "d" / "hard").stat().st_mtime_ns == MTIME_US * 1000


def test_files_that_are_replaced_have_their_other_names_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert receive(tmp_path, ExistingPolicy.OVERWRITE) == ()
        assert (tmp_path / "d" / "file").stat().st_nlink == 2
        assert (tmp_path / "d" / "file").samefile(tmp_path / "d" / "hard")


def test_another_file_of_the_same_size_and_time_is_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "link", errno.EPERM)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "hard").write_bytes(b"CONTENT")
    os.utime(tmp_path / "d" / "hard", ns=(0, MTIME_US * 1000))
    with Destination(tmp_path) as destination, pytest.raises(DestinationExists, match="hard"):
        plan(destination)
    assert (tmp_path / "d" / "hard").read_bytes() == b"CONTENT"
