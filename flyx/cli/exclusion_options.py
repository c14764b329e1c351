"""Options about what `flyx send` leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.errors import InputError

if TYPE_CHECKING:
    from flyx.storage.exclusions import Exclusions

Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        envvar="FLYX_EXCLUDE",
        metavar="PATTERN",
        show_default=False,
        help="Leave out what a pattern matches, written as in .gitignore; may be repeated",
    ),
]
ExcludeFrom = Annotated[
    Path | None,
    typer.Option(
        "--exclude-from",
        envvar="FLYX_EXCLUDE_FROM",
        metavar="FILE",
        show_default=False,
        help="Leave out what the patterns in a file match, one a line, before those of --exclude",
    ),
]
Gitignore = Annotated[
    bool,
    typer.Option(
        "--gitignore",
        envvar="FLYX_GITIGNORE",
        help="Leave out what the .gitignore files in the directories say, and .git",
    ),
]


def exclusions_of(exclude: list[str] | None, exclude_from: Path | None, gitignore: bool) -> Exclusions:
    """Return what the person wants left out.

    Raises:
        InputError: a pattern could match nothing, or the file of patterns cannot be read.
    """
    from flyx.storage.exclusions import Exclusions
    from flyx.transfer.patterns import Patterns

    for pattern in exclude or ():
        if not Patterns([pattern]):
            hint = "a backslash takes the meaning of #, !, [ and spaces away: \\#draft, \\[1].jpg"
            raise InputError(reason=f"the pattern of --exclude can match nothing: {pattern}", hint=hint)
    lines = _lines_of(exclude_from) if exclude_from is not None else []
    return Exclusions(Patterns([*lines, *(exclude or ())]), gitignore)


def _lines_of(file: Path) -> list[str]:
    from flyx.transfer.patterns import MAX_PATTERNS_SIZE, pattern_lines

    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_PATTERNS_SIZE + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(reason=f"cannot read --exclude-from {file}: {why}") from error
    if len(content) > MAX_PATTERNS_SIZE:
        raise InputError(reason=f"--exclude-from {file} is too large for a file of patterns")
    return pattern_lines(content)
