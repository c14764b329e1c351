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

from flyx.cli import room_options as rooms
from flyx.cli import serve_nodes as nodes
from flyx.cli import serve_options as options
from flyx.cli import turn_options as relays
from flyx.cli.options import check_standard_input, token_of
from flyx.cli.signals import ENDING, ENDING_ON_TERMINAL, signals_taken_by
from flyx.cli.streams import ConsoleFile
from flyx.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from flyx.server.config import ServerConfig

# As in flyx.server.config, which loads too much for `flyx --help`; a test holds them equal.
DEFAULT_HOST = None
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
        str | None,
        typer.Option(
            "--host",
            envvar="FLYX_HOST",
            metavar="ADDRESS",
            help="Address to listen on  [default: all, of IPv4 and IPv6]",
        ),
    ] = DEFAULT_HOST,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            envvar="FLYX_PORT",
            metavar="PORT",
            min=0,
            max=65535,
            help="Port to listen on; 0 is any free one",
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
        int,
        typer.Option("--max-rooms", envvar="FLYX_MAX_ROOMS", metavar="N", min=1, help="Most rooms at a time"),
    ] = DEFAULT_MAX_ROOMS,
    max_clients: rooms.MaxClients = rooms.DEFAULT_MAX_CLIENTS,
    ttl: rooms.Ttl = rooms.DEFAULT_TTL,
    idle_timeout: rooms.IdleTimeout = rooms.DEFAULT_IDLE_TIMEOUT,
    max_persistent_per_ip: rooms.MaxPersistent = rooms.DEFAULT_MAX_PERSISTENT_PER_ADDRESS,
    unused_timeout: rooms.UnusedTimeout = rooms.DEFAULT_UNUSED_TIMEOUT,
    grace: rooms.Grace = rooms.DEFAULT_GRACE,
    max_hold: rooms.MaxHold = rooms.DEFAULT_MAX_HOLD,
    state: rooms.State = None,
    redis: nodes.Redis = None,
    workers: nodes.Workers = nodes.DEFAULT_WORKERS,
    max_connections: options.MaxConnections = options.DEFAULT_MAX_CONNECTIONS,
    max_connections_per_ip: options.MaxConnectionsPerAddress = options.DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
    create_rate: options.CreateRate = options.DEFAULT_CREATE_RATE,
    join_rate: options.JoinRate = options.DEFAULT_JOIN_RATE,
    miss_rate: options.MissRate = options.DEFAULT_MISS_RATE,
    total_miss_rate: options.TotalMissRate = options.DEFAULT_TOTAL_MISS_RATE,
    message_rate: options.MessageRate = options.DEFAULT_MESSAGE_RATE,
    message_burst: options.MessageBurst = options.DEFAULT_MESSAGE_BURST,
    max_offers: options.MaxOffers = options.DEFAULT_MAX_OFFERS,
    max_candidates: options.MaxCandidates = options.DEFAULT_MAX_CANDIDATES,
    max_frame_size: options.MaxFrameSize = options.DEFAULT_MAX_FRAME_SIZE,
    max_body_size: options.MaxBodySize = options.DEFAULT_MAX_BODY_SIZE,
    handshake_timeout: options.HandshakeTimeout = options.DEFAULT_HANDSHAKE_TIMEOUT,
    allow_host: options.AllowHost = None,
    allow_origin: options.AllowOrigin = None,
    trusted_proxy: options.TrustedProxy = None,
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
    relay_pairs: relays.RelayPairs = relays.DEFAULT_RELAY_PAIRS,
    relay_pairs_per_ip: relays.RelayPairsPerAddress = relays.DEFAULT_RELAY_PAIRS_PER_ADDRESS,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    api_token: options.ApiToken = None,
    admin_token: options.AdminToken = None,
    metrics_port: options.MetricsPort = None,
    metrics_host: options.MetricsHost = options.DEFAULT_METRICS_HOST,
    metrics_token: options.MetricsToken = None,
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
    from flyx.server.config import LimitConfig, ServerConfig
    from flyx.signaling.room import RoomConfig

    nodes.check(redis, workers, state=state is not None)
    check_standard_input(
        {
            "--turn-secret": turn_secret,
            "--api-token": api_token,
            "--admin-token": admin_token,
            "--metrics-token": metrics_token,
        }
    )
    limits = LimitConfig(
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_ip,
        create_rate=options.rate_of("--create-rate", create_rate),
        join_rate=options.rate_of("--join-rate", join_rate),
        miss_rate=options.rate_of("--miss-rate", miss_rate),
        total_miss_rate=options.rate_of("--total-miss-rate", total_miss_rate),
        message_rate=message_rate,
        message_burst=message_burst,
        max_offers_per_peer=max_offers,
        max_candidates_per_peer=max_candidates,
        max_frame_size=max_frame_size,
        max_body_size=max_body_size,
        handshake_timeout=handshake_timeout,
    )
    tls = options.tls_of(tls_cert, tls_key)
    stun_urls, turn_service, coturn = _stun_urls(stun), relays.turn_of(turn, turn_secret, turn_ttl), None
    if with_turn:
        relays.check_with_turn(turn=turn, secret=turn_secret)
        coturn = relays.coturn_of(
            host=host,
            told=turn_host,
            port=turn_port,
            tls_port=turn_tls_port,
            relay_ports=turn_relay_ports,
            allowed=turn_allow,
            tls=tls,
            max_clients=max_clients,
            ttl=turn_ttl,
        )
        stun_urls, turn_service = (coturn.stun_url, *stun_urls), coturn.turn
    config = ServerConfig(
        host=host,
        port=port,
        stun_urls=stun_urls,
        test_room=True,
        room=RoomConfig(
            max_clients=max_clients, ttl=ttl, idle_timeout=idle_timeout, grace=grace, max_hold=max_hold
        ),
        max_rooms=max_rooms,
        max_persistent_per_address=max_persistent_per_ip,
        unused_timeout=unused_timeout,
        state=state,
        redis=redis,
        limits=limits,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=options.origins_of(allow_origin),
        trusted_proxies=options.networks_of("--trusted-proxy", trusted_proxy),
        turn=turn_service,
        coturn=coturn,
        relay=relays.relay_of(relay, relay_pairs, relay_pairs_per_ip, redis=redis is not None),
        tls=tls,
        api_token=token_of("--api-token", api_token),
        admin_token=token_of("--admin-token", admin_token),
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        metrics_token=token_of("--metrics-token", metrics_token),
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
    """Log to standard error, and wait for nobody who does not read it."""
    from flyx.server.logs import configure_logging

    configure_logging(level, as_json=as_json, stream=cast(TextIO, ConsoleFile(sys.stderr, talk=True)))


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
        served: set when it is to take nobody in any more.
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
        # Nobody ever says anything on it: it is readable when whoever holds the other end is gone.
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
