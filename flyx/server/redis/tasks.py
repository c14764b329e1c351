"""Work of a node that goes on when the client that asked for it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from flyx.errors import NoSuchRoom
from flyx.server.logs import get_logger
from flyx.server.rooms.store import BudgetSpent, StoreFull, StoreUnavailable

log = get_logger("flyx.server.redis.tasks")

_ROUND = 1.0
"""Seconds that tasks have to end before they are cancelled, once more each time, when the node stops."""

_EXPECTED = (BudgetSpent, StoreUnavailable, StoreFull, NoSuchRoom)
"""Errors that are raised at the caller, if it still waits, and are not logged."""

T = TypeVar("T")


class Tasks:
    """The tasks of a node."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work in a task that only close() cancels."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work in a task that goes on if the caller is cancelled."""
        return await asyncio.shield(self.spawn(work))

    async def close(self) -> None:
        """Wait for all tasks, those that they start included; cancel the ones that take too long."""
        while self._running:
            await asyncio.wait(self._running, timeout=_ROUND)
            for task in self._running:
                task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, _EXPECTED):
                log.error("a task failed", exc_info=error)
