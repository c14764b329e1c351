"""Rooms shared by many nodes: the store that each of them has.

The backend has the truth, changed by compare-and-set alone. A node with clients in a room keeps a replica of
it, and every change is published to all such nodes, in the same atomic step, through the one channel that
each node has. So a replica is always the room as it was at some point of one order that all nodes share.

    change   step() on the replica, then a commit if the room is still at that version, else all again. The
             node that made the change receives it on its channel like the others; only then are its clients
             sent what follows from it (commits).
    relay    step() on the replica. Clients of this node are sent the message at once, and the backend is not
             asked. Clients of another node are sent it through that node's channel, if the room is still at
             that version: if a change has overtaken the message, its targets are decided anew (relay).

A replica that lags does no harm within a node: only this node connects and disconnects its own clients, and
while such a change is under way, all other commands of that room wait for it.

The parts, each of which imports only those above it:

    backend, wire, tasks, replicas, undelivered
    membership     lease, subscription, eviction of dead nodes
    gaps           what other nodes have published and this one may not have received
    outbox         batches for one other node
    recovery       what did not reach a connection
    replication    replicas in step with the backend: changes, refreshes, audits
    commits        changes
    relay          messages of clients
    inbox          what arrives on the channel
    node           puts them together
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Callable

from flyx.server.redis.backend import Backend, Budget, LeaseLost, SharedRoom
from flyx.server.redis.interfaces import Clients
from flyx.server.redis.node import Node
from flyx.server.rooms.store import (
    Dispatch,
    RoomStore,
    StillWanted,
    Stored,
    StoreUnavailable,
    always_wanted,
    ignore_effects,
)
from flyx.signaling.commands import Command, Effects, Relay, Resume
from flyx.signaling.room import Room


class RedisRoomStore(RoomStore):
    """The rooms of all nodes, as one node works with them. Call attach() before open()."""

    _node: Node

    def __init__(
        self,
        backend: Backend,
        *,
        max_rooms: int,
        max_per_creator: int = 0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Args:
        backend: what all nodes have in common.
        max_rooms: most rooms of all nodes together.
        max_per_creator: of these, most that have the same creator; 0 is no limit.
        clock: returns Unix time.
        monotonic: returns seconds that also pass while the process is frozen.
        uniform: draws a number between two, for pauses.
        """
        self._backend = backend
        self._budget = Budget(max_rooms, max_per_creator)
        self._clocks = (clock, monotonic, uniform)
        # Rooms, when the backend was last asked for their number.
        self._count = 0

    def attach(self, clients: Clients) -> None:
        """Serve these clients, who are connected to this node."""
        self._node = Node(self._backend, clients, self._budget, *self._clocks)

    @property
    def ready(self) -> bool:
        """Whether this node can take new clients."""
        return self._node.membership.ready

    def known(self, room_id: str) -> SharedRoom | None:
        """Return a room that this node has clients in, as it knows it."""
        return self._node.replicas.known(room_id)

    async def open(self, now: float) -> None:
        await self._node.start()

    async def close(self) -> None:
        await self._node.stop()

    async def create(self, room: Room) -> bool:
        membership, owned = self._node.membership, self._node.tasks.owned
        await membership.until_ready()
        entry = SharedRoom(room, 1, secrets.token_hex(8))
        try:
            return await owned(self._backend.create(entry, self._budget))
        except LeaseLost:
            membership.audit_soon()
            await membership.until_ready()
            return await owned(self._backend.create(entry, self._budget))

    async def load(self, room_id: str) -> SharedRoom | None:
        return await self._node.tasks.owned(self._backend.load(room_id))

    async def replace(self, seen: Stored, room: Room) -> bool:
        assert isinstance(seen, SharedRoom)
        return await self._node.tasks.owned(self._node.commits.replace(seen, room))

    def at_hand(self, room_id: str) -> Room | None:
        node = self._node
        return node.replicas.at_hand(room_id) if node.membership.leased else None

    def last_known(self, room_id: str) -> Room | None:
        entry = self.known(room_id)
        return None if entry is None else entry.room

    async def due(self, now: float) -> list[str]:
        tasks = await self._node.tasks.owned(self._backend.leader_tasks(now))
        if tasks is None:
            return []
        for node_id in tasks.dead_nodes:
            self._node.membership.suspect(node_id)
        return list(tasks.due_rooms)

    async def count(self) -> int:
        """Return how many rooms all nodes have, or had when the backend was last asked with success."""
        with contextlib.suppress(StoreUnavailable):
            self._count = await self._node.tasks.owned(self._backend.count())
        return self._count

    async def room_ids(self) -> list[str]:
        return await self._node.tasks.owned(self._backend.room_ids())

    async def apply(
        self,
        room_id: str,
        command: Command,
        now: float,
        dispatch: Dispatch = ignore_effects,
        still_wanted: StillWanted = always_wanted,
    ) -> Effects:
        node = self._node
        if isinstance(command, Relay):
            effects = await node.relay.run_on_replica(room_id, command, now, dispatch)
            if effects is not None:
                return effects
            return await node.tasks.owned(node.relay.run(room_id, command, now, dispatch))
        if isinstance(command, Resume):
            await node.tasks.owned(node.handover.prepare(room_id, command, now, still_wanted))
        return await node.tasks.owned(node.commits.run(room_id, command, now, dispatch, still_wanted))
