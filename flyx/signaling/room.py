"""A room as a pure function: (room, command, now) -> (room, effects).

A room holds one sender and its receivers and decides which messages each may send to which:

    offer           the sender to one receiver or to all
    answer          a receiver to the sender
    ice_candidate   the sender to one receiver or to all; a receiver to the sender
    paired          the sender to the room: this receiver keeps its place (flyx.signaling.places)

A receiver never reaches another receiver. What is not allowed is answered to the speaker alone.

    no sender  --Enter-->  sender inside  --the sender leaves-->  closed, or no sender again (persistent)
    any        --time, or CloseRoom by the owner-->  closed

    connected  --LoseConnection-->  away, its place held (see RoomConfig)  --Resume-->  connected
                               `--time-->  as if it had left

Every connection has a generation, and what is done in the name of an older one changes nothing. What is kept
for those away is told in flyx.signaling.members.

This module knows no sockets, no clock and no randomness: `now` is Unix time in seconds, because rooms outlive
processes, and ids and tokens are made by the caller. A store wraps `step` in one compare-and-set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from typing import assert_never

from flyx.errors import LocalProtocolError
from flyx.signaling.announcements import farewell_of, join_of, joined_of, stamped
from flyx.signaling.commands import (
    Admit,
    AppendMissed,
    CloseClient,
    CloseRoom,
    Command,
    Deliver,
    Disconnection,
    Effect,
    Effects,
    Enter,
    Expire,
    Leave,
    LoseConnection,
    LoseNode,
    Refuse,
    Relay,
    Restart,
    Resume,
    RoomClosed,
)
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import MAX_KEPT_SIZE, NOBODY, Absence, Member, Traffic, hash_token, matches
from flyx.signaling.messages import (
    Answer,
    CloseCode,
    Disconnect,
    ErrorCode,
    IceCandidate,
    Join,
    Joined,
    Offer,
    Paired,
    Relayed,
    Role,
    error_message,
    serialize,
)
from flyx.signaling.places import held_for, who_gives_way
from flyx.signaling.refusals import MISSING_ROOM, MISSING_SESSION, refusal_of


class RoomStatus(Enum):
    """Where a room is in its life."""

    WAITING = "waiting"  # no sender
    OPEN = "open"  # its sender is inside
    CLOSED = "closed"  # over: its store forgets it


@dataclass(frozen=True, slots=True)
class Room:
    """One room at one moment. A value: nothing in it is ever changed.

    Attributes:
        room_id: normalised, see flyx.signaling.codes.
        config: chosen at creation, never changed.
        created_at: Unix time.
        owner_token_hash: hash of the secret that its maker holds; None: made without one.
        creator: address of its maker, in whose budget it counts as long as it lives; None: in no budget.
        empty_since: Unix time at which the last client left; None while any is inside, also if away.
        members: by client id, in order of arrival.
        generation: of the newest connection of any client.
        closed: nothing can happen here any more.
        sender: None while there is no sender. Follows from members.
        receivers: in order of arrival. Follows from members.
        deadline: Unix time from which an Expire changes the room, as things stand; infinite if none does.
            Follows from the rest.
    """

    room_id: str
    config: RoomConfig
    created_at: float
    owner_token_hash: str | None = None
    creator: str | None = None
    empty_since: float | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    generation: int = 0
    closed: bool = False
    sender: Member | None = field(init=False, compare=False, default=None)
    receivers: tuple[Member, ...] = field(init=False, compare=False, default=())
    deadline: float = field(init=False, compare=False, default=inf)

    def __post_init__(self) -> None:
        members = self.members.values()
        # Computed once, because relaying asks for all of it every time.
        object.__setattr__(self, "sender", next((m for m in members if m.role is Role.SENDER), None))
        object.__setattr__(self, "receivers", tuple([m for m in members if m.role is Role.RECEIVER]))
        ends = [m.absence.until for m in members if m.absence]
        object.__setattr__(self, "deadline", min([self.end, *ends]))

    @property
    def status(self) -> RoomStatus:
        """Where the room is in its life."""
        if self.closed:
            return RoomStatus.CLOSED
        return RoomStatus.WAITING if self.sender is None else RoomStatus.OPEN

    @property
    def expires_at(self) -> float | None:
        """Unix time from which the room is over when it has no sender; None: never."""
        return None if self.config.ttl is None else self.created_at + self.config.ttl

    @property
    def end(self) -> float:
        """Unix time from which the room is over, whatever becomes of those inside; infinite if never."""
        # A client waits, be it for a week.
        oldest = inf if self.expires_at is None or self.sender is not None else self.expires_at
        if self.empty_since is None:
            return oldest
        idle: float | None = self.config.idle_timeout
        if self.config.persistent:
            idle = None if self.entered else self.config.unused_timeout
        return oldest if idle is None else min(oldest, self.empty_since + idle)

    @property
    def longest_hold(self) -> float:
        """Seconds for which a place is held at most; see RoomConfig."""
        longest = self.config.max_hold
        return min(longest, self.config.idle_timeout) if self.creator is None else longest

    @property
    def entered(self) -> bool:
        """Whether any client has ever been inside."""
        return self.generation > 0

    def receiver(self, client_id: str) -> Member | None:
        """Return the receiver of this id, if there is one."""
        member = self.members.get(client_id)
        return member if member is not None and member.role is Role.RECEIVER else None

    def audience(self, role: Role, message: Relayed) -> tuple[Member, ...] | None:
        """Return for whom a message is, connected or away; None if no client of this role may send it."""
        match message:
            case Offer() if role is Role.SENDER:
                target_id = message.data.target_id
            case Answer() if role is Role.RECEIVER:
                target_id = None
            case IceCandidate():
                target_id = message.data.target_id if role is Role.SENDER else None
            case _:
                return None
        if target_id is None:
            return _peers_of(self, role)
        target = self.receiver(target_id)
        return () if target is None else (target,)


def new_room(
    room_id: str,
    config: RoomConfig,
    now: float,
    *,
    owner_token: str | None = None,
    creator: str | None = None,
) -> Room:
    """Return an empty room, which the holder of owner_token may close."""
    return Room(
        room_id=room_id,
        config=config,
        created_at=now,
        owner_token_hash=None if owner_token is None else hash_token(owner_token),
        creator=creator,
        empty_since=now,
    )


def reached(room: Room, client_id: str, generation: int, message: Relayed, now: float) -> tuple[Member, ...]:
    """Return to whom a message goes, if to tell them is all that comes of it; else none: step() knows.

    The fast twin of step() with a Relay of these; `now` is Unix time in seconds.
    """
    speaker = room.members.get(client_id)
    if (
        speaker is None
        or speaker.generation != generation
        or speaker.absence is not None
        or now >= room.deadline
        or room.closed
    ):
        return ()
    audience = room.audience(speaker.role, message) or ()
    for member in audience:
        if member.absence is not None:
            return ()
    return audience


def step(room: Room, command: Command, now: float) -> tuple[Room, Effects]:
    """Apply one command and return its effects, in order.

    What was due before `now` happens first, whatever the command is. The same room object comes back when
    nothing changed, so that a store can tell that there is nothing to write: it does for messages between
    clients that are connected.

    Args:
        room: as the last step left it.
        command: what happened.
        now: Unix time in seconds. May go backwards; a room then merely lives longer.

    Raises:
        LocalProtocolError: A client enters a room that it is in.
    """
    turn = _Step(room, now)
    # Before anything is sent: a message to a lost connection would be missing, and no client would know.
    lost = () if isinstance(command, Relay) else turn.cut(command)
    if now >= room.deadline and not room.closed:
        turn.catch_up(lost)
    if turn.closed:
        if isinstance(command, Enter | Resume | CloseRoom):
            turn.effects.append(refusal_of(command))
        return turn.end()
    match command:
        case Relay():
            turn.relay(command)
        case Enter():
            turn.enter(command)
        case Resume():
            turn.resume(command)
        case Leave():
            member = turn.member(command.client_id, command.generation)
            if member is not None:
                turn.depart(member, command.reason)
        case LoseConnection() | LoseNode():
            turn.tell_of_loss(lost, command.reason)
        case AppendMissed():
            turn.amend(command)
            turn.tell_of_loss(lost, "its server lost messages")
        case CloseRoom():
            if command.owner_token is None:
                turn.close(ErrorCode.ROOM_CLOSED, "the room was closed by the operator of the server")
            elif matches(command.owner_token, room.owner_token_hash):
                turn.close(ErrorCode.ROOM_CLOSED, "the room was closed by its owner")
            else:
                turn.effects.append(MISSING_ROOM)
        case Expire() | Restart():
            pass
        case _:
            assert_never(command)
    return turn.end()


class _Step:
    """One step under way: what the room is becoming, and the effects so far."""

    __slots__ = ("_room", "closed", "effects", "generation", "members", "now")

    def __init__(self, room: Room, now: float) -> None:
        self._room = room
        self.now = now
        # Replaced, never changed: until something changes, it is the room's own.
        self.members = room.members
        self.generation = room.generation
        self.closed = room.closed
        self.effects: list[Effect] = []

    def end(self) -> tuple[Room, Effects]:
        """Return what step returns."""
        return self.room, tuple(self.effects)

    @property
    def room(self) -> Room:
        """What the room has become."""
        room = self._room
        if self.members is room.members and self.closed is room.closed:
            return room
        empty_since = None if self.members else self.now if room.members else room.empty_since
        return replace(
            room,
            members=self.members,
            generation=self.generation,
            empty_since=empty_since,
            closed=self.closed,
        )

    def member(self, client_id: str, generation: int) -> Member | None:
        """Return the member whose newest connection this is."""
        member = self.members.get(client_id)
        return member if member is not None and member.generation == generation else None

    @property
    def sender(self) -> Member | None:
        if self.members is self._room.members:
            return self._room.sender
        return next((m for m in self.members.values() if m.role is Role.SENDER), None)

    @property
    def receivers(self) -> tuple[Member, ...]:
        if self.members is self._room.members:
            return self._room.receivers
        return tuple(m for m in self.members.values() if m.role is Role.RECEIVER)

    def put(self, member: Member) -> None:
        self.members = {**self.members, member.client_id: member}

    # What happens.

    def catch_up(self, lost: Collection[str]) -> None:
        """Let time have its effects: first the places that are held no longer, then the room.

        Args:
            lost: clients whose connection is lost just now, whatever their grace time.
        """
        overdue = [
            member
            for member in self.members.values()
            if member.absence and member.absence.until <= self.now and member.client_id not in lost
        ]
        for member in overdue:
            if member.client_id in self.members:
                self.depart(member, "it did not come back")
        if not self.closed and self.now >= self.room.end:
            self.close(ErrorCode.ROOM_EXPIRED, "the room has expired")

    def close(self, error_code: ErrorCode, reason: str) -> None:
        for member in self.members.values():
            if member.absence is None:
                self.effects.append(CloseClient(member, CloseCode.ROOM_CLOSED, error_code, reason))
        self.effects.append(RoomClosed(self._room.room_id, error_code))
        self.members = {}
        self.closed = True

    def enter(self, command: Enter) -> None:
        client_id = command.client_id
        if client_id in self.members:
            raise LocalProtocolError(reason=f"client {client_id} is already in the room")
        sender = self.sender
        role = command.role or (Role.SENDER if sender is None else Role.RECEIVER)
        refusal = self._refusal(role, command.address)
        if refusal is not None:
            self.effects.append(refusal)
            return
        if role is Role.SENDER:
            # What an earlier sender told of them does not hold for this one.
            for receiver in self.receivers:
                self.put(replace(receiver, paired=False))
        self.generation += 1
        token_hash = hash_token(command.resume_token)
        member = Member(
            client_id,
            role,
            self.generation,
            command.node,
            token_hash,
            address=command.address,
            hold=min(command.hold, self._room.longest_hold),
        )
        self.put(member)
        self.effects.append(Admit(member, self._joined(member, command)))
        self._introduce(member)

    def _refusal(self, role: Role, address: str) -> Refuse | None:
        """Return why a client cannot come in; None if there is a place, if need be another's."""
        if role is Role.RECEIVER and self.sender is None:
            return MISSING_ROOM
        if role is Role.SENDER and self.sender is not None:
            return Refuse(CloseCode.NOT_ALLOWED, ErrorCode.ROLE_TAKEN, "this room has a sender already")
        limit = self._room.config.max_clients
        if len(self.members) < limit:
            return None
        # A sender that does not tell which of them have paired may be serving all.
        tells = self.sender is not None and self.sender.paired
        other = who_gives_way(self.receivers, address) if tells else None
        if other is None:
            reason = f"the room has as many clients as it may have ({limit})"
            return Refuse(CloseCode.ROOM_FULL, ErrorCode.ROOM_FULL, reason)
        reason = "the room is full, and this client had waited longest without pairing"
        if other.absence is None:
            self.effects.append(CloseClient(other, CloseCode.ROOM_FULL, ErrorCode.DISPLACED, reason))
        self.depart(other, "it made way for another client")
        return None

    def _joined(
        self, member: Member, command: Enter | Resume, *, recovered: bool = False, received: int = 0
    ) -> Joined:
        return joined_of(
            member,
            _peers_of(self, member.role),
            room_id=self._room.room_id,
            expires_at=self._room.expires_at,
            resume_token=command.resume_token,
            ice=command.ice,
            recovered=recovered,
            received=received,
            max_clients=self._room.config.max_clients,
            held_for=held_for(member, self._room.config.grace),
        )

    def _introduce(self, newcomer: Member, *, recovered: bool = False) -> None:
        """The sender is told of every receiver, each receiver of the sender, and no client of any other."""
        peers = _peers_of(self, newcomer.role)
        if newcomer.role is Role.SENDER and not recovered:
            for peer in peers:
                if peer.absence is None:
                    self.tell([newcomer], join_of(peer))
        self.tell(peers, join_of(newcomer, recovered=recovered))

    def resume(self, command: Resume) -> None:
        member = self.members.get(command.client_id, NOBODY)
        if not member.accepts(command.shown_token, self.now):
            self.effects.append(MISSING_SESSION)
            return
        older = self._room.members[command.client_id]
        was_connected = older.absence is None
        if was_connected:
            reason = "a newer connection of the same client took its place"
            self.effects.append(CloseClient(older, CloseCode.REPLACED, ErrorCode.REPLACED, reason))
        # Connected as far as the room knows, and what went over that connection is unknown.
        before = member.absence or Absence(self.now, None)
        counts = member.old_token_counts or matches(command.shown_token, member.token_hash)
        replay = before.since(command.received if counts else None)
        recovered = replay is not None
        received = before.traffic.received if before.traffic and recovered else 0
        self.generation += 1
        back = replace(
            member,
            generation=self.generation,
            node=command.node,
            token_hash=hash_token(command.resume_token),
            old_token_hash=hash_token(command.shown_token),
            old_token_until=self.now + self._room.config.grace,
            old_token_counts=recovered,
            absence=None,
        )
        self.put(back)
        joined = self._joined(back, command, recovered=recovered, received=received)
        sent = (command.received or 0) if recovered else 0
        self.effects.append(Admit(back, joined, sent, received, replay or ()))
        # Peers that never missed it need not be told.
        if not was_connected or not recovered:
            self._introduce(back, recovered=recovered)

    def cut(self, command: Command) -> tuple[str, ...]:
        """Take note of the connections that are over before command; return whose, for tell_of_loss."""
        if not isinstance(command, Disconnection):
            return ()
        connected = [m for m in self.members.values() if m.absence is None]
        traffic: Traffic | None = None
        settled, died = True, False
        match command:
            case LoseConnection():
                lost = [m for m in connected if m is self.member(command.client_id, command.generation)]
                traffic, settled, died = command.traffic, command.settled, command.died
            case Resume():
                if command.handover is None:
                    return ()
                generation, traffic = command.handover
                claimed = self.member(command.client_id, generation)
                lost = [m for m in connected if m is claimed and m.accepts(command.shown_token, self.now)]
            case LoseNode():
                lost = [m for m in connected if m.node == command.node]
            case AppendMissed():
                # If there is anything that it should have been given, it has come back without.
                lost = [m for m in connected if m.client_id == command.client_id and command.texts != ()]
            case Restart():
                lost = connected
            case _:
                assert_never(command)
        for member in lost:
            grace = self._room.config.grace
            until = self.now + (grace if died else held_for(member, grace))
            absence = Absence(until, traffic, settled=settled)
            if absence.size > self._space():
                absence = Absence(until, None)
            self.put(replace(member, absence=absence))
        if isinstance(command, Restart):
            self._begin_grace_anew()
            return ()
        return tuple(member.client_id for member in lost)

    def _begin_grace_anew(self) -> None:
        """No client could resume before now."""
        for member in self.members.values():
            until = self.now + held_for(member, self._room.config.grace)
            if member.absence and member.absence.until < until:
                self.put(replace(member, absence=replace(member.absence, until=until)))

    def amend(self, command: AppendMissed) -> None:
        """What was sent before a client went comes before what was kept since."""
        member = self.members.get(command.client_id)
        if member is None or member.absence is None:
            return
        texts = command.texts
        if member.generation != command.generation:
            if texts == ():
                return
            # It has resumed since: where this belongs is not known any more.
            texts = None
        absence = member.absence.amended(texts, self._space())
        if absence is not member.absence:
            self.put(replace(member, absence=absence))

    def tell_of_loss(self, lost: Iterable[str], reason: str) -> None:
        """These clients are connected no longer: their places are held, or not even that."""
        for client_id in lost:
            member = self.members.get(client_id)
            if member is None:
                continue
            if self._room.config.grace > 0:
                self.tell(_peers_of(self, member.role), farewell_of(member, reason, away=True))
            else:
                self.depart(member, reason)

    def depart(self, member: Member, reason: str) -> None:
        """This member is no longer inside."""
        self.members = {k: m for k, m in self.members.items() if k != member.client_id}
        self.tell(_peers_of(self, member.role), farewell_of(member, reason))
        if member.role is Role.SENDER and not self._room.config.persistent:
            self.close(ErrorCode.ROOM_CLOSED, "the sender has left the room")

    def relay(self, command: Relay) -> None:
        speaker, message = self.member(command.client_id, command.generation), command.message
        if speaker is None or speaker.absence is not None:
            # It spoke while it was being closed.
            return
        if isinstance(message, Paired):
            self._note_paired(speaker, message)
            return
        audience = self.room.audience(speaker.role, message)
        if audience:
            self.tell(audience, stamped(message, speaker.client_id))
        elif audience is not None:
            self._answer(speaker, ErrorCode.NO_SUCH_PEER, "there is nobody here to whom this could go")
        elif speaker.role is Role.RECEIVER:
            self._answer(speaker, ErrorCode.WRONG_ROLE, "only the sender makes offers")
        else:
            self._answer(speaker, ErrorCode.WRONG_ROLE, "only receivers answer")

    def _note_paired(self, speaker: Member, message: Paired) -> None:
        if speaker.role is not Role.SENDER:
            self._answer(speaker, ErrorCode.WRONG_ROLE, "only the sender tells who has paired")
            return
        target_id = message.data.target_id
        # A receiver that has left meanwhile is no mistake of the speaker.
        member = speaker if target_id is None else self.room.receiver(target_id)
        if member is not None and not member.paired:
            self.put(replace(member, paired=True))

    # Messages.

    def tell(self, members: Iterable[Member], message: Join | Disconnect | Relayed) -> None:
        """Send message to those connected, and keep it for those away."""
        text = ""
        for member in members:
            if member.absence is None:
                self.effects.append(Deliver(member, message))
                continue
            text = text or serialize(message)
            absence = member.absence.with_message(text, self._space())
            if absence is not member.absence:
                self.put(replace(member, absence=absence))

    def _space(self) -> int:
        """Return the bytes that may still be kept for those away."""
        return MAX_KEPT_SIZE - sum(m.absence.size for m in self.members.values() if m.absence)

    def _answer(self, speaker: Member, code: ErrorCode, text: str) -> None:
        self.effects.append(Deliver(speaker, error_message(code, text)))


def _peers_of(room: Room | _Step, role: Role) -> tuple[Member, ...]:
    """Return the peers of a client of this role."""
    if role is Role.SENDER:
        return room.receivers
    return () if room.sender is None else (room.sender,)
