"""The timers of an association: one table of deadlines, one next deadline."""

from __future__ import annotations

from enum import Enum, auto


class Timer(Enum):
    """What a deadline is for."""

    # INIT and COOKIE ECHO go unanswered (RFC 9260 §5.1).
    T1 = auto()
    # SHUTDOWN and SHUTDOWN ACK go unanswered (§9.2).
    T2 = auto()
    # Data goes unacknowledged (§6.3.2).
    T3 = auto()
    # Nothing has been acknowledged for two round trips: probe the tail (RFC 8985 §7).
    TAIL_PROBE = auto()
    # Something in flight may be lost by now (RFC 8985 §6).
    RACK = auto()
    # A SACK may be delayed no longer (§6.2).
    SACK = auto()
    # The pacer lets more leave.
    PACING = auto()
    # A RE-CONFIG goes unanswered (RFC 6525 §5.1.1).
    RECONFIG = auto()
    # The path has been idle, or a probe is due (§8.3; RFC 8899).
    HEARTBEAT = auto()


class Timers:
    """Deadlines by timer; a timer that is not here is not running."""

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}

    def start(self, timer: Timer, deadline: float) -> None:
        """Start or restart a timer."""
        self._deadlines[timer] = deadline

    def stop(self, *timers: Timer) -> None:
        """Stop timers, whether they run or not."""
        for timer in timers:
            self._deadlines.pop(timer, None)

    def stop_all(self) -> None:
        """Stop every timer."""
        self._deadlines.clear()

    def running(self, timer: Timer) -> bool:
        """Whether the timer has a deadline."""
        return timer in self._deadlines

    def next_deadline(self) -> float | None:
        """The earliest deadline."""
        return min(self._deadlines.values(), default=None)

    def due(self, now: float) -> list[Timer]:
        """Return the timers whose deadline has come, and stop them."""
        due = [timer for timer, deadline in self._deadlines.items() if deadline <= now]
        self.stop(*due)
        return due
