"""The fast way from what was given to what a command gets, beside Typer's own, which it must equal."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from typer.core import TyperArgument, TyperOption

from flyx.cli.commands import Commands
from flyx.cli.parameters import FlyxArgument, FlyxOption
from flyx.errors import FlyxError

Ours = FlyxOption | FlyxArgument


def parameters() -> dict[str, tuple[typer.Context, Ours]]:
    """Return what the commands have, and where it is given, by name."""
    found = {}
    for name, command in Commands().items():
        context = command.context_class(command, info_name=name)
        for parameter in command.get_params(context):
            if isinstance(parameter, Ours) and parameter.callback is None:
                found[f"{name} {'/'.join(parameter.opts)}"] = (context, parameter)
    return found


PARAMETERS = parameters()
TEXTS = (
    st.text() | st.integers().map(str) | st.sampled_from(["", "007", "1_0", "+1", " 1", "٣", "65536", "fast"])
)
VALUES = st.one_of(
    st.none(),
    TEXTS,
    # As in the configuration file.
    st.integers() | st.booleans() | st.floats() | st.lists(TEXTS, max_size=3),
    st.just(()),
)


def outcome(convert: Any, *arguments: Any) -> tuple[object, ...]:
    """Return what comes out: a value and its type, or an error and its words."""
    try:
        value = convert(*arguments)
    except (typer.TyperException, FlyxError) as error:
        return type(error), str(error)
    # Of a list, also the types of what is in it; NaN is equal to itself by its name.
    return type(value), repr(value)


@pytest.mark.parametrize("name", PARAMETERS)
@given(value=VALUES)
@example(value=...)
def test_a_value_becomes_what_typer_makes_of_it(name: str, value: Any) -> None:
    context, parameter = PARAMETERS[name]
    if value is ...:
        value = parameter.get_default(context)
    theirs = TyperOption if isinstance(parameter, TyperOption) else TyperArgument
    assert outcome(parameter.process_value, context, value) == outcome(
        theirs.process_value, parameter, context, value
    )


def test_where_typer_knows_its_types_otherwise_all_goes_its_way() -> None:
    class LaterOption(TyperOption):
        def process_value(self, ctx: Any, value: Any) -> Any:
            return "as Typer has it"

    class Option(FlyxOption, LaterOption):
        pass

    context, parameter = PARAMETERS["send --room"]
    later = copy.copy(parameter)
    later.__class__ = Option
    assert later.process_value(context, "text") == "text"
    del later.type_descriptor
    assert later.process_value(context, "text") == "as Typer has it"


def test_a_directory_may_be_called_as_a_number_in_the_configuration_file() -> None:
    context, output = PARAMETERS["receive --output/-o"]
    assert output.process_value(context, 2026) == Path("2026")


def test_the_commands_have_options_and_arguments() -> None:
    assert len(PARAMETERS) > 100
    assert {type(parameter) for _, parameter in PARAMETERS.values()} == {FlyxOption, FlyxArgument}


@pytest.mark.parametrize(
    "line", ["receive --json -y -o in", "send --receivers 3 -q --code red-fox file", "serve --port 0"]
)
def test_what_most_people_write_loads_no_converter(line: str) -> None:
    code = (
        "import sys, typer\n"
        "from flyx.cli.app import app\n"
        "from flyx.cli.commands import Commands\n"
        f"name, *arguments = {line.split()!r}\n"
        "group = typer.main.get_command(app)\n"
        "with group.make_context('flyx', [name, *arguments]) as context:\n"
        "    command = Commands()[name]\n"
        "    command.make_context(name, arguments, parent=context)\n"
        "sys.exit('pydantic was loaded' if 'typer._adapters' in sys.modules else 0)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
