"""Options that set fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
import typer.main

from flyx.cli.option_table import Chosen, OptionTable, setting, with_tables
from flyx.cli.options import token_of
from flyx.errors import InputError


@dataclass(frozen=True)
class Oven:
    heat: int = 180
    racks: tuple[str, ...] = ()
    key: str | None = None


def racks_of(option: str, texts: list[str] | None) -> tuple[str, ...]:
    for text in texts or ():
        if not text:
            raise InputError(reason=f"{option} is empty")
    return tuple(texts or ())


OVEN = OptionTable(
    Oven,
    {
        "heat": setting(int, "--oven-heat", "DEGREES", "How hot", min=0),
        "racks": setting(list[str] | None, "--rack", "NAME", "A rack, repeatable", convert=racks_of),
        "key": setting(str | None, "--key", "TOKEN", "What opens it", convert=token_of),
    },
)


def bake(*arguments: str) -> tuple[str, Chosen, bool]:
    """What a command with the options of an oven is given, between two of its own."""
    given: list[Any] = []

    @with_tables
    def command(
        *,
        cake: Annotated[str, typer.Option("--cake")] = "apple",
        oven: Annotated[Chosen, OVEN],
        quiet: Annotated[bool, typer.Option("--quiet")] = False,
    ) -> None:
        """Bake"""
        given.extend((cake, oven, quiet))

    program = typer.Typer(add_completion=False)
    program.command()(command)
    typer.main.get_command(program)(list(arguments), standalone_mode=False)
    cake, oven, quiet = given
    return cake, oven, quiet


def test_an_option_that_is_not_given_is_the_default_of_its_field() -> None:
    cake, oven, quiet = bake()
    assert (cake, Oven(**oven.fields()), quiet) == ("apple", Oven(), False)


def test_options_of_a_table_stand_beside_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYX_OVEN_HEAT", "220")
    cake, oven, quiet = bake("--cake", "plum", "--rack", "upper", "--rack", "lower", "--quiet")
    assert (cake, Oven(**oven.fields()), quiet) == ("plum", Oven(220, ("upper", "lower")), True)
    assert oven["racks"] == ["upper", "lower"]


def test_an_option_is_converted_when_the_fields_are_asked_for_and_not_before() -> None:
    _, oven, _ = bake("--rack", "", "--key", "-")
    assert oven.secrets() == {"--key": "-"}
    with pytest.raises(InputError, match="--rack is empty"):
        oven.fields()
