"""A stream into a directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from flyx.errors import DestinationExists, LocalProtocolError, NoSpace
from flyx.storage.plan import ExistingPolicy, Skip
from flyx.storage.stream import StreamDestination
from flyx.storage.writer import Destination
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import (
    DiscardFile,
    EntriesPlanned,
    FileRefused,
    FinishFile,
    FinishTree,
    GoesOn,
    Operation,
    PlanEntries,
    PlanTree,
    TreeFinished,
)
from flyx.transfer.left_out import IN_THE_WAY, NOT_WANTED
from flyx.transfer.manifest import BLOCK_SIZE, Content, Manifest
from tests.storage.support import (
    Offer,
    failure,
    file_entry,
    mounted,
    names_in,
    saved_paths,
    succeed,
    write_block,
)

ENTRY = file_entry("s.log", mode=0o666)
MANIFEST = Manifest([ENTRY], content=Content.STREAM)
PLAN: list[Operation] = [
    PlanTree(("s.log",), 0, MANIFEST.id, content=Content.STREAM),
    PlanEntries(0, [ENTRY]),
]
END: list[Operation] = [FinishFile(0), FinishTree()]


def blocks_of(*blocks: bytes, at: int = 0) -> list[Operation]:
    operations: list[Operation] = []
    for block in blocks:
        operations.append(write_block(0, at, block))
        at += len(block)
    return operations


def digest_of(*blocks: bytes) -> bytes:
    digest = RunningDigest(Algorithm.SHA256)
    for block in blocks:
        digest.add(Algorithm.SHA256.digest(block))
    return digest.value()


def goes_on(destination: Destination) -> GoesOn | None:
    """What another connection is told."""
    planned = succeed(destination, PLAN)[-1]
    assert isinstance(planned, EntriesPlanned)
    found = planned.found
    assert len(found) <= 1
    assert all(isinstance(one, GoesOn) for one in found)
    return found[0] if found and isinstance(found[0], GoesOn) else None


@pytest.mark.parametrize("blocks", [[], [b"a"], [b"a" * BLOCK_SIZE, b"b", b"c" * 5000]])
def test_a_stream_is_a_file_when_all_of_it_is_there(tmp_path: Path, blocks: Sequence[bytes]) -> None:
    with StreamDestination(tmp_path / "in") as destination:
        succeed(destination, [*PLAN, *blocks_of(*blocks)])
        assert names_in(tmp_path / "in") & {"s.log"} == set()
        outcomes = succeed(destination, END)
        assert saved_paths(outcomes) == [str(tmp_path / "in" / "s.log")]
    assert (tmp_path / "in" / "s.log").read_bytes() == b"".join(blocks)
    assert names_in(tmp_path / "in") == {"s.log"}
    assert not destination.keeps


def test_a_stream_has_the_mode_that_the_umask_lets_it_have(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with StreamDestination(tmp_path) as destination:
            succeed(destination, [*PLAN, *blocks_of(b"x"), *END])
    finally:
        os.umask(before)
    assert (tmp_path / "s.log").stat().st_mode & 0o777 == 0o640


def test_what_there_is_of_a_stream_that_ends_too_early_is_removed(tmp_path: Path) -> None:
    with StreamDestination(tmp_path) as destination:
        succeed(destination, [*PLAN, *blocks_of(b"a" * 5000, b"b")])
        assert names_in(tmp_path)
        # Nothing is recorded: nobody could go on with it.
        assert not [name for name in names_in(tmp_path) if name.endswith("journal")]
    assert not destination.keeps
    assert names_in(tmp_path) == set()


def test_what_there_is_of_a_stream_that_could_not_be_read_is_removed(tmp_path: Path) -> None:
    with StreamDestination(tmp_path) as destination:
        succeed(destination, [*PLAN, *blocks_of(b"a"), DiscardFile(0), FinishTree()])
    assert names_in(tmp_path) == set()


def test_an_unfinished_transfer_of_another_name_is_left_alone(tmp_path: Path) -> None:
    offer = Offer({"other": bytes(2 * BLOCK_SIZE)})
    with Destination(tmp_path) as earlier:
        succeed(earlier, [*offer.plan(), offer.writes("other")[0]])
    kept = names_in(tmp_path)
    assert earlier.keeps
    with StreamDestination(tmp_path) as destination:
        succeed(destination, [*PLAN, *blocks_of(b"x"), *END])
    assert names_in(tmp_path) - {"s.log"} == kept


@pytest.mark.parametrize("parts", [["abc", "", "d"], ["", "abcd"], ["abcd", ""], ["", "", ""]])
def test_a_stream_goes_on_over_another_connection(tmp_path: Path, parts: Sequence[str]) -> None:
    lines: list[bytes] = []
    with StreamDestination(tmp_path) as destination:
        for part in parts:
            found = goes_on(destination)
            if lines:
                assert found is not None
                assert (found.offset, found.digest.value()) == (len(lines), digest_of(*lines))
            else:
                assert found is None
            new = [bytes([one]) for one in part.encode()]
            assert len(destination.apply(blocks_of(*new, at=len(lines)))) == len(new)
            lines += new
        succeed(destination, END)
    assert (tmp_path / "s.log").read_bytes() == "".join(parts).encode()


@pytest.mark.parametrize("blocks", [[], [b"abc", b"d"]])
@pytest.mark.parametrize("finished", [False, True])
def test_the_end_of_a_stream_that_is_saved_can_come_once_more(
    tmp_path: Path, blocks: Sequence[bytes], finished: bool
) -> None:
    """The connection was lost before the sender heard of it."""
    with StreamDestination(tmp_path) as destination:
        first = succeed(destination, [*PLAN, *blocks_of(*blocks), *(END if finished else END[:1])])
        found = goes_on(destination)
        # Of nothing, nothing is told: offset 0 is the beginning.
        assert (found is None) == (not blocks)
        if found:
            assert (found.offset, found.digest.value()) == (4, digest_of(*blocks))
        again = succeed(destination, END)
        assert saved_paths(again) == saved_paths(first)
        assert isinstance(again[-1], TreeFinished)
    assert names_in(tmp_path) == {"s.log"}
    assert (tmp_path / "s.log").read_bytes() == b"".join(blocks)


def test_a_stream_that_has_no_name_in_the_end_does_not_go_on(tmp_path: Path) -> None:
    with StreamDestination(tmp_path) as destination:
        succeed(destination, [*PLAN, *blocks_of(b"abc")])
        (tmp_path / "s.log").write_text("meanwhile")
        assert succeed(destination, END[:1]) == [FileRefused(0, IN_THE_WAY)]
        assert goes_on(destination) is None
    assert (tmp_path / "s.log").read_text() == "meanwhile"
    assert names_in(tmp_path) == {"s.log"}


def test_what_exists_is_not_replaced_unless_wanted(tmp_path: Path) -> None:
    (tmp_path / "s.log").write_text("there")
    with StreamDestination(tmp_path) as destination:
        assert isinstance(failure(destination.apply(PLAN)), DestinationExists)
    assert (tmp_path / "s.log").read_text() == "there"
    for existing, name in ((ExistingPolicy.RENAME, "s (1).log"), (ExistingPolicy.OVERWRITE, "s.log")):
        with StreamDestination(tmp_path, existing) as destination:
            (saved,) = saved_paths(succeed(destination, [*PLAN, *blocks_of(b"new"), *END]))
        assert saved == str(tmp_path / name)
        assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("skip", [Skip.SAME, Skip.CONTENT])
def test_nobody_knows_whether_what_exists_is_the_same(tmp_path: Path, skip: Skip) -> None:
    (tmp_path / "s.log").touch()
    os.utime(tmp_path / "s.log", ns=(0, ENTRY.mtime_us * 1000))
    with StreamDestination(tmp_path, skip=skip) as destination:
        assert isinstance(failure(destination.apply(PLAN)), DestinationExists)


def test_a_person_can_skip_or_rename_when_asked(tmp_path: Path) -> None:
    (tmp_path / "s.log").write_text("there")
    with StreamDestination(tmp_path) as destination:
        destination.apply(PLAN)
        destination.begin_anew(ExistingPolicy.REFUSE, Skip.EXISTING)
        assert succeed(destination, PLAN)[-1] == EntriesPlanned(1, (), ((0, NOT_WANTED),))
    with StreamDestination(tmp_path) as destination:
        destination.apply(PLAN)
        destination.begin_anew(ExistingPolicy.RENAME, Skip.NOTHING)
        succeed(destination, [*PLAN, *blocks_of(b"x"), *END])
    assert (tmp_path / "s (1).log").read_text() == "x"


def test_a_stream_that_fills_the_disk_is_told_as_that(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=8m"):
        with StreamDestination(tmp_path / "small") as destination:
            succeed(destination, PLAN)
            many = [os.urandom(BLOCK_SIZE)] * 9
            error = failure(destination.apply(blocks_of(*many)))
        assert isinstance(error, NoSpace)
        assert "the stream is longer than what was free" in str(error)
        assert names_in(tmp_path / "small") == set()


@pytest.mark.parametrize("block", [write_block(0, 1, b"x"), write_block(0, 0, b"")])
def test_a_block_out_of_sequence_is_a_mistake(tmp_path: Path, block: Operation) -> None:
    with StreamDestination(tmp_path) as destination:
        succeed(destination, [*PLAN, *blocks_of(b"abc")])
        assert isinstance(failure(destination.apply([block])), LocalProtocolError)
