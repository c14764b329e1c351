"""Other filesystems mounted below the output directory: what goes there is copied, by the same rules."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyx.errors import NoSpace
from flyx.storage import durability
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import BlocksKept, EntriesPlanned, FileRefused, FinishTree, Kept
from flyx.transfer.left_out import IN_THE_WAY
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import MTIME_US, Offer, failure, mounted, names_in, saved_in, succeed

BIG = os.urandom(BLOCK_SIZE) + bytes(2 * BLOCK_SIZE) + os.urandom(100)
OFFER = Offer({"a": b"here", "d": None, "d/big": BIG, "d/small": b"small"}, mode=0o640)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output directory with another filesystem in `d`."""
    (tmp_path / "out").mkdir()
    with mounted(tmp_path / "out" / "d", "size=8m"):
        yield tmp_path / "out"


@pytest.fixture(params=["O_TMPFILE", "a name"])
def _nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files that have no name, and where there are none."""
    if request.param == "a name":
        true_open = os.open

        def open_file(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return true_open(name, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", open_file)


@pytest.mark.usefixtures("_nameless")
@pytest.mark.parametrize("existing", ExistingPolicy)
def test_files_for_another_mount_arrive_there(out: Path, existing: ExistingPolicy) -> None:
    with Destination(out, existing) as destination:
        succeed(destination, OFFER.everything())
    there = out / ("d (1)" if existing is ExistingPolicy.RENAME else "d")
    assert (there / "big").read_bytes() == BIG
    assert (there / "small").read_bytes() == b"small"
    status = (there / "big").stat()
    assert status.st_mode & 0o777 == 0o640
    assert status.st_mtime_ns == MTIME_US * 1000
    if there == out / "d":
        # Blocks of zeros have become holes.
        assert status.st_blocks * 512 < 2 * BLOCK_SIZE
    assert len(names_in(out)) == 4 + (existing is ExistingPolicy.RENAME)


@pytest.mark.usefixtures("_nameless")
def test_nothing_on_another_mount_is_replaced_unasked(out: Path) -> None:
    with Destination(out) as destination:
        succeed(destination, [*OFFER.plan(), *OFFER.writes("d/big")])
        (out / "d" / "big").write_bytes(b"mine")
        assert destination.apply([OFFER.finish("d/big")]) == [FileRefused(2, IN_THE_WAY)]
    assert (out / "d" / "big").read_bytes() == b"mine"
    assert os.listdir(out / "d") == ["big"]


@pytest.mark.usefixtures("_nameless")
def test_a_file_on_another_mount_is_replaced_if_asked(out: Path) -> None:
    (out / "d" / "big").write_bytes(b"mine")
    with Destination(out, ExistingPolicy.OVERWRITE) as destination:
        succeed(destination, OFFER.everything())
    assert (out / "d" / "big").read_bytes() == BIG


@pytest.mark.usefixtures("_nameless")
def test_a_full_mount_keeps_what_arrived_and_nothing_of_ours_stays_there(out: Path) -> None:
    (out / "d" / "filler").write_bytes(bytes(7 * BLOCK_SIZE))
    with Destination(out) as destination:
        error = failure(destination.apply(OFFER.everything()))
    assert isinstance(error, NoSpace)
    assert str(error).startswith(f"Not enough space in {out / 'd'}: ")
    assert os.listdir(out / "d") == ["filler"]
    (out / "d" / "filler").unlink()
    with Destination(out) as destination:
        planned = succeed(destination, OFFER.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        # All is here, and only waits for its name.
        assert [type(one) for one in planned.found] == [Kept, BlocksKept, BlocksKept]
        succeed(destination, [OFFER.finish("d/big"), OFFER.finish("d/small"), FinishTree()])
    assert (out / "d" / "big").read_bytes() == BIG
    assert saved_in(out) == names_in(out)


@pytest.mark.usefixtures("_nameless")
def test_what_was_saved_on_another_mount_is_known_again(out: Path) -> None:
    with Destination(out) as destination:
        succeed(destination, [*OFFER.plan(), *OFFER.writes("d/big"), OFFER.finish("d/big")])
    with Destination(out) as destination:
        planned = succeed(destination, OFFER.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert [type(one) for one in planned.found] == [Kept]


@pytest.mark.usefixtures("_nameless")
def test_a_file_whose_mode_forbids_to_read_it_is_copied(out: Path) -> None:
    offer = Offer({"d": None, "d/f": b"secret"}, mode=0o200)
    with Destination(out) as destination:
        succeed(destination, offer.everything())
    assert (out / "d" / "f").read_bytes() == b"secret"
    assert (out / "d" / "f").stat().st_mode & 0o777 == 0o200


def test_names_on_each_mount_are_made_durable(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A syncfs is for one filesystem."""
    synced: set[int] = set()
    true_fsync = os.fsync

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        true_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(durability, "_syncfs", lambda handle: synced.add(os.fstat(handle).st_dev))
    offer = Offer({"d": None} | {f"{number}/{name}": b"x" for number in ("d", *range(20)) for name in "ab"})
    with Destination(out) as destination:
        succeed(destination, offer.everything())
    assert {out.stat().st_dev, (out / "d").stat().st_ino} <= synced
