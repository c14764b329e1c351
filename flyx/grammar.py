"""What the messages of all protocols of flyx have in common: they are JSON objects, read strictly.

Each is a class of msgspec. What comes from the other side is decoded as the class says, with nothing
converted: a peer that sends "5" for 5 or 1 for true is not speaking this protocol. Fields that are unknown
are ignored. What our own code makes is not checked against the bounds of its fields; mypy sees their types.

Patterns end in `\\Z` and not in `$`, which in Python matches before the end of a line as well. No I/O.
"""

from __future__ import annotations

import re
from typing import TypeVar, dataclass_transform

from msgspec import DecodeError, Struct, ValidationError, field
from msgspec.json import Decoder

Value = TypeVar("Value")

MALFORMED = DecodeError, RecursionError, UnicodeEncodeError
"""What a decoder raises; the last for a text that has half of a surrogate pair in it."""

HEX_128 = r"^[0-9a-f]{32}\Z"
HEX_256 = r"^[0-9a-f]{64}\Z"
"""So many bits, in hexadecimal digits."""

NAME = r"^[a-z_]+\Z"
"""A code of errors.py, or one of a later release."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class JsonObject(Struct, frozen=True, omit_defaults=True):
    """Base of all that is on the wire; what has its default is not written, unless that is `written`."""


class JsonMessage(JsonObject):
    """Base of the messages of a protocol, which `type`, their tag, tells apart."""

    @property
    def type(self) -> str:
        """What the message is, as on the wire."""
        return str(self.__struct_config__.tag)


def written(default: Value, *, name: str | None = None) -> Value:
    """Return the default of a field that is on the wire with that value as well; name: there, if another."""
    made: Value = field(default_factory=lambda: default, name=name)
    return made


_PLACED = re.compile(r"(?P<fault>.*) - at `\$\.?(?P<place>.*)`", re.DOTALL)
# Numbers of any size are JSON.
_ANYTHING = Decoder(float_hook=str)


def is_json(text: str | bytes) -> bool:
    """Whether a text that is no message is JSON at all."""
    try:
        _ANYTHING.decode(text)
    except MALFORMED:
        return False
    return True


def fault_in(error: Exception) -> tuple[str, str]:
    """Return where a message breaks its grammar and how, in words that repeat nothing of it.

    Args:
        error: one of MALFORMED.

    Returns:
        The place, as "data.peers[...].role"; empty if it is the whole, or unknown. Then what is wrong there.
    """
    if not isinstance(error, ValidationError):
        return "", "it is not JSON"
    placed = _PLACED.fullmatch(str(error))
    place, fault = (placed["place"], placed["fault"]) if placed else ("", str(error))
    # "Invalid value 'what the other side wrote'".
    return place, "it is none of those known" if fault.startswith("Invalid") else fault


def plain_json_size(text: str) -> int:
    """Bytes that a string takes in JSON, quotes included, if it is plain: printable and ASCII; 0 if not.

    It need not be made JSON of to be measured.
    """
    if text.isascii() and text.isprintable():
        return len(text) + text.count('"') + text.count("\\") + 2
    return 0
