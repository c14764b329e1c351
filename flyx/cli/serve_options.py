"""Options of `flyx serve` about what strangers may do, and how they become the server's limits.

The defaults are those of flyx.server.config, which loads too much for `flyx --help`; a test holds them equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.options import given_path, naming
from flyx.errors import InputError

if TYPE_CHECKING:
    from limits import RateLimitItem

    from flyx.server.config import IPNetwork

DEFAULT_MAX_CONNECTIONS = 50_000
DEFAULT_MAX_CONNECTIONS_PER_ADDRESS = 200
DEFAULT_CREATE_RATE = "60/minute"
DEFAULT_JOIN_RATE = "300/minute"
DEFAULT_MISS_RATE = "20/minute"
DEFAULT_TOTAL_MISS_RATE = "600/minute"
DEFAULT_MESSAGE_RATE = 100.0
DEFAULT_MESSAGE_BURST = 1000
DEFAULT_MAX_OFFERS = 16
DEFAULT_MAX_CANDIDATES = 256
DEFAULT_MAX_FRAME_SIZE = 128 * 1024
DEFAULT_MAX_BODY_SIZE = 16 * 1024
DEFAULT_HANDSHAKE_TIMEOUT = 10.0
DEFAULT_METRICS_HOST = "127.0.0.1"
DEFAULT_DRAIN = 5.0

MaxConnections = Annotated[
    int,
    typer.Option(
        "--max-connections",
        envvar="FLYX_MAX_CONNECTIONS",
        metavar="N",
        min=0,
        help="Most connections at a time; 0 is no limit",
    ),
]
MaxConnectionsPerAddress = Annotated[
    int,
    typer.Option(
        "--max-connections-per-ip",
        envvar="FLYX_MAX_CONNECTIONS_PER_IP",
        metavar="N",
        min=0,
        help="Most connections of one address; 0 is no limit",
    ),
]
CreateRate = Annotated[
    str,
    typer.Option(
        "--create-rate", envvar="FLYX_CREATE_RATE", metavar="RATE", help="Rooms that one address may make"
    ),
]
JoinRate = Annotated[
    str,
    typer.Option(
        "--join-rate", envvar="FLYX_JOIN_RATE", metavar="RATE", help="Times that one address may join a room"
    ),
]
MissRate = Annotated[
    str,
    typer.Option(
        "--miss-rate",
        envvar="FLYX_MISS_RATE",
        metavar="RATE",
        help="Times that one address may ask for a room that is not there",
    ),
]
TotalMissRate = Annotated[
    str,
    typer.Option(
        "--total-miss-rate",
        envvar="FLYX_TOTAL_MISS_RATE",
        metavar="RATE",
        help="The same for all addresses together; beyond it, each has one miss a minute",
    ),
]
MessageRate = Annotated[
    float,
    typer.Option(
        "--message-rate",
        envvar="FLYX_MESSAGE_RATE",
        metavar="N",
        min=0,
        help="Messages a second of one client in the long run; 0 is no limit",
    ),
]
MessageBurst = Annotated[
    int,
    typer.Option(
        "--message-burst",
        envvar="FLYX_MESSAGE_BURST",
        metavar="N",
        min=1,
        help="Messages of one client at once",
    ),
]
MaxOffers = Annotated[
    int,
    typer.Option(
        "--max-offers",
        envvar="FLYX_MAX_OFFERS",
        metavar="N",
        min=0,
        help="Offers or answers of one client to one peer in 10 minutes; 0 is no limit",
    ),
]
MaxCandidates = Annotated[
    int,
    typer.Option(
        "--max-candidates",
        envvar="FLYX_MAX_CANDIDATES",
        metavar="N",
        min=0,
        help="ICE candidates of one client to one peer in 10 minutes; 0 is no limit",
    ),
]
MaxFrameSize = Annotated[
    int,
    typer.Option(
        "--max-frame-size",
        envvar="FLYX_MAX_FRAME_SIZE",
        metavar="BYTES",
        # Less would cut off messages that the protocol allows.
        min=64 * 1024,
        help="Longest WebSocket message that is read at all",
    ),
]
MaxBodySize = Annotated[
    int,
    typer.Option(
        "--max-body-size",
        envvar="FLYX_MAX_BODY_SIZE",
        metavar="BYTES",
        min=1024,
        help="Longest body of an HTTP request",
    ),
]
HandshakeTimeout = Annotated[
    float,
    typer.Option(
        "--handshake-timeout",
        envvar="FLYX_HANDSHAKE_TIMEOUT",
        metavar="SECONDS",
        min=0.1,
        help="Time for TLS, and for each request up to its last byte",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        envvar="FLYX_ALLOW_HOST",
        metavar="NAME",
        help="Name under which clients may reach the server, repeatable  [default: any]",
    ),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        envvar="FLYX_ALLOW_ORIGIN",
        metavar="ORIGIN",
        help="Origin of web pages from elsewhere that may use the server, repeatable; * is any",
    ),
]
TrustedProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        envvar="FLYX_TRUSTED_PROXY",
        metavar="NETWORK",
        help="Address or network of a proxy whose X-Forwarded-For is believed, repeatable",
    ),
]

TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        envvar="FLYX_TLS_CERT",
        metavar="FILE",
        parser=given_path,
        help="Certificate chain in PEM; SIGHUP reloads it",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        "--tls-key",
        envvar="FLYX_TLS_KEY",
        metavar="FILE",
        parser=given_path,
        help="Key of --tls-cert in PEM",
    ),
]
ApiToken = Annotated[
    str | None,
    typer.Option(
        "--api-token",
        envvar="FLYX_API_TOKEN",
        metavar="TOKEN",
        help="Token without which nobody makes rooms; @FILE reads it from a file, - from standard input",
    ),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token",
        envvar="FLYX_ADMIN_TOKEN",
        metavar="TOKEN",
        help="Token that shows all rooms (GET /rooms) and closes any (DELETE /room/ID); @FILE or - as well",
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        envvar="FLYX_METRICS_PORT",
        metavar="PORT",
        min=0,
        max=65535,
        help="Port for /metrics and /status, instead of --port; 0 is any free one",
    ),
]
MetricsHost = Annotated[
    str,
    typer.Option(
        "--metrics-host",
        envvar="FLYX_METRICS_HOST",
        metavar="ADDRESS",
        help="Address to listen on for --metrics-port",
    ),
]
MetricsToken = Annotated[
    str | None,
    typer.Option(
        "--metrics-token",
        envvar="FLYX_METRICS_TOKEN",
        metavar="TOKEN",
        help="Token without which nobody sees /metrics and /status; @FILE or - as well",
    ),
]
Drain = Annotated[
    float,
    typer.Option(
        "--drain",
        envvar="FLYX_DRAIN",
        metavar="SECONDS",
        min=0,
        help="Time over which SIGTERM sends the clients away",
    ),
]


def tls_of(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return the two files of --tls-cert and --tls-key.

    Raises:
        InputError: There is one without the other.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InputError(reason="--tls-cert and --tls-key go together")
    return certificate, key


def networks_of(option: str, texts: list[str] | None) -> tuple[IPNetwork, ...]:
    """Return the networks that an option names.

    Raises:
        InputError: One is neither an address nor a network.
    """
    from ipaddress import ip_network

    networks = []
    for text in texts or ():
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            hint = "write it like 10.0.0.5, 10.0.0.0/8 or fd00::/8"
            raise InputError(reason=f"{option} {text} is not an address or network", hint=hint) from error
    return tuple(networks)


def rate_of(option: str, text: str) -> RateLimitItem | None:
    """Return the rate that an option was given; None for no limit.

    Raises:
        InputError: It is none.
    """
    from flyx.server.config import parse_rate

    with naming(option):
        return parse_rate(text)


def origins_of(texts: list[str] | None) -> tuple[str, ...]:
    """Return the origins that --allow-origin names.

    Raises:
        InputError: One is not an origin, which no page would ever have.
    """
    from urllib.parse import urlsplit

    for text in texts or ():
        parts = urlsplit(text)
        if text != "*" and (not parts.scheme or not parts.netloc or parts.path.rstrip("/")):
            hint = "write it like https://example.org or https://example.org:8443"
            raise InputError(reason=f"--allow-origin {text} is not an origin", hint=hint)
    return tuple(texts or ())
