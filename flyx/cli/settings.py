"""What the options of each command are when the command line says nothing, and who has set them.

They come from the parameters of the commands themselves, as when a command runs: the value that is shown is
the one that the command uses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct

from flyx.cli.config import known_config_path, without_secrets
from flyx.cli.environment import at_home
from flyx.errors import InputError

if TYPE_CHECKING:
    from typer._click import Command, Context, Parameter


_TOKENS = frozenset({"--api-token", "--admin-token", "--metrics-token", "--turn-secret"})
"""What opens a server, or closes it to others: no value must not pass for none wanted."""


class Source(IntEnum):
    """Who has set an option; the greater ones win."""

    NOBODY = 0
    FILE = 1
    ENVIRONMENT = 2
    COMMAND_LINE = 3


_SOURCES = {
    "DEFAULT_MAP": Source.FILE,
    "ENVIRONMENT": Source.ENVIRONMENT,
    "COMMANDLINE": Source.COMMAND_LINE,
}
"""By Typer's names."""

_SHOWN = {Source.NOBODY: "default", Source.FILE: "file", Source.ENVIRONMENT: "environment"}
"""As `flyx config show --json` tells them."""


class Setting(Struct, frozen=True):
    """An option of a command, or an argument that has a variable.

    Attributes:
        option: as in the configuration file; of an argument, what stands for it in the usage.
        parameter: what it was had from.
        value: text, numbers, or a list of them; None: it is not set. Secrets in it are hidden.
        source: who has set it: `file`, `environment`, or `default` for nobody.
        place: path of the configuration file or name of the variable that did, if one did.
        mistake: why the command cannot use the value, if it cannot.
    """

    option: str
    parameter: Parameter
    value: object
    source: str
    place: str | None
    mistake: InputError | None


def settings_of(root: Context, name: str, command: Command, defaults: Mapping[str, Any]) -> Iterator[Setting]:
    """Return the settings of one command.

    Args:
        root: the context of the program.
        name: the command's.
        command: any one of the program, or the program itself.
        defaults: what the configuration file sets for it, by parameter.
    """
    context = command.context_class(command, info_name=name, parent=root, default_map=dict(defaults))
    with context:
        for parameter in command.params:
            if parameter.envvar:
                yield _setting(context, parameter)


def _setting(context: Context, parameter: Parameter) -> Setting:
    option = option_name(parameter)
    try:
        parameter.handle_parse_result(context, {}, [])
        settle(context, parameter)
        value, mistake = context.params[parameter.name], None
    except typer.BadParameter as error:
        value, _ = parameter.consume_value(context, {})
        mistake = bad_value(error)
    except InputError as error:
        value, _ = parameter.consume_value(context, {})
        mistake = error
    source = source_of(context, str(parameter.name))
    shown = without_secrets(option, _plain(value))
    return Setting(option, parameter, shown, _SHOWN[source], _place(source, parameter), mistake)


def settle(context: Context, parameter: Parameter) -> None:
    """Make of a parameter that was read what its command uses.

    Raises:
        InputError: it cannot be used.
    """
    name, variable = str(parameter.name), parameter.envvar
    if _TOKENS.intersection(parameter.opts) and isinstance(variable, str):
        on_command_line = source_of(context, name) is Source.COMMAND_LINE
        if not on_command_line and os.environ.get(variable) == "":
            hint = "unset it if none is wanted"
            raise InputError(reason=f"the variable {variable} is empty, which is no token", hint=hint)
    if isinstance(value := context.params.get(name), Path) and place_of(context, name) is not None:
        context.params[name] = at_home(value)


def option_name(parameter: Parameter) -> str:
    """Return the name of an option in the configuration file, or what stands for an argument in the usage."""
    names = [option.removeprefix("--") for option in parameter.opts if option.startswith("--")]
    return names[0] if names else parameter.metavar or parameter.name


def variable_of(parameter: Parameter) -> str:
    """Return the variable that sets a parameter, or would."""
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
    return next((each for each in variables if os.environ.get(each)), variables[0])


def bad_values_of_file(
    root: Context, name: str, command: Command, values: Mapping[str, Any]
) -> Iterator[InputError]:
    """Find what a command cannot use of the configuration file, also where the environment says otherwise.

    Args:
        root: the context of the program.
        name: the command's.
        command: the command.
        values: what the configuration file sets for it, by parameter.
    """
    context = command.context_class(command, info_name=name, parent=root)
    with context:
        for parameter in command.params:
            if parameter.name not in values:
                continue
            try:
                parameter.process_value(context, values[parameter.name])
            except typer.BadParameter as error:
                yield _bad_value_of_file(name, parameter, error)


def bad_value(error: typer.BadParameter) -> InputError:
    """Say of a value that a command cannot use what is wrong with it, and where it comes from."""
    context, parameter = error.ctx, error.param
    if context is None or parameter is None:
        return InputError(reason=_why(error))
    place = place_of(context, str(parameter.name)) or _as_typed(parameter)
    return InputError(reason=f"{place} cannot be used: {_why(error)}")


def usage_error(error: typer.TyperException, context: Context) -> InputError:
    """Say what is wrong with a command line that no command can use.

    Args:
        error: what Typer has raised.
        context: of the command, or of the group of it if that is not known.
    """
    context = getattr(error, "ctx", None) or context
    hint = f"`{context.command_path} --help` tells what it takes"
    wrong, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    if isinstance(error, typer.BadParameter) and error.message:
        return bad_value(error)
    if parameter is not None:
        return InputError(reason=f"{_as_typed(parameter)} is missing", hint=hint)
    if wrong is not None and hasattr(error, "possibilities"):
        nearest = get_close_matches(wrong, error.possibilities or (), 1)
        hint = f"write {nearest[0]}" if nearest else hint
        return InputError(reason=f"there is no option {wrong}", hint=hint)
    return InputError(reason=_in_a_clause(error.message), hint=hint)


def _as_typed(parameter: Parameter) -> str:
    """Return what a parameter is called on the command line."""
    name = option_name(parameter)
    return f"--{name}" if f"--{name}" in parameter.opts else name


def _bad_value_of_file(command: str, parameter: Parameter, error: typer.BadParameter) -> InputError:
    place = _place_in_file(known_config_path(), command, option_name(parameter))
    return InputError(reason=f"{place} cannot be used: {_why(error)}")


def _why(error: typer.BadParameter) -> str:
    """Return what is wrong with a value, as a clause."""
    errors = getattr(error.__cause__, "errors", None)
    first: dict[str, Any] = errors()[0] if callable(errors) else {"type": ""}
    match first["type"]:
        case "int_parsing" | "int_type" | "int_from_float":
            return f"{first['input']} is no whole number"
        case "float_parsing" | "float_type":
            return f"{first['input']} is no number"
        case "bool_parsing" | "bool_type":
            return f"{first['input']} is neither true nor false"
        case "greater_than_equal":
            return f"{first['input']} is less than {first['ctx']['ge']:g}"
        case "less_than_equal":
            return f"{first['input']} is more than {first['ctx']['le']:g}"
        case _:
            return _in_a_clause(error.message.removeprefix("Value error, "))


def _in_a_clause(sentence: str) -> str:
    sentence = sentence.rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _place(source: Source, parameter: Parameter) -> str | None:
    match source:
        case Source.FILE:
            return str(known_config_path())
        case Source.ENVIRONMENT:
            return variable_of(parameter)
        case _:
            return None


def _plain(value: object) -> object:
    """Return a value as the configuration file would have it."""
    match value:
        case Enum():
            return value.value
        case [] | ():
            return None
        case list() | tuple():
            return [_plain(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def place_of(ctx: Context, name: str) -> str | None:
    """Return where a parameter is set; None for the command line, and if it is set nowhere."""
    source = source_of(ctx, name)
    parameter = next((each for each in ctx.command.params if each.name == name), None)
    if parameter is None:
        return None
    if source is Source.ENVIRONMENT:
        return f"the variable {variable_of(parameter)}"
    if source is Source.FILE:
        return _place_in_file(known_config_path(), str(ctx.info_name), option_name(parameter))
    return None


def source_of(ctx: Context, name: str) -> Source:
    """Return who has set a parameter."""
    source = ctx.get_parameter_source(name)
    return Source.NOBODY if source is None else _SOURCES.get(source.name, Source.NOBODY)


def _place_in_file(path: Path, command: str, option: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    number = line_of(lines, command, option)
    return f"`{option}` of [{command}] in {path}" + (f", line {number}," if number else "")


def line_of(lines: list[str], table: str, key: str) -> int | None:
    """Return the number of the line of a TOML file that sets a key of a table; None if none does plainly."""
    current = ""
    for number, line in enumerate(lines, 1):
        if header := re.match(r"\s*\[\s*[\"']?([\w-]+)[\"']?\s*\]", line):
            current = header[1]
        elif re.match(rf"\s*([\"']?){re.escape(key)}\1\s*=", line) and current == table:
            return number
    return None
