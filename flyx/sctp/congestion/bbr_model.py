"""What BBR believes of the path: bandwidth, round trip, how much in flight is safe, how lumpy the acks are.

Only estimates; what to do with them is bbr.py's. Section numbers are draft-ietf-ccwg-bbr-06's, and so are the
names. Bytes, seconds, bytes a second; unknown bounds are infinite.
"""

from __future__ import annotations

from math import inf, sqrt

from flyx.sctp.congestion.base import AckSample, Loss
from flyx.sctp.congestion.filters import WindowedMax

LOSS_THRESH = 0.02
"""§2.8: most that a path may lose of what is in flight while bandwidth is probed."""

BETA = 0.7
"""§2.8: least that a round trip with loss leaves of the short-term bounds."""

# §2.16.1, §2.16.2: seconds.
MIN_RTT_FILTER_LEN = 10.0
PROBE_RTT_INTERVAL = 5.0
EXTRA_ACKED_FILTER_LEN = 10
"""§2.12: round trips."""

# §5.3.1.2: growth that counts as growth, and rounds without it that mean a full pipe.
FULL_BW_GROWTH = 1.25
FULL_BW_ROUNDS = 3

MAX_BACKGROUND_LOSS = 0.05
"""Deviation: background loss, see PathModel.update_background_loss(). Part of the packets that a path may
lose whatever we do, at most; bounds the harm where it is not so."""

MAX_QUIET_ROUND_LOSS = 0.1
"""A round that lost more says nothing of the background: a buffer or a policer overflowed."""

# Rounds that the average remembers, and bytes delivered without loss that it starts from: until it has seen a
# good deal more, a loss or two are no background.
BACKGROUND_LOSS_ROUNDS = 32
BACKGROUND_LOSS_PRIOR = 120_000
OVERFLOW_LOSS = 0.005
"""Part of a round that all met a queue; if more than that is lost (tolerable_loss()), the queue is full."""

# A round trip betrays a queue if it exceeds min_rtt by an eighth, but at least and at most
# this many seconds: HyStart++'s thresholds (RFC 9406 §4.3).
QUEUE_RTT_DIVISOR = 8
QUEUE_RTT_MIN = 0.004
QUEUE_RTT_MAX = 0.016


class PathModel:
    """The estimates, and the packet-timed rounds that they are kept by."""

    def __init__(self) -> None:
        # Bytes delivered over the connection's life (C.delivered), as of the last SACK.
        self.delivered = 0

        # §5.5.1. round_start: the SACK being handled ends a round.
        self.round_count = 0
        self.round_start = False
        self._next_round_delivered = 0

        # §5.5.2-5.5.6. The best of the last bandwidth-probing cycle and of this one; max_bw is the better.
        self.max_bw = 0.0
        self._max_bw_previous_cycle = 0.0
        self._max_bw_this_cycle = 0.0
        # §5.5.10.3. bw is what sending is based on: max_bw within bw_shortterm.
        self.bw = 0.0
        self.bw_shortterm = inf
        self.inflight_shortterm = inf
        # §5.5.10.2; raised and lowered by the state machine.
        self.inflight_longterm = inf
        # The last round's best; since ResetCongestionSignals, that is.
        self.bw_latest = 0.0
        self.inflight_latest = 0
        # §5.5.10.3. loss_round_start: the SACK ends a round of loss accounting.
        self.loss_in_round = False
        self.loss_round_start = False
        self._loss_round_delivered = 0
        # §5.3.1.3: bursts that lost something in the round.
        self.loss_events_in_round = 0

        # §5.3.4.3. None until the first round trip has been measured.
        self.min_rtt: float | None = None
        self._min_rtt_stamp = 0.0
        self.probe_rtt_min_delay = inf
        self.probe_rtt_min_stamp: float | None = None
        self.probe_rtt_expired = False

        # §5.3.1.2.
        self.full_bw_reached = False
        self.full_bw_now = False
        self._full_bw = 0.0
        self._full_bw_count = 0

        # See update_background_loss(). queue_met: some packet of this round or the last met a queue.
        # queue_seen: all of the last round's packets did.
        # queue_overflows: and more than a few of them were lost. loss_is_background: some met none, and in
        # this round or the one before few were lost.
        self.background_loss = 0.0
        self.queue_met = False
        self.queue_seen = False
        self.loss_is_background = False
        self._was_lossy = False
        self.queue_overflows = False
        self._round_min_rtt = inf
        self._round_max_rtt = 0.0
        # What a round trip takes that betrays a queue.
        self._queue_rtt = inf
        self._round_acked = 0
        self._round_lost = 0
        self._quiet_acked = 0.0
        self._quiet_lost = 0.0

        # §5.5.9.
        self.extra_acked = 0.0
        self.extra_acked_interval_start: float | None = None
        self._extra_acked_delivered = 0
        # The best of this round; the filter has the rounds before.
        self._round_extra_acked = 0.0
        self._extra_acked_filter = WindowedMax(EXTRA_ACKED_FILTER_LEN, EXTRA_ACKED_FILTER_LEN)

    def bdp(self, bw: float | None = None) -> float | None:
        """Bytes that fill the path at this bandwidth (default: bw); None without a round trip. §5.6.4.2."""
        if self.min_rtt is None:
            return None
        return (self.bw if bw is None else bw) * self.min_rtt

    def start_round(self) -> None:
        """A round begins with what is sent next. §5.5.1."""
        self._next_round_delivered = self.delivered

    # On a SACK, in this order

    def update_latest_delivery_signals(self, sample: AckSample) -> None:
        """Take in the sample's rate and volume. §5.5.10.3."""
        self.delivered = sample.delivered
        self.loss_round_start = sample.prior_delivered >= self._loss_round_delivered
        self.bw_latest = max(self.bw_latest, sample.delivery_rate or 0.0)
        self.inflight_latest = max(self.inflight_latest, sample.delivered - sample.prior_delivered)
        if self.loss_round_start:
            self._loss_round_delivered = self.delivered

    def update_round(self, sample: AckSample) -> None:
        """Notice that something sent since the round began has arrived. §5.5.1."""
        self.round_start = sample.prior_delivered >= self._next_round_delivered
        if self.round_start:
            self.start_round()
            self.round_count += 1

    def update_max_bw(self, rate: float, is_app_limited: bool) -> None:
        """Take in a bandwidth sample, unless the application made it small. §5.5.5."""
        if rate > self._max_bw_this_cycle and (rate >= self.max_bw or not is_app_limited):
            self._max_bw_this_cycle = rate
            self.max_bw = max(rate, self._max_bw_previous_cycle)

    def adapt_lower_bounds(self, cwnd: int, pace: float) -> None:
        """Give way to the round's loss: bound sending by what the round delivered. §5.5.10.3.

        Deviation: what was delivered is set in relation to what could have been. The draft's bounds shrink by
        PACING_MARGIN and by the background loss in each round with any loss, compounding for seconds; and a
        single loss after PROBE_BW_DOWN or PROBE_RTT takes their low rate for the path's. Where there is a
        queue that overflows, all is as in the draft: then the loss may tell of another flow, and a flow that
        came late lives off what this one gives up. And loss that a probe would have tolerated, in a round
        that met no queue, changes nothing: what such a round delivered tells of our process, which was busy
        elsewhere, rather than of the path.

        Args:
            cwnd: bytes.
            pace: what part of bw was sent at the time that the round's samples cover, at most 1.
        """
        if self.loss_is_background:
            return
        if self.bw_shortterm == inf:
            self.bw_shortterm = self.max_bw
        if self.inflight_shortterm == inf:
            self.inflight_shortterm = cwnd
        if self.queue_seen:
            part = 1.0 if self.queue_overflows else pace
        else:
            part = pace * (1 - self.background_loss)
        # Corrected, but never so as to raise a bound that the draft would not.
        bw = max(self.bw_latest, min(self.bw_latest / part, self.bw_shortterm))
        inflight = max(self.inflight_latest, min(self.inflight_latest / part, self.inflight_shortterm))
        self.bw_shortterm = max(bw, BETA * self.bw_shortterm)
        self.inflight_shortterm = max(inflight, BETA * self.inflight_shortterm)

    def update_ack_aggregation(self, now: float, acked: int, cwnd: int) -> None:
        """Measure how far a run of SACKs got ahead of the bandwidth. §5.5.9."""
        if self.extra_acked_interval_start is None:
            self.extra_acked_interval_start = now
        expected = self.bw * (now - self.extra_acked_interval_start)
        if self._extra_acked_delivered <= expected:
            self._extra_acked_delivered = 0
            self.extra_acked_interval_start = now
            expected = 0.0
        self._extra_acked_delivered += acked
        extra = min(self._extra_acked_delivered - expected, cwnd)
        if self.round_start:
            # In Startup, only the current round counts.
            if self.full_bw_reached:
                past = self._extra_acked_filter.update(self._round_extra_acked, self.round_count)
            else:
                past = 0.0
            self._round_extra_acked = 0.0
            self.extra_acked = max(past, extra)
        elif extra > self.extra_acked:
            self.extra_acked = extra
        if extra > self._round_extra_acked:
            self._round_extra_acked = extra

    def update_background_loss(self, sample: AckSample) -> None:
        """Learn, once a round, what the path loses although nothing queues.

        Deviation: the draft takes every loss for congestion. Then a path that loses 3 % at random (radio, a
        bad cable) is used to a quarter, because each probe ends at LOSS_THRESH and each round in between
        gives up what was lost in it; with 1 %, to four fifths (100 Mbit/s, 50 ms, in
        tests/sctp/congestion_simulation.py). Loss while bandwidth is not probed and some packet of the round
        met no queue is not ours to avoid. It is averaged, up to MAX_BACKGROUND_LOSS, and added to what the
        draft tolerates. With a competitor that keeps the queue filled, nothing is learned, and all is as in
        the draft.

        Call end_round_of_background_loss() next if the SACK ends a round.
        """
        rtt = sample.rtt
        if rtt is not None:
            if rtt < self._round_min_rtt:
                self._round_min_rtt = rtt
            if rtt > self._round_max_rtt:
                self._round_max_rtt = rtt
                self.queue_met |= rtt >= self._queue_rtt
        self._round_acked += sample.acked

    def tolerable_loss(self, sent: int, thresh: float, packet_size: int) -> float:
        """Bytes that the path may lose of so many, if it may lose this part of them besides the background.

        Deviation: and two standard deviations of the background more: a probe looks at its flight again and
        again, and may not end by chance. Nothing, on a path without background loss.
        """
        background = self.background_loss
        return sent * (thresh + background) + 2 * sqrt(background * sent * packet_size)

    def end_round_of_background_loss(self, now: float, probing: bool, packet_size: int) -> None:
        """Average what the round lost, and look for a queue.

        Args:
            probing: the round may tell of packets that were sent in order to find the limit.
            packet_size: bytes of a packet.
        """
        acked, lost = self._round_acked, self._round_lost
        shortest, longest = self._round_min_rtt, self._round_max_rtt
        self._round_acked = self._round_lost = 0
        self._round_min_rtt, self._round_max_rtt = inf, 0.0
        if self.min_rtt is None:
            return
        slack = max(QUEUE_RTT_MIN, min(self.min_rtt / QUEUE_RTT_DIVISOR, QUEUE_RTT_MAX))
        self._queue_rtt = self.min_rtt + slack
        self.queue_met = longest >= self._queue_rtt
        self.queue_seen = shortest >= self._queue_rtt
        tolerable = self.tolerable_loss(acked + lost, OVERFLOW_LOSS, packet_size)
        self.queue_overflows = self.queue_seen and lost > tolerable
        lossy = lost > (acked + lost) * (LOSS_THRESH + self.background_loss)
        self.loss_is_background = not self.queue_seen and not (lossy and self._was_lossy)
        self._was_lossy = lossy
        if not self.queue_seen:
            self._confirm_min_rtt(now)
        if probing or self.queue_seen or lost > (acked + lost) * MAX_QUIET_ROUND_LOSS:
            return
        keep = 1 - 1 / BACKGROUND_LOSS_ROUNDS
        self._quiet_acked = keep * self._quiet_acked + acked
        self._quiet_lost = keep * self._quiet_lost + lost
        seen = self._quiet_acked + self._quiet_lost + BACKGROUND_LOSS_PRIOR
        self.background_loss = min(self._quiet_lost / seen, MAX_BACKGROUND_LOSS)

    def check_full_bw_reached(self, rate: float, is_app_limited: bool) -> None:
        """Notice that sending faster no longer delivers faster. §5.3.1.2."""
        if self.full_bw_now or not self.round_start or is_app_limited:
            return
        if rate >= self._full_bw * FULL_BW_GROWTH:
            self.reset_full_bw(rate)
            return
        self._full_bw_count += 1
        self.full_bw_now = self._full_bw_count >= FULL_BW_ROUNDS
        self.full_bw_reached |= self.full_bw_now

    def update_min_rtt(self, now: float, rtt: float | None) -> None:
        """Take in a round trip. §5.3.4.3."""
        if self.probe_rtt_min_stamp is None:
            self.probe_rtt_min_stamp = now
        self.probe_rtt_expired = now > self.probe_rtt_min_stamp + PROBE_RTT_INTERVAL
        if rtt is not None and (rtt < self.probe_rtt_min_delay or self.probe_rtt_expired):
            self.probe_rtt_min_delay = rtt
            self.probe_rtt_min_stamp = now
        if self.probe_rtt_min_delay == inf:
            return
        if (
            self.min_rtt is None
            or self.probe_rtt_min_delay < self.min_rtt
            or now > self._min_rtt_stamp + MIN_RTT_FILTER_LEN
        ):
            self.min_rtt = self.probe_rtt_min_delay
            self._min_rtt_stamp = self.probe_rtt_min_stamp

    def _confirm_min_rtt(self, now: float) -> None:
        """The round's shortest round trip was about min_rtt.

        Deviation: the draft lets only a shorter one count, and slows down every PROBE_RTT_INTERVAL to look
        for it, which costs 2 % of the path; but a flow that has it to itself, or drains its queue as it
        should, sees its length all the time. Flows that keep a queue filled together still slow down.
        """
        self.probe_rtt_min_stamp = self._min_rtt_stamp = now

    def advance_latest_delivery_signals(self, sample: AckSample) -> None:
        """Begin the next round of loss accounting, if one has ended. §5.5.10.3."""
        if self.loss_round_start:
            self.bw_latest = sample.delivery_rate or 0.0
            self.inflight_latest = sample.delivered - sample.prior_delivered

    def bound_bw(self) -> None:
        """Set what sending is based on. §5.5.10.3."""
        self.bw = min(self.max_bw, self.bw_shortterm)

    # On other occasions

    def inflight_at_loss(self, loss: Loss, thresh: float) -> float:
        """How much was in flight when more of it than this part and the background was lost. §5.5.10.2."""
        inflight_before = loss.tx_in_flight - loss.size
        lost_before = loss.lost_since - loss.size
        thresh += self.background_loss
        lost_prefix = (thresh * inflight_before - lost_before) / (1 - thresh)
        return inflight_before + lost_prefix

    def note_loss(self, size: int) -> bool:
        """This many bytes have been lost; true for the first loss of the round. §5.5.10.2."""
        first = not self.loss_in_round
        self._round_lost += size
        if first:
            self._loss_round_delivered = self.delivered
        self.loss_in_round = True
        self.loss_events_in_round += 1
        return first

    def advance_max_bw_filter(self) -> None:
        """A bandwidth-probing cycle has ended: forget the one before it. §5.5.6.

        Linux keeps the old value if the cycle brought no sample at all, and so do we.
        """
        if self._max_bw_this_cycle > 0:
            self._max_bw_previous_cycle = self._max_bw_this_cycle
            self._max_bw_this_cycle = 0.0
            self.max_bw = self._max_bw_previous_cycle

    def reset_congestion_signals(self) -> None:
        """Forget the loss of this round. §5.5.10.3."""
        self.loss_in_round = False
        self.bw_latest = 0.0
        self.inflight_latest = 0

    def reset_short_term_model(self) -> None:
        """Forget the bounds that loss has set. §5.5.10.3."""
        self.bw_shortterm = inf
        self.inflight_shortterm = inf

    def reset_full_bw(self, baseline: float = 0.0) -> None:
        """Look for a full pipe anew, from this bandwidth on. §5.3.1.2."""
        self._full_bw = baseline
        self._full_bw_count = 0
        self.full_bw_now = False
