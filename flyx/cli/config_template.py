"""What a new configuration file holds: every option of every command, none of them set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from flyx.cli.config import options_by_command

if TYPE_CHECKING:
    from typer._click import Command, Parameter

_HEAD = """\
# Options of flyx, as on the command line, but without the dashes in front, in a table for each command.
# The command line wins over the environment, the environment over this file.
# Take away the # in front of a table's option to set it; `flyx config show` shows what holds.
"""

_DEFAULT = re.compile(r" +\[default: (.*)\]$")


def template(commands: Mapping[str, Command]) -> str:
    """Return a file that sets nothing, as TOML: each option with its default, or with what it could be."""
    return "\n".join([_HEAD, *(_table(name, commands[name]) for name in _visible(commands))])


def _visible(commands: Mapping[str, Command]) -> Iterator[str]:
    return (name for name in options_by_command(commands) if not commands[name].hidden)


def _table(name: str, command: Command) -> str:
    lines = [f"[{name}]"]
    for option, parameter in options_by_command({name: command})[name].items():
        help_text = getattr(parameter, "help", None) or ""
        lines += [f"# {help_text} ({parameter.envvar})", f"#{option} = {toml_text(_example(parameter))}"]
    return "\n".join([*lines, ""])


def default_text(parameter: Parameter) -> str:
    """Return what the help of an option says of its default, or nothing."""
    said = _DEFAULT.search(getattr(parameter, "help", None) or "")
    return said[1] if said else ""


def _example(parameter: Parameter) -> object:
    """Return a value that the option can have: its default if it has one."""
    if parameter.default is not None:
        return parameter.default
    if getattr(parameter, "is_flag", False):
        return False
    value: object = parameter.metavar or "VALUE"
    annotation = str(parameter.type_descriptor.annotation) if hasattr(parameter, "type_descriptor") else ""
    if re.search(r"\b(int|float)\b", annotation):
        said = default_text(parameter)
        value = int(said) if said.isdecimal() else getattr(parameter, "min", None) or 0
    return [value] if parameter.multiple else value


def toml_text(value: object) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return toml_text(value.value)
        case Path():
            return toml_text(str(value))
        case list() | tuple():
            return f"[{', '.join(toml_text(each) for each in value)}]"
        case float() if value.is_integer():
            return str(int(value))
        case int() | float():
            return str(value)
        case _:
            return json.dumps(str(value), ensure_ascii=False)
