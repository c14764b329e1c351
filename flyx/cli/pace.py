"""How fast a transfer goes: speed over a window, time left, and how long it has stood still. Pure.

`now` is monotonic seconds. Bytes that were there before are no speed, and while this program is stopped
(Ctrl-Z) the transfer does not count as stalled.
"""

from __future__ import annotations

from collections import deque

WINDOW = 10.0
"""Seconds over which a speed is measured, at most: since the last growth before them."""

SHORTEST = 0.5
"""Seconds before there is a speed at all."""

STALL = 3.0
"""Seconds without any bytes after which a stall is shown."""


class Pace:
    """Follows the bytes of one transfer."""

    def __init__(self, done: int, total: int | None, now: float) -> None:
        """Args:
        done: bytes that are there already: they are no speed.
        total: bytes in all; None if nobody knows: of a stream.
        """
        self.done = done
        self.total = total
        # Up to here is what was there before.
        self._base = done
        # Times and the bytes that were there then, the oldest first, for one window.
        self._samples = deque([(now, done)])
        # When something moved last.
        self._moved = now

    def there_before(self, done: int) -> None:
        """So many bytes are from earlier: until they are counted in, nothing is speed."""
        self._base = max(self._base, done)

    def advance(self, done: int, total: int | None, now: float) -> None:
        """So many bytes are there now."""
        self.total = total
        if done < self.done or self.done < self._base:
            # The count began again, or has just been given what was there before.
            self._samples.clear()
            self._samples.append((now, min(done, max(self.done, self._base))))
        if done != self.done:
            self._samples.append((now, done))
            self._moved = now
        self.done = done
        self._forget(now)

    def moving(self, now: float) -> None:
        """Bytes are on their way, though none are there yet."""
        self._moved = now

    def skip(self, seconds: float) -> None:
        """This program stood still for so long."""
        self._samples = deque((time + seconds, done) for time, done in self._samples)
        self._moved += seconds

    def speed(self, now: float) -> float | None:
        """Return bytes a second; None while there is none, or too little to say."""
        self._forget(now)
        began, done = self._samples[0]
        if self.done <= done or now - began < SHORTEST:
            return None
        return (self.done - done) / (now - began)

    def stalled(self, now: float) -> float | None:
        """Return for how many seconds nothing has moved, if that is long.

        A stream does not stall: it may come as slowly as it likes.
        """
        still = now - self._moved
        return still if still >= STALL and self.total is not None and self.done < self.total else None

    def remaining(self, now: float) -> float | None:
        """Return the seconds that are left at this speed, if there is one."""
        speed = self.speed(now)
        return None if speed is None or self.total is None else (self.total - self.done) / speed

    def _forget(self, now: float) -> None:
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
