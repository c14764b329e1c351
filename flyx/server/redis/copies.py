"""The rooms that this node has clients in, as it was told of them last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from flyx.server.redis.shared import SharedRoom
from flyx.signaling.commands import Effects
from flyx.signaling.messages import CloseCode, ErrorCode
from flyx.signaling.room import Room


class Clients(Protocol):
    """The clients connected to this node. Nothing here waits; what is not here is ignored."""

    def see_to(self, effects: Effects) -> None:
        """Do what a command has brought about that no client here has given."""

    def holds(self, client_id: str, generation: int) -> bool:
        """Tell whether this connection of the client is here and speaks for it."""

    def send(self, client_id: str, generation: int, text: str, *, counted: bool) -> None:
        """Send to a client; counted: the message is about a peer and must not get lost."""

    async def oust(self, room_id: str, client_id: str, generation: int) -> None:
        """End a connection whose client has come back elsewhere, and tell the room what went over it."""

    def relayed_elsewhere(self, clients: int) -> None:
        """Count what a client here said to so many on other nodes."""

    def close(self, client_id: str, generation: int, code: CloseCode, error: ErrorCode, reason: str) -> None:
        """End a connection; it speaks for the client no longer."""


@dataclass(slots=True)
class Copy:
    """What this node knows of a room.

    Attributes:
        entry: The room; None if it is to be asked for.
        turns: Changes of ours that are under way or wait.
        lock: Held by the one under way.
        news: Resolved when the entry changes.
        alone: Nobody inside is connected to another node.
    """

    entry: SharedRoom | None = None
    alone: bool = False
    turns: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    news: asyncio.Future[None] | None = None


class Copies:
    """Copies by room id; one is kept while a client is inside from here, or a change is under way."""

    def __init__(self) -> None:
        self._copies: dict[str, Copy] = {}

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, room_id: str) -> Copy | None:
        """Return what is known of a room."""
        return self._copies.get(room_id)

    def known(self, room_id: str) -> SharedRoom | None:
        """Return a room that this node has clients in, as it was told of it last."""
        copy = self._copies.get(room_id)
        return copy.entry if copy else None

    def quiet(self, room_id: str) -> SharedRoom | None:
        """Return a room that is known and in which no change of ours is under way."""
        copy = self._copies.get(room_id)
        return None if copy is None or copy.turns else copy.entry

    def at_hand(self, room_id: str) -> Room | None:
        """Return a room that is known, quiet, and no other node's business."""
        copy = self._copies.get(room_id)
        if copy is None or copy.entry is None or copy.turns or not copy.alone:
            return None
        return copy.entry.room

    def entries(self) -> list[SharedRoom]:
        """Return all rooms that are known."""
        return [copy.entry for copy in self._copies.values() if copy.entry is not None]

    def reserve(self, room_id: str) -> Copy:
        """Return the copy of a room, kept until release(), which must follow."""
        copy = self._copies.setdefault(room_id, Copy())
        copy.turns += 1
        return copy

    def release(self, room_id: str) -> None:
        """End what reserve() began."""
        copy = self._copies[room_id]
        copy.turns -= 1
        self._tidy(room_id, copy)

    def adopt(self, entry: SharedRoom, node_id: str) -> None:
        """Take a room as known, if it is open and has clients on this node; else forget it."""
        room_id = entry.room.room_id
        nodes = entry.nodes
        if entry.room.closed or node_id not in nodes:
            self.drop(room_id)
            return
        copy = self._copies.setdefault(room_id, Copy())
        copy.entry = entry
        copy.alone = len(nodes) == 1
        self._tell(copy)

    def drop(self, room_id: str) -> None:
        """Take a room as not known."""
        copy = self._copies.get(room_id)
        if copy is not None:
            copy.entry = None
            self._tell(copy)
            self._tidy(room_id, copy)

    def clear(self) -> None:
        """Take no room as known."""
        for room_id in list(self._copies):
            self.drop(room_id)

    async def news(self, copy: Copy, deadline: float) -> bool:
        """Wait for the entry to change; False if it has not by the deadline (of the event loop's clock)."""
        if copy.news is None:
            copy.news = asyncio.get_running_loop().create_future()
        timeout = deadline - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait([copy.news], timeout=max(0.0, timeout))
        return bool(done)

    def _tell(self, copy: Copy) -> None:
        if copy.news is not None:
            copy.news.set_result(None)
            copy.news = None

    def _tidy(self, room_id: str, copy: Copy) -> None:
        if copy.entry is None and not copy.turns and self._copies.get(room_id) is copy:
            del self._copies[room_id]
