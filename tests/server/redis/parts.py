"""What the parts of a node are tried with: a service in memory, clients that remember, and virtual time."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from flyx.server.redis.backend import Budget, SharedRoom
from flyx.server.redis.commits import Commits
from flyx.server.redis.gaps import Gaps
from flyx.server.redis.membership import Membership
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.relay import MessageRelay
from flyx.server.redis.replicas import Replicas
from flyx.server.redis.replication import Replication
from flyx.server.redis.tasks import Tasks
from flyx.server.redis.undelivered import Undelivered
from flyx.signaling.commands import Command, Effects, Enter, LoseConnection
from flyx.signaling.members import Traffic
from flyx.signaling.messages import CloseCode, ErrorCode
from flyx.signaling.room import Room, step
from tests.server.redis.memory_backend import MemoryBackend, Service, VirtualLoop
from tests.server.rooms.store_contract import T0, a_room

ROOM = "K7M2QX"


class Still(random.Random):
    """Nothing takes time but what a test says; what has broken is back after 0.1 s."""

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def uniform(self, a: float, b: float) -> float:
        return a


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on a clock that jumps to whatever is due next; it leaves no task behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def alone() -> None:
            await test(*args, **kwargs)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        loop = VirtualLoop()
        try:
            loop.run_until_complete(alone())
            loop.run_until_complete(asyncio.sleep(0))
        finally:
            loop.close()

    return run


@dataclass
class People:
    """The clients of a node.

    Attributes:
        here: Connections that speak for their clients.
        sent: What each of them was sent, counted or not.
        closed: Connections that were closed, and why.
        seen_to: Effects of commands that no client gave.
        taken_over: Connections that were, with their rooms.
        elsewhere: Clients of other nodes to whom something was relayed.
    """

    here: set[tuple[str, int]] = field(default_factory=set)
    sent: list[tuple[str, int, str, bool]] = field(default_factory=list)
    closed: list[tuple[str, int, ErrorCode]] = field(default_factory=list)
    seen_to: list[Effects] = field(default_factory=list)
    taken_over: list[tuple[str, str, int]] = field(default_factory=list)
    elsewhere: int = 0

    def dispatch(self, effects: Effects) -> None:
        self.seen_to.append(effects)

    def holds(self, client_id: str, generation: int) -> bool:
        return (client_id, generation) in self.here

    def send(self, client_id: str, generation: int, text: str, *, counted: bool) -> None:
        self.sent.append((client_id, generation, text, counted))

    async def take_over(self, room_id: str, client_id: str, generation: int) -> None:
        self.taken_over.append((room_id, client_id, generation))

    def relayed_elsewhere(self, clients: int) -> None:
        self.elsewhere += clients

    def close(self, client_id: str, generation: int, code: CloseCode, error: ErrorCode, reason: str) -> None:
        self.closed.append((client_id, generation, error))
        self.here.discard((client_id, generation))


@dataclass
class Events:
    """NodeEvents that remembers.

    Attributes:
        told: What happened, in order.
        in_step: What an audit finds.
    """

    told: list[Any] = field(default_factory=list)
    in_step: bool = True

    def lost_touch(self) -> None:
        self.told.append("lost touch")

    def messages_lost(self, node_id: str) -> None:
        self.told.append(("messages lost", node_id))

    async def audit_due(self, *, data_lost: bool) -> bool:
        self.told.append("data lost" if data_lost else "audit")
        return self.in_step

    def audited(self) -> None:
        self.told.append("audited")

    async def renewed(self) -> None:
        self.told.append("renewed")

    def renamed(self, old_name: str) -> None:
        self.told.append(("renamed", old_name))

    async def node_dead(self, node_id: str, room_ids: Collection[str]) -> None:
        self.told.append(("node dead", node_id, list(room_ids)))


class Parts:
    """The parts of one node, each made with what it needs; nothing is done between them that no test does."""

    def __init__(self, service: Service, name: str = "a") -> None:
        loop = asyncio.get_running_loop()
        self.service = service
        self.backend = MemoryBackend(service, name)
        self.people = People()
        self.events = Events()
        self.tasks = Tasks()
        self.replicas = Replicas()
        self.undelivered = Undelivered()
        # Commands that recovery gave, and what becomes of them.
        self.performed: list[Command] = []
        self.refusals: list[Exception] = []
        # Seconds that they take.
        self.performing = 0.0
        self.membership = Membership(self.backend, self.tasks, self.events, loop.time, service.rng.uniform)
        self.gaps = Gaps(self.backend, self.membership, self.events)
        self.recovery = Recovery(
            self.backend, self.tasks, self.replicas, self.people, self.gaps, self._perform
        )
        self.replication = Replication(
            self.backend,
            self.replicas,
            self.people,
            self.membership,
            self.undelivered,
            self.recovery,
            Budget(10),
        )
        self.commits = Commits(
            self.backend,
            self.replicas,
            self.people,
            self.membership,
            self.undelivered,
            self.recovery,
            self.replication,
            lambda: T0,
        )
        self.relay = MessageRelay(
            self.backend,
            self.tasks,
            self.replicas,
            self.people,
            self.membership,
            self.recovery,
            self.commits,
        )
        # What came on the channel. A change by this node is applied, unless a test looks at it first.
        self.messages: list[str] = []
        self.backend.on_message = self._receive
        self.backend.on_subscription = self.membership.on_subscription

    async def _perform(self, room_id: str, command: Command) -> None:
        self.performed.append(command)
        await asyncio.sleep(self.performing)
        if self.refusals:
            raise self.refusals.pop(0)

    def _receive(self, text: str) -> None:
        self.messages.append(text)
        if text.startswith('["probe"'):
            self.membership.probe_returned(int(text.removeprefix('["probe",').removesuffix("]")))
        elif text.startswith('["mine"'):
            self.commits.committed(text.removeprefix('["mine","').removesuffix('"]'))

    async def start(self) -> Parts:
        """Be a member of the service."""
        await self.backend.start()
        await self.membership.start()
        assert self.membership.ready
        self.events.told.clear()
        return self

    async def stop(self) -> None:
        await self.membership.stop()
        await self.relay.close()
        await self.tasks.close()
        await self.backend.stop()


async def parts(name: str = "a", service: Service | None = None) -> Parts:
    """Return the parts of a node that has a lease and is subscribed to its channel."""
    return await Parts(service or Service(Still()), name).start()


def lacks_a_message(node: Parts, client_id: str, generation: int) -> bool:
    """Tell whether a message is known not to have reached a connection."""
    lose = LoseConnection(client_id, generation, "lost", Traffic())
    return node.undelivered.corrected(lose) != lose


def occupied(*people: tuple[str, str]) -> Room:
    """Return a room with these clients inside, by id and node; the first is the sender."""
    room = a_room(ROOM)
    for client_id, node_id in people:
        room, _ = step(room, Enter(client_id, f"token of {client_id}", node=node_id), T0)
    return room


def shared(room: Room, version: int = 1, change: str = "") -> SharedRoom:
    return SharedRoom(room, version, "incarnation", change)


def lost(room: Room, client_id: str, *, settled: bool = True, traffic: Traffic | None = Traffic()) -> Room:  # noqa: B008
    """Return room after the connection of a client was lost."""
    generation = room.members[client_id].generation
    return step(room, LoseConnection(client_id, generation, "lost", traffic, settled=settled), T0)[0]
