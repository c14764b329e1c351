"""BBR version 3: sends at the rate that the path delivers, and keeps in flight what that takes.

The state machine and its control of pacing_rate and cwnd; its states are in bbr_states.py, the estimates in
bbr_model.py. Specification: draft-ietf-ccwg-bbr-06 (6 July 2026); section numbers are its, and so are the
names. Where this deviates, a comment beginning "Deviation" says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from flyx.sctp.congestion.base import AckSample, CongestionController, Loss
from flyx.sctp.congestion.bbr_model import BETA, LOSS_THRESH, MAX_BACKGROUND_LOSS, OVERFLOW_LOSS, PathModel
from flyx.sctp.congestion.bbr_states import (
    GAINS,
    PROBE_BW,
    PROBE_FEEDBACK,
    PROBE_RTT_CWND_GAIN,
    PROBING,
    AckPhase,
    BbrState,
)
from flyx.sctp.congestion.cubic import recovery_time
from flyx.sctp.congestion.initial_window import INITIAL_WINDOW_PACKETS, paced_initial_window
from flyx.sctp.pacing import send_quantum

PACING_MARGIN = 0.99
"""§2.5: the pacing rate is this part of bw, so that queues shrink on the average."""

HEADROOM = 0.15
"""§2.8: part of inflight_longterm left to others."""

MIN_PIPE_CWND_PACKETS = 4
"""§2.8: packets; what a receiver that acknowledges every other packet needs."""

TIMEOUT_CWND_PACKETS = 2
"""Packets. §5.6.4.4 has 1 after a timeout; see cubic.MINIMUM_WINDOW_PACKETS."""

STARTUP_FULL_LOSS_COUNT = 6
"""§5.3.1.3: losses in one round that end Startup, at least (BBRStartupFullLossCnt)."""

DRAIN_MAX_ROUNDS = 3
"""§5.3.2: rounds that Drain lasts, at most."""

# §5.3.3.5.3: seconds between bandwidth probes, at least; up to PROBE_WAIT_SPREAD more are drawn.
PROBE_WAIT = 2.0
PROBE_WAIT_SPREAD = 1.0
RENO_COEXISTENCE_ROUNDS = 63
"""§5.3.3.5.3: round trips between bandwidth probes, at most, for Reno's sake."""

PROBE_RTT_DURATION = 0.2
"""§2.16.2: seconds."""

PROBE_UP_EXTRA_PACKETS = 2
"""§5.6.4.2: packets more in flight while probing up."""

OFFLOAD_BUDGET_QUANTA = 3
"""§5.5.8: send quanta that have to be in flight: one about to leave, one under way, one about to be acked."""

MAX_PROBE_UP_ROUNDS = 30
"""§5.3.3.6: inflight_longterm's growth doubles each round, this often at most."""

NOMINAL_RTT = 0.001
"""Seconds that the initial pacing rate takes a round trip for, as long as none is known (§5.6.2)."""


@dataclass(frozen=True, slots=True)
class _Undo:
    """Bounds before a loss, in case it was none. §5.5.11.1."""

    bw_shortterm: float
    inflight_shortterm: float
    inflight_longterm: float


class Bbr(CongestionController):
    """Bottleneck Bandwidth and Round-trip propagation time.

    Args:
        max_packet_size: bytes of the largest DATA chunk (C.SMSS).
        randomness: draws from [0, 1); spreads bandwidth probes, so that flows do not probe in step.
    """

    def __init__(self, max_packet_size: int, randomness: Callable[[], float]) -> None:
        self._max_packet_size = max_packet_size
        self._randomness = randomness
        self.model = PathModel()
        # What part of bw is sent by the state's choice: now; at the least in this round, in the last and in
        # the one before that.
        self._pace = 1.0
        self._pace_this_round = self._pace_last_round = self._pace_before = 1.0
        self._enter(BbrState.STARTUP)
        self._initial_cwnd = INITIAL_WINDOW_PACKETS * max_packet_size
        self.cwnd = self._initial_cwnd
        self.pacing_rate = self.pacing_gain * self._initial_cwnd / NOMINAL_RTT
        # In flight as of the last event.
        self._in_flight = 0

        # §2.14.
        self._ack_phase = AckPhase.INIT
        self._is_bw_probe_sample = False
        self._bw_probe_up_rounds = 0
        self._bw_probe_up_acked = 0
        self._probe_up_acked_per_inc = inf
        self._rounds_since_probe_up = 0
        self._bw_probe_wait = 0.0
        self._cycle_stamp = 0.0
        # When Startup or a bandwidth probe last ended.
        self._probed_at = 0.0
        self._prev_probe_too_high = False
        self._prev_probe_precautionary = False

        # Rounds of Startup in a row with too much loss.
        self._lossy_startup_rounds = 0
        self._drain_start_round = 0
        self._idle_restart = False
        # §5.3.4.3. None: in flight has not fallen far enough yet.
        self._probe_rtt_done_stamp: float | None = None
        self._probe_rtt_round_done = False
        # Samples of packets sent while delivered was within these have PROBE_RTT's low rate, and count as
        # limited by the application (MarkConnectionAppLimited, §5.3.4.3).
        self._slowed_from = 0
        self._slowed_until = -1

        # §5.6.4.4: the window before a timeout or PROBE_RTT.
        self._prior_cwnd = 0
        # When T3-rtx last expired; None once something sent since has arrived.
        self._timeout_at: float | None = None
        # §5.5.11. _undo_state: a state that loss has ended, to go back to.
        self._undo: _Undo | None = None
        self._undo_state: BbrState | None = None

    # Events

    @property
    def phase(self) -> str:
        """BBR.state."""
        return self.state.name

    def expect_round_trip(self, rtt: float) -> None:
        """Take the rate at which the initial window (C.InitialCwnd) would have filled the path. §5.6.2."""
        self._initial_cwnd = paced_initial_window(self._max_packet_size, rtt)
        self.cwnd = max(self.cwnd, self._initial_cwnd)
        self.pacing_rate = self.pacing_gain * self._initial_cwnd / max(rtt, NOMINAL_RTT)

    def on_sent(self, now: float, size: int, in_flight: int, is_app_limited: bool) -> None:
        """Notice that sending resumes after a pause; see CongestionController. §5.4.1."""
        self._in_flight = in_flight
        if in_flight > size or not is_app_limited:
            return
        self._idle_restart = True
        self.model.extra_acked_interval_start = now
        if self._in_probe_bw:
            self._set_pacing_rate(gain=1.0)
        elif self.state is BbrState.PROBE_RTT:
            self._check_probe_rtt_done(now)

    def on_ack(self, now: float, sample: AckSample) -> None:
        """Update model, state and control parameters; see CongestionController. §5.2.3."""
        self._in_flight = sample.in_flight
        if sample.rtt is not None and self.model.min_rtt is None:
            self.expect_round_trip(sample.rtt)
        if sample.acked > 0:
            if self._timeout_at is not None and sample.sent_at >= self._timeout_at:
                # Deviation: §5.6.4.4 restores cwnd when everything lost has been repaired. Here a timeout
                # declares all of cwnd lost, which from two packets on would take log2(cwnd) round trips to
                # repair; bw paces what is sent, and the loss has bounded it.
                self._timeout_at = None
                self._restore_cwnd()
            self._update_model_and_state(now, sample)
        self._update_control_parameters(sample.acked)

    def on_loss(self, now: float, losses: list[Loss], in_flight: int) -> None:
        """Note the loss, and end a probe that went too far; see CongestionController. §5.5.10.2."""
        self._in_flight = in_flight
        # Deviation: if more than half of a flight is lost, the path was interrupted, and no probe has found
        # its limit: it overflows by the quarter that it sends too much, at most. The draft would leave a
        # third of the path idle for two or three seconds.
        interrupted = any(2 * loss.lost_since > loss.tx_in_flight for loss in losses)
        for loss in losses:
            if self.model.note_loss(loss.size):
                self._save_state_upon_loss()
            if not self._is_bw_probe_sample or interrupted:
                continue
            if not self._too_high(loss.lost_since, loss.tx_in_flight):
                continue
            inflight = self.model.inflight_at_loss(loss, self._loss_thresh)
            self._handle_inflight_too_high(now, inflight, loss.is_app_limited)
        self._update_control_parameters(0)

    def on_timeout(self, now: float, in_flight: int) -> None:
        """Send next to nothing until something arrives; see CongestionController. §5.6.4.4."""
        model = self.model
        self._in_flight = in_flight
        first = model.note_loss(0)
        if self._timeout_at is None:
            self._save_cwnd()
            if first:
                self._save_state_upon_loss()
            if not self._probing and model.inflight_shortterm == inf:
                # The round's end would take the cwnd below for what was safe. Linux does the same
                # (bbr_set_state); the draft does not say.
                model.inflight_shortterm = max(self.cwnd, self._prior_cwnd)
        self._timeout_at = now
        self.cwnd = in_flight + TIMEOUT_CWND_PACKETS * self._max_packet_size

    def on_spurious_loss(self, now: float) -> None:
        """Take back what the last loss changed; see CongestionController. §5.5.11.2."""
        model, undo, undo_state = self.model, self._undo, self._undo_state
        self._undo = self._undo_state = None
        if undo is None:
            return
        self._timeout_at = None
        self._restore_cwnd()
        model.loss_in_round = False
        model.reset_full_bw()
        model.bw_shortterm = max(model.bw_shortterm, undo.bw_shortterm)
        model.inflight_shortterm = max(model.inflight_shortterm, undo.inflight_shortterm)
        model.inflight_longterm = max(model.inflight_longterm, undo.inflight_longterm)
        if undo_state is BbrState.STARTUP and self.state is not BbrState.STARTUP:
            model.full_bw_reached = False
            if self.state is not BbrState.PROBE_RTT:
                self._enter(BbrState.STARTUP)
        elif undo_state is BbrState.PROBE_BW_UP and self.state not in {
            BbrState.PROBE_BW_UP,
            BbrState.PROBE_RTT,
        }:
            self._start_probe_bw_refill()
        model.bound_bw()
        self._update_control_parameters(0)

    def on_max_packet_size(self, size: int) -> None:
        """See CongestionController; the window keeps its bytes."""
        self._max_packet_size = size
        self._initial_cwnd = max(self._initial_cwnd, INITIAL_WINDOW_PACKETS * size)
        self.cwnd = max(self.cwnd, self._floor)

    # Model and state, on a SACK. §5.2.3

    def _update_model_and_state(self, now: float, sample: AckSample) -> None:
        model = self.model
        rate = sample.delivery_rate or 0.0
        is_app_limited = sample.is_app_limited or (
            self._slowed_from <= sample.prior_delivered <= self._slowed_until
        )
        model.update_latest_delivery_signals(sample)
        model.update_round(sample)
        model.update_background_loss(sample)
        if model.round_start:
            probing = self._ack_phase in PROBE_FEEDBACK
            model.end_round_of_background_loss(now, probing, self._max_packet_size)
        if model.round_start:
            self._rounds_since_probe_up += 1
            self._pace_before, self._pace_last_round = self._pace_last_round, self._pace_this_round
            self._pace_this_round = self._pace
        model.update_max_bw(rate, is_app_limited)
        startup_loss_too_high = False
        if model.loss_round_start:
            startup_loss_too_high = self._startup_loss_too_high(sample)
            if model.loss_in_round and not self._probing:
                # A sample covers what was sent in the round trip before its packet, and comes one later.
                pace = min(self._pace_this_round, self._pace_last_round, self._pace_before)
                model.adapt_lower_bounds(self.cwnd, pace * PACING_MARGIN)
            model.loss_in_round = False
            model.loss_events_in_round = 0
        model.update_ack_aggregation(now, sample.acked, self.cwnd)
        model.check_full_bw_reached(rate, is_app_limited)
        self._check_startup_done(startup_loss_too_high)
        self._check_drain_done(now)
        self._update_probe_bw_cycle_phase(now, sample, rate, is_app_limited)
        model.update_min_rtt(now, sample.rtt)
        self._check_probe_rtt(now)
        model.advance_latest_delivery_signals(sample)
        model.bound_bw()

    def _enter(self, state: BbrState) -> None:
        self.state = state
        self.pacing_gain, self.cwnd_gain = GAINS[state]
        # Looked up here because hashing an Enum costs more than all else that a SACK asks of it.
        self._in_probe_bw = state in PROBE_BW
        self._probing = state in PROBING
        # In PROBE_RTT, it is the window that slows sending.
        self._pace = min(self.pacing_gain, self.cwnd_gain, 1.0)
        self._pace_this_round = min(self._pace_this_round, self._pace)

    # Startup and Drain. §5.3.1, §5.3.2

    def _startup_loss_too_high(self, sample: AckSample) -> bool:
        """A whole round trip of loss, too often and too much. §5.3.1.3.

        Deviation: where no packet met a queue, two round trips of it, and of more than can be all background.
        A buffer too short for its queue to be seen overflows again and again. A burst that the path lost by
        itself is over, and to end Startup for it costs seconds at what it left: BBR looks for more bandwidth
        every two or three seconds, and the next burst may end that, too.
        """
        lossy = (
            self.state is BbrState.STARTUP
            and self.model.loss_in_round
            and self.model.loss_events_in_round >= STARTUP_FULL_LOSS_COUNT
            and self._too_high(sample.lost_since, sample.tx_in_flight)
        )
        self._lossy_startup_rounds = self._lossy_startup_rounds + 1 if lossy else 0
        if self.model.queue_met:
            return lossy
        not_background = sample.lost_since > sample.tx_in_flight * (LOSS_THRESH + MAX_BACKGROUND_LOSS)
        return self._lossy_startup_rounds > 1 and not_background

    def _check_startup_done(self, loss_too_high: bool) -> None:
        model = self.model
        if loss_too_high:
            self._undo_state = BbrState.STARTUP
            model.full_bw_reached = True
            model.inflight_longterm = int(max(model.bdp() or 0.0, model.inflight_latest))
        if self.state is BbrState.STARTUP and model.full_bw_reached:
            self._enter(BbrState.DRAIN)
            self._drain_start_round = model.round_count

    def _check_drain_done(self, now: float) -> None:
        if self.state is BbrState.DRAIN and (
            self._in_flight <= self._inflight(1.0, self.model.bw)
            or self.model.round_count > self._drain_start_round + DRAIN_MAX_ROUNDS
        ):
            self._start_probe_bw_down(now)

    # ProbeBW. §5.3.3.6

    def _start_probe_bw_down(self, now: float) -> None:
        self.model.reset_congestion_signals()
        self._probe_up_acked_per_inc = inf
        # §5.3.3.5.3, PickProbeWait.
        self._rounds_since_probe_up = int(2 * self._randomness())
        self._bw_probe_wait = PROBE_WAIT + PROBE_WAIT_SPREAD * self._randomness()
        self._cycle_stamp = now
        if self.state is not BbrState.PROBE_RTT:
            self._probed_at = now
        self._ack_phase = AckPhase.PROBE_STOPPING
        self.model.start_round()
        self._enter(BbrState.PROBE_BW_DOWN)

    def _start_probe_bw_refill(self) -> None:
        self.model.reset_short_term_model()
        self._bw_probe_up_rounds = 0
        self._bw_probe_up_acked = 0
        self._prev_probe_precautionary = False
        self._ack_phase = AckPhase.REFILLING
        self.model.start_round()
        self._enter(BbrState.PROBE_BW_REFILL)

    def _start_probe_bw_up(self, rate: float) -> None:
        self._is_bw_probe_sample = True
        self._ack_phase = AckPhase.PROBE_STARTING
        self.model.start_round()
        self.model.reset_full_bw(rate)
        self._enter(BbrState.PROBE_BW_UP)
        self._raise_inflight_longterm_slope()

    def _update_probe_bw_cycle_phase(
        self, now: float, sample: AckSample, rate: float, is_app_limited: bool
    ) -> None:
        if not self.model.full_bw_reached or self._adapt_long_term_model(sample, is_app_limited):
            return
        state = self.state
        if state is BbrState.PROBE_BW_CRUISE or state is BbrState.PROBE_BW_DOWN:
            if self._is_time_to_probe_bw(now):
                self._start_probe_bw_refill()
            elif state is BbrState.PROBE_BW_DOWN and self._is_time_to_cruise():
                self._enter(BbrState.PROBE_BW_CRUISE)
        elif state is BbrState.PROBE_BW_REFILL:
            if self.model.round_start:
                self._start_probe_bw_up(rate)
        elif state is BbrState.PROBE_BW_UP and self._is_time_to_go_down(sample, rate):
            self._prev_probe_too_high = False
            self._start_probe_bw_down(now)

    def _adapt_long_term_model(self, sample: AckSample, is_app_limited: bool) -> bool:
        """Follow what the acks tell of the last probe; true if the state has changed for it."""
        model = self.model
        if self._ack_phase is AckPhase.PROBE_STARTING and model.round_start:
            self._ack_phase = AckPhase.PROBE_FEEDBACK
        if self._ack_phase is AckPhase.PROBE_STOPPING and model.round_start:
            self._is_bw_probe_sample = False
            self._ack_phase = AckPhase.INIT
            if self._in_probe_bw:
                if not is_app_limited:
                    model.advance_max_bw_filter()
                if self._prev_probe_precautionary and not self._prev_probe_too_high:
                    # The cautious probe did no harm: probe in earnest. §5.3.3.4.2.
                    self._start_probe_bw_refill()
                    return True
        if model.inflight_longterm == inf or self._too_high(sample.lost_since, sample.tx_in_flight):
            return False
        model.inflight_longterm = max(model.inflight_longterm, sample.tx_in_flight)
        if self.state is BbrState.PROBE_BW_UP:
            self._probe_inflight_longterm_upward(sample)
        return False

    def _is_time_to_probe_bw(self, now: float) -> bool:
        reno_rounds = min(self._target_inflight() / self._max_packet_size, RENO_COEXISTENCE_ROUNDS)
        due = now > self._cycle_stamp + self._bw_probe_wait or self._rounds_since_probe_up >= reno_rounds
        return due and (not self.model.queue_seen or self._others_have_recovered(now))

    def _others_have_recovered(self, now: float) -> bool:
        """CUBIC with as much in flight as we have would have regained what our last probe took from it.

        Deviation: the draft waits for Reno, where that takes no longer than 3 s. But who keeps the queue
        filled while we let it drain is no BBR flow, and has less after each probe that comes too early.
        """
        window = self._target_inflight() / self._max_packet_size
        return now > self._probed_at + recovery_time(window, self.model.min_rtt or 0.0)

    def _is_time_to_cruise(self) -> bool:
        return self._in_flight <= min(self._inflight_with_headroom(), self._inflight(1.0, self.model.max_bw))

    def _is_time_to_go_down(self, sample: AckSample, rate: float) -> bool:
        model = self.model
        if self._prev_probe_too_high and self._in_flight >= model.inflight_longterm:
            self._prev_probe_precautionary = True
            return True
        if sample.cwnd_limited and self.cwnd >= model.inflight_longterm:
            # inflight_longterm is what keeps bandwidth from growing.
            model.reset_full_bw(rate)
            return False
        return model.full_bw_now

    def _raise_inflight_longterm_slope(self) -> None:
        growth = 1 << self._bw_probe_up_rounds
        self._bw_probe_up_rounds = min(self._bw_probe_up_rounds + 1, MAX_PROBE_UP_ROUNDS)
        self._probe_up_acked_per_inc = max(self.cwnd / growth, self._max_packet_size)

    def _probe_inflight_longterm_upward(self, sample: AckSample) -> None:
        if not sample.cwnd_limited or self.cwnd < self.model.inflight_longterm:
            return
        self._bw_probe_up_acked += sample.acked
        if self._bw_probe_up_acked >= self._probe_up_acked_per_inc:
            increments = int(self._bw_probe_up_acked / self._probe_up_acked_per_inc)
            self._bw_probe_up_acked -= int(increments * self._probe_up_acked_per_inc)
            self.model.inflight_longterm += increments * self._max_packet_size
        if self.model.round_start:
            self._raise_inflight_longterm_slope()

    # Loss. §5.5.10.2

    def _too_high(self, lost: int, tx_in_flight: int) -> bool:
        """More was lost of what was in flight than the path may lose."""
        return lost > self.model.tolerable_loss(tx_in_flight, self._loss_thresh, self._max_packet_size)

    @property
    def _loss_thresh(self) -> float:
        """Part of what is in flight that a path may lose while bandwidth is probed.

        Deviation: hardly any where all packets of a round met a queue, which then is full. The draft goes on
        for round trips in which it loses little, while a competitor such as CUBIC gives way in each of them.
        """
        return OVERFLOW_LOSS if self._in_probe_bw and self.model.queue_seen else LOSS_THRESH

    def _handle_inflight_too_high(self, now: float, inflight: float, is_app_limited: bool) -> None:
        self._prev_probe_too_high = True
        self._is_bw_probe_sample = False
        if not is_app_limited:
            self.model.inflight_longterm = int(max(inflight, self._target_inflight() * BETA))
        if self.state is BbrState.PROBE_BW_UP:
            self._undo_state = BbrState.PROBE_BW_UP
            self._start_probe_bw_down(now)

    def _save_state_upon_loss(self) -> None:
        self._save_cwnd()
        self._undo_state = None
        model = self.model
        self._undo = _Undo(model.bw_shortterm, model.inflight_shortterm, model.inflight_longterm)

    # ProbeRTT. §5.3.4.3, §5.3.4.4

    def _check_probe_rtt(self, now: float) -> None:
        model = self.model
        if self.state is not BbrState.PROBE_RTT and model.probe_rtt_expired and not self._idle_restart:
            self._save_cwnd()
            self._enter(BbrState.PROBE_RTT)
            self._probe_rtt_done_stamp = None
            self._ack_phase = AckPhase.PROBE_STOPPING
            model.start_round()
            self._slowed_from = model.delivered
        if self.state is BbrState.PROBE_RTT:
            self._handle_probe_rtt(now)
        self._idle_restart = False

    def _handle_probe_rtt(self, now: float) -> None:
        self._slowed_until = self.model.delivered + self._in_flight
        if self._probe_rtt_done_stamp is None:
            if self._in_flight <= self._probe_rtt_cwnd():
                self._probe_rtt_done_stamp = now + PROBE_RTT_DURATION
                self._probe_rtt_round_done = False
                self.model.start_round()
            return
        self._probe_rtt_round_done |= self.model.round_start
        if self._probe_rtt_round_done:
            self._check_probe_rtt_done(now)

    def _check_probe_rtt_done(self, now: float) -> None:
        if self._probe_rtt_done_stamp is None or now <= self._probe_rtt_done_stamp:
            return
        self.model.probe_rtt_min_stamp = now
        self._restore_cwnd()
        self.model.reset_short_term_model()
        if self.model.full_bw_reached:
            self._start_probe_bw_down(now)
            self._enter(BbrState.PROBE_BW_CRUISE)
        else:
            self._enter(BbrState.STARTUP)

    # Control parameters. §5.6

    def _update_control_parameters(self, acked: int) -> None:
        self._set_pacing_rate(self.pacing_gain)
        self._set_cwnd(acked)

    def _set_pacing_rate(self, gain: float) -> None:
        """§5.6.2."""
        model = self.model
        rate = gain * model.bw * PACING_MARGIN
        if rate > 0 and (model.full_bw_reached or rate > self.pacing_rate):
            self.pacing_rate = rate

    def _set_cwnd(self, acked: int) -> None:
        """§5.6.4.6."""
        model = self.model
        inflight = self._quantization_budget(self._bdp_multiple(self.cwnd_gain, model.bw) + model.extra_acked)
        cwnd: float = self.cwnd
        if model.full_bw_reached:
            cwnd = min(cwnd + acked, inflight)
        elif cwnd < inflight or model.delivered < self._initial_cwnd:
            cwnd += acked
        cwnd = max(cwnd, self._floor)
        if self.state is BbrState.PROBE_RTT:
            cwnd = min(cwnd, self._probe_rtt_cwnd())
        # §5.6.4.7.
        cap = model.inflight_shortterm
        if self.state is BbrState.PROBE_BW_CRUISE or self.state is BbrState.PROBE_RTT:
            cap = min(cap, self._inflight_with_headroom())
        elif self._in_probe_bw:
            cap = min(cap, model.inflight_longterm)
        self.cwnd = int(min(cwnd, max(cap, self._min_pipe_cwnd)))

    @property
    def _min_pipe_cwnd(self) -> int:
        return MIN_PIPE_CWND_PACKETS * self._max_packet_size

    @property
    def _floor(self) -> int:
        packets = MIN_PIPE_CWND_PACKETS if self._timeout_at is None else TIMEOUT_CWND_PACKETS
        return packets * self._max_packet_size

    def _bdp_multiple(self, gain: float, bw: float) -> float:
        bdp = self.model.bdp(bw)
        return self._initial_cwnd if bdp is None else gain * bdp

    def _quantization_budget(self, inflight: float) -> float:
        """No less than what keeps sender and receiver busy in their portions. §5.6.4.2."""
        quantum = send_quantum(self.pacing_rate, self._max_packet_size)
        inflight = max(inflight, OFFLOAD_BUDGET_QUANTA * quantum, self._min_pipe_cwnd)
        if self.state is BbrState.PROBE_BW_UP:
            inflight += PROBE_UP_EXTRA_PACKETS * self._max_packet_size
        return inflight

    def _inflight(self, gain: float, bw: float) -> float:
        return self._quantization_budget(self._bdp_multiple(gain, bw))

    def _inflight_with_headroom(self) -> float:
        """Bytes that leave some of inflight_longterm to others. §5.3.3.6.

        Deviation: but no less than fills the path. Where the buffer is short, inflight_longterm is hardly
        more than that. To stay below it shortens no queue there, but leaves the link idle until the next
        probe: PROBE_BW_DOWN, at 0.9 of bw, never gets as low (100 Mbit/s, 50 ms, 2 ms of buffer).
        """
        longterm = self.model.inflight_longterm
        if longterm == inf:
            return inf
        headroom = max(self._max_packet_size, HEADROOM * longterm)
        path = self._bdp_multiple(1.0, self.model.bw)
        return max(longterm - headroom, min(longterm, path), self._min_pipe_cwnd)

    def _target_inflight(self) -> float:
        """Bytes wanted in flight: the path's, unless congestion has cut cwnd. §5.3.3.5.3."""
        return min(self._bdp_multiple(1.0, self.model.bw), self.cwnd)

    def _probe_rtt_cwnd(self) -> float:
        """§5.6.4.5."""
        return max(self._bdp_multiple(PROBE_RTT_CWND_GAIN, self.model.bw), self._min_pipe_cwnd)

    def _save_cwnd(self) -> None:
        """Remember the last good cwnd. §5.6.4.4."""
        if self._timeout_at is None and self.state is not BbrState.PROBE_RTT:
            self._prior_cwnd = self.cwnd
        else:
            self._prior_cwnd = max(self._prior_cwnd, self.cwnd)

    def _restore_cwnd(self) -> None:
        self.cwnd = max(self.cwnd, self._prior_cwnd)
