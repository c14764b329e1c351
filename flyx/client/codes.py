"""Codes as people pass them on: alone, in the URL of a server, or in the command that receives.

    ROOM-word-word, or ROOM alone
    https://HOST/ROOM#word-word, or https://HOST/#ROOM-word-word
    flyx receive --server URL ROOM-word-word

The words are behind the #, which is never sent to a server.
"""

from __future__ import annotations

import re
import secrets
import shlex
from urllib.parse import quote, unquote

from msgspec import Struct

from flyx.errors import InputError, without_controls
from flyx.pairing.exchange import Code
from flyx.pairing.words import (
    DEFAULT_WORDS,
    check_own_words,
    draw_words,
    is_a_word,
    password_of,
    separate,
    split_words,
    without_invisible,
)
from flyx.signaling.codes import ROOM_ID_LENGTH, is_room_id, normalise_room_id

_HINT = "a code looks like K7M2QX-lemon-otter: six letters and digits, then words"

_PART = re.compile(r"\S+")

# Chats make one long dash of two, and quotation marks of their own.
_DASHES = "[-\u2010-\u2015\u2212]{1,2}"
_QUOTES = "\"'`<>\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
# Lines above it, a prompt, what runs the program, and where that is may come before the command.
_COMMAND = re.compile(
    r"(?is)(?:.*\n)?[^\w\n]*(?:\S+[ \t]+){0,3}(?:\S*[/\\])?flyx(?:\.exe)?\s+(?:receive|recv|rx)(?:\s+|$)"
)
_SERVER = re.compile(rf"(?i)(?<!\S){_DASHES}server(?:\s+|=)[{_QUOTES}]*([^\s{_QUOTES}]+)[{_QUOTES}]*")
_VARIABLE = re.compile(rf"(?<!\S)FLYX_SERVER=[{_QUOTES}]*([^\s;{_QUOTES}]+)")
_OPTION = re.compile(r"(?i)(?<!\S)(?:(?:--|[\u2010-\u2015])[a-z]|-[a-z](?=\s))")
_URL = re.compile(rf"(?i)(?:https?|wss?)://[^\s{_QUOTES}]+")


class Invitation(Struct, frozen=True):
    """What a person was given to receive by.

    Attributes:
        server: URL of the server, as it was written; None if nothing was said of it.
        room_id: normalised.
        words: of the code, in their common form; empty if it has none.
    """

    server: str | None
    room_id: str
    words: tuple[str, ...]


def parse_invitation(text: str) -> Invitation:
    """Return what a person meant who typed or pasted this: a code, a URL with a code, or a whole command.

    Raises:
        InputError: it cannot be any of them. Its message does not repeat it: what was pasted by mistake may
            be secret.
    """
    text = without_invisible(text)
    server = None
    if command := _COMMAND.match(text):
        if variable := _VARIABLE.search(command[0]):
            server = variable[1]
        text = text[command.end() :]
        if option := _SERVER.search(text):
            server = option[1]
            text = f"{text[: option.start()]} {text[option.end() :]}"
        if _OPTION.search(text):
            hint = "paste the code alone, and give the options to the command that you run"
            raise InputError(reason="of the options of a pasted command only --server is heeded", hint=hint)
    if url := _URL.search(text):
        where, has_code, fragment = url[0].partition("#")
        before, _, last = where.rpartition("/")
        if is_room_id(last):
            where, fragment = f"{before}/", f"{last}-{fragment}"
        elif not has_code and server is None:
            hint = "a URL with a code looks like https://flyx.example.org/#K7M2QX-lemon-otter"
            raise InputError(reason="there is no code in this URL", hint=hint)
        server = server or where
        text = f"{unquote(fragment)} {text[url.end() :]}"
    return Invitation(server, *parse_code(text))


def parse_code(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the room and the words that a person meant; no words if the code has none.

    The room is the first six characters, which may be in groups ("k7m-2qx"); the words are what follows.
    There may be marks of any kind between and around its parts.

    Raises:
        InputError: it cannot be a code. Its message does not repeat it.
    """
    text = separate(text)
    if not text.strip():
        raise InputError(reason="there is no code", hint=_HINT)
    length, end, words_at = 0, 0, None
    for part in _PART.finditer(text):
        if words_at is None and is_a_word(part[0].casefold()):
            words_at = part.start()
        length += len(part[0])
        end = part.end()
        if length >= ROOM_ID_LENGTH:
            break
    if length > ROOM_ID_LENGTH and words_at is not None:
        # The words have begun before the room was complete.
        end = words_at
        if not text[:end].strip():
            reason = f"the {ROOM_ID_LENGTH} letters and digits before the words are missing"
            raise InputError(reason=reason, hint=_HINT)
    try:
        room_id = normalise_room_id(text[:end])
    except InputError as error:
        raise InputError(reason=str(error), hint=_HINT) from None
    return room_id, split_words(text[end:])


def make_code(own: str | None, words: int | None, *, is_open: bool) -> Code:
    """Return what receivers have to know.

    Args:
        own: words of the person's own.
        words: how many are drawn if there are none; None: DEFAULT_WORDS.
        is_open: nothing at all.

    Raises:
        InputError: own words are too easy to guess.
    """
    if is_open:
        return Code("open", 0, "")
    if own is not None:
        return Code("own", 0, password_of(check_own_words(own)))
    count = DEFAULT_WORDS if words is None else words
    return Code("words", count, password_of(draw_words(count, secrets.randbelow)))


def format_code(room_id: str, password: str) -> str:
    """Return the code to pass on; the password is empty when it has no words."""
    return f"{room_id}-{password}" if password else room_id


def browser_link(room_id: str, password: str, server: str) -> str | None:
    """Return what opens the page of a server in a browser for this room, with the words behind the #.

    Args:
        room_id: of the room.
        password: of its code; empty when that has no words.
        server: its URL.

    Returns:
        None if a browser could do nothing there: without TLS it has no encryption for pages.
    """
    scheme, _, rest = server.partition("://")
    if scheme.lower() not in ("wss", "https"):
        return None
    fragment = f"#{quote(password)}" if password else ""
    return without_controls(f"https://{rest.rstrip('/')}/{room_id}{fragment}")


def receive_command(code: str, server: str | None, name: str = "receive") -> str:
    """Return the command that receives under this code, ready for a shell.

    Args:
        code: as format_code() returns it.
        server: URL that the other side has to be given; None if it finds the room without.
        name: of the command of flyx.
    """
    option = f"--server {shlex.quote(server)} " if server is not None else ""
    return without_controls(f"flyx {name} {option}{code}")
