"""Groups of files made durable together."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyx.storage import durability, partial
from flyx.storage.writer import Destination
from flyx.transfer.disk import FinishTree
from tests.storage.support import Offer, descriptors_no_more_than, mounted, succeed


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    """The handles of 64 files."""
    handles = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(64)]
    yield handles
    for handle in handles:
        os.close(handle)


class FakeDisk:
    """Counts what it is asked to keep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, syncfs: bool) -> None:
        self.files: list[int] = []
        self.filesystems: list[int] = []
        monkeypatch.setattr(os, "fsync", self.files.append)
        monkeypatch.setattr(durability, "_syncfs", self.filesystems.append if syncfs else None)


def test_a_few_files_are_synced_one_by_one(monkeypatch: pytest.MonkeyPatch, files: list[int]) -> None:
    disk = FakeDisk(monkeypatch, syncfs=True)
    durability.Durability().sync(files[:3], 3)
    assert (disk.files, disk.filesystems) == (files[:3], [])


def test_a_group_is_synced_at_once(monkeypatch: pytest.MonkeyPatch, files: list[int]) -> None:
    disk = FakeDisk(monkeypatch, syncfs=True)
    asked_for = []

    def handles() -> Iterator[int]:
        for handle in files:
            asked_for.append(handle)
            yield handle

    durability.Durability().sync(handles(), 64)
    assert (disk.files, len(disk.filesystems)) == ([], 1)
    assert asked_for == files


def test_without_syncfs_a_group_is_synced_one_by_one(
    monkeypatch: pytest.MonkeyPatch, files: list[int]
) -> None:
    disk = FakeDisk(monkeypatch, syncfs=False)
    durability.Durability().sync(files, 64)
    assert disk.files == files


def test_what_a_program_serves_is_synced_one_by_one(
    monkeypatch: pytest.MonkeyPatch, files: list[int]
) -> None:
    disk = FakeDisk(monkeypatch, syncfs=True)
    monkeypatch.setattr(durability, "_filesystem_type", lambda handle: durability._FUSE)
    durability.Durability().sync(files, 64)
    assert (disk.files, disk.filesystems) == (files, [])


def test_what_is_on_another_filesystem_is_synced_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[int]
) -> None:
    disk = FakeDisk(monkeypatch, syncfs=True)
    with mounted(tmp_path / "other", "size=1m"):
        other = os.open(tmp_path / "other", os.O_RDONLY)
        durability.Durability().sync([*files, other], 65)
        os.close(other)
    assert (disk.files, len(disk.filesystems)) == ([other], 1)


def test_nothing_to_sync_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FakeDisk(monkeypatch, syncfs=True)
    durability.Durability().sync([], 0)
    assert (disk.files, disk.filesystems) == ([], [])


@pytest.mark.parametrize("release", ["5.7.19-generic", "4.19.0", "unknown"])
def test_kernels_whose_syncfs_hides_errors_are_not_trusted(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    assert durability._find_syncfs() is None


def test_the_systems_syncfs_reports_errors(tmp_path: Path) -> None:
    syncfs = durability._find_syncfs()
    if syncfs is None:
        pytest.skip("this system has no syncfs that reports errors")
    handle = os.open(tmp_path, os.O_RDONLY)
    syncfs(handle)
    os.close(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncfs(handle)


@pytest.mark.parametrize("count", [1, 64])
def test_after_a_failure_nothing_is_synced(
    monkeypatch: pytest.MonkeyPatch, files: list[int], count: int
) -> None:
    disk = FakeDisk(monkeypatch, syncfs=True)
    kept = durability.Durability()
    with monkeypatch.context() as failing:

        def fail(handle: int) -> None:
            raise OSError(28, os.strerror(28))

        failing.setattr(os, "fsync", fail)
        failing.setattr(durability, "_syncfs", fail)
        with pytest.raises(OSError, match="No space left"):
            kept.sync(files[:count], count)
    assert kept.failed
    for again in (1, 64):
        with pytest.raises(OSError, match="failed to store"):
            kept.sync(files[:again], again)
    assert (disk.files, disk.filesystems) == ([], [])


def test_a_handle_that_cannot_be_had_is_no_failed_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDisk(monkeypatch, syncfs=True)
    kept = durability.Durability()

    def handles() -> Iterator[int]:
        yield 3
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        kept.sync(handles(), 2)
    assert not kept.failed


def test_a_group_has_room_among_the_files_that_may_be_open() -> None:
    open_now = len(os.listdir("/dev/fd"))
    assert durability.group_size() == durability.GROUP
    for spare, size in ((41, 20), (11, 5), (1, 1), (1000, durability.GROUP)):
        with descriptors_no_more_than(open_now + spare):
            assert durability.group_size() == size


def test_a_file_that_is_complete_is_synced_once_however_often_there_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "CHECKPOINT_INTERVAL", 0.0)
    synced: Counter[int] = Counter()
    fsync = os.fsync

    def count(handle: int) -> None:
        synced[os.fstat(handle).st_ino] += 1
        fsync(handle)

    monkeypatch.setattr(os, "fsync", count)
    offer = Offer({str(number): b"content" for number in range(5)})
    with Destination(tmp_path / "out") as destination:
        succeed(destination, offer.plan())
        succeed(destination, [*offer.files(), FinishTree()])
    assert [synced[path.stat().st_ino] for path in (tmp_path / "out").iterdir()] == [1] * 5
