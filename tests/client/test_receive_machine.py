"""The states of a reception: the table, single stories, and any sequence of what a server can do."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flyx.client.confirmation import Confirmation
from flyx.client.receive_machine import (
    TRANSITIONS,
    Check,
    Doubt,
    Feed,
    GiveUp,
    ReceiveMachine,
    ReceiveState,
    Step,
)
from flyx.errors import (
    ConnectionLost,
    Declined,
    FlyxError,
    LocalProtocolError,
    PairingTimedOut,
    PeerUnreachable,
    RoomLost,
    SenderLeft,
)
from flyx.rtc.description import MAX_REMOTE_CANDIDATES
from flyx.signaling.messages import IceCandidate, IceCandidateData, Offer, OfferData

CONFIRMED = Confirmation(1, 7, "ab" * 32)
LOST = ConnectionLost(reason="of the test")
UNREACHABLE = PeerUnreachable(reason="of the test")
CANDIDATE = IceCandidate(data=IceCandidateData(candidate=None))


def offer(text: str = "v=0") -> Offer:
    return Offer(data=OfferData(sdp=text))


def reception(state: ReceiveState, reconnect: float = 300.0) -> ReceiveMachine:
    """A reception in this state, over its first connection."""
    made = ReceiveMachine(reconnect)
    steps = [lambda: made.begin(), made.connected, made.paired, lambda: made.confirmed(CONFIRMED)]
    if state is not ReceiveState.WAITING:
        made.message(offer())
    for step in steps[: list(ReceiveState).index(state)]:
        step()
    assert made.state is state
    return made


def test_received_is_reached_by_a_confirmation_while_receiving_alone() -> None:
    ways = [key for key, state in TRANSITIONS.items() if state is ReceiveState.RECEIVED]
    assert ways == [(ReceiveState.RECEIVING, Step.CONFIRM)]
    assert not [step for step in Step if (ReceiveState.RECEIVED, step) in TRANSITIONS]


@pytest.mark.parametrize("state", ReceiveState)
def test_a_confirmation_at_any_other_time_is_a_mistake(state: ReceiveState) -> None:
    made = reception(state)
    if state is ReceiveState.RECEIVING:
        made.confirmed(CONFIRMED)
        return
    with pytest.raises(LocalProtocolError):
        made.confirmed(CONFIRMED)
    assert made.state is state


@pytest.mark.parametrize("state", [ReceiveState.PAIRING, ReceiveState.RECEIVING])
def test_a_connection_that_lives_is_not_given_up_for_an_offer(state: ReceiveState) -> None:
    made = reception(state)
    action = made.message(offer("made up"))
    assert action == (Check() if state is ReceiveState.RECEIVING else None)
    assert made.state is state


def test_an_offer_while_connecting_replaces_the_one_before_with_all_that_followed_it() -> None:
    made = reception(ReceiveState.CONNECTING)
    assert made.message(CANDIDATE) == Feed(CANDIDATE)
    assert isinstance(made.message(offer("second")), GiveUp)
    assert made.message(CANDIDATE) is None
    third = offer("third")
    assert made.message(third) is None
    assert made.begin() == (third,)


def test_an_offer_keeps_so_many_candidates_and_itself() -> None:
    made = reception(ReceiveState.RECEIVING)
    kept = offer("kept")
    made.message(kept)
    for _ in range(3 * MAX_REMOTE_CANDIDATES):
        made.message(CANDIDATE)
    assert made.failed(LOST, 0.0)
    begun = made.begin()
    assert begun is not None
    assert (begun[0], len(begun)) == (kept, MAX_REMOTE_CANDIDATES + 1)


def test_candidates_of_an_offer_that_is_no_more_are_not_taken_for_the_next() -> None:
    made = reception(ReceiveState.RECEIVING)
    made.failed(LOST, 0.0)
    assert made.message(CANDIDATE) is None
    following = offer("next")
    made.message(following)
    assert made.begin() == (following,)


def test_without_a_sender_a_lost_connection_is_the_end() -> None:
    made = reception(ReceiveState.RECEIVING)
    assert made.sender_left() == Doubt()
    with pytest.raises(ConnectionLost):
        made.failed(LOST, 0.0)


def test_a_failed_repair_is_reported_as_the_loss_of_the_connection_that_was() -> None:
    made = reception(ReceiveState.RECEIVING, reconnect=10.0)
    assert made.failed(LOST, 0.0)
    assert made.deadline == 10.0
    assert not made.failed(UNREACHABLE, 9.9)
    with pytest.raises(ConnectionLost) as caught:
        made.failed(PairingTimedOut(seconds=1), 10.0)
    assert caught.value is LOST


@pytest.mark.parametrize("error", [UNREACHABLE, Declined(), SenderLeft()])
def test_the_first_connection_is_tried_once(error: FlyxError) -> None:
    with pytest.raises(type(error)):
        reception(ReceiveState.CONNECTING).failed(error, 0.0)


def test_a_refusal_ends_also_a_repair() -> None:
    made = reception(ReceiveState.RECEIVING)
    made.failed(LOST, 0.0)
    with pytest.raises(Declined):
        made.failed(Declined(), 1.0)


def test_a_sender_that_comes_back_is_waited_for_again() -> None:
    made = reception(ReceiveState.CONNECTING)
    assert made.sender_left() == GiveUp(made.gone or LOST)
    assert isinstance(made.begin_anew(), GiveUp)
    assert made.begin() is None
    made.message(offer())
    assert made.begin() is not None


class ReceptionMachine(RuleBasedStateMachine):
    """Whatever a server and a sender do, in any order: what becomes of the connection, in each state."""

    @initialize(reconnect=st.sampled_from([0.0, 10.0]))
    def first_reception(self, reconnect: float) -> None:
        self.begin_with(reconnect)

    def begin_with(self, reconnect: float) -> None:
        self.made = ReceiveMachine(reconnect)
        self.now = 0.0
        self.over = False
        # Connections that are held, and the offer that was sent last.
        self.held = 0
        self.last: Offer | None = None
        self.offers = 0

    def told(self, action: object) -> None:
        if isinstance(action, Doubt | Check):
            assert self.made.state is ReceiveState.RECEIVING
        elif isinstance(action, Feed):
            assert self.made.state is ReceiveState.CONNECTING
        elif isinstance(action, GiveUp):
            assert self.held == 1
            assert self.made.state is not ReceiveState.RECEIVING
            if self.made.state is ReceiveState.WAITING:
                # Given up for another one: it closes, whatever else happens.
                self.held = 0

    @precondition(lambda self: self.over)
    @rule()
    def another_reception(self) -> None:
        self.begin_with(10.0)

    @precondition(lambda self: not self.over)
    @rule()
    def an_offer(self) -> None:
        self.offers += 1
        self.last = offer(str(self.offers))
        self.told(self.made.message(self.last))

    @precondition(lambda self: not self.over)
    @rule()
    def a_candidate(self) -> None:
        self.told(self.made.message(CANDIDATE))

    @precondition(lambda self: not self.over)
    @rule(what=st.sampled_from(["away", "left", "anew", "gone"]))
    def the_room(self, what: str) -> None:
        match what:
            case "away":
                self.told(self.made.sender_away())
            case "left":
                self.told(self.made.sender_left())
            case "anew":
                self.told(self.made.begin_anew())
            case _:
                self.told(self.made.room_gone(RoomLost(reason="forgotten")))

    @precondition(lambda self: not self.over and self.made.state is ReceiveState.WAITING)
    @rule()
    def begin(self) -> None:
        assert self.held == 0
        try:
            begun = self.made.begin()
        except FlyxError as error:
            self.fails(error)
            return
        if begun:
            assert begun[0] is self.last
            self.held = 1

    @precondition(lambda self: not self.over and self.held)
    @rule()
    def goes_on(self) -> None:
        match self.made.state:
            case ReceiveState.CONNECTING:
                self.made.connected()
            case ReceiveState.PAIRING:
                self.made.paired()
            case ReceiveState.RECEIVING:
                self.made.confirmed(CONFIRMED)
                self.over = True

    @precondition(lambda self: not self.over and self.held)
    @rule(error=st.sampled_from([UNREACHABLE, Declined(), LOST]))
    def goes_wrong(self, error: FlyxError) -> None:
        if error is LOST and self.made.state is not ReceiveState.RECEIVING:
            error = UNREACHABLE
        self.held = 0
        self.fails(error)

    def fails(self, error: FlyxError) -> None:
        self.now += 4.0
        try:
            self.made.failed(error, self.now)
        except LocalProtocolError:
            raise
        except FlyxError:
            self.over = True

    @invariant()
    def it_has_succeeded_when_it_was_confirmed_and_not_before(self) -> None:
        if hasattr(self, "made"):
            received = self.made.state is ReceiveState.RECEIVED
            assert (self.made.confirmation is CONFIRMED) is received
            assert not received or self.over


TestReceptionMachine = ReceptionMachine.TestCase
