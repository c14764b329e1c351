"""What this node receives on its channel, and who acts on it."""

from __future__ import annotations

from typing import Any

from msgspec.json import decode

from flyx.server.logs import get_logger
from flyx.server.redis import wire
from flyx.server.redis.commits import Commits
from flyx.server.redis.gaps import Gaps
from flyx.server.redis.interfaces import Clients
from flyx.server.redis.membership import Membership
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.relay import MessageRelay
from flyx.server.redis.replication import Replication
from flyx.server.redis.tasks import Tasks

log = get_logger("flyx.server.redis.inbox")


class Inbox:
    """Takes one message after the other, and waits for none of its effects."""

    def __init__(
        self,
        tasks: Tasks,
        clients: Clients,
        membership: Membership,
        gaps: Gaps,
        recovery: Recovery,
        replication: Replication,
        commits: Commits,
        relay: MessageRelay,
    ) -> None:
        """Args:
        tasks: end connections that were taken over.
        clients: those connected here.
        membership: tells whether messages may be believed; takes probes.
        gaps: counts batches.
        recovery: takes what is for connections that are over.
        replication: takes changes by other nodes.
        commits: takes changes by this node.
        relay: answers nodes that ask.
        """
        self._tasks = tasks
        self._clients = clients
        self._membership = membership
        self._gaps = gaps
        self._recovery = recovery
        self._replication = replication
        self._commits = commits
        self._relay = relay

    def receive(self, text: str) -> None:
        """Act on a message as wire has it."""
        kind, *fields = decode(text)
        if not self._membership.leased and kind != wire.PROBE:
            # This node may have been evicted: before that is known no message is believed or passed on.
            self._membership.audit_soon()
            if kind == wire.RELAY:
                self._gaps.discarded(fields[0])
            return
        match kind:
            case wire.MINE:
                self._commits.committed(*fields)
            case wire.RELAY:
                self._receive_batch(*fields)
            case wire.ROOM:
                self._replication.receive(*fields)
            case wire.MARK:
                self._gaps.count(*fields, last=True)
            case wire.ASK:
                self._relay.asked(*fields)
            case wire.TAKEOVER:
                self._tasks.spawn(self._clients.take_over(*fields))
            case wire.PROBE:
                self._membership.probe_returned(*fields)
            case _:
                log.warning("a message of another version of flyx", kind=kind)

    def _receive_batch(self, node_id: str, sequence: int, items: list[tuple[Any, ...]]) -> None:
        if not self._gaps.count(node_id, sequence):
            return
        for room_id, _, targets, text in items:
            for client_id, generation in targets:
                if self._clients.holds(client_id, generation):
                    self._clients.send(client_id, generation, text, counted=True)
                else:
                    self._recovery.received_late(room_id, client_id, generation, text)
