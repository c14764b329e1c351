"""Options of `flyx serve` about many nodes, and the workers that are several of them on one port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from flyx.server.config import ServerConfig

DEFAULT_WORKERS = 1

Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        envvar="FLYX_WORKERS",
        metavar="N",
        min=1,
        max=256,
        help="Processes on the same port, each a node; more than one need --redis",
    ),
]

Start = Callable[["ServerConfig", Callable[[str], None], "Connection | None"], None]
"""Runs one server to its end: its config, what to call with its URL when it is ready, and a channel whose end
ends it."""


def check(redis: str | None, workers: int, *, state: bool) -> None:
    """Make sure that what was chosen goes together.

    Raises:
        InputError: it does not.
    """
    if redis is None:
        if workers > 1:
            hint = "name a Redis with --redis, or leave out --workers"
            raise InputError(reason="several workers have to share their rooms through Redis", hint=hint)
        return
    if state:
        hint = "with --redis, rooms are in Redis; leave out --state"
        raise InputError(reason="--state and --redis exclude each other", hint=hint)
    from flyx.server.redis.client import check_url

    check_url(redis)


def supervise(config: ServerConfig, count: int, start: Start, announce: Callable[[str], None]) -> None:
    """Run this many servers on one port until a signal ends them.

    Args:
        config: of each of them; with a port for metrics, each has the next one.
        count: how many.
        start: runs one; it has to be picklable.
        announce: called with the URL when all are ready.

    Raises:
        InputError: the config cannot be used.
    """
    import asyncio

    from flyx.server.transport.binding import reserve
    from flyx.server.transport.urls import url_of
    from flyx.server.transport.workers import Supervisor

    reserved = asyncio.run(reserve(config.host, config.port))
    try:
        port = reserved[0].getsockname()[1]
        shared = replace(config, port=port, shared_port=True)
        supervisor = Supervisor([partial(_work, start, of_worker(shared, n)) for n in range(count)])
        supervisor.run(lambda: announce(url_of(config.host, port, secure=config.tls is not None)))
    finally:
        for bound in reserved:
            bound.close()


def of_worker(config: ServerConfig, number: int) -> ServerConfig:
    """Return the config of one of several workers, counted from 0."""
    if number:
        # The first has the coturn that all hand to clients.
        config = replace(config, coturn=None)
    if not config.metrics_port:
        return config
    return replace(config, metrics_port=config.metrics_port + number)


def _work(start: Start, config: ServerConfig, channel: Connection) -> None:
    """What a worker does."""
    from flyx.server.transport.workers import READY

    try:
        start(config, lambda url: channel.send(READY), channel)
    except InputError as error:
        channel.send(error)
    except KeyboardInterrupt:
        # Ctrl-C before there was anything to stop.
        return
