"""The hub: rooms on one side, connections on the other.

It runs commands on the store and hands their effects to the connections of this process. It never waits for a
client: a connection only queues what it is to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, assert_never
from uuid import uuid4

from msgspec import structs

from flyx.errors import NoSuchRoom, RoomTaken
from flyx.server.admission import Admission
from flyx.server.config import ServerConfig
from flyx.server.limits import PairBook
from flyx.server.logs import get_logger, room_tag
from flyx.server.metrics import LOCAL, REMOTE, Metrics
from flyx.server.rooms.attachment import Attachment, ClientTransport
from flyx.server.rooms.store import (
    UNAVAILABLE,
    Dispatch,
    RoomStore,
    StillWanted,
    StoreUnavailable,
    always_wanted,
)
from flyx.server.tunnels import Tunnels
from flyx.server.turn import ice_servers
from flyx.signaling.announcements import CONNECTION_LOST, stamped
from flyx.signaling.codes import draw_room_id
from flyx.signaling.commands import (
    Admit,
    CloseClient,
    CloseRoom,
    Command,
    Deliver,
    Effects,
    Enter,
    Expire,
    Leave,
    LoseConnection,
    Refuse,
    Relay,
    Resume,
    RoomClosed,
)
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import Traffic
from flyx.signaling.messages import (
    Answer,
    CloseCode,
    Error,
    ErrorCode,
    IceCandidate,
    IceServersData,
    JoinData,
    Joined,
    Message,
    Offer,
    Paired,
    Relayed,
    Role,
    Tunnel,
    serialize,
)
from flyx.signaling.refusals import refusal_of
from flyx.signaling.room import Room, new_room, reached, step

log = get_logger("flyx.server.rooms.hub")

_TOKEN_SIZE = 24
"""Bytes of randomness in a token."""

_REPLACED = "a newer connection of the same client took its place"

_DRAIN_STEP = 0.05
"""Seconds between two groups of clients that are told to come back."""

_RELAYED = (Offer, Answer, IceCandidate)


@dataclass(frozen=True, slots=True)
class CreatedRoom:
    """A new room, with the only copy of the secret that its owner may later close it with."""

    room: Room
    owner_token: str | None


class Hub:
    """All rooms of a store and the clients connected to this process."""

    def __init__(
        self, store: RoomStore, config: ServerConfig, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Args:
        store: where the rooms are.
        config: limits and what is handed to clients.
        clock: returns Unix time.
        """
        self.config = config
        self.clock = clock
        self.started_at = clock()
        self.metrics = Metrics()
        self.admission = Admission(config, self.metrics)
        self.pairs = PairBook(config.limits)
        # None: no datagrams are passed on.
        self.tunnels = (
            Tunnels(config.relay, self.role_of, self.metrics, self.admission) if config.relay else None
        )
        self.stopping = False
        self._store = store
        # Every connection, and by client id those that are inside a room.
        self._transports: set[ClientTransport] = set()
        self._attachments: dict[str, Attachment] = {}
        # Goodbyes that the store could not take yet.
        self._overdue: list[tuple[str, Leave | LoseConnection]] = []
        # Goodbyes under way that no connection waits for.
        self._goodbyes: set[asyncio.Task[None]] = set()
        # Set while there is no connection.
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def client_count(self) -> int:
        """Connections to this process."""
        return len(self._transports)

    def queue_sizes(self) -> Iterable[int]:
        """Bytes that wait for each client of this process."""
        return (transport.queued_size for transport in self._transports)

    @property
    def ready(self) -> bool:
        """Whether clients should be sent here."""
        return not self.stopping and self._store.ready

    async def room_count(self) -> int:
        """Return how many rooms there are."""
        return await self._store.count()

    async def create_room(
        self,
        config: RoomConfig,
        *,
        owned: bool = True,
        creator: str | None = None,
        wanted_id: str | None = None,
    ) -> CreatedRoom:
        """Make a room under an id that no other has.

        Args:
            config: what it is like.
            owned: the holder of its token may close it.
            creator: address in whose budget it counts; None: in no budget.
            wanted_id: its id, normalised; None: one is drawn.

        Raises:
            StoreFull: The server has as many rooms as it may have.
            BudgetSpent: The creator has.
            RoomTaken: Another room has the id that is wanted.
        """
        owner_token = _new_token() if owned else None
        if wanted_id is not None:
            # One that is over, and has not been swept yet, is not in the way.
            await self._perform(wanted_id, Expire())
        while True:
            room_id = wanted_id or draw_room_id(secrets.randbelow)
            room = new_room(room_id, config, self.clock(), owner_token=owner_token, creator=creator)
            if await self._store.create(room):
                log.info("room created", room=room_tag(room_id), persistent=config.persistent)
                return CreatedRoom(room, owner_token)
            if wanted_id is not None:
                raise RoomTaken(room_id=wanted_id)

    async def find_room(self, room_id: str) -> Room:
        """Return the room as it is now.

        Raises:
            NoSuchRoom: There is none, or its time is over.
        """
        seen = await self._store.load(room_id)
        if seen is None:
            raise NoSuchRoom(room_id=room_id)
        room, _ = step(seen.room, Expire(), self.clock())
        if room.closed:
            raise NoSuchRoom(room_id=room_id)
        return room

    def members_of(self, room_id: str) -> Collection[str]:
        """Return the ids of the clients in a room that has one here, as far as this process knows."""
        room = self._store.last_known(room_id)
        return () if room is None else room.members.keys()

    def role_of(self, room_id: str, client_id: str) -> Role | None:
        """Return what a client is in a room, as far as this process knows; None if it is not in it."""
        room = self._store.last_known(room_id)
        member = room.members.get(client_id) if room else None
        return member.role if member else None

    async def list_rooms(self, after: str, limit: int) -> list[Room]:
        """Return the first rooms, by id, of those whose id comes after this one."""
        found: list[Room] = []
        for room_id in sorted(await self._store.room_ids()):
            if room_id <= after:
                continue
            if len(found) == limit:
                break
            with contextlib.suppress(NoSuchRoom):
                found.append(await self.find_room(room_id))
        return found

    async def close_room(self, room_id: str, owner_token: str | None) -> None:
        """Close a room in the name of its owner; None: of the operator.

        Raises:
            NoSuchRoom: There is none, or it has another owner; the answer does not tell which.
        """
        effects = await self._perform(room_id, CloseRoom(owner_token))
        if any(isinstance(effect, Refuse) for effect in effects):
            raise NoSuchRoom(room_id=room_id)

    def connect(self, transport: ClientTransport) -> None:
        """Take notice of a connection. Call `disconnect` in the end."""
        self._transports.add(transport)
        self._quiet.clear()
        if self.stopping:
            self._send_away(transport)

    def disconnect(self, transport: ClientTransport) -> None:
        """Forget a connection."""
        self._transports.discard(transport)
        if not self._transports:
            self._quiet.set()

    async def enter(
        self,
        transport: ClientTransport,
        room_id: str,
        role: Role | None,
        address: str = "",
        *,
        hold: float = 0.0,
    ) -> Attachment | None:
        """Bring a new client into a room; a refused connection is closed, and gets no attachment."""
        if self.stopping:
            return None
        client_id = str(uuid4())
        ice = self.ice_servers(client_id)
        command = Enter(client_id, _new_token(), role, ice=ice, address=address, hold=hold)
        return await self._admit(transport, room_id, command)

    async def resume(self, transport: ClientTransport, room_id: str, claim: JoinData) -> Attachment | None:
        """Bring back a client that was inside; a refused connection is closed, and gets no attachment."""
        if self.stopping:
            return None
        await self._catch_up()
        token = claim.resume_token or ""
        handover = await self._take_over(transport, room_id, claim.client_id, token)
        command = Resume(
            claim.client_id,
            token,
            _new_token(),
            received=claim.received,
            handover=handover,
            ice=self.ice_servers(claim.client_id),
        )
        admitted = await self._admit(transport, room_id, command)
        if admitted is None and handover is not None:
            # The older connection is over all the same.
            generation, traffic = handover
            await self._tell_room(
                room_id, LoseConnection(claim.client_id, generation, CONNECTION_LOST, traffic)
            )
        return admitted

    async def _admit(
        self, transport: ClientTransport, room_id: str, command: Enter | Resume
    ) -> Attachment | None:
        admitted: Attachment | None = None

        def dispatch(effects: Effects) -> None:
            nonlocal admitted
            admitted = self._dispatch(effects, transport)
            if admitted is not None and transport not in self._transports:
                # The connection has ended meanwhile, and its session does not know of the attachment.
                self._lose_later(admitted)

        def still_wanted() -> bool:
            # After a wait that was too long for its client, which may be inside by another way by now: then
            # the newer connection would be taken for the older one, and ended.
            return not transport.gone

        try:
            await self._apply(room_id, command, dispatch, still_wanted)
        except StoreUnavailable:
            transport.close(CloseCode.TRY_AGAIN_LATER, ErrorCode.UNAVAILABLE, UNAVAILABLE)
        return admitted

    def _lose_later(self, attachment: Attachment) -> None:
        task = asyncio.create_task(self.lose(attachment, CONNECTION_LOST))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    def ice_servers(self, client_id: str) -> IceServersData:
        """Return what the connections of a client may ask, with credentials that begin to be good now."""
        return ice_servers(self.config.stun_urls, self.config.turn, client_id, self.clock())

    async def _take_over(
        self, transport: ClientTransport, room_id: str, client_id: str, token: str
    ) -> tuple[int, Traffic] | None:
        """End the older connection of a client, if it is here, so that what went over it is known."""
        attachment = self._attachments.get(client_id)
        if attachment is None or attachment.room_id != room_id:
            return None
        try:
            seen = await self._store.load(room_id)
        except StoreUnavailable:
            return None
        member = seen.room.members.get(client_id) if seen else None
        # Client ids are known to peers: an id alone must not end a connection.
        if transport.gone or member is None or not member.accepts(token, self.clock()):
            return None
        attachment.close(CloseCode.REPLACED, ErrorCode.REPLACED, _REPLACED)
        return attachment.generation, await attachment.traffic()

    def relay(self, attachment: Attachment, message: Relayed | Paired) -> Coroutine[Any, Any, None] | None:
        """Relay a message of a client.

        Returns:
            What is left to do, if the store has to be waited for; the client's next message must wait for it.
        """
        if attachment.over:
            return None
        if not isinstance(message, Paired) and self._relay_at_once(attachment, message):
            return None
        command = Relay(attachment.client_id, attachment.generation, message)
        return self._relay_and_wait(attachment, command)

    def _relay_at_once(self, attachment: Attachment, message: Relayed) -> bool:
        """Relay a message if all whom it is for are here, as far as the room knows and really."""
        client_id = attachment.client_id
        room = self._store.at_hand(attachment.room_id)
        if room is None:
            return False
        members = reached(room, client_id, attachment.generation, message, self.clock())
        peers = []
        for member in members:
            peer = self._attachment_of(member.client_id, member.generation)
            if peer is None:
                return False
            peers.append(peer)
        if not peers:
            return False
        attachment.count()
        text = serialize(stamped(message, client_id))
        for peer in peers:
            peer.send(text, counted=True)
        self.metrics.relays[LOCAL] += len(peers)
        return True

    async def _relay_and_wait(self, attachment: Attachment, command: Relay) -> None:
        """The slow twin of relay: for any store, and for messages that change the room."""
        attachment.begin_relay()
        try:
            await self._perform(attachment.room_id, command)
        except StoreUnavailable:
            # A peer would wait for a message that is lost. That a place is not kept is no reason to part.
            if not isinstance(command.message, Paired):
                attachment.refuse_relay()
        finally:
            attachment.end_relay()

    async def leave(self, attachment: Attachment, reason: str) -> None:
        """A client leaves for good."""
        if self._detach(attachment):
            await self._tell_room(
                attachment.room_id, Leave(attachment.client_id, attachment.generation, reason)
            )

    async def lose(self, attachment: Attachment, reason: str, *, died: bool = False) -> None:
        """The connection of a client has ended without a goodbye; died: and its program, as it seems."""
        if self._detach(attachment):
            traffic = await attachment.traffic()
            command = LoseConnection(attachment.client_id, attachment.generation, reason, traffic, died=died)
            await self._tell_room(attachment.room_id, command)

    async def _tell_room(self, room_id: str, command: Leave | LoseConnection) -> None:
        try:
            await self._perform(room_id, command)
        except StoreUnavailable:
            self._overdue.append((room_id, command))

    async def _catch_up(self) -> None:
        """Tell the store the goodbyes that it could not take before."""
        overdue, self._overdue = self._overdue, []
        for room_id, command in overdue:
            await self._tell_room(room_id, command)

    def _detach(self, attachment: Attachment) -> bool:
        """Have nothing more go over a connection; False if that was so already."""
        if self._attachments.get(attachment.client_id) is attachment:
            del self._attachments[attachment.client_id]
        was_over, attachment.over = attachment.over, True
        return not was_over

    async def _apply(
        self, room_id: str, command: Command, dispatch: Dispatch, still_wanted: StillWanted = always_wanted
    ) -> Effects:
        try:
            return await self._store.apply(room_id, command, self.clock(), dispatch, still_wanted)
        except NoSuchRoom:
            effects = (refusal_of(command),) if isinstance(command, Enter | Resume | CloseRoom) else ()
            dispatch(effects)
            return effects

    async def _perform(self, room_id: str, command: Command) -> Effects:
        return await self._apply(room_id, command, self.dispatch)

    def dispatch(self, effects: Effects) -> None:
        """Carry out the effects of a command that no connection waits for."""
        self._dispatch(effects, None)

    async def sweep(self) -> None:
        """Close the rooms whose time is over, and empty the places held too long."""
        await self._catch_up()
        # If rooms cannot be reached, the store has logged that, and the next sweep may fare better.
        with contextlib.suppress(StoreUnavailable):
            for room_id in await self._store.due(self.clock()):
                await self._perform(room_id, Expire())

    # For a store that shares its rooms with other processes.

    def holds(self, client_id: str, generation: int) -> bool:
        """Tell whether this connection of the client is here and speaks for it."""
        return self._attachment_of(client_id, generation) is not None

    def send(self, client_id: str, generation: int, text: str, *, counted: bool) -> None:
        """Send to a connection that is here; counted: it is about a peer and must not get lost."""
        attachment = self._attachment_of(client_id, generation)
        if attachment is not None:
            attachment.send(text, counted=counted)

    async def take_over(self, room_id: str, client_id: str, generation: int) -> None:
        """End a connection whose client has come back elsewhere, and tell the room what went over it."""
        attachment = self._attachment_of(client_id, generation)
        if attachment is not None:
            attachment.close(CloseCode.REPLACED, ErrorCode.REPLACED, _REPLACED)
            lose = LoseConnection(client_id, generation, "it came back elsewhere", await attachment.traffic())
            await self._tell_room(room_id, lose)

    def relayed_elsewhere(self, clients: int) -> None:
        """Count a message of a client here that goes to so many clients of other nodes."""
        self.metrics.relays[REMOTE] += clients

    def close(self, client_id: str, generation: int, code: CloseCode, error: ErrorCode, reason: str) -> None:
        """End a connection that is here; it speaks for the client no longer."""
        attachment = self._attachment_of(client_id, generation)
        if attachment is not None:
            attachment.close(code, error, reason)

    # The end.

    async def drain(self, seconds: float) -> None:
        """Admit no client from now on, and tell those connected to come back, spread over so many seconds.

        Returns when all have gone, or when the time is over.
        """
        self.stopping = True
        loop = asyncio.get_running_loop()
        start = loop.time()
        waiting = list(self._transports)
        total = len(waiting)
        # Told all at once, they would all be back at once.
        while waiting:
            passed = loop.time() - start
            due = total if passed >= seconds else int(total * passed / seconds) + 1
            while waiting and total - len(waiting) < due:
                self._send_away(waiting.pop())
            if waiting:
                await asyncio.sleep(min(_DRAIN_STEP, seconds - passed))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), max(0.0, start + seconds - loop.time()))

    async def stop(self) -> None:
        """Tell every client that the server stops, and wait until all are gone or had their time."""
        self.stopping = True
        if self.tunnels is not None:
            self.tunnels.close()
        for transport in list(self._transports):
            self._send_away(transport)
        # Each connection ends within close_timeout by itself; the margin is for the event loop.
        try:
            await asyncio.wait_for(self._quiet.wait(), self.config.close_timeout + 1.0)
        except TimeoutError:
            log.warning("clients left behind", clients=len(self._transports))

    def _send_away(self, transport: ClientTransport) -> None:
        transport.close(CloseCode.SERVICE_RESTART, ErrorCode.SERVER_STOPPING, "the server is stopping")

    def _dispatch(self, effects: Effects, asker: ClientTransport | None) -> Attachment | None:
        """Carry out effects; return the attachment of the connection that asked to come in."""
        message: Message | None = None
        text = ""
        admitted: Attachment | None = None
        for effect in effects:
            match effect:
                case Deliver():
                    # A broadcast is the same message many times: it is serialized once.
                    if effect.message is not message:
                        message, text = effect.message, serialize(effect.message)
                    attachment = self._attachment_of(effect.client_id, effect.member.generation)
                    if attachment is not None:
                        attachment.send(text, counted=not isinstance(message, Error))
                        self.metrics.relays[LOCAL] += isinstance(message, _RELAYED)
                case Admit():
                    assert asker is not None
                    admitted = self._attachment(asker, effect)
                case Refuse():
                    if asker is not None:
                        asker.close(effect.close_code, effect.error_code, effect.reason)
                case CloseClient():
                    attachment = self._attachment_of(effect.client_id, effect.member.generation)
                    if attachment is not None:
                        attachment.close(effect.close_code, effect.error_code, effect.reason)
                case RoomClosed():
                    log.info("room closed", room=room_tag(effect.room_id), reason=effect.error_code.value)
                case _:
                    assert_never(effect)
        return admitted

    def _attachment_of(self, client_id: str, generation: int) -> Attachment | None:
        attachment = self._attachments.get(client_id)
        return (
            attachment
            if attachment is not None and attachment.generation == generation and not attachment.over
            else None
        )

    def _attachment(self, transport: ClientTransport, effect: Admit) -> Attachment:
        room_id = effect.joined.data.room_id
        attachment = Attachment(transport, room_id, effect.member, sent=effect.sent, received=effect.received)
        self._attachments[attachment.client_id] = attachment
        attachment.send(serialize(self._with_tunnel(effect.joined)), counted=False)
        for text in effect.replay:
            attachment.send(text, counted=True)
        return attachment

    def _with_tunnel(self, joined: Joined) -> Joined:
        """Add what the client needs for a tunnel, if there are any."""
        if self.tunnels is None:
            return joined
        token = self.tunnels.token(joined.data.room_id, joined.data.client_id)
        tunnel = Tunnel(token=token, max_datagram_size=self.tunnels.config.max_datagram_size)
        return Joined(structs.replace(joined.data, tunnel=tunnel))


def _new_token() -> str:
    return secrets.token_urlsafe(_TOKEN_SIZE)
