"""Data that comes ahead of what accepts it, as messages.EAGER lets it."""

from __future__ import annotations

from collections.abc import Sequence

from flyx.errors import RemoteProtocolError
from flyx.transfer.frames import Frame, FrameKind
from flyx.transfer.messages import EAGER_CREDIT


class DataAhead:
    """Keeps what comes before a receiver has accepted anything; then all of it counts, or nothing."""

    def __init__(self, *, eager: bool) -> None:
        """Args:
        eager: the sender has been told that some may come.
        """
        self._eager = eager
        # How many data bytes may.
        self.credit = EAGER_CREDIT if eager else 0
        self._held: list[Frame] = []
        self._is_void = False
        self._is_settled = False
        # What comes is dropped, until the sender begins anew.
        self._drops = False

    def pass_on(self, frames: Sequence[Frame], received: int) -> Sequence[Frame]:
        """Return those frames of a message that count now. So many data bytes have come in all."""
        if not self._is_settled:
            self._held += frames
            return ()
        if not self._drops:
            return frames
        for at, frame in enumerate(frames):
            if frame.kind is FrameKind.ANEW:
                self._drops = False
                return frames[at + 1 :]
        if received > self.credit:
            raise RemoteProtocolError(reason="data that does not begin anew")
        return ()

    def make_void(self) -> None:
        """The sender is told what such data does not go by."""
        self._is_void = True

    def settle(self, *, is_as_offered: bool) -> bool:
        """Something is accepted now, all that is offered if so: return whether the sender begins anew."""
        self._is_settled = True
        self._drops = self._eager and (self._is_void or not is_as_offered)
        if self._drops:
            self._held = []
        return self._drops

    def take(self) -> Sequence[Frame]:
        """Return what has come and counts, once."""
        held, self._held = self._held, []
        return held
