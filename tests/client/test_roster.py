"""The states of a sender's receivers: the table, any sequence of steps, and rooms of simulated transfers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flyx.client.confirmation import Confirmation
from flyx.client.roster import TRANSITIONS, Receiver, ReceiverState, Roster, Step
from flyx.errors import FilesFailed, FlyxError, LocalProtocolError, PeerUnreachable
from flyx.transfer.sender_events import Delivered
from flyx.transfer.session import Failed
from tests.simulator import Conditions, Simulation
from tests.thoroughness import share

DIGEST = "ab" * 32
CONFIRMED = Confirmation(1, 7, DIGEST)
FAILURE = PeerUnreachable(reason="of the test")

# How a receiver comes to each state that is not final, in a roster with room for one.
WAYS: dict[ReceiverState, Callable[[Roster, Receiver], object]] = {
    ReceiverState.WAITING: lambda roster, receiver: None,
    ReceiverState.CONNECTING: lambda roster, receiver: roster.connect_next(),
    ReceiverState.SERVING: lambda roster, receiver: (roster.connect_next(), roster.pair(receiver)),
    ReceiverState.REPAIRING: lambda roster, receiver: (
        roster.connect_next(),
        roster.pair(receiver),
        roster.lose(receiver),
    ),
    ReceiverState.SERVED: lambda roster, receiver: (
        roster.connect_next(),
        roster.pair(receiver),
        roster.confirm(receiver, CONFIRMED),
    ),
    ReceiverState.UNSERVED: lambda roster, receiver: roster.fail(receiver, FAILURE),
}


def arrived(state: ReceiverState) -> tuple[Roster, Receiver]:
    """A roster and a receiver in this state."""
    roster = Roster(0, 8)
    receiver = roster.arrive("client")
    WAYS[state](roster, receiver)
    assert receiver.state is state
    return roster, receiver


def test_served_is_reached_by_a_confirmation_out_of_serving_alone() -> None:
    ways = [key for key, state in TRANSITIONS.items() if state is ReceiverState.SERVED]
    assert ways == [(ReceiverState.SERVING, Step.CONFIRM)]


def test_every_state_but_the_final_ones_can_fail_and_the_final_ones_are_final() -> None:
    final = {ReceiverState.SERVED, ReceiverState.UNSERVED}
    for state in ReceiverState:
        following = TRANSITIONS.get((state, Step.FAIL))
        assert following is (None if state in final else ReceiverState.UNSERVED)
        assert state not in final or not [step for step in Step if (state, step) in TRANSITIONS]


@pytest.mark.parametrize("state", WAYS)
def test_a_confirmation_in_any_other_state_is_a_mistake_and_counts_for_nothing(state: ReceiverState) -> None:
    roster, receiver = arrived(state)
    served = roster.served
    if state is ReceiverState.SERVING:
        roster.confirm(receiver, CONFIRMED)
        assert (roster.served, receiver.confirmation) == (1, CONFIRMED)
        return
    with pytest.raises(LocalProtocolError):
        roster.confirm(receiver, CONFIRMED)
    assert (roster.served, receiver.state) == (served, state)


def test_a_receiver_that_failed_may_come_again_as_another() -> None:
    roster, receiver = arrived(ReceiverState.UNSERVED)
    assert roster.find("client") is None
    again = roster.arrive("client")
    assert (again.number, again.state) == (2, ReceiverState.WAITING)
    assert receiver.error is FAILURE


def test_a_confirmation_with_missing_entries_tells_the_first_of_them() -> None:
    assert CONFIRMED.error is None
    error = Confirmation(1, 7, DIGEST, 2, ("a", "file_vanished")).error
    assert isinstance(error, FilesFailed)
    assert error.fields == {"failed": 2, "total": 3, "path": "a", "reason": "it was not there to be sent"}


def test_a_receiver_that_could_take_nothing_is_not_served() -> None:
    nothing = Confirmation(0, 0, DIGEST, 1, ("a", "in_the_way"))
    assert nothing.is_of_nothing
    assert not Confirmation(1, 7, DIGEST, 1, ("a", "in_the_way")).is_of_nothing
    # Another receiver would fare no better.
    assert not Confirmation(0, 0, DIGEST, 1, ("a", "file_vanished")).is_of_nothing
    assert not Confirmation(0, 0, DIGEST).is_of_nothing


class RosterMachine(RuleBasedStateMachine):
    """Any sequence of what a session may do, beside what it must come to."""

    wanted = 2
    max_connecting = 3

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster(self.wanted, self.max_connecting)
        self.all: list[Receiver] = []
        self.confirmed = 0

    def in_state(self, *states: ReceiverState) -> list[Receiver]:
        return [receiver for receiver in self.all if receiver.state in states]

    @rule()
    def arrive(self) -> None:
        self.all.append(self.roster.arrive(f"client {len(self.all)}"))

    @rule()
    def connect(self) -> None:
        oldest = self.in_state(ReceiverState.WAITING)[:1]
        if receiver := self.roster.connect_next():
            assert [receiver] == oldest

    @rule()
    def serve(self) -> None:
        held = self.in_state(ReceiverState.QUEUED)
        receiver = self.roster.serve_next()
        assert receiver is None or receiver in held

    @precondition(lambda self: self.in_state(ReceiverState.CONNECTING, ReceiverState.REPAIRING))
    @rule(data=st.data())
    def pair(self, data: st.DataObject) -> None:
        states = ReceiverState.CONNECTING, ReceiverState.REPAIRING
        receiver = data.draw(st.sampled_from(self.in_state(*states)))
        has_place = self.roster.has_place
        assert self.roster.pair(receiver) is has_place

    @precondition(lambda self: self.in_state(ReceiverState.QUEUED, ReceiverState.SERVING))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        states = ReceiverState.QUEUED, ReceiverState.SERVING
        self.roster.lose(data.draw(st.sampled_from(self.in_state(*states))))

    @precondition(lambda self: self.in_state(ReceiverState.SERVING))
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        receiver = data.draw(st.sampled_from(self.in_state(ReceiverState.SERVING)))
        self.roster.confirm(receiver, CONFIRMED)
        self.confirmed += 1

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        receiver = data.draw(st.sampled_from(self.all))
        if receiver.state in (ReceiverState.SERVED, ReceiverState.UNSERVED):
            with pytest.raises(LocalProtocolError):
                self.roster.fail(receiver, FAILURE)
        else:
            self.roster.fail(receiver, FAILURE)

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        self.roster.depart(data.draw(st.sampled_from(self.all)))

    @invariant()
    def served_are_those_that_confirmed(self) -> None:
        served = self.in_state(ReceiverState.SERVED)
        assert self.roster.served == self.confirmed == len(served)
        assert all(receiver.confirmation is CONFIRMED and receiver.error is None for receiver in served)
        unserved = self.in_state(ReceiverState.UNSERVED)
        assert all(receiver.error is FAILURE and receiver.confirmation is None for receiver in unserved)
        assert self.roster.is_complete is (self.confirmed >= self.wanted)

    @invariant()
    def places_are_kept_to(self) -> None:
        assert self.confirmed + len(self.in_state(ReceiverState.SERVING)) <= self.wanted
        assert len(self.in_state(ReceiverState.CONNECTING)) <= self.max_connecting

    @invariant()
    def each_is_where_its_state_says(self) -> None:
        for state in ReceiverState:
            expected = [] if state in (ReceiverState.SERVED, ReceiverState.UNSERVED) else self.in_state(state)
            assert sorted(self.roster.in_state(state), key=lambda each: each.number) == expected
        for receiver in self.all:
            assert self.roster.find(receiver.client_id) in (receiver, None)


TestRosterMachine = RosterMachine.TestCase


FILES: dict[str, bytes | None] = {"d": None, "d/a": b"a" * 3_000_000, "d/b": b"b"}


def serve_by_simulation(roster: Roster, receiver: Receiver, seed: int) -> Simulation:
    """Serve a receiver over as many simulated connections as it takes, or until it fails."""
    chance = random.Random(seed)
    simulation = Simulation(FILES, seed=seed)
    destination = simulation.destination
    while True:
        conditions = Conditions(
            closed_at=chance.choice([None, chance.uniform(0, 2)]), answer=chance.random() < 0.9
        )
        destination = destination.again()
        simulation = Simulation(FILES, seed=seed, conditions=conditions, destination=destination)
        assert roster.pair(receiver)
        simulation.run()
        match simulation.sender_events[-1]:
            case Delivered(files=files, bytes=size, digest=digest):
                roster.confirm(receiver, Confirmation(files, size, digest))
                return simulation
            case Failed(error=error) if error.code == "connection_lost" and chance.random() < 0.8:
                roster.lose(receiver)
            case Failed(error=error):
                roster.fail(receiver, error)
                return simulation
            case event:
                raise AssertionError(f"seed {seed}: ended with {event}")


@pytest.mark.parametrize("seed", range(share(20)))
def test_receivers_whose_simulated_disk_has_every_byte_are_served_and_no_others(seed: int) -> None:
    roster = Roster(3, 8)
    attempts = 0
    while not roster.is_complete:
        attempts += 1
        assert attempts < 100, f"seed {seed}: nobody is served"
        arrived = roster.arrive(f"client {attempts}")
        assert roster.connect_next() is arrived
        simulation = serve_by_simulation(roster, arrived, seed * 100 + attempts)
        if arrived.state is ReceiverState.SERVED:
            assert simulation.destination.finished
            assert simulation.destination.files == FILES
        else:
            assert isinstance(arrived.error, FlyxError)
    assert roster.served == 3


def test_a_receiver_that_waits_in_vain_is_connected_to_though_there_is_no_place() -> None:
    roster = Roster(1, 8)
    first, late = roster.arrive("first"), roster.arrive("late")
    assert roster.connect_next() is first
    assert roster.pair(first)
    assert roster.connect_next() is None
    assert roster.connect_next(in_vain=True) is late
