from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.sctp.pacing import BURST_TIME, QUANTUM_MAX, QUANTUM_TIME, UNLIMITED, Pacer, send_quantum

PACKET = 1200


@pytest.mark.parametrize(
    ("rate", "quantum"),
    [(1_000.0, 2 * PACKET), (2.5e6, 2_500), (12.5e6, 12_500), (125e6, 125_000), (5e9, QUANTUM_MAX)],
)
def test_quantum_is_a_millisecond_of_sending_within_bounds(rate: float, quantum: int) -> None:
    assert send_quantum(rate, PACKET) == quantum


def test_without_a_rate_everything_may_leave_at_once() -> None:
    pacer = Pacer(PACKET)
    assert pacer.budget(5.0, float("inf")) == UNLIMITED
    pacer.on_sent(10**9)
    assert pacer.next_send_time(5.0, float("inf")) == 5.0
    # What was sent unpaced is not owed.
    assert pacer.budget(5.0, 1e6) == 4 * PACKET


def test_full_bucket_holds_four_milliseconds_and_four_packets_at_least() -> None:
    assert Pacer(PACKET).budget(0.0, 12.5e6) == 50_000
    assert Pacer(PACKET).budget(0.0, 100_000.0) == 4 * PACKET


def test_bucket_does_not_fill_beyond_its_size() -> None:
    pacer = Pacer(PACKET)
    pacer.budget(0.0, 12.5e6)
    assert pacer.budget(100.0, 12.5e6) == 50_000


def test_drained_bucket_releases_a_quantum_when_a_quantum_is_there() -> None:
    rate = 12.5e6
    pacer = Pacer(PACKET)
    pacer.on_sent(pacer.budget(0.0, rate))
    assert pacer.budget(0.0, rate) == 0
    assert pacer.next_send_time(0.0, rate) == pytest.approx(QUANTUM_TIME, rel=1e-3)
    assert pacer.budget(0.0005, rate) == 0
    due = pacer.next_send_time(0.0005, rate)
    assert due == pytest.approx(QUANTUM_TIME, rel=1e-3)
    assert pacer.budget(due, rate) >= 12_500


def test_debt_of_a_burst_rounded_up_is_paid_first() -> None:
    pacer = Pacer(PACKET)
    pacer.on_sent(pacer.budget(0.0, 12.5e6) + 1_000)
    assert pacer.next_send_time(0.0, 12.5e6) == pytest.approx(13_500 / 12.5e6, rel=1e-3)


def test_larger_packets_enlarge_bucket_and_quantum() -> None:
    pacer = Pacer(PACKET)
    pacer.on_max_packet_size(65_000)
    assert pacer.budget(0.0, 1e6) == 260_000


@pytest.mark.parametrize("rate", [1.25e6, 12.5e6, 125e6, 1e9])
def test_rate_is_reached_with_timers_that_fire_late_on_whole_milliseconds(rate: float) -> None:
    pacer = Pacer(PACKET)
    now, sent = 0.0, 0
    while now < 1.0:
        budget = pacer.budget(now, rate)
        sent += budget
        pacer.on_sent(budget)
        due = pacer.next_send_time(now, rate)
        # epoll's timeout is rounded up to a millisecond, and the loop comes round half a one later.
        now = (int(due * 1000) + 1) / 1000 + 0.0005
    assert sent == pytest.approx(rate, rel=0.02)


def test_bursts_are_half_of_what_passed_where_the_end_of_a_long_one_was_lost() -> None:
    rate = 12.5e6
    pacer = Pacer(PACKET)
    pacer.on_round_trip(0.052, 0.050, 0.0)
    assert pacer.budget(0.0, rate) == 312_500
    assert not pacer.has_short_bursts
    pacer.on_loss(0.0, rate, 100_000, 64_000)
    assert pacer.has_short_bursts
    assert pacer.budget(0.0, rate) == 18_000
    # As much more in ten seconds.
    assert pacer.budget(5.0, rate) == 27_000
    # A quantum at least; half of one is worth waking up for.
    pacer.on_loss(5.0, rate, 100_000, 90_000)
    assert pacer.budget(5.0, rate) == 12_500
    pacer.on_sent(12_500)
    assert pacer.next_send_time(5.0, rate) == pytest.approx(5.0005, abs=1e-5)
    # Ever more, until it is what the bucket holds anyhow.
    assert pacer.budget(1_000.0, rate) == 312_500
    assert not pacer.has_short_bursts


@pytest.mark.parametrize(
    ("rtt", "burst", "lost"),
    [
        # A queue was there before.
        (0.060, 100_000, 64_000),
        # No longer than what any turn sends.
        (0.052, 24_000, 20_000),
        # Few, as a path may lose at random.
        (0.052, 100_000, 24_000),
    ],
)
def test_other_losses_leave_bursts_as_they_are(rtt: float, burst: int, lost: int) -> None:
    pacer = Pacer(PACKET)
    pacer.on_round_trip(rtt, 0.050, 0.0)
    pacer.on_loss(0.0, 12.5e6, burst, lost)
    assert pacer.budget(0.0, 12.5e6) == 12.5e6 * 0.025


def test_a_loss_while_nothing_is_paced_says_nothing() -> None:
    pacer = Pacer(PACKET)
    pacer.on_loss(0.0, float("inf"), 1_000_000, 900_000)
    assert pacer.budget(0.0, 12.5e6) == 50_000


@given(
    rate=st.floats(1_000, 1e10),
    steps=st.lists(st.tuples(st.floats(0, 0.01), st.floats(0, 1)), max_size=50),
)
def test_no_interval_ever_sees_more_than_its_rate_and_a_burst(
    rate: float, steps: list[tuple[float, float]]
) -> None:
    pacer = Pacer(PACKET)
    now, sent = 0.0, 0
    burst = max(rate * BURST_TIME, 4 * PACKET)
    for wait, part in steps:
        now += wait
        budget = pacer.budget(now, rate)
        size = int(budget * part)
        pacer.on_sent(size)
        sent += size
        assert budget == 0 or budget >= send_quantum(rate, PACKET)
        assert sent <= rate * now + burst + 1
        due = pacer.next_send_time(now, rate)
        assert now <= due < float("inf")
        if pacer.budget(now, rate) == 0:
            assert due > now
            assert Pacer(PACKET).budget(due, rate) > 0


@pytest.mark.parametrize("rate", [1e5, 12.5e6, 1e9])
def test_a_bucket_with_a_largest_burst_never_lets_more_leave_and_always_that_in_the_end(rate: float) -> None:
    pacer = Pacer(PACKET, 30_000)
    now = sent = 0.0
    for _ in range(50):
        budget = pacer.budget(now, rate)
        assert 0 < budget <= 30_000
        pacer.on_sent(budget)
        sent += budget
        now = pacer.next_send_time(now, rate)
    assert sent == pytest.approx(rate * now + min(30_000, max(rate * 0.004, 4 * PACKET)), rel=0.1)
