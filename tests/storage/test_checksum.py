"""Files that are there, and are taken for those that are offered if their content is the same."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from flyx.errors import DestinationExists, NoSpace
from flyx.storage.reader import SourceReader
from flyx.storage.scan import scan
from flyx.storage.writer import Destination, ExistingPolicy, Skip
from flyx.transfer import left_out
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import (
    BlockRead,
    BlockRequest,
    EntriesPlanned,
    FilesHashed,
    FilesSettled,
    FinishTree,
    HashFiles,
    Operation,
    OperationFailed,
    PlanEntries,
    PlanTree,
    SettleFiles,
)
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind
from tests.simulator import digests_of
from tests.storage.support import MTIME_US, Offer, failure, file_entry, names_in, succeed

OVERWRITE, REFUSE = ExistingPolicy.OVERWRITE, ExistingPolicy.REFUSE
LARGE = os.urandom(2 * BLOCK_SIZE + 17)
CONTENTS: dict[str, bytes | None] = {"d": None, "d/a": b"aa", "d/b": b"bbb", "d/empty": b"", "d/large": LARGE}
A, B, EMPTY, LARGEST = range(1, 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output directory where all of CONTENTS is, with the times of today."""
    out = tmp_path / "out"
    for path, content in CONTENTS.items():
        if content is not None:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(content)
    return out


def comparing(out: Path, existing: ExistingPolicy = REFUSE) -> Destination:
    return Destination(out, existing, skip=Skip.CONTENT)


def planned_by(destination: Destination, operations: list[Operation]) -> EntriesPlanned:
    planned = succeed(destination, operations)[-1]
    assert isinstance(planned, EntriesPlanned)
    return planned


def digest_of(content: bytes) -> bytes:
    return Algorithm.SHA256.digest(digests_of(content))


def test_a_file_of_the_same_size_is_in_doubt_whatever_its_time(out: Path) -> None:
    os.utime(out / "d" / "a", ns=(0, MTIME_US * 1000))
    with comparing(out) as destination:
        planned = planned_by(destination, Offer(CONTENTS).plan())
    assert planned.in_doubt == (A, B, LARGEST)
    # Two empty files have the same content.
    assert planned.left_out == ((EMPTY, left_out.ALREADY_HERE),)


def test_what_is_here_is_hashed_as_the_sender_hashes_it(out: Path) -> None:
    offered = scan([out / "d"])
    reader = SourceReader(offered)
    with comparing(out) as destination:
        manifest = offered.manifest
        plan = PlanTree(manifest.roots, manifest.total_bytes)
        planned = planned_by(destination, [plan, PlanEntries(0, manifest.entries)])
        (hashed,) = succeed(destination, [HashFiles(planned.in_doubt)])
    assert isinstance(hashed, FilesHashed)
    for file, ours in zip(planned.in_doubt, hashed.digests, strict=True):
        size = manifest.entries[file].size
        theirs = RunningDigest(Algorithm.SHA256)
        for at in range(0, size, BLOCK_SIZE):
            (block,) = reader.read([BlockRequest(file, at, min(BLOCK_SIZE, size - at))])
            assert isinstance(block, BlockRead)
            theirs.add(block.digest)
        assert ours == theirs.value()
    reader.close()


def test_holes_hash_as_zeros(out: Path) -> None:
    content = bytes(3 * BLOCK_SIZE) + b"end"
    with (out / "d" / "sparse").open("wb") as file:
        file.seek(3 * BLOCK_SIZE)
        file.write(b"end")
    with comparing(out) as destination:
        planned_by(destination, Offer({"d": None, "d/sparse": content}).plan())
        assert succeed(destination, [HashFiles([1])]) == [FilesHashed((digest_of(content),))]


def test_what_is_the_same_is_left_out_and_what_differs_is_in_the_way(out: Path) -> None:
    with comparing(out) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        settled = succeed(destination, [SettleFiles({A, B, LARGEST})])
    assert settled == [FilesSettled(tuple((file, left_out.ALREADY_HERE) for file in (A, B, LARGEST)))]
    with comparing(out) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        error = failure(destination.apply([SettleFiles({B})]))
    assert isinstance(error, DestinationExists)
    assert "a and 1 more already exist" in str(error)


def test_what_differs_is_replaced_where_that_is_allowed(out: Path) -> None:
    (out / "d" / "a").write_bytes(b"AA")
    offer = Offer(CONTENTS)
    with comparing(out, OVERWRITE) as destination:
        planned_by(destination, offer.plan())
        succeed(destination, [SettleFiles({B, LARGEST})])
        succeed(destination, [*offer.writes("d/a"), offer.finish("d/a"), FinishTree()])
    assert (out / "d" / "a").read_bytes() == b"aa"
    assert (out / "d" / "b").stat().st_mtime_ns != MTIME_US * 1000
    assert names_in(out) == set(CONTENTS)


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_what_is_no_file_is_never_in_doubt(out: Path, kind: str) -> None:
    path = out / "d" / "a"
    path.rename(out / "moved")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("../moved")
    else:
        path.mkdir()
    with comparing(out) as destination:
        assert isinstance(failure(destination.apply(Offer(CONTENTS).plan())), DestinationExists)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "link", "nothing", "shorter", "longer", "file above"])
def test_what_a_file_has_become_since_it_was_planned_is_not_the_same(out: Path, kind: str) -> None:
    path = out / "d" / "a"
    with comparing(out) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to("b")
        elif kind == "shorter":
            path.write_bytes(b"a")
        elif kind == "longer":
            path.write_bytes(b"aaa")
        elif kind == "file above":
            (out / "d").rename(out / "e")
            (out / "d").write_bytes(b"x")
        (hashed,) = succeed(destination, [HashFiles([A])])
    assert hashed == FilesHashed((None,))


def test_a_file_that_cannot_be_read_is_not_the_same_and_others_are_hashed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (out / "d" / "a").stat().st_ino
    preadv = os.preadv

    def fail(handle: int, buffers: list[memoryview], offset: int) -> int:
        if os.fstat(handle).st_ino == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with comparing(out) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        assert succeed(destination, [HashFiles([A, B])]) == [FilesHashed((None, digest_of(b"bbb")))]


def test_a_file_that_changes_while_it_is_hashed_is_not_the_same(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Algorithm.digest

    def write_and_hash(algorithm: Algorithm, block: memoryview) -> bytes:
        with (out / "d" / "large").open("r+b") as file:
            file.write(b"changed")
        return digest(algorithm, block)

    monkeypatch.setattr(Algorithm, "digest", write_and_hash)
    os.utime(out / "d" / "large", ns=(0, 0))
    with comparing(out) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        assert succeed(destination, [HashFiles([LARGEST])]) == [FilesHashed((None,))]


def test_hashing_ends_after_a_block_when_nobody_waits_for_it(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    hashed = 0
    digest = Algorithm.digest

    def count(algorithm: Algorithm, block: memoryview) -> bytes:
        nonlocal hashed
        hashed += 1
        begun.set()
        assert go_on.wait(10)
        return digest(algorithm, block)

    monkeypatch.setattr(Algorithm, "digest", count)
    destination = comparing(out)
    planned_by(destination, Offer(CONTENTS).plan())
    outcomes: list[object] = []
    work = threading.Thread(target=lambda: outcomes.extend(destination.apply([HashFiles([LARGEST, A])])))
    work.start()
    assert begun.wait(10)
    end = threading.Thread(target=destination.abandon)
    end.start()
    while not destination._given_up.is_set():
        pass
    go_on.set()
    end.join(10)
    work.join(10)
    assert hashed == 1
    assert isinstance(outcomes[-1], OperationFailed)


def test_what_is_the_same_needs_no_space_and_what_differs_does(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyx.storage.plan.free_space", lambda _: 4)
    with comparing(out, OVERWRITE) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        succeed(destination, [SettleFiles({B, LARGEST})])
    with comparing(out, OVERWRITE) as destination:
        planned_by(destination, Offer(CONTENTS).plan())
        assert isinstance(failure(destination.apply([SettleFiles({LARGEST})])), NoSpace)


def test_links_to_files_that_are_the_same_are_made(out: Path) -> None:
    entries = [
        file_entry("d/a", 2),
        Entry("d/hard", EntryKind.HARD_LINK, 0, 0, MTIME_US, same_as=0),
        Entry("d/soft", EntryKind.SYMBOLIC_LINK, 0, 0, MTIME_US, target="a"),
    ]
    with comparing(out) as destination:
        planned = planned_by(destination, [PlanTree(("d",), 2), PlanEntries(0, entries)])
        assert planned == EntriesPlanned(3, in_doubt=(0,))
        succeed(destination, [SettleFiles({0}), FinishTree()])
    assert os.path.samefile(out / "d" / "hard", out / "d" / "a")
    assert os.readlink(out / "d" / "soft") == "a"


def test_what_was_refused_after_a_comparison_can_be_planned_anew(out: Path) -> None:
    (out / "d" / "a").write_bytes(b"AA")
    offer = Offer(CONTENTS)
    with comparing(out) as destination:
        planned_by(destination, offer.plan())
        assert isinstance(failure(destination.apply([SettleFiles({B, LARGEST})])), DestinationExists)
        destination.begin_anew(OVERWRITE, Skip.CONTENT)
        assert planned_by(destination, offer.plan()).in_doubt == (A, B, LARGEST)
        succeed(destination, [SettleFiles({B, LARGEST})])
        succeed(destination, [*offer.writes("d/a"), offer.finish("d/a"), FinishTree()])
    assert (out / "d" / "a").read_bytes() == b"aa"


def test_a_part_of_a_file_that_is_the_same_is_removed_in_the_end(tmp_path: Path) -> None:
    offer = Offer({"d": None, "d/large": LARGE, "d/new": b"new"})
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/large")[:1]])
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(LARGE)
    with comparing(tmp_path) as destination:
        planned = planned_by(destination, offer.plan())
        assert planned.in_doubt == (1,)
        assert [found.file for found in planned.found] == [1]
        succeed(destination, [SettleFiles({1})])
        succeed(destination, [*offer.writes("d/new"), offer.finish("d/new"), FinishTree()])
    assert names_in(tmp_path) == {"d", "d/large", "d/new"}
