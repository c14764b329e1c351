"""A receiver that wants a part of what is offered."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from flyx.errors import DestinationExists, NoSpace
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer import left_out
from flyx.transfer.disk import EntriesPlanned, FinishFile, FinishTree, OperationResult, PlanEntries, PlanTree
from flyx.transfer.manifest import Entry, EntryKind
from flyx.transfer.names import NamePolicy
from flyx.transfer.selection import Selection
from tests.storage.support import (
    MTIME_US,
    Offer,
    directory_entry,
    failure,
    file_entry,
    names_in,
    saved_paths,
    succeed,
)

CONTENTS: dict[str, bytes | None] = {
    "t": None,
    "t/a.jpg": b"a",
    "t/a.raw": b"raw",
    "t/deep": None,
    "t/deep/b.jpg": b"b",
    "t/deep/none": None,
    "t/empty": None,
    "other.raw": b"raw",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    return out


def receive(
    out: Path,
    *texts: str,
    existing: ExistingPolicy = ExistingPolicy.REFUSE,
    contents: dict[str, bytes | None],
) -> list[OperationResult]:
    """Receive what is wanted, as the machines would; return the outcomes."""
    offer = Offer(contents)
    with Destination(out, existing, selection=Selection(texts)) as destination:
        outcomes = succeed(destination, offer.plan())
        planned = outcomes[-1]
        assert isinstance(planned, EntriesPlanned)
        absent = {index for index, _ in planned.left_out}
        for index, (path, content) in enumerate(contents.items()):
            if content is not None and index not in absent:
                outcomes += succeed(destination, [*offer.writes(path), offer.finish(path)])
        return outcomes + succeed(destination, [FinishTree()])


def left_out_of(outcomes: list[OperationResult]) -> dict[int, str]:
    return {i: code for each in outcomes if isinstance(each, EntriesPlanned) for i, code in each.left_out}


def test_only_what_is_wanted_is_there_with_the_directories_above(out: Path) -> None:
    outcomes = receive(out, "*.jpg", contents=CONTENTS)
    assert names_in(out) == {"t", "t/a.jpg", "t/deep", "t/deep/b.jpg"}
    assert left_out_of(outcomes) == {2: left_out.NOT_WANTED, 7: left_out.NOT_WANTED}
    # As if all had been wanted.
    assert (out / "t" / "deep").stat().st_mtime_ns == MTIME_US * 1000
    assert stat.S_IMODE((out / "t").stat().st_mode) == 0o755


def test_a_directory_that_is_wanted_is_made_empty_as_it_may_be(out: Path) -> None:
    receive(out, "empty", contents=CONTENTS)
    assert names_in(out) == {"t", "t/empty"}


def test_what_is_not_wanted_is_not_in_the_way(out: Path) -> None:
    (out / "other.raw").write_text("mine")
    (out / "t").mkdir()
    (out / "t" / "empty").write_text("mine")
    receive(out, "*.jpg", contents=CONTENTS)
    assert (out / "t" / "empty").read_text() == "mine"
    assert (out / "other.raw").read_text() == "mine"
    (out / "t" / "a.jpg").unlink()
    with pytest.raises(DestinationExists, match=r"b\.jpg already exists"):
        receive(out, "*.jpg", contents=CONTENTS)


def test_a_file_where_a_directory_above_has_to_be_is_in_the_way(out: Path) -> None:
    (out / "t").mkdir()
    (out / "t" / "deep").write_text("mine")
    with pytest.raises(DestinationExists, match="deep already exists"):
        receive(out, "*.jpg", contents=CONTENTS)


def test_a_tree_of_which_a_part_is_wanted_is_renamed_as_a_whole(out: Path) -> None:
    (out / "t").mkdir()
    outcomes = receive(out, "b.jpg", existing=ExistingPolicy.RENAME, contents=CONTENTS)
    assert saved_paths(outcomes) == [str(out / "t (1)" / "deep" / "b.jpg")]
    assert names_in(out) == {"t", "t (1)", "t (1)/deep", "t (1)/deep/b.jpg"}


def test_names_that_cannot_be_had_are_no_failure_if_nothing_wants_them(out: Path) -> None:
    contents: dict[str, bytes | None] = {
        "t": None,
        "t/a\x1b.raw": b"x",
        "t/d\x1b": None,
        "t/d\x1b/b.jpg": b"b",
    }
    outcomes = receive(out, "t/*.jpg", "t/*.raw", contents=contents)
    assert left_out_of(outcomes) == {1: left_out.CONTROLS, 3: left_out.NOT_WANTED}
    outcomes = receive(out, "b.jpg", contents=contents)
    # What is wanted cannot be had for the directory that it is in.
    assert left_out_of(outcomes) == {1: left_out.NOT_WANTED, 3: left_out.ABOVE}
    assert names_in(out) == set()


def test_a_wanted_link_to_a_file_that_is_not_is_told(out: Path) -> None:
    entries = [file_entry("a", 1), Entry("b", EntryKind.HARD_LINK, 0, 0, MTIME_US, same_as=0)]
    with Destination(out, selection=Selection(["b"])) as destination:
        planned = succeed(destination, [PlanTree(("a", "b"), 1), PlanEntries(0, entries)])[-1]
    assert planned == EntriesPlanned(2, (), ((0, left_out.NOT_WANTED), (1, left_out.NO_FILE)))


def test_only_what_is_wanted_needs_space(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyx.storage.plan.free_space", lambda _: 2)
    receive(out, "*.jpg", contents=CONTENTS)
    with Destination(out / "new", selection=Selection(["*.raw"])) as destination:
        error = failure(destination.apply(Offer(CONTENTS).plan()))
    assert isinstance(error, NoSpace)
    assert "6 bytes" in str(error)


def test_a_name_that_is_made_safe_is_wanted_by_the_name_that_it_had(out: Path) -> None:
    offer = Offer({"t": None, "t/a\x1b.raw": b"x", "t/b": b"y"})
    with Destination(out, names=NamePolicy.SAFE, selection=Selection(["*.raw"])) as destination:
        path = "t/a\x1b.raw"
        succeed(destination, [*offer.plan(), *offer.writes(path), offer.finish(path), FinishTree()])
    assert names_in(out) == {"t", "t/a_.raw"}


def test_directories_come_in_any_order(out: Path) -> None:
    entries = [directory_entry("a/b"), file_entry("a/b/c"), directory_entry("a"), directory_entry("d")]
    with Destination(out, selection=Selection(["c"])) as destination:
        succeed(destination, [PlanTree(("a", "d"), 0), PlanEntries(0, entries), FinishFile(1), FinishTree()])
    assert names_in(out) == {"a", "a/b", "a/b/c"}
    assert (out / "a").stat().st_mtime_ns == MTIME_US * 1000
