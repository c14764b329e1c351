"""One node of the service: its parts, put together, and what happens between them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from flyx.errors import NoSuchRoom
from flyx.server.redis.backend import Backend, Budget
from flyx.server.redis.commits import Commits
from flyx.server.redis.gaps import Gaps
from flyx.server.redis.handover import Handover
from flyx.server.redis.inbox import Inbox
from flyx.server.redis.interfaces import Clients
from flyx.server.redis.membership import Membership
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.relay import MessageRelay
from flyx.server.redis.replicas import Replicas
from flyx.server.redis.replication import Replication
from flyx.server.redis.tasks import Tasks
from flyx.server.redis.undelivered import Undelivered
from flyx.signaling.announcements import CONNECTION_LOST
from flyx.signaling.commands import Command, LoseConnection, LoseNode


class Node:
    """The parts of a node. They know each other one way, from here down; it is their NodeEvents.

    Attributes:
        tasks: what goes on in the background.
        replicas: rooms with clients on this node, as it knows them.
        membership: the lease, and whether this node is ready.
        commits: changes rooms.
        relay: sends messages of clients.
        handover: ends older connections of clients that resume.
    """

    def __init__(
        self,
        backend: Backend,
        clients: Clients,
        budget: Budget,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        """Args:
        backend: what all nodes have in common.
        clients: those connected to this node.
        budget: how many rooms there may be.
        clock: returns Unix time.
        monotonic: returns seconds that also pass while the process is frozen.
        uniform: draws a number between two, for pauses.
        """
        self._backend = backend
        self._clients = clients
        self.tasks = Tasks()
        self.replicas = Replicas()
        self._undelivered = Undelivered()
        self.membership = Membership(backend, self.tasks, self, monotonic, uniform)
        self._gaps = Gaps(backend, self.membership, self)
        self._recovery = Recovery(backend, self.tasks, self.replicas, clients, self._gaps, self._perform)
        self._replication = Replication(
            backend, self.replicas, clients, self.membership, self._undelivered, self._recovery, budget
        )
        self.commits = Commits(
            backend,
            self.replicas,
            clients,
            self.membership,
            self._undelivered,
            self._recovery,
            self._replication,
            clock,
        )
        self.relay = MessageRelay(
            backend, self.tasks, self.replicas, clients, self.membership, self._recovery, self.commits
        )
        self.handover = Handover(backend, clients)
        inbox = Inbox(
            self.tasks,
            clients,
            self.membership,
            self._gaps,
            self._recovery,
            self._replication,
            self.commits,
            self.relay,
        )
        backend.on_message = inbox.receive
        backend.on_subscription = self.membership.on_subscription

    async def start(self) -> None:
        """Become a member of the service, at once if the backend is there."""
        await self._backend.start()
        await self.membership.start()

    async def stop(self) -> None:
        """Finish what is under way, and leave the service."""
        await self.membership.stop()
        await self.tasks.close()
        await self.relay.close()
        await self._backend.stop()

    async def _perform(self, room_id: str, command: Command) -> None:
        await self.commits.perform(room_id, command)

    # NodeEvents.

    def lost_touch(self) -> None:
        self._gaps.lost_touch(self._recovery.senders)

    def messages_lost(self, node_id: str) -> None:
        self._recovery.messages_lost(node_id)

    async def audit_due(self, *, data_lost: bool) -> bool:
        return await self._replication.audit(data_lost=data_lost)

    def audited(self) -> None:
        # Should the end of a connection have been forgotten, its room is told now.
        for entry in self.replicas.entries():
            if self.replicas.quiet(entry.room.room_id) is None:
                continue
            for member in entry.members_at(self._backend.node_id):
                if not self._clients.holds(member.client_id, member.generation):
                    lose = LoseConnection(member.client_id, member.generation, CONNECTION_LOST, None)
                    self.tasks.spawn(self._perform(entry.room.room_id, lose))

    async def renewed(self) -> None:
        # So that each node can tell whether it has received all that another has sent.
        self.relay.mark()
        await self._gaps.ask()

    def renamed(self, old_name: str) -> None:
        for entry in self.replicas.entries():
            self._recovery.disconnect_evicted(entry, old_name)
        self.replicas.clear()
        self._gaps.renamed()
        self.relay.renamed()
        self._recovery.renamed()

    async def node_dead(self, node_id: str, room_ids: Collection[str]) -> None:
        for room_id in room_ids:
            with suppress(NoSuchRoom):
                await self._perform(room_id, LoseNode(node_id, "its server is gone"))
        await self._backend.forget(node_id)
        self._gaps.forget_node(node_id)
        await self.relay.forget_node(node_id)
