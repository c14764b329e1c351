"""Pairing: who knows the words and sees the same connection succeeds, and nobody else."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from flyx.errors import (
    ConnectionMismatch,
    FlyxError,
    InputError,
    LocalProtocolError,
    MissingFeature,
    NoWordsAsked,
    OtherVersion,
    PairingFailed,
    PairingTimedOut,
    PeerUnreachable,
    RemoteProtocolError,
    SenderLeft,
    TooManyTries,
    TransferInterrupted,
    WrongWords,
)
from flyx.pairing import keys, messages
from flyx.pairing.exchange import (
    Code,
    Exchange,
    Greeting,
    ReceiverExchange,
    WordsWanted,
)
from flyx.pairing.keys import Binding, Role
from flyx.pairing.messages import VERSION, Confirm, Hello, Pake, Reject
from flyx.pairing.states import STEP_TIMEOUT, WORDS_TIMEOUT, PairingState
from flyx.pairing.tries import MAX_TRIES, Tries
from tests.pairing.support import (
    BINDING,
    CODE,
    GREETING,
    NOW,
    OPEN,
    PASSWORD,
    ROOM,
    Wire,
    other_binding,
    receiver,
    sender,
)
from tests.thoroughness import share


def run(wire: Wire) -> Wire:
    wire.run()
    return wire


# What succeeds.


@pytest.mark.parametrize("older", [None, *Role])
def test_two_ends_that_share_words_pair_and_share_a_session(older: Role | None) -> None:
    wire = run(Wire(sender(older=older is Role.SENDER), receiver(older=older is Role.RECEIVER)))
    ours, theirs = wire.paired(Role.SENDER), wire.paired(Role.RECEIVER)
    assert ours == theirs
    assert ours.session is not None
    assert len(ours.session.key) == 32


@pytest.mark.parametrize("older", [None, *Role])
def test_the_receiver_proves_first_and_at_once_where_the_senders_hello_has_its_share(
    older: Role | None,
) -> None:
    wire = run(Wire(sender(older=older is Role.SENDER), receiver(older=older is Role.RECEIVER)))
    kinds = [(role, json.loads(message)["type"]) for role, message in wire.said]
    s, r = Role.SENDER, Role.RECEIVER
    order = [(r, "pake"), *([(s, "pake")] if older else []), (r, "confirm"), (s, "confirm")]
    assert sorted(kinds[:2], key=str) == [(r, "hello"), (s, "hello")]
    assert kinds[2:] == order


def test_each_pairing_has_a_session_of_its_own() -> None:
    sessions = {run(Wire(sender(seed=n), receiver(seed=n + 9))).paired(Role.SENDER).session for n in (1, 2)}
    assert len({session.id for session in sessions if session}) == 2
    assert len({session.key for session in sessions if session}) == 2


@pytest.mark.parametrize(
    ("code", "count"), [(CODE, 2), (Code("words", 5, PASSWORD), 5), (Code("own", 0, PASSWORD), 0)]
)
def test_the_receiver_learns_what_the_code_is_made_of(code: Code, count: int) -> None:
    wire = run(Wire(sender(code), receiver(has_words=False)))
    assert wire.events[Role.RECEIVER][0] == WordsWanted(count)
    assert wire.paired(Role.RECEIVER).session


def test_an_open_code_needs_a_hello_alone() -> None:
    wire = run(Wire(sender(OPEN), receiver(has_words=False)))
    for role in Role:
        assert wire.paired(role).session is None
    assert [json.loads(message)["type"] for _, message in wire.said] == ["hello", "hello"]


def test_a_session_is_taken_up_on_another_connection_without_words() -> None:
    session = run(Wire(sender(), receiver())).paired(Role.SENDER).session
    assert session is not None
    binding = other_binding(sender=b"S" * 32, receiver=b"R" * 32)
    known = {session.id: session}
    wire = run(Wire(sender(binding=binding, sessions=known), receiver(binding, session=session), words=None))
    again = wire.paired(Role.RECEIVER)
    assert again == wire.paired(Role.SENDER)
    assert again.session not in (None, session)


def test_features_of_both_are_told_to_both() -> None:
    ours = Greeting("test", frozenset({"one", "two"}), needs=frozenset({"three"}))
    theirs = Greeting("test", frozenset({"two", "three", "four"}))
    wire = run(Wire(sender(greeting=ours), receiver(greeting=theirs)))
    for role in Role:
        assert wire.paired(role).features == {"two", "three"}


# What must match. Whatever is different, neither end succeeds.


def fails(wire: Wire) -> tuple[FlyxError, FlyxError]:
    wire.run()
    return wire.error(Role.SENDER), wire.error(Role.RECEIVER)


@given(st.text(max_size=40).filter(lambda text: text != PASSWORD))
@settings(max_examples=share(8))
def test_other_words_fail(words: str) -> None:
    tries = Tries()
    for error in fails(Wire(sender(tries=tries), receiver(), words=words)):
        assert isinstance(error, WrongWords)
    assert tries.failed == 1


@pytest.mark.parametrize("role", Role)
@given(at=st.integers(0, 255))
@settings(max_examples=share(5))
def test_one_other_bit_of_a_fingerprint_is_named_as_somebody_in_between(role: Role, at: int) -> None:
    changed = bytearray(BINDING.fingerprints[role])
    changed[at // 8] ^= 1 << at % 8
    binding = other_binding(**{role.value: bytes(changed)})
    tries = Tries()
    for error in fails(Wire(sender(tries=tries), receiver(binding))):
        assert isinstance(error, ConnectionMismatch)
    # The words were right: this is no guess.
    assert tries.failed == 0


def test_exchanged_fingerprints_fail() -> None:
    binding = other_binding(sender=b"r" * 32, receiver=b"s" * 32)
    for error in fails(Wire(sender(), receiver(binding))):
        assert isinstance(error, ConnectionMismatch)


def test_another_room_fails() -> None:
    for error in fails(Wire(sender(), receiver(other_binding(room_id="K7M2QY")))):
        assert isinstance(error, WrongWords)


def test_exchanged_roles_in_the_transcript_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged = lambda shares: keys.exchange_transcript({role: shares[role.other] for role in Role})  # noqa: E731 - for one call
    wire = Wire(sender(), receiver(older=True))

    def tap(role: Role, message: str) -> list[str]:
        # The sender has made its keys when it answers; the receiver makes its own after that.
        if role is Role.SENDER and '"pake"' in message:
            monkeypatch.setattr("flyx.pairing.exchange.exchange_transcript", exchanged)
        return [message]

    wire.tap = tap
    for error in fails(wire):
        assert isinstance(error, WrongWords)


def test_another_version_in_the_channel_identifier_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = sender(), receiver()
    wire = Wire(ours, theirs, words=None)
    wire.run()
    monkeypatch.setattr("flyx.pairing.keys.VERSION", VERSION + 1)
    theirs.give_words(PASSWORD, NOW)
    monkeypatch.undo()
    for error in fails(wire):
        assert isinstance(error, WrongWords)


@pytest.mark.parametrize("speaker", Role)
def test_another_nonce_than_was_said_fails(speaker: Role) -> None:
    def tap(role: Role, message: str) -> list[str]:
        if role is not speaker or '"hello"' not in message:
            return [message]
        return [json.dumps({**json.loads(message), "nonce": "5e" * 16})]

    for error in fails(Wire(sender(), receiver(older=True), tap=tap)):
        assert isinstance(error, WrongWords)
    # The receiver's has no part in the words where the share is early.
    expected = WrongWords if speaker is Role.SENDER else ConnectionMismatch
    for error in fails(Wire(sender(), receiver(), tap=tap)):
        assert isinstance(error, expected)


@pytest.mark.parametrize("speaker", Role)
def test_a_hello_that_was_changed_on_the_way_fails(speaker: Role) -> None:
    def tap(role: Role, message: str) -> list[str]:
        changed = role is speaker and '"hello"' in message
        return [message.replace('"test"', '"tset"') if changed else message]

    for error in fails(Wire(sender(), receiver(), tap=tap)):
        assert isinstance(error, ConnectionMismatch)


# Other versions. An older flyx is not here to be run: of version 1 there is what it said.

VERSION_1 = json.loads((Path(__file__).parent / "data" / "version1.json").read_text())["messages"]


@pytest.mark.parametrize("old", Role)
def test_a_peer_of_version_1_is_told_to_upgrade(old: Role) -> None:
    end: Exchange = receiver() if old is Role.SENDER else sender()
    for speaker, message in VERSION_1:
        # Its hello decides; its message of SPAKE2 comes after the end, if at all.
        if speaker == old.value and not end.ended:
            end.receive(message, NOW)
    error = getattr(end.next_event(), "error", None)
    assert isinstance(error, OtherVersion)
    assert str(error) == (
        "The other side speaks version 1 of flyx's protocol, this one version 2: upgrade the other side."
    )
    assert "compare `flyx --version`" in (error.hint or "")
    # What the old one hears: a hello in its own grammar, of a version that it does not speak, and a reason.
    hello, reject = end.next_message() or "", end.next_message() or ""
    assert json.loads(hello).items() >= {"type": "hello", "version": 2}.items()
    its_fields = set().union(*(json.loads(text) for _, text in VERSION_1[:2])) | {"session"}
    assert set(json.loads(hello)) - its_fields <= {"nonce", "share"}
    assert json.loads(reject) == {"type": "reject", "reason": "other_version"}


@pytest.mark.parametrize("old", Role)
def test_a_message_of_spake2_is_no_share(old: Role) -> None:
    message = next(text for speaker, text in VERSION_1 if speaker == old.value and '"pake"' in text)
    wire = Wire(sender(), receiver(older=True), words=PASSWORD if old is Role.SENDER else None)
    wire.tap = lambda role, text: [message] if role is old and '"pake"' in text else [text]
    wire.run()
    end = wire.receiver if old is Role.SENDER else wire.sender
    if old is Role.RECEIVER:
        end.receive(message, NOW)
        wire.run()
    error = wire.error(end.role)
    assert isinstance(error, RemoteProtocolError)
    assert "versions of flyx" in (error.hint or "")


@pytest.mark.parametrize("speaker", Role)
@given(
    st.integers(1, 1 << 31).filter(lambda version: version != VERSION),
    st.dictionaries(st.sampled_from(["agent", "nonce", "features", "code", "session"]), st.integers()),
)
@settings(max_examples=share(20))
def test_another_version_is_named_on_both_sides_whatever_else_its_hello_says(
    speaker: Role, version: int, fields: dict[str, int]
) -> None:
    def tap(role: Role, message: str) -> list[str]:
        if role is not speaker or '"hello"' not in message:
            return [message]
        return [json.dumps({"type": "hello", "version": version, **fields})]

    wire = run(Wire(sender(), receiver(), tap=tap))
    error = wire.error(speaker.other)
    assert isinstance(error, OtherVersion)
    assert f"version {version} " in str(error)
    older = "the other side" if version < VERSION else "this one"
    assert str(error).endswith(f"this one version {VERSION}: upgrade {older}.")
    assert "compare `flyx --version`" in (error.hint or "")
    # A real one of another version sees our hello itself; ours here is told.
    assert isinstance(wire.error(speaker), PairingFailed)


def test_another_version_after_the_hello_is_out_of_place() -> None:
    end = sender()
    end.receive(messages.serialize(HELLO), NOW)
    end.receive('{"type":"hello","version":1}', NOW)
    assert isinstance(getattr(end.next_event(), "error", None), RemoteProtocolError)


@pytest.mark.parametrize("speaker", Role)
def test_a_feature_that_one_side_needs_and_the_other_lacks_is_named_on_both(speaker: Role) -> None:
    needing = Greeting("test", needs=frozenset({"sparkle"}))
    plain = Greeting("test")
    greetings = {speaker: needing, speaker.other: plain}
    wire = Wire(sender(greeting=greetings[Role.SENDER]), receiver(greeting=greetings[Role.RECEIVER]))
    wire.run()
    for role in Role:
        error = wire.error(role)
        assert isinstance(error, MissingFeature)
        assert "sparkle" in str(error)
    assert "the other flyx lacks" in str(wire.error(speaker))
    assert "this flyx lacks" in str(wire.error(speaker.other))


def test_a_sender_that_asks_for_no_words_is_refused_when_the_code_has_some() -> None:
    wire = run(Wire(sender(OPEN), receiver(has_words=True)))
    assert isinstance(wire.error(Role.RECEIVER), NoWordsAsked)


def test_a_session_is_not_given_up_for_an_open_sender() -> None:
    session = run(Wire(sender(), receiver())).paired(Role.SENDER).session
    wire = run(Wire(sender(OPEN), receiver(session=session, has_words=False)))
    assert isinstance(wire.error(Role.RECEIVER), NoWordsAsked)


def test_a_session_that_the_sender_does_not_know_fails() -> None:
    session = run(Wire(sender(), receiver())).paired(Role.SENDER).session
    assert session is not None
    for error in fails(Wire(sender(), receiver(session=session), words=None)):
        assert isinstance(error, PairingFailed)


def test_the_name_of_a_session_without_its_key_fails_and_costs_a_try() -> None:
    session = run(Wire(sender(), receiver())).paired(Role.SENDER).session
    assert session is not None
    tries = Tries()
    known = {session.id: session}
    forged = structs.replace(session, key=bytes(32))
    wire = Wire(sender(sessions=known, tries=tries), receiver(session=forged), words=None)
    for error in fails(wire):
        assert isinstance(error, WrongWords)
    assert tries.failed == 1


# Guessing.


def test_three_wrong_tries_in_all_close_the_room_also_for_those_under_way() -> None:
    tries = Tries()
    honest = Wire(sender(tries=tries), receiver(), words=None)
    honest.run()
    for n in range(MAX_TRIES):
        expected = TooManyTries if n == MAX_TRIES - 1 else WrongWords
        for error in fails(Wire(sender(tries=tries, seed=n), receiver(seed=n), words=f"guess-{n}")):
            assert type(error) is expected
    assert isinstance(tries.refusal(), TooManyTries)
    honest.receiver.give_words(PASSWORD, NOW)
    for error in fails(honest):
        assert isinstance(error, TooManyTries)
        assert error.closes_room


def test_a_session_is_taken_up_though_guessers_have_used_up_the_tries() -> None:
    session = run(Wire(sender(), receiver())).paired(Role.SENDER).session
    assert session is not None
    known = {session.id: session}
    tries = Tries()
    for _ in range(MAX_TRIES):
        tries.count_wrong_words()
    wire = run(Wire(sender(sessions=known, tries=tries), receiver(session=session), words=None))
    assert wire.paired(Role.RECEIVER) == wire.paired(Role.SENDER)
    forged = structs.replace(session, key=bytes(32))
    for error in fails(Wire(sender(sessions=known, tries=tries), receiver(session=forged), words=None)):
        assert isinstance(error, TooManyTries)


def test_guesses_made_at_the_same_time_are_counted_one_by_one() -> None:
    tries = Tries()
    held: list[tuple[Wire, str]] = []
    for n in range(10):
        wire = Wire(sender(tries=tries, seed=n), receiver(seed=n), words=f"guess-{n}")

        def tap(role: Role, message: str, wire: Wire = wire) -> list[str]:
            if '"confirm"' not in message:
                return [message]
            held.append((wire, message))
            return []

        wire.tap = tap
        wire.run()
    assert len(held) == 10
    for wire, confirm in held:
        wire.sender.receive(confirm, NOW)
        wire.run()
    assert tries.failed == MAX_TRIES
    errors = [type(wire.error(Role.SENDER)) for wire, _ in held]
    assert errors == [WrongWords, WrongWords, *[TooManyTries] * 8]


def test_a_stranger_holds_nothing_to_test_guesses_with_before_its_own_proof() -> None:
    for older in (True, False):
        wire = Wire(sender(), receiver(older=older))
        wire.tap = lambda role, message: [] if '"confirm"' in message else [message]
        wire.run()
        told = [json.loads(message)["type"] for role, message in wire.said if role is Role.SENDER]
        assert told == (["hello", "pake"] if older else ["hello"])


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=share(8))
def test_an_early_share_is_another_each_time_whatever_the_words(words: str, others: str) -> None:
    """It is a random multiple of a point that the words make, and so as likely by any others."""
    codes = [Code("own", 0, text) for text in (words, words, others)]
    hellos = [json.loads(sender(code, seed=seed).next_message() or "") for seed, code in enumerate(codes)]
    assert len({hello["share"] for hello in hellos}) == 3


def test_an_older_receiver_gets_another_share_than_that_of_the_hello() -> None:
    wire = run(Wire(sender(), receiver(older=True)))
    said = [json.loads(message) for role, message in wire.said if role is Role.SENDER]
    assert said[0]["share"] != said[1]["share"]


def test_a_guess_is_one_try_whether_the_share_is_early_or_not() -> None:
    for older in (True, False):
        tries = Tries()
        wire = run(Wire(sender(tries=tries), receiver(older=older), words="lemon-apple"))
        assert isinstance(wire.error(Role.SENDER), WrongWords)
        assert (tries.failed, tries.unfinished) == (1, 0)


# Reflection, replay, disorder.


def reflecting(kind: str) -> Wire:
    """The receiver gets its own message of this kind back, as if the sender had said it."""
    theirs = receiver(older=kind == "pake")
    held: list[str] = []

    def tap(role: Role, message: str) -> list[str]:
        if f'"{kind}"' not in message:
            return [message]
        if role is Role.RECEIVER:
            held.append(message)
            return [message]
        return list(held)

    return Wire(sender(), theirs, tap=tap)


@pytest.mark.parametrize("kind", ["hello", "pake", "confirm"])
def test_a_reflected_message_fails(kind: str) -> None:
    wire = reflecting(kind)
    if kind == "hello":
        # The two hellos cross: reflect by hand.
        wire.receiver.receive(wire.receiver.next_message() or "", NOW)
    wire.run()
    assert isinstance(wire.error(Role.RECEIVER), WrongWords | RemoteProtocolError)


@pytest.mark.parametrize("replayed_role", Role)
def test_messages_of_an_earlier_pairing_do_not_pair_again(replayed_role: Role) -> None:
    recorded = [message for role, message in run(Wire(sender(), receiver())).said if role is replayed_role]
    victim: Exchange = receiver(seed=3) if replayed_role is Role.SENDER else sender(seed=3)
    for message in recorded:
        victim.receive(message, NOW)
        if victim.state is PairingState.WORDS:
            victim.give_words(PASSWORD, NOW)  # type: ignore[attr-defined]
        if victim.ended:
            break
    assert victim.state is PairingState.FAILED


LOW_ORDER = [
    point
    for point, product in json.loads((Path(__file__).parent / "data" / "cpace.json").read_text())[
        "scalar_mult_vfy"
    ]["points"]
    if not int(product, 16)
]


@pytest.mark.parametrize("share", LOW_ORDER)
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("role", Role)
def test_a_share_of_low_order_is_refused(role: Role, older: bool, share: str) -> None:
    def tap(speaker: Role, message: str) -> list[str]:
        said = json.loads(message)
        return [json.dumps({**said, "share": share}) if speaker is role and "share" in said else message]

    wire = run(Wire(sender(), receiver(older=older), tap=tap))
    error = wire.error(role.other)
    assert isinstance(error, RemoteProtocolError)
    assert "low order" in str(error)


HELLO = Hello(version=VERSION, agent="liar", nonce="11" * 16)
SENDER_HELLO = structs.replace(HELLO, code="words", words=2)
PAKE = Pake(share="09" + "00" * 31)
EARLY_HELLO = structs.replace(SENDER_HELLO, share=PAKE.share)
CONFIRM = Confirm(words="00" * 32, connection="00" * 32)


@pytest.mark.parametrize(
    ("end", "sequence"),
    [
        (Role.SENDER, [PAKE]),
        (Role.SENDER, [CONFIRM]),
        (Role.SENDER, [HELLO, HELLO]),
        (Role.SENDER, [HELLO, CONFIRM]),
        (Role.SENDER, [HELLO, PAKE, PAKE]),
        (Role.SENDER, [SENDER_HELLO]),
        (Role.RECEIVER, [HELLO]),
        (Role.RECEIVER, [PAKE]),
        (Role.RECEIVER, [SENDER_HELLO, SENDER_HELLO]),
        (Role.RECEIVER, [SENDER_HELLO, PAKE]),
        (Role.RECEIVER, [SENDER_HELLO, CONFIRM]),
        (Role.RECEIVER, [EARLY_HELLO, PAKE]),
    ],
)
def test_a_message_out_of_place_ends_it(end: Role, sequence: list[messages.PairingMessage]) -> None:
    exchange: Exchange = sender() if end is Role.SENDER else receiver()
    for message in sequence:
        exchange.receive(messages.serialize(message), NOW)
    assert exchange.state is PairingState.FAILED
    event = None
    while (following := exchange.next_event()) is not None:
        event = following
    assert isinstance(getattr(event, "error", None), RemoteProtocolError)
    last = None
    while (said := exchange.next_message()) is not None:
        last = said
    assert last is not None
    assert messages.parse_untrusted(last) == Reject(reason="protocol_error")


SPEECHES = (HELLO, SENDER_HELLO, EARLY_HELLO, PAKE, CONFIRM, Reject(reason="wrong_words"))
anything = st.one_of(
    st.text(max_size=50),
    st.binary(max_size=50),
    st.sampled_from([messages.serialize(message) for message in SPEECHES]),
)


@given(st.sampled_from(Role), st.lists(anything, max_size=6))
@settings(max_examples=share(60))
def test_no_sequence_of_messages_pairs_or_breaks_an_end(role: Role, sequence: list[str | bytes]) -> None:
    exchange: Exchange = sender() if role is Role.SENDER else receiver()
    for message in sequence:
        exchange.receive(message, NOW)
        if exchange.state is PairingState.WORDS:
            exchange.give_words(PASSWORD, NOW)  # type: ignore[attr-defined]
    assert exchange.state is not PairingState.PAIRED


# Our own mistakes.


def test_words_that_are_not_wanted_are_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        receiver().give_words(PASSWORD, NOW)


def test_a_message_after_pairing_is_not_for_the_exchange() -> None:
    wire = run(Wire(sender(), receiver()))
    with pytest.raises(LocalProtocolError):
        wire.sender.receive("{}", NOW)


# Before there is a connection.


def test_what_is_said_before_there_is_a_connection_counts_once_there_is_one() -> None:
    wire = run(Wire(sender(), receiver()))
    assert wire.paired(Role.SENDER) == wire.paired(Role.RECEIVER)
    for end in (wire.sender, wire.receiver):
        end.bind(BINDING.fingerprints, NOW)
        assert end.state is PairingState.PAIRED


@pytest.mark.parametrize("role", Role)
def test_a_connection_with_other_certificates_than_its_descriptions_claim_is_refused(role: Role) -> None:
    def tap(speaker: Role, message: str) -> list[str]:
        return [] if '"confirm"' in message else [message]

    wire = run(Wire(sender(), receiver(), tap=tap))
    end: Exchange = wire.sender if role is Role.SENDER else wire.receiver
    end.bind(other_binding(sender=b"S" * 32).fingerprints, NOW)
    wire.run()
    assert isinstance(wire.error(role), ConnectionMismatch)


def test_the_time_to_answer_begins_with_the_connection() -> None:
    wire = run(Wire(sender(), receiver(), tap=lambda _, message: [] if '"confirm"' in message else [message]))
    wire.receiver.bind(BINDING.fingerprints, NOW + 19)
    assert wire.receiver.next_timeout() == NOW + 19 + STEP_TIMEOUT


def test_nothing_is_proved_of_no_connection() -> None:
    end = ReceiverExchange(ROOM, GREETING, None, has_words=True, entropy=random.Random(3).randbytes)
    assert end.next_timeout() is None
    (hello,) = iter(sender().next_message, None)
    end.receive(hello, NOW)
    with pytest.raises(LocalProtocolError):
        end.give_words(PASSWORD, NOW)


# Ends before the end.


@pytest.mark.parametrize(
    ("stage", "limit"), [("hello", STEP_TIMEOUT), ("pake", WORDS_TIMEOUT), ("confirm", STEP_TIMEOUT)]
)
def test_a_sender_gives_up_a_receiver_that_does_not_go_on(stage: str, limit: float) -> None:
    stages = iter(["hello", "pake", "confirm"])
    until = list(iter(lambda: next(stages), stage))

    def tap(role: Role, message: str) -> list[str]:
        return [message] if role is Role.SENDER or json.loads(message)["type"] in until else []

    wire = run(Wire(sender(), receiver(), tap=tap))
    assert wire.sender.next_timeout() == NOW + limit
    wire.sender.handle_timeout(NOW + limit - 0.1)
    assert not wire.sender.ended
    wire.sender.handle_timeout(NOW + limit)
    wire.run()
    error = wire.error(Role.SENDER)
    assert isinstance(error, PairingTimedOut)
    assert f"{limit:g} s" in str(error)
    assert "waited too long" in str(wire.error(Role.RECEIVER))


@pytest.mark.parametrize("stage", ["hello", "pake", "confirm"])
def test_a_receiver_gives_up_a_sender_that_does_not_go_on(stage: str) -> None:
    def tap(role: Role, message: str) -> list[str]:
        return [] if role is Role.SENDER and f'"{stage}"' in message else [message]

    wire = run(Wire(sender(), receiver(older=stage == "pake"), tap=tap))
    assert wire.receiver.next_timeout() == NOW + STEP_TIMEOUT
    wire.receiver.handle_timeout(NOW + STEP_TIMEOUT)
    wire.run()
    assert isinstance(wire.error(Role.RECEIVER), PairingTimedOut)


def test_our_own_person_has_all_the_time_that_the_sender_gives() -> None:
    wire = run(Wire(sender(), receiver(), words=None))
    assert wire.receiver.state is PairingState.WORDS
    assert wire.receiver.next_timeout() is None


@pytest.mark.parametrize("role", Role)
def test_a_connection_that_closes_ends_it(role: Role) -> None:
    wire = run(Wire(sender(), receiver(), words=None))
    end: Exchange = wire.sender if role is Role.SENDER else wire.receiver
    end.channel_closed()
    wire.run()
    assert isinstance(wire.error(role), PeerUnreachable)


def test_each_side_hears_of_the_other_that_stops() -> None:
    wire = run(Wire(sender(), receiver(), words=None))
    wire.receiver.stop()
    wire.run()
    assert isinstance(wire.error(Role.SENDER), TransferInterrupted)
    wire = run(Wire(sender(), receiver(), words=None))
    wire.sender.stop()
    wire.run()
    assert isinstance(wire.error(Role.RECEIVER), SenderLeft)


@pytest.mark.parametrize("reason", ["wrong_words", "too_many_tries", "connection_mismatch", "no_such_reason"])
def test_what_a_stranger_says_as_its_reason_never_closes_a_senders_room(reason: str) -> None:
    exchange = sender()
    exchange.receive(messages.serialize(Reject(reason=reason)), NOW)
    event = exchange.next_event()
    error = getattr(event, "error", None)
    assert isinstance(error, PairingFailed)
    assert not isinstance(error, ConnectionMismatch)
    assert not error.closes_room


def test_a_room_and_its_fingerprints_cannot_trade_bytes() -> None:
    one = Binding(ROOM + "s", {Role.SENDER: b"s" * 31, Role.RECEIVER: b"r" * 32})
    said = dict.fromkeys(Role, b"x")
    assert keys.connection_transcript(BINDING, said, b"x") != keys.connection_transcript(one, said, b"x")


@pytest.mark.parametrize("reason", ["too_many_tries", "too_many_unfinished"])
def test_a_receiver_is_told_to_ask_for_another_code_and_to_run_nothing(reason: str) -> None:
    exchange = receiver()
    exchange.receive(messages.serialize(Reject(reason=reason)), NOW)
    error = getattr(exchange.next_event(), "error", None)
    assert isinstance(error, PairingFailed)
    assert error.hint == "ask the sender for a new code"


def test_a_sender_hears_that_the_code_was_incomplete() -> None:
    wire = run(Wire(sender(), receiver(), words=None))
    wire.receiver.cancel(InputError(reason="the code has 2 words; 1 was given"))
    wire.run()
    assert str(wire.error(Role.SENDER)) == "Pairing failed: the receiver typed an incomplete code"
