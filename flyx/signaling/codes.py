"""Room ids: six characters of Crockford's base32, drawn at random, forgiving to type.

A room id is an address, not a secret: 32^6 is about 10^9, so it can be guessed in time. What proves that two
people mean each other is the rest of the code that they pass on (`ROOM-word-word`), which never reaches the
server and is no business of this module.

Crockford's base32: https://www.crockford.com/base32.html
"""

from __future__ import annotations

from collections.abc import Callable

from flyx.errors import InputError

ROOM_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""No I, L or O, which look like 1 and 0, and no U, so that fewer codes read as words."""

ROOM_ID_LENGTH = 6

_LOOKALIKES = str.maketrans("ILO", "110")
_SEPARATORS = str.maketrans("", "", " \t\r\n-")
_HINT = f"a room code has {ROOM_ID_LENGTH} letters and digits, for example K7M2QX"


def draw_room_id(choose: Callable[[int], int]) -> str:
    """Return a new room id.

    Args:
        choose: returns a uniformly random integer from 0 to its argument, exclusive, such as
            `secrets.randbelow`. An id that can be foreseen can be squatted.
    """
    return "".join(ROOM_ID_ALPHABET[choose(len(ROOM_ID_ALPHABET))] for _ in range(ROOM_ID_LENGTH))


def is_room_id(text: str) -> bool:
    """Whether text is a room id as the server writes it: nothing in it has to be forgiven."""
    return len(text) == ROOM_ID_LENGTH and set(text) <= set(ROOM_ID_ALPHABET)


def normalise_room_id(text: str) -> str:
    """Return the room id that a person meant.

    Lower case, I and L for 1, O for 0, and spaces and hyphens anywhere ("k7m-2qx") are forgiven.

    Raises:
        InputError: text cannot be a room id. Its message never repeats text: what was pasted by mistake may
            be secret.
    """
    compact = text.translate(_SEPARATORS)
    if not compact:
        raise InputError(reason="the room code is empty", hint=_HINT)
    # Before upper(), which turns some letters outside ASCII into letters of the alphabet.
    if not compact.isascii():
        raise InputError(reason="the room code has a letter outside A-Z", hint=_HINT)
    room_id = compact.upper().translate(_LOOKALIKES)
    if len(room_id) != ROOM_ID_LENGTH:
        count = "1 character" if len(room_id) == 1 else f"{len(room_id)} characters"
        raise InputError(reason=f"the room code has {count} instead of {ROOM_ID_LENGTH}", hint=_HINT)
    if not is_room_id(room_id):
        raise InputError(reason="the room code has a character that no room code has", hint=_HINT)
    return room_id
