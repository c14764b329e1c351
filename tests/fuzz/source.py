"""Makes values of a fuzzer's bytes, each a few of them: an input is a row of decisions.

In pure Python, so that what a fuzzer found is replayed without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Source:
    """The bytes of one input; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        """Bytes that are not used yet."""
        return len(self._data) - self._position

    def take(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        taken = self._data[self._position : self._position + size]
        self._position += len(taken)
        return taken

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)

    def boolean(self) -> bool:
        """Return one bit of a byte."""
        return bool(self.integer(0, 1))

    def integer(self, least: int, most: int) -> int:
        """Return an integer between two, both included."""
        size = ((most - least).bit_length() + 7) // 8
        return least + int.from_bytes(self.take(size), "big") % (most - least + 1)

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of these."""
        return items[self.integer(0, len(items) - 1)]

    def text(self, most: int) -> str:
        """Return at most so many characters, with a few that are none of ASCII and no surrogates."""
        return self.take(self.integer(0, most)).decode("utf-8", errors="replace")
