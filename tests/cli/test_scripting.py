"""flyx/docs/scripting.md says of events and errors what the schema and the code do."""

from __future__ import annotations

import inspect
import re

import pytest

from flyx import errors
from flyx.errors import FlyxError
from tests.papers import ROOT
from tests.schema import EVENTS, SCHEMA, fields_of

PAPER = (ROOT / "flyx" / "docs" / "scripting.md").read_text()

ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAPER, re.MULTILINE))
"""What the table of events says of each."""

CODES = {
    code: int(status)
    for status, codes in re.findall(r"^\| (\d) \| (`.*`) \|$", PAPER, re.MULTILINE)
    for code in re.findall(r"`(\w+)`", codes)
}


def words_in(schema: object) -> set[str]:
    """The names of fields, and what they may be, anywhere in a schema."""
    words: set[str] = set()
    match schema:
        case dict():
            words.update(schema.get("properties", {}), filter(None, schema.get("enum", ())))
            for value in schema.values():
                words |= words_in(value)
        case list():
            for value in schema:
                words |= words_in(value)
    return words


def test_the_table_has_the_events_of_the_schema() -> None:
    assert set(ROWS) == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_a_row_has_the_fields_of_the_schema_and_no_others(name: str) -> None:
    # What is written as code, but for commands and options.
    told = {text for text in re.findall(r"`([^`]+)`", ROWS[name]) if not text.startswith(("-", "flyx"))}
    assert fields_of(EVENTS[name]) <= told
    assert told <= words_in(EVENTS[name]) | set(EVENTS)


def test_the_fields_of_every_event_are_told_once_for_all() -> None:
    for name in ("event", "time"):
        assert all(name in definition["required"] for definition in EVENTS.values())
        assert f"`{name}`" in PAPER.split("| event | fields |")[0]
    assert "ignore" in SCHEMA["description"]


def test_the_codes_are_those_of_the_errors_each_with_its_status() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FlyxError)]
    assert CODES == {kind.code: kind.exit_status for kind in kinds}
    # Each stands for one kind of error.
    assert len(CODES) == len(kinds)
