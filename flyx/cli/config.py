"""The configuration file: a table for each command, an entry for each of its options.

    [send]
    server = "wss://flyx.example.org"
    receivers = 3

The command line overrides the environment, which overrides the file. If the file holds a secret that other
users of the machine can read, flyx warns.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flyx.cli.output import report_line
from flyx.errors import InputError, printable

CONFIG_VARIABLE = "FLYX_CONFIG"

# Options whose value opens something; of a URL, its password does.
_SECRETS = frozenset({"api-token", "admin-token", "metrics-token", "turn-secret", "code"})
_URLS = frozenset({"redis", "ice-server"})


def config_path() -> Path:
    """Return where the configuration file is looked for."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    from platformdirs import user_config_path

    return user_config_path("flyx") / "config.toml"


def load_config() -> dict[str, Any]:
    """Return the options of each command that the configuration file sets; none if there is no file.

    Raises:
        InputError: it cannot be read, is not TOML of tables, or was named and is not there.
    """
    path = config_path()
    try:
        with path.open(encoding="utf-8") as file:
            text, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        if CONFIG_VARIABLE in os.environ:
            raise InputError(reason=f"there is no configuration file {path}") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(reason=f"cannot read the configuration file {path}: {error}") from error
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(reason=f"the configuration file {path} is not TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            hint = "write it under the command it is for, such as [send]"
            raise InputError(reason=f"the configuration file {path} sets {name} for no command", hint=hint)
    secrets = [
        f"{option} of {name}"
        for name, table in tables.items()
        for option, value in table.items()
        if _is_secret(option, value)
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


def _is_secret(option: str, value: object) -> bool:
    """Tell whether this is a secret itself, and not where to find one."""
    if isinstance(value, list):
        return any(_is_secret(option, each) for each in value)
    if not isinstance(value, str):
        return False
    if option in _URLS:
        # Of turn:user:password@host what is before the user has no slashes.
        return ":" in value.partition("://" if "://" in value else ":")[2].rpartition("@")[0]
    return option in _SECRETS and value != "-" and not value.startswith("@")


def _is_shared(status: os.stat_result) -> bool:
    """Tell whether users other than us and root can read a file, where files have owners."""
    if not hasattr(os, "geteuid"):
        return False
    return bool(status.st_mode & 0o077) or status.st_uid not in (0, os.geteuid())
