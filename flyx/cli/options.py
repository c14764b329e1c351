"""Options that several commands share, and the reporter that follows from them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyx.cli.environment import at_home
from flyx.cli.output import JsonReporter, QuietReporter
from flyx.errors import InputError

if TYPE_CHECKING:
    from flyx.cli.output import Reporter

Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="FLYX_QUIET", help="Print data and errors only")]
Json = Annotated[
    bool, typer.Option("--json", envvar="FLYX_JSON", help="Print one JSON event a line on stdout")
]

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


def output_option(help_text: str) -> Any:
    """Return --output of a command, for which it means this."""
    return typer.Option(
        "--output", "-o", envvar="FLYX_OUTPUT", metavar="DIR", parser=given_path, help=help_text
    )


def given_path(given: str | float | Path) -> Path:
    """Return a path that was given, in the configuration file also as a number: a directory for each year.

    Raises:
        typer.BadParameter: it is empty, which would be the current directory to the system.
    """
    text = str(given)
    if not text:
        raise typer.BadParameter("it is empty. Is a variable in the command not set?")
    path = Path(text)
    # Path takes ./- for -, which is no file.
    return path if text == "-" or path != Path("-") else path.absolute()


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Have a value that cannot be used in this block be told as that of an option."""
    try:
        yield
    except InputError as error:
        raise InputError(reason=f"{option} cannot be used: {error}", hint=error.hint) from error


def read_secret(option: str, text: str) -> str:
    """Return text, or a line of standard input for "-": arguments can be seen in the list of processes.

    Raises:
        InputError: it is no text in the encoding of this system. The message does not repeat it.
    """
    try:
        secret = sys.stdin.readline().strip() if text == "-" else text
        # Bytes that are no text come as half surrogate pairs, or raise, by Python's settings.
        secret.encode()
    except UnicodeError:
        reason = f"cannot read {option} from standard input: it" if text == "-" else option
        hint = "enter it once more; `locale` shows the encoding that is expected"
        raise InputError(reason=f"{reason} is no text", hint=hint) from None
    return secret


_MAX_SECRET_SIZE = 4096
"""Bytes of a file with a secret. More is no secret, but the wrong file."""


def check_standard_input(texts: Mapping[str, str | None]) -> None:
    """Make sure that one option at most is read from standard input.

    Args:
        texts: by option, as they were given.

    Raises:
        InputError: several are.
    """
    reading = [option for option, text in texts.items() if text == "-"]
    if len(reading) > 1:
        hint = "give the others as @FILE, or in the environment"
        raise InputError(reason=f"{' and '.join(reading)} cannot both be read from standard input", hint=hint)


def secret_of(option: str, text: str | None) -> str | None:
    """Return the secret that an option was given: itself, as @FILE, or as - for a line of standard input.

    Raises:
        InputError: the file cannot be read, or there is no secret.
    """
    if text is None:
        return None
    secret = _read_file(option, text[1:]) if text.startswith("@") else read_secret(option, text)
    if not secret:
        hint = "write it as it is, as @FILE, or as - for a line of standard input"
        raise InputError(reason=f"{option} is empty", hint=hint)
    return secret


def _read_file(option: str, path: str) -> str:
    hint = f"{option} @FILE reads the secret from the only line of a file"
    try:
        with at_home(Path(path)).open("rb") as file:
            lines = file.read(_MAX_SECRET_SIZE + 1).decode().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(reason=f"cannot read {option} from {path}: {reason}", hint=hint) from error
    if len(lines) > 1 or any(len(line) >= _MAX_SECRET_SIZE for line in lines):
        raise InputError(reason=f"cannot read {option} from {path}: it is more than one secret", hint=hint)
    return lines[0].strip() if lines else ""


def token_of(option: str, text: str | None) -> str | None:
    """Return a token that was given like any secret.

    Raises:
        InputError: it is one that everybody would guess, or that no header can carry.
    """
    token = secret_of(option, text)
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        hint = "take something like the output of `openssl rand -hex 24`"
        raise InputError(reason=f"{option} holds other than visible ASCII characters", hint=hint)
    return token


def make_reporter(
    *,
    sending: bool,
    quiet: bool,
    bars: bool,
    as_json: bool,
    directory: Path | None = None,
    qr_code: bool | None = None,
) -> Reporter:
    """Return the reporter that the person asked for.

    `directory` is what a receiver saves into; `qr_code` whether a sender draws its link, see HumanReporter.
    """
    if quiet and as_json:
        raise InputError(reason="--quiet and --json exclude each other")
    if as_json:
        return JsonReporter()
    if quiet:
        return QuietReporter()
    from flyx.cli.progress import HumanReporter

    return HumanReporter(sending=sending, bars=bars, directory=directory, qr_code=qr_code)
