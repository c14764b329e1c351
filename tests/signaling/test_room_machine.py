"""Any sequence of commands on a room whose clients lose their connections, return and count what they hear.

The network is modelled too: what the server has sent is under way until the client takes it, and is gone when
the connection breaks before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    LoseNode,
    Refuse,
    Relay,
    Restart,
    Resume,
    RoomClosed,
)
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import MAX_KEPT_SIZE, MAX_MAILBOX_LENGTH, Tail, Traffic
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    Disconnect,
    Error,
    IceCandidate,
    IceCandidateData,
    IceCandidateInit,
    Join,
    Offer,
    OfferData,
    Paired,
    PairedData,
    Relayed,
    Role,
    parse_untrusted,
    serialize,
)
from flyx.signaling.record import dump_room, load_room
from flyx.signaling.refusals import MISSING_SESSION
from flyx.signaling.room import Room, new_room, step
from tests.thoroughness import share

T0 = 1_000_000.0
OWNER = "the owner's secret"
GRACE, HOLD = 30.0, 100.0
NAMES = tuple("abcdefg")
Said = Join | Disconnect | Relayed


@dataclass
class Line:
    """One connection: the server's end of it, and what is on its way to the client."""

    generation: int
    node: str
    tail: Tail
    received: int
    under_way: list[str] = field(default_factory=list)

    def send(self, message: Said | str) -> None:
        text = message if isinstance(message, str) else serialize(message)
        self.tail.append(text)
        self.under_way.append(text)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.received, self.tail.count, self.tail.texts)


@dataclass
class Client:
    """What a client knows, and what it should come to know."""

    role: Role
    token: str
    # None while it has no connection.
    line: Line | None
    # Messages taken in this session, and all that were meant for it in this session.
    heard: list[str] = field(default_factory=list)
    meant: list[str] = field(default_factory=list)
    said: int = 0
    # A new session has begun and it does not know.
    behind: bool = False
    address: str = ""
    # A receiver: the sender has said so. The sender: it tells who has.
    paired: bool = False


class RoomMachine(RuleBasedStateMachine):
    """A room of up to four clients on two nodes."""

    @initialize(
        persistent=st.booleans(),
        max_clients=st.integers(2, 4),
        ttl=st.none() | st.sampled_from([50.0, 500.0]),
        grace=st.sampled_from([GRACE, GRACE, 0.0]),
        tells=st.sampled_from([True, True, False]),
    )
    def make(self, persistent: bool, max_clients: int, ttl: float | None, grace: float, tells: bool) -> None:
        self.tells = tells
        self.config = RoomConfig(max_clients, ttl, 20.0, persistent, grace, max_hold=HOLD)
        self.now = T0
        self.serial = 0
        self.clients: dict[str, Client] = {}
        self.room = new_room("K7M2QX", self.config, self.now, owner_token=OWNER, creator="x")

    def fresh(self, word: str) -> str:
        """A text that was never used before."""
        self.serial += 1
        return f"{word} {self.serial}"

    def run(self, command: Command, asker: str | None = None) -> Effects:
        """Run a command, carry out its effects on the lines, and check what holds for every command."""
        before = self.room
        self.room, effects = step(before, command, self.now)
        # Time and chance never change what a command did: the same step gives the same answer.
        assert step(before, command, self.now) == (self.room, effects)
        inside = before.members.keys() | self.room.members.keys()
        for effect in effects:
            match effect:
                case Deliver(member=member, message=message):
                    client = self.clients[member.client_id]
                    assert client.line is not None
                    assert client.line.generation == member.generation
                    if not isinstance(message, Error):
                        assert isinstance(message, Said)
                        client.line.send(message)
                        client.meant.append(serialize(message))
                case Admit():
                    assert asker == effect.member.client_id
                    self.admit(effect)
                case CloseClient(member=member):
                    assert member.client_id in inside
                    assert self.room.members.get(member.client_id) != member
                    self.clients[member.client_id].line = None
                case RoomClosed():
                    assert self.room.closed
                    assert not before.closed
                case Refuse():
                    assert isinstance(command, Enter | Resume | CloseRoom)
        self.note_what_was_kept(before)
        for name in [name for name in self.clients if name not in self.room.members]:
            # The server has told it, or it will learn when it comes back.
            del self.clients[name]
        return effects

    def admit(self, effect: Admit) -> None:
        member, data = effect.member, effect.joined.data
        assert data.resume_token is not None
        client = self.clients.setdefault(member.client_id, Client(member.role, "", None))
        line = Line(member.generation, member.node, Tail(effect.sent), effect.received)
        if data.recovered:
            assert effect.sent == len(client.heard)
            assert data.received == effect.received
        else:
            assert (effect.sent, effect.received, effect.replay) == (0, 0, ())
            client.heard, client.meant, client.said = [], [], 0
        client.token, client.line = data.resume_token, line
        for text in effect.replay:
            line.send(text)

    def note_what_was_kept(self, before: Room) -> None:
        """Messages that went to a mailbox are meant for their client as much as those delivered."""
        for name, member in self.room.members.items():
            older = before.members.get(name)
            if older is None or member.absence is None or member.absence.traffic is None:
                continue
            known = older.absence.mailbox if older.absence and older.generation == member.generation else ()
            self.clients[name].meant += member.absence.mailbox[len(known) :]

    def alive(self, name: str) -> Line | None:
        client = self.clients.get(name)
        return client.line if client else None

    @rule(
        name=st.sampled_from(NAMES),
        role=st.none() | st.sampled_from(Role),
        node=st.sampled_from(["n1", "n2"]),
        address=st.sampled_from("xyz"),
        hold=st.sampled_from([0.0, HOLD, 10 * HOLD]),
    )
    def enter(self, name: str, role: Role | None, node: str, address: str, hold: float) -> None:
        if name in self.room.members:
            return
        before, was_due = self.room, self.now >= self.room.deadline
        safe = {other for other, client in self.clients.items() if client.paired}
        sender = before.sender
        waiting = [m for m in before.receivers if m.client_id not in safe]
        command = Enter(name, self.fresh("token"), role, node, address=address, hold=hold)
        effects = self.run(command, name)
        admitted = [e for e in effects if isinstance(e, Admit)]
        if not was_due:
            # Nobody who has paired ever makes way, and one other at most.
            gone = before.members.keys() - self.room.members.keys()
            assert not gone & safe
            assert len(gone) <= 1
            assert not gone or (admitted and len(before.members) == self.config.max_clients)
        if not admitted:
            assert name not in self.room.members
            assert isinstance(effects[-1], Refuse)
            if not was_due and role is not Role.SENDER and sender and sender.client_id in safe:
                # Silent connections keep nobody out.
                assert not waiting
            return
        self.clients[name].address = address
        got = self.room.members[name].role
        if got is Role.SENDER:
            for client in self.clients.values():
                client.paired = False
            if self.tells:
                self.pair_with(name, None)
        assert role in (None, got)
        assert not admitted[0].joined.data.recovered
        # The sender hears of its receivers that are here, and they of it; a receiver is told to its sender.
        told = [e for e in effects if isinstance(e, Deliver) and isinstance(e.message, Join)]
        connected = [m for m in self.room.receivers if m.absence is None]
        sender = self.room.sender
        assert sender is not None
        assert len(told) == (len(connected) * 2 if got is Role.SENDER else sender.absence is None)

    @rule(
        name=st.sampled_from(NAMES),
        addressee=st.none() | st.sampled_from(NAMES),
        liar=st.sampled_from(NAMES),
        kind=st.sampled_from([Offer, Answer, IceCandidate]),
        stale=st.booleans(),
        size=st.sampled_from([1, 1, 1, 30_000]),
    )
    def speak(
        self, name: str, addressee: str | None, liar: str, kind: type[Relayed], stale: bool, size: int
    ) -> None:
        line = self.alive(name)
        if line is None:
            return
        text = self.fresh("sdp") + " " * size
        message: Relayed
        if kind is Offer:
            message = Offer(data=OfferData(client_id=liar, sdp=text, target_id=addressee))
        elif kind is Answer:
            message = Answer(data=AnswerData(client_id=liar, sdp=text))
        else:
            candidate = IceCandidateInit(candidate=text[:2000])
            message = IceCandidate(
                data=IceCandidateData(client_id=liar, candidate=candidate, target_id=addressee)
            )
        before, role = self.room, self.clients[name].role
        if not stale:
            line.received += 1
            self.clients[name].said += 1
        effects = self.run(Relay(name, line.generation - stale, message))
        if self.room.closed or self.now >= before.deadline:
            return
        if stale:
            assert effects == ()
            assert self.room is before
        sender, receivers = before.sender, {m.client_id for m in before.receivers}
        for effect in effects:
            assert isinstance(effect, Deliver)
            if isinstance(effect.message, Error):
                assert effect.client_id == name
                assert not effect.message.data.fatal
                continue
            assert isinstance(effect.message, Relayed)
            assert effect.message.data.client_id == name
            if role is Role.RECEIVER:
                assert sender is not None
                assert effect.client_id == sender.client_id
                assert not isinstance(effect.message, Offer)
            else:
                assert effect.client_id in receivers
                assert addressee in (None, effect.client_id)
                assert not isinstance(effect.message, Answer)
        if all(member.absence is None for member in before.members.values()):
            # Among those who are here, nothing has to be written.
            assert self.room is before

    @rule(name=st.sampled_from(NAMES), other=st.none() | st.sampled_from(NAMES))
    def speak_of_pairing(self, name: str, other: str | None) -> None:
        """Anybody may try to, about anybody."""
        self.pair_with(name, other)

    @precondition(lambda self: self.tells and self.room.sender and self.room.receivers)
    @rule(data=st.data())
    def pair(self, data: st.DataObject) -> None:
        """The sender pairs with a receiver, and says so."""
        assert self.room.sender is not None
        receivers = [member.client_id for member in self.room.receivers]
        self.pair_with(self.room.sender.client_id, data.draw(st.sampled_from(receivers)))

    def pair_with(self, name: str, other: str | None) -> None:
        """One client says that another has paired; None: that it tells who has."""
        line = self.alive(name)
        if line is None:
            return
        line.received += 1
        self.clients[name].said += 1
        before, client = self.room, self.clients[name]
        effects = self.run(Relay(name, line.generation, Paired(data=PairedData(target_id=other))))
        if self.room.closed or self.now >= before.deadline:
            self.note_paired()
            return
        if client.role is Role.RECEIVER:
            assert self.room is before
            assert isinstance(effects[0], Deliver)
            assert isinstance(effects[0].message, Error)
            return
        assert effects == ()
        about = name if other is None else other
        if about in self.clients and (about == name) == (other is None):
            self.clients[about].paired = True

    def note_paired(self) -> None:
        """What was due came first; whether the speaker was heard at all is another rule's business."""
        for name, client in self.clients.items():
            client.paired = self.room.members[name].paired

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 40))
    def arrive(self, name: str, count: int) -> None:
        """The client takes some of what is on its way."""
        line = self.alive(name)
        if line is not None:
            self.clients[name].heard += line.under_way[:count]
            del line.under_way[:count]

    @rule(name=st.sampled_from(NAMES), known=st.booleans())
    def lose(self, name: str, known: bool) -> None:
        line = self.alive(name)
        if line is None:
            return
        self.clients[name].line = None
        self.run(LoseConnection(name, line.generation, "lost", line.traffic if known else None))
        member = self.room.members.get(name)
        assert member is None or member.absence is not None

    @rule(
        name=st.sampled_from(NAMES),
        counts=st.booleans(),
        handover=st.booleans(),
        answered=st.sampled_from([True, True, False]),
        node=st.sampled_from(["n1", "n2"]),
    )
    def resume(self, name: str, counts: bool, handover: bool, answered: bool, node: str) -> None:
        """A client comes back, whether or not the server has seen that it was away."""
        client = self.clients.get(name)
        if client is None:
            return
        shown, old, heard = client.token, client.line, len(client.heard)
        behind, heard_before = client.behind, list(client.heard)
        away = self.room.members[name].absence
        lost = away is not None and away.traffic is None
        command = Resume(
            name,
            shown,
            self.fresh("token"),
            received=heard if counts else None,
            handover=(old.generation, old.traffic) if old and handover else None,
            node=node,
        )
        effects = self.run(command, name)
        admitted = [e for e in effects if isinstance(e, Admit)]
        if not admitted:
            assert name not in self.room.members
            assert effects[-1] == MISSING_SESSION
            return
        [admit] = admitted
        assert admit.member.role is client.role
        recovered = admit.joined.data.recovered
        if old is not None and not handover:
            assert not recovered
        if lost or behind:
            assert not recovered
        client.behind = False
        if recovered:
            assert counts
            # The server has taken all that the client has said on its connections.
            assert admit.received == client.said
        if not answered:
            # The answer is lost, with the new token in it, and the connection with both.
            line = client.line
            assert line is not None
            client.token, client.line = shown, None
            if not recovered:
                # It never learns that a new session has begun, and counts on in the one before.
                client.behind, client.heard = True, heard_before
            self.run(LoseConnection(name, line.generation, "lost", line.traffic))

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def impostor(self, name: str, data: st.DataObject) -> None:
        tokens = [client.token for other, client in self.clients.items() if other != name]
        guess = data.draw(st.sampled_from(["", "guess", *tokens]))
        before = self.room
        effects = self.run(Resume(name, guess, self.fresh("token"), received=0), name)
        assert effects[-1] == MISSING_SESSION
        if self.now < before.deadline:
            assert self.room is before
            assert effects == (MISSING_SESSION,)

    @rule(name=st.sampled_from(NAMES), stale=st.booleans())
    def leave(self, name: str, stale: bool) -> None:
        line = self.alive(name)
        if line is None:
            return
        before = self.room
        effects = self.run(Leave(name, line.generation - stale, "bye"))
        if not stale:
            assert name not in self.room.members
            sender = before.sender
            if sender and sender.client_id == name and not self.config.persistent:
                assert self.room.closed
        elif self.now < before.deadline:
            assert self.room is before
            assert effects == ()

    @rule(node=st.sampled_from(["n1", "n2"]))
    def node_dies(self, node: str) -> None:
        effects = self.run(LoseNode(node, "its server has gone"))
        for effect in effects:
            # Nobody is told of another's loss on a connection that is lost with it.
            if (
                isinstance(effect, Deliver)
                and isinstance(effect.message, Disconnect)
                and effect.message.data.away
            ):
                assert effect.member.node != node
        for client in self.clients.values():
            if client.line and client.line.node == node:
                client.line = None
        assert not any(m.node == node and m.absence is None for m in self.room.members.values())

    @rule(seconds=st.sampled_from([0.0, 15.0, 1000.0]))
    def restart(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients.values():
            client.line = None
        before = self.room
        effects = self.run(Restart())
        assert not any(isinstance(e, Deliver | CloseClient) for e in effects)
        if not self.room.closed and self.config.grace:
            # Nobody loses a place to the time during which nobody could come back.
            assert self.room.members.keys() == before.members.keys()
            for member in self.room.members.values():
                assert member.absence is not None
                assert self.now + GRACE <= member.absence.until <= self.now + max(GRACE, HOLD)

    @rule(token=st.sampled_from([OWNER, None, "", "guess", "guess"]))
    def shut(self, token: str | None) -> None:
        """Somebody says that the room is theirs; None: the operator of the server does not have to."""
        effects = self.run(CloseRoom(token))
        if token in (OWNER, None):
            assert self.room.closed
        else:
            assert isinstance(effects[-1], Refuse)

    @rule(seconds=st.sampled_from([1.0, 15.0, 30.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.run(Expire())
        assert self.room.closed or self.room.deadline > self.now

    @precondition(lambda self: self.room.closed)
    @rule()
    def start_anew(self) -> None:
        self.clients.clear()
        self.room = new_room("K7M2QX", self.config, self.now, owner_token=OWNER, creator="x")

    @invariant()
    def nothing_is_lost_or_comes_twice(self) -> None:
        for name, client in self.clients.items():
            if client.behind:
                continue
            if client.line:
                assert client.heard + client.line.under_way == client.meant, name
            else:
                assert client.heard == client.meant[: len(client.heard)], name

    @invariant()
    def connections_and_members_agree(self) -> None:
        assert self.clients.keys() == self.room.members.keys()
        for name, client in self.clients.items():
            member = self.room.members[name]
            assert (client.line is None) == (member.absence is not None)
            assert client.line is None or client.line.generation == member.generation

    @invariant()
    def who_has_paired_is_as_the_sender_said(self) -> None:
        for name, client in self.clients.items():
            member = self.room.members[name]
            assert (member.paired, member.address) == (client.paired, client.address)

    @invariant()
    def one_sender_at_most(self) -> None:
        senders = [m for m in self.room.members.values() if m.role is Role.SENDER]
        assert len(senders) <= 1
        assert self.room.sender == (senders[0] if senders else None)
        assert len(self.room.members) <= self.config.max_clients
        generations = [m.generation for m in self.room.members.values()]
        assert len(set(generations)) == len(generations)
        assert max(generations, default=0) <= self.room.generation

    @invariant()
    def what_is_kept_is_bounded_and_readable(self) -> None:
        absences = [m.absence for m in self.room.members.values() if m.absence]
        assert sum(absence.size for absence in absences) <= MAX_KEPT_SIZE
        for absence in absences:
            assert len(absence.mailbox) <= MAX_MAILBOX_LENGTH
            for text in absence.mailbox:
                assert isinstance(parse_untrusted(text), Said)

    @invariant()
    def closed_rooms_hold_nobody(self) -> None:
        assert not (self.room.closed and self.room.members)

    @invariant()
    def idle_time_runs_only_while_nobody_is_inside(self) -> None:
        if not self.room.closed:
            assert (self.room.empty_since is None) == bool(self.room.members)

    @invariant()
    def only_persistent_rooms_have_receivers_without_a_sender(self) -> None:
        if self.room.receivers and self.room.sender is None:
            assert self.config.persistent

    @invariant()
    def a_record_holds_the_whole_room(self) -> None:
        if not self.room.closed:
            assert load_room(dump_room(self.room)) == self.room


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(max_examples=share(60), stateful_step_count=40)
