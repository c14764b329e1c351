"""Options that set fields of a dataclass: a table of them, in the place of a parameter each.

    ROOMS = OptionTable(RoomConfig, {"grace": setting(float, "--grace", "SECONDS", "Time for which …")})

    @with_tables
    def serve(*, rooms: Annotated[Chosen, ROOMS]) -> None:
        config = RoomConfig(**rooms.fields())

The default is that of the field, and the variable FLYX_GRACE: to add an option is to add a field, and a line
to the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from flyx.cli.options import token_of

Convert = Callable[[str, Any], Any]
"""Makes a field of the name and the value of an option, or raises InputError."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option that sets a field.

    Attributes:
        annotation: what Typer makes of its text, and how.
        name: such as --max-rooms.
        convert: makes the field of that; None: it is the field.
        default: what it is by default, if that is not the default of the field.
    """

    annotation: Any
    name: str
    convert: Convert | None
    default: Any

    @property
    def is_secret(self) -> bool:
        """Whether its text may be - for standard input."""
        return self.convert is token_of


def setting(
    kind: Any,
    name: str,
    metavar: str,
    help_text: str,
    *,
    convert: Convert | None = None,
    default: Any = None,
    **more: Any,
) -> Setting:
    """Return an option that sets a field.

    Args:
        kind: of the value, as Typer has it.
        name: such as --max-rooms; the variable is FLYX_MAX_ROOMS.
        metavar: what it takes.
        help_text: a line for `--help`.
        convert: see Setting.
        default: see Setting.
        more: what typer.Option takes.
    """
    variable = f"FLYX_{name.removeprefix('--').replace('-', '_').upper()}"
    option = typer.Option(name, envvar=variable, metavar=metavar, help=help_text, **more)
    return Setting(Annotated[kind, option], name, convert, default)


def default_of(config: type[Any], name: str) -> Any:
    """Return the default of a field."""
    (default,) = (each.default for each in fields(config) if each.name == name)
    return default


@dataclass(frozen=True, slots=True)
class OptionTable:
    """Options that set fields of one dataclass.

    Attributes:
        config: the dataclass.
        settings: by the names of the fields.
    """

    config: type[Any]
    settings: Mapping[str, Setting]

    def parameters(self) -> list[inspect.Parameter]:
        """Return the parameters of a command that has these options."""
        return [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=self._default(name) if each.default is None else each.default,
                annotation=each.annotation,
            )
            for name, each in self.settings.items()
        ]

    def _default(self, name: str) -> Any:
        default = default_of(self.config, name)
        # Typer takes the absence of an option that may be repeated for None.
        return None if isinstance(default, tuple) else default


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the options of a table were given.

    Attributes:
        table: the table.
        values: by the names of the fields.
    """

    table: OptionTable
    values: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        """Return what was given, as Typer made it."""
        return self.values[field]

    def secrets(self) -> dict[str, str | None]:
        """Return the texts of secrets, by the names of the options."""
        settings = self.table.settings
        return {each.name: self.values[field] for field, each in settings.items() if each.is_secret}

    def fields(self) -> dict[str, Any]:
        """Return the fields.

        Raises:
            InputError: an option cannot be used.
        """
        converted = {}
        for field, each in self.table.settings.items():
            value = self.values[field]
            converted[field] = value if each.convert is None else each.convert(each.name, value)
        return converted


def with_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all tables in its signature: keyword-only, `Annotated[Chosen, table]`."""
    hints = get_type_hints(command, include_extras=True)
    tables: dict[str, OptionTable] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        table = next(
            (each for each in getattr(hints[name], "__metadata__", ()) if type(each) is OptionTable), None
        )
        if table is None:
            parameters.append(parameter.replace(annotation=hints[name]))
        else:
            tables[name] = table
            parameters += table.parameters()

    @wraps(command)
    def run(**values: Any) -> None:
        for name, table in tables.items():
            values[name] = Chosen(table, {field: values.pop(field) for field in table.settings})
        command(**values)

    signature = inspect.Signature(parameters)
    run.__signature__ = signature  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
