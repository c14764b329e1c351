"""Answers to clients that are not admitted, from which they learn as little as possible."""

from __future__ import annotations

from flyx.signaling.commands import CloseRoom, Enter, Refuse, Resume
from flyx.signaling.members import NOBODY, matches
from flyx.signaling.messages import CloseCode, ErrorCode

MISSING_ROOM = Refuse(CloseCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_ROOM, "no sender is waiting under this code")
"""The answer to a client that asks for a room that is not there.

It is the same for an id without a room, an impossible id, a room that is over and, for a client that must be
a receiver, a room without a sender: a client that guesses learns as little as possible.
"""

MISSING_SESSION = Refuse(
    CloseCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_SESSION, "there is nothing here that could be resumed"
)
"""The answer to a client that cannot resume, because its room, its place or its token is missing."""


def refusal_of(command: Enter | Resume | CloseRoom) -> Refuse:
    """Return the answer to this command where there is no such room."""
    if isinstance(command, Resume):
        # As long as if there were a member: its two tokens are compared.
        NOBODY.accepts(command.shown_token, 0.0)
        return MISSING_SESSION
    if isinstance(command, CloseRoom):
        matches(command.owner_token or "", None)
    return MISSING_ROOM
