"""`flyx send`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flyx.cli.options import DEFAULT_SERVER, Json, NoProgress, Quiet, Server, make_reporter, token_of


class Congestion(StrEnum):
    """Names of flyx.sctp.congestion, the default first."""

    BBR = "bbr"
    CUBIC = "cubic"


def send(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Files and directories to send", show_default=False),
    ],
    server: Server = DEFAULT_SERVER,
    receivers: Annotated[
        int,
        typer.Option(
            "--receivers",
            "-n",
            envvar="FLYX_RECEIVERS",
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
    congestion: Annotated[
        Congestion,
        typer.Option("--congestion", envvar="FLYX_CONGESTION", help="Congestion control of what is sent"),
    ] = Congestion.BBR,
    api_token: Annotated[
        str | None,
        typer.Option(
            "--api-token",
            envvar="FLYX_API_TOKEN",
            metavar="TOKEN",
            help="Token of a server that lets only its own people make rooms",
        ),
    ] = None,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    as_json: Json = False,
) -> None:
    """Send files and directories

    Prints the command that receives them.

    Example: flyx send holiday.jpg notes/
    """
    from flyx.cli.runtime import run
    from flyx.client.send import SendOptions
    from flyx.client.send import send as send_files

    with make_reporter(
        sending=True, server=server, quiet=quiet, bars=not no_progress, as_json=as_json
    ) as reporter:
        token = token_of("--api-token", api_token)
        run(send_files(SendOptions(server, paths, receivers, wait, congestion.value, token), reporter))
