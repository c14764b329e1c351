"""What connections did not get that were ending while it came, and how their clients get it all the same.

While the end of a connection is on its way into the room, other nodes still speak to it here. The channel
brings what they said before the room knew, and nothing after: so once the end has come back through the
channel, what the connection missed is complete. It goes into the room in front of what was kept since,
whoever has spoken meanwhile (`Amend`), also if it is nothing: until then the absence counts as not settled,
and should this node die before, nobody can say what it took along. A client that comes back meanwhile waits
for that; if it is not told in time it begins anew. One that is back by way of another node already cannot be
given anything in order any more: its session ends, and it is told that it missed something. It may have heard
something later before that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from flyx.errors import NoSuchRoom
from flyx.server.redis.backend import Backend, SharedRoom
from flyx.server.redis.replicas import Replicas
from flyx.server.rooms.store import StoreAway
from flyx.signaling.commands import Amend
from flyx.signaling.room import Room

if TYPE_CHECKING:
    from flyx.server.redis.store import RedisRoomStore

# Seconds between two tries to tell a room.
_PAUSE = 1.0
# Seconds for which it is known who has gone: other nodes tell every 3 what we should have heard of them, or
# when they are asked.
_MEMORY = 60.0

Connection = tuple[str, int]


class Recovery:
    """Sees to it that what did not arrive is made up for, or that its client is told, sooner or later."""

    def __init__(self, store: RedisRoomStore, backend: Backend, replicas: Replicas) -> None:
        """Args:
        store: Whose clients these are.
        backend: What all nodes have in common.
        replicas: Rooms as this node knows them.
        """
        self._store = store
        self._backend = backend
        self._replicas = replicas
        # By room: what came for connections of this node that were ending, until the room knows of that.
        self._missed: dict[str, dict[Connection, tuple[str, ...]]] = {}
        # What rooms have yet to be told; None: that something is missing.
        self._mending: dict[tuple[str, str, int], tuple[str, ...] | None] = {}
        # Who has gone from here lately: when, the nodes that might have spoken to it, room, and connection.
        self._departed: deque[tuple[float, frozenset[str], str, Connection]] = deque()
        # By room, nodes that had clients there lately and left: when the last did, and which. Oldest first.
        self._left: dict[str, tuple[float, frozenset[str]]] = {}

    @property
    def speakers(self) -> set[str]:
        """The nodes that may have said something to this one lately."""
        nodes = {self._backend.node_id}.union(
            *(entry.nodes for entry in self._replicas.entries()),
            *(others for _, others, _, _ in self._departed),
            *(node_ids for _, node_ids in self._left.values()),
        )
        return nodes - {self._backend.node_id}

    def others(self, room_id: str, nodes: frozenset[str]) -> frozenset[str]:
        """Return the other nodes that may have said something in a room that we have not heard, or not yet.

        What one that has left said before came before that, or was lost.

        Args:
            room_id: Which room.
            nodes: Those that have clients in it.
        """
        _, gone = self._left.get(room_id, (0.0, frozenset()))
        return (nodes | self._store.unsure_of(gone)) - {self._backend.node_id}

    def missed(self, room_id: str, client_id: str, generation: int, text: str) -> None:
        """Take what another node said to a connection that is here no longer."""
        known = self._replicas.known(room_id)
        member = known.room.members.get(client_id) if known else None
        if member is not None and member.generation == generation and member.absence is None:
            missed = self._missed.setdefault(room_id, {})
            missed[client_id, generation] = (*missed.get((client_id, generation), ()), text)
        else:
            self.mend(room_id, client_id, generation, (text,))

    def settle(self, room_id: str, room: Room | None, *, complete: bool = True) -> None:
        """Pass on what came for connections that the room knows to be over.

        Args:
            room_id: Which room.
            room: As it is now; None: there is no such room.
            complete: What was said to them before the room knew has arrived.
        """
        missed = self._missed.pop(room_id, {})
        for (client_id, generation), texts in missed.items():
            member = room.members.get(client_id) if room else None
            if member is None:
                continue
            if member.generation == generation and member.absence is None:
                self._missed.setdefault(room_id, {})[client_id, generation] = texts
            elif member.absence is None and self._store.clients.holds(client_id, member.generation):
                # It has come back to this node, in this moment: nothing has been said to it yet.
                for text in texts:
                    self._store.clients.send(client_id, member.generation, text, counted=True)
            else:
                self.mend(room_id, client_id, generation, texts)
        members = room.members.values() if room else ()
        for member in members:
            if member.absence is None or member.absence.settled or member.node != self._backend.node_id:
                continue
            key = (room_id, member.client_id, member.generation)
            if complete:
                nodes = frozenset(m.node for m in members if m.absence is None)
                self._store.spawn(self._settle(key, self.others(room_id, nodes)))
            else:
                self.mend(*key, None)

    async def _settle(self, key: tuple[str, str, int], others: frozenset[str]) -> None:
        """Tell that nothing else was on its way, unless something turns out to be missing."""
        await self._store.reassured(others)
        if key not in self._mending:
            self.mend(*key, ())

    def mend(self, room_id: str, client_id: str, generation: int, texts: tuple[str, ...] | None) -> None:
        """Have a room know what a connection did not get; None: nobody knows what."""
        key = (room_id, client_id, generation)
        if key in self._mending:
            before = self._mending[key]
            self._mending[key] = None if before is None or texts is None else (*before, *texts)
            return
        self._mending[key] = texts
        self._store.spawn(self._mend(key))

    async def _mend(self, key: tuple[str, str, int]) -> None:
        room_id, client_id, generation = key
        try:
            while True:
                texts = self._mending[key]
                try:
                    await self._store.perform(room_id, Amend(client_id, generation, texts))
                except NoSuchRoom:
                    return
                except StoreAway:
                    if texts != ():
                        # It may have been done all the same: doing it again could double it.
                        self._mending[key] = None
                    await asyncio.sleep(_PAUSE)
                    continue
                more = self._mending[key]
                if more is texts:
                    return
                self._mending[key] = None if more is None or texts is None else more[len(texts) :]
        finally:
            del self._mending[key]

    def departed(self, room: SharedRoom, client_id: str, generation: int) -> None:
        """Remember a connection of this node that the room, as it was until now, thought to be here."""
        now = self._forget()
        room_id = room.room.room_id
        others = self.others(room_id, room.nodes)
        if others:
            self._departed.append((now, others, room_id, (client_id, generation)))

    def left(self, room_id: str, node_ids: frozenset[str]) -> None:
        """Remember nodes that have no clients any more in a room."""
        now = self._forget()
        if node_ids:
            _, before = self._left.pop(room_id, (now, frozenset()))
            self._left[room_id] = (now, before | node_ids)

    def _forget(self) -> float:
        """Forget who has gone too long ago; return the time."""
        now = asyncio.get_running_loop().time()
        while self._departed and self._departed[0][0] < now - _MEMORY:
            self._departed.popleft()
        while self._left and next(iter(self._left.values()))[0] < now - _MEMORY:
            del self._left[next(iter(self._left))]
        return now

    def doubt(self, node_id: str) -> None:
        """Something that this node said was lost: all for whom it may have been have to know."""
        lately = {room_id for room_id, (_, node_ids) in self._left.items() if node_id in node_ids}
        for entry in self._replicas.entries():
            if node_id in entry.nodes or entry.room.room_id in lately:
                self._store.send_back(entry)
        for _, others, room_id, (client_id, generation) in self._departed:
            if node_id in others:
                self.mend(room_id, client_id, generation, None)

    def start_over(self) -> None:
        """Connections of this node are lost, and their rooms know that nobody knows what they got."""
        self._missed.clear()
        self._left.clear()
