"""The options and arguments of commands: what needs no conversion is not converted.

Typer converts each value by pydantic, whose loading would be a fifth of the time until the first byte. Most
values are defaults, text that stays text, plain numbers, or for a parser of ours, and need none of it. All
others go Typer's way, as does what is refused, so the words are Typer's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from typer.core import TyperArgument, TyperOption

if TYPE_CHECKING:
    from typer._click import Context, Parameter


class FlyxOption(TyperOption):
    """An option."""

    def process_value(self, ctx: Context, value: Any) -> Any:
        """Return what the command gets for a value that was given, or None, for its default."""
        return _processed(self, ctx, value, super().process_value)


class FlyxArgument(TyperArgument):
    """An argument, whose help tells no type of Python: its name says what it is."""

    def process_value(self, ctx: Context, value: Any) -> Any:
        """Return what the command gets for a value that was given."""
        return _processed(self, ctx, value, super().process_value)

    def display_type_rich(self, ctx: Context) -> str | None:
        return None


def adopted(parameters: list[Parameter]) -> list[Parameter]:
    """Return what Typer has made of a signature, as ours."""
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = FlyxArgument
        elif isinstance(parameter, TyperOption):
            parameter.__class__ = FlyxOption
    return parameters


def _processed(
    parameter: TyperOption | TyperArgument, ctx: Context, value: Any, by_typer: Callable[[Context, Any], Any]
) -> Any:
    try:
        ready = _ready(parameter, value)
    except (AttributeError, ValueError):
        # Of attributes, because a later Typer may know its types otherwise.
        return by_typer(ctx, value)
    return ready if parameter.callback is None else parameter.callback(ctx, parameter, ready)


def _ready(parameter: TyperOption | TyperArgument, value: Any) -> Any:
    """Return what Typer would make of a value.

    Raises:
        ValueError: it needs a conversion, is refused by its parser, or is missing.
    """
    several = parameter.multiple or parameter.nargs == -1
    if value is None and not parameter.required:
        return () if several else None
    if value is not None and not several:
        return _converted(parameter, value)
    if value and isinstance(value, list | tuple):
        return [_converted(parameter, each) for each in value]
    raise ValueError


def _converted(parameter: TyperOption | TyperArgument, value: Any) -> Any:
    kind, given = parameter.type_descriptor.annotation, parameter.type_descriptor.parameter_info
    if given.parser is not None:
        return given.parser(value)
    if type(value) is str:
        if kind is str or get_args(kind) == (str,):
            return value
        if kind is int and value.isascii() and value.isdecimal():
            return _within(int(value), given.min, given.max)
    elif type(value) is kind and value == parameter.default:
        return value
    raise ValueError


def _within(number: int, least: float | None, most: float | None) -> int:
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError
    return number
