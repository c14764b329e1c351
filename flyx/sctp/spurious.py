"""Losses that were none: what was declared lost and had arrived, as DSACK tells for TCP (RFC 3708, RFC 8985).

A congestion event is about the TSNs that it declares lost. Each of them is cleared when it is acknowledged
before it has been sent again, or when the receiver reports it as a duplicate afterwards (RFC 9260 §3.3.4).
When all are, the event was an error: the path only reordered, or was late.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf


class SuspectLosses:
    """The TSNs of the last congestion event that have not been cleared."""

    def __init__(self) -> None:
        self._tsns: set[int] = set()
        # When the event began: what left no later is a part of it, as for the congestion controllers.
        self._begun_at = -inf
        # The last suspect is cleared, and were_none() has not been called since.
        self._all_cleared = False

    def lost(self, first: int, count: int, sent_at: float, now: float) -> None:
        """These TSNs, which left then, are declared lost."""
        if sent_at > self._begun_at:
            self._begun_at = now
            self._tsns.clear()
            self._all_cleared = False
        self._tsns.update(range(first, first + count))

    def arrived(self, first: int, count: int) -> None:
        """These TSNs were acknowledged before they were sent again."""
        self._clear(range(first, first + count))

    def duplicated(self, tsns: Iterable[int]) -> bool:
        """The receiver got these twice; return whether that tells of needless retransmissions."""
        return self._clear(tsns)

    def were_none(self) -> bool:
        """Return, once, whether everything the last congestion event was about had arrived."""
        cleared, self._all_cleared = self._all_cleared, False
        return cleared

    def _clear(self, tsns: Iterable[int]) -> bool:
        before = len(self._tsns)
        self._tsns.difference_update(tsns)
        changed = len(self._tsns) < before
        if changed and not self._tsns:
            self._all_cleared = True
        return changed
