"""What nodes share, in memory: the rules of flyx.server.redis.scripts, and a network that can fail.

Time is the event loop's, so that with `VirtualLoop` nothing waits and every run with one seed is the same.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from flyx.server.redis import wire
from flyx.server.redis.backend import (
    LEASE,
    Backend,
    Budget,
    Commit,
    DeliveryReport,
    DeliveryStatus,
    Item,
    LeaderTasks,
    Lease,
    LeaseLost,
    Renewal,
    RoomState,
    SharedRoom,
)
from flyx.server.rooms.store import BudgetSpent, StoreFull, StoreUnavailable
from flyx.signaling.record import dump_room, load_room


class _Jump(selectors.DefaultSelector):
    """Waits for nothing: the time that it should have waited has passed."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen again"
        self.loop.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to whatever is due next."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


@dataclass
class Service:
    """All that is in Redis, and the way there.

    Attributes:
        rng: Decides how long everything takes.
        nodes: Everybody who may listen.
    """

    rng: random.Random
    rooms: dict[str, tuple[RoomState, str]] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)
    homes: dict[str, set[str]] = field(default_factory=dict)
    epoch: int = 0
    ticks: int = 0
    leader: tuple[str, float] = ("", 0.0)
    nodes: list[MemoryBackend] = field(default_factory=list)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def leased(self, node_id: str) -> bool:
        return self.leases.get(node_id, -1.0) > self.now()

    def flush(self) -> None:
        """FLUSHALL."""
        self.rooms.clear()
        self.deadlines.clear()
        self.leases.clear()
        self.tombstones.clear()
        self.homes.clear()
        self.epoch = self.ticks = 0
        self.leader = ("", 0.0)

    def publish(self, node_id: str, text: str) -> int:
        heard = [node for node in self.nodes if node.subscribed_to == node_id]
        for node in heard:
            node.arrive(text)
        return len(heard)

    def keep(self, entry: SharedRoom) -> None:
        self.rooms[entry.room.room_id] = (entry.state, dump_room(entry.room))
        self.deadlines[entry.room.room_id] = entry.room.deadline


class MemoryBackend(Backend):
    """One node's access to a Service.

    Attributes:
        cut: The way to the service is broken.
        dead: The process is no more; what it waits for never comes.
        subscribed_to: The channel that is heard.
        slow: Seconds that a command takes besides, and
        lag: that the channel takes.
        frozen_until: The process stands still until then (of the loop's clock).
    """

    def __init__(self, service: Service, name: str) -> None:
        self.service = service
        self.name = name
        self.lives = 1
        self.node_id = f"{name}1"
        self.cut = False
        self.dead = False
        self.slow = 0.0
        self.lag = 0.0
        self.frozen_until = 0.0
        self.subscribed_to: str | None = None
        self._inbox: deque[tuple[int, str]] = deque()
        self._inbox_free_at = 0.0
        self._seen_ticks = 0
        self._connection = 0
        service.nodes.append(self)

    # The network.

    def arrive(self, text: str) -> None:
        """A message is on its way to this node; none overtakes another."""
        loop = asyncio.get_running_loop()
        at = max(
            self._inbox_free_at,
            loop.time() + self.lag + self.service.rng.choice((0.0, 0.0, 0.001, 0.02, 0.2)),
        )
        self._inbox_free_at = at
        self._inbox.append((self._connection, text))
        loop.call_at(at, self._hear)

    def _hear(self) -> None:
        """Take the oldest message: what is due at one moment is called in any order."""
        loop = asyncio.get_running_loop()
        if loop.time() < self.frozen_until:
            loop.call_at(self.frozen_until, self._hear)
            return
        connection, text = self._inbox.popleft()
        # Others were lost with the connection that they were on.
        if connection == self._connection:
            self.on_message(text)

    def die(self) -> None:
        """kill -9: what has arrived at the service is done, and nothing else ever is."""
        self.dead = True
        self.subscribed_to = None
        self._connection += 1

    def break_channel(self) -> None:
        """The connection of the channel breaks, with all that was under way on it."""
        if self.subscribed_to is not None:
            self.subscribed_to = None
            self._connection += 1
            self.on_subscription(False)
            asyncio.get_running_loop().call_later(self.service.rng.uniform(0.1, 2.0), self.listen)

    def listen(self) -> None:
        """Listen to the channel, as soon as there is a way to it."""
        if self.dead:
            return
        if self.cut:
            asyncio.get_running_loop().call_later(0.5, self.listen)
        elif self.subscribed_to != self.node_id:
            self.subscribed_to = self.node_id
            self.on_subscription(True)

    async def _travel(self) -> None:
        rng, loop = self.service.rng, asyncio.get_running_loop()
        await asyncio.sleep(self.slow + rng.choice((0.0, 0.0, 0.001, 0.01, 0.1)))
        if loop.time() < self.frozen_until:
            await asyncio.sleep(self.frozen_until - loop.time())
        if self.dead:
            await loop.create_future()
        if self.cut:
            await asyncio.sleep(rng.choice((0.0, 1.0)))
            raise StoreUnavailable("cut off")

    async def _return(self) -> None:
        """The answer travels, too, and may get lost: then what was asked for was done and nobody knows."""
        await self._travel()

    async def _arrive_as(self) -> str:
        """Return the name under which a command was sent, once it has arrived, if that name has a lease."""
        name = self.node_id
        await self._travel()
        if not self.service.leased(name):
            raise LeaseLost("this node has no lease")
        return name

    # What Backend promises.

    async def start(self) -> None:
        self.listen()

    async def stop(self) -> None:
        if self.dead:
            return
        self.subscribed_to = None
        self.service.leases.pop(self.node_id, None)
        self.service.homes.pop(self.node_id, None)

    async def create(self, entry: SharedRoom, budget: Budget) -> bool:
        await self._arrive_as()
        service, room = self.service, entry.room
        taken = room.room_id in service.rooms
        if not taken:
            if len(service.rooms) >= budget.total:
                raise StoreFull
            made = sum(load_room(record).creator == room.creator for _, record in service.rooms.values())
            if room.creator is not None and 0 < budget.per_creator <= made:
                raise BudgetSpent
            service.keep(entry)
        await self._return()
        return not taken

    async def load(self, room_id: str) -> SharedRoom | None:
        await self._travel()
        found = self.service.rooms.get(room_id)
        await self._return()
        if found is None:
            return None
        (incarnation, version, change), record = found
        return SharedRoom(load_room(record), version, incarnation, change)

    async def states(self, room_ids: Sequence[str]) -> list[RoomState | None]:
        await self._travel()
        found = [self.service.rooms.get(room_id) for room_id in room_ids]
        await self._return()
        return [None if kept is None else kept[0] for kept in found]

    async def commit(
        self,
        seen: SharedRoom,
        after: SharedRoom,
        record: str | None,
        messages: Mapping[str, str],
    ) -> tuple[Commit, Collection[str]]:
        await self._arrive_as()
        outcome, unheard = self._commit(seen, after, record, messages)
        await self._return()
        return outcome, unheard

    def _commit(
        self, seen: SharedRoom, after: SharedRoom, record: str | None, messages: Mapping[str, str]
    ) -> tuple[Commit, Collection[str]]:
        service, room_id = self.service, after.room.room_id
        kept = service.rooms.get(room_id)
        if kept is None:
            return Commit.GONE, ()
        if kept[0] == after.state:
            return Commit.DONE, ()
        if kept[0] != seen.state:
            return Commit.STALE, ()
        now = frozenset() if record is None else after.nodes
        if record is None:
            del service.rooms[room_id], service.deadlines[room_id]
        else:
            service.keep(after)
        for node_id in now:
            service.homes.setdefault(node_id, set()).add(room_id)
        for node_id in seen.nodes - now:
            service.homes.get(node_id, set()).discard(room_id)
        return Commit.DONE, {
            node_id for node_id, text in messages.items() if not service.publish(node_id, text)
        }

    async def restore(self, entry: SharedRoom, budget: Budget) -> bool:
        await self._arrive_as()
        service, room = self.service, entry.room
        kept = service.rooms.get(room.room_id)
        newer = kept is not None and (kept[0][0] != entry.incarnation or kept[0][1] >= entry.version)
        if not newer:
            service.keep(entry)
            for node_id in entry.nodes:
                service.homes.setdefault(node_id, set()).add(room.room_id)
        await self._return()
        return not newer

    async def relay(self, node_id: str, sequence: int, items: Sequence[Item]) -> DeliveryReport:
        me = await self._arrive_as()
        service = self.service
        current, said = [], []
        for item in items:
            kept = service.rooms.get(item.room_id)
            current.append(kept is not None and kept[0] == item.state)
            if current[-1]:
                said.append(wire.dump_item(item))
        status = DeliveryStatus.DELIVERED
        if said:
            text = f'["relay","{me}",{sequence},[{",".join(said)}]]'
            if not service.publish(node_id, text):
                status = DeliveryStatus.NO_SUBSCRIBER if service.leased(node_id) else DeliveryStatus.NODE_DEAD
        await self._return()
        return DeliveryReport(status, tuple(current))

    async def publish(self, node_id: str, message: str) -> bool:
        await self._arrive_as()
        heard = self.service.publish(node_id, message)
        await self._return()
        return bool(heard)

    async def renew(self) -> Renewal:
        me = self.node_id
        await self._travel()
        service = self.service
        if not service.epoch or service.ticks < self._seen_ticks:
            service.epoch = service.rng.getrandbits(32)
            service.ticks = max(service.ticks, self._seen_ticks)
        service.ticks += 1
        lease = Lease.EVICTED
        if me not in service.tombstones:
            lease = Lease.HELD if service.leased(me) else Lease.LAPSED
            service.leases[me] = service.now() + LEASE
        pulse, ticks = Renewal(lease, str(service.epoch)), service.ticks
        await self._return()
        self._seen_ticks = ticks
        return pulse

    async def leader_tasks(self, now: float) -> LeaderTasks | None:
        await self._travel()
        service = self.service
        winner, until = service.leader
        if winner != self.node_id and until > service.now():
            return None
        service.leader = (self.node_id, service.now() + 10.0)
        dead = tuple(node_id for node_id, end in service.leases.items() if end <= service.now())
        due = tuple(room_id for room_id, deadline in service.deadlines.items() if deadline <= now)
        await self._return()
        return LeaderTasks(dead, due)

    async def evict(self, node_id: str) -> list[str] | None:
        await self._travel()
        if self.service.leased(node_id):
            return None
        self.service.tombstones.add(node_id)
        rooms = sorted(self.service.homes.get(node_id, ()))
        await self._return()
        return rooms

    async def forget(self, node_id: str) -> None:
        await self._travel()
        self.service.homes.pop(node_id, None)
        self.service.leases.pop(node_id, None)

    async def count(self) -> int:
        await self._travel()
        return len(self.service.rooms)

    async def room_ids(self) -> list[str]:
        await self._travel()
        return list(self.service.rooms)

    def rename(self) -> None:
        self.lives += 1
        self.node_id = f"{self.name}{self.lives}"
        self.subscribed_to = None
        self._connection += 1
        asyncio.get_running_loop().call_soon(self.listen)
