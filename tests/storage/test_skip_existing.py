"""Files that are there already, and are taken for those that are offered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyx.errors import DestinationExists, NoSpace
from flyx.storage.scan import scan
from flyx.storage.writer import Destination, ExistingPolicy, Skip
from flyx.transfer import left_out
from flyx.transfer.disk import EntriesPlanned, FinishFile, FinishTree, Operation, PlanEntries, PlanTree
from flyx.transfer.manifest import Entry, EntryKind
from tests.storage.support import MTIME_US, Offer, failure, file_entry, names_in, succeed, transfer

OVERWRITE, REFUSE = ExistingPolicy.OVERWRITE, ExistingPolicy.REFUSE
CONTENTS: dict[str, bytes | None] = {"d": None, "d/a": b"aa", "d/b": b"bbb", "d/sub": None, "d/sub/c": b""}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output directory where the whole of CONTENTS was received before."""
    out = tmp_path / "out"
    with Destination(out) as destination:
        succeed(destination, Offer(CONTENTS).everything())
    return out


def left_out_of(
    out: Path, existing: ExistingPolicy = REFUSE, contents: dict[str, bytes | None] = CONTENTS
) -> dict[str, str]:
    offer = Offer(contents)
    with Destination(out, existing, skip=Skip.SAME) as destination:
        planned = succeed(destination, offer.plan())[-1]
    assert isinstance(planned, EntriesPlanned)
    return {offer.entries[index].path: code for index, code in planned.left_out}


def test_what_is_there_with_the_same_size_and_time_is_left_out(out: Path) -> None:
    assert left_out_of(out) == dict.fromkeys(["d/a", "d/b", "d/sub/c"], left_out.ALREADY_HERE)


def test_only_what_was_added_is_received(out: Path) -> None:
    offer = Offer(CONTENTS | {"d/new": b"new"})
    with Destination(out, skip=Skip.SAME) as destination:
        succeed(destination, offer.plan())
        succeed(destination, [*offer.writes("d/new"), offer.finish("d/new"), FinishTree()])
    assert names_in(out) == {*CONTENTS, "d/new"}
    assert (out / "d" / "new").read_bytes() == b"new"


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_differs_is_in_the_way_unless_it_may_be_replaced(out: Path, change: str) -> None:
    path = out / "d" / "a"
    if change == "size":
        path.write_bytes(b"longer")
        os.utime(path, ns=(0, MTIME_US * 1000))
    else:
        os.utime(path, ns=(0, MTIME_US * 1000 + 1_000_000))
    with pytest.raises(DestinationExists, match="a already exists"):
        left_out_of(out)
    assert set(left_out_of(out, OVERWRITE)) == {"d/b", "d/sub/c"}


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_is_no_file_is_not_taken_for_one(out: Path, kind: str) -> None:
    path = out / "d" / "a"
    path.rename(out / "moved")
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("../moved")
    with pytest.raises(DestinationExists):
        left_out_of(out)


@pytest.mark.parametrize(
    ("seconds", "is_same"), [(0, True), (1.2, True), (-1.8, True), (2.1, False), (-3, False)]
)
def test_a_time_without_parts_of_a_second_may_have_been_rounded(
    tmp_path: Path, seconds: float, is_same: bool
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    os.utime(tmp_path / "f", (0, 1_600_000_000))
    entry = file_entry("f", 1, mtime_us=1_600_000_000_000_000 + round(seconds * 1_000_000))
    with Destination(tmp_path, OVERWRITE, skip=Skip.SAME) as destination:
        planned = succeed(destination, [PlanTree(("f",), 1), PlanEntries(0, [entry])])[-1]
    assert planned == EntriesPlanned(1, (), ((0, left_out.ALREADY_HERE),) if is_same else ())


def test_what_is_there_needs_no_space(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyx.storage.plan.free_space", lambda _: 3)
    new = CONTENTS | {"d/new": b"new"}
    assert len(left_out_of(out, contents=new)) == 3
    with Destination(out, skip=Skip.SAME) as destination:
        assert isinstance(failure(destination.apply(Offer(new | {"d/more": b"x"}).plan())), NoSpace)


def test_links_to_files_that_are_there_are_made(tmp_path: Path, out: Path) -> None:
    entries = [
        file_entry("d/a", 2),
        Entry("d/hard", EntryKind.HARD_LINK, 0, 0, MTIME_US, same_as=0),
        Entry("d/soft", EntryKind.SYMBOLIC_LINK, 0, 0, MTIME_US, target="a"),
    ]
    for _ in range(2):
        with Destination(out, skip=Skip.SAME) as destination:
            planned = succeed(destination, [PlanTree(("d",), 2), PlanEntries(0, entries)])[-1]
            assert isinstance(planned, EntriesPlanned)
            assert (0, left_out.ALREADY_HERE) in planned.left_out
            succeed(destination, [FinishTree()])
        assert os.path.samefile(out / "d" / "hard", out / "d" / "a")
        assert os.readlink(out / "d" / "soft") == "a"


def test_a_copy_in_the_place_of_a_hard_link_is_taken_for_it(out: Path) -> None:
    # As where the filesystem has no hard links.
    (out / "d" / "hard").write_bytes(b"aa")
    os.utime(out / "d" / "hard", ns=(0, MTIME_US * 1000))
    entries = [file_entry("d/a", 2), Entry("d/hard", EntryKind.HARD_LINK, 0, 0, MTIME_US, same_as=0)]
    with Destination(out, skip=Skip.SAME) as destination:
        planned = succeed(destination, [PlanTree(("d",), 2), PlanEntries(0, entries)])[-1]
        assert planned == EntriesPlanned(2, (), ((0, left_out.ALREADY_HERE),))
        succeed(destination, [FinishTree()])
    assert not os.path.samefile(out / "d" / "hard", out / "d" / "a")


def test_a_hard_link_to_a_file_that_is_received_now_replaces_nothing_unasked(out: Path) -> None:
    entries = [file_entry("d/new", 0), Entry("d/a", EntryKind.HARD_LINK, 0, 0, MTIME_US, same_as=0)]
    operations: list[Operation] = [PlanTree(("d",), 0), PlanEntries(0, entries)]
    with Destination(out, skip=Skip.SAME) as destination:
        assert isinstance(failure(destination.apply(operations)), DestinationExists)
    with Destination(out, OVERWRITE, skip=Skip.SAME) as destination:
        succeed(destination, [*operations, FinishFile(0), FinishTree()])
    assert os.path.samefile(out / "d" / "new", out / "d" / "a")


def test_a_tree_that_was_received_is_there_when_it_is_received_again(tree: Path, tmp_path: Path) -> None:
    (tree / "hard").hardlink_to(tree / "a.txt")
    (tree / "soft").symlink_to("sub/deep")
    os.utime(tree / "b.txt", ns=(0, -(10**18) - 1))
    transfer(scan([tree]), Destination(tmp_path / "in"))
    before = sorted(names_in(tmp_path / "in"))
    with Destination(tmp_path / "in", skip=Skip.SAME) as destination:
        assert transfer(scan([tree]), destination) == []
    assert sorted(names_in(tmp_path / "in")) == before


def test_what_exists_can_be_skipped_whatever_it_is(out: Path) -> None:
    (out / "d" / "a").write_bytes(b"mine")
    (out / "d" / "b").unlink()
    (out / "d" / "b").symlink_to("nowhere")
    offer = Offer(CONTENTS | {"d/new": b"new"})
    with Destination(out, skip=Skip.EXISTING) as destination:
        planned = succeed(destination, offer.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert planned.left_out == (
            (1, left_out.NOT_WANTED),
            (2, left_out.NOT_WANTED),
            (4, left_out.ALREADY_HERE),
        )
        succeed(destination, [*offer.writes("d/new"), offer.finish("d/new"), FinishTree()])
    assert (out / "d" / "a").read_bytes() == b"mine"
    assert os.readlink(out / "d" / "b") == "nowhere"
    assert (out / "d" / "new").read_bytes() == b"new"


def test_a_directory_in_the_place_of_a_file_is_never_skipped(out: Path) -> None:
    (out / "d" / "a").unlink()
    (out / "d" / "a").mkdir()
    with Destination(out, skip=Skip.EXISTING) as destination:
        assert isinstance(failure(destination.apply(Offer(CONTENTS).plan())), DestinationExists)


@pytest.mark.parametrize("existing", [OVERWRITE, ExistingPolicy.RENAME])
def test_what_was_refused_can_be_planned_anew(out: Path, existing: ExistingPolicy) -> None:
    (out / "d" / "a").write_bytes(b"mine")
    offer = Offer(CONTENTS)
    with Destination(out) as destination:
        assert isinstance(failure(destination.apply(offer.plan())), DestinationExists)
        destination.begin_anew(existing, Skip.NOTHING)
        succeed(destination, offer.everything())
    name = "d" if existing is OVERWRITE else "d (1)"
    assert (out / name / "a").read_bytes() == b"aa"
    assert existing is OVERWRITE or (out / "d" / "a").read_bytes() == b"mine"
    assert not list(out.glob(".flyx*"))


def test_an_unfinished_transfer_goes_on_when_it_is_planned_anew(tmp_path: Path) -> None:
    offer = Offer({"d": None, "d/a": b"aa", "d/b": b"bbb"})
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/a"), offer.finish("d/a")])
    (tmp_path / "d" / "b").write_bytes(b"mine")
    with Destination(tmp_path) as destination:
        assert isinstance(failure(destination.apply(offer.plan())), DestinationExists)
        destination.begin_anew(OVERWRITE, Skip.NOTHING)
        planned = succeed(destination, offer.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert [found.file for found in planned.found] == [1]
        succeed(destination, [*offer.writes("d/b"), offer.finish("d/b"), FinishTree()])
    assert (tmp_path / "d" / "b").read_bytes() == b"bbb"
