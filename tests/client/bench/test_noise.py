"""A stream of noise: it ends by its size or its time, and then says something."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flyx.client.bench.noise import SHORT_BLOCK, SHORT_BLOCKS, Amount, Noise
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import BlockRead, BlockRequest, StreamEnded
from flyx.transfer.manifest import BLOCK_SIZE

LAST = b"that was all"


async def read_all(amount: Amount) -> tuple[list[bytes], bytes]:
    """All blocks of a stream, and the digest at its end."""
    blocks: list[bytes] = []
    with ThreadPoolExecutor(1) as disk:
        noise = Noise(amount, disk, lambda: LAST)
        while True:
            request = BlockRequest(0, sum(map(len, blocks)), BLOCK_SIZE, Algorithm.BLAKE3)
            (answer,) = await noise.read(1, [request])
            if isinstance(answer, StreamEnded):
                return blocks, answer.digest
            assert isinstance(answer, BlockRead)
            assert answer.digest == Algorithm.BLAKE3.digest(answer.data)
            blocks.append(answer.data)


@pytest.mark.parametrize(
    "size", [1, SHORT_BLOCK, SHORT_BLOCK + 1, SHORT_BLOCKS * SHORT_BLOCK + BLOCK_SIZE + 1]
)
async def test_noise_is_as_long_as_it_should_be_and_its_last_block_says_something(size: int) -> None:
    blocks, digest = await read_all(Amount(3600.0, size))
    assert (sum(map(len, blocks[:-1])), blocks[-1]) == (size, LAST)
    running = RunningDigest(Algorithm.BLAKE3)
    for block in blocks:
        running.add(Algorithm.BLAKE3.digest(block))
    assert digest == running.value()


async def test_noise_ends_when_its_time_is_over() -> None:
    assert (await read_all(Amount(0.0, 1 << 40)))[0] == [LAST]


async def test_the_first_blocks_are_short() -> None:
    """A slow path has few bytes under way when the time is over."""
    blocks, _ = await read_all(Amount(3600.0, SHORT_BLOCKS * SHORT_BLOCK + BLOCK_SIZE))
    assert [len(block) for block in blocks[:-1]] == [SHORT_BLOCK] * SHORT_BLOCKS + [BLOCK_SIZE]
