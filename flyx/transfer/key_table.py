"""A dictionary from keys of 64 bits to numbers of 32, for a million of them.

Open addressing with linear probing, at most two thirds full: 18 to 36 bytes an item, where a dict of integers
takes 140. The keys must be spread evenly, as hashes are.
"""

from __future__ import annotations

from array import array

_FIRST_SIZE = 1 << 12


class KeyTable:
    """Keys, none of which is 0, and a number for each; none is removed."""

    def __init__(self) -> None:
        self._count = 0
        self._keys = array("Q", bytes(8 * _FIRST_SIZE))
        self._numbers = array("I", bytes(4 * _FIRST_SIZE))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        return self._keys[self._place(key)] != 0

    def get(self, key: int) -> int | None:
        """Return the number of a key, None if it is not there."""
        place = self._place(key)
        return self._numbers[place] if self._keys[place] else None

    def __setitem__(self, key: int, number: int) -> None:
        place = self._place(key)
        if not self._keys[place]:
            if self._count * 3 >= len(self._keys) * 2:
                self._grow()
                place = self._place(key)
            self._keys[place] = key
            self._count += 1
        self._numbers[place] = number

    def _place(self, key: int) -> int:
        """Where a key is, or would be."""
        keys, last = self._keys, len(self._keys) - 1
        place = key & last
        while (there := keys[place]) and there != key:
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        keys, numbers = self._keys, self._numbers
        self._keys = array("Q", bytes(16 * len(keys)))
        self._numbers = array("I", bytes(8 * len(keys)))
        for key, number in zip(keys, numbers, strict=True):
            if key:
                place = self._place(key)
                self._keys[place] = key
                self._numbers[place] = number
