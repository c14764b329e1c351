"""What clients of this node say: to clients here at once, to others through the channels of their nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from flyx.errors import NoSuchRoom
from flyx.server.logs import get_logger
from flyx.server.redis.backend import Backend, Item, SharedRoom
from flyx.server.redis.outbox import PATIENCE, Outbox
from flyx.server.redis.replicas import Replicas
from flyx.server.rooms.store import SeeTo, StoreAway
from flyx.signaling.commands import Deliver, Effect, Effects, Relay
from flyx.signaling.members import Member
from flyx.signaling.messages import Answer, Error, Paired, Relayed, serialize

if TYPE_CHECKING:
    from flyx.server.redis.store import RedisRoomStore

log = get_logger("flyx.server.redis.relay")

# Seconds that a room which has changed takes at most to be known here as it is now.
_NEWS = 1.0
# Times that a message is decided anew before its speaker is told that it does not get through.
_ATTEMPTS = 5
# Seconds after which a message has been passed on or its clients have been told to connect anew, while Redis
# answers: each time that it is decided, the room has to become known and the other node has to be reached.
PROMISE = (_ATTEMPTS + 1) * (_NEWS + PATIENCE)


class Relaying:
    """The ways from here to clients."""

    def __init__(self, store: RedisRoomStore, backend: Backend, replicas: Replicas) -> None:
        """Args:
        store: Decides anew what was decided on a room that has changed.
        backend: The way to other nodes.
        replicas: Rooms as this node knows them.
        """
        self._store = store
        self._backend = backend
        self._replicas = replicas
        self._outboxes: dict[str, Outbox] = {}

    async def relay(
        self,
        entry: SharedRoom,
        command: Relay,
        effects: Effects,
        now: float,
        see_to: SeeTo,
        attempt: int = 0,
    ) -> None:
        """Pass on what a client said, as it was decided on the room in entry."""
        me = self._backend.node_id
        here: list[Effect] = []
        left: list[Member] = []
        elsewhere: dict[str, list[Deliver]] = {}
        for effect in effects:
            if not isinstance(effect, Deliver) or isinstance(effect.message, Error):
                here.append(effect)
            elif effect.member.node != me:
                elsewhere.setdefault(effect.member.node, []).append(effect)
            elif self._store.clients.holds(effect.client_id, effect.member.generation):
                here.append(effect)
            else:
                # Its connection has ended, which the room will learn in a moment.
                left.append(effect.member)
        if here:
            see_to(tuple(here))
        if elsewhere:
            others = len(effects) > len(elsewhere)
            left += await self._relay_elsewhere(entry, command, elsewhere, now, see_to, attempt, others)
        if left:
            await self._store.owned(self._decide_anew(entry, command, left, now, see_to, attempt))

    async def _relay_elsewhere(
        self,
        entry: SharedRoom,
        command: Relay,
        elsewhere: dict[str, list[Deliver]],
        now: float,
        see_to: SeeTo,
        attempt: int,
        others: bool,
    ) -> list[Member]:
        """Return those whom it did not reach because the room has changed."""
        left: list[Member] = []
        under_way = []
        for node_id, delivers in elsewhere.items():
            members = [deliver.member for deliver in delivers]
            self._store.clients.relayed_elsewhere(len(members))
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
            except StoreAway:
                if not others:
                    # Nobody else has got it: it may be said again.
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
        see_to: SeeTo,
        attempt: int,
    ) -> None:
        """Relay to each of these again, once the room is no longer as it was."""
        room_id = entry.room.room_id
        replica = self._replicas.get(room_id)
        if replica is not None and replica.entry is not None and not replica.entry.succeeds(entry):
            await self._replicas.news(replica, asyncio.get_running_loop().time() + _NEWS)
        for member in members:
            if attempt == _ATTEMPTS:
                self._give_up(room_id, member)
                continue
            again = replace(command, message=retarget(command.message, member.client_id))
            with contextlib.suppress(NoSuchRoom):
                await self._store.run(room_id, again, now, see_to, None, attempt + 1)

    def _give_up(self, room_id: str, member: Member) -> None:
        """Have a client connect anew that something did not reach."""
        log.warning("a message was given up")
        self._store.recovery.mend(room_id, member.client_id, member.generation, None)

    def _outbox(self, node_id: str) -> Outbox:
        outbox = self._outboxes.get(node_id)
        if outbox is None:
            outbox = self._outboxes[node_id] = Outbox(
                self._backend, node_id, self._store.suspect, self._store.membership.doubt
            )
        return outbox

    def mark(self) -> None:
        """Tell each node to which something was said how much that was."""
        for outbox in self._outboxes.values():
            if outbox.sequence:
                outbox.mark()

    def answer(self, node_id: str) -> None:
        """Tell a node that asks how much was said to it."""
        self._outbox(node_id).mark()

    def start_over(self) -> None:
        """Nothing has been said yet under the new name of this node."""
        for outbox in self._outboxes.values():
            outbox.sequence = 0

    async def forget_node(self, node_id: str) -> None:
        """Forget a node that is no more."""
        outbox = self._outboxes.pop(node_id, None)
        if outbox is not None:
            await outbox.close()

    async def close(self) -> None:
        """Say nothing more."""
        for node_id in list(self._outboxes):
            await self.forget_node(node_id)


def retarget(message: Relayed | Paired, client_id: str) -> Relayed | Paired:
    """Return message for this client alone; an answer has no choice."""
    if isinstance(message, Answer):
        return message
    return message.model_copy(update={"data": message.data.model_copy(update={"target_id": client_id})})
