"""What is there already: found when a transfer is planned, or when it appears meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyx.errors import (
    DestinationExists,
    FlyxError,
    LocalProtocolError,
    RemoteProtocolError,
    StorageError,
    UnsafeName,
)
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer import left_out
from flyx.transfer.disk import (
    FileRefused,
    FinishTree,
    Operation,
    OperationResult,
    PlanEntries,
    PlanTree,
    TreeFinished,
    TreePlanned,
)
from tests.storage.support import (
    Offer,
    directory_entry,
    failure,
    file_entry,
    names_in,
    saved_paths,
    snapshot,
    succeed,
)

REFUSE, OVERWRITE, RENAME = ExistingPolicy


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    return out


def receive(out: Path, contents: dict[str, bytes | None], existing: ExistingPolicy) -> list[OperationResult]:
    with Destination(out, existing) as destination:
        return succeed(destination, Offer(contents).everything())


def refusal(out: Path, contents: dict[str, bytes | None], existing: ExistingPolicy) -> FlyxError:
    """The error that a plan ends with; nothing may have changed."""
    before = snapshot(out)
    with Destination(out, existing) as destination:
        error = failure(destination.apply(Offer(contents).plan()))
    assert snapshot(out) == before
    assert isinstance(error, FlyxError)
    return error


# Fresh or not.


@pytest.mark.parametrize("existing", ExistingPolicy)
def test_a_tree_is_fresh_when_none_of_its_roots_is_there(out: Path, existing: ExistingPolicy) -> None:
    (out / "other").touch()
    plan = PlanTree(("a", "b"), 0)
    assert Destination(out, existing).apply([plan]) == [TreePlanned(fresh=True)]
    (out / "b").mkdir()
    renamed = existing is RENAME
    assert Destination(out, existing).apply([plan]) == [TreePlanned(fresh=renamed)]


def test_a_dangling_link_counts_as_something_there(out: Path) -> None:
    (out / "a").symlink_to("nowhere")
    assert Destination(out).apply([PlanTree(("a",), 0)]) == [TreePlanned(fresh=False)]


@pytest.mark.parametrize("root", ["..", "a/b", "/a", "", "a\0b"])
def test_a_root_that_is_no_name_is_refused(out: Path, root: str) -> None:
    assert isinstance(failure(Destination(out).apply([PlanTree((root,), 0)])), UnsafeName)


def test_a_directory_that_may_not_be_written_is_found_out_at_once(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so the system's answer is played.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    error = failure(Destination(out / "new" / "dir").apply([PlanTree(("a",), 0)]))
    assert isinstance(error, StorageError)
    assert str(error) == f"Cannot write to {out}: permission denied"
    assert error.hint == "choose another directory with -o"


def test_a_file_in_the_place_of_the_directory_is_told_with_what_to_do(out: Path) -> None:
    (out / "file").write_bytes(b"")
    for place in (out / "file", out / "file" / "below"):
        error = failure(Destination(place).apply([PlanTree(("a",), 0)]))
        assert str(error) == f"Cannot write to {place}: {out / 'file'} is not a directory"
        assert error.hint == "choose another directory with -o"


# Hostile manifests.


def test_a_refusal_of_an_entry_is_final(out: Path) -> None:
    destination = Destination(out)
    operations = [PlanTree(("a",), 0), PlanEntries(0, [file_entry("a/f")])]
    succeed(destination, operations)
    assert isinstance(failure(destination.apply([PlanEntries(1, [file_entry("a/..")])])), UnsafeName)
    for first in (0, 1, 2):
        error = failure(destination.apply([PlanEntries(first, [file_entry("a/g")])]))
        assert isinstance(error, LocalProtocolError)


def test_entries_below_a_root_that_was_not_announced_are_refused(out: Path) -> None:
    operations: list[Operation] = [PlanTree(("a",), 0), PlanEntries(0, [file_entry("b")])]
    assert isinstance(failure(Destination(out).apply(operations)), RemoteProtocolError)


def test_more_bytes_than_the_free_space_was_checked_for_are_refused(out: Path) -> None:
    operations: list[Operation] = [
        PlanTree(("a", "b"), 10),
        PlanEntries(0, [file_entry("a", 6), file_entry("b", 6)]),
    ]
    assert isinstance(failure(Destination(out).apply(operations)), RemoteProtocolError)


def test_names_are_judged_across_pieces_of_the_manifest(out: Path) -> None:
    operations: list[Operation] = [
        PlanTree(("a",), 0),
        PlanEntries(0, [file_entry("a/f")]),
        PlanEntries(1, [file_entry("a/f")]),
    ]
    assert isinstance(failure(Destination(out).apply(operations)), UnsafeName)


# What is there when the transfer is planned.


def test_refuse_names_the_first_file_in_the_way_and_counts_the_others(out: Path) -> None:
    for name in ("a", "b", "c"):
        (out / name).write_bytes(b"mine")
    error = refusal(out, {"x": b"", "b": b"", "a": b"", "c": b""}, REFUSE)
    assert isinstance(error, DestinationExists)
    assert str(error) == f"{out / 'b'} and 2 more already exist."
    assert str(refusal(out, {"c": b""}, REFUSE)) == f"{out / 'c'} already exists."


@pytest.mark.parametrize("existing", [REFUSE, OVERWRITE])
def test_directories_are_merged_and_keep_their_modes_and_times(out: Path, existing: ExistingPolicy) -> None:
    (out / "d").mkdir(mode=0o711)
    (out / "d" / "mine").write_bytes(b"mine")
    mode = (out / "d").stat().st_mode
    receive(out, {"d": None, "d/e": None, "d/e/f": b"new"}, existing)
    assert names_in(out) == {"d", "d/mine", "d/e", "d/e/f"}
    assert (out / "d").stat().st_mode == mode


def test_overwrite_replaces_files(out: Path) -> None:
    (out / "d").mkdir()
    (out / "d" / "f").write_bytes(b"old and longer")
    receive(out, {"d": None, "d/f": b"new"}, OVERWRITE)
    assert (out / "d" / "f").read_bytes() == b"new"


def test_overwrite_keeps_the_old_file_until_the_new_one_is_complete(out: Path) -> None:
    (out / "f").write_bytes(b"old")
    offer = Offer({"f": b"new"})
    with Destination(out, OVERWRITE) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("f")])
        assert (out / "f").read_bytes() == b"old"
    assert (out / "f").read_bytes() == b"old"


def test_overwrite_replaces_a_link_and_not_what_it_points_to(tmp_path: Path, out: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (out / "f").symlink_to(tmp_path / "target")
    receive(out, {"f": b"new"}, OVERWRITE)
    assert not (out / "f").is_symlink()
    assert ((out / "f").read_bytes(), (tmp_path / "target").read_bytes()) == (b"new", b"target")


@pytest.mark.parametrize("existing", [REFUSE, OVERWRITE])
@pytest.mark.parametrize("contents", [{"d": b"file"}, {"f": None}, {"f/below": b""}, {"link": None}])
def test_a_file_and_a_directory_never_replace_each_other(
    out: Path, contents: dict[str, bytes | None], existing: ExistingPolicy
) -> None:
    (out / "d").mkdir()
    (out / "f").touch()
    (out / "link").symlink_to("d")
    error = refusal(out, contents, existing)
    assert isinstance(error, DestinationExists)
    assert "--overwrite" not in (error.hint or "")


def test_rename_keeps_both_and_a_tree_together(out: Path) -> None:
    (out / "photos").mkdir()
    (out / "photos" / "a").write_bytes(b"mine")
    (out / "notes.tar.gz").touch()
    (out / "v1.2").symlink_to("nowhere")
    outcomes = receive(
        out,
        {
            "photos": None,
            "photos/a": b"1",
            "photos/sub/b": b"2",
            "notes.tar.gz": b"3",
            "v1.2/x": b"4",
            "new": b"",
        },
        RENAME,
    )
    assert [Path(path).relative_to(out).as_posix() for path in saved_paths(outcomes)] == [
        "photos (1)/a",
        "photos (1)/sub/b",
        "notes (1).tar.gz",
        "v1.2 (1)/x",
        "new",
    ]
    assert (out / "photos" / "a").read_bytes() == b"mine"


def test_rename_avoids_names_that_are_there_and_names_of_other_roots(out: Path) -> None:
    for name in ("f", "f (1)"):
        (out / name).touch()
    outcomes = receive(out, {"F (2)": b"", "f": b"", "f (1)": b""}, RENAME)
    assert [Path(path).name for path in saved_paths(outcomes)] == ["F (2)", "f (3)", "f (1) (1)"]


# What appears between the plan and the end.


def appearing(
    out: Path, contents: dict[str, bytes | None], existing: ExistingPolicy, appear: str
) -> list[OperationResult]:
    """Plan and write everything; then a file appears; then finish."""
    offer = Offer(contents)
    with Destination(out, existing) as destination:
        for path in contents:
            succeed(
                destination, [*(offer.plan() if path == next(iter(contents)) else []), *offer.writes(path)]
            )
        (out / appear).parent.mkdir(exist_ok=True)
        (out / appear).write_bytes(b"mine")
        finish = [offer.finish(path) for path, content in contents.items() if content is not None]
        return destination.apply([*finish, FinishTree()])


@pytest.mark.parametrize("contents", [{"f": b"new"}, {"f": b""}])
def test_refuse_keeps_a_file_that_appeared(out: Path, contents: dict[str, bytes | None]) -> None:
    outcomes = appearing(out, contents, REFUSE, "f")
    assert FileRefused(0, left_out.IN_THE_WAY) in outcomes
    assert (out / "f").read_bytes() == b"mine"
    assert names_in(out) == set(contents)


def test_overwrite_replaces_a_file_that_appeared(out: Path) -> None:
    appearing(out, {"f": b"new"}, OVERWRITE, "f")
    assert {name: (out / name).read_bytes() for name in names_in(out)} == {"f": b"new"}


def test_rename_takes_the_next_number_when_a_file_appeared(out: Path) -> None:
    outcomes = appearing(out, {"f.txt": b"new"}, RENAME, "f.txt")
    assert saved_paths(outcomes) == [str(out / "f (1).txt")]
    assert (out / "f.txt").read_bytes() == b"mine"


def test_rename_does_not_pour_a_tree_into_a_directory_that_appeared(out: Path) -> None:
    outcomes = appearing(out, {"d": None, "d/f": b"new", "d/g": b"g"}, RENAME, "d/f")
    assert saved_paths(outcomes) == [str(out / "d (1)" / "f"), str(out / "d (1)" / "g")]
    assert names_in(out) == {"d", "d/f", "d (1)", "d (1)/f", "d (1)/g"}


@pytest.mark.parametrize("existing", [REFUSE, OVERWRITE])
def test_a_directory_that_appeared_is_never_replaced(out: Path, existing: ExistingPolicy) -> None:
    offer = Offer({"f": b"new"})
    with Destination(out, existing) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("f")])
        (out / "f").mkdir()
        assert destination.apply([offer.finish("f")]) == [FileRefused(0, left_out.IN_THE_WAY)]
    assert (out / "f").is_dir()


@pytest.mark.parametrize("existing", [REFUSE, OVERWRITE])
def test_a_file_that_appeared_where_a_directory_must_be_is_kept(out: Path, existing: ExistingPolicy) -> None:
    outcomes = appearing(out, {"d": None}, existing, "d")
    assert outcomes[-1] == TreeFinished(((0, left_out.IN_THE_WAY),))
    assert (out / "d").read_bytes() == b"mine"


def test_a_directory_removed_during_the_transfer_is_made_again(out: Path) -> None:
    offer = Offer({"d": None, "d/f": b"1", "d/g": b"2"})
    with Destination(out) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/f"), offer.finish("d/f")])
        (out / "d" / "f").unlink()
        (out / "d").rmdir()
        succeed(destination, [*offer.writes("d/g"), offer.finish("d/g"), FinishTree()])
    assert names_in(out) == {"d", "d/g"}


def test_an_entry_for_each_part_of_a_deep_path_is_not_needed(out: Path) -> None:
    path = "/".join("abcdefgh")
    assert saved_paths(receive(out, {path: b"deep"}, REFUSE)) == [str(out / path)]


def test_directories_are_planned_in_any_order(out: Path) -> None:
    entries = [directory_entry("a/b/c"), directory_entry("a"), directory_entry("a/b")]
    with Destination(out) as destination:
        succeed(destination, [PlanTree(("a",), 0), PlanEntries(0, entries), FinishTree()])
    assert names_in(out) == {"a", "a/b", "a/b/c"}
