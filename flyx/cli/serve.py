"""`flyx serve`: run the signaling server until a signal ends it.

Standard output carries one line, once clients can connect, and its last word is the URL. Logs go to standard
error.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from enum import Enum, StrEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from flyx.cli import room_options
from flyx.cli import serve_nodes as nodes
from flyx.cli import serve_options as options
from flyx.cli import turn_options as relays
from flyx.cli.option_table import Chosen, with_tables
from flyx.cli.options import check_standard_input
from flyx.cli.signals import ENDING, ENDING_ON_TERMINAL, signals_taken_by
from flyx.cli.streams import ConsoleFile
from flyx.server.config import LimitConfig, ServerConfig
from flyx.signaling.config import RoomConfig

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

READY = "flyx serve: listening on"


class LogLevel(StrEnum):
    """How much to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@with_tables
def serve(
    *,
    listening: Annotated[Chosen, options.LISTENING],
    rooms: Annotated[Chosen, room_options.ROOMS],
    keeping: Annotated[Chosen, room_options.KEEPING],
    workers: nodes.Workers = nodes.DEFAULT_WORKERS,
    limits: Annotated[Chosen, options.LIMITS],
    access: Annotated[Chosen, options.ACCESS],
    turn: relays.Turn = None,
    turn_secret: relays.TurnSecret = None,
    turn_ttl: relays.TurnTtl = relays.DEFAULT_TURN_TTL,
    with_turn: relays.WithTurn = False,
    turn_host: relays.TurnHost = None,
    turn_port: relays.TurnPort = relays.DEFAULT_TURN_PORT,
    turn_tls_port: relays.TurnTlsPort = relays.DEFAULT_TURN_TLS_PORT,
    turn_relay_ports: relays.TurnRelayPorts = relays.DEFAULT_TURN_RELAY_PORTS,
    turn_allow: relays.TurnAllow = None,
    relay: relays.Relay = None,
    relay_limits: Annotated[Chosen, relays.RELAY_LIMITS],
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    operation: Annotated[Chosen, options.OPERATION],
    drain: options.Drain = options.DEFAULT_DRAIN,
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
    nodes.check(keeping["redis"], workers, state=keeping["state"] is not None)
    check_standard_input({"--turn-secret": turn_secret, **operation.secrets()})
    tls = options.tls_of(tls_cert, tls_key)
    listens, turn_service, coturn = listening.fields(), relays.turn_of(turn, turn_secret, turn_ttl), None
    if with_turn:
        relays.check_with_turn(turn=turn, secret=turn_secret)
        coturn = relays.coturn_of(
            host=listening["host"],
            told=turn_host,
            port=turn_port,
            tls_port=turn_tls_port,
            relay_ports=turn_relay_ports,
            allowed=turn_allow,
            tls=tls,
            max_clients=rooms["max_clients"],
            ttl=turn_ttl,
        )
        listens["stun_urls"] = (coturn.stun_url, *listens["stun_urls"])
        turn_service = coturn.turn
    config = ServerConfig(
        **listens,
        **keeping.fields(),
        **access.fields(),
        **operation.fields(),
        test_room=True,
        room=RoomConfig(**rooms.fields()),
        limits=LimitConfig(**limits.fields()),
        turn=turn_service,
        coturn=coturn,
        relay=relays.relay_of(
            relay,
            relay_limits["max_pairs"],
            relay_limits["max_per_address"],
            redis=keeping["redis"] is not None,
        ),
        tls=tls,
    )
    start = partial(_start, log_level=log_level.value, log_json=log_json, drain=drain)
    if workers == 1:
        start(config, _announce, None)
    else:
        _configure_logging(log_level.value, as_json=log_json)
        nodes.supervise(config, workers, start, _announce)


def _announce(url: str) -> None:
    typer.echo(f"{READY} {url}")


def _configure_logging(level: str, *, as_json: bool) -> None:
    """Log to standard error, without waiting for a reader that is slow."""
    from flyx.server.logs import configure_logging

    configure_logging(level, as_json=as_json, stream=cast(TextIO, ConsoleFile(sys.stderr, talk=True)))


def _start(
    config: ServerConfig,
    announce: Callable[[str], None],
    channel: Connection | None,
    *,
    log_level: str,
    log_json: bool,
    drain: float,
) -> None:
    """Run one server until a signal ends it, or the end of the channel."""
    import asyncio

    from flyx.cli.process import raise_file_limit, require_files, tune_gc
    from flyx.net.loop import new_event_loop

    _configure_logging(log_level, as_json=log_json)
    raise_file_limit()
    require_files()
    tune_gc()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(config, announce, channel, drain))


class _Stage(Enum):
    """How far a server has come."""

    SERVING = auto()
    DRAINING = auto()
    STOPPING = auto()


class _Lifetime:
    """When a server is to drain and to stop, by the signals that come.

    Attributes:
        served: set when it is to accept no more clients.
        drained: set when a drain is to be cut short.
    """

    def __init__(self, drain: float) -> None:
        import asyncio

        self.stage = _Stage.SERVING
        self.served = asyncio.Event()
        self.drained = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._drain = drain

    def take(self, number: int) -> bool:
        """Act on a signal, and return whether there was something to do: there is not while it stops."""
        if self.stage is _Stage.STOPPING:
            return False
        # Ctrl-C is a person who waits; SIGTERM comes from what looks after many servers.
        drains = self.stage is _Stage.SERVING and number == signal.SIGTERM and self._drain > 0
        over = self.served if self.stage is _Stage.SERVING else self.drained
        self.stage = _Stage.DRAINING if drains else _Stage.STOPPING
        self._loop.call_soon_threadsafe(over.set)
        return True


async def _serve(
    config: ServerConfig, announce: Callable[[str], None], channel: Connection | None, drain: float
) -> None:
    import asyncio

    from flyx.server.app import Server

    loop = asyncio.get_running_loop()
    server = Server(config)
    lifetime = _Lifetime(drain)

    def hang_up(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        lifetime.take(signal.SIGTERM)

    numbers: tuple[signal.Signals, ...] = ENDING_ON_TERMINAL
    if config.tls is not None and hasattr(signal, "SIGHUP"):
        numbers = ENDING
        # signal.signal, because loop.add_signal_handler is not there on every platform.
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(server.reload_certificate))
    if channel is not None:
        # Nothing is ever sent on it: it becomes readable when the process at the other end is gone.
        loop.add_reader(channel.fileno(), hang_up, channel.fileno())
    with signals_taken_by(lifetime.take, numbers):
        async with server:
            announce(server.listening_url)
            await lifetime.served.wait()
            if lifetime.stage is _Stage.DRAINING:
                draining = asyncio.create_task(server.drain(drain))
                impatience = asyncio.create_task(lifetime.drained.wait())
                await asyncio.wait((draining, impatience), return_when=asyncio.FIRST_COMPLETED)
                lifetime.stage = _Stage.STOPPING
                for task in (draining, impatience):
                    task.cancel()
                await asyncio.gather(draining, impatience, return_exceptions=True)
