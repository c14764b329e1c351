"""The words of a code: drawing them, and understanding what a person typed.

A code is `ROOM-word-word`. The words are the password of a CPace exchange (exchange.py); they never reach
the server. People may end each word early, as soon as it can be no other, and mistype one letter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from flyx.errors import InputError
from flyx.pairing.wordlist import WORDS

DEFAULT_WORDS = 2
"""Of 10 bits each: three tries then find a code once in 350,000 rooms."""

MIN_WORDS = 2
"""One alone is found by three tries once in 340 rooms."""

MAX_WORDS = 8

SHORTEST_START = 3
"""Letters of a word from which on it is completed."""

MIN_OWN_CHARACTERS = 8
MIN_OWN_DISTINCT = 5
"""What words of one's own must have at least: 8 letters or digits, 5 of them different."""

MAX_OWN_CHARACTERS = 100

_KNOWN = frozenset(WORDS)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def draw_words(count: int, choose: Callable[[int], int]) -> tuple[str, ...]:
    """Return so many random words.

    Args:
        choose: returns a uniformly random integer from 0 to its argument, exclusive, such as
            `secrets.randbelow`.
    """
    return tuple(WORDS[choose(len(WORDS))] for _ in range(count))


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a text in their common form, however they are written and separated."""
    # Case folding can undo the normal form.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return tuple(separate(folded).split())


def separate(text: str) -> str:
    """Return text with a space for each mark between or around words, and without invisible ones.

    That is what programs make of a hyphen, quotation marks, a full stop, a soft hyphen or a zero-width space
    that was copied along: of Unicode's categories, Cf is left out, and P, Z, Cc and the characters of _MARKS
    become spaces.
    """
    return "".join(_separated(character) for character in text)


def without_invisible(text: str) -> str:
    """Return text without invisible characters (Unicode's category Cf)."""
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


_MARKS = "\N{MINUS SIGN}`<>|~"
"""Not of category P, though people take them for it."""


def _separated(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category[0] in "PZ" or category == "Cc" or character in _MARKS else character


def password_of(words: Sequence[str]) -> str:
    """Return the password that these words are."""
    return "-".join(words)


def check_own_words(text: str) -> tuple[str, ...]:
    """Return the words that a person chose for a code, in their common form.

    Raises:
        InputError: they would be easy to guess, or hard to pass on.
    """
    words = split_words(text)
    characters = "".join(words)
    if not characters.isalnum():
        raise InputError(reason="a code is made of words of letters and digits", hint=_OWN_HINT)
    if len(characters) < MIN_OWN_CHARACTERS or len(set(characters)) < MIN_OWN_DISTINCT:
        raise InputError(reason="this code would be easy to guess", hint=_OWN_HINT)
    if len(characters) > MAX_OWN_CHARACTERS:
        raise InputError(reason=f"a code has at most {MAX_OWN_CHARACTERS} letters and digits")
    return words


_OWN_HINT = (
    f"take at least {MIN_OWN_CHARACTERS} letters or digits, {MIN_OWN_DISTINCT} of them different, "
    "such as three words that nobody connects with you"
)


def resolve_words(typed: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the words of the list that a person meant.

    Args:
        typed: in their common form.
        count: how many the code has.

    Raises:
        InputError: there are more or fewer, or one of them is none of the list. Its message does not repeat
            what was typed, which may be a secret for something else.
    """
    if len(typed) != count:
        have = "none was given" if not typed else f"{len(typed)} {'was' if len(typed) == 1 else 'were'} given"
        raise InputError(reason=f"the code has {_words_text(count)} after the room's six characters; {have}")
    return tuple(_resolve(word, position) for position, word in enumerate(typed))


def password_for(typed: Sequence[str], count: int) -> str:
    """Return the password that the words of a code are to a sender whose code has `count` words of the list.

    Args:
        typed: in their common form.
        count: 0: they are the sender's own.

    Raises:
        InputError: as resolve_words().
    """
    return password_of(resolve_words(typed, count) if count else typed)


def _words_text(count: int) -> str:
    return "1 word" if count == 1 else f"{count} words"


def _resolve(typed: str, position: int) -> str:
    if typed in _KNOWN:
        return typed
    candidates = completions(typed) or corrections(typed)
    if len(candidates) == 1:
        return candidates[0]
    ordinal = _ORDINALS[position] if position < len(_ORDINALS) else "last"
    hint = f"did you mean {' or '.join(candidates)}?" if 0 < len(candidates) <= 4 else _UNKNOWN_HINT
    raise InputError(reason=f"the {ordinal} word is none that codes are made of", hint=hint)


_UNKNOWN_HINT = "check its spelling; four letters are enough for any word"


def is_a_word(typed: str) -> bool:
    """Return whether this is a word of the list, or the beginning of one that can be no other."""
    return typed in _KNOWN or len(completions(typed)) == 1


def completions(start: str) -> list[str]:
    """Return the words that begin so; none for a start of fewer than SHORTEST_START letters."""
    return [word for word in WORDS if word.startswith(start)] if len(start) >= SHORTEST_START else []


def corrections(typed: str) -> list[str]:
    """Return the words that are one typo away: a letter too many, missing, wrong, or two exchanged."""
    return [word for word in WORDS if is_one_typo(typed, word)]


def is_one_typo(one: str, other: str) -> bool:
    """Whether one letter inserted, left out, replaced or exchanged with its neighbour makes one the other."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    # What is left when the common beginning and the common end are taken off.
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    rest, other_rest = one[start : len(one) - end], other[start : len(other) - end]
    exchanged = len(rest) == 2 and rest == other_rest[::-1]
    return max(len(rest), len(other_rest)) == 1 or exchanged
