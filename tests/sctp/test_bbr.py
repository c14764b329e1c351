"""BBR version 3. Tests named after a case of draft-ietf-ccwg-bbr-06 appendix A cite it."""

from __future__ import annotations

import random
from math import inf

import pytest

from flyx.sctp.congestion.base import AckSample, Loss
from flyx.sctp.congestion.bbr import Bbr
from flyx.sctp.congestion.bbr_model import PathModel
from flyx.sctp.congestion.bbr_states import BbrState
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
from tests.thoroughness import some


def sample(
    *,
    acked: int = PACKET,
    delivered: int,
    prior_delivered: int,
    rate: float | None,
    rtt: float | None = 0.1,
    sent_at: float = 0.0,
    in_flight: int = 0,
    tx_in_flight: int = 100 * PACKET,
    lost_since: int = 0,
    is_app_limited: bool = False,
    cwnd_limited: bool = False,
) -> AckSample:
    return AckSample(
        acked=acked,
        lost=0,
        delivered=delivered,
        prior_delivered=prior_delivered,
        delivery_rate=rate,
        is_app_limited=is_app_limited,
        rtt=rtt,
        tx_in_flight=tx_in_flight,
        lost_since=lost_since,
        in_flight=in_flight,
        cwnd_limited=cwnd_limited,
        sent_at=sent_at,
    )


class Driven:
    """A controller fed one SACK a round trip of 0.1 s, each of which ends a round."""

    def __init__(self) -> None:
        self.bbr = Bbr(PACKET, lambda: 0.5)
        self.now = 0.0
        self.delivered = 0

    def round(self, rate: float, **fields: object) -> BbrState:
        self.now += 0.1
        prior, self.delivered = self.delivered, self.delivered + int(rate * 0.1)
        values: dict[str, object] = {
            "acked": self.delivered - prior,
            "in_flight": int(rate * 0.1),
            "sent_at": self.now - 0.1,
            "tx_in_flight": int(rate * 0.1),
        }
        values.update(fields)
        self.bbr.on_ack(
            self.now,
            sample(delivered=self.delivered, prior_delivered=prior, rate=rate, **values),  # type: ignore[arg-type]
        )
        return self.bbr.state

    def to_probe_bw(self, rate: float) -> None:
        for _ in range(12):
            if self.round(rate) in (BbrState.PROBE_BW_DOWN, BbrState.PROBE_BW_CRUISE):
                break
        assert self.bbr.model.full_bw_reached


class Watch:
    """Notes the states that a simulated flow goes through, and checks what must always hold."""

    def __init__(self, flow: Flow) -> None:
        assert isinstance(flow.controller, Bbr)
        self.bbr = flow.controller
        self.states: list[tuple[float, BbrState]] = []
        self.max_in_flight = 0
        self.max_bw = 0.0
        self.cwnd_floor = inf
        flow.check = self

    def __call__(self, flow: Flow, now: float) -> None:
        bbr = self.bbr
        assert bbr.cwnd >= 2 * PACKET
        assert bbr.pacing_rate > 0
        if not self.states or self.states[-1][1] is not bbr.state:
            self.states.append((now, bbr.state))
        if now > 2:
            self.max_in_flight = max(self.max_in_flight, flow.in_flight)
            self.cwnd_floor = min(self.cwnd_floor, bbr.cwnd)
        self.max_bw = max(self.max_bw, bbr.model.max_bw)

    def names(self) -> list[BbrState]:
        return [state for _, state in self.states]


def simulate(link: Link, seconds: float, seed: int = 1) -> tuple[Flow, Watch]:
    flow = bulk("bbr", seed)
    watch = Watch(flow)
    Simulation(link, [flow], seed).run(seconds)
    return flow, watch


# Formulas


def test_initial_rate_is_the_initial_window_in_a_millisecond_then_in_a_round_trip() -> None:
    """§5.6.2."""
    bbr = Bbr(PACKET, random.random)
    assert bbr.cwnd == 10 * PACKET
    assert bbr.pacing_rate == pytest.approx(2.77 * 10 * PACKET / 0.001)
    bbr.on_ack(0.1, sample(delivered=PACKET, prior_delivered=0, rate=None, rtt=0.02))
    assert bbr.pacing_rate == pytest.approx(2.77 * 10 * PACKET / 0.02)


@pytest.mark.parametrize("is_expected", [False, True])
@pytest.mark.parametrize(("rtt", "packets"), [(0.001, 10), (0.024, 10), (0.048, 20), (0.2, 83.3), (2.0, 100)])
def test_initial_window_grows_with_the_round_trip(rtt: float, packets: float, is_expected: bool) -> None:
    bbr = Bbr(PACKET, random.random)
    if is_expected:
        bbr.expect_round_trip(rtt)
    else:
        bbr.on_ack(rtt, sample(acked=0, delivered=0, prior_delivered=0, rate=None, rtt=rtt))
    assert bbr.cwnd == pytest.approx(packets * PACKET, rel=0.001)
    # It leaves in a third of a round trip, and so no faster on a long path than on one of 24 ms.
    assert bbr.pacing_rate == pytest.approx(2.77 * bbr.cwnd / rtt)


def test_startup_paces_at_2_77_and_keeps_two_bdp_in_flight() -> None:
    driven = Driven()
    driven.round(1e6)
    assert driven.bbr.pacing_rate == pytest.approx(2.77 * 0.99 * 1e6)
    for rate in (2e6, 4e6, 8e6):
        driven.round(rate)
    assert driven.bbr.state is BbrState.STARTUP
    # The window grows by what is acked: 50,000 + 100,000 + 200,000 + 400,000 + 800,000.
    assert driven.bbr.cwnd == 1_550_000


def test_a1_startup_ends_after_three_rounds_of_less_than_a_quarter_more() -> None:
    """§5.3.1.2."""
    driven = Driven()
    states = [driven.round(rate, in_flight=10**9) for rate in (1e6, 2e6, 2.4e6, 2.4e6, 2.4e6)]
    assert states == [BbrState.STARTUP] * 4 + [BbrState.DRAIN]
    assert driven.bbr.pacing_rate == pytest.approx(0.5 * 0.99 * 2.4e6)
    # A.4: four rounds in Drain are enough.
    states = [driven.round(2.4e6, in_flight=10**9) for _ in range(4)]
    assert states == [BbrState.DRAIN] * 3 + [BbrState.PROBE_BW_DOWN]


def test_a7_rounds_limited_by_the_application_never_end_startup() -> None:
    driven = Driven()
    for _ in range(20):
        assert driven.round(1e6, is_app_limited=True) is BbrState.STARTUP


def test_rate_limited_by_the_application_counts_only_if_it_is_the_best() -> None:
    """§5.5.5."""
    model = PathModel()
    model.update_max_bw(1e6, False)
    model.update_max_bw(0.5e6, True)
    assert model.max_bw == 1e6
    model.update_max_bw(2e6, True)
    assert model.max_bw == 2e6


def test_max_bw_covers_this_probing_cycle_and_the_last() -> None:
    """§5.5.6."""
    model = PathModel()
    model.update_max_bw(4e6, False)
    model.advance_max_bw_filter()
    model.update_max_bw(3e6, False)
    assert model.max_bw == 4e6
    model.advance_max_bw_filter()
    assert model.max_bw == 3e6
    model.advance_max_bw_filter()
    assert model.max_bw == 3e6


def test_min_rtt_is_replaced_after_ten_seconds_and_a_probe_due_after_five() -> None:
    """§5.3.4.3."""
    model = PathModel()
    model.update_min_rtt(0.0, 0.05)
    model.update_min_rtt(4.0, 0.06)
    assert (model.min_rtt, model.probe_rtt_expired) == (0.05, False)
    model.update_min_rtt(5.1, 0.07)
    assert (model.min_rtt, model.probe_rtt_expired) == (0.05, True)
    model.update_min_rtt(10.1, 0.08)
    assert model.min_rtt == 0.07


def test_loss_while_cruising_bounds_bw_by_what_was_delivered_but_never_below_seven_tenths() -> None:
    """§5.5.10.3, with the pacing margin taken out of what was delivered."""
    model = PathModel()
    model.update_max_bw(1e6, False)
    model.bw_latest, model.inflight_latest = 0.8e6, 80_000
    model.adapt_lower_bounds(100_000, pace=1.0)
    assert (model.bw_shortterm, model.inflight_shortterm) == (0.8e6, 80_000)
    model.bw_latest, model.inflight_latest = 0.1e6, 10_000
    model.adapt_lower_bounds(100_000, pace=1.0)
    assert model.bw_shortterm == pytest.approx(0.56e6)
    assert model.inflight_shortterm == pytest.approx(56_000)
    # Nine tenths delivered of nine tenths sent are no reason to slow down.
    model.bw_latest, model.inflight_latest = 0.9 * 0.56e6, 56_000
    model.adapt_lower_bounds(100_000, pace=0.9)
    assert model.bw_shortterm == pytest.approx(0.56e6)
    model.bound_bw()
    assert model.bw == pytest.approx(0.56e6)
    # With a queue, what is missing may be with another flow: background loss is no excuse.
    model.background_loss = 0.05
    model.queue_seen = True
    model.bw_latest = 0.9 * 0.53e6
    model.adapt_lower_bounds(100_000, pace=0.9)
    assert model.bw_shortterm == pytest.approx(0.53e6)
    # And where it overflows, the draft's rule holds: somebody else may want the difference.
    model.queue_overflows = True
    model.bw_latest = 0.9 * 0.53e6
    model.adapt_lower_bounds(100_000, pace=0.9)
    assert model.bw_shortterm == pytest.approx(0.9 * 0.53e6)


def test_little_loss_without_a_queue_bounds_nothing() -> None:
    model = PathModel()
    model.min_rtt = 0.05
    model.update_max_bw(1e6, False)
    model.bw_latest, model.inflight_latest = 0.5e6, 50_000

    def bound_after(rtt: float, lost: int) -> float:
        model.note_loss(lost)
        one = sample(acked=100_000 - lost, delivered=0, prior_delivered=0, rate=None, rtt=rtt)
        model.update_background_loss(one)
        model.end_round_of_background_loss(0.0, probing=True, packet_size=PACKET)
        model.reset_short_term_model()
        model.adapt_lower_bounds(100_000, pace=1.0)
        return model.bw_shortterm

    assert bound_after(rtt=0.051, lost=2_000) == inf
    # One round alone may be a burst that was too long for a short buffer; two are no accident.
    assert bound_after(rtt=0.051, lost=10_000) == inf
    assert bound_after(rtt=0.051, lost=2_100) == 0.7e6
    assert bound_after(rtt=0.051, lost=0) == inf
    assert bound_after(rtt=0.060, lost=1_000) == 0.7e6


def test_background_loss_is_learned_without_a_queue_only() -> None:
    model = PathModel()
    model.min_rtt = 0.05

    def loss_of_rounds(
        count: int, rtt: float, lost: int, probing: bool = False, queue: bool = False
    ) -> float:
        for _ in range(count):
            one = sample(acked=600_000 - lost, delivered=0, prior_delivered=0, rate=None, rtt=rtt)
            model.note_loss(lost)
            model.update_background_loss(one)
            model.end_round_of_background_loss(0.0, probing, PACKET)
        assert model.queue_seen == queue
        return model.background_loss

    assert loss_of_rounds(50, rtt=0.06, lost=18_000, queue=True) == 0
    assert loss_of_rounds(50, rtt=0.051, lost=18_000, probing=True) == 0
    # A buffer that is too short for a queue to be seen loses a lot when it overflows.
    assert loss_of_rounds(50, rtt=0.051, lost=100_000) == 0
    assert loss_of_rounds(100, rtt=0.051, lost=18_000) == pytest.approx(0.03, rel=0.05)
    assert loss_of_rounds(100, rtt=0.051, lost=50_000) == 0.05
    assert loss_of_rounds(300, rtt=0.051, lost=0) < 0.001


@pytest.mark.parametrize(
    ("background", "lost", "overflows"),
    some([(0.0, 3_100, True), (0.01, 13_600, False), (0.01, 18_000, True)]),
)
def test_a_queue_overflows_if_more_is_lost_in_it_than_the_background_and_chance(
    background: float, lost: int, overflows: bool
) -> None:
    model = PathModel()
    model.min_rtt, model.background_loss = 0.05, background
    model.note_loss(lost)
    model.update_background_loss(
        sample(acked=600_000 - lost, delivered=0, prior_delivered=0, rate=None, rtt=0.06)
    )
    model.end_round_of_background_loss(0.0, probing=True, packet_size=PACKET)
    # Without chance the limit were 0.5 % and the background: 3,000 and 9,000 bytes of 600,000.
    assert (model.queue_seen, model.queue_overflows) == (True, overflows)


def lossy_round(driven: Driven, rtt: float) -> BbrState:
    """A round at 10 MB/s that loses 80 of 500 packets, in 8 bursts, while the application limits."""
    lost = [
        Loss(PACKET, PACKET, driven.now - 0.09, 500 * PACKET, (n + 1) * 10 * PACKET, True) for n in range(8)
    ]
    driven.bbr.on_loss(driven.now, lost, 400 * PACKET)
    fields = {"in_flight": 10**9, "lost_since": 80 * PACKET, "tx_in_flight": 500 * PACKET}
    return driven.round(10e6, is_app_limited=True, rtt=rtt, **fields)


def test_a2_loss_ends_startup_even_if_the_application_limits() -> None:
    """§5.3.1.3."""
    driven = Driven()
    for _ in range(3):
        driven.round(10e6, is_app_limited=True)
    assert lossy_round(driven, rtt=0.12) is BbrState.DRAIN
    # max(bdp, inflight_latest) is 10 MB/s times 0.1 s.
    assert driven.bbr.model.inflight_longterm == pytest.approx(1_000_000)


def test_loss_where_no_packet_met_a_queue_ends_startup_only_if_the_next_round_has_it_too() -> None:
    driven = Driven()
    for _ in range(3):
        driven.round(10e6, is_app_limited=True)
    assert lossy_round(driven, rtt=0.101) is BbrState.STARTUP
    assert driven.round(10e6, is_app_limited=True) is BbrState.STARTUP
    assert lossy_round(driven, rtt=0.101) is BbrState.STARTUP
    assert lossy_round(driven, rtt=0.101) is BbrState.DRAIN


def test_a_burst_of_losses_while_it_starts_does_not_keep_it_slow() -> None:
    """It did, for 10 s: 36 %."""
    used, _ = run_alone("bbr", megabits(100), 0.05, 0.01, 12, seed=7, loss_burst=20)
    assert used > 0.85


def test_few_losses_do_not_end_startup() -> None:
    driven = Driven()
    driven.round(1e6)
    driven.bbr.on_loss(driven.now, [Loss(PACKET, PACKET, 0.05, 20 * PACKET, 5 * PACKET, False)] * 5, 0)
    assert driven.round(2e6, lost_since=5 * PACKET, tx_in_flight=20 * PACKET) is BbrState.STARTUP


def to_probe_up(driven: Driven, rate: float) -> None:
    driven.to_probe_bw(rate)
    for _ in range(100):
        if driven.round(rate) is BbrState.PROBE_BW_UP:
            return
    pytest.fail("no bandwidth probe")


def test_a21_loss_while_probing_up_sets_inflight_longterm_and_goes_down() -> None:
    """§5.5.10.2: 2 % of lost_prefix + 1,000,000 - 12,000 are reached before the burst's end."""
    driven = Driven()
    to_probe_up(driven, 10e6)
    assert driven.bbr.pacing_rate == pytest.approx(1.25 * 0.99 * 10e6)
    burst = Loss(12_000, 12_000, driven.now, 1_000_000, 24_000, False)
    driven.bbr.on_loss(driven.now, [burst], 900_000)
    assert driven.bbr.state is BbrState.PROBE_BW_DOWN
    # inflight_prev + (0.02 * inflight_prev - lost_prev) / 0.98
    assert driven.bbr.model.inflight_longterm == int(988_000 + (0.02 * 988_000 - 12_000) / 0.98)
    assert driven.bbr.pacing_rate == pytest.approx(0.9 * 0.99 * 10e6)


def test_a21_tolerable_loss_while_probing_up_changes_nothing() -> None:
    driven = Driven()
    to_probe_up(driven, 10e6)
    driven.bbr.on_loss(driven.now, [Loss(12_000, 12_000, driven.now, 1_000_000, 19_000, False)], 900_000)
    assert driven.bbr.state is BbrState.PROBE_BW_UP
    assert driven.bbr.model.inflight_longterm == inf


def test_a_path_that_is_interrupted_while_it_is_probed_ends_no_probe() -> None:
    def after_bursts(lost: int) -> BbrState:
        driven = Driven()
        to_probe_up(driven, 10e6)
        driven.round(10e6, rtt=0.12)
        losses = [Loss(lost, lost, driven.now, 1_000_000, n * lost, False) for n in (1, 2)]
        driven.bbr.on_loss(driven.now, losses, 400_000)
        return driven.bbr.state

    assert after_bursts(300_000) is BbrState.PROBE_BW_UP
    assert after_bursts(200_000) is BbrState.PROBE_BW_DOWN


def test_hardly_any_loss_ends_a_probe_whose_packets_all_met_a_queue() -> None:
    driven = Driven()
    to_probe_up(driven, 10e6)
    assert driven.round(10e6, rtt=0.12) is BbrState.PROBE_BW_UP
    driven.bbr.on_loss(driven.now, [Loss(6_000, 6_000, driven.now, 1_000_000, 6_000, False)], 900_000)
    assert driven.bbr.state is BbrState.PROBE_BW_DOWN
    # The 5,001st byte lost.
    assert driven.bbr.model.inflight_longterm == pytest.approx(994_000 + 0.005 * 994_000 / 0.995)


@pytest.mark.parametrize(
    ("rate", "rtt", "seconds"),
    [
        # Drawn, of 2 to 3 s: nobody else is there.
        (10e6, 0.1, 2.5),
        # K of 833 packets.
        (10e6, 0.12, 8.55),
        # Of 8 packets, CUBIC would take 0.5 s as Reno does; the draft waits for 8 round trips.
        (0.1e6, 0.12, 0.7),
    ],
)
def test_a_probe_waits_until_who_filled_the_queue_has_recovered_from_the_last(
    rate: float, rtt: float, seconds: float
) -> None:
    driven = Driven()
    driven.to_probe_bw(rate)
    began = driven.now
    while driven.round(rate, rtt=rtt, in_flight=0) is not BbrState.PROBE_BW_REFILL:
        assert driven.now < began + 20
    assert driven.now - began == pytest.approx(seconds, abs=0.11)


def test_a18_spurious_loss_restarts_the_probe_it_ended() -> None:
    """§5.5.11.2."""
    driven = Driven()
    to_probe_up(driven, 10e6)
    driven.bbr.on_loss(driven.now, [Loss(12_000, 12_000, driven.now, 1_000_000, 24_000, False)], 900_000)
    driven.bbr.on_spurious_loss(driven.now)
    assert driven.bbr.state is BbrState.PROBE_BW_REFILL
    assert driven.bbr.model.inflight_longterm == inf


def test_a19_timeout_leaves_two_packets_and_is_taken_back_if_spurious() -> None:
    """§5.6.4.4."""
    driven = Driven()
    driven.to_probe_bw(10e6)
    before = driven.bbr.cwnd
    driven.bbr.on_timeout(driven.now + 0.3, 0)
    assert driven.bbr.cwnd == 2 * PACKET
    driven.bbr.on_spurious_loss(driven.now + 0.4)
    assert driven.bbr.cwnd == before


def test_window_returns_once_something_sent_after_the_timeout_arrives() -> None:
    driven = Driven()
    driven.to_probe_bw(10e6)
    before = driven.bbr.cwnd
    driven.now += 1
    driven.bbr.on_timeout(driven.now, 0)
    driven.round(10e6, acked=PACKET, in_flight=0, sent_at=driven.now - 0.5)
    assert driven.bbr.cwnd == 3 * PACKET
    driven.round(10e6, acked=PACKET, in_flight=0, sent_at=driven.now)
    assert driven.bbr.cwnd >= 0.7 * before


def test_a11_resuming_after_a_pause_paces_at_bw_and_skips_probe_rtt() -> None:
    """§5.4.1."""
    driven = Driven()
    driven.to_probe_bw(10e6)
    driven.bbr.on_sent(driven.now + 20, 10 * PACKET, 10 * PACKET, True)
    assert driven.bbr.pacing_rate == pytest.approx(0.99 * 10e6)
    driven.now += 20
    assert driven.round(10e6, is_app_limited=True) is not BbrState.PROBE_RTT


def test_larger_packets_raise_the_window_to_four_of_them() -> None:
    bbr = Bbr(PACKET, random.random)
    bbr.on_max_packet_size(60_000)
    assert bbr.cwnd == 240_000


# Behaviour on a simulated link


def test_a1_clean_link_is_measured_and_filled() -> None:
    link = Link(megabits(100), 0.025)
    flow, watch = simulate(link, 8)
    # A.3, A.8: when Drain has left a bdp in flight, DOWN has nothing to do.
    assert watch.names()[:3] == [BbrState.STARTUP, BbrState.DRAIN, BbrState.PROBE_BW_CRUISE]
    assert watch.max_bw == pytest.approx(link.rate, rel=0.02)
    assert flow.rate_between(0, 8) > 0.92 * link.rate
    assert link.mean_queueing < 0.01
    # Probing up is bounded by 2.25 bdp, and what aggregation adds.
    assert watch.max_in_flight < 2.5 * link.rate * 0.05
    # The flow sees the path without its queue after each probe, and need not slow down to do so.
    assert BbrState.PROBE_RTT not in watch.names()
    # §5.3.3: cycles go DOWN, CRUISE, REFILL, UP.
    after = {
        a: b for a, b in zip(watch.names(), watch.names()[1:], strict=False) if a is not BbrState.PROBE_RTT
    }
    assert after[BbrState.PROBE_BW_REFILL] is BbrState.PROBE_BW_UP
    assert after[BbrState.PROBE_BW_UP] is BbrState.PROBE_BW_DOWN


def test_a10_a_flow_that_always_meets_a_queue_slows_down_once_in_five_seconds() -> None:
    link = Link(megabits(20), 0.02, buffer=0.16)
    flows = [bulk("bbr"), bulk("cubic")]
    watch = Watch(flows[0])
    Simulation(link, flows).run(8)
    times = [time for time, state in watch.states if state is BbrState.PROBE_RTT]
    assert len(times) == 1
    assert 5 < times[0] < 7
    ended = min(time for time, _ in watch.states if time > times[0])
    assert 0.2 <= ended - times[0] < 0.5


@pytest.mark.parametrize("loss", some([0.01, 0.001, 0.0]))
def test_a_process_that_is_stopped_for_up_to_20_ms_makes_up_for_it(loss: float) -> None:
    used, _ = run_alone("bbr", megabits(100), 0.05, loss, 6, longest_stall=0.02)
    assert used > 0.88


@pytest.mark.parametrize(("loss", "least"), some([(0.03, 0.88), (0.01, 0.92), (0.001, 0.93)]))
def test_random_loss_costs_little(loss: float, least: float) -> None:
    used, link = run_alone("bbr", megabits(100), 0.05, loss, 8)
    assert used > least
    assert link.mean_queueing < 0.015


def test_what_is_lost_at_random_in_the_queue_of_a_probe_slows_nobody() -> None:
    used, _ = run_alone("bbr", megabits(100), 0.05, 0.01, 30, seed=3)
    # It was 0.937: a tenth less than the path's rate for seconds after each such probe.
    assert used > 0.96


def test_long_lossy_path_is_used() -> None:
    used, _ = run_alone("bbr", megabits(20), 0.2, 0.005, 15)
    assert used > 0.85


def test_deep_buffer_stays_almost_empty() -> None:
    used, link = run_alone("bbr", megabits(20), 0.02, 0.0, 10, buffer=1.0)
    assert used > 0.9
    assert link.mean_queueing < 0.01


def test_two_flows_share() -> None:
    shares = run_together(["bbr", "bbr"], megabits(20), 0.04, 15)
    assert min(shares) > 0.35
    assert sum(shares) > 0.9


@pytest.mark.parametrize("buffer", [0.02, 0.05])
def test_bbr_and_cubic_share(buffer: float) -> None:
    shares = run_together(["bbr", "cubic"], megabits(20), 0.05, 15, buffer=buffer)
    assert min(shares) > 0.25
    assert sum(shares) > 0.9


def test_late_flow_gets_a_share_from_one_that_fills_the_link() -> None:
    flows = [bulk("bbr", 1), bulk("bbr", 2, start=4.0)]
    Simulation(Link(megabits(20), 0.02, 0.06), flows).run(24)
    assert flows[1].rate_between(14, 24) > 0.25 * megabits(20)


def test_outage_of_two_seconds_is_made_good() -> None:
    assert run_outage("bbr", megabits(100), 0.05, 4, 6) > 0.8


def test_an_outage_of_a_tenth_of_a_second_is_made_good_whenever_it_comes() -> None:
    # With this seed, bandwidth is probed from 6.05 s on; then it took 3 s.
    starts = some([6.04, 6.0, 6.08, 6.12, 6.16, 6.2])
    assert min(run_outage("bbr", megabits(100), 0.05, start, start + 0.1, seed=6) for start in starts) > 0.9


def test_a14_four_packets_keep_a_path_busy_that_holds_less_than_one() -> None:
    link = Link(megabits(1), 0.002, buffer=0.1)
    flow, _ = simulate(link, 8)
    assert flow.rate_between(1, 8) > 0.9 * link.rate
    assert flow.controller.cwnd >= 4 * PACKET


def test_a15_ten_times_the_bandwidth_is_found() -> None:
    link = Link(megabits(5), 0.02)
    flow = bulk("bbr")
    simulation = Simulation(link, [flow])
    simulation.run(5)
    link.rate = megabits(50)
    simulation.run(15)
    assert flow.rate_between(13, 15) > 0.85 * link.rate


def test_a16_a_tenth_of_the_bandwidth_is_noticed() -> None:
    link = Link(megabits(50), 0.02)
    flow = bulk("bbr")
    simulation = Simulation(link, [flow])
    simulation.run(5)
    link.rate = megabits(5)
    simulation.run(15)
    assert isinstance(flow.controller, Bbr)
    assert flow.controller.model.max_bw < 1.3 * link.rate
    assert flow.rate_between(13, 15) > 0.8 * link.rate


def test_a17_without_a_buffer_little_is_lost() -> None:
    link = Link(megabits(20), 0.025, buffer=0.002)
    flow, _ = simulate(link, 8)
    assert flow.rate_between(0, 8) > 0.85 * link.rate
    # No queue betrays that Startup has gone too far: it takes a round more to be sure.
    assert link.dropped < 0.025 * link.packets


def test_a_short_buffer_is_no_reason_to_leave_the_link_idle() -> None:
    """It was, for a fifth of it: headroom below a bdp, and bursts of half a round trip."""
    link = Link(megabits(100), 0.025, buffer=0.002)
    flow, watch = simulate(link, 8)
    assert flow.rate_between(2, 8) > 0.95 * link.rate
    assert link.dropped < 0.02 * link.packets
    # PROBE_BW_DOWN ends before the next probe.
    longest = max(
        end - begin
        for (begin, state), (end, _) in zip(watch.states, watch.states[1:], strict=False)
        if state is BbrState.PROBE_BW_DOWN
    )
    assert longest < 0.2


@pytest.mark.parametrize(("stall", "least"), [(0.002, 0.9), (0.005, 0.85)])
def test_a_process_that_is_stopped_does_not_flood_a_short_buffer_again_and_again(
    stall: float, least: float
) -> None:
    """With stalls of up to 5 ms, half of the link was used, and one packet in twenty lost."""
    used, link = run_alone("bbr", megabits(100), 0.05, 0.0, 8, longest_stall=stall, buffer=0.002)
    assert used > least
    assert link.dropped < 0.02 * link.packets


def test_inflight_longterm_grows_again_after_a_loss_that_left_a_fraction_of_a_byte() -> None:
    driven = Driven()
    to_probe_up(driven, 10e6)
    burst = Loss(12_000, 12_000, driven.now, 1_000_000, 24_000, False)
    driven.bbr.on_loss(driven.now, [burst], 900_000)
    bound = driven.bbr.model.inflight_longterm
    assert bound == int(bound) < inf
    for _ in range(100):
        if driven.round(10e6, cwnd_limited=True) is BbrState.PROBE_BW_UP:
            break
    for _ in range(3):
        driven.round(10e6, cwnd_limited=True, acked=10**6)
    assert driven.bbr.model.inflight_longterm > bound


def test_application_that_offers_little_does_not_inflate_the_model() -> None:
    flow = bulk("bbr")
    flow.offered = lambda now: now * megabits(2)
    watch = Watch(flow)
    Simulation(Link(megabits(100), 0.025), [flow]).run(12)
    # What waited through a PROBE_RTT leaves faster than it was offered, and says so much of the path.
    assert watch.max_bw < megabits(8)
    assert watch.max_in_flight < 40 * PACKET
    assert flow.rate_between(1, 12) == pytest.approx(megabits(2), rel=0.05)


def test_reordering_heavy_loss_and_outage_leave_the_flow_alive() -> None:
    link = Link(megabits(20), 0.01, loss=0.2, jitter=0.005, outages=((2, 3),))
    flow, _ = simulate(link, 8)
    assert flow.rate_between(4, 8) > 0


def test_jitter_does_not_cost_bandwidth() -> None:
    link = Link(megabits(20), 0.025, jitter=0.005)
    flow, _ = simulate(link, 6)
    assert flow.rate_between(1, 6) > 0.85 * link.rate
