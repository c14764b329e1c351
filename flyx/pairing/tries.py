"""What the receivers of one room may cost its sender until it closes the room.

Not only wrong words count. A receiver that has the sender answer in the exchange and then proves nothing has
learnt nothing, but it has cost a key exchange; a stranger could go on with that for ever.
"""

from __future__ import annotations

from flyx.errors import FlyxError, PairingFailed, TooManyTries, TooManyUnfinished, WrongWords

MAX_TRIES = 3
"""Wrong words in one room, from all receivers together, until it is closed."""

MAX_UNFINISHED = 64
"""Exchanges without the receiver's proof, one after another, until the room is closed.

An honest receiver proves itself one round trip after the answer, so that it is counted only if its path
breaks in just that time: 64 of those, with no success in between, are no accident. A stranger who closes a
room that way has no new power, since three wrong guesses close it sooner.
"""


class Tries:
    """The count of one room, shared by its exchanges."""

    def __init__(self, limit: int = MAX_TRIES, max_unfinished: int = MAX_UNFINISHED) -> None:
        self.limit = limit
        self.max_unfinished = max_unfinished
        # Wrong words so far.
        self.failed = 0
        # Exchanges without a proof since the last success.
        self.unfinished = 0

    def refusal(self) -> PairingFailed | None:
        """Return why the room is closed; None: it is open. What has closed stays closed."""
        if self.failed >= self.limit:
            return TooManyTries(tries=self.failed)
        if self.unfinished >= self.max_unfinished:
            return TooManyUnfinished(count=self.unfinished)
        return None

    def count_wrong_words(self) -> PairingFailed:
        """Count one wrong proof, and return what it is for both sides."""
        if self.refusal() is None:
            self.failed += 1
        return self.refusal() or WrongWords()

    def count_unfinished(self, error: FlyxError) -> FlyxError:
        """Count one exchange that ended for this reason before the proof, and return what it is for us."""
        if self.refusal() is None:
            self.unfinished += 1
        return self.refusal() or error

    def count_success(self) -> None:
        """A receiver has paired: those who did not finish were no attack, so far."""
        if self.refusal() is None:
            self.unfinished = 0
