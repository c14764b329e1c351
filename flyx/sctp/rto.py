"""Round-trip times: SRTT, RTTVAR, the retransmission timeout and the smallest recent round trip.

Fed by the association, at most once a SACK; knows nothing of chunks or timers. Times are seconds.

RFC 9260 §6.3.1 (C1-C7), §6.3.3 (E2), §16 (parameters).
"""

from __future__ import annotations

from flyx.sctp.congestion.filters import WindowedMin

# RTO.Initial and RTO.Max, seconds (RFC 9260 §16).
RTO_INITIAL = 1.0
RTO_MAX = 60.0
RTO_MIN_VARIANCE = 0.2
"""Seconds that a timeout exceeds SRTT by, at least. RFC 9260 has RTO.Min = 1 s for the RTO as a whole; we
put the floor under 4 * RTTVAR instead, as Linux does (tcp_rto_min, 200 ms). A second is an eternity on a
path of 10 ms, and a floor under the sum would leave nothing above SRTT on a steady path of 200 ms. 200 ms
is also the longest that a peer may by default delay its SACK (RFC 9260 §16), so that alone never fires it."""

# RTO.Alpha and RTO.Beta (RFC 9260 §16). C5 wants one sample a round trip; we take one a SACK, so these
# average over 8 SACKs rather than 8 round trips, and RTTVAR shrinks sooner. The floor above makes up for it.
RTO_ALPHA = 1 / 8
RTO_BETA = 1 / 4
# The backed-off RTO stays at or under BACKOFF_HOLD seconds (or the RTO itself, if larger) for the first
# BACKOFF_HOLD_COUNT timeouts in a row, and doubles only after that. RFC 9260 §6.3.3 (E2) doubles at once:
# then a path that comes back after 2 s is found out 1.75 s later. What is sent meanwhile is one or two
# packets each time, and RFC 8085 §3.1.3 grants a packet a round trip.
BACKOFF_HOLD = 0.75
BACKOFF_HOLD_COUNT = 12
MIN_RTT_WINDOW = 10.0
"""Seconds that the minimum is remembered for; as long as BBR.MinRTTFilterLen."""

RECENT_RTT_WINDOW = 0.25
"""Seconds that count as of late, for queueing."""


class RttEstimator:
    """What the round trips measured so far say about the next one."""

    __slots__ = ("_minimum", "_recent_minimum", "_timeouts", "latest_rtt", "rto", "rttvar", "srtt")

    def __init__(self) -> None:
        # Smoothed round trip; None until the first sample.
        self.srtt: float | None = None
        self.rttvar = 0.0
        # The newest sample; None until the first.
        self.latest_rtt: float | None = None
        # What T3-rtx is to be started with, back-off included.
        self.rto = RTO_INITIAL
        # Timeouts since the last sample.
        self._timeouts = 0
        self._minimum = WindowedMin(MIN_RTT_WINDOW)
        self._recent_minimum = WindowedMin(RECENT_RTT_WINDOW)

    @property
    def min_rtt(self) -> float | None:
        """The smallest sample of the last 10 s; RACK's reordering window is a part of it (RFC 8985 §6.2)."""
        return self._minimum.value

    @property
    def queueing(self) -> float:
        """Seconds that even the quickest packet waited of late; a late process does not count."""
        least, recent = self._minimum.value, self._recent_minimum.value
        return recent - least if least is not None and recent is not None else 0.0

    def update(self, rtt: float, now: float) -> None:
        """Take one sample, and forget the back-off.

        Args:
            rtt: seconds; from a chunk sent only once (C4, Karn's rule), never below zero.
            now: monotonic seconds.
        """
        self.latest_rtt = rtt
        self._minimum.update(rtt, now)
        self._recent_minimum.update(rtt, now)
        if self.srtt is None:  # C2
            self.srtt = rtt
            self.rttvar = rtt / 2
        else:  # C3: RTTVAR first, with the old SRTT
            self.rttvar += RTO_BETA * (abs(self.srtt - rtt) - self.rttvar)
            self.srtt += RTO_ALPHA * (rtt - self.srtt)
        self._timeouts = 0
        self._set_rto()

    def back_off(self) -> None:
        """T3-rtx has expired: lengthen it (E2, deviating as BACKOFF_HOLD says)."""
        self._timeouts += 1
        doubled = self.rto * 2
        if self._timeouts <= BACKOFF_HOLD_COUNT:
            doubled = min(doubled, max(self.rto, BACKOFF_HOLD))
        self.rto = min(doubled, RTO_MAX)

    def reset_back_off(self) -> None:
        """New data has been acknowledged, if only retransmitted data: the path lives (RFC 8961 §4)."""
        if self._timeouts:
            self._timeouts = 0
            self._set_rto()

    def _set_rto(self) -> None:
        if self.srtt is None:
            self.rto = RTO_INITIAL
        else:
            self.rto = min(self.srtt + max(4 * self.rttvar, RTO_MIN_VARIANCE), RTO_MAX)
