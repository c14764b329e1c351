"""CUBIC, with HyStart++ for its slow start, paced.

Windows are bytes here where RFC 9438 counts segments; max_packet_size converts. Section numbers without a
name are RFC 9438's. Loss is the only signal; what was sent before a recovery began is part of it, as in
RFC 9002 §7.3.2, because RACK tells of losses one by one. No proportional rate reduction (RFC 6937): the
window falls at once and pacing spreads what is sent after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cbrt, inf

from flyx.sctp.congestion.base import AckSample, CongestionController, Loss
from flyx.sctp.congestion.initial_window import INITIAL_WINDOW_PACKETS

# §4.6, §5: the window's factor when a loss is seen, and the cubic's, in segments a second cubed.
BETA_CUBIC = 0.7
C = 0.4
ALPHA_CUBIC = 3 * (1 - BETA_CUBIC) / (1 + BETA_CUBIC)
"""§4.3: what makes W_est's average that of Reno, which has alpha 1 and beta 0.5."""

MINIMUM_WINDOW_PACKETS = 2
"""Packets. RFC 9260 §7.2.3 has 1 after a timeout; with 2, as in RFC 9002 §7.2, the SACK of a receiver that
acknowledges every other packet does not wait for its delay timer."""

SRTT_GAIN = 1 / 8
"""Weight of a sample in the smoothed round trip (RFC 9260 §6.3.1)."""

# Pacing rate in windows a smoothed round trip: in slow start below half of ssthresh, and otherwise. As Linux
# has them (tcp_pacing_ss_ratio, tcp_pacing_ca_ratio): the window still is what limits.
SLOW_START_PACING_GAIN = 2.0
AVOIDANCE_PACING_GAIN = 1.2

# HyStart++, RFC 9406 §4.3: seconds, and counts. No limit L on a single increase: we pace.
MIN_RTT_THRESH = 0.004
MAX_RTT_THRESH = 0.016
MIN_RTT_DIVISOR = 8
N_RTT_SAMPLE = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5


def recovery_time(window: float, rtt: float) -> float:
    """Seconds until CUBIC has regained what a loss took from a window of so many packets.

    K of §4.2, or less where it grows as Reno does (§4.3).
    """
    fall = (1 - BETA_CUBIC) * window
    return min(cbrt(fall / C), fall / ALPHA_CUBIC * rtt)


class HyStart:
    """Ends the first slow start when round trips grow, before packets are lost. RFC 9406 §4.2.

    Rounds are timed by packets: one ends when something sent after its beginning is acknowledged.
    """

    __slots__ = (
        "_css_baseline",
        "_css_rounds",
        "_current_min_rtt",
        "_last_min_rtt",
        "_round_end",
        "_samples",
        "done",
        "in_css",
    )

    def __init__(self) -> None:
        # Slow start is over, by this or by loss.
        self.done = False
        # In conservative slow start: growing slower, looking whether the delay was a false alarm.
        self.in_css = False
        self._css_rounds = 0
        self._css_baseline = inf
        self._current_min_rtt = inf
        self._last_min_rtt = inf
        self._samples = 0
        # Delivered bytes at the round's beginning.
        self._round_end = 0

    def on_ack(self, sample: AckSample) -> bool:
        """Account for one SACK of slow start; true if it ends slow start."""
        if sample.prior_delivered >= self._round_end:
            self._start_round(sample.delivered)
        if sample.rtt is not None:
            self._take_sample(sample.rtt)
        return self.done

    def _take_sample(self, rtt: float) -> None:
        self._current_min_rtt = min(self._current_min_rtt, rtt)
        self._samples += 1
        if self._samples < N_RTT_SAMPLE:
            return
        if self.in_css:
            if self._current_min_rtt < self._css_baseline:
                self.in_css = False
                self._css_baseline = inf
        elif self._last_min_rtt < inf:
            thresh = max(MIN_RTT_THRESH, min(self._last_min_rtt / MIN_RTT_DIVISOR, MAX_RTT_THRESH))
            if self._current_min_rtt >= self._last_min_rtt + thresh:
                self._css_baseline = self._current_min_rtt
                self.in_css = True
                self._css_rounds = 0

    def _start_round(self, delivered: int) -> None:
        self._round_end = delivered
        if self.in_css:
            self._css_rounds += 1
            self.done = self._css_rounds >= CSS_ROUNDS
        self._last_min_rtt = self._current_min_rtt
        self._current_min_rtt = inf
        self._samples = 0


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a congestion event changes, as it was before. §4.9."""

    cwnd: int
    ssthresh: float
    w_max: float
    k: float
    w_est: float
    cwnd_prior: float
    epoch_start: float | None


class Cubic(CongestionController):
    """A window that grows as the cube of the time since the last loss."""

    def __init__(self, max_packet_size: int) -> None:
        self._max_packet_size = max_packet_size
        self.cwnd = INITIAL_WINDOW_PACKETS * max_packet_size
        # Until the first round trip has been measured the initial window leaves in one go.
        self.pacing_rate = inf
        # Bytes; slow start below it. Infinite until the first loss or HyStart++'s end.
        self.ssthresh = inf
        # Bytes: the window before the last reduction, lowered by fast convergence.
        self.w_max = 0.0
        # Bytes: the window before the last reduction (§4.3, where W_est's growth changes).
        self.cwnd_prior = 0.0
        # Bytes: what Reno would have by now.
        self.w_est = 0.0
        # Seconds from the epoch's start until the cubic is back at w_max.
        self.k = 0.0
        # When this congestion avoidance began, moved on by the time that the window was not used (§5.8).
        # None: the next SACK begins one.
        self._epoch_start: float | None = None
        # The epoch to begin follows a timeout or HyStart++, not a reduction (§4.8, §4.10).
        self._fresh_epoch = True
        # Bytes that the window is still to grow by, less than one.
        self._fraction = 0.0
        # Losses sent no later than this belong to the last congestion event.
        self._recovery_start = -inf
        # A second timeout before anything new arrives leaves ssthresh alone (RFC 5681 §3.1).
        self._timed_out = False
        self._last_ack_at: float | None = None
        self._srtt: float | None = None
        self._saved: _Saved | None = None
        self.hystart = HyStart()

    def expect_round_trip(self, rtt: float) -> None:
        """Do nothing: the initial window leaves in one go, however long the path is."""

    @property
    def minimum_window(self) -> int:
        """Bytes; cwnd is never less."""
        return MINIMUM_WINDOW_PACKETS * self._max_packet_size

    @property
    def phase(self) -> str:
        """SLOW_START (RFC 9438 §4.10) or CONGESTION_AVOIDANCE."""
        return "SLOW_START" if self.in_slow_start else "CONGESTION_AVOIDANCE"

    @property
    def in_slow_start(self) -> bool:
        """cwnd has not reached ssthresh."""
        return self.cwnd < self.ssthresh

    def on_sent(self, now: float, size: int, in_flight: int, is_app_limited: bool) -> None:
        """Sending changes nothing; see CongestionController."""

    def on_ack(self, now: float, sample: AckSample) -> None:
        """Grow the window if it was what limited; see CongestionController."""
        elapsed = 0.0 if self._last_ack_at is None else now - self._last_ack_at
        self._last_ack_at = now
        if sample.rtt is not None:
            srtt = sample.rtt if self._srtt is None else self._srtt
            self._srtt = srtt + SRTT_GAIN * (sample.rtt - srtt)
        if sample.acked > 0 and sample.sent_at > self._recovery_start:
            self._timed_out = False
            self._grow(now, elapsed, sample)
        self._set_pacing_rate()

    def on_loss(self, now: float, losses: list[Loss], in_flight: int) -> None:
        """Reduce the window, once a recovery; see CongestionController.

        §4.6 has flight_size where we have cwnd, as Linux does: cwnd never grows while it is not used, and
        what the application did not send says nothing of the path.
        """
        if all(loss.sent_at <= self._recovery_start for loss in losses):
            return
        self._save()
        self._recovery_start = now
        self._reduce()
        self.cwnd = int(max(self.ssthresh, self.minimum_window))
        self._fresh_epoch = False
        self._set_pacing_rate()

    def on_timeout(self, now: float, in_flight: int) -> None:
        """Start over from the smallest window; see CongestionController. §4.8, RFC 9260 §7.2.3."""
        if not self._timed_out:
            self._save()
            self._reduce()
        self._timed_out = True
        self._recovery_start = now
        self.cwnd = self.minimum_window
        self._fresh_epoch = True
        self._set_pacing_rate()

    def on_spurious_loss(self, now: float) -> None:
        """Take the last reduction back; see CongestionController. §4.9."""
        saved, self._saved = self._saved, None
        if saved is None or saved.cwnd <= self.cwnd:
            return
        self.cwnd = max(saved.cwnd, self.minimum_window)
        self.ssthresh = saved.ssthresh
        self.w_max = saved.w_max
        self.k = saved.k
        self.w_est = saved.w_est
        self.cwnd_prior = saved.cwnd_prior
        self._epoch_start = saved.epoch_start
        self._fresh_epoch = saved.epoch_start is None
        self._timed_out = False
        self._recovery_start = -inf
        self._set_pacing_rate()

    def on_max_packet_size(self, size: int) -> None:
        """See CongestionController; the window keeps its bytes."""
        self._max_packet_size = size
        self.cwnd = max(self.cwnd, self.minimum_window)

    def _save(self) -> None:
        self._saved = _Saved(
            self.cwnd, self.ssthresh, self.w_max, self.k, self.w_est, self.cwnd_prior, self._epoch_start
        )

    def _reduce(self) -> None:
        """Remember where the loss happened, and set ssthresh. §4.6, §4.7."""
        self.cwnd_prior = self.cwnd
        # Fast convergence: a window that did not get back to w_max leaves room for a newer flow.
        self.w_max = self.cwnd * (1 + BETA_CUBIC) / 2 if self.cwnd < self.w_max else self.cwnd
        self.ssthresh = max(self.cwnd * BETA_CUBIC, self.minimum_window)
        self._epoch_start = None
        self.hystart.done = True

    def _grow(self, now: float, elapsed: float, sample: AckSample) -> None:
        if not sample.cwnd_limited:
            # §5.8: an unused window must not grow, nor the cubic run on without it.
            if self._epoch_start is not None:
                self._epoch_start += elapsed
            return
        if self.in_slow_start:
            self._grow_in_slow_start(sample)
        else:
            self._grow_in_congestion_avoidance(now, sample.acked)

    def _grow_in_slow_start(self, sample: AckSample) -> None:
        growth: float = sample.acked
        if not self.hystart.done:
            if self.hystart.on_ack(sample):
                self.ssthresh = self.cwnd
                return
            if self.hystart.in_css:
                growth /= CSS_GROWTH_DIVISOR
        # No further than ssthresh: beyond it the cubic has to take over (RFC 5681 §3.1).
        self._add(min(growth, max(self.ssthresh - self.cwnd, 0)))

    def _grow_in_congestion_avoidance(self, now: float, acked: int) -> None:
        t = now - (self._start_epoch(now) if self._epoch_start is None else self._epoch_start)
        # §4.3: Reno's growth, and from cwnd_prior on with Reno's own alpha.
        alpha = ALPHA_CUBIC if self.w_est < self.cwnd_prior else 1.0
        self.w_est += alpha * self._max_packet_size * acked / self.cwnd
        if self._w_cubic(t) < self.w_est:
            self._add(max(self.w_est - self.cwnd, 0))
            return
        # §4.2, §4.4, §4.5: towards where the cubic will be one round trip from now, 1.5 windows at most.
        target = min(max(self._w_cubic(t + (self._srtt or 0.0)), self.cwnd), 1.5 * self.cwnd)
        self._add((target - self.cwnd) * acked / self.cwnd)

    def _start_epoch(self, now: float) -> float:
        self._epoch_start = now
        self.w_est = self.cwnd
        if self._fresh_epoch or self.cwnd >= self.w_max:
            # §4.8, §4.10: no reduction to come back from, so the cubic starts at its flat middle.
            self.k = 0.0
            self.w_max = self.cwnd
            self.cwnd_prior = max(self.cwnd_prior, self.cwnd)
        else:
            self.k = cbrt((self.w_max - self.cwnd) / self._max_packet_size / C)
        return now

    def _w_cubic(self, t: float) -> float:
        """Bytes the cubic has t seconds into the epoch. §4.2, figure 1."""
        return C * (t - self.k) ** 3 * self._max_packet_size + self.w_max

    def _add(self, growth: float) -> None:
        growth += self._fraction
        whole = int(growth)
        self._fraction = growth - whole
        self.cwnd += whole

    def _set_pacing_rate(self) -> None:
        if self._srtt is None:
            return
        gain = SLOW_START_PACING_GAIN if self.cwnd < self.ssthresh / 2 else AVOIDANCE_PACING_GAIN
        # A round trip of 0 s, on a clock too coarse for it, is not a reason to divide by it.
        self.pacing_rate = gain * self.cwnd / max(self._srtt, 1e-6)
