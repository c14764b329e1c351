"""The disk and hashing of this computer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyx.client.bench.machine import HASHES, bench_disk, bench_hash, processors
from flyx.client.bench.measured import Part
from flyx.errors import StorageError
from tests.storage.support import files_no_longer_than

SIZE = 3_000_001


async def test_what_is_written_is_read_back_and_removed(tmp_path: Path) -> None:
    written, read = await bench_disk(tmp_path, SIZE)
    assert [(each.part, each.bytes) for each in (written, read)] == [
        (Part.DISK_WRITE, SIZE),
        (Part.DISK_READ, SIZE),
    ]
    assert written.rate == pytest.approx(SIZE / written.seconds)
    assert not os.listdir(tmp_path)


async def test_of_a_directory_that_is_missing_the_next_one_above_is_measured(tmp_path: Path) -> None:
    written, _ = await bench_disk(tmp_path / "a" / "b", SIZE)
    assert written.bytes == SIZE
    assert not os.listdir(tmp_path)


async def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with files_no_longer_than(1 << 20), pytest.raises(StorageError, match="File too large"):
        await bench_disk(tmp_path, SIZE)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("part", HASHES)
async def test_each_hash_is_measured(part: Part) -> None:
    measured = await bench_hash(part)
    assert measured.part is part
    assert measured.bytes > 0
    assert measured.rate == pytest.approx(measured.bytes / measured.seconds)


def test_a_process_that_is_bound_to_one_processor_has_one() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert processors() == len(allowed)
