"""The rooms that this node has clients in, as far as changes of them have come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from flyx.server.redis.backend import SharedRoom
from flyx.signaling.room import Room


@dataclass(slots=True)
class Replica:
    """What this node knows of a room.

    Attributes:
        entry: the room; None if it has to be loaded.
        turns: changes by this node that are under way or wait.
        lock: held by the one under way.
        news: resolved when the entry changes.
        alone: no client inside is connected to another node.
    """

    entry: SharedRoom | None = None
    alone: bool = False
    turns: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    news: asyncio.Future[None] | None = None


class Replicas:
    """Replicas by room id; one is kept while a client of this node is inside, or a change is under way."""

    def __init__(self) -> None:
        self._replicas: dict[str, Replica] = {}

    def __len__(self) -> int:
        return len(self._replicas)

    def get(self, room_id: str) -> Replica | None:
        """Return what is known of a room."""
        return self._replicas.get(room_id)

    def known(self, room_id: str) -> SharedRoom | None:
        """Return a room that this node has clients in, as of the last change that came."""
        replica = self._replicas.get(room_id)
        return replica.entry if replica else None

    def quiet(self, room_id: str) -> SharedRoom | None:
        """Return a room that is known and in which no change by this node is under way."""
        replica = self._replicas.get(room_id)
        return None if replica is None or replica.turns else replica.entry

    def at_hand(self, room_id: str) -> Room | None:
        """Return a room that is known, quiet, and without clients of other nodes."""
        replica = self._replicas.get(room_id)
        if replica is None or replica.entry is None or replica.turns or not replica.alone:
            return None
        return replica.entry.room

    def entries(self) -> list[SharedRoom]:
        """Return all rooms that are known."""
        return [replica.entry for replica in self._replicas.values() if replica.entry is not None]

    def reserve(self, room_id: str) -> Replica:
        """Return the replica of a room, kept until release(), which must follow."""
        replica = self._replicas.setdefault(room_id, Replica())
        replica.turns += 1
        return replica

    def release(self, room_id: str) -> None:
        """End what reserve() began."""
        replica = self._replicas[room_id]
        replica.turns -= 1
        self._tidy(room_id, replica)

    def apply(self, entry: SharedRoom, node_id: str) -> None:
        """Take a room as known, if it is open and has clients on this node; else forget it."""
        room_id = entry.room.room_id
        nodes = entry.nodes
        if entry.room.closed or node_id not in nodes:
            self.drop(room_id)
            return
        replica = self._replicas.setdefault(room_id, Replica())
        replica.entry = entry
        replica.alone = len(nodes) == 1
        self._tell(replica)

    def drop(self, room_id: str) -> None:
        """Take a room as not known."""
        replica = self._replicas.get(room_id)
        if replica is not None:
            replica.entry = None
            self._tell(replica)
            self._tidy(room_id, replica)

    def clear(self) -> None:
        """Take no room as known."""
        for room_id in list(self._replicas):
            self.drop(room_id)

    async def news(self, replica: Replica, deadline: float) -> bool:
        """Wait for the entry to change; False if it has not by the deadline (of the event loop's clock)."""
        if replica.news is None:
            replica.news = asyncio.get_running_loop().create_future()
        timeout = deadline - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait([replica.news], timeout=max(0.0, timeout))
        return bool(done)

    def _tell(self, replica: Replica) -> None:
        if replica.news is not None:
            replica.news.set_result(None)
            replica.news = None

    def _tidy(self, room_id: str, replica: Replica) -> None:
        if replica.entry is None and not replica.turns and self._replicas.get(room_id) is replica:
            del self._replicas[room_id]
