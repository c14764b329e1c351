"""`flyx demo`: a whole transfer on this machine, checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from flyx.cli.options import given_path, naming
from flyx.errors import InputError

_SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) *(?P<prefix>[KMGT]?)(?P<binary>I?)B?", re.IGNORECASE)
MAX_SIZE = 1 << 50


def demo(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            parser=given_path,
            help="What to send; random data if left out",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            "--size",
            envvar="FLYX_DEMO_SIZE",
            metavar="SIZE",
            help="Bytes of random data, such as 500KB, 100MB, 1GiB",
        ),
    ] = "100MB",
) -> None:
    """Run a whole transfer on this machine

    A server, a sender and a receiver, each a process of its own or part of this one; what arrives is compared
    with what was sent.

    Example: flyx demo --size 20MB
    """
    from flyx.cli.demo_run import run_demo
    from flyx.cli.runtime import run

    if path is not None and not path.exists():
        raise InputError(reason=f"there is no file or directory {path}")
    with naming("--size"):
        wanted = parse_size(size)
    run(run_demo(path, wanted))


def parse_size(text: str) -> int:
    """Return the bytes that a size such as 100MB (10^8) or 1GiB (2^30) means.

    Raises:
        InputError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    size = -1
    if match:
        base = 1024 if match["binary"] else 1000
        size = int(float(match["number"]) * base ** " KMGT".index(match["prefix"].upper() or " "))
    if not 0 <= size <= MAX_SIZE:
        raise InputError(reason=f"{text} is not a size", hint="write it like 500KB, 100MB or 1GiB")
    return size
