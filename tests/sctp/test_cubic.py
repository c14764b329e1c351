from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.sctp.congestion import make_controller
from flyx.sctp.congestion.base import AckSample, Loss
from flyx.sctp.congestion.cubic import ALPHA_CUBIC, Cubic
from tests.sctp.congestion_simulation import (
    PACKET,
    Flow,
    Link,
    Simulation,
    bulk,
    megabits,
    run_alone,
    run_outage,
    run_together,
)


def ack(
    acked: int,
    *,
    sent_at: float,
    rtt: float | None = 0.1,
    delivered: int = 0,
    prior_delivered: int = 0,
    cwnd_limited: bool = True,
) -> AckSample:
    return AckSample(
        acked=acked,
        lost=0,
        delivered=delivered,
        prior_delivered=prior_delivered,
        delivery_rate=None,
        is_app_limited=False,
        rtt=rtt,
        tx_in_flight=acked,
        lost_since=0,
        in_flight=0,
        cwnd_limited=cwnd_limited,
        sent_at=sent_at,
    )


def loss(sent_at: float) -> list[Loss]:
    return [Loss(PACKET, PACKET, sent_at, PACKET, PACKET, False)]


def packets(cwnd: float) -> float:
    return cwnd / PACKET


def after_loss_at(window: int) -> Cubic:
    """A controller that has just lost a packet at time 10 with this many packets as its window."""
    cubic = Cubic(PACKET)
    cubic.cwnd = window * PACKET
    cubic.on_loss(10.0, loss(9.9), 0)
    return cubic


def test_first_flight_is_ten_packets_unpaced() -> None:
    cubic = Cubic(PACKET)
    assert cubic.cwnd == 10 * PACKET
    assert cubic.pacing_rate == float("inf")
    assert cubic.in_slow_start


def test_slow_start_adds_what_is_acked_and_paces_at_two_windows_a_round_trip() -> None:
    cubic = Cubic(PACKET)
    cubic.on_ack(0.1, ack(10 * PACKET, sent_at=0.0))
    assert cubic.cwnd == 20 * PACKET
    assert cubic.pacing_rate == pytest.approx(2 * 20 * PACKET / 0.1)


def test_window_that_is_not_used_does_not_grow() -> None:
    cubic = Cubic(PACKET)
    cubic.on_ack(0.1, ack(10 * PACKET, sent_at=0.0, cwnd_limited=False))
    assert cubic.cwnd == 10 * PACKET


def test_loss_takes_three_tenths_of_the_window() -> None:
    """RFC 9438 §4.6."""
    cubic = after_loss_at(100)
    assert packets(cubic.cwnd) == 70
    assert packets(cubic.ssthresh) == pytest.approx(70)
    assert packets(cubic.w_max) == 100
    assert packets(cubic.cwnd_prior) == 100
    assert not cubic.in_slow_start


def test_losses_of_one_flight_reduce_the_window_once() -> None:
    cubic = after_loss_at(100)
    cubic.on_loss(10.05, loss(9.99) + loss(10.0), 0)
    assert packets(cubic.cwnd) == 70
    cubic.on_loss(10.2, loss(9.99) + loss(10.1), 0)
    assert packets(cubic.cwnd) == pytest.approx(49, abs=0.01)


def test_window_does_not_grow_for_what_was_sent_before_the_recovery() -> None:
    """RFC 9002 §7.3.2."""
    cubic = after_loss_at(100)
    cubic.on_ack(10.1, ack(70 * PACKET, sent_at=10.0))
    assert packets(cubic.cwnd) == 70


def test_fast_convergence_lowers_w_max_when_it_was_not_reached() -> None:
    """RFC 9438 §4.7."""
    cubic = after_loss_at(100)
    cubic.on_loss(11.0, loss(10.5), 0)
    assert packets(cubic.w_max) == pytest.approx(70 * 0.85)
    assert packets(cubic.cwnd) == pytest.approx(49, abs=0.01)


def grow(cubic: Cubic, start: float, seconds: float, rtt: float = 0.1) -> float:
    """Ack a window a round trip, in ten parts; the time at the end."""
    now = start
    while now < start + seconds - 1e-9:
        now += rtt / 10
        cubic.on_ack(now, ack(cubic.cwnd // 10, sent_at=now - rtt, rtt=rtt))
    return now


def test_cubic_is_back_at_w_max_after_k_seconds() -> None:
    """RFC 9438 §4.2, figures 1 and 2: k = cubic root of (1000 - 700) / 0.4."""
    cubic = after_loss_at(1000)
    now = grow(cubic, 10.11, 0.01)
    assert cubic.k == pytest.approx(9.0856, abs=1e-4)
    # One second into the epoch: 0.4 * (1 - 9.0856)**3 + 1000.
    now = grow(cubic, now, 1.0)
    assert packets(cubic.cwnd) == pytest.approx(788.6, abs=8)
    now = grow(cubic, now, 8.0856)
    assert packets(cubic.cwnd) == pytest.approx(1000, abs=3)
    # And beyond: 0.4 * 5**3 + 1000.
    grow(cubic, now, 5.0)
    assert packets(cubic.cwnd) == pytest.approx(1050, abs=5)


def test_short_round_trips_follow_reno() -> None:
    """RFC 9438 §4.3: alpha packets a round trip up to cwnd_prior, then one."""
    assert pytest.approx(9 / 17) == ALPHA_CUBIC
    cubic = after_loss_at(100)
    now = grow(cubic, 10.011, 0.2, rtt=0.01)
    assert packets(cubic.cwnd) == pytest.approx(70 + 20 * ALPHA_CUBIC, abs=1)
    while packets(cubic.w_est) < 100:
        now = grow(cubic, now, 0.01, rtt=0.01)
    before = packets(cubic.w_est)
    grow(cubic, now, 0.1, rtt=0.01)
    assert packets(cubic.w_est) - before == pytest.approx(10, abs=0.5)


def test_time_without_use_of_the_window_does_not_count() -> None:
    """RFC 9438 §5.8."""
    used, paused = after_loss_at(1000), after_loss_at(1000)
    grow(used, 10.1, 2.0)
    now = grow(paused, 10.1, 1.0)
    for _ in range(300):
        now += 0.1
        paused.on_ack(now, ack(PACKET, sent_at=now - 0.1, cwnd_limited=False))
    grow(paused, now, 1.0)
    assert packets(paused.cwnd) == pytest.approx(packets(used.cwnd), rel=0.01)


def test_timeout_leaves_two_packets_and_slow_start_up_to_ssthresh() -> None:
    """RFC 9260 §7.2.3; RFC 9438 §4.8."""
    cubic = Cubic(PACKET)
    cubic.cwnd = 100 * PACKET
    cubic.on_timeout(10.0, 0)
    assert packets(cubic.cwnd) == 2
    assert packets(cubic.ssthresh) == pytest.approx(70)
    cubic.on_timeout(11.0, 0)
    assert packets(cubic.ssthresh) == pytest.approx(70)
    now = grow(cubic, 11.2, 0.1)
    assert packets(cubic.cwnd) == pytest.approx(4, abs=1.3)
    while cubic.in_slow_start and now < 15:
        now = grow(cubic, now, 0.01)
    assert packets(cubic.cwnd) == pytest.approx(70, abs=0.1)
    grow(cubic, now, 0.02)
    # k is 0: the cubic is at its flat middle.
    assert cubic.k == 0
    assert packets(cubic.w_max) == pytest.approx(70, abs=0.5)


def test_spurious_loss_is_taken_back() -> None:
    """RFC 9438 §4.9."""
    cubic = after_loss_at(100)
    cubic.on_spurious_loss(10.1)
    assert packets(cubic.cwnd) == 100
    assert cubic.in_slow_start
    cubic.on_loss(10.3, loss(10.2), 0)
    cubic.on_spurious_loss(10.4)
    cubic.on_spurious_loss(10.5)
    assert packets(cubic.cwnd) == 100


def test_spurious_timeout_is_taken_back() -> None:
    cubic = Cubic(PACKET)
    cubic.cwnd = 100 * PACKET
    cubic.on_timeout(10.0, 0)
    cubic.on_timeout(11.0, 0)
    cubic.on_spurious_loss(11.1)
    assert packets(cubic.cwnd) == 100


def test_hystart_leaves_slow_start_after_five_rounds_of_longer_round_trips() -> None:
    """RFC 9406 §4.2."""
    cubic = Cubic(PACKET)
    now, delivered = 0.0, 0
    rounds = []
    for n in range(12):
        rtt = 0.05 if n < 4 else 0.06
        begun = delivered
        for _ in range(10):
            now += rtt / 10
            delivered += cubic.cwnd // 20
            cubic.on_ack(
                now,
                ack(
                    cubic.cwnd // 20,
                    sent_at=now - rtt,
                    rtt=rtt,
                    delivered=delivered,
                    prior_delivered=begun,
                ),
            )
        rounds.append((cubic.hystart.in_css, cubic.in_slow_start))
    assert rounds[3] == (False, True)
    assert rounds[4] == (True, True)
    assert rounds[8] == (True, True)
    assert [slow_start for _, slow_start in rounds].index(False) in (9, 10)
    assert cubic.ssthresh < float("inf")


def test_hystart_goes_on_when_the_delay_was_a_false_alarm() -> None:
    """RFC 9406 §4.2: RTT shrinks again in conservative slow start."""
    cubic = Cubic(PACKET)
    now, delivered = 0.0, 0
    for n in range(12):
        rtt = 0.06 if n == 4 else 0.05
        begun = delivered
        for _ in range(10):
            now += rtt / 10
            delivered += PACKET
            sample = ack(PACKET, sent_at=now - rtt, rtt=rtt, delivered=delivered, prior_delivered=begun)
            cubic.on_ack(now, sample)
        if n == 4:
            assert cubic.hystart.in_css
    assert not cubic.hystart.in_css
    assert cubic.in_slow_start


def test_larger_packets_raise_a_window_below_the_minimum() -> None:
    cubic = Cubic(PACKET)
    cubic.on_timeout(1.0, 0)
    cubic.on_max_packet_size(9_000)
    assert cubic.cwnd == 18_000


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from bbr, cubic"):
        make_controller("vegas", PACKET, random.random)


def check(flow: Flow, now: float) -> None:
    assert flow.controller.cwnd >= 2 * PACKET
    assert flow.controller.pacing_rate > 0


def test_clean_link_is_used() -> None:
    used, link = run_alone("cubic", megabits(50), 0.05, 0.0, 8)
    assert used > 0.93
    assert link.mean_queueing < 0.05


def test_random_loss_leaves_what_reno_would_have() -> None:
    """RFC 9438 §5.1, equation 6: 1.2 times Reno's sqrt(3 / 2p) packets a round trip, give or take."""
    used, _ = run_alone("cubic", megabits(100), 0.05, 0.01, 15)
    assert used * megabits(100) * 0.05 / PACKET == pytest.approx(12.2, rel=0.4)


def test_two_flows_share() -> None:
    assert min(run_together(["cubic", "cubic"], megabits(20), 0.04, 15)) > 0.35


def test_outage_of_two_seconds_is_made_good() -> None:
    assert run_outage("cubic", megabits(20), 0.05, 5, 7) > 0.8


def test_window_keeps_its_minimum_through_heavy_loss_and_reordering() -> None:
    flow = bulk("cubic")
    flow.check = check
    simulation = Simulation(Link(megabits(20), 0.01, loss=0.2, jitter=0.005, outages=((2, 3),)), [flow])
    simulation.run(8)
    assert flow.delivered > 0


def test_application_that_offers_little_does_not_inflate_the_window() -> None:
    flow = bulk("cubic")
    flow.offered = lambda now: now * megabits(2)
    Simulation(Link(megabits(100), 0.025), [flow]).run(10)
    # 2 Mbit/s for 50 ms are 10 packets; nothing beyond the initial window and a burst is ever used.
    assert flow.controller.cwnd <= 40 * PACKET


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ack", "ack", "ack", "loss", "timeout", "spurious", "size", "sent"]),
        st.floats(0, 2),
        st.integers(0, 500_000),
        st.floats(0, 1),
        st.booleans(),
    ),
    max_size=80,
)


@pytest.mark.parametrize("name", ["cubic", "bbr"])
@given(events=EVENTS, seed=st.integers(0, 9))
def test_no_sequence_of_events_breaks_window_or_rate(
    name: str, events: list[tuple[str, float, int, float, bool]], seed: int
) -> None:
    controller = make_controller(name, PACKET, random.Random(seed).random)
    now, delivered, lost, size = 0.0, 0, 0, PACKET
    for what, wait, volume, part, flag in events:
        now += wait
        if what == "ack":
            delivered += volume
            controller.on_ack(
                now,
                AckSample(
                    acked=volume,
                    lost=0,
                    delivered=delivered,
                    prior_delivered=int((delivered - volume) * part),
                    delivery_rate=None if flag and part < 0.1 else volume * part / (wait + 1e-3),
                    is_app_limited=flag,
                    rtt=None if part > 0.9 else part,
                    tx_in_flight=volume,
                    lost_since=int(lost * part),
                    in_flight=int(volume * part),
                    cwnd_limited=not flag,
                    sent_at=now - part,
                ),
            )
        elif what == "loss":
            lost += volume
            runs = [Loss(volume, volume, now - part, volume, volume, flag) for _ in range(1 + seed)]
            controller.on_loss(now, runs, int(volume * part))
        elif what == "timeout":
            controller.on_timeout(now, 0)
        elif what == "spurious":
            controller.on_spurious_loss(now)
        elif what == "size":
            size = 1_200 if flag else 9_000
            controller.on_max_packet_size(size)
        else:
            controller.on_sent(now, volume, int(volume * (1 + part)) if flag else volume, flag)
        assert isinstance(controller.cwnd, int)
        assert 2 * size <= controller.cwnd < 10**12
        assert controller.pacing_rate > 0
