"""How a client is sent what did not reach its connection, or is told that something did not.

While the end of a connection is on its way into the room, other nodes still send messages for it here. The
channel of this node brings those that were sent before the room knew, and none after. So once the end has
come back through the channel, what the connection missed is complete. It is inserted into what the room keeps
for the client, before the messages that came since (`AppendMissed`), even if it is nothing: before that the
absence counts as unsettled, and if this node dies, no node can tell what was lost with it.

A client that resumes meanwhile waits for the insertion; if that does not come in time, it begins a new
session. A client that has already resumed on another node cannot be given the messages in order any more: its
session ends, and it is told that it missed something. It may have received later messages before that.
"""

from __future__ import annotations

import asyncio
from collections import deque

from flyx.errors import NoSuchRoom
from flyx.server.redis.backend import Backend, SharedRoom
from flyx.server.redis.gaps import Gaps
from flyx.server.redis.interfaces import Clients, Perform
from flyx.server.redis.replicas import Replicas
from flyx.server.redis.tasks import Tasks
from flyx.server.redis.undelivered import Connection
from flyx.server.rooms.store import StoreUnavailable
from flyx.signaling.commands import AppendMissed
from flyx.signaling.members import Member
from flyx.signaling.messages import CloseCode, ErrorCode
from flyx.signaling.room import Room

_RETRY_PAUSE = 1.0
"""Seconds between two tries to tell a room what a connection missed."""

_MEMORY = 60.0
"""Seconds for which a connection that ended is remembered.

Other nodes say every 3, or when they are asked, how much they have sent.
"""

_MISSED = "messages between servers were lost; connect again"
"""Why a connection is closed whose client was not sent everything."""


class Recovery:
    """Sees to it that what did not arrive is made up for, or that its client is told."""

    def __init__(
        self,
        backend: Backend,
        tasks: Tasks,
        replicas: Replicas,
        clients: Clients,
        gaps: Gaps,
        perform: Perform,
    ) -> None:
        """Args:
        backend: knows the name of this node.
        tasks: tell rooms what connections missed.
        replicas: rooms as this node knows them.
        clients: those connected here.
        gaps: knows of which nodes something may have been missed.
        perform: runs a command.
        """
        self._backend = backend
        self._tasks = tasks
        self._replicas = replicas
        self._clients = clients
        self._gaps = gaps
        self._perform = perform
        # By room: what came for connections of this node that were ending, until the room knows of that.
        self._late: dict[str, dict[Connection, tuple[str, ...]]] = {}
        # What rooms have yet to be told; None: that something unknown is missing.
        self._untold: dict[tuple[str, str, int], tuple[str, ...] | None] = {}
        # Connections that ended lately: when, the nodes that might have sent something, room, and connection.
        self._ended: deque[tuple[float, frozenset[str], str, Connection]] = deque()
        # By room, nodes that had clients there lately and none now: since when, and which. Oldest first.
        self._left: dict[str, tuple[float, frozenset[str]]] = {}

    # Whom to ask.

    @property
    def senders(self) -> set[str]:
        """The other nodes that may have sent something to this one lately."""
        nodes = {self._backend.node_id}.union(
            *(entry.nodes for entry in self._replicas.entries()),
            *(senders for _, senders, _, _ in self._ended),
            *(node_ids for _, node_ids in self._left.values()),
        )
        return nodes - {self._backend.node_id}

    def senders_in(self, room_id: str, nodes: frozenset[str]) -> frozenset[str]:
        """Return the other nodes of which a message for a client of a room may be lost, or still on its way.

        What a node sent before its last client left the room came before that, or was lost.

        Args:
            room_id: which room.
            nodes: those that have clients in it.
        """
        _, gone = self._left.get(room_id, (0.0, frozenset()))
        return (nodes | self._gaps.uncertain(gone)) - {self._backend.node_id}

    # What came too late.

    def received_late(self, room_id: str, client_id: str, generation: int, text: str) -> None:
        """Take what another node sent for a connection that is here no longer."""
        known = self._replicas.known(room_id)
        member = known.room.members.get(client_id) if known else None
        if member is not None and member.generation == generation and member.absence is None:
            late = self._late.setdefault(room_id, {})
            late[client_id, generation] = (*late.get((client_id, generation), ()), text)
        else:
            self.amend(room_id, client_id, generation, (text,))

    def settle(self, room_id: str, room: Room | None, *, complete: bool = True) -> None:
        """Pass on what came for connections that the room knows to be over.

        Args:
            room_id: which room.
            room: as it is now; None: there is no such room.
            complete: what was sent for them before the room knew has arrived.
        """
        late = self._late.pop(room_id, {})
        for (client_id, generation), texts in late.items():
            member = room.members.get(client_id) if room else None
            if member is None:
                continue
            if member.generation == generation and member.absence is None:
                self._late.setdefault(room_id, {})[client_id, generation] = texts
            elif member.absence is None and self._clients.holds(client_id, member.generation):
                # It has resumed here, in this moment: nothing has been sent to it yet.
                for text in texts:
                    self._clients.send(client_id, member.generation, text, counted=True)
            else:
                self.amend(room_id, client_id, generation, texts)
        members = room.members.values() if room else ()
        for member in members:
            if member.absence is None or member.absence.settled or member.node != self._backend.node_id:
                continue
            key = (room_id, member.client_id, member.generation)
            if complete:
                nodes = frozenset(m.node for m in members if m.absence is None)
                self._tasks.spawn(self._settle(key, self.senders_in(room_id, nodes)))
            else:
                self.amend(*key, None)

    async def _settle(self, key: tuple[str, str, int], senders: frozenset[str]) -> None:
        """Tell the room that nothing else was on its way, unless something turns out to be missing."""
        await self._gaps.until_certain(senders)
        if key not in self._untold:
            self.amend(*key, ())

    # Telling the room.

    def amend(self, room_id: str, client_id: str, generation: int, texts: tuple[str, ...] | None) -> None:
        """Have a room know what a connection missed; None: something unknown."""
        key = (room_id, client_id, generation)
        if key in self._untold:
            before = self._untold[key]
            self._untold[key] = None if before is None or texts is None else (*before, *texts)
            return
        self._untold[key] = texts
        self._tasks.spawn(self._tell(key))

    async def _tell(self, key: tuple[str, str, int]) -> None:
        room_id, client_id, generation = key
        try:
            while True:
                texts = self._untold[key]
                try:
                    await self._perform(room_id, AppendMissed(client_id, generation, texts))
                except NoSuchRoom:
                    return
                except StoreUnavailable:
                    if texts != ():
                        # The room may have been told all the same: told again, it would keep them twice.
                        self._untold[key] = None
                    await asyncio.sleep(_RETRY_PAUSE)
                    continue
                more = self._untold[key]
                if more is texts:
                    return
                self._untold[key] = None if more is None or texts is None else more[len(texts) :]
        finally:
            del self._untold[key]

    # Who has gone.

    def connection_ended(self, room: SharedRoom, client_id: str, generation: int) -> None:
        """Remember a connection of this node that the room, as it was until now, thought to be here."""
        now = self._forget()
        room_id = room.room.room_id
        senders = self.senders_in(room_id, room.nodes)
        if senders:
            self._ended.append((now, senders, room_id, (client_id, generation)))

    def nodes_left(self, room_id: str, node_ids: frozenset[str]) -> None:
        """Remember nodes that have no clients in a room any more."""
        now = self._forget()
        if node_ids:
            _, before = self._left.pop(room_id, (now, frozenset()))
            self._left[room_id] = (now, before | node_ids)

    def _forget(self) -> float:
        """Forget what ended too long ago; return the time."""
        now = asyncio.get_running_loop().time()
        while self._ended and self._ended[0][0] < now - _MEMORY:
            self._ended.popleft()
        while self._left and next(iter(self._left.values()))[0] < now - _MEMORY:
            del self._left[next(iter(self._left))]
        return now

    def renamed(self) -> None:
        """This node was evicted: its connections are over, and their rooms take what was late for lost."""
        self._late.clear()
        self._left.clear()

    # What cannot be made up for.

    def messages_lost(self, node_id: str) -> None:
        """Messages of a node were lost: tell every client for which one of them may have been."""
        lately = {room_id for room_id, (_, node_ids) in self._left.items() if node_id in node_ids}
        for entry in self._replicas.entries():
            if node_id in entry.nodes or entry.room.room_id in lately:
                self.resync(entry)
        for _, senders, room_id, (client_id, generation) in self._ended:
            if node_id in senders:
                self.amend(room_id, client_id, generation, None)

    def resync(self, entry: SharedRoom) -> None:
        """Have the clients of a room that are here begin new sessions: they were not sent everything."""
        for member in entry.members_at(self._backend.node_id):
            self.disconnect(member)
            self.amend(entry.room.room_id, member.client_id, member.generation, None)

    def disconnect(self, member: Member, reason: str = _MISSED) -> None:
        """Close the connection of a client, which is to connect again."""
        self._clients.close(
            member.client_id, member.generation, CloseCode.SERVICE_RESTART, ErrorCode.RESYNC, reason
        )

    def disconnect_evicted(self, entry: SharedRoom, name: str) -> None:
        """Close the connections in a room that were over when this node was evicted under an old name."""
        for member in entry.members_at(name):
            self.disconnect(member, "this server stood still for too long; connect again")
