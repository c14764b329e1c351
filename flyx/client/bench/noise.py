"""A stream of noise that ends when its time is over, with a report."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from msgspec import Struct

from flyx.client.serving import Blocks, SendDriver
from flyx.transfer.digests import RunningDigest
from flyx.transfer.disk import BlockRead, BlockRequest, StreamEnded
from flyx.transfer.manifest import BLOCK_SIZE

SHORT_BLOCK = 64 * 1024
"""Bytes of the first blocks, of which a slow path has few under way when the time is over."""

SHORT_BLOCKS = 32
"""How many there are of them."""


class Amount(Struct, frozen=True):
    """How much is moved to measure something, whichever is reached first.

    Attributes:
        seconds: of moving.
        bytes: at most.
    """

    seconds: float
    bytes: int


class Noise:
    """Makes the blocks of one stream for one receiver: the same random bytes, hashed for each block anew.

    A flyx.client.serving.StreamBlocks.
    """

    def __init__(self, amount: Amount, disk: Executor, last_block: Callable[[], bytes]) -> None:
        """Args:
        amount: after which it ends.
        disk: hashes, as it does for files.
        last_block: called then; returns what is said at the end.
        """
        self._amount = amount
        self._disk = disk
        self._last_block = last_block
        self._noise = os.urandom(BLOCK_SIZE)
        # Set with the first block.
        self._digest: RunningDigest | None = None
        # Blocks and bytes so far, and when the first of them was asked for.
        self._count = 0
        self._size = 0
        self._begun: float | None = None
        self._is_complete = False

    async def read(self, receiver: int, requests: Sequence[BlockRequest]) -> Blocks:
        """Return the blocks that a Sender asks for."""
        return [await self._block(request) for request in requests]

    def verified(self, receiver: int, size: int) -> None:
        """Do nothing: no block is kept."""

    async def _block(self, request: BlockRequest) -> BlockRead | StreamEnded:
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        self._digest = self._digest or RunningDigest(request.algorithm)
        if self._is_complete:
            return StreamEnded(request, self._digest.value())
        left = self._amount.bytes - self._size
        if left <= 0 or now >= self._begun + self._amount.seconds:
            self._is_complete = True
            data = self._last_block()
        else:
            length = SHORT_BLOCK if self._count < SHORT_BLOCKS else BLOCK_SIZE
            data = self._noise[: min(length, left, request.length)]
        digest = await asyncio.get_running_loop().run_in_executor(self._disk, request.algorithm.digest, data)
        self._digest.add(digest)
        self._count += 1
        self._size += len(data)
        return BlockRead(request, data, digest)


class NoiseDriver(SendDriver):
    """Sends noise, and makes no more than the channel takes: what waits at the end takes time as well."""

    def next_work(self) -> list[BlockRequest] | None:
        return None if self.channel_is_full else super().next_work()
