"""Options about what `flyx send` sends where that is no files: standard input, or a text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from flyx.cli.output import report_line
from flyx.errors import InputError
from flyx.transfer.manifest import MAX_TEXT_SIZE

if TYPE_CHECKING:
    from flyx.client.broadcast import Stream

STANDARD_INPUT = Path("-")
"""What stands for it where a path is expected; a file of that name is `./-`."""

DEFAULT_NAME = "stdin"
"""What a receiver saves standard input as, if the sender says nothing else."""

Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        envvar="FLYX_NAME",
        metavar="NAME",
        show_default=False,
        help=f"What standard input is saved as on the other side  [default: {DEFAULT_NAME}]",
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        envvar="FLYX_TEXT",
        metavar="TEXT",
        show_default=False,
        help="Send a text, which the other side shows, in the place of files; - reads it from standard input",
    ),
]


class Contents(Struct, frozen=True):
    """What is sent: one of the three."""

    paths: Sequence[Path]
    stream: Stream | None
    text: str | None


def contents_of(paths: Sequence[Path], name: str | None, text: str | None, receivers: int) -> Contents:
    """Return what the person wants to send; a text is read now if it comes from standard input.

    Raises:
        InputError: it is nothing, or not one of these.
    """
    from flyx.client.broadcast import Stream

    if text is not None:
        if paths:
            raise InputError(reason="--text and files exclude each other", hint="send one after the other")
        return Contents((), None, _read_text() if text == "-" else text)
    if STANDARD_INPUT not in paths:
        if not paths:
            hint = "name files or directories, or - for standard input, or give a --text"
            raise InputError(reason="there is nothing to send", hint=hint)
        return Contents(paths, None, None)
    if len(paths) > 1:
        hint = "send it alone; a file that is called - is ./-"
        raise InputError(reason="standard input and files exclude each other", hint=hint)
    if not receivers:
        hint = "give their number: a stream waits for all of them, and is sent once"
        raise InputError(reason="standard input cannot be sent to any number of --receivers", hint=hint)
    _tell_typing()
    return Contents((), Stream(sys.stdin.fileno(), DEFAULT_NAME if name is None else name), None)


def _tell_typing() -> None:
    """Say what happens with what a person types."""
    if sys.stdin.isatty():
        report_line("What is typed here is sent; Ctrl-D ends it")


def _read_text() -> str:
    _tell_typing()
    # One more than a text may have, which may be in the middle of a character.
    return sys.stdin.buffer.read(MAX_TEXT_SIZE + 1).decode("utf-8", "surrogateescape")
