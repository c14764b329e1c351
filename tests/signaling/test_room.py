from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from flyx.errors import LocalProtocolError
from flyx.signaling.commands import (
    Admit,
    AppendMissed,
    CloseClient,
    CloseRoom,
    Command,
    Deliver,
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
from flyx.signaling.members import (
    Traffic,
)
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    Disconnect,
    Error,
    ErrorCode,
    IceCandidate,
    IceCandidateData,
    IceServer,
    IceServersData,
    Message,
    Offer,
    OfferData,
    Paired,
    PairedData,
    Peer,
    Relayed,
    Role,
)
from flyx.signaling.refusals import MISSING_ROOM
from flyx.signaling.room import Room, RoomStatus, new_room, step

T0 = 1_000_000.0
OFFER = Offer(data=OfferData(sdp="v=0"))
ANSWER = Answer(data=AnswerData(sdp="v=0"))
LAST_CANDIDATE = IceCandidate(data=IceCandidateData(candidate=None))
NOTHING_SAID = Traffic()


def run(room: Room, *commands: Command, now: float = T0) -> tuple[Room, list[Effect]]:
    effects: list[Effect] = []
    for command in commands:
        room, more = step(room, command, now)
        effects += more
    return room, effects


def enter(client_id: str, role: Role | None = None) -> Enter:
    return Enter(client_id, f"token of {client_id}", role)


def room_with(*client_ids: str, config: RoomConfig | None = None) -> Room:
    empty = new_room("K7M2QX", config or RoomConfig(), T0)
    room, _ = run(empty, *(enter(client_id) for client_id in client_ids))
    return room


# Commands by the newest connection of a client; of somebody who is not inside, by one that never was.


def generation(room: Room, client_id: str) -> int:
    member = room.members.get(client_id)
    return member.generation if member else 99


def relay(room: Room, client_id: str, message: Relayed) -> Relay:
    return Relay(client_id, generation(room, client_id), message)


def leave(room: Room, client_id: str, reason: str = "") -> Leave:
    return Leave(client_id, generation(room, client_id), reason)


def lose(room: Room, client_id: str, traffic: Traffic | None = NOTHING_SAID) -> LoseConnection:
    return LoseConnection(client_id, generation(room, client_id), "lost", traffic)


def sender_id(room: Room) -> str | None:
    return room.sender.client_id if room.sender else None


def receiver_ids(room: Room) -> list[str]:
    return [member.client_id for member in room.receivers]


def to(client_id: str, message: Relayed) -> Relayed:
    return structs.replace(message, data=structs.replace(message.data, target_id=client_id))


def step_in(room: Room, speaker: str, message: Relayed) -> tuple[Room, Effects]:
    return step(room, relay(room, speaker, message), T0)


def heard(effects: list[Effect] | Effects, client_id: str) -> list[str]:
    """The types of the messages for one client, and the close codes."""
    found: list[str] = []
    for effect in effects:
        if isinstance(effect, Deliver) and effect.client_id == client_id:
            found.append(effect.message.type)
        elif isinstance(effect, Admit) and effect.member.client_id == client_id:
            found.append("joined")
            found += [text.partition('"type":"')[2].partition('"')[0] for text in effect.replay]
        elif isinstance(effect, CloseClient) and effect.client_id == client_id:
            found.append(str(int(effect.close_code)))
    return found


def messages_for(effects: list[Effect] | Effects) -> list[tuple[str, Message]]:
    return [(e.client_id, e.message) for e in effects if isinstance(e, Deliver)]


def refusals(effects: list[Effect] | Effects) -> list[int]:
    return [int(e.close_code) for e in effects if isinstance(e, Refuse)]


def errors(effects: list[Effect] | Effects) -> list[tuple[str, str]]:
    return [
        (e.client_id, e.message.data.code)
        for e in effects
        if isinstance(e, Deliver) and isinstance(e.message, Error)
    ]


def test_first_client_is_the_sender_and_later_ones_are_receivers() -> None:
    room = room_with("s", "r1", "r2")
    assert sender_id(room) == "s"
    assert receiver_ids(room) == ["r1", "r2"]
    assert room.status is RoomStatus.OPEN


def test_joined_comes_first_and_tells_all_that_a_client_needs() -> None:
    room = room_with("s", "r1", config=RoomConfig(max_clients=5, ttl=60))
    servers = (IceServer(urls=("stun:example.org",)),)
    ice = IceServersData(ice_servers=servers, ice_servers_ttl=60)
    _, effects = step(room, Enter("r2", "secret", ice=ice), T0)
    first = effects[0]
    assert isinstance(first, Admit)
    data = first.joined.data
    assert (data.room_id, data.client_id, data.role) == ("K7M2QX", "r2", Role.RECEIVER)
    assert data.expires_at == T0 + 60
    assert data.peers == (Peer(client_id="s", role=Role.SENDER),)
    assert (data.ice_servers, data.ice_servers_ttl) == (servers, 60)
    assert (data.limits.max_clients, data.limits.grace) == (5, 30.0)
    assert (data.resume_token, data.recovered) == ("secret", False)


def test_only_the_sender_hears_of_a_new_receiver() -> None:
    _, effects = step(room_with("s", "r1"), enter("r2"), T0)
    assert heard(effects, "s") == ["join"]
    assert heard(effects, "r1") == []
    assert heard(effects, "r2") == ["joined"]


def test_offer_without_target_reaches_every_receiver() -> None:
    _, effects = step_in(room_with("s", "r1", "r2"), "s", OFFER)
    assert heard(effects, "r1") == heard(effects, "r2") == ["offer"]
    assert heard(effects, "s") == []


def test_offer_with_target_reaches_it_alone_and_does_not_say_whom_it_was_for() -> None:
    _, effects = step_in(room_with("s", "r1", "r2"), "s", to("r2", OFFER))
    expected = Offer(data=OfferData(client_id="s", sdp="v=0"))
    assert messages_for(effects) == [("r2", expected)]


def test_relaying_leaves_the_room_object_as_it_is() -> None:
    room = room_with("s", "r1")
    for speaker, message in (("s", OFFER), ("r1", ANSWER), ("r1", OFFER), ("nobody", OFFER)):
        after, _ = step_in(room, speaker, message)
        assert after is room


def test_the_speaker_is_whoever_holds_the_connection() -> None:
    lie = Answer(data=AnswerData(client_id="r1", sdp="v=0"))
    _, effects = step_in(room_with("s", "r1", "r2"), "r2", lie)
    assert messages_for(effects) == [("s", Answer(data=AnswerData(client_id="r2", sdp="v=0")))]


def test_a_receivers_candidate_goes_to_the_sender_whatever_its_target() -> None:
    room = room_with("s", "r1", "r2")
    for candidate in (LAST_CANDIDATE, to("r1", LAST_CANDIDATE), to("nobody", LAST_CANDIDATE)):
        _, effects = step_in(room, "r2", candidate)
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
    _, effects = step_in(room_with("s", "r1"), speaker, message)
    assert errors(effects) == [(speaker, code)]
    assert len(effects) == 1


def test_an_offer_to_an_empty_room_is_not_lost_silently() -> None:
    _, effects = step_in(room_with("s"), "s", OFFER)
    assert errors(effects) == [("s", ErrorCode.NO_SUCH_PEER)]


def test_a_receiver_that_leaves_is_reported_to_the_sender_alone() -> None:
    room = room_with("s", "r1", "r2")
    room, effects = step(room, leave(room, "r1", "gone home"), T0)
    assert receiver_ids(room) == ["r2"]
    [effect] = effects
    assert isinstance(effect, Deliver)
    assert effect.client_id == "s"
    assert isinstance(effect.message, Disconnect)
    assert (effect.message.data.client_id, effect.message.data.reason) == ("r1", "gone home")


def test_a_room_closes_with_its_sender() -> None:
    room = room_with("s", "r1", "r2")
    room, effects = step(room, leave(room, "s", "done"), T0)
    assert room.status is RoomStatus.CLOSED
    for receiver in ("r1", "r2"):
        assert heard(effects, receiver) == ["disconnect", "4410"]
    assert heard(effects, "s") == []
    assert effects[-1] == RoomClosed("K7M2QX", ErrorCode.ROOM_CLOSED)


def test_a_persistent_room_waits_for_its_next_sender() -> None:
    room = room_with("s", "r1", config=RoomConfig(persistent=True))
    room, effects = step(room, leave(room, "s", "done"), T0)
    assert room.status is RoomStatus.WAITING
    assert heard(effects, "r1") == ["disconnect"]

    _, alone = step_in(room, "r1", ANSWER)
    assert errors(alone) == [("r1", ErrorCode.NO_SUCH_PEER)]

    room, effects = step(room, enter("s2"), T0)
    assert sender_id(room) == "s2"
    assert heard(effects, "s2") == ["joined", "join"]
    assert heard(effects, "r1") == ["join"]


def test_a_full_room_refuses_the_next_client_and_nothing_else_happens() -> None:
    room = room_with("s", "r1", config=RoomConfig(max_clients=2))
    after, effects = step(room, enter("r2"), T0)
    assert after is room
    assert refusals(effects) == [4413]
    assert len(effects) == 1
    room, _ = run(room, leave(room, "r1"), enter("r2"))
    assert receiver_ids(room) == ["r2"]


def paired(room: Room, client_id: str | None, speaker: str = "s") -> Relay:
    """The sender says that it tells who has paired, or that this receiver has."""
    generation = room.members[speaker].generation
    return Relay(speaker, generation, Paired(data=PairedData(target_id=client_id)))


def test_in_a_full_room_the_longest_unpaired_receiver_makes_way_and_is_told() -> None:
    room = room_with("s", "r1", "r2", config=RoomConfig(max_clients=3))
    room, _ = run(room, paired(room, None))
    room, effects = step(room, enter("r3"), T0)
    assert receiver_ids(room) == ["r2", "r3"]
    [closed] = [effect for effect in effects if isinstance(effect, CloseClient)]
    assert (closed.client_id, int(closed.close_code)) == ("r1", 4413)
    assert closed.error_code is ErrorCode.DISPLACED
    assert heard(effects, "s") == ["disconnect", "join"]
    assert heard(effects, "r2") == []
    # Its place is gone for good.
    _, effects = step(room, Resume("r1", "token of r1", "next"), T0)
    assert refusals(effects) == [4404]


def test_whoever_has_paired_keeps_its_place_and_a_room_of_them_is_full() -> None:
    room = room_with("s", "r1", "r2", config=RoomConfig(max_clients=3))
    room, _ = run(room, paired(room, None), paired(room, "r1"))
    room, _ = run(room, enter("r3"))
    assert receiver_ids(room) == ["r1", "r3"]
    room, _ = run(room, paired(room, "r3"))
    after, effects = step(room, enter("r4"), T0)
    assert after is room
    assert refusals(effects) == [4413]


def test_one_that_is_away_makes_way_as_well() -> None:
    room = room_with("s", "r1", config=RoomConfig(max_clients=2))
    room, _ = run(room, paired(room, None), LoseConnection("r1", room.members["r1"].generation, "lost", None))
    room, effects = step(room, enter("r2"), T0)
    assert receiver_ids(room) == ["r2"]
    assert not any(isinstance(effect, CloseClient) for effect in effects)
    assert heard(effects, "s") == ["disconnect", "join"]


def test_only_the_sender_tells_who_has_paired_and_of_receivers_alone() -> None:
    room = room_with("s", "r1", "r2")
    after, effects = step(room, paired(room, "r1", speaker="r1"), T0)
    assert after is room
    assert errors(effects) == [("r1", ErrorCode.WRONG_ROLE)]
    # One that has left meanwhile is no mistake.
    for target in ("gone", "s"):
        assert step(room, paired(room, target), T0) == (room, ())
    told, _ = run(room, paired(room, "r1"))
    assert step(told, paired(room, "r1"), T0)[0] is told


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30))
def test_strangers_with_any_addresses_neither_fill_a_room_nor_throw_out_whoever_has_paired(
    steps: list[tuple[bool, int]],
) -> None:
    room = room_with("s", config=RoomConfig(max_clients=4))
    room, _ = run(room, paired(room, None))
    safe: set[str] = set()
    for number, (pairs, choice) in enumerate(steps):
        if pairs:
            for client_id in receiver_ids(room)[choice : choice + 1]:
                room, _ = run(room, paired(room, client_id))
                safe.add(client_id)
            continue
        newcomer = f"r{number}"
        full = len(safe) == 3
        room, effects = step(room, Enter(newcomer, f"token of {newcomer}", address=str(choice)), T0)
        assert refusals(effects) == [4413] * full
        assert (newcomer in room.members) is not full
        assert safe <= room.members.keys()
        assert len(room.members) <= 4


def test_what_one_sender_says_of_pairing_is_not_for_the_next() -> None:
    room = room_with("s", "r1", config=RoomConfig(max_clients=2, persistent=True))
    room, _ = run(room, paired(room, None), paired(room, "r1"), leave(room, "s"))
    room, _ = run(room, enter("s2"))
    assert not any(member.paired for member in room.members.values())


def test_who_wants_to_receive_never_becomes_the_sender() -> None:
    empty = room_with()
    after, effects = step(empty, enter("r", Role.RECEIVER), T0)
    assert after is empty
    assert effects == (MISSING_ROOM,)
    room, _ = step(room_with("s"), enter("r", Role.RECEIVER), T0)
    assert receiver_ids(room) == ["r"]


def test_who_wants_to_send_never_becomes_a_receiver() -> None:
    _, effects = step(room_with("s"), enter("s2", Role.SENDER), T0)
    assert refusals(effects) == [4401]
    room, _ = step(room_with(), enter("s2", Role.SENDER), T0)
    assert sender_id(room) == "s2"


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
    assert room.deadline == inf


def test_a_persistent_room_is_never_idle() -> None:
    room = room_with(config=RoomConfig(persistent=True, ttl=None, idle_timeout=1))
    assert room.deadline == inf
    assert room.expires_at is None
    room, _ = run(room, enter("s"), now=T0 + 1e9)
    room, _ = run(room, leave(room, "s"), Expire(), now=T0 + 1e9)
    assert room.status is RoomStatus.WAITING


def test_a_sender_that_waits_a_week_still_has_its_room() -> None:
    room = room_with("s", config=RoomConfig(ttl=3600, idle_timeout=600))
    week = T0 + 7 * 24 * 3600
    same, nothing = step(room, Expire(), week)
    assert (same is room, nothing) == (True, ())
    room, effects = run(room, enter("r1"), now=week)
    assert heard(effects, "s") == ["join"]


def test_a_sender_that_comes_and_goes_for_a_week_still_has_its_room() -> None:
    room = room_with("s", config=RoomConfig(ttl=3600))
    now = T0
    shown = "token of s"
    for night in range(7):
        now += 16 * 3600
        room, _ = run(room, lose(room, "s"), now=now)
        now += 29.0
        room, _ = run(room, Resume("s", shown, f"token {night}"), now=now)
        shown = f"token {night}"
    assert room.sender is not None
    assert room.sender.absence is None


def old_room() -> Room:
    """One that its sender has left, while a receiver waits for the next."""
    room = room_with("s", "r1", config=RoomConfig(ttl=3600, persistent=True))
    return step(room, leave(room, "s"), T0)[0]


def test_an_old_room_without_a_sender_closes_with_everybody_inside() -> None:
    _, effects = step(old_room(), Expire(), T0 + 3600)
    assert heard(effects, "r1") == ["4410"]


def test_an_old_room_closes_when_its_sender_leaves() -> None:
    room = room_with("s", "r1", config=RoomConfig(ttl=3600, persistent=True))
    left, _ = step(room, leave(room, "s"), T0 + 7200)
    assert left.deadline <= T0 + 7200
    # The same, had its place been held until then.
    room, _ = step(room, lose(room, "s"), T0 + 3600)
    closed, effects = step(room, enter("s2"), T0 + 7200)
    assert closed.closed
    assert heard(effects, "r1")[-1] == "4410"
    assert refusals(effects) == [4404]


def test_any_command_finds_an_expired_room_closed() -> None:
    room = old_room()
    for command in (
        *(enter("r2"), relay(room, "r1", ANSWER), leave(room, "r1"), lose(room, "r1"), Expire(), Restart()),
        *(Resume("r1", "token of r1", "next"), LoseNode("", "gone"), CloseRoom("secret")),
    ):
        after, effects = step(room, command, T0 + 3600)
        assert after.closed
        # Not on connections that are over.
        everybody_lost = isinstance(command, LoseNode | Restart)
        assert heard(effects, "r1") == (
            [] if everybody_lost or isinstance(command, LoseConnection) else ["4410"]
        )
        assert refusals(effects) == ([4404] if isinstance(command, Enter | Resume | CloseRoom) else [])


def test_a_closed_room_answers_like_a_missing_one() -> None:
    room = room_with("s")
    command = leave(room, "s")
    room, _ = step(room, command, T0)
    _, closed = step(room, enter("r"), T0)
    _, without_sender = step(room_with(), enter("r", Role.RECEIVER), T0)
    assert closed == without_sender
    assert step(room, command, T0) == (room, ())


def test_entering_twice_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        step(room_with("s"), enter("s"), T0)


def test_rooms_are_values() -> None:
    room = room_with("s")
    assert replace(room) == room
    with pytest.raises(AttributeError):
        room.generation = 5  # type: ignore[misc]


# Coming back. tests/signaling/test_room_machine.py has the rules; here is what it once found.


def admitted(effects: Effects) -> Admit:
    [admit] = [effect for effect in effects if isinstance(effect, Admit)]
    return admit


@pytest.mark.parametrize("resumes", [False, True])
def test_what_is_due_when_a_connection_is_lost_is_kept_for_its_client(resumes: bool) -> None:
    room = room_with("s", "r")
    room, _ = step(room, lose(room, "r"), T0)
    # That the receiver has not come back is found out by the command that tells of the sender's loss.
    now = T0 + 30
    if resumes:
        handover = (generation(room, "s"), NOTHING_SAID)
        back = Resume("s", "token of s", "new", received=0, handover=handover)
        _, effects = step(room, back, now)
    else:
        room, effects = step(room, lose(room, "s"), now)
        assert heard(effects, "s") == []
        _, effects = step(room, Resume("s", "token of s", "new", received=0), now)
    assert admitted(effects).joined.data.recovered
    assert [text.partition('"reason":"')[2][:20] for text in admitted(effects).replay] == [
        "it did not come back"
    ]


def test_the_token_before_the_newest_brings_back_whoever_never_got_the_newest() -> None:
    room = room_with("s")
    room, _ = step(room, lose(room, "s"), T0)
    room, effects = step(room, Resume("s", "token of s", "never heard", received=0), T0)
    room, _ = step(room, lose(room, "s"), T0)
    room, _ = step(room, Restart(), T0 + 3600)
    _, effects = step(room, Resume("s", "token of s", "new", received=0), T0 + 3629)
    assert admitted(effects).joined.data.resume_token == "new"


def test_nobody_is_told_of_another_on_a_connection_that_is_lost_with_it() -> None:
    for grace in (0.0, 30.0):
        room = room_with("s", "r", config=RoomConfig(grace=grace))
        _, effects = step(room, LoseNode("", "its server has gone"), T0)
        assert heard(effects, "s") == heard(effects, "r") == []


def test_whoever_missed_that_a_new_session_began_is_told_again_whatever_it_counts() -> None:
    room = room_with("s", "r")
    room, _ = step(room, lose(room, "s", None), T0)
    # The answer says `recovered: false`, and is lost; then the receiver says something.
    room, _ = step(room, Resume("s", "token of s", "never heard", received=1), T0)
    room, _ = step(room, lose(room, "s", Traffic(0, 2, ("join", "answer"))), T0)
    room, effects = step(room, Resume("s", "token of s", "new", received=1), T0)
    assert not admitted(effects).joined.data.recovered


def unsettled_room() -> tuple[Room, int]:
    """The receiver is away, has been sent one message that is known of, and one has come since."""
    room = room_with("s", "r")
    gone = generation(room, "r")
    room, _ = run(room, LoseConnection("r", gone, "lost", Traffic(0, 1, ("first",)), settled=False))
    room, _ = run(room, relay(room, "s", OFFER))
    return room, gone


def resumed(room: Room) -> Admit:
    _, effects = run(room, Resume("r", "token of r", "new", received=0))
    return next(effect for effect in effects if isinstance(effect, Admit))


def test_whoever_comes_back_before_its_node_has_told_begins_anew() -> None:
    room, _ = unsettled_room()
    admit = resumed(room)
    assert not admit.joined.data.recovered
    assert admit.replay == ()


@pytest.mark.parametrize("texts", [(), ("second",), ("second", "third")])
def test_what_its_node_tells_comes_before_what_was_kept_since(texts: tuple[str, ...]) -> None:
    room, gone = unsettled_room()
    room, effects = run(room, AppendMissed("r", gone, texts))
    assert effects == []
    admit = resumed(room)
    assert admit.joined.data.recovered
    assert admit.replay[: 1 + len(texts)] == ("first", *texts)
    assert len(admit.replay) == 2 + len(texts)


def test_a_node_that_cannot_tell_makes_a_hole() -> None:
    room, gone = unsettled_room()
    room, _ = run(room, AppendMissed("r", gone, None))
    assert not resumed(room).joined.data.recovered


def test_word_that_nothing_was_missed_changes_nothing_once_the_client_is_back() -> None:
    room, gone = unsettled_room()
    room, _ = run(room, Resume("r", "token of r", "new", received=0))
    assert run(room, AppendMissed("r", gone, ())) == (room, [])
    room, _ = run(room, lose(room, "r"))
    assert run(room, AppendMissed("r", gone, ())) == (room, [])


HOUR = 3600.0


def held_room(wish: float, *, creator: str | None = "10.0.0.1", config: RoomConfig | None = None) -> Room:
    """A room whose sender wants its place held for so many seconds, and a receiver that wants nothing."""
    room = new_room("K7M2QX", config or RoomConfig(), T0, creator=creator)
    return run(room, structs.replace(enter("s"), hold=wish), enter("r"))[0]


@pytest.mark.parametrize(
    ("wish", "creator", "config", "held"),
    [
        (2 * HOUR, "10.0.0.1", RoomConfig(), 2 * HOUR),
        # Less than everybody gets, and more than anybody.
        (5.0, "10.0.0.1", RoomConfig(), 30.0),
        (2 * HOUR, "10.0.0.1", RoomConfig(max_hold=90.0), 90.0),
        (2 * HOUR, "10.0.0.1", RoomConfig(max_hold=0.0), 30.0),
        # In a room that counts in nobody's budget, as long as it would be kept with nobody inside.
        (2 * HOUR, None, RoomConfig(), 600.0),
        # Where no places are held.
        (2 * HOUR, "10.0.0.1", RoomConfig(grace=0.0), 0.0),
    ],
)
def test_a_place_is_held_as_long_as_its_client_wishes_within_bounds(
    wish: float, creator: str | None, config: RoomConfig, held: float
) -> None:
    room = held_room(wish, creator=creator, config=config)
    away, _ = step(room, lose(room, "s"), T0)
    if not held:
        assert away.closed
        return
    assert away.deadline == T0 + held
    back, effects = step(away, Resume("s", "token of s", "next"), T0 + held - 0.1)
    assert sender_id(back) == "s"
    assert [e.joined.data.limits.grace for e in effects if isinstance(e, Admit)] == [held]
    gone, _ = step(away, Expire(), T0 + held)
    assert gone.closed


def test_a_client_is_told_for_how_long_its_own_place_is_held() -> None:
    room = new_room("K7M2QX", RoomConfig(), T0, creator="10.0.0.1")
    _, effects = run(room, structs.replace(enter("s"), hold=HOUR), enter("r"))
    assert [e.joined.data.limits.grace for e in effects if isinstance(e, Admit)] == [HOUR, 30.0]


def test_the_place_of_a_program_that_died_is_held_no_longer_than_any() -> None:
    room = held_room(HOUR)
    away, _ = step(room, structs.replace(lose(room, "s"), died=True), T0)
    assert away.deadline == T0 + 30.0


@pytest.mark.parametrize("lost", [LoseNode("", "gone"), Restart()])
def test_places_are_held_as_long_when_it_is_the_server_that_is_away(lost: Command) -> None:
    room, _ = step(held_room(HOUR), lost, T0)
    room, _ = step(room, Expire(), T0 + HOUR - 1)
    assert sender_id(room) == "s"
    assert receiver_ids(room) == []
    # A second restart begins the time anew.
    room, _ = step(room, Restart(), T0 + HOUR - 1)
    assert room.deadline == T0 + 2 * HOUR - 1
