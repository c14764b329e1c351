"""What other nodes have published to this one and it may not have received.

Batches that a node sends to another have numbers: a number left out is a gap. So is whatever may have been
the last batch of a node, if this node's subscription was interrupted since: each such node is asked for the
number of its last one. One that is evicted before it answers, or does not answer for as long as a lease
lasts, counts as having published more than was received.
"""

from __future__ import annotations

import asyncio

from flyx.server.logs import get_logger
from flyx.server.redis import wire
from flyx.server.redis.backend import LEASE, Backend
from flyx.server.redis.interfaces import NodeEvents
from flyx.server.redis.membership import Membership

log = get_logger("flyx.server.redis.gaps")


class Gaps:
    """Knows of each other node how much of what it published has arrived."""

    def __init__(self, backend: Backend, membership: Membership, events: NodeEvents) -> None:
        """Args:
        backend: the way to ask.
        membership: told of nodes that cannot be asked.
        events: told of gaps.
        """
        self._backend = backend
        self._membership = membership
        self._events = events
        # By node, the number of its last batch that arrived.
        self._received: dict[str, int] = {}
        # Nodes of which something may have been missed, and since when (of the event loop's clock).
        self._uncertain: dict[str, float] = {}
        # Set, and replaced, when there are fewer of them.
        self._fewer = asyncio.Event()

    def count(self, node_id: str, sequence: int, *, last: bool = False) -> bool:
        """Take note of the number of a batch that arrived; last: of one that was the node's last so far.

        Returns:
            False if that batch has arrived before.
        """
        received = self._received.get(node_id, 0)
        if sequence > received:
            self._received[node_id] = sequence
            if last or sequence != received + 1:
                log.warning(
                    "messages of another node were lost",
                    node=node_id,
                    batches=sequence - received - (not last),
                )
                self._events.messages_lost(node_id)
        self._certain(node_id)
        return sequence > received

    def lost_touch(self, node_ids: set[str]) -> None:
        """What these nodes publish may be lost, or may have been."""
        now = asyncio.get_running_loop().time()
        self._uncertain = dict.fromkeys(node_ids | self._uncertain.keys(), now)

    def discarded(self, node_id: str) -> None:
        """A batch of a node arrived and was not used."""
        self._uncertain[node_id] = asyncio.get_running_loop().time()

    def uncertain(self, node_ids: frozenset[str]) -> frozenset[str]:
        """Return those of which something may have been missed."""
        return node_ids & self._uncertain.keys()

    async def until_certain(self, node_ids: frozenset[str]) -> None:
        """Wait until it is known, of each of these nodes, whether all that it published has arrived."""
        while not self._uncertain.keys().isdisjoint(node_ids):
            await self._fewer.wait()

    async def ask(self) -> None:
        """Ask each node of which something may have been missed for the number of its last batch.

        Raises:
            StoreUnavailable: None can be asked.
        """
        now = asyncio.get_running_loop().time()
        for node_id, since in list(self._uncertain.items()):
            if now - since > LEASE:
                self._give_up(node_id)
            elif not await self._backend.publish(node_id, wire.encode([wire.ASK, self._backend.node_id])):
                self._membership.suspect(node_id)

    def renamed(self) -> None:
        """Nothing was published yet to the new name of this node, and what the old one missed is lost."""
        self._received.clear()
        for node_id in list(self._uncertain):
            self._give_up(node_id)

    def forget_node(self, node_id: str) -> None:
        """Forget a node that was evicted."""
        self._received.pop(node_id, None)
        if node_id in self._uncertain:
            self._give_up(node_id)

    def _give_up(self, node_id: str) -> None:
        log.warning("messages of another node may have been lost", node=node_id)
        self._events.messages_lost(node_id)
        self._certain(node_id)

    def _certain(self, node_id: str) -> None:
        if self._uncertain.pop(node_id, None) is not None:
            self._fewer.set()
            self._fewer = asyncio.Event()
