"""Datagrams that leave at a rate: what the bottleneck of a path does, and what congestion control expects.

No clock here: each call is told the time, in monotonic seconds.
"""

from __future__ import annotations

from collections import deque

QUEUE_TIME = 0.15
"""Seconds of the rate that wait at most: as in a router with a sound buffer, for BBR and CUBIC above."""

BURST_TIME = 0.01
"""Seconds of the rate that may leave at once after nothing has: a timer of the event loop is no finer.

What waits loses nothing by a timer that is late, as on a busy machine: it then leaves at once.
"""

_SMALLEST_QUEUE = 32 * 1024
"""Bytes that may wait at any rate: a handshake comes in bursts."""


class PacedQueue:
    """A queue of datagrams, in order; what does not fit is dropped (tail drop).

    Attributes:
        dropped: datagrams that were.
    """

    __slots__ = (
        *("_allowance", "_backlogged", "_burst", "_capacity", "_datagrams", "_rate", "_seen", "_size"),
        "dropped",
    )

    def __init__(self, rate: float, now: float) -> None:
        """Args:
        rate: bytes a second.
        now: monotonic seconds.
        """
        self._rate = rate
        self._burst = rate * BURST_TIME
        self._capacity = max(_SMALLEST_QUEUE, rate * QUEUE_TIME)
        self._datagrams: deque[bytes] = deque()
        self._size = 0
        # Bytes that may leave now. Below nothing after a datagram that was larger: so the rate is exact.
        self._allowance = self._burst
        self._seen = now
        # Datagrams have been waiting since then.
        self._backlogged = False
        self.dropped = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    def push(self, datagram: bytes) -> bool:
        """Queue a datagram; False if it is dropped."""
        if self._size + len(datagram) > self._capacity:
            self.dropped += 1
            return False
        self._datagrams.append(datagram)
        self._size += len(datagram)
        return True

    def pop(self, now: float) -> bytes | None:
        """Return the next datagram if it may leave now."""
        most = self._capacity if self._backlogged else self._burst
        self._allowance = min(most, self._allowance + (now - self._seen) * self._rate)
        self._seen = now
        datagram = None
        if self._datagrams and self._allowance >= 0:
            datagram = self._datagrams.popleft()
            self._size -= len(datagram)
            self._allowance -= len(datagram)
        self._backlogged = bool(self._datagrams)
        return datagram

    def delay(self) -> float | None:
        """Return the seconds, counted from the last pop(), until a datagram may leave; None if none waits."""
        if not self._datagrams:
            return None
        return max(0.0, -self._allowance / self._rate)
