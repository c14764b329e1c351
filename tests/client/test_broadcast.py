"""A stream for several receivers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flyx.client import broadcast as module
from flyx.client.broadcast import Broadcast
from flyx.errors import StreamBegun
from flyx.storage.stream_source import StreamSource
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest, StreamEnded
from flyx.transfer.left_out import UNREADABLE, VANISHED
from flyx.transfer.manifest import BLOCK_SIZE
from tests.server.peers import until
from tests.thoroughness import share

PATIENCE = 10.0


class Source(StreamSource):
    """Blocks from a list, and how many of them were read; None: it cannot be read any more."""

    def __init__(self, blocks: list[bytes | None]) -> None:
        self._reader, self._writer = os.pipe()
        super().__init__(self._reader)
        self._list = blocks
        self.read = 0

    def read_block(self) -> bytes:
        if self.read == len(self._list):
            return b""
        block = self._list[self.read]
        self.read += 1
        if block is None:
            raise OSError("broken")
        return block

    def close(self) -> None:
        super().close()
        os.close(self._reader)
        os.close(self._writer)


class Scene:
    """A broadcast of some blocks, and what it has told."""

    def __init__(self, blocks: list[bytes | None], receivers: int) -> None:
        self.source = Source(blocks)
        self.waited_for: list[int] = []
        self.begun = 0
        self.broadcast = Broadcast(
            self.source, receivers, on_wait=self.waited_for.append, on_begin=self._note_begin
        )

    def _note_begin(self) -> None:
        self.begun += 1

    async def read(
        self, receiver: int, offset: int, algorithm: Algorithm = Algorithm.SHA256
    ) -> BlockRead | StreamEnded | BlockFailed:
        async with asyncio.timeout(PATIENCE):
            (block,) = await self.broadcast.read(receiver, [BlockRequest(0, offset, BLOCK_SIZE, algorithm)])
        return block

    async def read_all(self, receiver: int, algorithm: Algorithm = Algorithm.SHA256) -> bytes:
        """Read to the end, telling each block as verified."""
        data, digest = b"", RunningDigest(algorithm)
        while isinstance(block := await self.read(receiver, len(data), algorithm), BlockRead):
            assert block.digest == algorithm.digest(block.data)
            digest.add(block.digest)
            data += block.data
            self.broadcast.verified(receiver, len(data))
        assert isinstance(block, StreamEnded), block
        assert block.digest == digest.value()
        return data


@asynccontextmanager
async def scene(*blocks: bytes | None, receivers: int = 1) -> AsyncIterator[Scene]:
    made = Scene(list(blocks), receivers)
    try:
        yield made
    finally:
        async with asyncio.timeout(PATIENCE):
            await made.broadcast.close()


MEBI = bytes(BLOCK_SIZE)


async def test_each_receiver_gets_every_block_and_the_digest_of_all() -> None:
    blocks = [b"a", b"bb" * 1000, b"c"]
    digest = RunningDigest(Algorithm.SHA256)
    for block in blocks:
        digest.add(Algorithm.SHA256.digest(block))
    async with scene(*blocks, receivers=3) as made:
        got = await asyncio.gather(*(made.read_all(receiver) for receiver in (1, 2, 3)))
        assert got == [b"".join(blocks)] * 3
        end = await made.read(2, len(got[0]))
        assert isinstance(end, StreamEnded)
        assert end.digest == digest.value()
        assert made.source.read == 3


async def test_receivers_get_digests_by_the_algorithm_that_each_asks_for() -> None:
    blocks = [b"a", b"bb" * 1000, b"c"]
    async with scene(*blocks, receivers=4) as made:
        reading = [
            made.read_all(receiver, algorithm) for receiver, algorithm in enumerate([*Algorithm, *Algorithm])
        ]
        assert await asyncio.gather(*reading) == [b"".join(blocks)] * 4
        assert made.source.read == 3


async def test_whoever_comes_late_gets_the_digests_that_nobody_asked_for_before() -> None:
    blocks = [b"a", b"bb" * 1000, b"c"]
    async with scene(*blocks, receivers=2) as made:
        assert await made.read_all(1, Algorithm.SHA256) == b"".join(blocks)
        # All of it was read, and waits for the second.
        assert await made.read_all(2, Algorithm.BLAKE3) == b"".join(blocks)
        assert made.source.read == 3


async def test_an_empty_stream_ends_at_once() -> None:
    async with scene() as made:
        end = await made.read(1, 0)
        assert isinstance(end, StreamEnded)
        assert end.digest == RunningDigest(Algorithm.SHA256).value()


async def test_nothing_is_read_before_anybody_takes_part() -> None:
    async with scene(b"a") as made:
        await asyncio.sleep(0)
        assert made.source.read == 0


async def test_no_more_is_kept_than_one_receiver_may_have_under_way_twice() -> None:
    async with scene(*[MEBI] * 100) as made:
        await made.read(1, 0)
        most = module.MOST_BYTES // BLOCK_SIZE
        await until(lambda: made.source.read == most)
        made.broadcast.verified(1, 3 * BLOCK_SIZE)
        await until(lambda: made.source.read == most + 3)
        assert len(made.broadcast._blocks) <= most


async def test_no_more_blocks_are_kept_however_short_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BLOCKS", 10)
    async with scene(*[b"x"] * 100) as made:
        await made.read(1, 0)
        await until(lambda: made.source.read == 10)
        assert await made.read_all(1) == b"x" * 100


async def test_the_slowest_receiver_sets_the_pace() -> None:
    async with scene(*[MEBI] * 100, receivers=2) as made:
        most = module.MOST_BYTES // BLOCK_SIZE
        await made.read(2, 0)
        for at in range(most):
            await made.read(1, at * BLOCK_SIZE)
            made.broadcast.verified(1, (at + 1) * BLOCK_SIZE)
        next_block = asyncio.create_task(made.read(1, most * BLOCK_SIZE))
        await until(lambda: made.source.read == most)
        assert not next_block.done()
        made.broadcast.verified(2, BLOCK_SIZE)
        assert isinstance(await next_block, BlockRead)
        assert made.source.read <= most + 1


async def test_a_stream_that_fits_waits_for_the_last_receiver() -> None:
    async with scene(b"a", b"b", receivers=3) as made:
        assert await made.read_all(1) == b"ab"
        made.broadcast.leave(1)
        assert await made.read_all(2) == b"ab"
        assert not made.begun
        assert await made.read_all(3) == b"ab"
        assert not made.waited_for


async def test_a_stream_that_does_not_fit_waits_and_says_for_how_many() -> None:
    async with scene(*[MEBI] * 40, receivers=3) as made:
        one = asyncio.create_task(made.read_all(1))
        await until(lambda: made.waited_for == [2])
        assert not one.done()
        others = asyncio.gather(made.read_all(2), made.read_all(3))
        assert [len(data) for data in (await one, *await others)] == [40 * BLOCK_SIZE] * 3
        assert made.waited_for == [2]


async def test_whoever_comes_when_it_has_begun_is_refused() -> None:
    async with scene(b"a", b"b", b"c") as made:
        await made.read(1, 0)
        assert made.broadcast.can_serve(2)
        assert not made.broadcast.has_begun
        made.broadcast.verified(1, 1)
        assert made.broadcast.has_begun
        assert made.begun == 1
        assert not made.broadcast.can_serve(2)
        with pytest.raises(StreamBegun):
            await made.read(2, 0)
        # Nobody takes the place of the first any more, who may come back.
        assert made.broadcast.ends_with(1)
        assert not made.broadcast.ends_with(2)
        assert isinstance(await made.read(1, 1), BlockRead)
        made.broadcast.verified(1, 2)
        assert made.begun == 1


async def test_a_receiver_that_leaves_before_the_stream_has_begun_can_be_replaced() -> None:
    async with scene(b"a", b"b") as made:
        await made.read(1, 0)
        assert not made.broadcast.ends_with(1)
        made.broadcast.leave(1)
        assert await made.read_all(2) == b"ab"


async def test_a_receiver_that_leaves_when_the_stream_has_begun_delays_no_other() -> None:
    async with scene(*[MEBI] * 100, receivers=2) as made:
        await made.read(1, 0)
        await made.read(2, 0)
        for receiver in (1, 2):
            made.broadcast.verified(receiver, BLOCK_SIZE)
        slow = asyncio.create_task(read_from(made, 1, BLOCK_SIZE))
        await until(lambda: made.source.read >= module.MOST_BYTES // BLOCK_SIZE)
        assert not slow.done()
        made.broadcast.leave(2)
        assert await slow == 99 * BLOCK_SIZE


async def read_from(made: Scene, receiver: int, offset: int) -> int:
    """Read from there to the end, telling each block as verified; return how many bytes that were."""
    end = offset
    while isinstance(block := await made.read(receiver, end), BlockRead):
        end += len(block.data)
        made.broadcast.verified(receiver, end)
    return end - offset


async def test_a_receiver_goes_on_with_what_it_has_not_verified() -> None:
    async with scene(b"aa", b"b", b"c") as made:
        for offset in (0, 2, 3):
            await made.read(1, offset)
        made.broadcast.verified(1, 2)
        for offset, data in ((2, b"b"), (3, b"c")):
            block = await made.read(1, offset)
            assert isinstance(block, BlockRead)
            assert block.data == data


@pytest.mark.parametrize("offset", [0, 1, 5, 1 << 50])
async def test_where_no_block_is_any_more_or_yet_there_is_none(offset: int) -> None:
    async with scene(b"aa", b"b") as made:
        await made.read_all(1)
        assert await made.read(1, offset) == BlockFailed(BlockRequest(0, offset, BLOCK_SIZE), VANISHED)


async def test_a_stream_that_cannot_be_read_any_more_is_told_after_what_was_read() -> None:
    async with scene(b"a", None) as made:
        assert isinstance(await made.read(1, 0), BlockRead)
        failed = await made.read(1, 1)
        assert isinstance(failed, BlockFailed)
        assert failed.code == UNREADABLE


async def test_what_was_verified_is_not_taken_back() -> None:
    async with scene(b"a", b"b") as made:
        await made.read_all(1)
        made.broadcast.verified(1, 0)
        assert not made.broadcast.can_serve(2)
        # Of one that takes no part, it is nothing.
        made.broadcast.verified(7, 1)
        assert made.broadcast.can_serve(7) is False


async def test_close_ends_a_read_that_waits_for_whoever_writes() -> None:
    reader, writer = os.pipe()
    source = StreamSource(reader)
    made = Broadcast(source, 1, on_wait=lambda _: None, on_begin=lambda: None)
    reading = asyncio.create_task(made.read(1, [BlockRequest(0, 0, BLOCK_SIZE)]))
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(PATIENCE):
            await made.close()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        os.close(reader)
        os.close(writer)
    assert reading.cancelled()


@pytest.mark.parametrize("seed", range(share(10)))
async def test_receivers_of_any_pace_get_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some leave in the middle, some lose their connection and go on; none gets a byte that is not there."""
    monkeypatch.setattr(module, "MOST_BYTES", 3000)
    monkeypatch.setattr(module, "MOST_BLOCKS", 20)
    chance = random.Random(seed)
    blocks = [chance.randbytes(chance.choice([1, 10, 900])) for _ in range(150)]
    content = b"".join(blocks)

    async def receive(made: Scene, receiver: int, leaves_at: int) -> None:
        got = verified = 0
        while isinstance(block := await made.read(receiver, got), BlockRead):
            assert content.startswith(block.data, got)
            got += len(block.data)
            if got >= leaves_at:
                made.broadcast.leave(receiver)
                return
            if chance.random() < 0.1:
                # Over another connection.
                got = verified
            elif chance.random() < 0.5 or got - verified > 1000:
                verified = got
                made.broadcast.verified(receiver, verified)
            for _ in range(chance.choice([0, 0, 1, 5])):
                await asyncio.sleep(0)
            assert sum(map(len, (one.data for one in made.broadcast._blocks.values()))) < 3000 + 900
        assert isinstance(block, StreamEnded)
        assert got == len(content)

    count = chance.randint(1, 4)
    async with scene(*blocks, receivers=count) as made:
        ends = [chance.choice([1 << 60, chance.randint(1, len(content))]) for _ in range(count - 1)]
        # Nobody leaves before all have begun.
        first = await asyncio.gather(*(made.read(receiver, 0) for receiver in range(count)))
        assert all(isinstance(block, BlockRead) for block in first)
        await asyncio.gather(*(receive(made, receiver, at) for receiver, at in enumerate([1 << 60, *ends])))
