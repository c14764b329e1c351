"""What was sent together: bursts and runs.

A Run is a row of consecutive fragments of one message that left in one burst and have one state so far. TSNs
here never wrap.
"""

from __future__ import annotations

from enum import Enum, auto

from flyx.sctp.send_queue import OutgoingMessage


class RunState(Enum):
    """What is known of a run."""

    IN_FLIGHT = auto()
    # Acknowledged by a gap ack block: the receiver has it, but may still renege (RFC 9260 §6.2.1).
    ACKED = auto()
    # Declared lost, to be sent again.
    LOST = auto()
    # Neither sent again nor missed: FORWARD TSN skips it (RFC 3758).
    ABANDONED = auto()


class Burst:
    """What left at one moment, and what was known then (delivery-rate sampling)."""

    __slots__ = (
        "delivered",
        "delivered_at",
        "first_sent_at",
        "in_flight",
        "is_app_limited",
        "lost",
        "sent_at",
        "size",
    )

    def __init__(
        self,
        sent_at: float,
        delivered: int,
        delivered_at: float,
        first_sent_at: float,
        lost: int,
        is_app_limited: bool,
    ) -> None:
        self.sent_at = sent_at
        self.delivered = delivered
        self.delivered_at = delivered_at
        self.first_sent_at = first_sent_at
        self.lost = lost
        self.is_app_limited = is_app_limited
        # Bytes in flight right after it left, and its own.
        self.in_flight = 0
        self.size = 0


class Run:
    """Fragments first_fragment … of one message, as TSNs first … first + count - 1."""

    __slots__ = ("burst", "count", "first", "fragment", "joined", "message", "size", "state", "times_sent")

    def __init__(
        self, first: int, count: int, message: OutgoingMessage, fragment: int, burst: Burst, times_sent: int
    ) -> None:
        self.first = first
        self.count = count
        self.message = message
        self.fragment = fragment
        self.burst = burst
        self.times_sent = times_sent
        self.state = RunState.IN_FLIGHT
        self.size = message.span(fragment, count)
        # The runs that have become one with this one, in order, when all were ACKED: a receiver that reneges
        # parts them again.
        self.joined: list[Run] = []

    @property
    def end(self) -> int:
        """The TSN after the last."""
        return self.first + self.count

    @property
    def largest_fragment(self) -> int:
        """Bytes."""
        return min(self.size, self.message.fragment_size)

    def split(self, count: int) -> Run:
        """Keep the first `count` fragments and return the rest as another run."""
        if self.joined:
            return self._split_joined(self.first + count)
        rest = Run(
            self.first + count,
            self.count - count,
            self.message,
            self.fragment + count,
            self.burst,
            self.times_sent,
        )
        rest.state = self.state
        self.count = count
        self.size = self.message.span(self.fragment, count)
        return rest

    def join(self, after: Run) -> None:
        """Take in the run after this one."""
        end = after.end
        self.joined += [after, *after.part()]
        self.count = end - self.first

    def part(self) -> list[Run]:
        """Return the runs that have become one with this one; it is without them again."""
        joined, self.joined = self.joined, []
        if joined:
            self.count = joined[0].first - self.first
        return joined

    def _split_joined(self, tsn: int) -> Run:
        parts = [self, *self.part()]
        before = [part for part in parts if part.first < tsn]
        after = [part for part in parts if part.first >= tsn]
        if before[-1].end > tsn:
            after.insert(0, before[-1].split(tsn - before[-1].first))
        for part in before[1:]:
            self.join(part)
        for part in after[1:]:
            after[0].join(part)
        return after[0]
