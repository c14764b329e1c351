"""Whether to compress what is sent: block by block, only where it pays. Pure.

Time is what counts. A thread of the sender compresses a block in some time, the receiver needs less to undo
it, and the path has fewer bytes to carry. Each block has to pass two questions:

- Does the path leave time for it? If the bytes that wait to leave last as long as compression does, the path
  is not kept waiting. If they do not, the block goes as it is, so that thread and path both work; unless the
  block saves CLEARLY more time than it takes, as each packet costs both processors, too.
- Did it pay the last time? If compression took longer than the path would have needed for the saved bytes, as
  where data is compressed already or the path as fast as a processor, it pauses for PAUSE times as long.

So it costs a hundredth of a thread's time at most where it does not pay, whatever the rate and the files are,
and goes on with the first block where it does. The first blocks are compressed, as nothing is known yet: a
slow path gains most. The rate of a path shows only while something waits to leave: where compression keeps it
idle, blocks go as they are every KNOWN_FOR seconds until it has shown.
"""

from __future__ import annotations

from enum import StrEnum


class Compression(StrEnum):
    """What a sender compresses."""

    AUTO = "auto"
    """Where it pays."""

    ON = "on"
    """Every block that it makes smaller."""

    OFF = "off"
    """Nothing."""


RATE_WINDOW = 0.05
"""Seconds over which the rate of the path is taken, at least."""

PAUSE = 100
"""How many times as long as it took nothing is compressed after it did not pay."""

CLEARLY = 3.0
"""How many times the time that it takes a block must save, for the path to be kept waiting."""

KNOWN_FOR = 10.0
"""Seconds for which a rate is believed that the path has shown while something waited all the time."""


class CompressionPolicy:
    """Decides what to compress of one transfer over one connection. Times are seconds that never go back."""

    def __init__(self, compression: Compression, now: float) -> None:
        self._compression = compression
        # Bytes a second that the path carries; None until it has carried some for a while.
        self.rate: float | None = None
        # What had left when the current window began, and whether there was nothing to send in it.
        self._left, self._since = 0, now
        self._was_idle = False
        # When a window has ended last in which there was something all the time.
        self._shown = now - KNOWN_FOR
        # Of the last blocks: seconds for a byte, and the part of them that was saved; and when to try again.
        self._cost = self._saving = 0.0
        self._next_try = now

    def wants(self, length: int, *, left: int, waiting: int, now: float) -> bool:
        """Return whether to compress the next so many bytes.

        Args:
            length: of the blocks that have been read.
            left: bytes that have left for the path in all.
            waiting: bytes that are ready to leave.
            now: the time.
        """
        if self._compression is not Compression.AUTO:
            return self._compression is Compression.ON
        self._measure(left, waiting, now)
        if now < self._next_try:
            return False
        if self.rate is None:
            return True
        if now >= self._shown + KNOWN_FOR:
            return False
        in_time = waiting >= self._cost * length * self.rate
        return in_time or self._saving >= CLEARLY * self._cost * self.rate

    def tried(self, before: int, after: int, seconds: float, *, waiting: int, now: float) -> None:
        """Learn what came of it.

        Args:
            before: bytes of the blocks; not 0.
            after: bytes that are sent of them.
            seconds: that compressing has taken, of a processor.
            waiting: bytes that are ready to leave, without these.
            now: the time.
        """
        self._was_idle |= waiting == 0
        self._cost, self._saving = seconds / before, 1 - after / before
        pays = self._saving > 0 and self._saving >= self._cost * (self.rate or 0.0)
        self._next_try = now if pays else now + seconds * PAUSE

    def _measure(self, left: int, waiting: int, now: float) -> None:
        """Take the rate of the path, a window after the other."""
        if not left:
            # The first bytes are not there yet, or the receiver does not take them yet.
            self._was_idle = False
            if not waiting:
                self._since = now
            return
        self._was_idle |= waiting == 0
        if now - self._since < RATE_WINDOW or left == self._left:
            return
        rate = (left - self._left) / (now - self._since)
        if self._was_idle:
            # It has shown less than it can.
            rate = max(rate, self.rate or 0.0)
        else:
            self._shown = now
        self.rate = rate
        self._left, self._since, self._was_idle = left, now, False
