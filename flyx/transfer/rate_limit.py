"""When data may leave that is held to a rate: that of `--limit`, of one receiver or shared by several.

A rate is shared equally by its receivers, however long their messages are and whenever each is woken. A
receiver that has saved MOST_PORTIONS and does not send, for want of data or of room for it, gets no more: the
others get its share, so that a slow receiver delays no other. A receiver that is woken late finds the
portions that it missed. In any time, no more leaves than rate * time, and MOST_PORTIONS for each receiver.

No clock here: `now` is monotonic seconds, never earlier than in the last call.
"""

from __future__ import annotations

from flyx.errors import LocalProtocolError

MIN_RATE = 1_000
"""Bytes a second: with less, a transfer looks as if it stood still."""

MAX_RATE = 10**12
"""Bytes a second: more than any computer sends."""

PORTION_TIME = 0.02
"""Seconds of the rate in a portion, which is worth waking up for: small enough to flow, and few enough to
cost the event loop nothing."""

MIN_PORTION = 2_048
"""Bytes in a portion at any rate: shorter messages are mostly headers."""

MOST_PORTIONS = 4
"""What one may have at most: on a busy machine, event loops are late by three times PORTION_TIME."""


def portion_of(rate: int) -> int:
    """Return the bytes of a portion at this rate; no message may be longer."""
    return max(MIN_PORTION, round(rate * PORTION_TIME))


def lower(one: int | None, other: int | None) -> int | None:
    """Return the lower of two rates; None is none."""
    return min((rate for rate in (one, other) if rate is not None), default=None)


class RateLimit:
    """A rate, and those who share it."""

    def __init__(self, rate: int, now: float) -> None:
        """Args:
        rate: bytes a second.
        now: the time from which on it flows.
        """
        self.rate = rate
        self.portion = portion_of(rate)
        self._most = MOST_PORTIONS * self.portion
        self._shares: set[_Share] = set()
        self._time = now

    def join(self, share: _Share) -> None:
        """Have it get its part from now on."""
        self._shares.add(share)

    def leave(self, share: _Share) -> None:
        """Have it get nothing more."""
        self._shares.discard(share)

    def flow(self, now: float) -> None:
        """Give out what has come since the last call."""
        come = self.rate * (now - self._time)
        self._time = now
        # What the fullest cannot take is for the others.
        for place, share in enumerate(sorted(self._shares, key=lambda share: -share.left)):
            part = min(come / (len(self._shares) - place), self._most - share.left)
            share.left += part
            come -= part

    def time_for(self, size: float, now: float) -> float:
        """Return when so many bytes more will have come to each who is not full."""
        return now + size * sum(share.left < self._most for share in self._shares) / self.rate


class Allowance:
    """What may leave for one receiver, by all limits that it is held to.

    Attributes:
        next_time: when to ask again, after take() has said no.
    """

    def __init__(self, *limits: RateLimit) -> None:
        self._shares = [_Share(limit) for limit in limits]
        self.next_time: float | None = None

    def add(self, limit: RateLimit) -> None:
        """Hold it to this limit as well, and to this one first: who has to wait for its own takes nothing of
        what is shared."""
        self._shares.insert(0, _Share(limit))

    def take(self, size: int, now: float) -> bool:
        """Return whether a message of so many bytes may leave now. If so, it counts as sent.

        Raises:
            LocalProtocolError: it is longer than a portion of a limit, and might never leave.
        """
        for share in self._shares:
            self.next_time = share.wait(size, now)
            if self.next_time is not None:
                return False
        for share in self._shares:
            share.left -= size
        return True

    def close(self) -> None:
        """Nothing more will leave."""
        for share in self._shares:
            share.limit.leave(share)


class _Share:
    """What one receiver has got of one limit."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        # Bytes that it has got and not used.
        self.left = 0.0

    def wait(self, size: int, now: float) -> float | None:
        """Return when to look again for so much; None if it is there."""
        limit = self.limit
        if size > limit.portion:
            raise LocalProtocolError(reason=f"a message of {size} bytes at {limit.rate} bytes a second")
        limit.flow(now)
        # From the first time on that it has something to send.
        limit.join(self)
        return limit.time_for(limit.portion - self.left, now) if self.left < size else None
