from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flyx.errors import LocalProtocolError
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    Disconnect,
    Error,
    ErrorCode,
    IceCandidate,
    IceCandidateData,
    IceServer,
    Join,
    Joined,
    Offer,
    OfferData,
    Peer,
    Relayed,
    Role,
)
from flyx.signaling.room import (
    CloseClient,
    Command,
    Deliver,
    Effect,
    Effects,
    Enter,
    Expire,
    Leave,
    Relay,
    Room,
    RoomClosed,
    RoomConfig,
    RoomStatus,
    new_room,
    step,
)

T0 = 1_000_000.0
OFFER = Offer(data=OfferData(sdp="v=0"))
ANSWER = Answer(data=AnswerData(sdp="v=0"))
LAST_CANDIDATE = IceCandidate(data=IceCandidateData(candidate=None))


def run(room: Room, *commands: Command, now: float = T0) -> tuple[Room, list[Effect]]:
    effects: list[Effect] = []
    for command in commands:
        room, more = step(room, command, now)
        effects += more
    return room, effects


def room_with(*client_ids: str, config: RoomConfig | None = None) -> Room:
    empty = new_room("K7M2QX", config or RoomConfig(), T0)
    room, _ = run(empty, *(Enter(client_id) for client_id in client_ids))
    return room


def to(client_id: str, message: Relayed) -> Relayed:
    return message.model_copy(update={"data": message.data.model_copy(update={"target_id": client_id})})


def heard(effects: list[Effect] | Effects, client_id: str) -> list[str]:
    """The types of the messages for one client, and the close codes."""
    found: list[str] = []
    for effect in effects:
        if isinstance(effect, Deliver) and effect.client_id == client_id:
            found.append(effect.message.type)
        elif isinstance(effect, CloseClient) and effect.client_id == client_id:
            found.append(str(int(effect.close_code)))
    return found


def errors(effects: list[Effect] | Effects) -> list[tuple[str, str]]:
    return [
        (e.client_id, e.message.data.code)
        for e in effects
        if isinstance(e, Deliver) and isinstance(e.message, Error)
    ]


def test_first_client_is_the_sender_and_later_ones_are_receivers() -> None:
    room = room_with("s", "r1", "r2")
    assert room.sender_id == "s"
    assert room.receiver_ids == ("r1", "r2")
    assert room.status is RoomStatus.OPEN


def test_joined_comes_first_and_tells_all_that_a_client_needs() -> None:
    room = room_with("s", "r1", config=RoomConfig(max_clients=5, ttl=60))
    servers = (IceServer(urls=("stun:example.org",)),)
    _, effects = step(room, Enter("r2", ice_servers=servers), T0)
    first = effects[0]
    assert isinstance(first, Deliver)
    assert isinstance(first.message, Joined)
    data = first.message.data
    assert (data.room_id, data.client_id, data.role) == ("K7M2QX", "r2", Role.RECEIVER)
    assert data.expires_at == T0 + 60
    assert data.peers == (Peer(client_id="s", role=Role.SENDER),)
    assert data.ice_servers == servers
    assert data.limits.max_clients == 5


def test_only_the_sender_hears_of_a_new_receiver() -> None:
    _, effects = step(room_with("s", "r1"), Enter("r2"), T0)
    assert heard(effects, "s") == ["join"]
    assert heard(effects, "r1") == []
    assert heard(effects, "r2") == ["joined"]


def test_offer_without_target_reaches_every_receiver() -> None:
    _, effects = step(room_with("s", "r1", "r2"), Relay("s", OFFER), T0)
    assert heard(effects, "r1") == heard(effects, "r2") == ["offer"]
    assert heard(effects, "s") == []


def test_offer_with_target_reaches_it_alone_and_does_not_say_whom_it_was_for() -> None:
    _, effects = step(room_with("s", "r1", "r2"), Relay("s", to("r2", OFFER)), T0)
    expected = Offer(data=OfferData(client_id="s", sdp="v=0"))
    assert effects == (Deliver("r2", expected),)


def test_relaying_leaves_the_room_object_as_it_is() -> None:
    room = room_with("s", "r1")
    for relay in (Relay("s", OFFER), Relay("r1", ANSWER), Relay("r1", OFFER), Relay("nobody", OFFER)):
        after, _ = step(room, relay, T0)
        assert after is room


def test_the_speaker_is_whoever_holds_the_connection() -> None:
    lie = Answer(data=AnswerData(client_id="r1", sdp="v=0"))
    _, effects = step(room_with("s", "r1", "r2"), Relay("r2", lie), T0)
    assert effects == (Deliver("s", Answer(data=AnswerData(client_id="r2", sdp="v=0"))),)


def test_a_receivers_candidate_goes_to_the_sender_whatever_its_target() -> None:
    room = room_with("s", "r1", "r2")
    for candidate in (LAST_CANDIDATE, to("r1", LAST_CANDIDATE), to("nobody", LAST_CANDIDATE)):
        _, effects = step(room, Relay("r2", candidate), T0)
        assert heard(effects, "s") == ["ice_candidate"]
        assert heard(effects, "r1") == []


@pytest.mark.parametrize(
    ("speaker", "message", "code"),
    [
        ("r1", OFFER, ErrorCode.WRONG_ROLE),
        ("s", ANSWER, ErrorCode.WRONG_ROLE),
        ("s", to("nobody", OFFER), ErrorCode.NO_SUCH_PEER),
        ("s", to("s", OFFER), ErrorCode.NO_SUCH_PEER),
        ("s", to("nobody", LAST_CANDIDATE), ErrorCode.NO_SUCH_PEER),
    ],
)
def test_what_may_not_be_said_is_answered_to_the_speaker_alone(
    speaker: str, message: Relayed, code: ErrorCode
) -> None:
    _, effects = step(room_with("s", "r1"), Relay(speaker, message), T0)
    assert errors(effects) == [(speaker, code)]
    assert len(effects) == 1


def test_an_offer_to_an_empty_room_is_not_lost_silently() -> None:
    _, effects = step(room_with("s"), Relay("s", OFFER), T0)
    assert errors(effects) == [("s", ErrorCode.NO_SUCH_PEER)]


def test_a_receiver_that_leaves_is_reported_to_the_sender_alone() -> None:
    room, effects = step(room_with("s", "r1", "r2"), Leave("r1", "gone home"), T0)
    assert room.receiver_ids == ("r2",)
    [effect] = effects
    assert isinstance(effect, Deliver)
    assert effect.client_id == "s"
    assert isinstance(effect.message, Disconnect)
    assert (effect.message.data.client_id, effect.message.data.reason) == ("r1", "gone home")


def test_a_room_closes_with_its_sender() -> None:
    room, effects = step(room_with("s", "r1", "r2"), Leave("s", "done"), T0)
    assert room.status is RoomStatus.CLOSED
    for receiver in ("r1", "r2"):
        assert heard(effects, receiver) == ["disconnect", "4410"]
    assert heard(effects, "s") == []
    assert effects[-1] == RoomClosed("K7M2QX", ErrorCode.ROOM_CLOSED)


def test_a_persistent_room_waits_for_its_next_sender() -> None:
    room = room_with("s", "r1", config=RoomConfig(persistent=True))
    room, effects = step(room, Leave("s", "done"), T0)
    assert room.status is RoomStatus.WAITING
    assert heard(effects, "r1") == ["disconnect"]

    _, alone = step(room, Relay("r1", ANSWER), T0)
    assert errors(alone) == [("r1", ErrorCode.NO_SUCH_PEER)]

    room, effects = step(room, Enter("s2"), T0)
    assert room.sender_id == "s2"
    assert heard(effects, "s2") == ["joined", "join"]
    assert heard(effects, "r1") == ["join"]


def test_a_full_room_refuses_the_next_client_and_nothing_else_happens() -> None:
    room = room_with("s", "r1", config=RoomConfig(max_clients=2))
    after, effects = step(room, Enter("r2"), T0)
    assert after is room
    assert [type(e) for e in effects] == [CloseClient]
    assert heard(effects, "r2") == ["4413"]
    room, _ = run(room, Leave("r1", ""), Enter("r2"))
    assert room.receiver_ids == ("r2",)


def test_who_wants_to_receive_never_becomes_the_sender() -> None:
    empty = room_with()
    after, effects = step(empty, Enter("r", Role.RECEIVER), T0)
    assert after is empty
    assert heard(effects, "r") == ["4404"]
    room, _ = step(room_with("s"), Enter("r", Role.RECEIVER), T0)
    assert room.receiver_ids == ("r",)


def test_who_wants_to_send_never_becomes_a_receiver() -> None:
    _, effects = step(room_with("s"), Enter("s2", Role.SENDER), T0)
    assert heard(effects, "s2") == ["4401"]
    room, _ = step(room_with(), Enter("s2", Role.SENDER), T0)
    assert room.sender_id == "s2"


def test_an_empty_room_expires_after_its_idle_timeout() -> None:
    room = room_with(config=RoomConfig(idle_timeout=600))
    assert room.deadline == T0 + 600
    same, nothing = step(room, Expire(), T0 + 599.9)
    assert same is room
    assert nothing == ()
    closed, effects = step(room, Expire(), T0 + 600)
    assert closed.closed
    assert effects == (RoomClosed("K7M2QX", ErrorCode.ROOM_EXPIRED),)


def test_a_room_with_somebody_inside_is_not_idle() -> None:
    room = room_with("s", config=RoomConfig(idle_timeout=600))
    assert room.deadline == room.expires_at


def test_a_persistent_room_is_never_idle() -> None:
    room = room_with(config=RoomConfig(persistent=True, ttl=None, idle_timeout=1))
    assert room.deadline == inf
    assert room.expires_at is None
    room, _ = run(room, Enter("s"), Leave("s", ""), Expire(), now=T0 + 1e9)
    assert room.status is RoomStatus.WAITING


def test_an_old_room_closes_with_everybody_inside() -> None:
    room = room_with("s", "r1", config=RoomConfig(ttl=3600))
    _, effects = step(room, Expire(), T0 + 3600)
    assert heard(effects, "s") == heard(effects, "r1") == ["4410"]


def test_any_command_finds_an_expired_room_closed() -> None:
    room = room_with("s", "r1", config=RoomConfig(ttl=3600))
    for command in (Enter("r2"), Relay("s", OFFER), Leave("s", "done"), Expire()):
        after, effects = step(room, command, T0 + 3600)
        assert after.closed
        assert heard(effects, "s") == heard(effects, "r1") == ["4410"]
        assert heard(effects, "r2") == (["4404"] if isinstance(command, Enter) else [])


def test_a_closed_room_answers_like_a_missing_one() -> None:
    room, _ = step(room_with("s"), Leave("s", ""), T0)
    _, closed = step(room, Enter("r"), T0)
    _, without_sender = step(room_with(), Enter("r", Role.RECEIVER), T0)
    assert closed == without_sender
    assert step(room, Leave("s", ""), T0) == (room, ())


def test_entering_twice_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        step(room_with("s"), Enter("s"), T0)


class RoomMachine(RuleBasedStateMachine):
    """Any sequence of commands, on a room of up to four clients."""

    NAMES = tuple("abcdefg")
    KINDS: tuple[Relayed, ...] = (OFFER, ANSWER, LAST_CANDIDATE)

    @initialize(
        persistent=st.booleans(),
        max_clients=st.integers(2, 4),
        ttl=st.none() | st.sampled_from([50.0, 500.0]),
    )
    def make(self, persistent: bool, max_clients: int, ttl: float | None) -> None:
        self.config = RoomConfig(max_clients=max_clients, ttl=ttl, idle_timeout=20, persistent=persistent)
        self.now = T0
        self.room = new_room("K7M2QX", self.config, self.now)

    def run(self, command: Command) -> Effects:
        before = self.room
        self.room, effects = step(before, command, self.now)
        newcomer = {command.client_id} if isinstance(command, Enter) else set()
        inside = set(before.client_ids) | set(self.room.client_ids)
        for effect in effects:
            match effect:
                case Deliver(client_id=client_id):
                    assert client_id in inside
                case CloseClient(client_id=client_id):
                    assert client_id in inside | newcomer
                    assert client_id not in self.room.client_ids
                case RoomClosed():
                    assert self.room.closed
                    assert not before.closed
        # Time never changes what a command did: the same step gives the same answer.
        assert step(before, command, self.now) == (self.room, effects)
        return effects

    @rule(name=st.sampled_from(NAMES), role=st.none() | st.sampled_from(Role))
    def enter(self, name: str, role: Role | None) -> None:
        if name in self.room.client_ids:
            return
        had_sender = self.room.sender_id is not None
        effects = self.run(Enter(name, role))
        if name in self.room.client_ids:
            assert heard(effects, name)[0] == "joined"
            got = self.room.role_of(name)
            assert role in (None, got)
            assert (got is Role.SENDER) == (not had_sender)
            introduced = [e for e in effects if isinstance(e, Deliver) and isinstance(e.message, Join)]
            assert len(introduced) == (len(self.room.receiver_ids) * 2 if got is Role.SENDER else 1)
        else:
            # A refusal: one CloseClient for it, and no word to it before.
            assert len(heard(effects, name)) == 1

    @rule(
        speaker=st.sampled_from(NAMES),
        addressee=st.none() | st.sampled_from(NAMES),
        liar=st.sampled_from(NAMES),
        kind=st.sampled_from(KINDS),
    )
    def relay(self, speaker: str, addressee: str | None, liar: str, kind: Relayed) -> None:
        role = self.room.role_of(speaker)
        sender, receivers = self.room.sender_id, self.room.receiver_ids
        stamp = (
            {"client_id": liar} if isinstance(kind, Answer) else {"client_id": liar, "target_id": addressee}
        )
        effects = self.run(
            Relay(speaker, kind.model_copy(update={"data": kind.data.model_copy(update=stamp)}))
        )
        for effect in effects:
            if not isinstance(effect, Deliver):
                assert self.room.closed
                continue
            if isinstance(effect.message, Error):
                assert effect.client_id == speaker
                assert not effect.message.data.fatal
                continue
            assert isinstance(effect.message, Offer | Answer | IceCandidate)
            assert effect.message.data.client_id == speaker
            if role is Role.RECEIVER:
                assert effect.client_id == sender
                assert not isinstance(effect.message, Offer)
            else:
                assert speaker == sender
                assert effect.client_id in receivers
                assert addressee in (None, effect.client_id)
                assert not isinstance(effect.message, Answer)
        if role is None and not self.room.closed:
            assert effects == ()

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        before = self.room
        effects = self.run(Leave(name, "bye"))
        assert name not in self.room.client_ids
        if before.role_of(name) is None and not self.room.closed:
            assert self.room is before
            assert effects == ()
        if name == before.sender_id and not before.config.persistent:
            assert self.room.closed

    @rule(seconds=st.sampled_from([1.0, 15.0, 30.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        due = self.now >= self.room.deadline
        self.run(Expire())
        assert self.room.closed or not due

    @precondition(lambda self: self.room.closed)
    @rule()
    def start_anew(self) -> None:
        self.room = new_room("K7M2QX", self.config, self.now)

    @invariant()
    def one_sender_at_most_and_everybody_once(self) -> None:
        clients = self.room.client_ids
        assert len(set(clients)) == len(clients) <= self.config.max_clients
        assert self.room.sender_id not in self.room.receiver_ids

    @invariant()
    def closed_rooms_hold_nobody(self) -> None:
        assert not (self.room.closed and self.room.client_ids)

    @invariant()
    def idle_time_runs_only_while_nobody_is_inside(self) -> None:
        if not self.room.closed:
            assert (self.room.empty_since is None) == bool(self.room.client_ids)

    @invariant()
    def only_persistent_rooms_have_receivers_without_a_sender(self) -> None:
        if self.room.receiver_ids and self.room.sender_id is None:
            assert self.config.persistent


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_rooms_are_values() -> None:
    room = room_with("s")
    assert replace(room) == room
    with pytest.raises(AttributeError):
        room.sender_id = "x"  # type: ignore[misc]
