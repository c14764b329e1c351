"""The configuration file: a table for each command, an entry for each of its options.

    [send]
    server = "wss://flyx.example.org"
    receivers = 3

The command line overrides the environment, which overrides the file. If the file holds a secret that other
users of the machine can read, flyx warns. What the options then are is for flyx.cli.settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyx.cli.environment import at_home
from flyx.cli.output import report_line
from flyx.errors import InputError, printable

if TYPE_CHECKING:
    from typer._click import Command, Parameter

CONFIG_VARIABLE = "FLYX_CONFIG"

_SECRETS = frozenset({"api-token", "admin-token", "metrics-token", "turn-secret", "code", "CODE"})
"""Options and arguments whose value opens something; of a URL, its password does."""

_URLS = frozenset({"redis", "ice-server"})
"""Those whose URL needs no slashes."""

HIDDEN = "(not shown)"
"""Stands for a secret."""


def config_path() -> Path | None:
    """Return where the configuration file is looked for; None if this user has no home."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return at_home(Path(named))
    from platformdirs import user_config_path

    try:
        return user_config_path("flyx") / "config.toml"
    except RuntimeError:
        # No HOME, and a user that the system does not know, as in containers.
        return None


def known_config_path() -> Path:
    """Return where the configuration file is looked for.

    Raises:
        InputError: it is nowhere, as this user has no home.
    """
    if (path := config_path()) is None:
        reason = "this user has no home, and so no configuration file"
        raise InputError(reason=reason, hint=f"name one in {CONFIG_VARIABLE}")
    return path


def load_config() -> dict[str, Any]:
    """Return the options of each command that the configuration file sets; none if there is no file.

    Raises:
        InputError: it cannot be read, is not TOML of tables, or was named and is not there.
    """
    path = config_path()
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            text, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        if os.environ.get(CONFIG_VARIABLE):
            raise InputError(reason=f"there is no configuration file {path}") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(reason=f"cannot read the configuration file {path}: {reason}") from error
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "`flyx config edit` opens it"
        raise InputError(reason=f"the configuration file {path} is not TOML: {error}", hint=hint) from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            hint = "write it under the command it is for, such as [send]"
            raise InputError(reason=f"the configuration file {path} sets {name} for no command", hint=hint)
    secrets = [
        f"{option} of {name}"
        for name, table in tables.items()
        for option, value in table.items()
        if is_secret(option, value)
    ]
    if secrets and _is_shared(status):
        report_line(
            f"warning: other users can read the configuration file {printable(str(path))}, which holds "
            f"the {printable(secrets[0])}"
        )
        option = secrets[0].partition(" ")[0]
        # No file can hold a URL.
        way = f"set FLYX_{option.upper()} in its place" if option == "redis" else f"write {option} as @FILE"
        report_line(f"hint: chmod 600 it, own it, or {way}")
    return tables


def defaults_of(commands: Mapping[str, Command]) -> dict[str, dict[str, Any]]:
    """Return what the configuration file sets for each command, by parameter: --json is as_json.

    Raises:
        InputError: the first mistake in it.
    """
    tables = load_config()
    if not tables:
        # What commands there are need not be known.
        return {}
    for mistake in mistakes_in(tables, commands):
        raise mistake
    return by_parameter(tables, commands)


def by_parameter(tables: dict[str, Any], commands: Mapping[str, Command]) -> dict[str, dict[str, Any]]:
    """Return the values of tables by the names of parameters, leaving out what no command has."""
    return {
        name: {
            parameters[option].name: value for option, value in tables[name].items() if option in parameters
        }
        for name, parameters in options_by_command(commands).items()
        if name in tables
    }


def options_of(command: Command) -> dict[str, Parameter]:
    """Return the options of a command that have a place in the file, by their names in it."""
    return {
        option.removeprefix("--"): parameter
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and parameter.envvar
    }


def options_by_command(commands: Mapping[str, Command]) -> dict[str, dict[str, Parameter]]:
    """Return the options of each command that has any in the file."""
    return {name: options for name, command in commands.items() if (options := options_of(command))}


def mistakes_in(tables: dict[str, Any], commands: Mapping[str, Command]) -> Iterator[InputError]:
    """Find what the file sets and no command has, and values that no option could take.

    A mistake in a name must not pass for a setting.
    """
    path, known = config_path(), options_by_command(commands)
    for name, table in tables.items():
        if name not in known:
            nearest = get_close_matches(name, known, 1)
            hint = (
                f"write [{nearest[0]}]"
                if nearest
                else f"there are {', '.join(f'[{each}]' for each in known)}"
            )
            what = "which has no options to set" if name in commands else "which is no command"
            yield InputError(
                reason=f"the configuration file {path} has a table for {name}, {what}", hint=hint
            )
            continue
        for option, value in table.items():
            if option not in known[name]:
                nearest = get_close_matches(option, known[name], 1)
                hint = f"the options of {name} are {', '.join(sorted(known[name]))}"
                reason = f"the configuration file {path} sets {option}, which is no option of {name}"
                yield InputError(reason=reason, hint=f"write {nearest[0]}" if nearest else hint)
            elif wrong := _wrong_kind(value, known[name][option]):
                yield InputError(reason=f"the configuration file {path} sets {option} of {name} to {wrong}")


def _wrong_kind(value: object, parameter: Parameter) -> str:
    """Say which kind of value this is if the option takes another one; values themselves are judged later."""
    if isinstance(value, list):
        is_right = parameter.multiple and all(isinstance(each, str | int | float) for each in value)
        return "" if is_right else "a list, where one value should be"
    if parameter.multiple:
        return 'one value, where a list should be, such as ["VALUE"]'
    if isinstance(value, bool) and not getattr(parameter, "is_flag", False):
        return "true or false, where a value should be"
    return "" if isinstance(value, str | int | float) else "what is neither text nor a number"


def is_secret(option: str, value: object) -> bool:
    """Tell whether this is a secret itself, and not where to find one."""
    return without_secrets(option, value) != value


def without_secrets(option: str, value: object) -> object:
    """Return the value of an option with HIDDEN in the place of what opens something.

    Where a secret is to be found (`@FILE`, `-`) is none.
    """
    if isinstance(value, list | tuple):
        return [without_secrets(option, each) for each in value]
    if option in _SECRETS:
        is_place = isinstance(value, str) and (value == "-" or value.startswith("@"))
        return value if value is None or is_place else HIDDEN
    if not isinstance(value, str) or not (option in _URLS or "://" in value):
        return value
    url, has_query, query = value.partition("?")
    # Of turn:user:password@host what is before the user has no slashes.
    mark = "://" if "://" in url else ":"
    scheme, _, rest = url.partition(mark)
    user, _, host = rest.rpartition("@")
    if ":" in user:
        url = f"{scheme}{mark}{HIDDEN}@{host}"
    return f"{url}?{HIDDEN}" if "password=" in query else f"{url}{has_query}{query}"


def _is_shared(status: os.stat_result) -> bool:
    """Tell whether users other than us and root can read a file, where files have owners."""
    if not hasattr(os, "geteuid"):
        return False
    return bool(status.st_mode & 0o077) or status.st_uid not in (0, os.geteuid())
