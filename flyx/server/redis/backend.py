"""What the nodes of one service have in common, as one of them sees it.

    rooms       each a value with a version, changed by compare-and-set alone
    channels    one a node; a change is published to the nodes with clients in the room, in one atomic step
    leases      one a node; a node without one changes nothing and publishes nothing
    epoch       names this set of data; a new one means that data was lost

flyx.server.redis.client keeps all this in Redis. The tests have a version in memory, with the same rules and
no network, to try what nodes do to each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from flyx.server.rooms.store import Stored, StoreUnavailable
from flyx.signaling.members import Member

LEASE = 15.0
"""Seconds that a lease lasts."""


class LeaseLost(StoreUnavailable):
    """This node has no lease: others may have taken it for dead."""


RoomState = tuple[str, int, str]
"""Incarnation, version and change of a room."""


@dataclass(frozen=True, slots=True)
class SharedRoom(Stored):
    """A room as all nodes see it.

    Attributes:
        incarnation: tells it from an earlier room of the same id.
        change: what made it so; "" for a room as it was created. When Redis has gone back in time, two nodes
            can come to the same version by different changes.
    """

    incarnation: str
    change: str = ""

    @property
    def state(self) -> RoomState:
        """What this room is known by, and no other."""
        return self.incarnation, self.version, self.change

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that have clients inside."""
        return frozenset(m.node for m in self.room.members.values() if m.absence is None)

    def members_at(self, node_id: str) -> list[Member]:
        """Return those whose connection is on this node."""
        return [m for m in self.room.members.values() if m.absence is None and m.node == node_id]

    def succeeds(self, other: SharedRoom | None) -> bool:
        """Tell whether this, from Redis, takes the place of what was seen before, if anything was."""
        if other is None or self.incarnation != other.incarnation:
            return True
        return self.version >= other.version and self.change != other.change


@dataclass(frozen=True, slots=True)
class Item:
    """A message of a client, on its way to clients of one other node.

    Attributes:
        room_id: the room of both.
        state: of the room when the targets were decided.
        speaker: the client that sent it.
        targets: client ids and generations.
        text: the message as it goes to the clients.
    """

    room_id: str
    state: RoomState
    speaker: str
    targets: tuple[tuple[str, int], ...]
    text: str


@dataclass(frozen=True, slots=True)
class Budget:
    """How many rooms there may be.

    Attributes:
        total: of all creators together.
        per_creator: of one creator; 0 is no limit.
    """

    total: int
    per_creator: int = 0


class Commit(Enum):
    """What became of a change."""

    DONE = "done"
    STALE = "stale"  # the room is no longer the one seen
    GONE = "gone"  # there is no such room


class DeliveryStatus(Enum):
    """What became of a batch of items."""

    DELIVERED = "delivered"
    NO_SUBSCRIBER = "no subscriber"  # the node has a lease and is not subscribed to its channel
    NODE_DEAD = "node dead"  # the node has no lease


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of a batch, and of each item: False for one not sent, as its room has changed."""

    status: DeliveryStatus
    current: tuple[bool, ...]


class Lease(Enum):
    """How this node's lease stood when it was renewed."""

    HELD = "held"
    LAPSED = "lapsed"  # it had run out, no node has evicted this one, and it is ours again
    EVICTED = "evicted"  # another node has evicted this one, and its clients are away


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer to a renewal."""

    lease: Lease
    epoch: str


@dataclass(frozen=True, slots=True)
class LeaderTasks:
    """What one node, the leader for a while, does for all."""

    dead_nodes: tuple[str, ...] = ()
    due_rooms: tuple[str, ...] = ()


class Backend(ABC):
    """One node's access to what all share.

    Every method may raise StoreUnavailable, within about a second: what was asked for may then be done or
    not. If this node has no lease, methods that change or publish something raise LeaseLost, and nothing is
    done. None may run in a task that ends when a client goes away.

    Attributes:
        node_id: the name of this node; a new one after every start and every eviction.
        on_message: called with each message on this node's channel, in order.
        on_subscription: called with True when this node is subscribed to its channel, and with False when
            that ends: what is published meanwhile is lost.
    """

    node_id: str
    on_message: Callable[[str], None]
    on_subscription: Callable[[bool], None]

    @abstractmethod
    async def start(self) -> None:
        """Begin to subscribe. Does not wait for it."""

    @abstractmethod
    async def stop(self) -> None:
        """Give up the lease and everything else."""

    @abstractmethod
    async def create(self, entry: SharedRoom, budget: Budget) -> bool:
        """Keep a new room; False if its id is taken.

        Raises:
            StoreFull: There are as many rooms as there may be.
            BudgetSpent: There are as many of this creator.
        """

    @abstractmethod
    async def load(self, room_id: str) -> SharedRoom | None:
        """Return the room as it is now."""

    @abstractmethod
    async def states(self, room_ids: Sequence[str]) -> list[RoomState | None]:
        """Return the state of each room as it is now."""

    @abstractmethod
    async def commit(
        self,
        seen: SharedRoom,
        after: SharedRoom,
        record: str | None,
        messages: Mapping[str, str],
    ) -> tuple[Commit, Collection[str]]:
        """Put a room in the place of the one seen, or forget it if closed, and publish that: in one step.

        If the node commits the same change again, right after, the answer is that it is done.

        Args:
            seen: as it was known.
            after: its successor, one version on.
            record: the successor as text; None if it is closed.
            messages: to be published on the channel of each node, if the change is made.

        Returns:
            What became of it, and the nodes that are not subscribed.
        """

    @abstractmethod
    async def restore(self, entry: SharedRoom, budget: Budget) -> bool:
        """Put back a room that was lost; False if one as new or newer, or another of this id, is there.

        It is, whatever the budget, in which it counts again if its creator has one.
        """

    @abstractmethod
    async def relay(self, node_id: str, sequence: int, items: Sequence[Item]) -> DeliveryReport:
        """Publish to a node those of the items whose rooms have not changed since they were decided."""

    @abstractmethod
    async def publish(self, node_id: str, message: str) -> bool:
        """Publish a message on a node's channel; False if the node is not subscribed."""

    @abstractmethod
    async def renew(self) -> Renewal:
        """Renew the lease, or take it again if it has run out and this node was not evicted."""

    @abstractmethod
    async def leader_tasks(self, now: float) -> LeaderTasks | None:
        """Return what is to be done at `now` (Unix time) if this node is the leader; else None."""

    @abstractmethod
    async def evict(self, node_id: str) -> list[str] | None:
        """Keep a node without a lease from ever getting one under its name; None if it has one.

        Returns:
            The rooms in which it had clients.
        """

    @abstractmethod
    async def count(self) -> int:
        """Return how many rooms there are."""

    @abstractmethod
    async def room_ids(self) -> list[str]:
        """Return the ids of all rooms."""

    @abstractmethod
    def rename(self) -> None:
        """Take a new node_id, after an eviction. What is published to the old one is no longer received."""

    @abstractmethod
    async def forget(self, node_id: str) -> None:
        """Forget an evicted node, once its rooms are seen to."""
