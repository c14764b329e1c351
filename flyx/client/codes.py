"""Codes as people pass them on: `ROOM-word-word`, or `ROOM` alone."""

from __future__ import annotations

import re

from flyx.errors import InputError
from flyx.pairing.words import separate, split_words
from flyx.signaling.codes import ROOM_ID_LENGTH, normalise_room_id

_PART = re.compile(r"\S+")
_COMMAND = re.compile(r"\W*flyx\s+(receive|recv|rx)\s", re.IGNORECASE)


def parse_code(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the room and the words that a person meant; no words if the code has none.

    The room is the first six characters, which may be in groups ("k7m-2qx"); the words are what follows. The
    command that the sender shows may stand before it, and marks of any kind between and around its parts.

    Raises:
        InputError: it cannot be a code. Its message does not repeat it: what was pasted by mistake may be
            secret.
    """
    text = separate(text)
    if command := _COMMAND.match(text):
        text = text[command.end() :]
    length = end = 0
    for part in _PART.finditer(text):
        length += len(part[0])
        end = part.end()
        if length >= ROOM_ID_LENGTH:
            break
    try:
        room_id = normalise_room_id(text[:end])
    except InputError as error:
        hint = "a code looks like K7M2QX-lemon-otter: six letters and digits, then words"
        raise InputError(reason=str(error), hint=hint) from None
    return room_id, split_words(text[end:])


def format_code(room_id: str, password: str) -> str:
    """Return the code to pass on; the password is empty when it has no words."""
    return f"{room_id}-{password}" if password else room_id
