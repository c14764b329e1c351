"""The schema of the events of --json as tests hold it against what flyx writes.

Programs must ignore what they do not know, so the schema lets everything else pass. Here nothing else passes:
a field that it does not have is a mistake of the schema, or of the code.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

from flyx.cli.documents import EVENTS_SCHEMA

SCHEMA: dict[str, Any] = json.loads(EVENTS_SCHEMA.read_text())

EVENTS: dict[str, dict[str, Any]] = {
    name: SCHEMA["$defs"][name] for name in (each["$ref"].rpartition("/")[2] for each in SCHEMA["oneOf"])
}
"""The definition of each event, by its name."""


def closed(schema: Any) -> Any:
    """The same schema, for objects that have the fields it names alone."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        inner["additionalProperties"] = False
    return inner


_VALIDATORS = {
    name: jsonschema_rs.Draft202012Validator(closed(definition | {"$defs": SCHEMA["$defs"]}))
    for name, definition in EVENTS.items()
}


def check_event(event: dict[str, Any]) -> None:
    """Make sure that an event has exactly what the schema says of it."""
    assert event["event"] in EVENTS, f"the schema has no such event: {event}"
    for error in _VALIDATORS[event["event"]].iter_errors(event):
        raise AssertionError(f"{error.message} at {list(error.instance_path)}: {event}")


def fields_of(definition: dict[str, Any]) -> set[str]:
    """The fields that an event may have besides those of every event."""
    return set(definition["properties"]) - {"event", "time"}
