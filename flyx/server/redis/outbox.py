"""What clients of this node send to clients of one other node, in order, a batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, DeliveryStatus, Item, LeaseLost
from flyx.server.rooms.store import StoreUnavailable
from flyx.signaling.messages import encoded_size

DELIVERY_TIMEOUT = 5.0
"""Seconds for which a batch is sent again if it is not received."""

MAX_SIZE = 16 * 1024 * 1024
"""Bytes of messages that wait for one node."""

_MAX_BATCH = 64
"""Items that are sent together."""

_RETRY_PAUSE = 0.2
"""Seconds between two tries."""


class Outbox:
    """The way to one other node.

    One batch is under way at a time; what comes meanwhile is the next one. A batch that was not received, or
    of which no answer tells whether it was, is sent again under the same number. So the other node drops a
    batch whose number has come before, and takes a number left out for a gap, of which it tells its clients.
    If the fate of a batch stays unknown, the batch counts as sent: under a new number it could arrive twice.
    A mark has the number of the last batch, and is sent only while none is under way.

    Attributes:
        sequence: number of the last batch that was sent.
    """

    def __init__(
        self,
        backend: Backend,
        node_id: str,
        on_dead: Callable[[str], bool],
        on_lease_lost: Callable[[], None],
    ) -> None:
        """Args:
        backend: the way out.
        node_id: the other node.
        on_dead: called when the other node turns out to have no lease; True: it will be evicted.
        on_lease_lost: called when this node turns out to have none itself.
        """
        self.sequence = 0
        self._backend = backend
        self._node_id = node_id
        self._on_dead = on_dead
        self._on_lease_lost = on_lease_lost
        self._waiting: deque[tuple[Item, asyncio.Future[bool]]] = deque()
        self._size = 0
        self._marking = False
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, item: Item) -> asyncio.Future[bool]:
        """Send an item soon.

        Returns:
            False in the end if the room has changed since the item was decided, which is to be decided anew.
            The future raises StoreUnavailable if the other node cannot be reached, or too much waits for it.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        size = encoded_size(item.text)
        if self._size + size > MAX_SIZE:
            future.set_exception(StoreUnavailable("too much waits for another node"))
            return future
        self._size += size
        self._waiting.append((item, future))
        self._wake.set()
        return future

    def mark(self) -> None:
        """Send a mark soon, by which the other node can see whether it lacks a batch."""
        self._marking = True
        self._wake.set()

    async def close(self) -> None:
        """Send nothing more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._fail(list(self._waiting), StoreUnavailable("this node stops"))
        self._waiting.clear()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_MAX_BATCH, len(self._waiting)))]
                self._size -= sum(encoded_size(item.text) for item, _ in batch)
                try:
                    results = await self._send([item for item, _ in batch])
                except StoreUnavailable as error:
                    self._fail(batch, error)
                    continue
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
            if self._marking:
                self._marking = False
                await self._send_mark()

    async def _send_mark(self) -> None:
        message = wire.encode([wire.MARK, self._backend.node_id, self.sequence])
        # There will be others.
        with contextlib.suppress(StoreUnavailable):
            if not await self._backend.publish(self._node_id, message):
                self._on_dead(self._node_id)

    async def _send(self, items: list[Item]) -> Sequence[bool]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DELIVERY_TIMEOUT
        # The batch may have been received in an earlier try.
        unknown = False
        while True:
            try:
                report = await self._backend.relay(self._node_id, self.sequence + 1, items)
            except LeaseLost:
                # Membership gets it back, or finds out that this node was evicted.
                self._on_lease_lost()
            except StoreUnavailable:
                unknown = True
            else:
                if report.status is DeliveryStatus.DELIVERED:
                    self.sequence += any(report.current) or unknown
                    return [current or unknown for current in report.current]
                if report.status is DeliveryStatus.NODE_DEAD and self._on_dead(self._node_id):
                    return (False,) * len(items)
            if loop.time() > deadline:
                if not unknown:
                    raise StoreUnavailable("the other node does not listen")
                self.sequence += 1
                self._marking = True
                return [True] * len(items)
            await asyncio.sleep(_RETRY_PAUSE)

    def _fail(self, batch: list[tuple[Item, asyncio.Future[bool]]], error: StoreUnavailable) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
                # The sender of the message may be gone: then the error is not looked at.
                future.exception()
