"""Which TSNs have arrived, and when to say so: SACKs (RFC 9260 §6.2, §6.7). TSNs here never wrap."""

from __future__ import annotations

from bisect import bisect_right

from flyx.sctp.chunks import MAX_DUPLICATE_TSNS, MAX_GAP_ACK_BLOCKS, Sack
from flyx.sctp.serial import TSN_MODULUS

MAX_RANGES = 4096
"""Ranges of TSNs remembered beyond the cumulative one; past that, what would begin another is not taken."""

_MAX_GAP_OFFSET = 0xFFFF


class ReceiveTracker:
    """The TSNs received so far."""

    def __init__(self, initial_tsn: int) -> None:
        # Everything up to here has arrived, or was skipped by FORWARD TSN.
        self.cumulative = initial_tsn - 1
        # First and last TSN of each range received beyond it: apart, in order.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._duplicates: list[int] = []

    @property
    def has_gaps(self) -> bool:
        """Whether something is missing below what has arrived."""
        return bool(self._starts)

    def add(self, tsn: int) -> bool:
        """Record a TSN; return False if it is a duplicate, or too far ahead to be remembered."""
        if tsn <= self.cumulative:
            self._duplicate(tsn)
            return False
        if tsn == self.cumulative + 1:
            self.cumulative = tsn
            self._absorb()
            return True
        if tsn - self.cumulative > _MAX_GAP_OFFSET:
            # No gap ack block could report it.
            return False
        return self._add_beyond(tsn)

    def advance(self, tsn: int) -> None:
        """Everything up to a TSN counts as arrived."""
        if tsn > self.cumulative:
            self.cumulative = tsn
            self._absorb()

    def sack(self, a_rwnd: int) -> Sack:
        """Return the SACK for the sender; each duplicate is reported once."""
        base = self.cumulative
        gaps = [
            (start - base, end - base)
            for start, end in zip(
                self._starts[:MAX_GAP_ACK_BLOCKS], self._ends[:MAX_GAP_ACK_BLOCKS], strict=True
            )
        ]
        duplicates, self._duplicates = self._duplicates, []
        return Sack(base % TSN_MODULUS, a_rwnd, gaps, duplicates)

    def _add_beyond(self, tsn: int) -> bool:
        starts, ends = self._starts, self._ends
        after = bisect_right(starts, tsn)
        if after and tsn <= ends[after - 1]:
            self._duplicate(tsn)
            return False
        joins_left = after > 0 and ends[after - 1] == tsn - 1
        joins_right = after < len(starts) and starts[after] == tsn + 1
        if joins_left and joins_right:
            ends[after - 1] = ends[after]
            del starts[after], ends[after]
        elif joins_left:
            ends[after - 1] = tsn
        elif joins_right:
            starts[after] = tsn
        elif len(starts) >= MAX_RANGES:
            return False
        else:
            starts.insert(after, tsn)
            ends.insert(after, tsn)
        return True

    def _absorb(self) -> None:
        """Take into the cumulative TSN what has become adjacent to it."""
        starts, ends = self._starts, self._ends
        count = 0
        while count < len(starts) and starts[count] <= self.cumulative + 1:
            self.cumulative = max(self.cumulative, ends[count])
            count += 1
        if count:
            del starts[:count], ends[:count]

    def _duplicate(self, tsn: int) -> None:
        if len(self._duplicates) < MAX_DUPLICATE_TSNS:
            self._duplicates.append(tsn % TSN_MODULUS)
