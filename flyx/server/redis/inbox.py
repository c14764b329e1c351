"""What this node hears on its channel, and what follows for its clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from flyx.server.logs import get_logger
from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, SharedRoom
from flyx.server.redis.membership import LEASE
from flyx.server.redis.replicas import Replicas
from flyx.signaling.messages import CloseCode, ErrorCode
from flyx.signaling.record import load_room

if TYPE_CHECKING:
    from flyx.server.redis.store import RedisRoomStore

log = get_logger("flyx.server.redis.inbox")


class Inbox:
    """Takes one message after the other, and waits for nobody.

    Batches of another node have numbers: one left out is a loss. So is whatever may have been the last that a
    node said, if we have been deaf since: each is asked, and one that dies without an answer, or gives none
    for as long as a lease lasts, is taken to have said more than we heard.
    """

    def __init__(self, store: RedisRoomStore, backend: Backend, replicas: Replicas) -> None:
        """Args:
        store: Whose clients these are.
        backend: The way to ask.
        replicas: Rooms as this node knows them.
        """
        self._store = store
        self._backend = backend
        self._replicas = replicas
        # By node, the number of the last batch that it said to us.
        self._heard: dict[str, int] = {}
        # Nodes of which something may have been missed, and since when (of the event loop's clock).
        self._unsure: dict[str, float] = {}
        # Set, and replaced, when there are fewer of them.
        self._relief = asyncio.Event()

    def on_message(self, text: str) -> None:
        kind, *fields = from_json(text)
        if not self._store.membership.sound and kind != wire.PROBE:
            # We may have been taken for dead: nothing is believed or passed on before that is known.
            self._store.membership.doubt()
            if kind == wire.RELAY:
                self._unsure[fields[0]] = asyncio.get_running_loop().time()
            return
        match kind:
            case wire.MINE:
                self._store.take(*fields)
            case wire.RELAY:
                self._hear_relay(*fields)
            case wire.ROOM:
                self._hear_change(*fields)
            case wire.MARK:
                self._count(*fields, last=True)
            case wire.ASK:
                self._store.answer(*fields)
            case wire.TAKEOVER:
                room_id, client_id, generation = fields
                self._store.spawn(self._store.clients.take_over(room_id, client_id, generation))
            case wire.PROBE:
                self._store.membership.on_probe(*fields)
            case _:
                log.warning("a message of another version of flyx", kind=kind)

    def _hear_change(
        self,
        room_id: str,
        incarnation: str,
        version: int,
        change: str,
        before: str,
        record: str | None,
        effects: list[list[Any]],
    ) -> None:
        known = self._replicas.known(room_id)
        if known is not None and known.incarnation == incarnation and version <= known.version:
            # From before membership looked for itself, or Redis has gone back in time.
            if version == known.version and change != known.change:
                self._store.membership.doubt()
            return
        if record is None:
            self._replicas.drop(room_id)
            room = None
        else:
            entry = SharedRoom(load_room(record), version, incarnation, change)
            room = entry.room
            closing = {client_id for kind, client_id, *_ in effects if kind == wire.CLOSE}
            self._store.adopt(entry, closing)
        for kind, client_id, generation, *rest in effects:
            if kind == wire.CLOSE:
                code, error_code, reason = rest
                self._store.clients.close(
                    client_id, generation, CloseCode(code), ErrorCode(error_code), reason
                )
            elif self._store.clients.holds(client_id, generation):
                self._store.clients.send(client_id, generation, rest[0], counted=rest[1])
            elif rest[1] and room is not None:
                self._store.note_hole(client_id, generation)
        self._store.recovery.settle(room_id, room)
        if known is not None and (known.incarnation, known.change) != (incarnation, before):
            self._store.send_back(known)

    def _hear_relay(self, node_id: str, sequence: int, items: list[tuple[Any, ...]]) -> None:
        if not self._count(node_id, sequence):
            return
        for room_id, _, targets, text in items:
            for client_id, generation in targets:
                if self._store.clients.holds(client_id, generation):
                    self._store.clients.send(client_id, generation, text, counted=True)
                else:
                    self._store.recovery.missed(room_id, client_id, generation, text)

    def _count(self, node_id: str, sequence: int, *, last: bool = False) -> bool:
        """Take note of the number of a batch, or that it was the last; False if we had it already."""
        heard = self._heard.get(node_id, 0)
        if sequence > heard:
            self._heard[node_id] = sequence
            if last or sequence != heard + 1:
                log.warning(
                    "messages of another node were lost", node=node_id, batches=sequence - heard - (not last)
                )
                self._store.recovery.doubt(node_id)
        self._trust(node_id)
        return sequence > heard

    # What may have been missed.

    def lose_touch(self) -> None:
        """Something may have been said to this node that it did not hear."""
        now = asyncio.get_running_loop().time()
        self._unsure = dict.fromkeys(self._store.recovery.speakers | self._unsure.keys(), now)

    def unsure_of(self, node_ids: frozenset[str]) -> frozenset[str]:
        """Return those of which something may have been missed."""
        return node_ids & self._unsure.keys()

    async def reassured(self, node_ids: frozenset[str]) -> None:
        """Wait until it is known, of each of these nodes, whether all that it said was heard."""
        while not self._unsure.keys().isdisjoint(node_ids):
            await self._relief.wait()

    async def ask(self) -> None:
        """Ask each node of which something may have been missed how much it has said.

        Raises:
            StoreAway: Nobody can be asked.
        """
        now = asyncio.get_running_loop().time()
        for node_id, since in list(self._unsure.items()):
            if now - since > LEASE:
                self._give_up(node_id)
            elif not await self._backend.publish(node_id, wire.encode([wire.ASK, self._backend.node_id])):
                self._store.suspect(node_id)

    def _give_up(self, node_id: str) -> None:
        log.warning("messages of another node may have been lost", node=node_id)
        self._store.recovery.doubt(node_id)
        self._trust(node_id)

    def _trust(self, node_id: str) -> None:
        if self._unsure.pop(node_id, None) is not None:
            self._relief.set()
            self._relief = asyncio.Event()

    def start_over(self) -> None:
        """Nobody has said anything yet to this node under its new name, or will say what it missed before."""
        self._heard.clear()
        for node_id in list(self._unsure):
            self._give_up(node_id)

    def forget_node(self, node_id: str) -> None:
        """Forget a node that is no more."""
        self._heard.pop(node_id, None)
        if node_id in self._unsure:
            self._give_up(node_id)
