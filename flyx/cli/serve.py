"""`flyx serve`: run the signaling server until a signal ends it.

Standard output carries one line, once clients can connect, and its last word is the URL. Logs go to standard
error.
"""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.errors import InputError

if TYPE_CHECKING:
    from flyx.server.config import ServerConfig

# As in flyx.server.config, which loads too much for `flyx --help`; a test holds them equal.
DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 8000
DEFAULT_STUN_URL = "stun:stun.l.google.com:19302"
DEFAULT_MAX_ROOMS = 10_000

READY = "flyx serve: listening on"
NO_STUN = "none"


class LogLevel(StrEnum):
    """How much to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    host: Annotated[
        str, typer.Option("--host", envvar="FLYX_HOST", help="Address to listen on; 0.0.0.0 is all of them")
    ] = DEFAULT_HOST,
    port: Annotated[
        int,
        typer.Option(
            "--port", envvar="FLYX_PORT", min=0, max=65535, help="Port to listen on; 0 is any free one"
        ),
    ] = DEFAULT_PORT,
    stun: Annotated[
        list[str] | None,
        typer.Option(
            "--stun",
            envvar="FLYX_STUN",
            metavar="URL",
            help=f"STUN server to hand to clients, repeatable, or `{NO_STUN}`  [default: {DEFAULT_STUN_URL}]",
        ),
    ] = None,
    max_rooms: Annotated[
        int, typer.Option("--max-rooms", envvar="FLYX_MAX_ROOMS", min=1, help="Most rooms at a time")
    ] = DEFAULT_MAX_ROOMS,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", envvar="FLYX_LOG_LEVEL", help="Least severe events to log")
    ] = LogLevel.INFO,
    log_json: Annotated[
        bool, typer.Option("--log-json", envvar="FLYX_LOG_JSON", help="Log JSON, one object a line")
    ] = False,
) -> None:
    """Run the signaling server

    Until Ctrl-C. Prints one line when clients can connect; logs go to standard error.

    Example: flyx serve --port 9000
    """
    import asyncio

    from flyx.net.loop import new_event_loop
    from flyx.server.config import ServerConfig
    from flyx.server.logs import configure_logging

    config = ServerConfig(
        host=host, port=port, stun_urls=_stun_urls(stun), test_room=True, max_rooms=max_rooms
    )
    configure_logging(log_level.value, as_json=log_json)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(config))


def _stun_urls(urls: list[str] | None) -> tuple[str, ...]:
    if not urls:
        return (DEFAULT_STUN_URL,)
    if urls == [NO_STUN]:
        return ()
    for url in urls:
        if not url.startswith(("stun:", "stuns:")):
            hint = f"a STUN URL looks like {DEFAULT_STUN_URL}; `--stun {NO_STUN}` alone is for no server"
            raise InputError(reason=f"--stun {url} is not a STUN URL", hint=hint)
    return tuple(urls)


async def _serve(config: ServerConfig) -> None:
    import asyncio

    from flyx.server.app import Server

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    # signal.signal, because loop.add_signal_handler is not there on every platform.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    async with Server(config) as server:
        typer.echo(f"{READY} {server.listening_url}")
        await stop.wait()
