"""Options of `flyx serve` about rooms: what they are like unless asked otherwise, and where they are kept."""

from __future__ import annotations

from pathlib import Path

from flyx.cli.option_table import OptionTable, setting
from flyx.cli.options import given_path
from flyx.server.config import (
    MAX_IDLE_TIMEOUT,
    MAX_MAX_CLIENTS,
    MAX_PERSISTENT_TTL,
    MIN_IDLE_TIMEOUT,
    MIN_MAX_CLIENTS,
    MIN_TTL,
    ServerConfig,
)
from flyx.signaling.config import RoomConfig

MAX_GRACE = 3600.0
LONGEST_HOLD = 30 * 24 * 3600.0

ROOMS = OptionTable(
    RoomConfig,
    {
        "max_clients": setting(
            int,
            "--max-clients",
            "N",
            "Most clients of a room, its sender included",
            min=MIN_MAX_CLIENTS,
            max=MAX_MAX_CLIENTS,
        ),
        "ttl": setting(
            int,
            "--ttl",
            "SECONDS",
            "Time after which a room ends, unless its sender is inside",
            min=MIN_TTL,
            # An operator may let every room live as long as a persistent one.
            max=MAX_PERSISTENT_TTL,
        ),
        "idle_timeout": setting(
            int,
            "--idle-timeout",
            "SECONDS",
            "Time for which a room is kept with nobody inside",
            min=MIN_IDLE_TIMEOUT,
            max=MAX_IDLE_TIMEOUT,
        ),
        "grace": setting(
            float,
            "--grace",
            "SECONDS",
            "Time for which a client may come back after its connection was lost; 0 is not at all",
            min=0.0,
            max=MAX_GRACE,
        ),
        "max_hold": setting(
            float,
            "--max-hold",
            "SECONDS",
            "The same, at most, for a client that asks for more than --grace",
            min=0.0,
            max=LONGEST_HOLD,
        ),
    },
)

KEEPING = OptionTable(
    ServerConfig,
    {
        "max_persistent_per_address": setting(
            int,
            "--max-persistent-per-ip",
            "N",
            "Most persistent or long-kept rooms of one address; 0 is no limit",
            min=0,
        ),
        "unused_timeout": setting(
            int,
            "--unused-timeout",
            "SECONDS",
            "Time for which a persistent room that no client enters is kept",
            min=MIN_IDLE_TIMEOUT,
            max=MAX_PERSISTENT_TTL,
        ),
        "state": setting(
            Path | None,
            "--state",
            "FILE",
            "File that keeps rooms and places for the next start  [default: kept in memory]",
            parser=given_path,
        ),
        "redis": setting(
            str | None,
            "--redis",
            "URL",
            "Redis through which many nodes are one service, such as redis://localhost:6379/0",
        ),
    },
)
