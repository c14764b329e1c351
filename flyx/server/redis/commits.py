"""Changes of rooms: decided on a replica, committed by compare-and-set, applied in the order of all nodes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from flyx.errors import NoSuchRoom
from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, Commit, LeaseLost, SharedRoom
from flyx.server.redis.interfaces import Clients
from flyx.server.redis.membership import ECHO_TIMEOUT, Membership
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.replicas import Replica, Replicas
from flyx.server.redis.replication import Replication
from flyx.server.redis.undelivered import Undelivered
from flyx.server.rooms.store import Dispatch, StillWanted, StoreUnavailable, always_wanted, ignore_effects
from flyx.signaling.commands import (
    CloseClient,
    CloseRoom,
    Command,
    Deliver,
    Effects,
    Enter,
    LoseConnection,
    Resume,
)
from flyx.signaling.members import Member
from flyx.signaling.messages import Error
from flyx.signaling.record import dump_room
from flyx.signaling.room import Room, step

_COMMIT_TIMEOUT = 5.0
"""Seconds for which a commit is tried again if no answer tells whether it was made."""

_RETRY_PAUSE = 0.2
"""Seconds between two of these tries."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What came of a command.

    Attributes:
        effects: all of them.
        room: the room on which they were decided, if the command has not changed it: they have yet to be
            carried out. None: they have been.
    """

    effects: Effects
    room: SharedRoom | None


@dataclass(slots=True)
class _Change:
    """A change by this node, from its commit until it comes back through the channel.

    Attributes:
        node_id: the name of this node when the change was made.
        entry: the room after it.
        effects: to be carried out when it comes back.
        dispatch: carries them out.
        applied: resolved when that is done.
    """

    node_id: str
    entry: SharedRoom
    effects: Effects
    dispatch: Dispatch
    applied: asyncio.Future[None]


class Commits:
    """Runs commands on rooms, one at a time in each room."""

    def __init__(
        self,
        backend: Backend,
        replicas: Replicas,
        clients: Clients,
        membership: Membership,
        undelivered: Undelivered,
        recovery: Recovery,
        replication: Replication,
        clock: Callable[[], float],
    ) -> None:
        """Args:
        backend: where changes are committed.
        replicas: rooms as this node knows them.
        clients: those connected here.
        membership: tells whether rooms can be changed.
        undelivered: connections that lack a message.
        recovery: told of rooms that know of an ended connection.
        replication: applies changes to the replicas.
        clock: returns Unix time.
        """
        self._backend = backend
        self._replicas = replicas
        self._clients = clients
        self._membership = membership
        self._undelivered = undelivered
        self._recovery = recovery
        self._replication = replication
        self._clock = clock
        self._changes: dict[str, _Change] = {}
        self._numbers = itertools.count()

    async def perform(self, room_id: str, command: Command) -> None:
        """Run a command that no client gave."""
        await self.run(room_id, command, self._clock(), self._clients.dispatch)

    async def run(
        self,
        room_id: str,
        command: Command,
        now: float,
        dispatch: Dispatch,
        still_wanted: StillWanted = always_wanted,
    ) -> Effects:
        """Run a command other than Relay, as RoomStore.apply does."""
        decided = await self.decide(room_id, command, now, dispatch, still_wanted)
        if decided.room is not None:
            dispatch(decided.effects)
        return decided.effects

    async def decide(
        self,
        room_id: str,
        command: Command,
        now: float,
        dispatch: Dispatch,
        still_wanted: StillWanted = always_wanted,
    ) -> Decided:
        """Run a command when its turn has come; leave its effects to the caller if it changes nothing.

        Args:
            room_id: which room.
            command: what happened.
            now: Unix time.
            dispatch: carries out the effects of a change.
            still_wanted: asked right before the room is changed; if it returns False, nothing is done.

        Raises:
            NoSuchRoom: There is no such room.
            StoreUnavailable: Rooms cannot be changed at the moment.
        """
        await self._membership.until_ready()
        async with self._turn(room_id) as replica:
            stale: SharedRoom | None = None
            while True:
                seen = await self._newest(room_id, replica, stale)
                if seen is None:
                    raise NoSuchRoom(room_id=room_id)
                command = self._completed(command, seen)
                after, effects = step(seen.room, command, now)
                if after is seen.room:
                    if isinstance(command, Enter | Resume | CloseRoom) and await self._is_behind(seen):
                        # No client is refused by what the room was.
                        stale = seen
                        continue
                    if not isinstance(command, Resume):
                        self._undelivered.told(seen.room, command)
                    return Decided(effects, seen)
                if not still_wanted():
                    return Decided((), None)
                try:
                    outcome = await self._commit(seen, after, effects, dispatch)
                except LeaseLost:
                    # Nothing was done, and nothing will be until this node has a lease again.
                    await self._membership.until_ready()
                    continue
                if outcome is Commit.DONE:
                    self._undelivered.told(seen.room, command)
                    return Decided(effects, None)
                stale = seen

    async def replace(self, seen: SharedRoom, room: Room) -> bool:
        """Put room in the place of the one seen, as RoomStore.replace does."""
        return await self._commit(seen, room, (), ignore_effects) is Commit.DONE

    @contextlib.asynccontextmanager
    async def _turn(self, room_id: str) -> AsyncIterator[Replica]:
        """One after the other, in the order of asking: a client's end must not overtake its beginning."""
        replica = self._replicas.reserve(room_id)
        try:
            async with replica.lock:
                yield replica
        finally:
            self._replicas.release(room_id)

    async def _newest(self, room_id: str, replica: Replica, stale: SharedRoom | None) -> SharedRoom | None:
        """Return the room in a version that is not the stale one."""
        deadline = asyncio.get_running_loop().time() + ECHO_TIMEOUT
        while replica.entry is not None and not replica.entry.succeeds(stale):
            if not await self._replicas.news(replica, deadline):
                # The change did not come. An audit will find what else did not.
                await self._replication.refresh(room_id)
                break
        return replica.entry or await self._backend.load(room_id)

    async def _is_behind(self, seen: SharedRoom) -> bool:
        """Tell whether the backend has a newer version of a room."""
        found = (await self._backend.states([seen.room.room_id]))[0]
        if found is None or found == seen.state:
            return False
        return found[0] != seen.incarnation or found[1] >= seen.version

    def _completed(self, command: Command, seen: SharedRoom) -> Command:
        """Return command with what only this node knows."""
        if isinstance(command, Resume | LoseConnection):
            command = self._undelivered.corrected(command)
        if isinstance(command, Enter | Resume):
            return replace(command, node=self._backend.node_id)
        if isinstance(command, LoseConnection):
            # Messages that other nodes send until they know are still to come, and recovery inserts them.
            senders = self._recovery.senders_in(seen.room.room_id, seen.nodes)
            return replace(command, settled=not senders)
        return command

    # One change.

    async def _commit(self, seen: SharedRoom, after: Room, effects: Effects, dispatch: Dispatch) -> Commit:
        me = self._backend.node_id
        change_id = f"{me}:{next(self._numbers)}"
        entry = SharedRoom(after, seen.version + 1, seen.incarnation, change_id)
        record = None if after.closed else dump_room(after)
        messages = wire.dump_changes(entry, seen.change, record, (seen.nodes | entry.nodes) - {me}, effects)
        # For ourselves the id is enough: what it stands for need not travel.
        messages[me] = wire.encode([wire.MINE, change_id])
        change = _Change(me, entry, effects, dispatch, asyncio.get_running_loop().create_future())
        self._changes[change_id] = change
        outcome, not_subscribed = await self._insist(change_id, change, seen, record, messages)
        if outcome is not Commit.DONE:
            del self._changes[change_id]
            return outcome
        for node_id in not_subscribed:
            if node_id != me:
                self._membership.suspect(node_id)
        if me not in not_subscribed:
            await asyncio.wait([change.applied], timeout=ECHO_TIMEOUT)
        if not change.applied.done():
            self._membership.audit_soon()
            self._apply(change_id, in_order=False)
        return outcome

    async def _insist(
        self,
        change_id: str,
        change: _Change,
        seen: SharedRoom,
        record: str | None,
        messages: Mapping[str, str],
    ) -> tuple[Commit, Collection[str]]:
        """Commit a change, and again if no answer comes: it is made once at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _COMMIT_TIMEOUT
        while True:
            try:
                return await self._backend.commit(seen, change.entry, record, messages)
            except LeaseLost:
                del self._changes[change_id]
                self._membership.audit_soon()
                raise
            except StoreUnavailable:
                if change.applied.done():
                    return Commit.DONE, ()
                if loop.time() > deadline or self._membership.away:
                    # It may have been made, and may come through the channel yet. If it was made and does not
                    # come, an audit finds the newer version, and our clients begin anew: no message is sent
                    # twice.
                    loop.call_later(10 * ECHO_TIMEOUT, self._changes.pop, change_id, None)
                    raise
            await asyncio.wait([change.applied], timeout=_RETRY_PAUSE)

    def committed(self, change_id: str) -> None:
        """A change by this node has come back through the channel, after all that was published before it."""
        self._apply(change_id, in_order=True)

    def _apply(self, change_id: str, *, in_order: bool) -> None:
        change = self._changes.pop(change_id, None)
        if change is None:
            # It came back too late to be waited for.
            return
        room = change.entry.room
        closing = {effect.client_id for effect in change.effects if isinstance(effect, CloseClient)}
        self._replication.apply(change.entry, closing)
        change.dispatch(change.effects)
        if change.node_id != self._backend.node_id:
            # This node was evicted since, and with it the client that was let in.
            self._recovery.disconnect_evicted(change.entry, change.node_id)
        self._recovery.settle(room.room_id, room, complete=in_order)
        change.applied.set_result(None)
        for effect in change.effects:
            if isinstance(effect, Deliver) and effect.member.node == self._backend.node_id:
                self._check_delivered(room, effect.member, effect.message)

    def _check_delivered(self, room: Room, member: Member, message: object) -> None:
        """Remember a connection that is ending and was sent less than the room thinks."""
        if isinstance(message, Error) or self._clients.holds(member.client_id, member.generation):
            return
        now = room.members.get(member.client_id)
        if now is not None and now.generation == member.generation and now.absence is None:
            self._undelivered.add(member.client_id, member.generation)
