"""A room as text, for stores that keep rooms outside the process.

    record  = JSON object, `version` 1, without what has its default value; see the models below

A record of a later release may have fields that are not known here, and they are ignored: a new field must be
one that an older release can do without. For any other change `version` rises, with that of the file in
flyx.server.rooms.sqlite, which an older release then refuses.

A record comes from a disk or a database that others can write to: `load_room` believes nothing that a room
could not be. Tokens are in it as hashes only; addresses, and the messages kept for those away, are in it as
they are.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta
from msgspec.json import Decoder, encode

from flyx.grammar import HEX_256, MALFORMED, JsonObject, fault_in
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import (
    MAX_ADDRESS_LENGTH,
    MAX_MAILBOX_LENGTH,
    MAX_TAIL_LENGTH,
    Absence,
    Member,
    Traffic,
)
from flyx.signaling.messages import MAX_CLIENT_ID_LENGTH, Role
from flyx.signaling.room import Room

VERSION: Final = 1

_Span = Annotated[float, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=0)]
_Hash = Annotated[str, Meta(pattern=HEX_256)]


class BadRecord(ValueError):
    """The text is not the record of a room; the message says where, and repeats nothing of it."""


class _Config(JsonObject, kw_only=True):
    max_clients: Annotated[int, Meta(ge=1)]
    ttl: _Span | None = None
    idle_timeout: _Span
    persistent: bool = False
    grace: _Span
    max_hold: _Span = 0.0
    unused_timeout: _Span | None = None


class _Traffic(JsonObject):
    received: _Count = 0
    sent: _Count = 0
    tail: Annotated[tuple[str, ...], Meta(max_length=MAX_TAIL_LENGTH)] = ()


class _Absence(JsonObject):
    until: float
    traffic: _Traffic | None = None
    mailbox: Annotated[tuple[str, ...], Meta(max_length=MAX_MAILBOX_LENGTH)] = ()
    settled: bool = True


class _Member(JsonObject, kw_only=True):
    client_id: Annotated[str, Meta(min_length=1, max_length=MAX_CLIENT_ID_LENGTH)]
    role: Role
    generation: _Count
    node: Annotated[str, Meta(max_length=200)] = ""
    token_hash: _Hash
    old_token_hash: _Hash | None = None
    old_token_until: float = 0.0
    old_token_counts: bool = False
    absence: _Absence | None = None
    address: Annotated[str, Meta(max_length=MAX_ADDRESS_LENGTH)] = ""
    paired: bool = False
    hold: _Span = 0.0


class _Room(JsonObject, kw_only=True):
    version: Literal[1]
    room_id: Annotated[str, Meta(min_length=1, max_length=64)]
    config: _Config
    created_at: float
    owner_token_hash: _Hash | None = None
    creator: Annotated[str, Meta(max_length=MAX_ADDRESS_LENGTH)] | None = None
    empty_since: float | None = None
    members: tuple[_Member, ...] = ()
    generation: _Count = 0


_DECODER: Final = Decoder(_Room)


def dump_room(room: Room) -> str:
    """Return the record of a room that is not closed."""
    assert not room.closed
    record = _Room(
        version=VERSION,
        room_id=room.room_id,
        config=_Config(
            max_clients=room.config.max_clients,
            ttl=room.config.ttl,
            idle_timeout=room.config.idle_timeout,
            persistent=room.config.persistent,
            grace=room.config.grace,
            max_hold=room.config.max_hold,
            unused_timeout=room.config.unused_timeout,
        ),
        created_at=room.created_at,
        owner_token_hash=room.owner_token_hash,
        creator=room.creator,
        empty_since=room.empty_since,
        members=tuple(_dump_member(member) for member in room.members.values()),
        generation=room.generation,
    )
    return encode(record).decode()


def load_room(text: str | bytes) -> Room:
    """Return the room of a record.

    Raises:
        BadRecord: text is none.
    """
    try:
        record = _DECODER.decode(text)
    except MALFORMED as error:
        raise BadRecord("{}: {}".format(*fault_in(error))) from error
    members = {member.client_id: _load_member(member) for member in record.members}
    senders = sum(member.role is Role.SENDER for member in members.values())
    if len(members) != len(record.members) or senders > 1:
        raise BadRecord("members: somebody is inside twice")
    if any(member.generation > record.generation for member in members.values()):
        raise BadRecord("generation: older than a member")
    if (record.empty_since is None) != bool(members):
        raise BadRecord("empty_since: does not go with members")
    config = record.config
    return Room(
        room_id=record.room_id,
        config=RoomConfig(
            max_clients=config.max_clients,
            ttl=config.ttl,
            idle_timeout=config.idle_timeout,
            persistent=config.persistent,
            grace=config.grace,
            max_hold=config.max_hold,
            unused_timeout=config.unused_timeout,
        ),
        created_at=record.created_at,
        owner_token_hash=record.owner_token_hash,
        creator=record.creator,
        empty_since=record.empty_since,
        members=members,
        generation=record.generation,
    )


def _dump_member(member: Member) -> _Member:
    absence = member.absence
    return _Member(
        client_id=member.client_id,
        role=member.role,
        generation=member.generation,
        node=member.node,
        token_hash=member.token_hash,
        old_token_hash=member.old_token_hash,
        old_token_until=member.old_token_until,
        old_token_counts=member.old_token_counts,
        absence=None if absence is None else _dump_absence(absence),
        address=member.address,
        paired=member.paired,
        hold=member.hold,
    )


def _dump_absence(absence: Absence) -> _Absence:
    traffic = absence.traffic
    known = (
        None if traffic is None else _Traffic(received=traffic.received, sent=traffic.sent, tail=traffic.tail)
    )
    return _Absence(until=absence.until, traffic=known, mailbox=absence.mailbox, settled=absence.settled)


def _load_member(member: _Member) -> Member:
    absence = member.absence
    return Member(
        client_id=member.client_id,
        role=member.role,
        generation=member.generation,
        node=member.node,
        token_hash=member.token_hash,
        old_token_hash=member.old_token_hash,
        old_token_until=member.old_token_until,
        old_token_counts=member.old_token_counts,
        absence=None if absence is None else _load_absence(absence),
        address=member.address,
        paired=member.paired,
        hold=member.hold,
    )


def _load_absence(absence: _Absence) -> Absence:
    traffic = absence.traffic
    if traffic is None:
        return Absence(absence.until, None)
    if traffic.sent < len(traffic.tail):
        raise BadRecord("traffic: more kept than sent")
    return Absence(
        absence.until,
        Traffic(traffic.received, traffic.sent, traffic.tail),
        absence.mailbox,
        absence.settled,
    )
