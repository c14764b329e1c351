"""Options of `flyx serve` about rooms: what they are like unless asked otherwise, and where they are kept.

The defaults are those of flyx.server.config and flyx.signaling.room, which load too much for `flyx --help`; a
test holds them equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyx.cli.options import given_path

DEFAULT_MAX_CLIENTS = 16
DEFAULT_TTL = 24 * 3600
DEFAULT_IDLE_TIMEOUT = 600
DEFAULT_GRACE = 30.0
DEFAULT_MAX_HOLD = 24 * 3600.0
DEFAULT_MAX_PERSISTENT_PER_ADDRESS = 8
DEFAULT_UNUSED_TIMEOUT = 3600
# The bounds of POST /room, but that an operator may let every room live as long as a persistent one.
MIN_MAX_CLIENTS, MAX_MAX_CLIENTS = 2, 256
MIN_TTL, MAX_PERSISTENT_TTL = 60, 30 * 24 * 3600
MIN_IDLE_TIMEOUT, MAX_IDLE_TIMEOUT = 10, 24 * 3600
MAX_GRACE = 3600.0
LONGEST_HOLD = 30 * 24 * 3600.0

MaxClients = Annotated[
    int,
    typer.Option(
        "--max-clients",
        envvar="FLYX_MAX_CLIENTS",
        metavar="N",
        min=MIN_MAX_CLIENTS,
        max=MAX_MAX_CLIENTS,
        help="Most clients of a room, its sender included",
    ),
]
Ttl = Annotated[
    int,
    typer.Option(
        "--ttl",
        envvar="FLYX_TTL",
        metavar="SECONDS",
        min=MIN_TTL,
        max=MAX_PERSISTENT_TTL,
        help="Time after which a room ends, unless its sender is inside",
    ),
]
IdleTimeout = Annotated[
    int,
    typer.Option(
        "--idle-timeout",
        envvar="FLYX_IDLE_TIMEOUT",
        metavar="SECONDS",
        min=MIN_IDLE_TIMEOUT,
        max=MAX_IDLE_TIMEOUT,
        help="Time for which a room is kept with nobody inside",
    ),
]
MaxPersistent = Annotated[
    int,
    typer.Option(
        "--max-persistent-per-ip",
        envvar="FLYX_MAX_PERSISTENT_PER_IP",
        metavar="N",
        min=0,
        help="Most persistent or long-kept rooms of one address; 0 is no limit",
    ),
]
UnusedTimeout = Annotated[
    int,
    typer.Option(
        "--unused-timeout",
        envvar="FLYX_UNUSED_TIMEOUT",
        metavar="SECONDS",
        min=MIN_IDLE_TIMEOUT,
        max=MAX_PERSISTENT_TTL,
        help="Time for which a persistent room that no client enters is kept",
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace",
        envvar="FLYX_GRACE",
        metavar="SECONDS",
        min=0.0,
        max=MAX_GRACE,
        help="Time for which a client may come back after its connection was lost; 0 is not at all",
    ),
]
MaxHold = Annotated[
    float,
    typer.Option(
        "--max-hold",
        envvar="FLYX_MAX_HOLD",
        metavar="SECONDS",
        min=0.0,
        max=LONGEST_HOLD,
        help="The same, at most, for a client that asks for more than --grace",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="FLYX_STATE",
        metavar="FILE",
        parser=given_path,
        help="File that keeps rooms and places for the next start  [default: kept in memory]",
    ),
]
