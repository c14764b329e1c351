"""The commands of the program, each of which is loaded when it is asked for: most runs need one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import typer
import typer.main

if TYPE_CHECKING:
    from typer._click import Command

_TABLE = {
    "send": ("send", "send", "Send files and directories"),
    "receive": ("receive", "receive", "Receive what a sender offers"),
    "serve": ("serve", "serve", "Run the signaling server"),
    "demo": ("demo", "demo", "Run a whole transfer on this machine"),
    "doctor": ("doctor", "doctor", "Examine the server, the network and this computer"),
    "bench": ("bench", "bench", "Measure how fast this computer is, or the path to another"),
    "help": ("help", "help_", "Read about a command or a topic, also without a network"),
    "config": (
        "config_commands",
        "config",
        "Show the options and who has set them, or edit their file",
    ),
}
"""By name: the module in flyx.cli and what in it makes the command, a function or a group of further
commands; and the first line of its help, which a test holds equal to that."""

SUMMARIES = {name: summary for name, (_, _, summary) in _TABLE.items()}
"""What each command does, in a line."""


class Commands(Mapping[str, "Command"]):
    """The commands by their names, in the order in which they are listed."""

    def __init__(self) -> None:
        # Those that were asked for.
        self._built: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        module, function, _ = _TABLE[name]
        if name not in self._built:
            self._built[name] = _build(name, getattr(import_module(f"flyx.cli.{module}"), function))
        return self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in _TABLE

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLE)

    def __len__(self) -> int:
        return len(_TABLE)


def _build(name: str, function: object) -> Command:
    if isinstance(function, typer.Typer):
        return typer.main.get_command(function)
    from flyx.cli.command import FlyxCommand

    assert callable(function)
    program = typer.Typer(add_completion=False, rich_markup_mode=None)
    program.command(name, cls=FlyxCommand)(function)
    return typer.main.get_command(program)
