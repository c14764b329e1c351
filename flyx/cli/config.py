"""The configuration file: a table for each command, an entry for each of its options.

    [send]
    server = "wss://flyx.example.org"
    receivers = 3

The command line overrides the environment, which overrides the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flyx.errors import InputError

CONFIG_VARIABLE = "FLYX_CONFIG"


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
        text = path.read_text(encoding="utf-8")
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
    return tables
