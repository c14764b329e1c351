"""The hub: rooms on one side, connected clients on the other.

It runs commands on the store and hands their effects to the connections of this process. It never waits for a
client: a connection only queues what it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil
from typing import Protocol, assert_never

from flyx.errors import NoSuchRoom
from flyx.server.config import ServerConfig
from flyx.server.gate import Doorkeeper
from flyx.server.logs import get_logger, room_tag
from flyx.server.metrics import LOCAL, Metrics
from flyx.server.store import RoomStore
from flyx.signaling.codes import draw_room_id
from flyx.signaling.messages import (
    Answer,
    CloseCode,
    ErrorCode,
    IceCandidate,
    IceServer,
    Message,
    Offer,
    Role,
    serialize,
)
from flyx.signaling.room import (
    CloseClient,
    Command,
    Deliver,
    Effects,
    Enter,
    Expire,
    Room,
    RoomClosed,
    RoomConfig,
    missing_room,
    new_room,
)

log = get_logger("flyx.server.hub")

# Bytes of randomness in an owner token.
_TOKEN_SIZE = 24
# Seconds between two groups of clients that are told to come back.
_DRAIN_STEP = 0.05
_RELAYED = (Offer, Answer, IceCandidate)


class Outlet(Protocol):
    """A connected client, as the hub sees it. Neither method waits."""

    client_id: str

    @property
    def queued_size(self) -> int:
        """Bytes that wait for the client."""

    def send(self, text: str) -> None:
        """Queue one message; a client that does not keep up is closed instead."""

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        """Say why, then close; what is queued goes out first."""


@dataclass(frozen=True, slots=True)
class CreatedRoom:
    """A new room, with the only copy of the secret that its owner may later close it with."""

    room: Room
    owner_token: str


class Hub:
    """All rooms of a store and the clients connected to this process."""

    def __init__(
        self, store: RoomStore, config: ServerConfig, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Args:
        store: Where the rooms are.
        config: Limits and what is handed to clients.
        clock: Returns Unix time.
        """
        self.config = config
        self.clock = clock
        self.started_at = clock()
        self.metrics = Metrics()
        self.door = Doorkeeper(config, self.metrics)
        self.stopping = False
        self._store = store
        self._outlets: dict[str, Outlet] = {}
        # Set while no client is connected.
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._ice_servers = tuple(IceServer(urls=(url,)) for url in config.stun_urls)

    @property
    def client_count(self) -> int:
        """Clients connected to this process."""
        return len(self._outlets)

    def queue_sizes(self) -> Iterable[int]:
        """Bytes that wait for each client of this process."""
        return (outlet.queued_size for outlet in self._outlets.values())

    async def room_count(self) -> int:
        """Return how many rooms there are."""
        return await self._store.count()

    async def create_room(self, config: RoomConfig) -> CreatedRoom:
        """Make a room under an id that nobody has.

        Raises:
            StoreFull: The server has as many rooms as it may have.
        """
        owner_token = secrets.token_urlsafe(_TOKEN_SIZE)
        token_hash = hashlib.sha256(owner_token.encode()).hexdigest()
        while True:
            room_id = draw_room_id(secrets.randbelow)
            room = new_room(room_id, config, self.clock(), owner_token_hash=token_hash)
            if await self._store.create(room):
                log.info("room created", room=room_tag(room_id), persistent=config.persistent)
                return CreatedRoom(room, owner_token)

    async def find_room(self, room_id: str) -> Room:
        """Return the room as it is now.

        Raises:
            NoSuchRoom: There is none, or its time is over.
        """
        seen = await self._store.load(room_id)
        if seen is None or seen.room.deadline <= self.clock():
            raise NoSuchRoom(room_id=room_id)
        return seen.room

    async def enter(self, outlet: Outlet, room_id: str, role: Role | None) -> None:
        """Bring a client into a room; a client that is refused is closed. Call `detach` in the end."""
        self._outlets[outlet.client_id] = outlet
        self._quiet.clear()
        if self.stopping:
            self._send_away(outlet)
            return
        command = Enter(outlet.client_id, role, self._ice_servers)
        try:
            await self.perform(room_id, command)
        except NoSuchRoom:
            self._dispatch((missing_room(outlet.client_id),))

    def detach(self, client_id: str) -> None:
        """Forget the connection of a client."""
        self._outlets.pop(client_id, None)
        if not self._outlets:
            self._quiet.set()

    async def perform(self, room_id: str, command: Command) -> None:
        """Run one command on a room and see to its effects.

        Raises:
            NoSuchRoom: There is no such room.
        """
        self._dispatch(await self._store.apply(room_id, command, self.clock()))

    async def sweep(self) -> None:
        """Close the rooms whose time is over."""
        for room_id in await self._store.due(self.clock()):
            try:
                await self.perform(room_id, Expire())
            except NoSuchRoom:
                # Somebody else closed it first.
                continue

    async def drain(self, seconds: float) -> None:
        """Let nobody in from now on, and tell those who are here to come back, spread over so many seconds.

        Returns when all have gone, or the time is over.
        """
        self.stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        waiting = list(self._outlets.values())
        # Told all at once, they would all be back at once.
        while waiting and (left := end - loop.time()) > _DRAIN_STEP:
            for _ in range(ceil(len(waiting) * _DRAIN_STEP / left)):
                self._send_away(waiting.pop())
            await asyncio.sleep(_DRAIN_STEP)
        for outlet in waiting:
            self._send_away(outlet)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), max(0.0, end - loop.time()))

    async def stop(self) -> None:
        """Tell every client that the server stops, and wait until all are gone or had their time."""
        self.stopping = True
        for outlet in list(self._outlets.values()):
            self._send_away(outlet)
        # Each connection ends within close_timeout by itself; the margin is for the event loop.
        try:
            await asyncio.wait_for(self._quiet.wait(), self.config.close_timeout + 1.0)
        except TimeoutError:
            log.warning("clients left behind", clients=len(self._outlets))

    def _send_away(self, outlet: Outlet) -> None:
        outlet.close(CloseCode.SERVICE_RESTART, ErrorCode.SERVER_STOPPING, "the server is stopping")

    def _dispatch(self, effects: Effects) -> None:
        message: Message | None = None
        text = ""
        for effect in effects:
            match effect:
                case Deliver():
                    # A broadcast is the same message many times: it is serialized once.
                    if effect.message is not message:
                        message, text = effect.message, serialize(effect.message)
                    outlet = self._outlets.get(effect.client_id)
                    if outlet is not None:
                        outlet.send(text)
                        self.metrics.relays[LOCAL] += isinstance(message, _RELAYED)
                case CloseClient():
                    outlet = self._outlets.get(effect.client_id)
                    if outlet is not None:
                        outlet.close(effect.close_code, effect.error_code, effect.reason)
                case RoomClosed():
                    log.info("room closed", room=room_tag(effect.room_id), reason=effect.error_code.value)
                case _:
                    assert_never(effect)
