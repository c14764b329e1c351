from __future__ import annotations

import pytest

from flyx.sctp.congestion.filters import WindowedMax, WindowedMin
from flyx.sctp.rto import BACKOFF_HOLD_COUNT, RTO_INITIAL, RTO_MAX, RttEstimator


def test_starts_with_rto_initial() -> None:
    """RFC 9260 §6.3.1 C1."""
    estimator = RttEstimator()
    assert estimator.srtt is None
    assert estimator.min_rtt is None
    assert estimator.rto == RTO_INITIAL == 1.0


def test_first_sample_sets_srtt_and_half_of_it_as_rttvar() -> None:
    """RFC 9260 §6.3.1 C2."""
    estimator = RttEstimator()
    estimator.update(0.4, now=0.0)
    assert (estimator.srtt, estimator.rttvar, estimator.latest_rtt) == (0.4, 0.2, 0.4)
    assert estimator.rto == pytest.approx(0.4 + 4 * 0.2)


def test_later_samples_are_averaged_with_an_eighth_and_a_quarter() -> None:
    """RFC 9260 §6.3.1 C3: RTTVAR takes the SRTT from before the sample."""
    estimator = RttEstimator()
    estimator.update(0.4, now=0.0)
    estimator.update(0.8, now=1.0)
    assert estimator.rttvar == pytest.approx(0.75 * 0.2 + 0.25 * 0.4)
    assert estimator.srtt == pytest.approx(0.45)
    assert estimator.rto == pytest.approx(0.45 + 4 * 0.25)


def test_rto_stays_200_ms_above_a_steady_round_trip() -> None:
    estimator = RttEstimator()
    for n in range(100):
        estimator.update(0.3, now=n * 0.3)
    assert estimator.rto == pytest.approx(0.5)


def test_rto_never_exceeds_rto_max() -> None:
    """RFC 9260 §6.3.1 C7."""
    estimator = RttEstimator()
    estimator.update(50.0, now=0.0)
    assert estimator.rto == RTO_MAX == 60.0


def test_back_off_holds_below_a_second_before_it_doubles_to_rto_max() -> None:
    """RFC 9260 §6.3.3 E2, deviating as BACKOFF_HOLD says."""
    estimator = RttEstimator()
    estimator.update(0.05, now=0.0)
    assert estimator.rto == pytest.approx(0.25)
    waits = []
    for _ in range(BACKOFF_HOLD_COUNT + 8):
        estimator.back_off()
        waits.append(estimator.rto)
    assert waits[:3] == pytest.approx([0.5, 0.75, 0.75])
    assert waits[BACKOFF_HOLD_COUNT - 1 : BACKOFF_HOLD_COUNT + 3] == pytest.approx([0.75, 1.5, 3.0, 6.0])
    assert waits[-1] == RTO_MAX


def test_long_round_trip_is_not_shortened_by_the_hold() -> None:
    estimator = RttEstimator()
    estimator.update(0.8, now=0.0)
    before = estimator.rto
    estimator.back_off()
    assert estimator.rto == before > 0.75


@pytest.mark.parametrize("sampled", [True, False])
def test_back_off_ends_with_a_sample_or_with_word_of_progress(sampled: bool) -> None:
    estimator = RttEstimator()
    estimator.update(0.05, now=0.0)
    estimator.back_off()
    estimator.back_off()
    if sampled:
        estimator.update(0.05, now=1.0)
    else:
        estimator.reset_back_off()
    assert estimator.rto == pytest.approx(0.25)


def test_progress_without_any_sample_returns_to_rto_initial() -> None:
    estimator = RttEstimator()
    estimator.reset_back_off()
    for _ in range(20):
        estimator.back_off()
    assert estimator.rto == RTO_MAX
    estimator.reset_back_off()
    assert estimator.rto == RTO_INITIAL


def test_min_rtt_forgets_after_ten_seconds() -> None:
    estimator = RttEstimator()
    estimator.update(0.05, now=0.0)
    estimator.update(0.08, now=2.0)
    assert estimator.min_rtt == 0.05
    estimator.update(0.09, now=8.7)
    assert estimator.min_rtt == 0.05
    estimator.update(0.09, now=10.1)
    assert estimator.min_rtt == 0.08


def test_windowed_min_and_max_agree_with_a_full_search() -> None:
    smallest, largest = WindowedMin(8, 8), WindowedMax(8, 8)
    assert [smallest.value, largest.value] == [None, None]
    values = [(n, (n * 7919) % 31) for n in range(200)]
    for time, value in values:
        window = [v for t, v in values if time - 8 < t <= time]
        assert smallest.update(value, time) == smallest.value == min(window)
        assert largest.update(value, time) == largest.value == max(window)
