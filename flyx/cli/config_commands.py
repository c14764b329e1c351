"""`flyx config`: the options, what has set each of them, and the file that sets them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyx.cli.command import FlyxCommand
from flyx.cli.config import (
    by_parameter,
    config_path,
    known_config_path,
    load_config,
    mistakes_in,
    options_by_command,
)
from flyx.cli.config_template import default_text, template, toml_text
from flyx.cli.options import Json
from flyx.cli.output import (
    errors_as_events,
    report_error,
    report_line,
    report_question,
    write_data,
    write_event,
)
from flyx.cli.settings import Setting, bad_values_of_file, settings_of
from flyx.cli.terminal import run_program
from flyx.errors import EXIT_USAGE, InputError, without_controls

if TYPE_CHECKING:
    from typer._click import Command, Context

config = typer.Typer(
    name="config",
    no_args_is_help=True,
    # That of the program is for all of it.
    add_completion=False,
    rich_markup_mode=None,
    help="Show the options and who has set them, or edit their file",
)

_EDITORS = ("sensible-editor", "editor", "nano", "vim", "vi", "notepad")
"""What is tried, in this order, if neither VISUAL nor EDITOR names one."""


def _commands(context: Context) -> Mapping[str, Command]:
    program = context.find_root().command
    commands: Mapping[str, Command] = getattr(program, "commands")  # noqa: B009 - it is a group
    return commands


@config.command(cls=FlyxCommand)
def path() -> None:
    """Print where the configuration file is looked for

    Example: flyx config path
    """
    write_data(str(known_config_path()))


def _names(context: typer.Context) -> list[str]:
    return [name for name in options_by_command(_commands(context)) if not _commands(context)[name].hidden]


@config.command(cls=FlyxCommand)
def show(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND",
            help="Show the options of this command alone",
            show_default=False,
            autocompletion=_names,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show each option of each command, its value, and who has set it

    As the command itself would have it, if its command line said nothing. Secrets are not shown.

    Exit status 2 if a command could not use what is set; all else is shown nevertheless.

    Example: flyx config show send
    """
    if as_json:
        errors_as_events()
    names, commands = _names(context), _commands(context)
    if command is not None and command not in names:
        hint = f"there are {', '.join(names)}"
        raise InputError(reason=f"{command} is no command that has options to set", hint=hint)
    tables, mistakes = _checked(commands)
    defaults = by_parameter(tables, commands)
    root = context.find_root()
    if not as_json:
        file = config_path()
        there = "" if file is not None and os.path.exists(file) else " (not there)"
        write_data(without_controls(f"Configuration file: {file or 'none without a home'}{there}"))
    shown: list[tuple[str | None, Command, Mapping[str, Any]]] = [(None, root.command, {})]
    shown += [(name, commands[name], defaults.get(name, {})) for name in names]
    for name, described, values in shown:
        if command not in (None, name):
            continue
        settings = list(settings_of(root, name or "flyx", described, values))
        mistakes += [setting.mistake for setting in settings if setting.mistake is not None]
        if as_json:
            for setting in settings:
                write_event("setting", **_fields(name, setting))
        else:
            _write_table(name or "flyx", settings)
    for mistake in mistakes:
        if as_json:
            write_event("mistake", message=str(mistake), hint=mistake.hint)
        else:
            report_error(mistake)
    if mistakes:
        raise typer.Exit(EXIT_USAGE)


def _checked(commands: Mapping[str, Command]) -> tuple[dict[str, Any], list[InputError]]:
    """Return the tables of the configuration file, none if it cannot be read, and what is wrong with it."""
    try:
        tables = load_config()
    except InputError as error:
        return {}, [error]
    return tables, list(mistakes_in(tables, commands))


def _fields(name: str | None, setting: Setting) -> dict[str, Any]:
    """Return the fields of a setting, as flyx/docs/events.schema.json defines them."""
    return {
        "command": name,
        "option": setting.option,
        "value": setting.value,
        "source": setting.source,
        "place": setting.place,
        "usable": setting.mistake is None,
    }


def _write_table(title: str, settings: list[Setting]) -> None:
    rows = [(setting.option, _value_text(setting), setting.place or "default") for setting in settings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    write_data(f"\n{title}")
    for option, value, place in rows:
        write_data(without_controls(f"  {option:<{widths[0]}}  {value:<{widths[1]}}  {place}"))


def _value_text(setting: Setting) -> str:
    if setting.value is None:
        return default_text(setting.parameter) or "not set"
    return f"{toml_text(setting.value)}{'' if setting.mistake is None else ' (cannot be used)'}"


@config.command(cls=FlyxCommand)
def edit(context: typer.Context) -> None:
    """Open the configuration file in your editor, and check it

    In that of VISUAL or EDITOR. A file that is not there is made, with every option and what it does.

    Example: flyx config edit
    """
    file, commands, root = known_config_path(), _commands(context), context.find_root()
    editor = _editor()
    _make(file, template(commands))
    while True:
        _run(editor, file)
        mistakes = _mistakes_of_file(root, commands)
        for mistake in mistakes:
            report_error(mistake)
        if not mistakes:
            report_line("No mistake found; `flyx config show` shows what holds")
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise typer.Exit(EXIT_USAGE)
        report_question("Edit it again? [Y/n] ")
        answer = sys.stdin.buffer.readline()
        if not answer or answer.strip().lower() not in (b"", b"y", b"yes"):
            raise typer.Exit(EXIT_USAGE)


def _editor() -> list[str]:
    """Return the command of the editor that the person has chosen, or of one that is there.

    Raises:
        InputError: there is none.
    """
    for variable in ("VISUAL", "EDITOR"):
        if chosen := os.environ.get(variable, "").strip():
            try:
                return shlex.split(chosen)
            except ValueError:
                raise InputError(reason=f"{variable} in the environment is no command: {chosen}") from None
    for editor in _EDITORS:
        if shutil.which(editor):
            return [editor]
    hint = f"name yours in EDITOR, or edit {known_config_path()} otherwise"
    raise InputError(reason="no editor was found", hint=hint)


def _make(file: Path, text: str) -> None:
    """Make the file, for its owner alone, if it is not there.

    Raises:
        InputError: it cannot be made.
    """
    if os.path.lexists(file):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(reason=f"cannot make the configuration file {file}: {reason}") from error
    with open(descriptor, "w", encoding="utf-8") as made:
        made.write(text)


def _run(editor: list[str], file: Path) -> None:
    """Wait for the editor.

    Raises:
        InputError: it cannot be started, or has failed.
    """
    hint = f"name another editor in EDITOR, or edit {file} otherwise"
    try:
        status = run_program([*editor, str(file)])
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(reason=f"cannot start the editor {editor[0]}: {reason}", hint=hint) from error
    if status:
        raise InputError(reason=f"the editor {editor[0]} ended with status {status}", hint=hint)


def _mistakes_of_file(root: Context, commands: Mapping[str, Command]) -> list[InputError]:
    """Return what commands could not use of the file, also where the environment has another value."""
    tables, mistakes = _checked(commands)
    for name, values in by_parameter(tables, commands).items():
        mistakes += bad_values_of_file(root, name, commands[name], values)
    return mistakes
