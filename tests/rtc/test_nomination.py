"""Which pair is the better one, and how long it is waited for."""

from __future__ import annotations

import pytest
from aioice.candidate import candidate_priority
from hypothesis import given
from hypothesis import strategies as st

from flyx.rtc.nomination import DIRECT_PATIENCE, RELAY_PATIENCE, CandidateKind, Rank, nomination_delay, rank

HOST, PRFLX, SRFLX, RELAY = (
    CandidateKind(kind, candidate_priority(1, kind)) for kind in ("host", "prflx", "srflx", "relay")
)
RANKS = st.builds(Rank, st.integers(0, 2), st.booleans())


def test_the_fewer_relays_the_better_and_hosts_alone_are_best() -> None:
    pairs = [(HOST, HOST), (HOST, SRFLX), (HOST, RELAY), (RELAY, RELAY)]
    ranks = [rank(*pair) for pair in pairs]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
    assert rank(RELAY, SRFLX) == rank(SRFLX, RELAY) == rank(HOST, RELAY)


def test_a_relay_that_is_met_before_it_is_told_of_is_known_by_its_priority() -> None:
    assert rank(HOST, CandidateKind("prflx", candidate_priority(1, "relay"))) == rank(HOST, RELAY)
    assert rank(HOST, PRFLX) == rank(HOST, SRFLX)


@pytest.mark.parametrize(
    ("pair", "patience"),
    [((HOST, HOST), 0.0), ((HOST, SRFLX), DIRECT_PATIENCE), ((HOST, RELAY), RELAY_PATIENCE)],
)
def test_each_kind_waits_for_a_better_one_and_no_longer(
    pair: tuple[CandidateKind, CandidateKind], patience: float
) -> None:
    best, better = rank(*pair), [rank(HOST, HOST)]
    assert nomination_delay(best, better, 0.0, more_to_come=False) == patience
    assert nomination_delay(best, better, patience, more_to_come=False) == 0.0
    assert nomination_delay(best, [], 0.0, more_to_come=False) == 0.0


@given(RANKS, st.lists(RANKS), st.floats(0, 10), st.booleans())
def test_nothing_waits_longer_than_a_second(
    best: Rank, possible: list[Rank], waited: float, more_to_come: bool
) -> None:
    delay = nomination_delay(best, possible, waited, more_to_come=more_to_come)
    assert 0.0 <= delay <= max(0.0, RELAY_PATIENCE - waited)
    if not any(other < best for other in possible) and not (more_to_come and best.relays):
        assert delay == 0.0
