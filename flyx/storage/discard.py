"""The receiver's disk of a measurement: blocks are verified and dropped, but for what is said at the end."""

from __future__ import annotations

from flyx.storage.pipe import PipeDestination

_NOWHERE = -1


class DiscardingDestination(PipeDestination):
    """Takes a stream, and keeps the last block of it if that is short."""

    outlives_connection = False

    def __init__(self, most: int) -> None:
        """Args:
        most: bytes of a block that is kept.
        """
        super().__init__(_NOWHERE)
        self._most = most
        # The last block, if it is short.
        self.last = b""

    def _pass_on(self, block: memoryview) -> None:
        self.last = bytes(block) if len(block) <= self._most else b""
