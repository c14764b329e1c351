"""Options that are rates in bytes a second, and `--limit`, which holds transfers to one."""

from __future__ import annotations

from typing import Annotated

import typer

from flyx.cli.demo import parse_size
from flyx.errors import InputError

SendLimit = Annotated[
    str | None,
    typer.Option(
        "--limit",
        envvar="FLYX_LIMIT",
        metavar="RATE",
        show_default=False,
        help="Send no more than so much a second to all receivers together, such as 2MB",
    ),
]
ReceiveLimit = Annotated[
    str | None,
    typer.Option(
        "--limit",
        envvar="FLYX_LIMIT",
        metavar="RATE",
        show_default=False,
        help="Have the sender send no more than so much a second to us, such as 2MB",
    ),
]

NO_LIMIT = "none"


def limit_of(rate: str | None) -> int | None:
    """Return the bytes a second of --limit; None for no limit.

    Raises:
        InputError: it is no rate that a transfer can be held to.
    """
    if rate is None or rate.strip().lower() == NO_LIMIT:
        return None
    # As flyx.transfer.rate_limit has them; a test holds them equal.
    return bytes_a_second("--limit", rate, "1KB", "1TB", f"; {NO_LIMIT} is no limit")


def bytes_a_second(option: str, rate: str, least: str, most: str, more: str = "") -> int:
    """Return the rate that an option was given.

    Args:
        option: its name.
        rate: as it was written, such as 2MB or 500KB/s.
        least: the lowest rate that can be.
        most: the highest.
        more: what the hint has to add.

    Raises:
        InputError: it is none, or not between these.
    """
    try:
        size = parse_size(rate.strip().removesuffix("/s"))
    except InputError:
        size = -1
    if not parse_size(least) <= size <= parse_size(most):
        hint = f"write it in bytes a second, from {least} to {most}, like 500KB or 2MB{more}"
        raise InputError(reason=f"{option} {rate} is not a rate that can be kept to", hint=hint)
    return size
