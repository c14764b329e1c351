"""A room as a pure function: (room, command, now) -> (room, effects).

A room holds one sender and its receivers and decides who may say what to whom:

    offer           the sender to one receiver or to all
    answer          a receiver to the sender
    ice_candidate   the sender to one receiver or to all; a receiver to the sender

A receiver never reaches another receiver. What is not allowed is answered to the speaker alone.

    no sender  --Join-->  sender inside  --Leave of the sender-->  closed, or no sender again (persistent)
    any        --time-->  closed

This module knows no sockets, no clock and no randomness: `now` is Unix time in seconds, because rooms outlive
processes, and client ids are made by the caller. A store wraps `step` in one compare-and-set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import assert_never

from flyx.errors import LocalProtocolError
from flyx.signaling.messages import (
    MAX_MESSAGE_SIZE,
    Answer,
    CloseCode,
    Disconnect,
    DisconnectData,
    ErrorCode,
    IceCandidate,
    IceServer,
    Join,
    Joined,
    JoinedData,
    Limits,
    Message,
    Offer,
    Peer,
    Relayed,
    Role,
    error_message,
)

DEFAULT_MAX_CLIENTS = 16
DEFAULT_TTL = 24 * 3600.0
DEFAULT_IDLE_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """What may be chosen when a room is made.

    Attributes:
        max_clients: Most clients at a time, the sender included.
        ttl: Seconds from creation to the end of the room, whoever is inside; None: no end.
        idle_timeout: Seconds that a room without anybody inside is kept, unless it is persistent.
        persistent: The room outlives its sender and waits for the next one.
    """

    max_clients: int = DEFAULT_MAX_CLIENTS
    ttl: float | None = DEFAULT_TTL
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT
    persistent: bool = False


class RoomStatus(Enum):
    """Where a room is in its life."""

    WAITING = "waiting"  # no sender
    OPEN = "open"  # its sender is inside
    CLOSED = "closed"  # over: whoever keeps rooms forgets it


@dataclass(frozen=True, slots=True)
class Room:
    """One room at one moment.

    Attributes:
        room_id: Normalised, see flyx.signaling.codes.
        config: Chosen at creation, never changed.
        created_at: Unix time.
        owner_token_hash: Hash of the secret that its maker holds; None: made without one.
        empty_since: Unix time at which the last client left; None while somebody is inside.
        sender_id: None while there is no sender.
        receiver_ids: In order of arrival.
        closed: Nothing can happen here any more.
    """

    room_id: str
    config: RoomConfig
    created_at: float
    owner_token_hash: str | None = None
    empty_since: float | None = None
    sender_id: str | None = None
    receiver_ids: tuple[str, ...] = ()
    closed: bool = False

    @property
    def status(self) -> RoomStatus:
        """Where the room is in its life."""
        if self.closed:
            return RoomStatus.CLOSED
        return RoomStatus.WAITING if self.sender_id is None else RoomStatus.OPEN

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Everybody inside, the sender first."""
        return self.receiver_ids if self.sender_id is None else (self.sender_id, *self.receiver_ids)

    @property
    def expires_at(self) -> float | None:
        """Unix time at which the room ends whoever is inside; None: never."""
        return None if self.config.ttl is None else self.created_at + self.config.ttl

    @property
    def deadline(self) -> float:
        """Unix time from which an Expire closes the room, as things stand; infinite if none does."""
        oldest = inf if self.expires_at is None else self.expires_at
        if self.empty_since is None or self.config.persistent:
            return oldest
        return min(oldest, self.empty_since + self.config.idle_timeout)

    def role_of(self, client_id: str) -> Role | None:
        """Return what client_id is here; None if it is not inside."""
        if client_id == self.sender_id:
            return Role.SENDER
        return Role.RECEIVER if client_id in self.receiver_ids else None


def new_room(room_id: str, config: RoomConfig, now: float, *, owner_token_hash: str | None = None) -> Room:
    """Return a room without anybody inside."""
    return Room(
        room_id=room_id,
        config=config,
        created_at=now,
        owner_token_hash=owner_token_hash,
        empty_since=now,
    )


# Commands.


@dataclass(frozen=True, slots=True)
class Enter:
    """A client has connected.

    Attributes:
        client_id: New; made by the server.
        role: The only role that it will have; None: whichever is free.
        ice_servers: To be handed to it.
    """

    client_id: str
    role: Role | None = None
    ice_servers: tuple[IceServer, ...] = ()


@dataclass(frozen=True, slots=True)
class Relay:
    """A client has something to say to its peers."""

    client_id: str
    message: Relayed


@dataclass(frozen=True, slots=True)
class Leave:
    """A client has gone, or is about to go; reason is for people."""

    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Expire:
    """Time has passed: close the room if its deadline has."""


Command = Enter | Relay | Leave | Expire


# Effects.


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send message to a client inside."""

    client_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Tell a client why with a fatal `error`, then close its connection. It is no longer inside.

    Attributes:
        client_id: Somebody who was inside until now, or who asked to come in.
        close_code: For the close frame.
        error_code: For the `error`.
        reason: A sentence for people.
    """

    client_id: str
    close_code: CloseCode
    error_code: ErrorCode
    reason: str


@dataclass(frozen=True, slots=True)
class RoomClosed:
    """The room is over."""

    room_id: str
    error_code: ErrorCode


Effect = Deliver | CloseClient | RoomClosed
Effects = tuple[Effect, ...]


def step(room: Room, command: Command, now: float) -> tuple[Room, Effects]:
    """Apply one command and say what has to be done about it, in order.

    A room whose deadline has passed closes first, whatever the command is. The same room object comes back
    when nothing changed, so that a store can tell that there is nothing to write.

    Args:
        room: As the last step left it.
        command: What happened.
        now: Unix time in seconds. May go backwards; a room then merely lives longer.

    Raises:
        LocalProtocolError: A client enters a room that it is in.
    """
    if not room.closed and now >= room.deadline:
        expired, effects = _close(room, ErrorCode.ROOM_EXPIRED, "the room has expired")
        _, refusal = _step_closed(expired, command)
        return expired, effects + refusal
    if room.closed:
        return _step_closed(room, command)
    match command:
        case Enter():
            return _enter(room, command)
        case Relay():
            return room, _relay(room, command)
        case Leave():
            return _leave(room, command, now)
        case Expire():
            return room, ()
        case _:
            assert_never(command)


def missing_room(client_id: str) -> CloseClient:
    """Return the answer to a client that asked for a room that is not there.

    It is the same for an id that nobody has, one that nobody can have, a room that is over and, for a client
    that must be a receiver, a room without a sender: who guesses learns as little as possible.
    """
    return CloseClient(
        client_id,
        CloseCode.NO_SUCH_ROOM,
        ErrorCode.NO_SUCH_ROOM,
        "no sender is waiting under this code",
    )


def _step_closed(room: Room, command: Command) -> tuple[Room, Effects]:
    if isinstance(command, Enter):
        return room, (missing_room(command.client_id),)
    return room, ()


def _close(room: Room, error_code: ErrorCode, reason: str) -> tuple[Room, Effects]:
    closed = replace(room, sender_id=None, receiver_ids=(), closed=True)
    told = (CloseClient(c, CloseCode.ROOM_CLOSED, error_code, reason) for c in room.client_ids)
    return closed, (*told, RoomClosed(room.room_id, error_code))


def _enter(room: Room, command: Enter) -> tuple[Room, Effects]:
    client_id = command.client_id
    if room.role_of(client_id) is not None:
        raise LocalProtocolError(reason=f"client {client_id} is already in the room")
    role = command.role or (Role.SENDER if room.sender_id is None else Role.RECEIVER)
    refusal = _refusal(room, client_id, role)
    if refusal is not None:
        return room, (refusal,)
    if role is Role.SENDER:
        after = replace(room, sender_id=client_id, empty_since=None)
        peers = tuple(Peer(client_id=r, role=Role.RECEIVER) for r in room.receiver_ids)
    else:
        after = replace(room, receiver_ids=(*room.receiver_ids, client_id), empty_since=None)
        peers = tuple(Peer(client_id=s, role=Role.SENDER) for s in (room.sender_id,) if s is not None)
    joined = Joined(
        data=JoinedData(
            room_id=room.room_id,
            client_id=client_id,
            role=role,
            expires_at=room.expires_at,
            peers=peers,
            ice_servers=command.ice_servers,
            limits=Limits(max_message_size=MAX_MESSAGE_SIZE, max_clients=room.config.max_clients),
        )
    )
    return after, (Deliver(client_id, joined), *_introductions(after, client_id, role))


def _refusal(room: Room, client_id: str, role: Role) -> CloseClient | None:
    if role is Role.RECEIVER and room.sender_id is None:
        return missing_room(client_id)
    if role is Role.SENDER and room.sender_id is not None:
        reason = "this room has a sender already"
        return CloseClient(client_id, CloseCode.NOT_ALLOWED, ErrorCode.ROLE_TAKEN, reason)
    if len(room.client_ids) >= room.config.max_clients:
        reason = f"the room has as many clients as it may have ({room.config.max_clients})"
        return CloseClient(client_id, CloseCode.ROOM_FULL, ErrorCode.ROOM_FULL, reason)
    return None


def _introductions(room: Room, newcomer: str, role: Role) -> Effects:
    """The sender hears of every receiver, each receiver of the sender, and nobody of anybody else."""
    if role is Role.RECEIVER:
        # A receiver is let in only where a sender is.
        assert room.sender_id is not None
        return (Deliver(room.sender_id, Join(data=Peer(client_id=newcomer, role=role))),)
    present = (Join(data=Peer(client_id=r, role=Role.RECEIVER)) for r in room.receiver_ids)
    arrival = Join(data=Peer(client_id=newcomer, role=role))
    return (
        *(Deliver(newcomer, join) for join in present),
        *(Deliver(receiver, arrival) for receiver in room.receiver_ids),
    )


def _relay(room: Room, command: Relay) -> Effects:
    speaker, message = command.client_id, command.message
    role = room.role_of(speaker)
    if role is None:
        # It spoke while it was being closed.
        return ()
    match message:
        case Offer():
            if role is not Role.SENDER:
                return _answer(speaker, ErrorCode.WRONG_ROLE, "only the sender makes offers")
            targets = _receivers(room, message.data.target_id)
        case Answer():
            if role is not Role.RECEIVER:
                return _answer(speaker, ErrorCode.WRONG_ROLE, "only receivers answer")
            targets = _sender(room)
        case IceCandidate():
            targets = _receivers(room, message.data.target_id) if role is Role.SENDER else _sender(room)
        case _:
            assert_never(message)
    if not targets:
        return _answer(speaker, ErrorCode.NO_SUCH_PEER, "there is nobody here to whom this could go")
    stamped = _stamp(message, speaker)
    return tuple(Deliver(target, stamped) for target in targets)


def _receivers(room: Room, target_id: str | None) -> tuple[str, ...]:
    if target_id is None:
        return room.receiver_ids
    return (target_id,) if target_id in room.receiver_ids else ()


def _sender(room: Room) -> tuple[str, ...]:
    return () if room.sender_id is None else (room.sender_id,)


def _stamp(message: Relayed, speaker: str) -> Relayed:
    """Return message with its true speaker; whom it was meant for is nobody else's business."""
    stamp: dict[str, str | None] = {"client_id": speaker}
    if not isinstance(message, Answer):
        stamp["target_id"] = None
    return message.model_copy(update={"data": message.data.model_copy(update=stamp)})


def _answer(speaker: str, code: ErrorCode, text: str) -> Effects:
    return (Deliver(speaker, error_message(code, text)),)


def _leave(room: Room, command: Leave, now: float) -> tuple[Room, Effects]:
    client_id = command.client_id
    role = room.role_of(client_id)
    if role is None:
        return room, ()
    goodbye = Disconnect(data=DisconnectData(client_id=client_id, reason=command.reason))
    if role is Role.RECEIVER:
        rest = tuple(r for r in room.receiver_ids if r != client_id)
        after = replace(room, receiver_ids=rest)
        effects: Effects = tuple(Deliver(sender, goodbye) for sender in _sender(room))
    else:
        after = replace(room, sender_id=None)
        effects = tuple(Deliver(receiver, goodbye) for receiver in room.receiver_ids)
        if not room.config.persistent:
            after, closing = _close(after, ErrorCode.ROOM_CLOSED, "the sender has left the room")
            return after, effects + closing
    if not after.client_ids:
        after = replace(after, empty_since=now)
    return after, effects
