"""When how much may leave: a token bucket filled at the congestion controller's pacing rate.

The association asks for budget(), sends at most that, reports it with on_sent(), and wakes at
next_send_time(). Rates are bytes a second, times monotonic seconds. Sized for event loops whose timers fire
on whole milliseconds, and late: the bucket holds several milliseconds, and a sleep lasts until a
millisecond's worth may leave in one go, which is also what makes segmentation offload pay.

Specification: RFC 9002 §7.7 for the need, draft-ietf-ccwg-bbr-06 §5.6.3 for the quantum.
"""

from __future__ import annotations

from math import inf

QUANTUM_TIME = 0.001
"""Seconds of sending that a quantum stands for. Timers of asyncio and uvloop fire on whole milliseconds."""

QUANTUM_MIN_PACKETS = 2
"""A quantum is worth a wake-up: packets, at least (draft-ietf-ccwg-bbr-06 §5.6.3)."""

QUANTUM_MAX = 1 << 20
"""The draft caps a quantum at 64 KB, one segmentation-offload send. A Python event loop cannot turn 16,000
times a second, which 1 GB/s in such portions would need, so our cap is what a turn can send."""

BURST_TIME = 0.004
"""Seconds of sending that may be saved up while a timer is late or the window is closed. Bounds bursts."""

BURST_TIME_MAX = 0.025
"""Half a round trip may be saved up, if that is more, up to this, less what queues already. Event loops
are late by whole scheduler slices on a busy machine, and what is not caught up on is lost to the flow: of
100 Mbit/s at 50 ms, stalls of up to 20 ms leave 97 % instead of 82 %
(tests/sctp/congestion_simulation.py). The path has drained by as much in the meantime, so that the burst
finds room; but not if a queue kept it busy."""

BURST_REGROWTH_TIME = 10.0
"""A path whose buffer is shorter than that drops the end of such a burst. Then half of what passed is
saved up at most, as the next burst comes before this one has left the buffer, but a quantum at least; and
more again as time goes by: as much more each so many seconds."""

BURST_OVERFLOW = 0.25
"""What part of a burst has to be lost for that: more than a path loses at random."""

BURST_MIN_PACKETS = 4
"""The bucket holds this many packets even if they take longer than BURST_TIME, so that a slow flow's
bundle of packets still leaves in one send (RFC 9002 §7.7 recommends no more than 10)."""

UNLIMITED = 1 << 62
"""Unpaced: more than any window."""


def send_quantum(rate: float, max_packet_size: int) -> int:
    """Bytes worth waking up for at this rate."""
    return max(min(int(rate * QUANTUM_TIME), QUANTUM_MAX), QUANTUM_MIN_PACKETS * max_packet_size)


class Pacer:
    """A bucket of bytes: on_sent() takes out what has left, time puts in rate * elapsed.

    The level may fall below zero, by less than a packet if the caller rounds its budget up to whole packets;
    the debt is paid before anything else leaves.
    """

    __slots__ = (
        "_burst_time",
        "_level",
        "_max_burst",
        "_max_packet_size",
        "_passed",
        "_passed_at",
        "_queue",
        "_updated_at",
    )

    def __init__(self, max_packet_size: int, max_burst: int | None = None) -> None:
        """Args:
        max_packet_size: bytes.
        max_burst: bytes that the bucket holds at most; None: as the rate and the path have it.
        """
        self._max_burst = UNLIMITED if max_burst is None else max_burst
        self._max_packet_size = max_packet_size
        self._burst_time = BURST_TIME
        # Seconds that the newest packet acknowledged was queued for, or its SACK.
        self._queue = 0.0
        # Bytes that passed of the last burst too long for the path, and when that was noticed. None: there
        # was none, or the bucket holds no more anyhow.
        self._passed: int | None = None
        self._passed_at = 0.0
        # Bytes that may leave at _updated_at; filled by the first budget() call.
        self._level = 0.0
        # None until the bucket is first asked for.
        self._updated_at: float | None = None

    @property
    def has_short_bursts(self) -> bool:
        """Whether bursts are kept short: where timers are late, the rate is not reached then."""
        return self._passed is not None or self._max_burst < UNLIMITED

    def on_max_packet_size(self, size: int) -> None:
        """Packets may be this large from now on."""
        self._max_packet_size = size

    def on_round_trip(self, rtt: float, min_rtt: float, queueing: float) -> None:
        """A round trip has taken so many seconds.

        Args:
            rtt: seconds.
            min_rtt: what it takes without queues.
            queueing: what it has taken more of late, at the least.
        """
        self._queue = rtt - min_rtt
        self._burst_time = min(max(BURST_TIME, min_rtt / 2 - queueing), BURST_TIME_MAX)

    def on_loss(self, now: float, rate: float, burst: int, lost: int) -> None:
        """Of a burst of so many bytes, as many have been lost.

        Where what arrived met a longer queue than a burst makes, that was too long, not the burst.
        """
        long = 2 * send_quantum(rate, self._max_packet_size) if rate < inf else UNLIMITED
        if self._queue < BURST_TIME and burst >= long and lost > burst * BURST_OVERFLOW:
            self._passed, self._passed_at = burst - lost, now

    def budget(self, now: float, rate: float) -> int:
        """Bytes that may leave now: a quantum at least, or none until next_send_time().

        Without that, SACKs arriving between two wake-ups would have packets leave one by one, each at the
        price of a quantum.

        Args:
            now: monotonic seconds, never earlier than the last call.
            rate: bytes a second since the last call; inf: unpaced.
        """
        if rate == inf:
            # Nothing is owed when pacing begins.
            self._updated_at = None
            return UNLIMITED
        self._fill(now, rate)
        return int(self._level) if self._level >= self._quantum(rate) else 0

    def on_sent(self, size: int) -> None:
        """A burst of this many bytes has left."""
        if self._updated_at is not None:
            self._level -= size

    def next_send_time(self, now: float, rate: float) -> float:
        """When a quantum may leave; now, if it may already."""
        if rate == inf:
            return now
        self._fill(now, rate)
        # The bucket holds a quantum, so that this comes.
        missing = self._quantum(rate) - self._level
        # A byte more than is missing, lest rounding make the caller come too early and find nothing.
        return now + (missing + 1) / rate if missing > 0 else now

    def _quantum(self, rate: float) -> int:
        quantum = send_quantum(rate, self._max_packet_size)
        if self._passed is not None:
            # SACKs come more often than timers fire.
            quantum //= 2
        return min(quantum, self._max_burst)

    def _capacity(self, now: float, rate: float) -> float:
        capacity = max(rate * self._burst_time, float(BURST_MIN_PACKETS * self._max_packet_size))
        if self._passed is not None:
            passes = self._passed / 2 * (1 + (now - self._passed_at) / BURST_REGROWTH_TIME)
            if passes < capacity:
                capacity = max(passes, float(send_quantum(rate, self._max_packet_size)))
            else:
                self._passed = None
        return min(capacity, self._max_burst)

    def _fill(self, now: float, rate: float) -> None:
        capacity = self._capacity(now, rate)
        if self._updated_at is None:
            self._level = capacity
        else:
            self._level = min(self._level + rate * (now - self._updated_at), capacity)
        self._updated_at = now
