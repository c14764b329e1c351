"""Keeps the replicas of this node in step with the backend, whatever becomes known of a room and how."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, Budget, RoomState, SharedRoom
from flyx.server.redis.interfaces import Clients
from flyx.server.redis.membership import Membership
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.replicas import Replicas
from flyx.server.redis.undelivered import Undelivered
from flyx.signaling.messages import CloseCode, ErrorCode
from flyx.signaling.record import load_room

_ROOMS_PER_QUERY = 100
"""Rooms whose states are asked for at once in an audit."""


class Replication:
    """Applies changes of rooms to the replicas, and what follows to the clients of this node."""

    def __init__(
        self,
        backend: Backend,
        replicas: Replicas,
        clients: Clients,
        membership: Membership,
        undelivered: Undelivered,
        recovery: Recovery,
        budget: Budget,
    ) -> None:
        """Args:
        backend: has the rooms.
        replicas: rooms as this node knows them.
        clients: those connected here.
        membership: told when the replicas may be out of step; probes the channel.
        undelivered: told of messages that reach no connection.
        recovery: told of connections and nodes that are gone.
        budget: how many rooms there may be.
        """
        self._backend = backend
        self._replicas = replicas
        self._clients = clients
        self._membership = membership
        self._undelivered = undelivered
        self._recovery = recovery
        self._budget = budget

    def receive(
        self,
        room_id: str,
        incarnation: str,
        version: int,
        change: str,
        before: str,
        record: str | None,
        effects: list[list[Any]],
    ) -> None:
        """Take a change by another node, as wire has it in `room`."""
        known = self._replicas.known(room_id)
        if known is not None and known.incarnation == incarnation and version <= known.version:
            # From before the last audit, or Redis has gone back in time.
            if version == known.version and change != known.change:
                self._membership.audit_soon()
            return
        if record is None:
            self._replicas.drop(room_id)
            room = None
        else:
            entry = SharedRoom(load_room(record), version, incarnation, change)
            room = entry.room
            closing = {client_id for kind, client_id, *_ in effects if kind == wire.CLOSE}
            self.apply(entry, closing)
        for kind, client_id, generation, *rest in effects:
            if kind == wire.CLOSE:
                code, error_code, reason = rest
                self._clients.close(client_id, generation, CloseCode(code), ErrorCode(error_code), reason)
            elif self._clients.holds(client_id, generation):
                self._clients.send(client_id, generation, rest[0], counted=rest[1])
            elif rest[1] and room is not None:
                self._undelivered.add(client_id, generation)
        self._recovery.settle(room_id, room)
        if known is not None and (known.incarnation, known.change) != (incarnation, before):
            # A change in between did not come.
            self._recovery.resync(known)

    def apply(self, entry: SharedRoom, closing: Collection[str] = ()) -> None:
        """Replace the replica of a room.

        Args:
            entry: the room as it is now.
            closing: clients whose connections the change ends that made it so; they are told why by that.
        """
        known = self._replicas.known(entry.room.room_id)
        self._replicas.apply(entry, self._backend.node_id)
        if known is None:
            return
        self._recovery.nodes_left(known.room.room_id, known.nodes - entry.nodes)
        for member in known.members_at(self._backend.node_id):
            now = entry.room.members.get(member.client_id)
            if now is None:
                if not entry.room.closed and member.client_id not in closing:
                    # Redis lost data, and another node has put back the room as it was before it came.
                    self._recovery.disconnect(member)
                continue
            if now.generation != member.generation or now.absence is not None:
                self._recovery.connection_ended(known, member.client_id, member.generation)
            if now.generation == member.generation and now.absence is not None:
                # A node has found out that a message did not reach it.
                self._recovery.disconnect(member)

    async def refresh(self, room_id: str) -> None:
        """Replace the replica of a room by what the backend has: changes up to that did not come."""
        known = self._replicas.known(room_id)
        if known is None:
            return
        entry = await self._backend.load(room_id)
        if self._replicas.known(room_id) is not known:
            # A change came meanwhile.
            return
        if entry is None:
            self._replicas.drop(room_id)
        elif not entry.succeeds(known):
            return
        else:
            self.apply(entry)
        self._recovery.resync(known)

    # Audits.

    async def audit(self, *, data_lost: bool) -> bool:
        """Compare every replica with the backend, and set right what differs.

        Args:
            data_lost: rooms that the backend does not have are put back, rather than forgotten.

        Returns:
            False if that cannot be done now.
        """
        entries = self._replicas.entries()
        found: list[RoomState | None] = []
        for start in range(0, len(entries), _ROOMS_PER_QUERY):
            some = entries[start : start + _ROOMS_PER_QUERY]
            found += await self._backend.states([entry.room.room_id for entry in some])
        # What was under way in our channel when Redis answered has arrived once the probe has.
        if not await self._membership.probe():
            return False
        for entry, state in zip(entries, found, strict=True):
            await self._set_right(entry, state, data_lost)
        return True

    async def _set_right(self, seen: SharedRoom, found: RoomState | None, data_lost: bool) -> None:
        room_id = seen.room.room_id
        entry = self._replicas.known(room_id)
        if entry is None or found == entry.state:
            return
        if found is None:
            if entry is not seen:
                return
            if not (data_lost and await self._backend.restore(entry, self._budget)):
                await self.refresh(room_id)
        elif found[0] == entry.incarnation and found[1] < entry.version:
            # Redis went back in time, or a change has come since it answered.
            if entry is seen and not await self._backend.restore(entry, self._budget):
                await self.refresh(room_id)
        else:
            await self.refresh(room_id)
