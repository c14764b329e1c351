"""Text as a hostile server or peer would choose it, and messages with it in every field.

The messages are made from the models of the wire grammars, so that a field that is added is tried as well.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec

from flyx.grammar import JsonMessage

HOSTILE = {
    "controls": "\x00\x07\x08\x1b\x7f\x85\x9b",
    "lines": "a\r\nerror: faked\n\x0b\x0c\x1c\u2028\u2029b",
    "CSI": "\x1b[2J\x1b[1;1H\x9b2J",
    "OSC": "\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b]8;;http://example.org\x1b\\",
    "bidi": "\u202ecod.exe\u2066\u200f",
    "zero width": "a\u200bb\ufeffc\u2060d",
    "markup": "[bold red]x[/] [link=http://example.org]y[/link] [/nothing]",
    "emoji": ":smiley: :warning:",
    "format": "{task.description} {0} %s %(x)s",
    "shell": ";touch x;#$(id)`id`|&>'\"\\ ",
    "surrogates": "\ud800\udfff\udc80",
    "quotes": '"},"event":"done"',
}
"""By kind."""

MADE_EMOJI = "😃⚠"
"""What the names of emoji in HOSTILE would become."""

# What strings with a pattern can be, tried in this order.
_SAMPLES = ("a", "0" * 64, "0" * 66, "0" * 32)

Place = tuple[str | int, ...]
"""Where in a tree of JSON a value stands."""


def assert_tame(text: str, lines: int | None = None) -> None:
    """Assert that this output steers no terminal, and has so many lines (None: any number)."""
    raw = {c for c in text if c != "\n" and (unicodedata.category(c) in _STEERING or c in MADE_EMOJI)}
    assert not raw, (raw, text)
    assert lines is None or text.count("\n") == lines, text


# Control, format, surrogate, line and paragraph separator.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def example(model: type[JsonMessage], without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return a message as JSON has it, with a value in every field but these of the innermost objects."""
    schema = msgspec.json.schema(model)
    made = _value(schema, schema["$defs"], without)
    assert isinstance(made, dict)
    return made


def _value(schema: dict[str, Any], defs: dict[str, Any], without: frozenset[str]) -> Any:
    if "$ref" in schema:
        return _value(defs[schema["$ref"].rpartition("/")[2]], defs, without)
    if "anyOf" in schema:
        return _value(next(one for one in schema["anyOf"] if one != {"type": "null"}), defs, without)
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            fields = schema.get("properties", {}).items()
            return {name: _value(field, defs, without) for name, field in fields if name not in without}
        case "array" if "prefixItems" in schema:
            return [_value(item, defs, without) for item in schema["prefixItems"]]
        case "array":
            return [_value(schema["items"], defs, without)]
        case "string":
            return next(s for s in _SAMPLES if re.search(schema.get("pattern", ""), s))
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return False
    raise AssertionError(schema)


def text_places(tree: object, place: Place = ()) -> Iterator[Place]:
    """Yield where there is text in a tree of JSON."""
    match tree:
        case str():
            yield place
        case dict():
            for key, value in tree.items():
                yield from text_places(value, (*place, key))
        case list():
            for index, value in enumerate(tree):
                yield from text_places(value, (*place, index))


def changed(tree: dict[str, Any], place: Place, value: object) -> dict[str, Any]:
    """Return the tree with another value at this place."""
    copied = copy.deepcopy(tree)
    inner: Any = copied
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copied
