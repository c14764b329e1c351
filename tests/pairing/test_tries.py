"""What strangers may cost a room: wrong words, and exchanges that they begin and do not finish."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flyx.errors import (
    FlyxError,
    PairingTimedOut,
    PeerUnreachable,
    RemoteProtocolError,
    SenderLeft,
    TooManyTries,
    TooManyUnfinished,
    WrongWords,
)
from flyx.pairing import messages
from flyx.pairing.exchange import Failed, Paired, SenderExchange
from flyx.pairing.keys import PairingSession, Role
from flyx.pairing.messages import Reject
from flyx.pairing.states import STEP_TIMEOUT
from flyx.pairing.tries import MAX_TRIES, MAX_UNFINISHED, Tries
from tests.pairing.support import NOW, PASSWORD, Wire, receiver, sender
from tests.thoroughness import share


def begun(
    tries: Tries, words: str = PASSWORD, *, older: bool = True, **options: Any
) -> tuple[Wire, list[str]]:
    """An exchange whose sender has the receiver's share, and the receiver's proof, held back."""
    held: list[str] = []

    def tap(role: Role, message: str) -> list[str]:
        if role is Role.RECEIVER and '"confirm"' in message:
            held.append(message)
            return []
        return [message]

    session: PairingSession | None = options.get("session")
    known = {session.id: session} if session else {}
    wire = Wire(
        sender(tries=tries, sessions=known), receiver(session=session, older=older), words=words, tap=tap
    )
    wire.run()
    return wire, held


def outcome(end: SenderExchange) -> object:
    """What a sender's end has come to: Paired, or its error."""
    event: object = None
    while (following := end.next_event()) is not None:
        event = following
    return event.error if isinstance(event, Failed) else event


# Each way in which a receiver can leave an exchange before its proof.
ENDS = {
    "close": lambda end: end.channel_closed(),
    "silence": lambda end: end.handle_timeout(NOW + STEP_TIMEOUT),
    "reject": lambda end: end.receive(messages.serialize(Reject(reason="interrupted")), NOW),
    "nonsense": lambda end: end.receive("nonsense", NOW),
    "left": lambda end: end.cancel(SenderLeft()),
}


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("way", ENDS)
def test_a_receiver_that_begins_for_ever_closes_the_room_however_it_leaves(way: str, older: bool) -> None:
    tries = Tries()
    errors: list[FlyxError] = []
    for _ in range(MAX_UNFINISHED):
        wire, _ = begun(tries, older=older)
        ENDS[way](wire.sender)
        error = outcome(wire.sender)
        assert isinstance(error, FlyxError)
        errors.append(error)
    assert not any(error.closes_room for error in errors[:-1])
    assert isinstance(errors[-1], TooManyUnfinished)
    assert errors[-1].closes_room
    assert str(MAX_UNFINISHED) in str(errors[-1])
    assert errors[-1].hint
    assert tries.failed == 0
    # Nobody gets an answer of CPace any more, and a receiver is told why.
    wire, held = begun(tries, older=older)
    assert not (held and older)
    assert not [text for role, text in wire.said if role is Role.SENDER and '"pake"' in text]
    for role in Role:
        assert isinstance(wire.error(role), TooManyUnfinished)


def test_the_last_one_is_told_why_the_room_is_closed() -> None:
    tries = Tries(max_unfinished=1)
    wire, _ = begun(tries)
    wire.sender.handle_timeout(NOW + STEP_TIMEOUT)
    wire.run()
    assert isinstance(wire.error(Role.RECEIVER), TooManyUnfinished)


def test_a_pairing_that_fails_before_the_answer_costs_no_try() -> None:
    tries = Tries(max_unfinished=1)
    for way in ENDS:
        wire = Wire(sender(tries=tries), receiver(), words=None)
        wire.run()
        ENDS[way](wire.sender) if way != "silence" else wire.sender.handle_timeout(NOW + 1000)
        assert wire.sender.ended
    assert tries.refusal() is None


def test_a_bad_share_is_refused_without_an_answer_and_does_not_count() -> None:
    tries = Tries(max_unfinished=1)
    wire = Wire(sender(tries=tries), receiver(), words=None)
    wire.run()
    wire.sender.receive(messages.serialize(messages.Pake(share="00" * 32)), NOW)
    wire.run()
    assert isinstance(wire.error(Role.SENDER), RemoteProtocolError)
    assert not [text for role, text in wire.said if role is Role.SENDER and '"pake"' in text]
    assert tries.refusal() is None


def test_a_paired_receiver_whose_path_breaks_again_and_again_closes_no_room() -> None:
    tries = Tries(max_unfinished=1)
    session = PairingSession("5e" * 16, b"k" * 32)
    for _ in range(3):
        wire, _ = begun(tries, session=session)
        wire.sender.channel_closed()
        assert isinstance(outcome(wire.sender), PeerUnreachable)
    assert tries.refusal() is None


class Room(RuleBasedStateMachine):
    """Receivers of one room that come at once, and finish or leave in any order; beside it a simple count."""

    LIMIT = 5

    def __init__(self) -> None:
        super().__init__()
        self.tries = Tries(max_unfinished=self.LIMIT)
        self.open: list[tuple[Wire, list[str], str, bool]] = []
        self.session = PairingSession("5e" * 16, b"k" * 32)
        self.wrong = self.unfinished = 0

    @property
    def closed(self) -> type[FlyxError] | None:
        if self.wrong >= MAX_TRIES:
            return TooManyTries
        return TooManyUnfinished if self.unfinished >= self.LIMIT else None

    @rule(
        words=st.sampled_from([PASSWORD, PASSWORD, "lemon-apple"]), known=st.booleans(), older=st.booleans()
    )
    def begin(self, words: str, known: bool, older: bool) -> None:
        wire, held = begun(self.tries, words, older=older, session=self.session if known else None)
        if self.closed and not known:
            assert not (held and older)
            assert isinstance(wire.error(Role.SENDER), self.closed)
        else:
            assert held
            self.open.append((wire, held, words, known))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        wire, held, words, known = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        closed = self.closed
        wire.sender.receive(held[0], NOW)
        result = outcome(wire.sender)
        if known or (words == PASSWORD and not closed):
            assert isinstance(result, Paired)
            self.unfinished = self.unfinished if closed else 0
        elif closed:
            assert isinstance(result, closed)
        else:
            self.wrong += 1
            assert isinstance(result, self.closed or WrongWords)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), way=st.sampled_from(list(ENDS)))
    def leave(self, data: st.DataObject, way: str) -> None:
        wire, _, _, known = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if not known and not self.closed:
            self.unfinished += 1
        ENDS[way](wire.sender)
        result = outcome(wire.sender)
        assert isinstance(result, FlyxError)
        if self.closed and not known:
            assert isinstance(result, self.closed)
        else:
            assert not result.closes_room
            assert not isinstance(result, PairingTimedOut) or way == "silence"

    @invariant()
    def counts(self) -> None:
        assert (self.tries.failed, self.tries.unfinished) == (self.wrong, self.unfinished)
        assert type(self.tries.refusal()) is (self.closed or type(None))


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=share(40), stateful_step_count=25)
