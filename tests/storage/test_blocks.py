"""Blocks on the disk, through the page cache and past it."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyx.errors import LocalProtocolError
from flyx.storage.blocks import LARGE, BlockWriter
from flyx.transfer.manifest import BLOCK_SIZE


@contextmanager
def new_file(directory: Path) -> Iterator[int]:
    path = directory / f"block-{os.getpid()}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        yield handle
    finally:
        os.close(handle)
        path.unlink()


def is_cached(handle: int, offset: int) -> bool:
    """Whether a page can be read without the disk."""
    try:
        return os.preadv(handle, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        # Where there is no disk, as in tmpfs, there is nothing to wait for.
        if error.errno != errno.EOPNOTSUPP:
            raise
        return True


def put(writer: BlockWriter, handle: int, start: int, parts: Sequence[bytes | memoryview], size: int) -> None:
    block = writer.gather(parts)
    assert block == b"".join(parts)
    writer.write(handle, start, block, size)


def cut(block: bytes, places: list[int]) -> list[memoryview]:
    edges = [0, *sorted(places), len(block)]
    return [memoryview(block)[begin:end] for begin, end in pairwise(edges)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.integers(0, BLOCK_SIZE), max_size=6),
    first=st.integers(0, 3),
    size=st.sampled_from([LARGE - 1, LARGE]),
    last=st.integers(1, BLOCK_SIZE),
)
def test_blocks_are_written_alike_past_the_cache_and_through_it(
    tmp_path: Path, places: list[int], first: int, size: int, last: int
) -> None:
    block = os.urandom(BLOCK_SIZE)
    writer = BlockWriter()
    with new_file(tmp_path) as handle:
        start = first * BLOCK_SIZE
        for number in range(2):
            at = start + number * BLOCK_SIZE
            put(writer, handle, at, cut(block, places), size)
        # A last block is seldom whole.
        end = start + 2 * BLOCK_SIZE
        put(writer, handle, end, [block[:last]], size)
        assert os.pread(handle, 4 * BLOCK_SIZE, start) == block + block + block[:last]
        assert os.fstat(handle).st_size == end + last


def test_whole_blocks_of_large_files_alone_stay_out_of_the_cache(tmp_path: Path) -> None:
    writer = BlockWriter()
    block = os.urandom(BLOCK_SIZE)
    with new_file(tmp_path) as handle:
        # To try these past the cache would fail, as they begin in the middle of a page, and would be the end
        # of all trying.
        put(writer, handle, 1, [block], LARGE - 1)
        put(writer, handle, 1, [block[:-1]], LARGE)
        put(writer, handle, 2 * BLOCK_SIZE, [block], LARGE)
        if is_cached(handle, 2 * BLOCK_SIZE):
            pytest.skip("this filesystem keeps all that it has in memory")


def test_a_block_of_nothing_writes_nothing(tmp_path: Path) -> None:
    with new_file(tmp_path) as handle:
        put(BlockWriter(), handle, 0, [], 0)
        put(BlockWriter(), handle, 0, [b"", memoryview(b"")], LARGE)
        assert os.fstat(handle).st_size == 0


def test_more_than_a_block_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        BlockWriter().gather([bytes(BLOCK_SIZE), b"x"])


def test_a_place_that_no_block_can_go_to_directly_gets_it_through_the_cache(tmp_path: Path) -> None:
    """As in a filesystem that cannot write past it: the kernel refuses both with EINVAL."""
    block = os.urandom(BLOCK_SIZE)
    writer = BlockWriter()
    with new_file(tmp_path) as handle:
        put(writer, handle, 1, [block], LARGE)
        put(writer, handle, 2 * BLOCK_SIZE, [block], LARGE)
        assert os.pread(handle, BLOCK_SIZE, 1) == os.pread(handle, BLOCK_SIZE, 2 * BLOCK_SIZE) == block


@pytest.mark.parametrize("size", [LARGE, LARGE - 1])
def test_a_block_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path, size: int) -> None:
    limit = BLOCK_SIZE + BLOCK_SIZE // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = BlockWriter()
    block = os.urandom(BLOCK_SIZE)
    with new_file(tmp_path) as handle:
        put(writer, handle, 0, [block], size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                put(writer, handle, BLOCK_SIZE, [block], size)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert os.fstat(handle).st_size == BLOCK_SIZE
        assert os.pread(handle, 2 * BLOCK_SIZE, 0) == block
