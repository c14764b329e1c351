"""Options of `flyx serve` about what it gives to pairs that find no direct path: TURN, others' or its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from flyx.cli.option_table import OptionTable, default_of, setting
from flyx.cli.options import secret_of
from flyx.cli.rate_options import bytes_a_second
from flyx.cli.serve_options import networks_of
from flyx.errors import InputError
from flyx.server.config import CoturnConfig, TunnelConfig, TurnConfig

DEFAULT_TURN_TTL = default_of(TurnConfig, "ttl")
DEFAULT_TURN_PORT = default_of(CoturnConfig, "port")
DEFAULT_TURN_TLS_PORT = 5349
DEFAULT_TURN_RELAY_PORTS = "{}-{}".format(*default_of(CoturnConfig, "relay_ports"))

Turn = Annotated[
    list[str] | None,
    typer.Option(
        "--turn",
        envvar="FLYX_TURN",
        metavar="URL",
        help="URL of a TURN server to hand to clients, repeatable",
    ),
]
TurnSecret = Annotated[
    str | None,
    typer.Option(
        "--turn-secret",
        envvar="FLYX_TURN_SECRET",
        metavar="SECRET",
        help="The TURN server's static-auth-secret, of which credentials are made; @FILE or - as well",
    ),
]
TurnTtl = Annotated[
    float,
    typer.Option(
        "--turn-ttl",
        envvar="FLYX_TURN_TTL",
        metavar="SECONDS",
        min=60,
        max=86400,
        help="Time for which TURN credentials are good",
    ),
]
WithTurn = Annotated[
    bool,
    typer.Option(
        "--with-turn",
        envvar="FLYX_WITH_TURN",
        help="Start a coturn as well, and hand it to clients, in the place of --turn",
    ),
]
TurnHost = Annotated[
    str | None,
    typer.Option(
        "--turn-host",
        envvar="FLYX_TURN_HOST",
        metavar="HOST",
        help="Name or address by which clients reach the coturn of --with-turn  [default: this machine's]",
    ),
]
TurnPort = Annotated[
    int,
    typer.Option(
        "--turn-port",
        envvar="FLYX_TURN_PORT",
        metavar="PORT",
        min=1,
        max=65535,
        help="Its port, for UDP and for TCP",
    ),
]
TurnTlsPort = Annotated[
    int,
    typer.Option(
        "--turn-tls-port",
        envvar="FLYX_TURN_TLS_PORT",
        metavar="PORT",
        min=1,
        max=65535,
        help="Its port for TLS, with --tls-cert",
    ),
]
TurnRelayPorts = Annotated[
    str,
    typer.Option(
        "--turn-relay-ports",
        envvar="FLYX_TURN_RELAY_PORTS",
        metavar="FIRST-LAST",
        help="UDP ports at which it relays",
    ),
]
TurnAllow = Annotated[
    list[str] | None,
    typer.Option(
        "--turn-allow",
        envvar="FLYX_TURN_ALLOW",
        metavar="NETWORK",
        help="Private address or network to which it may relay, repeatable",
    ),
]

Relay = Annotated[
    str | None,
    typer.Option(
        "--relay",
        envvar="FLYX_RELAY",
        metavar="RATE",
        help="Pass on, as a last resort, so much a second of each pair through this server, such as 2MB",
    ),
]
RELAY_LIMITS = OptionTable(
    TunnelConfig,
    {
        "max_pairs": setting(int, "--relay-pairs", "N", "Most pairs of --relay at a time", min=1),
        "max_per_address": setting(
            int, "--relay-pairs-per-ip", "N", "Most connections of --relay from one address", min=1
        ),
    },
)

_MIN_RELAY_RATE, _MAX_RELAY_RATE = "16KB", "1GB"
"""Less carries no transfer, more no process."""

_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")


def turn_of(urls: list[str] | None, secret: str | None, ttl: float) -> TurnConfig | None:
    """Return the TURN service of --turn and --turn-secret.

    Raises:
        InputError: there is one without the other, the secret cannot be had, or a URL is none of TURN.
    """
    if not urls and secret is None:
        return None
    secret = secret_of("--turn-secret", secret)
    if not urls or secret is None:
        hint = "the secret is what the TURN server has as static-auth-secret"
        raise InputError(reason="--turn and --turn-secret go together", hint=hint)
    for url in urls:
        if not url.startswith(("turn:", "turns:")) or not url.partition(":")[2]:
            hint = "write it like turn:turn.example.org:3478 or turns:turn.example.org:5349?transport=tcp"
            raise InputError(reason=f"--turn {url} is not a TURN URL", hint=hint)
    return TurnConfig(tuple(urls), secret, ttl)


def coturn_of(
    *,
    host: str | None,
    told: str | None,
    port: int,
    tls_port: int,
    relay_ports: str,
    allowed: list[str] | None,
    tls: tuple[Path, Path] | None,
    max_clients: int,
    ttl: float,
) -> CoturnConfig:
    """Return the coturn of --with-turn. Looks up names, and waits for that.

    Args:
        host: of --host.
        told: of --turn-host.
        port: of --turn-port.
        tls_port: of --turn-tls-port.
        relay_ports: of --turn-relay-ports.
        allowed: of --turn-allow.
        tls: of --tls-cert and --tls-key.
        max_clients: of a room.
        ttl: seconds for which credentials are good.

    Raises:
        InputError: one of them cannot be used.
    """
    from flyx.server.coturn import find_addresses, user_quota_of

    matched = _RANGE.fullmatch(relay_ports)
    first, last = (int(matched[1]), int(matched[2])) if matched else (0, 0)
    if not 1024 <= first <= last <= 65535:
        hint = f"write it like {DEFAULT_TURN_RELAY_PORTS}; ports below 1024 are for other services"
        raise InputError(reason=f"--turn-relay-ports {relay_ports} is not a range of ports", hint=hint)
    if told is not None and not re.fullmatch(r"[0-9A-Za-z.:-]{1,253}", told):
        raise InputError(reason=f"--turn-host {told} is neither a name nor an address")
    addresses = find_addresses(told, host)
    return CoturnConfig(
        host=addresses.host,
        relay_addresses=addresses.relay_addresses,
        public_address=addresses.public_address,
        listening_addresses=addresses.listening_addresses,
        port=port,
        tls_port=None if tls is None else tls_port,
        relay_ports=(first, last),
        tls=tls,
        allowed=networks_of("--turn-allow", allowed),
        user_quota=user_quota_of(max_clients),
        ttl=ttl,
    )


def check_with_turn(*, turn: list[str] | None, secret: str | None) -> None:
    """Make sure that --with-turn goes with what else was chosen.

    Raises:
        InputError: it does not.
    """
    if turn or secret is not None:
        hint = "--with-turn starts a TURN server by itself, and draws its secret"
        raise InputError(reason="--with-turn and --turn exclude each other", hint=hint)


def relay_of(rate: str | None, pairs: int, pairs_per_address: int, *, redis: bool) -> TunnelConfig | None:
    """Return what --relay and its limits allow; None if there is no --relay.

    Raises:
        InputError: the rate is none, or there is --redis as well.
    """
    if rate is None:
        return None
    if redis:
        # The two of a pair may be on different nodes, and nodes pass on messages alone.
        hint = "leave out --relay; --with-turn or --turn relay with any number of nodes"
        raise InputError(reason="--relay and --redis exclude each other", hint=hint)
    size = bytes_a_second("--relay", rate, _MIN_RELAY_RATE, _MAX_RELAY_RATE)
    return TunnelConfig(float(size), max_pairs=pairs, max_per_address=pairs_per_address)
