"""Messages made of a fuzzer's bytes: near enough to the grammar to be understood, far enough to be wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.fuzz.source import Source

Example = dict[str, Any]


def make_message(source: Source, examples: Sequence[Example]) -> str:
    """Return an example with some of its fields replaced, or any text.

    Args:
        source: of the decisions.
        examples: good messages.
    """
    choice = source.integer(0, len(examples))
    if choice == len(examples):
        return source.text(40)
    return json.dumps(_changed(source, examples[choice]))


def make_parts(source: Source, examples: Sequence[Example]) -> str:
    """The same for messages whose fields are in `data`."""
    choice = source.integer(0, len(examples))
    if choice == len(examples):
        return source.text(40)
    example = examples[choice]
    return json.dumps({"type": example["type"], "data": _changed(source, example["data"])})


def _changed(source: Source, example: Example) -> Example:
    message = dict(example)
    for name in message:
        if name != "type" and source.integer(0, 3) == 0:
            message[name] = _value(source, message[name])
    return message


def _value(source: Source, example: object) -> object:
    match example:
        case bool() | None:
            return source.pick([True, False, None, 0])
        case int():
            small, large = source.integer(-1, 12), int.from_bytes(source.take(8), "big", signed=True)
            return source.pick([small, large, 1 << 62, 1 << 64, 1.5, "1"])
        case str():
            return source.pick([source.text(12), "0" * len(example), "f" * len(example), "", 7])
        case dict():
            return _changed(source, example)
        case list() if example and source.boolean():
            return [_value(source, example[0])] * source.integer(0, 3)
        case list():
            items = list(example)
            if items:
                at = source.integer(0, len(items) - 1)
                items[at] = _value(source, items[at])
            return items
        case _:
            return None
