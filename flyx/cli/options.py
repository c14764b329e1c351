"""Options that several commands share, and the reporter that follows from them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.output import JsonReporter, QuietReporter
from flyx.errors import InputError

if TYPE_CHECKING:
    from flyx.cli.output import Reporter

DEFAULT_SERVER = "ws://localhost:8000"

Server = Annotated[
    str,
    typer.Option(
        "--server", envvar="FLYX_SERVER", metavar="URL", help="Signaling server: ws, wss, http or https"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="FLYX_QUIET", help="Print data and errors only")]
Json = Annotated[
    bool, typer.Option("--json", envvar="FLYX_JSON", help="Print one JSON event a line on stdout")
]

# As in flyx.client.driver, which loads too much for `flyx --help`; a test holds them equal.
DEFAULT_RECONNECT = 300.0

Reconnect = Annotated[
    float,
    typer.Option(
        "--reconnect",
        envvar="FLYX_RECONNECT",
        min=0,
        metavar="SECONDS",
        help="Try for so long to make a lost connection anew; 0 is to give up at once",
    ),
]

NoProgress = Annotated[
    bool, typer.Option("--no-progress", envvar="FLYX_NO_PROGRESS", help="Print lines only, no bars")
]


def read_secret(text: str) -> str:
    """Return text, or a line of standard input for "-": arguments can be seen in the list of processes."""
    return sys.stdin.readline().strip() if text == "-" else text


def token_of(option: str, token: str | None) -> str | None:
    """Return a token.

    Raises:
        InputError: It is one that everybody would guess, or that no header can carry.
    """
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        hint = "take something like the output of `openssl rand -hex 24`"
        raise InputError(reason=f"{option} is empty, or holds other than visible ASCII characters", hint=hint)
    return token


def make_reporter(*, sending: bool, server: str, quiet: bool, bars: bool, as_json: bool) -> Reporter:
    """Return the reporter that the person asked for."""
    if quiet and as_json:
        raise InputError(reason="--quiet and --json exclude each other")
    if as_json:
        return JsonReporter()
    if quiet:
        return QuietReporter()
    from flyx.cli.progress import HumanReporter

    note = None
    if sending and server != DEFAULT_SERVER:
        note = f"(with --server {server}, or FLYX_SERVER set to it)"
    return HumanReporter(sending=sending, bars=bars, server_note=note)
