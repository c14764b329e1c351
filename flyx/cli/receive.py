"""`flyx receive`."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.meeting import Local, Server, TlsCa, meeting_of, trust
from flyx.cli.offer import all_lines, pages, summarize
from flyx.cli.options import (
    Json,
    NoProgress,
    Quiet,
    Reconnect,
    make_reporter,
    naming,
    output_option,
    read_secret,
)
from flyx.cli.output import directory_text, events_to_standard_error, report_line, report_question
from flyx.cli.path_options import Bind, IceServers, NoRelay, RelayOnly, connection_options_of
from flyx.cli.rate_options import ReceiveLimit, limit_of
from flyx.cli.settings import place_of
from flyx.cli.terminal import UNREADABLE, forget_typed, read_line, screen_size
from flyx.client.meeting import RECONNECT_TIME
from flyx.errors import ConsentNeeded, InputError
from flyx.transfer.manifest import Content
from flyx.transfer.names import NamePolicy

if TYPE_CHECKING:
    from flyx.client.codes import Invitation
    from flyx.client.receive import AskWords
    from flyx.client.receiving import AskExisting, Confirm
    from flyx.errors import DestinationExists
    from flyx.storage.writer import ExistingPolicy, Skip
    from flyx.transfer.manifest import Manifest


STANDARD_OUTPUT = Path("-")
"""What stands for it where a directory is expected; a directory of that name is `./-`."""


def receive(
    context: typer.Context,
    code: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE",
            envvar="FLYX_CODE",
            help="Code that the sender shows, or its URL, or - to read it from standard input",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, output_option("Directory to save into, or - to write one file to standard output")
    ] = Path("."),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", envvar="FLYX_YES", help="Accept without asking")
    ] = False,
    open_: Annotated[
        bool,
        typer.Option(
            "--open",
            envvar="FLYX_RECEIVE_OPEN",
            help="Trust the server with a sender whose code has no words, as after `flyx send --open`",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", envvar="FLYX_OVERWRITE", help="Replace files that exist")
    ] = False,
    rename: Annotated[
        bool, typer.Option("--rename", envvar="FLYX_RENAME", help="Save under a new name what exists")
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            envvar="FLYX_SKIP_EXISTING",
            help="Leave out files that are here already, with the same size and time",
        ),
    ] = False,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum",
            "-c",
            envvar="FLYX_CHECKSUM",
            help="Leave out files that are here already, with the same content, whatever their time",
        ),
    ] = False,
    names: Annotated[
        NamePolicy,
        typer.Option(
            "--names",
            envvar="FLYX_NAMES",
            help="Names that cannot be had here, or could steer a terminal: skip those, keep those that can "
            "be had, or save under safe ones",
        ),
    ] = NamePolicy.SKIP,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            envvar="FLYX_ONLY",
            metavar="PATTERN",
            show_default=False,
            help="Take only what a pattern matches, written as in .gitignore, or this path; may be repeated",
        ),
    ] = None,
    limit: ReceiveLimit = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            envvar="FLYX_RECEIVE_WAIT",
            help="Wait for the sender if it is not there yet, however long that takes",
        ),
    ] = False,
    server: Server = None,
    local: Local = None,
    tls_ca: TlsCa = None,
    relay_only: RelayOnly = False,
    no_relay: NoRelay = False,
    ice_server: IceServers = None,
    bind: Bind = None,
    reconnect: Reconnect = RECONNECT_TIME,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    as_json: Json = False,
) -> None:
    """Receive what a sender offers

    Prints each saved path.

    Without a code, or its words, it asks for them, or, if it has none, whether to trust the server.

    Example: flyx receive K7M2QX-lemon-otter -o Downloads
    """
    from flyx.cli.runtime import CONNECTIONS, run
    from flyx.client.receive import ReceiveOptions
    from flyx.client.receive import receive as receive_files
    from flyx.storage.writer import ExistingPolicy, Skip
    from flyx.transfer.selection import Selection

    descriptor = _standard_output() if output == STANDARD_OUTPUT else None
    with make_reporter(
        sending=False,
        quiet=quiet,
        bars=not no_progress,
        as_json=as_json,
        directory=output if descriptor is None else None,
    ) as reporter:
        invitation = _invitation(" ".join(code or ()), place_of(context, "code"))
        meeting = meeting_of(context, server, local, invitation.server)
        trust(tls_ca)
        if overwrite and rename:
            raise InputError(reason="--overwrite and --rename exclude each other")
        if (skip_existing or checksum) and rename:
            option = "--checksum" if checksum else "--skip-existing"
            raise InputError(reason=f"{option} and --rename exclude each other")
        existing = ExistingPolicy.OVERWRITE if overwrite else ExistingPolicy.REFUSE
        existing = ExistingPolicy.RENAME if rename else existing
        room_id = invitation.room_id
        if only and not all(pattern.strip() for pattern in only):
            raise InputError(reason="a pattern of --only is empty", hint="is a variable in it not set?")
        skip = Skip.SAME if skip_existing else Skip.NOTHING
        skip = Skip.CONTENT if checksum else skip
        selection = Selection(only) if only else None
        place = f"Save into {directory_text(output)}" if descriptor is None else "Write to standard output"
        has_terminal = sys.stdin.isatty()
        options = ReceiveOptions(
            server=meeting.server,
            local=meeting.local,
            room_id=room_id,
            words=invitation.words,
            ask_words=_ask_words(room_id) if has_terminal else None,
            directory=output,
            descriptor=descriptor,
            confirm=None if yes else _confirm(place, is_part=bool(only)),
            trust_server=open_,
            confirm_unverified=_confirm_unverified(place, room_id, is_part=bool(only))
            if has_terminal
            else None,
            existing=existing,
            skip=skip,
            ask_existing=None if yes or overwrite or rename else _ask_existing(skip),
            reconnect=reconnect,
            connections=connection_options_of(relay_only, no_relay, ice_server, bind),
            names=names,
            selection=selection,
            limit=limit_of(limit),
            wait=wait,
        )
        run(receive_files(options, reporter), loading=CONNECTIONS)


def _standard_output() -> int:
    """Return the descriptor of standard output, to which nothing else is written from now on.

    Raises:
        InputError: a person would see what is meant for a program.
    """
    if sys.stdout.isatty():
        hint = "let a program read it, as in `flyx receive -o - CODE | tar x`, or name a directory"
        raise InputError(reason="-o - writes to standard output, which is this terminal", hint=hint)
    events_to_standard_error()
    return sys.stdout.fileno()


def _invitation(given: str, place: str | None) -> Invitation:
    """Return what a code says, which is asked for on a terminal if none is given.

    Args:
        given: empty if none is.
        place: where, if not on the command line.

    Raises:
        InputError: it names no room, or there is none and no terminal to ask on.
    """
    from flyx.cli.runtime import run
    from flyx.client.codes import parse_invitation

    if given:
        with nullcontext() if place is None else naming(place):
            return parse_invitation(read_secret("CODE", given))
    if not sys.stdin.isatty():
        hint = "flyx receive CODE, with the code that the sender shows; - reads it from standard input"
        raise InputError(reason="there is no code, and no terminal to ask for it", hint=hint)
    return run(_ask_code())


async def _ask_code() -> Invitation:
    """Ask the person for a code until there is one."""
    from flyx.client.codes import parse_invitation

    while True:
        report_question("Code that the sender shows: ")
        line = await read_line(sys.stdin)
        if not line:
            raise InputError(reason="no code was given")
        if UNREADABLE in line:
            report_line("That is no text in the encoding of this terminal")
            continue
        try:
            return parse_invitation(line)
        except InputError as error:
            report_line(f"{error}; {error.hint}" if error.hint else str(error))


def _ask_words(room_id: str) -> AskWords:
    """Return what asks the person for the words of a code, until they can be right."""
    from flyx.client.codes import parse_invitation
    from flyx.pairing.words import password_of, resolve_words, split_words

    async def ask(count: int) -> tuple[str, ...]:
        while True:
            report_question(f"Words of the code after {room_id}{f' ({count})' if count else ''}: ")
            line = await read_line(sys.stdin)
            if not line:
                raise InputError(reason="no words were given")
            if UNREADABLE in line:
                report_line("That is no text in the encoding of this terminal")
                continue
            typed = split_words(line)
            # People type or paste the whole code here as well.
            with suppress(InputError):
                if (whole := parse_invitation(line)).room_id == room_id:
                    typed = whole.words
            if not count and typed:
                return typed
            try:
                words = resolve_words(typed, count)
            except InputError as error:
                report_line(f"{error}; {error.hint}" if error.hint else str(error))
                continue
            if words != typed:
                report_line(f"That is {password_of(words)}")
            return words

    return ask


def _confirm(place: str, *, is_part: bool) -> Confirm:
    """Return what asks the person about an offer, or a part of one.

    Raises:
        ConsentNeeded: there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise ConsentNeeded()

    async def confirm(manifest: Manifest) -> bool:
        return await _ask(manifest, _deed(manifest, place), is_part=is_part)

    return confirm


def _confirm_unverified(place: str, room_id: str, *, is_part: bool) -> Confirm:
    """Return what asks the person, also with --yes, when nothing shows who the sender is."""

    async def confirm(manifest: Manifest) -> bool:
        report_line(
            "This code has no words, so nothing shows who the sender is: the server, or anybody who learns "
            f"or guesses {room_id}, can offer files under it. Say yes only if the sender runs "
            "`flyx send --open`, and you trust the server."
        )
        deed = _deed(manifest, place)
        return await _ask(manifest, f"Trust the server, and {deed[0].lower()}{deed[1:]}", is_part=is_part)

    return confirm


def _ask_existing(skip: Skip) -> AskExisting:
    """Return what asks the person about what exists; `skip` is what is left out whatever the answer is."""
    from flyx.storage.writer import ExistingPolicy, Skip

    answers = {
        "skip": (ExistingPolicy.REFUSE, Skip.EXISTING),
        "overwrite": (ExistingPolicy.OVERWRITE, skip),
        "rename": (ExistingPolicy.RENAME, Skip.NOTHING),
    }

    async def ask(found: DestinationExists) -> tuple[ExistingPolicy, Skip] | None:
        report_line(str(found))
        forget_typed(sys.stdin)
        report_question("Skip what exists, overwrite it, or rename what arrives? [s/o/r/N] ")
        answer = (await read_line(sys.stdin)).strip().lower()
        return next((answers[word] for word in answers if answer in (word, word[0])), None)

    return ask


def _deed(manifest: Manifest, place: str) -> str:
    """Return what is done with an offer that is accepted; `place` is that with files."""
    return "Show it" if manifest.content is Content.TEXT else place


async def _ask(manifest: Manifest, question: str, *, is_part: bool) -> bool:
    """Show what is offered, or wanted of that, and ask; only a clear yes is one, to what could be seen."""
    summary = summarize(manifest, is_part=is_part)
    for line in summary.lines:
        report_line(line)
    could_be_seen = not summary.left_out
    forget_typed(sys.stdin)
    while True:
        choices = "y/N/a" if summary.is_cut else "y/N"
        report_question(f"{question}? [{choices if could_be_seen else 'N/a'}] ")
        answer = (await read_line(sys.stdin)).strip().lower()
        if answer in ("a", "?"):
            await _show_all(manifest)
            could_be_seen = True
        elif answer not in ("y", "yes"):
            return False
        elif could_be_seen:
            return True
        else:
            report_line("More names could matter than are shown here: type a to see all before y")


async def _show_all(manifest: Manifest) -> None:
    """Show every name, one screen after the other."""
    size = screen_size()
    left = len(manifest.entries)
    # The last row is for the question.
    for page in pages(all_lines(manifest), max(1, size.lines - 1), size.columns):
        for line in page:
            report_line(line)
        left -= len(page)
        if left:
            report_question(f"{left:,} more: Enter shows them, q ends the list ")
            answer = await read_line(sys.stdin)
            if answer.strip() or not answer:
                return
