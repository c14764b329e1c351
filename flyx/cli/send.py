"""`flyx send`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.clipboard import Copy, copying
from flyx.cli.content_options import STANDARD_INPUT, Name, Text, contents_of
from flyx.cli.exclusion_options import Exclude, ExcludeFrom, Gitignore, exclusions_of
from flyx.cli.meeting import ApiToken, Local, Server, TlsCa, meeting_of, trust
from flyx.cli.options import (
    Json,
    NoProgress,
    Quiet,
    Reconnect,
    check_standard_input,
    given_path,
    make_reporter,
    naming,
    secret_of,
    token_of,
)
from flyx.cli.path_options import Bind, IceServers, NoRelay, RelayOnly, connection_options_of
from flyx.cli.rate_options import SendLimit, limit_of
from flyx.client.compression import Compression
from flyx.client.meeting import RECONNECT_TIME
from flyx.errors import InputError
from flyx.pairing.words import DEFAULT_WORDS, MAX_WORDS, MIN_WORDS
from flyx.sctp.config import DEFAULT_CONGESTION, Congestion
from flyx.storage.links import Links

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from flyx.client.local import OwnServer
    from flyx.pairing.exchange import Code


def send(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            parser=given_path,
            help="Files and directories to send, or - for standard input",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    text: Text = None,
    server: Server = None,
    local: Local = None,
    tls_ca: TlsCa = None,
    receivers: Annotated[
        int,
        typer.Option(
            "--receivers",
            "-n",
            envvar="FLYX_RECEIVERS",
            metavar="N",
            min=0,
            help="End when so many receivers have everything; 0 is to go on until interrupted",
        ),
    ] = 1,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            envvar="FLYX_WAIT",
            min=0,
            metavar="SECONDS",
            help="Give up when nobody receives for so long",
        ),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            "--words",
            envvar="FLYX_WORDS",
            metavar="N",
            min=MIN_WORDS,
            max=MAX_WORDS,
            show_default=False,
            help=f"Random words in the code, of 10 bits each  [default: {DEFAULT_WORDS}]",
        ),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            "--code",
            envvar="FLYX_SEND_CODE",
            metavar="WORDS",
            show_default=False,
            help="Words of your own for the code; @FILE reads them from a file, - from standard input",
        ),
    ] = None,
    open_: Annotated[
        bool,
        typer.Option("--open", envvar="FLYX_OPEN", help="A code without words: the server is then trusted"),
    ] = False,
    room: Annotated[
        str | None,
        typer.Option(
            "--room",
            envvar="FLYX_ROOM",
            metavar="ID",
            show_default=False,
            help="Room of your own choice, the first six characters of the code, if nobody else has it",
        ),
    ] = None,
    links: Annotated[
        Links,
        typer.Option(
            "--links",
            envvar="FLYX_LINKS",
            help="Symbolic links inside directories: keep those that stay inside, follow, or skip",
        ),
    ] = Links.KEEP,
    exclude: Exclude = None,
    exclude_from: ExcludeFrom = None,
    gitignore: Gitignore = False,
    limit: SendLimit = None,
    copy: Copy = False,
    congestion: Annotated[
        Congestion,
        typer.Option("--congestion", envvar="FLYX_CONGESTION", help="Congestion control of what is sent"),
    ] = DEFAULT_CONGESTION,
    compress: Annotated[
        Compression,
        typer.Option(
            "--compress",
            envvar="FLYX_COMPRESS",
            help="Compress what is sent: where that saves time, wherever it saves bytes, or never",
        ),
    ] = Compression.AUTO,
    api_token: ApiToken = None,
    relay_only: RelayOnly = False,
    no_relay: NoRelay = False,
    ice_server: IceServers = None,
    bind: Bind = None,
    reconnect: Reconnect = RECONNECT_TIME,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    qr_code: Annotated[
        bool | None,
        typer.Option(
            "--qr/--no-qr",
            envvar="FLYX_QR",
            show_default=False,
            help="Draw the link for a browser as a QR code, or not  [default: if there is room for it]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send files and directories

    Prints the command that receives them. What is sent can also be standard input, or a text.

    Example: flyx send holiday.jpg notes/
    """
    from flyx.cli.runtime import CONNECTIONS, run
    from flyx.client.send import SendOptions
    from flyx.client.send import send as send_files

    with make_reporter(
        sending=True, quiet=quiet, bars=not no_progress, as_json=as_json, qr_code=qr_code
    ) as reporter:
        meeting = meeting_of(context, server, local)
        trust(tls_ca)
        typed = "-" if "-" in (ice_server or ()) else None
        stream = "-" if STANDARD_INPUT in (paths or ()) else None
        check_standard_input(
            {"--code": code, "--api-token": api_token, "--ice-server": typed, "--text": text, "PATH": stream}
        )
        token = token_of("--api-token", api_token)
        made = _make_code(words, code, is_open=open_)
        contents = contents_of(paths or (), name, text, receivers)
        options = SendOptions(
            server=meeting.server,
            serve=serve_ourselves if meeting.local else None,
            paths=contents.paths,
            stream=contents.stream,
            text=contents.text,
            code=made,
            receivers=receivers,
            wait=wait,
            congestion=congestion.value,
            api_token=token,
            reconnect=reconnect,
            connections=connection_options_of(relay_only, no_relay, ice_server, bind),
            links=links,
            exclusions=exclusions_of(exclude, exclude_from, gitignore),
            limit=limit_of(limit),
            room_id=_room_id_of(room),
            compression=compress,
        )
        run(send_files(options, copying(reporter) if copy else reporter), loading=CONNECTIONS)


def serve_ourselves() -> AbstractAsyncContextManager[OwnServer]:
    """Return a server of our own, whose modules are loaded only now."""
    from flyx.server.embedded import EmbeddedServer

    return EmbeddedServer()


def _room_id_of(room: str | None) -> str | None:
    """Return the room that the person has chosen.

    Raises:
        InputError: there can be none of this name.
    """
    from flyx.signaling.codes import normalise_room_id

    if room is None:
        return None
    with naming("--room"):
        return normalise_room_id(room)


def _make_code(words: int | None, own: str | None, *, is_open: bool) -> Code:
    """Return the code that the person asked for.

    Raises:
        InputError: there is none like that.
    """
    from flyx.client.codes import make_code

    if sum((words is not None, own is not None, is_open)) > 1:
        raise InputError(reason="--words, --code and --open exclude each other")
    chosen = secret_of("--code", own)
    with naming("--code"):
        return make_code(chosen, words, is_open=is_open)
