"""What parameters of the API say, checked: for what cannot be used an InputError names the parameter."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from flyx.errors import InputError
from flyx.transfer.rate_limit import MAX_RATE, MIN_RATE

AnyPath: TypeAlias = str | os.PathLike[str]


class HasFileno(Protocol):
    """An open file."""

    def fileno(self) -> int:
        """Return its descriptor."""
        ...


Choice = TypeVar("Choice", bound=Enum)


def path_of(name: str, path: AnyPath) -> Path:
    """Return a path.

    Raises:
        InputError: it is empty, which would be the current directory to the system, or none at all.
    """
    if path == "":
        raise InputError(reason=f"{name}: a path is empty")
    try:
        return Path(path)
    except TypeError as error:
        raise InputError(reason=f"{name}: {error}") from error


def paths_of(name: str, paths: AnyPath | Iterable[AnyPath]) -> list[Path]:
    """Return one path, or several, as paths."""
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    return [path_of(name, path) for path in given]


def patterns_of(name: str, patterns: str | Iterable[str]) -> list[str]:
    """Return one pattern, or several.

    Raises:
        InputError: one of them is empty.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    if not all(pattern.strip() for pattern in given):
        raise InputError(reason=f"{name}: a pattern is empty")
    return given


def choice_of(name: str, kind: type[Choice], value: object) -> Choice:
    """Return the member of an enumeration that a value stands for.

    Raises:
        InputError: it stands for none.
    """
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(member.value) for member in kind)
        raise InputError(reason=f"{name} is {value!r}, and not one of {choices}") from None


def descriptor_of(name: str, file: int | HasFileno) -> int:
    """Return the descriptor of an open file.

    Raises:
        InputError: it has none, or is closed.
    """
    try:
        descriptor = file if isinstance(file, int) else file.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError) as error:
        raise InputError(reason=f"{name} is no open file of the system: {error}") from error
    return descriptor


def rate_of(name: str, rate: int | None) -> int | None:
    """Return a rate.

    Raises:
        InputError: it is none that data can be held to.
    """
    if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(reason=f"{name} is {rate}, and not {MIN_RATE:,} to {MAX_RATE:,} bytes a second")
    return rate


def seconds_of(name: str, seconds: float) -> float:
    """Return a time.

    Raises:
        InputError: it is none.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(reason=f"{name} is {seconds:g}, and no number of seconds")
    return seconds


def token_of(name: str, token: str | None) -> str | None:
    """Return a token of a server.

    Raises:
        InputError: no header can carry it. The message does not repeat it.
    """
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise InputError(reason=f"{name} is empty, or holds other than visible ASCII characters")
    return token
