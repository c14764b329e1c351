"""Carrying out the operations of a transfer on a real disk."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyx.errors import (
    CorruptData,
    DestinationExists,
    LocalProtocolError,
    NoSpace,
    StorageError,
)
from flyx.storage import durability
from flyx.storage.scan import scan
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer import left_out
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import (
    BlockWritten,
    DiscardFile,
    EntriesPlanned,
    FileDiscarded,
    FileRefused,
    FileSaved,
    FinishFile,
    FinishTree,
    PlanEntries,
    PlanTree,
    TreeFinished,
    TreePlanned,
    WriteBlock,
)
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import (
    MTIME_US,
    Offer,
    directory_entry,
    failure,
    file_entry,
    mounted,
    names_in,
    saved_in,
    saved_paths,
    snapshot,
    succeed,
    transfer,
    write_block,
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    return out


@pytest.fixture
def destination(out: Path) -> Iterator[Destination]:
    with Destination(out) as destination:
        yield destination


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the output directory, where nothing may ever change."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    return outside


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Whole transfers.


def test_a_tree_arrives_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tree = source / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "big").write_bytes(os.urandom(2 * BLOCK_SIZE + 17))
    (tree / "exact").write_bytes(os.urandom(BLOCK_SIZE))
    (tree / "sub" / "zero").touch()
    (tree / "sub" / "日本語 \U0001f468\u200d\U0001f469\u200d\U0001f467 -x").write_bytes(b"name")
    (tree / "sub" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "single").write_bytes(b"1")
    for mode, path in ((0o700, tree / "big"), (0o755, tree / "sub" / "run.sh"), (0o444, tree / "exact")):
        path.chmod(mode)
    for number, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (MTIME_US + number * 1_000_003) * 1000))
    (tree / "sub").chmod(0o555)

    with Destination(tmp_path / "out") as destination:
        saved = transfer(scan([tree, source / "single"]), destination)

    assert snapshot(tmp_path / "out") == snapshot(source)
    assert saved[-1] == str(tmp_path / "out" / "single")


def test_more_files_than_a_group_arrive(tmp_path: Path) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(2 * durability.GROUP + 3):
        (source / f"{number:04}").write_bytes(b"%d" % number)
    with Destination(tmp_path / "out") as destination:
        transfer(scan([source]), destination)
    assert snapshot(tmp_path / "out" / "many") == snapshot(source)


def test_outcomes_answer_operations_one_by_one(out: Path, destination: Destination) -> None:
    offer = Offer({"d": None, "d/f": b"content", "lost": b"x"})
    operations = [*offer.plan(), *offer.writes("d/f"), offer.finish("d/f"), DiscardFile(2), FinishTree()]
    assert destination.apply(operations) == [
        TreePlanned(fresh=True),
        EntriesPlanned(below=3),
        BlockWritten(1, 0, 7, buffered=7),
        FileSaved(1, str(out / "d" / "f")),
        FileDiscarded(2),
        TreeFinished(),
    ]
    assert names_in(out) == {"d", "d/f"}


def test_the_output_directory_is_made_when_the_first_byte_is_written(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    offer = Offer({"f": b"content"})
    with Destination(out) as destination:
        assert succeed(destination, offer.plan())[0] == TreePlanned(fresh=True)
        assert not (tmp_path / "a").exists()
        succeed(destination, [*offer.files(), FinishTree()])
    assert names_in(tmp_path) == {"a", "a/b", "a/b/out", "a/b/out/f"}


def test_the_output_directory_may_be_reached_through_a_link(tmp_path: Path, out: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    offer = Offer({"f": b"content"})
    with Destination(tmp_path / "link") as destination:
        assert saved_paths(succeed(destination, offer.everything())) == [str(tmp_path / "link" / "f")]
    assert names_in(out) == {"f"}


def test_a_relative_output_directory_is_shown_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Destination(Path()) as destination:
        assert saved_paths(succeed(destination, Offer({"f": b"x"}).everything())) == ["f"]


def test_an_empty_transfer_of_directories_needs_no_files(out: Path, destination: Destination) -> None:
    succeed(destination, Offer({"a": None, "a/b": None}).everything())
    assert names_in(out) == {"a", "a/b"}


def test_a_file_that_is_saved_has_no_other_name(out: Path, destination: Destination) -> None:
    succeed(destination, (offer := Offer({"f": b"x", "g": b""})).plan() + offer.files())
    assert list(out.glob(".flyx/*/*.part")) == []
    assert (out / "f").stat().st_nlink == (out / "g").stat().st_nlink == 1


# Blocks.


def test_a_wrong_digest_leaves_nothing(out: Path, destination: Destination) -> None:
    offer = Offer({"f": b"content"})
    bad = WriteBlock(0, 0, [b"CONTENT"], Algorithm.SHA256.digest(b"content"))
    error = failure(destination.apply([*offer.plan(), bad, offer.finish("f")]))
    assert isinstance(error, CorruptData)
    assert error.fields["path"] == str(out / "f")
    destination.abandon()
    assert names_in(out) == set()


def test_nothing_unverified_reaches_the_disk(out: Path, destination: Destination) -> None:
    offer = Offer({"f": b"a" * (BLOCK_SIZE + 1)})
    succeed(destination, [*offer.plan(), offer.writes("f")[0]])
    destination.apply([WriteBlock(0, BLOCK_SIZE, [b"b"], Algorithm.SHA256.digest(b"a"))])
    (partial,) = out.glob(".flyx/*/*.part")
    assert partial.stat().st_size == BLOCK_SIZE


def test_a_block_in_many_pieces_is_written_whole(out: Path, destination: Destination) -> None:
    content = os.urandom(5000)
    parts = [memoryview(content)[i : i + 2] for i in range(0, 5000, 2)]
    offer = Offer({"f": content})
    block = WriteBlock(0, 0, [b"", *parts], Algorithm.SHA256.digest(content))
    succeed(destination, [*offer.plan(), block, offer.finish("f")])
    assert (out / "f").read_bytes() == content


def test_short_writes_are_continued(
    out: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3000)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:700], at))
    offer = Offer({"f": content})
    block = WriteBlock(
        0, 0, [content[:1000], content[1000:1001], content[1001:]], Algorithm.SHA256.digest(content)
    )
    succeed(destination, [*offer.plan(), block, offer.finish("f")])
    assert (out / "f").read_bytes() == content


def test_files_may_take_turns(out: Path, destination: Destination) -> None:
    one, two = os.urandom(BLOCK_SIZE + 1), os.urandom(BLOCK_SIZE + 1)
    offer = Offer({"1": one, "2": two})
    turns = [block for pair in zip(offer.writes("1"), offer.writes("2"), strict=True) for block in pair]
    succeed(destination, [*offer.plan(), *turns, offer.finish("1"), offer.finish("2")])
    assert ((out / "1").read_bytes(), (out / "2").read_bytes()) == (one, two)


def test_an_empty_file_may_come_with_or_without_its_empty_block(out: Path, destination: Destination) -> None:
    offer = Offer({"a": b"", "b": b""})
    succeed(destination, [*offer.plan(), write_block(0, 0, b""), FinishFile(0), FinishFile(1)])
    assert (out / "a").read_bytes() == (out / "b").read_bytes() == b""


@pytest.mark.parametrize(
    "mistake",
    [
        write_block(0, 1, b"x"),
        write_block(0, 0, b"too long"),
        write_block(1, 0, b""),
        write_block(2, 0, b""),
        FinishFile(0),
        FinishFile(1),
        FinishFile(-1),
        PlanEntries(0, []),
        PlanTree((), 0),
    ],
    ids=str,
)
def test_our_own_mistakes_are_reported_and_leave_nothing(
    out: Path, destination: Destination, mistake: WriteBlock | FinishFile | PlanEntries | PlanTree
) -> None:
    succeed(destination, Offer({"f": b"abc", "d": None}).plan())
    assert isinstance(failure(destination.apply([mistake])), LocalProtocolError)
    destination.abandon()
    assert names_in(out) == set()


def test_what_follows_a_failure_is_not_begun(out: Path, destination: Destination) -> None:
    offer = Offer({"a": b"a", "b": b"b", "c": b"c"})
    good = [*offer.plan(), *offer.writes("a"), offer.finish("a")]
    bad = WriteBlock(1, 0, [b"B"], Algorithm.SHA256.digest(b"b"))
    outcomes = destination.apply([*good, bad, *offer.writes("c"), offer.finish("c")])
    assert len(outcomes) == len(good) + 1
    assert saved_paths(outcomes) == [str(out / "a")]
    assert isinstance(failure(outcomes), CorruptData)
    destination.abandon()
    assert saved_in(out) == {"a"}


def test_a_file_that_cannot_be_named_does_not_stop_the_others(out: Path, destination: Destination) -> None:
    offer = Offer({"a": b"a", "b": b"b", "c": b"c"})
    succeed(destination, offer.plan())
    (out / "b").write_bytes(b"mine")
    outcomes = succeed(destination, [*offer.files(), FinishTree()])
    assert [outcome for outcome in outcomes if not isinstance(outcome, BlockWritten)] == [
        FileSaved(0, str(out / "a")),
        FileRefused(1, left_out.IN_THE_WAY),
        FileSaved(2, str(out / "c")),
        TreeFinished(),
    ]
    assert (out / "b").read_bytes() == b"mine"
    assert names_in(out) == {"a", "b", "c"}


def test_a_discarded_file_leaves_nothing_and_may_not_have_been_begun(
    out: Path, destination: Destination
) -> None:
    offer = Offer({"f": b"a" * (BLOCK_SIZE + 1), "g": b"g"})
    outcomes = succeed(
        destination, [*offer.plan(), offer.writes("f")[0], DiscardFile(0), DiscardFile(1), FinishTree()]
    )
    assert outcomes[-3:] == [FileDiscarded(0), FileDiscarded(1), TreeFinished()]
    assert names_in(out) == set()


# Modes and times.


@pytest.mark.parametrize(
    ("mask", "mode", "expected"),
    [
        (0o022, 0o666, 0o644),
        (0o077, 0o755, 0o700),
        (0o002, 0o664, 0o664),
        (0o022, 0o7755, 0o755),  # never set-uid, set-gid or sticky
        (0o022, 0o400, 0o400),
        (0o022, 0, 0),
    ],
)
def test_the_umask_is_honoured_and_special_bits_are_dropped(
    out: Path, destination: Destination, mask: int, mode: int, expected: int
) -> None:
    entries = [directory_entry("d", mode=mode), file_entry("f", mode=mode)]
    with umask(mask):
        succeed(destination, [PlanTree(("d", "f"), 0), PlanEntries(0, entries), FinishFile(1), FinishTree()])
    assert [(out / name).stat().st_mode & 0o7777 for name in "df"] == [expected, expected]


def test_a_partial_file_is_private_while_it_grows(out: Path, destination: Destination) -> None:
    offer = Offer({"f": b"a" * (BLOCK_SIZE + 1)}, mode=0o666)
    succeed(destination, [*offer.plan(), offer.writes("f")[0]])
    (partial,) = out.glob(".flyx/*/*.part")
    assert [path.stat().st_mode & 0o777 for path in (partial, *partial.parents[:2])] == [0o600, 0o700, 0o700]


def test_a_directory_without_an_entry_gets_what_the_umask_gives(out: Path, destination: Destination) -> None:
    with umask(0o027):
        succeed(destination, Offer({"d/e/f": b"x"}).everything())
    assert (out / "d" / "e").stat().st_mode & 0o777 == 0o750


def test_a_directory_listed_after_what_is_in_it_gets_its_mode(out: Path, destination: Destination) -> None:
    entries = [file_entry("d/f"), directory_entry("d", mode=0o500)]
    succeed(destination, [PlanTree(("d",), 0), PlanEntries(0, entries), FinishFile(0), FinishTree()])
    assert (out / "d").stat().st_mode & 0o777 == 0o500


def test_setgid_is_inherited_from_the_directory_above_and_only_from_there(
    out: Path, destination: Destination
) -> None:
    out.chmod(0o2755)
    succeed(destination, Offer({"d": None}).everything())
    assert (out / "d").stat().st_mode & 0o7777 == 0o2755


@pytest.mark.parametrize("mtime_us", [-(10**15), -(10**30), 10**30, 0, -1])
def test_times_beyond_every_clock_are_no_failure(out: Path, destination: Destination, mtime_us: int) -> None:
    entries = [directory_entry("d", mtime_us=mtime_us), file_entry("d/f", mtime_us=mtime_us)]
    succeed(destination, [PlanTree(("d",), 0), PlanEntries(0, entries), FinishFile(1), FinishTree()])
    if abs(mtime_us) < 10**10:
        assert (out / "d" / "f").stat().st_mtime_ns == (out / "d").stat().st_mtime_ns == mtime_us * 1000


def test_a_filesystem_without_modes_is_no_failure(
    out: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fchmod(handle: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", fchmod)
    succeed(destination, Offer({"f": b"x"}, mode=0o444).everything())
    assert (out / "f").read_bytes() == b"x"


# Giving up.


def test_giving_up_keeps_what_was_saved_and_shows_nothing_else(out: Path) -> None:
    offer = Offer({"d": None, "d/done": b"done", "d/begun": b"a" * (BLOCK_SIZE + 1), "e": None})
    begun = offer.writes("d/begun")[0]
    destination = Destination(out)
    succeed(destination, [*offer.plan(), *offer.writes("d/done"), offer.finish("d/done"), begun])
    destination.abandon()
    destination.abandon()
    assert saved_in(out) == {"d", "d/done"}


def test_giving_up_what_was_not_verified_removes_the_directories_made_for_it(tmp_path: Path) -> None:
    offer = Offer({"f": b"a" * (BLOCK_SIZE + 1)})
    destination = Destination(tmp_path / "a" / "out")
    bad = WriteBlock(0, 0, [b"bad"], Algorithm.SHA256.digest(b"good"))
    assert isinstance(failure(destination.apply([*offer.plan(), bad])), CorruptData)
    destination.abandon()
    assert names_in(tmp_path) == set()


def test_giving_up_before_the_start_touches_nothing(tmp_path: Path) -> None:
    Destination(tmp_path / "out").abandon()
    assert names_in(tmp_path) == set()


def test_nothing_is_done_after_giving_up(out: Path, destination: Destination) -> None:
    offer = Offer({"f": b"x"})
    succeed(destination, offer.plan())
    destination.abandon()
    assert isinstance(failure(destination.apply(offer.files())), LocalProtocolError)
    assert names_in(out) == set()


def test_giving_up_waits_for_the_batch_under_way(
    out: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = Offer({"f": b"x"})
    given_up = threading.Thread(target=destination.abandon)
    fsync = os.fsync

    def fsync_while_someone_gives_up(handle: int) -> None:
        if not given_up.ident:
            given_up.start()
        assert given_up.is_alive()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync_while_someone_gives_up)
    assert saved_paths(succeed(destination, [*offer.plan(), *offer.files()])) == [str(out / "f")]
    given_up.join()
    assert saved_in(out) == {"f"}


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/dev/fd"))
    offer = Offer({"d": None, "d/f": b"x", "d/g": b"a" * (BLOCK_SIZE + 1)})
    with Destination(tmp_path / "out") as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/f"), offer.finish("d/f")])
        succeed(destination, offer.writes("d/g")[:1])
        failure(destination.apply([offer.finish("d/g")]))
    assert sorted(os.listdir("/dev/fd")) == before


def test_another_transfer_into_the_same_directory_is_left_alone(out: Path) -> None:
    ours, theirs = Offer({"ours": b"a" * (BLOCK_SIZE + 1)}), Offer({"theirs": b"b" * (BLOCK_SIZE + 1)})
    other = Destination(out)
    succeed(other, [*theirs.plan(), theirs.writes("theirs")[0]])
    with Destination(out) as destination:
        succeed(destination, [*ours.plan(), *ours.files(), FinishTree()])
    assert saved_in(out) == {"ours"}
    assert len(list(out.glob(".flyx/*/*.part"))) == 1
    succeed(other, [theirs.writes("theirs")[1], theirs.finish("theirs"), FinishTree()])
    assert names_in(out) == {"ours", "theirs"}
    other.abandon()


# Links in the way.


def test_a_link_among_the_parents_is_refused_when_it_is_planned(
    out: Path, outside: Path, destination: Destination
) -> None:
    (out / "d").mkdir()
    (out / "d" / "link").symlink_to(outside)
    before = snapshot(outside)
    error = failure(destination.apply(Offer({"d": None, "d/link/f": b"x"}).plan()))
    assert isinstance(error, DestinationExists)
    assert error.fields["path"] == str(out / "d" / "link")
    assert snapshot(outside) == before


@pytest.mark.parametrize("existing", ExistingPolicy)
def test_a_link_put_in_place_of_a_parent_during_the_transfer_is_not_followed(
    out: Path, outside: Path, existing: ExistingPolicy
) -> None:
    offer = Offer({"d": None, "d/one": b"1", "d/secret": b"overwritten"})
    before = snapshot(outside)
    with Destination(out, existing) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/one"), offer.finish("d/one")])
        (out / "d").rename(out / "moved")
        (out / "d").symlink_to(outside)
        outcomes = destination.apply([*offer.writes("d/secret"), offer.finish("d/secret")])
    assert outcomes[-1] == FileRefused(2, left_out.IN_THE_WAY)
    assert snapshot(outside) == before
    assert saved_in(out) == {"d", "moved", "moved/one"}


def test_a_link_put_in_place_of_a_directory_keeps_its_target_as_it_was(
    out: Path, outside: Path, destination: Destination
) -> None:
    offer = Offer({"d": None, "d/f": b"1"})
    before = snapshot(outside.parent, times=False)["outside"]
    succeed(destination, [*offer.plan(), *offer.files()])
    (out / "d").rename(out / "moved")
    (out / "d").symlink_to(outside)
    assert destination.apply([FinishTree()]) == [TreeFinished(((0, left_out.IN_THE_WAY),))]
    assert snapshot(outside.parent, times=False)["outside"] == before


@pytest.mark.parametrize("in_place", ["link", "file"])
def test_a_state_directory_that_is_none_is_refused(
    out: Path, outside: Path, destination: Destination, in_place: str
) -> None:
    if in_place == "link":
        (out / ".flyx").symlink_to(outside)
    else:
        (out / ".flyx").touch()
    before = snapshot(outside)
    error = failure(destination.apply(Offer({"f": b"x"}).everything()))
    assert isinstance(error, StorageError)
    assert ".flyx" in str(error)
    assert snapshot(outside) == before


# What the disk says.


def test_a_full_disk_is_found_out_before_anything_is_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m"), Destination(disk / "out") as destination:
        error = failure(destination.apply([PlanTree(("f",), 2_500_000)]))
        assert isinstance(error, NoSpace)
        assert str(error) == f"Not enough space in {disk / 'out'}: 2.50 MB needed, 1.05 MB free."
        assert names_in(disk) == set()


def test_a_disk_that_fills_up_meanwhile_is_a_clear_error_and_keeps_what_was_saved(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    offer = Offer({"done": b"done", "f": b"a" * 900_000})
    with mounted(disk, "size=1m"):
        with Destination(disk) as destination:
            succeed(destination, [*offer.plan(), *offer.writes("done"), offer.finish("done")])
            (disk / "other").write_bytes(b"x" * 800_000)
            error = failure(destination.apply(offer.writes("f")))
            assert isinstance(error, NoSpace)
            assert "900 kB needed" in str(error)
        assert saved_in(disk) == {"done", "other"}


def test_a_disk_that_has_room_again_takes_the_same_block(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    offer = Offer({"f": os.urandom(900_000)})
    with mounted(disk, "size=1m"), Destination(disk) as destination:
        succeed(destination, offer.plan())
        (disk / "other").write_bytes(b"x" * 800_000)
        failure(destination.apply(offer.writes("f")))
        (disk / "other").unlink()
        succeed(destination, [*offer.files(), FinishTree()])
        assert (disk / "f").read_bytes() == offer.contents["f"]


def test_a_read_only_disk_is_found_out_before_anything_is_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        error = failure(Destination(disk).apply([PlanTree(("f",), 1)]))
    assert isinstance(error, StorageError)
    assert str(error) == f"Cannot write to {disk}: the filesystem is read-only"


def test_a_quota_is_named_as_such(
    out: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def refuse(handle: int, data: bytes, offset: int) -> int:
        if data == b"x":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return pwrite(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    error = failure(destination.apply(Offer({"f": b"x"}).everything()))
    assert isinstance(error, NoSpace)
    assert "quota" in str(error)


def test_a_disk_that_cannot_keep_a_file_saves_none_of_its_group(
    out: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    offer = Offer({"a": b"a", "b": b"b"})
    outcomes = destination.apply(offer.everything())
    assert str(failure(outcomes)) == f"Cannot save {out / 'a'}: Input/output error"
    assert saved_paths(outcomes) == []
    destination.abandon()
    assert names_in(out) == set()


@pytest.mark.parametrize("output", ["file", "file/below", "dangling"])
def test_an_output_that_is_no_directory_is_a_clear_error(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with Destination(tmp_path / output) as destination:
        error = failure(destination.apply(Offer({"f": b"x"}).everything()))
    assert isinstance(error, StorageError)
    assert names_in(tmp_path) == {"file", "dangling"}


def test_the_manifest_of_what_was_saved_is_that_of_what_was_sent(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_bytes(b"content")
    found = scan([source])
    with Destination(tmp_path / "out") as destination:
        transfer(found, destination)
    assert scan([tmp_path / "out" / "tree"]).manifest.id == found.manifest.id


def test_directories_that_are_made_take_little_memory(out: Path) -> None:
    count = 3_000
    offer = Offer({"d": None, **{f"d/a directory with a usual name, {n}": None for n in range(count)}})
    with Destination(out) as destination:
        succeed(destination, offer.plan())
        tracemalloc.start()
        try:
            succeed(destination, [FinishTree()])
            assert tracemalloc.get_traced_memory()[1] < 500 * count
        finally:
            tracemalloc.stop()
