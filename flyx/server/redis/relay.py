"""What clients of this node send: to peers here at once, to others through the channels of their nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from msgspec import structs

from flyx.errors import NoSuchRoom
from flyx.server.logs import get_logger
from flyx.server.redis.backend import Backend, Item, SharedRoom
from flyx.server.redis.commits import Commits
from flyx.server.redis.interfaces import Clients
from flyx.server.redis.membership import Membership
from flyx.server.redis.outbox import DELIVERY_TIMEOUT, Outbox
from flyx.server.redis.recovery import Recovery
from flyx.server.redis.replicas import Replicas
from flyx.server.redis.tasks import Tasks
from flyx.server.rooms.store import Dispatch, StoreUnavailable
from flyx.signaling.commands import Deliver, Effect, Effects, Relay
from flyx.signaling.members import Member
from flyx.signaling.messages import Answer, Error, Paired, Relayed, serialize
from flyx.signaling.room import step

log = get_logger("flyx.server.redis.relay")

_CHANGE_TIMEOUT = 1.0
"""Seconds that a change of a room takes at most to become known here."""

_ATTEMPTS = 5
"""Times that a message is decided anew before its targets have to begin new sessions."""

RELAY_TIMEOUT = (_ATTEMPTS + 1) * (_CHANGE_TIMEOUT + DELIVERY_TIMEOUT)
"""Seconds after which a message has arrived or its targets have been told to connect anew, while Redis
answers.

Each time that it is decided, the room has to become known and the other node has to be reached.
"""


class MessageRelay:
    """Sends messages of clients to their targets, wherever these are connected."""

    def __init__(
        self,
        backend: Backend,
        tasks: Tasks,
        replicas: Replicas,
        clients: Clients,
        membership: Membership,
        recovery: Recovery,
        commits: Commits,
    ) -> None:
        """Args:
        backend: the way to other nodes.
        tasks: decide anew.
        replicas: rooms as this node knows them.
        clients: those connected here.
        membership: tells whether this node may send, and is told of nodes that it cannot reach.
        recovery: told of messages that are given up.
        commits: decides what cannot be decided on a replica.
        """
        self._backend = backend
        self._tasks = tasks
        self._replicas = replicas
        self._clients = clients
        self._membership = membership
        self._recovery = recovery
        self._commits = commits
        self._outboxes: dict[str, Outbox] = {}

    async def run_on_replica(
        self, room_id: str, command: Relay, now: float, dispatch: Dispatch
    ) -> Effects | None:
        """The fast twin of run: None, and nothing sent, if the room is unknown, changes, or has to change."""
        entry = self._replicas.quiet(room_id) if self._membership.leased else None
        if entry is None:
            return None
        after, effects = step(entry.room, command, now)
        if after is not entry.room:
            return None
        await self._send(entry, command, effects, now, dispatch, 0)
        return effects

    async def run(
        self, room_id: str, command: Relay, now: float, dispatch: Dispatch, attempt: int = 0
    ) -> Effects:
        """Run a command as RoomStore.apply does; attempt: how often its message was decided before."""
        decided = await self._commits.decide(room_id, command, now, dispatch)
        if decided.room is not None:
            await self._send(decided.room, command, decided.effects, now, dispatch, attempt)
        return decided.effects

    async def _send(
        self,
        entry: SharedRoom,
        command: Relay,
        effects: Effects,
        now: float,
        dispatch: Dispatch,
        attempt: int,
    ) -> None:
        """Send what was decided on the room in entry."""
        me = self._backend.node_id
        here: list[Effect] = []
        left: list[Member] = []
        elsewhere: dict[str, list[Deliver]] = {}
        for effect in effects:
            if not isinstance(effect, Deliver) or isinstance(effect.message, Error):
                here.append(effect)
            elif effect.member.node != me:
                elsewhere.setdefault(effect.member.node, []).append(effect)
            elif self._clients.holds(effect.client_id, effect.member.generation):
                here.append(effect)
            else:
                # Its connection has ended, and the room will know in a moment.
                left.append(effect.member)
        if here:
            dispatch(tuple(here))
        if elsewhere:
            only_there = len(effects) == len(elsewhere)
            left += await self._send_elsewhere(entry, command, elsewhere, only_there)
        if left:
            await self._tasks.owned(self._decide_anew(entry, command, left, now, dispatch, attempt))

    async def _send_elsewhere(
        self, entry: SharedRoom, command: Relay, elsewhere: dict[str, list[Deliver]], only_there: bool
    ) -> list[Member]:
        """Return those whom the message did not reach because the room has changed.

        Raises:
            StoreUnavailable: No target has it: its sender may send it again.
        """
        left: list[Member] = []
        under_way = []
        for node_id, delivers in elsewhere.items():
            members = [deliver.member for deliver in delivers]
            self._clients.relayed_elsewhere(len(members))
            item = Item(
                entry.room.room_id,
                entry.state,
                command.client_id,
                tuple((member.client_id, member.generation) for member in members),
                serialize(delivers[0].message),
            )
            under_way.append((self._outbox(node_id).put(item), members))
        for future, members in under_way:
            try:
                if not await future:
                    left += members
            except StoreUnavailable:
                if only_there:
                    raise
                for member in members:
                    self._give_up(entry.room.room_id, member)
        return left

    async def _decide_anew(
        self,
        entry: SharedRoom,
        command: Relay,
        members: Iterable[Member],
        now: float,
        dispatch: Dispatch,
        attempt: int,
    ) -> None:
        """Relay to each of these again, once the room is no longer as it was."""
        room_id = entry.room.room_id
        replica = self._replicas.get(room_id)
        if replica is not None and replica.entry is not None and not replica.entry.succeeds(entry):
            await self._replicas.news(replica, asyncio.get_running_loop().time() + _CHANGE_TIMEOUT)
        for member in members:
            if attempt == _ATTEMPTS:
                self._give_up(room_id, member)
                continue
            again = structs.replace(command, message=retarget(command.message, member.client_id))
            with contextlib.suppress(NoSuchRoom):
                await self.run(room_id, again, now, dispatch, attempt + 1)

    def _give_up(self, room_id: str, member: Member) -> None:
        """Have a client begin a new session that the message did not reach."""
        log.warning("a message was given up")
        self._recovery.amend(room_id, member.client_id, member.generation, None)

    def _outbox(self, node_id: str) -> Outbox:
        outbox = self._outboxes.get(node_id)
        if outbox is None:
            outbox = self._outboxes[node_id] = Outbox(
                self._backend, node_id, self._membership.suspect, self._membership.audit_soon
            )
        return outbox

    def mark(self) -> None:
        """Tell each node to which something was sent the number of the last batch."""
        for outbox in self._outboxes.values():
            if outbox.sequence:
                outbox.mark()

    def asked(self, node_id: str) -> None:
        """A node asks for the number of the last batch that was sent to it."""
        self._outbox(node_id).mark()

    def renamed(self) -> None:
        """Nothing was sent yet under the new name of this node."""
        for outbox in self._outboxes.values():
            outbox.sequence = 0

    async def forget_node(self, node_id: str) -> None:
        """Forget a node that was evicted."""
        outbox = self._outboxes.pop(node_id, None)
        if outbox is not None:
            await outbox.close()

    async def close(self) -> None:
        """Send nothing more."""
        for node_id in list(self._outboxes):
            await self.forget_node(node_id)


def retarget(message: Relayed | Paired, client_id: str) -> Relayed | Paired:
    """Return message for this client alone; an answer has no choice."""
    if isinstance(message, Answer):
        return message
    return structs.replace(message, data=structs.replace(message.data, target_id=client_id))
