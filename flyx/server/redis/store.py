"""Rooms shared by many nodes: the store that each of them has.

Truth is in Redis, changed by compare-and-set alone. A node with clients in a room keeps a replica of it, and
every change tells all such nodes, in the same atomic step, through the one channel that each node has. So a
replica is always the room as it was at some point of one order that all nodes share.

    change   step() on it, then a commit if the room is still at that version, else all again. The node
             that made the change takes it from its channel like the others; only then do its clients hear.
    relay    step() on it. Clients of this node get it at once, and Redis hears nothing of it. Clients
             of another node get it through that node's channel, if the room is still at that version: a relay
             that a change has overtaken is decided anew and never delivered on old knowledge.

Why one that lags cannot hurt within a node: only this node connects and disconnects its own clients, and
while such a change is under way everything in that room waits for it.

This module knows neither Redis nor sockets: `Backend` is the one, `Clients` the other. What got lost, and
whether this node still has its lease, is membership's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from flyx.errors import NoSuchRoom
from flyx.server.logs import get_logger
from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, Budget, Commit, LeaseLost, SharedRoom
from flyx.server.redis.inbox import Inbox
from flyx.server.redis.membership import Membership
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.relay import Relaying
from flyx.server.redis.replicas import Clients, Replica, Replicas
from flyx.server.rooms.store import (
    BudgetSpent,
    RoomStore,
    SeeTo,
    StoreAway,
    Stored,
    StoreFull,
    Wanted,
    always,
    leave_alone,
)
from flyx.signaling.announcements import LOST
from flyx.signaling.commands import (
    CloseClient,
    Command,
    Deliver,
    Effects,
    Enter,
    Leave,
    Lose,
    Relay,
    Resume,
    Shut,
)
from flyx.signaling.members import Member
from flyx.signaling.messages import CloseCode, Error, ErrorCode
from flyx.signaling.record import dump_room
from flyx.signaling.room import Room, step

log = get_logger("flyx.server.redis.store")

# Seconds that a change takes at most to come back through our own channel.
ECHO = 1.0
# Seconds for which a change is tried whose outcome nobody knows, and between two tries.
PATIENCE = 5.0
_PAUSE = 0.2
# Seconds that a client waits for the end of its older connection on another node, and between two looks.
_HANDOVER = 3.0
_GLANCE = 0.02

# What a client is told that was not told everything.
_MISSED = "messages between servers were lost; connect again"

T = TypeVar("T")


@dataclass(slots=True)
class _Change:
    """A change of ours, from its commit until it comes back through our channel.

    Attributes:
        node_id: The name of this node when it was made.
        entry: The room after it.
        effects: What it brings about,
        see_to: by this.
        seen: Resolved when it has its place in the order.
    """

    node_id: str
    entry: SharedRoom
    effects: Effects
    see_to: SeeTo
    seen: asyncio.Future[None]


class RedisRoomStore(RoomStore):
    """The rooms of all nodes, as one node works with them.

    Attributes:
        clients: The clients connected to this node; set before open().
        budget: How many rooms there may be.
        membership: Tells whether this node is fit to work.
        recovery: Makes up for what did not arrive.
    """

    clients: Clients

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
        backend: What all nodes have in common.
        max_rooms: Most rooms of all nodes together.
        max_per_creator: Of these, most that have the same creator; 0 is no limit.
        clock: Returns Unix time.
        monotonic: Returns seconds that also pass while the process is frozen.
        uniform: Draws a number between two, for pauses.
        """
        self._backend = backend
        self.budget = Budget(max_rooms, max_per_creator)
        self._clock = clock
        self._replicas = Replicas()
        self._changes: dict[str, _Change] = {}
        self._change_ids = itertools.count()
        # Connections that something did not reach although the room took it for sent.
        self._holes: set[tuple[str, int]] = set()
        # Rooms, when Redis was last asked for their number.
        self._count = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._relays = Relaying(self, backend, self._replicas)
        self._inbox = Inbox(self, backend, self._replicas)
        self.recovery = Recovery(self, backend, self._replicas)
        self.membership = Membership(self, backend, self._replicas, monotonic, uniform)
        backend.on_message = self._inbox.on_message
        backend.on_subscription = self.membership.on_subscription

    @property
    def ready(self) -> bool:
        """Whether this node can take new clients."""
        return self.membership.ready

    def known(self, room_id: str) -> SharedRoom | None:
        """Return a room that this node has clients in, as it was told of it last."""
        return self._replicas.known(room_id)

    async def open(self, now: float) -> None:
        await self._backend.start()
        await self.membership.start()

    async def close(self) -> None:
        await self.membership.stop()
        while self._tasks:
            await asyncio.wait(self._tasks, timeout=ECHO)
            for task in self._tasks:
                task.cancel()
        await self._relays.close()
        await self._backend.stop()

    # Primitives.

    async def create(self, room: Room) -> bool:
        await self.membership.fit()
        entry = SharedRoom(room, 1, secrets.token_hex(8))
        try:
            return await self.owned(self._backend.create(entry, self.budget))
        except LeaseLost:
            self.membership.doubt()
            await self.membership.fit()
            return await self.owned(self._backend.create(entry, self.budget))

    async def load(self, room_id: str) -> SharedRoom | None:
        return await self.owned(self._backend.load(room_id))

    async def replace(self, seen: Stored, room: Room) -> bool:
        assert isinstance(seen, SharedRoom)
        return await self.owned(self._commit(seen, room, (), leave_alone)) is Commit.DONE

    def at_hand(self, room_id: str) -> Room | None:
        return self._replicas.at_hand(room_id) if self.membership.sound else None

    def last_known(self, room_id: str) -> Room | None:
        entry = self.known(room_id)
        return None if entry is None else entry.room

    async def due(self, now: float) -> list[str]:
        tasks = await self.owned(self._backend.leader_tasks(now))
        if tasks is None:
            return []
        for node_id in tasks.dead_nodes:
            self.suspect(node_id)
        return list(tasks.due_rooms)

    async def count(self) -> int:
        """Return how many rooms all nodes have, or had when Redis was last asked with success."""
        with contextlib.suppress(StoreAway):
            self._count = await self.owned(self._backend.count())
        return self._count

    async def room_ids(self) -> list[str]:
        return await self.owned(self._backend.room_ids())

    # Commands.

    async def apply(
        self,
        room_id: str,
        command: Command,
        now: float,
        see_to: SeeTo = leave_alone,
        wanted: Wanted = always,
    ) -> Effects:
        if isinstance(command, Relay) and self.membership.sound:
            entry = self._replicas.quiet(room_id)
            if entry is not None:
                after, effects = step(entry.room, command, now)
                if after is entry.room:
                    await self._relays.relay(entry, command, effects, now, see_to)
                    return effects
        if isinstance(command, Resume):
            await self.owned(self._make_way(room_id, command, now, wanted))
        return await self.owned(self.run(room_id, command, now, see_to, wanted=wanted))

    async def _make_way(self, room_id: str, command: Resume, now: float, wanted: Wanted) -> None:
        """Have the older connection of a client that comes back end properly, wherever it is.

        Whoever has it knows what went over it. Without that the client could not be told what it missed.
        """
        deadline = asyncio.get_running_loop().time() + _HANDOVER
        asked = False
        while True:
            entry = await self._backend.load(room_id)
            member = entry.room.members.get(command.client_id) if entry else None
            if member is None or not member.accepts(command.shown_token, now) or not wanted():
                return
            if member.absence is not None and member.absence.settled:
                return
            if member.node == self._backend.node_id:
                if self.clients.holds(member.client_id, member.generation):
                    # Its end has been seen to, if it could be.
                    return
            elif not asked:
                message = wire.encode([wire.TAKEOVER, room_id, member.client_id, member.generation])
                if not await self._backend.publish(member.node, message):
                    return
                asked = True
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_GLANCE)

    async def run(
        self,
        room_id: str,
        command: Command,
        now: float,
        see_to: SeeTo,
        stale: SharedRoom | None = None,
        attempt: int = 0,
        wanted: Wanted = always,
    ) -> Effects:
        """Run a command in its turn, on a room that is not as it was seen in `stale`."""
        await self.membership.fit()
        async with self._turn(room_id) as replica:
            while True:
                seen = await self._present(room_id, replica, stale)
                if seen is None:
                    raise NoSuchRoom(room_id=room_id)
                command = self._completed(command, seen)
                after, effects = step(seen.room, command, now)
                if after is seen.room:
                    if isinstance(command, Enter | Resume | Shut) and await self._is_behind(seen):
                        # Nobody is turned away on old knowledge.
                        stale = seen
                        continue
                    if not isinstance(command, Resume):
                        self._fill_hole(command, seen)
                    break
                if not wanted():
                    return ()
                try:
                    outcome = await self._commit(seen, after, effects, see_to)
                except LeaseLost:
                    # Nothing was done, and nothing will be until it is known how we stand.
                    await self.membership.fit()
                    continue
                if outcome is Commit.DONE:
                    self._fill_hole(command, seen)
                    return effects
                stale = seen
        if isinstance(command, Relay):
            await self._relays.relay(seen, command, effects, now, see_to, attempt)
        else:
            see_to(effects)
        return effects

    @contextlib.asynccontextmanager
    async def _turn(self, room_id: str) -> AsyncIterator[Replica]:
        """One after the other, in the order of asking: a client's end must not overtake its beginning."""
        replica = self._replicas.reserve(room_id)
        try:
            async with replica.lock:
                yield replica
        finally:
            self._replicas.release(room_id)

    async def _is_behind(self, seen: SharedRoom) -> bool:
        """Tell whether Redis has a newer version of a room."""
        found = (await self._backend.states([seen.room.room_id]))[0]
        if found is None or found == seen.state:
            return False
        return found[0] != seen.incarnation or found[1] >= seen.version

    def _completed(self, command: Command, seen: SharedRoom) -> Command:
        """Return command with what only this node knows."""
        if isinstance(command, Resume) and command.handover is not None:
            connection = (command.client_id, command.handover[0])
            if connection in self._holes:
                command = replace(command, handover=None)
        if isinstance(command, Enter | Resume):
            return replace(command, node=self._backend.node_id)
        if isinstance(command, Lose):
            unknown = (command.client_id, command.generation) in self._holes
            # What others say to it until they know is still to come, and recovery will tell.
            alone = not self.recovery.others(seen.room.room_id, seen.nodes)
            return replace(command, traffic=None if unknown else command.traffic, settled=alone)
        return command

    def _fill_hole(self, command: Command, seen: SharedRoom) -> None:
        """Forget that a connection missed something: the room knows, or will not ask any more."""
        if isinstance(command, Leave | Lose):
            self._holes.discard((command.client_id, command.generation))
        elif isinstance(command, Resume) and command.client_id in seen.room.members:
            self._holes.discard((command.client_id, seen.room.members[command.client_id].generation))

    async def _present(self, room_id: str, replica: Replica, stale: SharedRoom | None) -> SharedRoom | None:
        """Return the room in a version that is not the stale one."""
        deadline = asyncio.get_running_loop().time() + ECHO
        while replica.entry is not None and not replica.entry.succeeds(stale):
            if not await self._replicas.news(replica, deadline):
                # We were not told. Membership will find the rest of what we were not told.
                await self.refresh(room_id)
                break
        return replica.entry or await self._backend.load(room_id)

    async def _commit(self, seen: SharedRoom, after: Room, effects: Effects, see_to: SeeTo) -> Commit:
        me = self._backend.node_id
        change_id = f"{me}:{next(self._change_ids)}"
        entry = SharedRoom(after, seen.version + 1, seen.incarnation, change_id)
        record = None if after.closed else dump_room(after)
        messages = wire.dump_changes(entry, seen.change, record, (seen.nodes | entry.nodes) - {me}, effects)
        # To ourselves a word is enough: what it stands for need not travel.
        messages[me] = wire.encode([wire.MINE, change_id])
        change = _Change(me, entry, effects, see_to, asyncio.get_running_loop().create_future())
        self._changes[change_id] = change
        outcome, unheard = await self._insist(change_id, change, seen, record, messages)
        if outcome is not Commit.DONE:
            del self._changes[change_id]
            return outcome
        for node_id in unheard:
            if node_id != me:
                self.suspect(node_id)
        if me not in unheard:
            await asyncio.wait([change.seen], timeout=ECHO)
        if not change.seen.done():
            self.membership.doubt()
            self.take(change_id, heard=False)
        return outcome

    async def _insist(
        self,
        change_id: str,
        change: _Change,
        seen: SharedRoom,
        record: str | None,
        messages: Mapping[str, str],
    ) -> tuple[Commit, Collection[str]]:
        """Commit a change, and again if nobody knows whether that worked: it is made once at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            try:
                return await self._backend.commit(seen, change.entry, record, messages)
            except LeaseLost:
                del self._changes[change_id]
                self.membership.doubt()
                raise
            except StoreAway:
                if change.seen.done():
                    return Commit.DONE, ()
                if loop.time() > deadline or self.membership.away:
                    # It may have been made, and may come through the channel yet. If it was and does not, the
                    # version found later tells so, and our clients begin anew: nobody says anything twice.
                    loop.call_later(10 * ECHO, self._changes.pop, change_id, None)
                    raise
            await asyncio.wait([change.seen], timeout=_PAUSE)

    def take(self, change_id: str, *, heard: bool = True) -> None:
        """Act on a change of ours; heard: it has come through the channel, after all that was before it."""
        change = self._changes.pop(change_id, None)
        if change is None:
            # It came back too late to be waited for.
            return
        room = change.entry.room
        closing = {effect.client_id for effect in change.effects if isinstance(effect, CloseClient)}
        self.adopt(change.entry, closing)
        change.see_to(change.effects)
        if change.node_id != self._backend.node_id:
            # This node was taken for dead since, and with it whoever was let in.
            self.close_buried(change.entry, change.node_id)
        self.recovery.settle(room.room_id, room, complete=heard)
        change.seen.set_result(None)
        for effect in change.effects:
            if isinstance(effect, Deliver) and effect.member.node == self._backend.node_id:
                self._check_reached(room, effect.member, effect.message)

    def _check_reached(self, room: Room, member: Member, message: object) -> None:
        """Remember a connection that is ending and got less than the room thinks."""
        if isinstance(message, Error) or self.clients.holds(member.client_id, member.generation):
            return
        now = room.members.get(member.client_id)
        if now is not None and now.generation == member.generation and now.absence is None:
            self.note_hole(member.client_id, member.generation)

    def note_hole(self, client_id: str, generation: int) -> None:
        """Remember a connection that something did not reach although the room took it for sent."""
        self._holes.add((client_id, generation))

    def adopt(self, entry: SharedRoom, closing: Collection[str] = ()) -> None:
        """Take a room as it is now known.

        Args:
            entry: The room.
            closing: Clients whose connections the change ends that made it so; they are told why by that.
        """
        known = self.known(entry.room.room_id)
        self._replicas.adopt(entry, self._backend.node_id)
        if known is None:
            return
        self.recovery.left(known.room.room_id, known.nodes - entry.nodes)
        for member in known.members_at(self._backend.node_id):
            now = entry.room.members.get(member.client_id)
            if now is None:
                if not entry.room.closed and member.client_id not in closing:
                    # Redis lost data, and another node has put back the room as it was before it came.
                    self.close_client(member, _MISSED)
                continue
            if now.generation != member.generation or now.absence is not None:
                self.recovery.departed(known, member.client_id, member.generation)
            if now.generation == member.generation and now.absence is not None:
                # Somebody has found out that something did not reach it.
                self.close_client(member, _MISSED)

    # What membership needs.

    def suspect(self, node_id: str) -> bool:
        """See to a node that may be dead; False if this node is not in a position to tell."""
        return self.membership.suspect(node_id)

    async def refresh(self, room_id: str) -> None:
        """Take a room as it is in Redis, although we were not told how it came to that."""
        known = self._replicas.known(room_id)
        if known is None:
            return
        entry = await self._backend.load(room_id)
        if self._replicas.known(room_id) is not known:
            # We have been told meanwhile.
            return
        if entry is None:
            self._replicas.drop(room_id)
        elif not entry.succeeds(known):
            return
        else:
            self.adopt(entry)
        self.send_back(known)

    def send_back(self, entry: SharedRoom) -> None:
        """Have the clients that are here in a room connect anew: they were not told everything."""
        for member in entry.members_at(self._backend.node_id):
            self.close_client(member, _MISSED)
            self.recovery.mend(entry.room.room_id, member.client_id, member.generation, None)

    def close_client(self, member: Member, reason: str) -> None:
        """End the connection of a client that is to come back."""
        self.clients.close(
            member.client_id, member.generation, CloseCode.SERVICE_RESTART, ErrorCode.RESYNC, reason
        )

    def close_buried(self, entry: SharedRoom, node_id: str) -> None:
        """End the connections in a room that went with this node when it was taken for dead by that name."""
        for member in entry.members_at(node_id):
            self.close_client(member, "this server stood still for too long; connect again")

    def make_up(self) -> None:
        """Say the goodbyes of connections that are here no longer, should one have been forgotten."""
        for entry in self._replicas.entries():
            if self._replicas.quiet(entry.room.room_id) is None:
                continue
            for member in entry.members_at(self._backend.node_id):
                if not self.clients.holds(member.client_id, member.generation):
                    lose = Lose(member.client_id, member.generation, LOST, None)
                    self.spawn(self.perform(entry.room.room_id, lose))

    def lose_touch(self) -> None:
        """Something may have been said to this node that it did not hear."""
        self._inbox.lose_touch()

    def unsure_of(self, node_ids: frozenset[str]) -> frozenset[str]:
        """Return those of which something may have been missed."""
        return self._inbox.unsure_of(node_ids)

    async def reassured(self, node_ids: frozenset[str]) -> None:
        """Wait until it is known, of each of these nodes, whether all that it said was heard."""
        await self._inbox.reassured(node_ids)

    async def compare_notes(self) -> None:
        """Tell other nodes how much was said to them, and ask those of which we may have missed something."""
        self._relays.mark()
        await self._inbox.ask()

    def answer(self, node_id: str) -> None:
        """Tell a node that asks how much was said to it."""
        self._relays.answer(node_id)

    def start_over(self) -> None:
        """This node has a new name."""
        self._replicas.clear()
        self._inbox.start_over()
        self._relays.start_over()
        self.recovery.start_over()

    async def forget_node(self, node_id: str) -> None:
        """Forget a node that is no more."""
        self._inbox.forget_node(node_id)
        await self._relays.forget_node(node_id)

    async def perform(self, room_id: str, command: Command) -> None:
        """Run a command that no client gave."""
        await self.run(room_id, command, self._clock(), self.clients.see_to)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work in a task that nobody else can cancel."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            exc = task.exception()
            if exc is not None and not isinstance(exc, BudgetSpent | StoreAway | StoreFull | NoSuchRoom):
                # Whoever asked, if still there, gets it, too.
                log.error("a task failed", exc_info=exc)

    async def owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work in a task that goes on if we are cancelled."""
        return await asyncio.shield(self.spawn(work))
