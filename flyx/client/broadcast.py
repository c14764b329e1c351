"""A stream for several receivers: read once, in constant memory, at the pace of the slowest.

What has been read stays in memory until every receiver has verified it, so that one whose connection breaks
goes on where it was. As long as fewer receivers take part than the person wants, all of it stays: a stream
that fits is there for the last of them, and a longer one waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from msgspec import Struct, field

from flyx.errors import StreamBegun
from flyx.storage.stream_source import StreamSource
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest, StreamEnded
from flyx.transfer.left_out import UNREADABLE, VANISHED

MOST_BYTES = 32 << 20
"""Bytes of the stream in memory: what one receiver may have under way (WINDOW of transfer/receiver.py), and
as much again for others to be ahead of it."""

MOST_BLOCKS = 4096
"""Blocks of it: those of a stream that comes slowly are short."""


class Stream(Struct, frozen=True):
    """Bytes that come from a descriptor, such as standard input, until it ends.

    Attributes:
        descriptor: open until they are sent; it is not closed.
        name: under which receivers can save them.
    """

    descriptor: int
    name: str


class _Block(Struct, frozen=True):
    data: bytes
    # By each algorithm that has been asked for.
    digests: dict[Algorithm, bytes] = field(default_factory=dict)

    def hash_with(self, algorithm: Algorithm) -> None:
        """Have its digest by this algorithm; blocking."""
        self.digests[algorithm] = algorithm.digest(self.data)


class _StreamDigest:
    """The digest of the stream by one algorithm, as far as its blocks have been asked for."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._running = RunningDigest(algorithm)
        self._end = 0

    def add(self, offset: int, block: _Block, digest: bytes) -> None:
        """Add a block, if it has not been."""
        if offset == self._end:
            self._running.add(digest)
            self._end += len(block.data)

    def value(self) -> bytes:
        """Return it: all blocks have been asked for."""
        return self._running.value()


class Broadcast:
    """Reads a stream, and gives each receiver its blocks."""

    def __init__(
        self,
        source: StreamSource,
        receivers: int,
        *,
        on_wait: Callable[[int], None],
        on_begin: Callable[[], None],
    ) -> None:
        """Args:
        source: read from when the first receiver takes part; closed in the end.
        receivers: how many the person wants.
        on_wait: called with how many of them are missing when the stream has to wait for them.
        on_begin: called when it is too late for others to take part.
        """
        self._source = source
        self._wanted = receivers
        self._on_wait, self._on_begin = on_wait, on_begin
        # The blocks that are here by their offsets, and these in order; where they begin and end.
        self._blocks: dict[int, _Block] = {}
        self._offsets: deque[int] = deque()
        self._start = 0
        self._end = 0
        # By each algorithm that receivers ask for. What is asked for late can be computed then: all blocks
        # are here as long as others may take part.
        self._digests: dict[Algorithm, _StreamDigest] = {}
        # Set when nothing more will be read, and when that is because it could not be.
        self._has_ended = False
        self._has_failed = False
        # By the number of each receiver that takes part: how much it has verified.
        self._verified: dict[int, int] = {}
        self._reading: asyncio.Task[None] | None = None
        # A thread of its own: it may wait for days for the program that writes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flyx-stream")
        # Set, and replaced, when something has changed.
        self._news = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether the beginning is not here any more."""
        return self._start > 0

    def can_serve(self, receiver: int) -> bool:
        """Whether it takes part, or is not too late to: the beginning is still here."""
        return receiver in self._verified or not self.has_begun

    def ends_with(self, receiver: int) -> bool:
        """Whether no other receiver could take the place of this one if it left."""
        return receiver in self._verified and self.has_begun

    async def read(
        self, receiver: int, requests: Sequence[BlockRequest]
    ) -> list[BlockRead | StreamEnded | BlockFailed]:
        """Return the blocks that a receiver's Sender asks for, when they are there.

        Raises:
            StreamBegun: it is too late for this receiver.
        """
        if not self.can_serve(receiver):
            raise StreamBegun()
        self._verified.setdefault(receiver, 0)
        for request in requests:
            self._digests.setdefault(request.algorithm, _StreamDigest(request.algorithm))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        self._forget()
        return [await self._block(request) for request in requests]

    def verified(self, receiver: int, size: int) -> None:
        """A receiver has so much of it."""
        if size > self._verified.get(receiver, size):
            self._verified[receiver] = size
            self._forget()

    def leave(self, receiver: int) -> None:
        """A receiver takes part no more."""
        if receiver in self._verified:
            del self._verified[receiver]
            # Once the stream has begun, no receiver can join it.
            self._wanted -= self.has_begun
            self._forget()

    async def close(self) -> None:
        """Read no more."""
        self._source.stop()
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._thread.shutdown()
        self._source.close()

    async def _block(self, request: BlockRequest) -> BlockRead | StreamEnded | BlockFailed:
        await self._until(lambda: request.offset != self._end or self._has_ended)
        if block := self._blocks.get(request.offset):
            algorithm = request.algorithm
            if algorithm not in block.digests:
                # It was read before that digest was asked for.
                await asyncio.to_thread(block.hash_with, algorithm)
            digest = block.digests[algorithm]
            self._digests[algorithm].add(request.offset, block, digest)
            return BlockRead(request, block.data, digest)
        if request.offset != self._end:
            # It has begun, and this is not where a block does.
            return BlockFailed(request, VANISHED)
        if self._has_failed:
            return BlockFailed(request, UNREADABLE)
        return StreamEnded(request, self._digests[request.algorithm].value())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._has_ended:
            if self._is_full and (missing := self._wanted - len(self._verified)) > 0:
                self._on_wait(missing)
            await self._until(lambda: not self._is_full)
            block = None
            with suppress(OSError):
                block = await loop.run_in_executor(self._thread, self._read_block, tuple(self._digests))
            self._has_failed = block is None
            self._has_ended = block is None or not block.data
            if block and block.data:
                self._blocks[self._end] = block
                self._offsets.append(self._end)
                self._end += len(block.data)
            self._tell()

    def _read_block(self, algorithms: Sequence[Algorithm]) -> _Block:
        block = _Block(self._source.read_block())
        for algorithm in algorithms:
            block.hash_with(algorithm)
        return block

    @property
    def _is_full(self) -> bool:
        return self._end - self._start >= MOST_BYTES or len(self._offsets) >= MOST_BLOCKS

    def _forget(self) -> None:
        """Drop what all receivers have, if all take part."""
        if len(self._verified) < self._wanted:
            return
        had_begun = self.has_begun
        needed = min(self._verified.values(), default=self._end)
        while self._offsets and (end := self._end_of(self._offsets[0])) <= needed:
            del self._blocks[self._offsets.popleft()]
            self._start = end
        if self.has_begun and not had_begun:
            self._on_begin()
        self._tell()

    def _end_of(self, offset: int) -> int:
        return offset + len(self._blocks[offset].data)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
