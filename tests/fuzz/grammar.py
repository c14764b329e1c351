"""Messages made of a fuzzer's bytes: near enough to the grammar to be understood, far enough to be wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Example = dict[str, Any]


def make_message(source: Any, examples: Sequence[Example]) -> str:
    """Return an example with some of its fields replaced, or any text.

    Args:
        source: an atheris.FuzzedDataProvider.
        examples: good messages.
    """
    choice = source.ConsumeIntInRange(0, len(examples))
    if choice == len(examples):
        return str(source.ConsumeUnicodeNoSurrogates(40))
    message = dict(examples[choice])
    for name in message:
        if name != "type" and source.ConsumeIntInRange(0, 3) == 0:
            message[name] = _value(source, message[name])
    return json.dumps(message)


def _value(source: Any, example: object) -> object:
    match example:
        case bool() | None:
            return source.PickValueInList([True, False, None, 0])
        case int():
            return source.PickValueInList(
                [source.ConsumeIntInRange(-1, 12), source.ConsumeInt(8), 1 << 62, 1 << 64, 1.5, "1"]
            )
        case str():
            return source.PickValueInList(
                [source.ConsumeString(12), "0" * len(example), "f" * len(example), "", 7]
            )
        case list() if example and source.ConsumeBool():
            return [_value(source, example[0])] * source.ConsumeIntInRange(0, 3)
        case list():
            items = list(example)
            if items:
                at = source.ConsumeIntInRange(0, len(items) - 1)
                items[at] = _value(source, items[at])
            return items
        case _:
            return None
