"""What the receivers of one room may cost its sender until it closes the room."""

from __future__ import annotations

from flyx.errors import PairingFailed, TooManyTries, WrongWords

MAX_TRIES = 3
"""Wrong words in one room, from all receivers together, until it is closed."""


class Tries:
    """The count of one room, shared by its exchanges."""

    def __init__(self, limit: int = MAX_TRIES) -> None:
        self.limit = limit
        # Wrong words so far.
        self.failed = 0

    def refusal(self) -> PairingFailed | None:
        """Return why the room is closed; None: it is open. What has closed stays closed."""
        if self.failed >= self.limit:
            return TooManyTries(tries=self.failed)
        return None

    def count_wrong_words(self) -> PairingFailed:
        """Count one wrong proof, and return what it is for both sides."""
        if self.refusal() is None:
            self.failed += 1
        return self.refusal() or WrongWords()
