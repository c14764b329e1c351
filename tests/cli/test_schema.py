"""The schema of the events: it is one, it explains itself, and its choices are those of the code."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import jsonschema_rs
import pytest

from flyx.client.doctor.finding import FindingState
from flyx.client.limits import Limit
from flyx.rtc.attempts import PairState
from flyx.transfer.digests import Algorithm
from flyx.transfer.manifest import EntryKind
from tests.schema import EVENTS, SCHEMA, check_event

NOTICE = {"event": "notice", "time": 1.5, "message": "hello"}


def properties_in(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of an object anywhere in a schema, with its place."""
    for name, value in schema.get("properties", {}).items():
        yield f"{place}/{name}", value
        yield from properties_in(value, f"{place}/{name}")
    if "items" in schema:
        yield from properties_in(schema["items"], f"{place}[]")


def choices_of(event: str, *path: str) -> set[str]:
    found = EVENTS[event]
    for part in path:
        found = found["items" if part == "[]" else "properties"]
        found = found if part == "[]" else found[part]
    return set(found["enum"]) - {None}


def test_the_schema_is_one_of_draft_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("name", EVENTS)
def test_every_field_of_an_event_is_explained(name: str) -> None:
    definition = EVENTS[name]
    assert definition["description"].endswith(".")
    assert definition["properties"]["event"]["const"] == name
    assert {"event", "time"} <= set(definition["required"]) <= set(definition["properties"])
    for place, value in properties_in(definition):
        described = SCHEMA["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
        assert described["description"].endswith("."), place


def test_what_a_program_does_not_know_passes_the_schema_and_fails_the_tests() -> None:
    assert jsonschema_rs.is_valid(SCHEMA, NOTICE)
    assert jsonschema_rs.is_valid(SCHEMA, NOTICE | {"new": 1})
    check_event(NOTICE)
    with pytest.raises(AssertionError, match="new"):
        check_event(NOTICE | {"new": 1})
    with pytest.raises(AssertionError, match="no such event"):
        check_event(NOTICE | {"event": "new"})


@pytest.mark.parametrize("missing", NOTICE)
def test_a_field_that_is_missing_fails(missing: str) -> None:
    assert not jsonschema_rs.is_valid(SCHEMA, {key: NOTICE[key] for key in NOTICE if key != missing})


@pytest.mark.parametrize(
    "event",
    [
        {"event": "peer", "peer": 1, "state": "lost"},
        {"event": "peer", "peer": 1, "state": "done", "code": "failed", "message": "why"},
        {"event": "file", "peer": 1, "path": "a", "saved_as": "a"},
        {"event": "file", "peer": 1, "path": "a", "saved_as": "a", "digest": "0" * 64},
        {"event": "file", "peer": 1, "path": "a", "saved_as": "a", "digest": "0" * 64, "error": "why"},
        {"event": "room", "room_id": "K7M2QX", "server": "ws://a", "local": False, "code": "K7M2QX"},
    ],
)
def test_fields_that_do_not_go_together_fail(event: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(SCHEMA, event | {"time": 1.5})


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        (choices_of("condition", "limit"), Limit),
        (choices_of("entries", "entries", "[]", "type"), EntryKind),
        (choices_of("file", "algorithm"), Algorithm),
        (choices_of("finding", "state"), FindingState),
    ],
)
def test_the_choices_are_those_of_the_code(choices: set[str], kind: type[Enum]) -> None:
    assert choices == {each.value for each in kind}


def test_the_states_of_pairs_are_those_of_the_code() -> None:
    assert choices_of("connecting", "pairs", "[]", "state") == {each.name.lower() for each in PairState}
