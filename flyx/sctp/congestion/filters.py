"""Windowed extremes in constant memory: the largest, or smallest, value of the recent past.

The window is cut into slots and a sample lives until its slot leaves the window, so a value is remembered
for at least the window less one slot and at most the window. "Time" is any number that never falls: seconds,
or round trips. Knows nothing of what it filters.
"""

from __future__ import annotations

from collections import deque
from math import floor

SLOTS = 8
"""Parts that a window is cut into when its time is continuous."""


class WindowedMin:
    """The smallest value given during the last `window` of time.

    Keeps one entry a slot at most, oldest and smallest first: a value that a younger one undercuts can never
    be the minimum again.
    """

    __slots__ = ("_entries", "_slot", "_slots")

    def __init__(self, window: float, slots: int = SLOTS) -> None:
        self._slot = window / slots
        self._slots = slots
        self._entries: deque[tuple[int, float]] = deque()

    @property
    def value(self) -> float | None:
        """The minimum as of the last update; None before the first."""
        return self._entries[0][1] if self._entries else None

    def update(self, value: float, time: float) -> float:
        """Take a sample, forget what left the window, and return the minimum."""
        entries = self._entries
        slot = floor(time / self._slot)
        while entries and entries[-1][1] >= value:
            entries.pop()
        if not entries or entries[-1][0] != slot:
            entries.append((slot, value))
        oldest = slot - self._slots
        while entries[0][0] <= oldest:
            entries.popleft()
        return entries[0][1]


class WindowedMax:
    """The largest value given during the last `window` of time: WindowedMin, upside down."""

    __slots__ = ("_negated",)

    def __init__(self, window: float, slots: int = SLOTS) -> None:
        self._negated = WindowedMin(window, slots)

    @property
    def value(self) -> float | None:
        """The maximum as of the last update; None before the first."""
        value = self._negated.value
        return None if value is None else -value

    def update(self, value: float, time: float) -> float:
        """Take a sample, forget what left the window, and return the maximum."""
        return -self._negated.update(-value, time)
