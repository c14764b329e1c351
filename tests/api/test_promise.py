"""What `import flyx` promises: __all__, and flyx/docs/library.md, which say the same."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import flyx
from flyx import errors

LIBRARY = (Path(flyx.__file__).parent / "docs" / "library.md").read_text()

EVENTS = [kind for kind in typing.get_args(flyx.Event) if isinstance(kind, type)]


def rows(heading: str) -> list[list[str]]:
    """Cells of the table of a chapter, without its head."""
    section = re.split(r"^#+ ", LIBRARY.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [re.split(r"\s*\|\s*", line.strip("| ")) for line in table[1:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_document_promises_what_all_names() -> None:
    named = [name for cells in rows("What is promised") for name in names_in(cells[0])]
    assert sorted(named) == sorted(flyx.__all__)


@pytest.mark.parametrize("name", flyx.__all__)
def test_what_is_promised_is_there(name: str) -> None:
    assert getattr(flyx, name) is getattr(flyx, name)
    assert name in dir(flyx)


def test_what_is_not_promised_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'flyx' has no attribute 'sned'"):
        flyx.sned  # type: ignore[attr-defined]  # noqa: B018 - to see it fail


@pytest.mark.parametrize(
    ("heading", "callable_"),
    [("Sending", flyx.send), ("Receiving", flyx.receive), ("A server inside a program", flyx.Server)],
)
def test_parameters_and_defaults_are_those_of_the_document(heading: str, callable_: typing.Any) -> None:
    parameters = inspect.signature(callable_).parameters
    promised = {}
    for name, default, *_ in rows(heading):
        (promised[name.strip("`")],) = re.findall(r"`(.*)`", default) or [""]
    actual = {
        name: "" if each.default is each.empty else str(each.default).join(quotes(each.default))
        for name, each in parameters.items()
    }
    assert promised == actual


def quotes(value: object) -> list[str]:
    return ['"', '"'] if isinstance(value, str) else ["", ""]


def test_every_kind_of_event_is_promised_with_all_fields_that_may_be_read() -> None:
    promised = {cells[0].strip("`"): names_in(cells[1]) for cells in rows("Events")}
    assert {kind.__name__ for kind in EVENTS} == set(promised)
    for kind in EVENTS:
        fields = [field.name for field in dataclasses.fields(kind)]
        # What a connection has tried, and what a receiver holds back, is for the command line.
        kept = [name for name in fields if (kind.__name__, name) not in UNPROMISED]
        assert promised[kind.__name__] == kept


UNPROMISED = {("Connecting", "attempts"), ("Progress", "arrived")}


def test_what_is_offered_has_what_the_document_says() -> None:
    section = LIBRARY.split("### What is offered\n")[1].split("\n## ")[0]
    manifest = flyx.Manifest([flyx.Entry("a", flyx.EntryKind.FILE, 1, 0o644, 0)])
    for name in set(names_in(section)) - {"only", "accept"}:
        assert any(hasattr(each, name) for each in (manifest, manifest.entries[0], flyx.EntryKind, flyx))


def kinds_of(base: type[errors.FlyxError]) -> Iterator[type[errors.FlyxError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds_of(kind)


def test_every_code_of_an_error_is_in_the_document_with_its_exit_status() -> None:
    promised = {code: int(status) for status, _, codes in rows("Errors") for code in names_in(codes)}
    kinds = [kind for kind in kinds_of(flyx.FlyxError) if kind.__module__ == errors.__name__]
    assert promised == {kind.code: kind.exit_status for kind in kinds}


@pytest.mark.parametrize(
    "callable_", [flyx.send, flyx.receive, flyx.Server.__init__, flyx.Transfer.__anext__]
)
def test_annotations_can_be_read_at_run_time(callable_: typing.Any) -> None:
    assert "return" in typing.get_type_hints(callable_)


def test_to_import_flyx_loads_nothing_else_of_it() -> None:
    code = "import flyx, sys; print([name for name in sys.modules if name.startswith('flyx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['flyx']\n"
