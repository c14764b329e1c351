"""Where the two sides of a transfer meet: on a server that was named, or on the network that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyx.cli.options import given_path, naming
from flyx.cli.settings import Source, source_of
from flyx.client.meeting import DEFAULT_SERVER, Meeting, meet
from flyx.errors import InputError

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="FLYX_SERVER",
        metavar="URL",
        show_default=False,
        help=f"Signaling server: ws, wss, http or https  [default: {DEFAULT_SERVER} if there, and --local]",
    ),
]
Local = Annotated[
    bool | None,
    typer.Option(
        "--local/--no-local",
        envvar="FLYX_LOCAL",
        show_default=False,
        help="Meet on the local network alone, without any server; or never there",
    ),
]


TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        envvar="FLYX_TLS_CA",
        metavar="FILE",
        parser=given_path,
        show_default=False,
        help="Certificates, in PEM, of authorities of your own that servers may have besides the usual ones",
    ),
]


ApiToken = Annotated[
    str | None,
    typer.Option(
        "--api-token",
        envvar="FLYX_API_TOKEN",
        metavar="TOKEN",
        show_default=False,
        help="Token of a server that lets only its own people make rooms; @FILE or - as well",
    ),
]


def trust(authorities: Path | None) -> None:
    """Believe the authorities of --tls-ca, if it is given.

    Raises:
        InputError: the file holds none.
    """
    if authorities is not None:
        from flyx.net import tls

        with naming("--tls-ca"):
            tls.trust(authorities)


def meeting_of(
    context: typer.Context, server: str | None, local: bool | None, invited_to: str | None = None
) -> Meeting:
    """Return where to meet by --server and --local of a command, and the server that a code came with.

    Raises:
        InputError: they exclude each other.
    """
    server, server_from = named_server(context, server, invited_to)
    return choose(server, local, server_from, source_of(context, "local"))


def named_server(
    context: typer.Context, server: str | None, invited_to: str | None
) -> tuple[str | None, Source]:
    """Return the server that is named, and by what: the code, unless --server is given too.

    Raises:
        InputError: it can be none.
    """
    from flyx.client.websocket import websocket_url

    source = source_of(context, "server")
    if invited_to is not None and source is not Source.COMMAND_LINE:
        with naming("the server of this code"):
            websocket_url(invited_to)
        return invited_to, Source.COMMAND_LINE
    if server is not None:
        with naming("--server"):
            websocket_url(server)
    return server, source


def choose(server: str | None, local: bool | None, server_from: Source, local_from: Source) -> Meeting:
    """Return where to meet: a server that is named wins, unless a stronger source says --local.

    Args:
        server: None if nobody has named one.
        local: None if nobody has said.
        server_from: who has named the server.
        local_from: who has said so.

    Raises:
        InputError: one place names a server, and says that there is to be none.
    """
    if local and server is not None:
        if server_from == local_from:
            hint = "a server that is named is used; --local is for none"
            raise InputError(reason="--server and --local exclude each other", hint=hint)
        return meet(None, True) if local_from > server_from else meet(server, None)
    return meet(server, local)
