"""What clients of this node say to clients of one other, in order, a batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, DeliveryStatus, Item, LeaseLost
from flyx.server.rooms.store import StoreAway
from flyx.signaling.messages import encoded_size

# Items that go out together.
_BATCH = 64
# Seconds for which an item that is not heard is said again, and between two tries.
PATIENCE = 5.0
_PAUSE = 0.2
# Bytes that wait for one node.
MAX_SIZE = 16 * 1024 * 1024


class Outbox:
    """The way to one other node.

    One batch is under way at a time; what comes meanwhile is the next one. A batch that nobody heard, or of
    which nobody knows whether it was heard, is said again under the same number, so that the other side can
    tell: a number twice is dropped there, a number left out is a loss, of which clients are told. So a batch
    of unknown status counts as said: said anew it could come twice. A mark says the last number, and only
    while no batch is under way.

    Attributes:
        sequence: Of the last batch that was said.
    """

    def __init__(
        self, backend: Backend, node_id: str, on_death: Callable[[str], bool], on_loss: Callable[[], None]
    ) -> None:
        """Args:
        backend: The way out.
        node_id: The other node.
        on_death: Called when the node turns out to have no lease; True: its clients will be seen to.
        on_loss: Called when this node turns out to have none itself.
        """
        self.sequence = 0
        self._backend = backend
        self._node_id = node_id
        self._on_death = on_death
        self._on_loss = on_loss
        self._waiting: deque[tuple[Item, asyncio.Future[bool]]] = deque()
        self._size = 0
        self._marking = False
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, item: Item) -> asyncio.Future[bool]:
        """Say something soon. The result is False if it was said in a room as it no longer is: decide anew.

        The future raises StoreAway if the other node cannot be told.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        size = encoded_size(item.text)
        if self._size + size > MAX_SIZE:
            future.set_exception(StoreAway("too much waits for another node"))
            return future
        self._size += size
        self._waiting.append((item, future))
        self._wake.set()
        return future

    def mark(self) -> None:
        """Tell the other node soon what it should have heard, so that it can see whether it did."""
        self._marking = True
        self._wake.set()

    async def close(self) -> None:
        """Say nothing more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._fail(list(self._waiting), StoreAway("this node stops"))
        self._waiting.clear()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                self._size -= sum(encoded_size(item.text) for item, _ in batch)
                try:
                    results = await self._say([item for item, _ in batch])
                except StoreAway as exc:
                    self._fail(batch, exc)
                    continue
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
            if self._marking:
                self._marking = False
                await self._say_mark()

    async def _say_mark(self) -> None:
        message = wire.encode([wire.MARK, self._backend.node_id, self.sequence])
        # There will be others.
        with contextlib.suppress(StoreAway):
            if not await self._backend.publish(self._node_id, message):
                self._on_death(self._node_id)

    async def _say(self, items: list[Item]) -> Sequence[bool]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        unsure = False
        while True:
            try:
                said = await self._backend.relay(self._node_id, self.sequence + 1, items)
            except LeaseLost:
                # Membership will get it back, or will know better.
                self._on_loss()
            except StoreAway:
                unsure = True
            else:
                if said.status is DeliveryStatus.DELIVERED:
                    self.sequence += any(said.current) or unsure
                    return [ok or unsure for ok in said.current]
                if said.status is DeliveryStatus.NODE_DEAD and self._on_death(self._node_id):
                    return (False,) * len(items)
            if loop.time() > deadline:
                if not unsure:
                    raise StoreAway("the other node does not listen")
                self.sequence += 1
                self._marking = True
                return [True] * len(items)
            await asyncio.sleep(_PAUSE)

    def _fail(self, batch: list[tuple[Item, asyncio.Future[bool]]], exc: StoreAway) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(exc)
                # The client who said it may be gone: then nobody asks.
                future.exception()
