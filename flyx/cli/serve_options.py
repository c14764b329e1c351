"""Options of `flyx serve` about where it listens, what strangers may do, and what operators see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.option_table import OptionTable, setting
from flyx.cli.options import given_path, naming, token_of
from flyx.errors import InputError
from flyx.server.config import (
    DEFAULT_CREATE_RATE,
    DEFAULT_JOIN_RATE,
    DEFAULT_MISS_RATE,
    DEFAULT_STUN_URL,
    DEFAULT_TOTAL_MISS_RATE,
    LimitConfig,
    ServerConfig,
    parse_rate,
)
from flyx.signaling.config import MAX_MESSAGE_SIZE

if TYPE_CHECKING:
    from limits import RateLimitItem

    from flyx.server.config import IPNetwork

NO_STUN = "none"

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
DEFAULT_DRAIN = 5.0

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
        InputError: there is one without the other.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InputError(reason="--tls-cert and --tls-key go together")
    return certificate, key


def networks_of(option: str, texts: list[str] | None) -> tuple[IPNetwork, ...]:
    """Return the networks that an option names.

    Raises:
        InputError: one is neither an address nor a network.
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
        InputError: it is none.
    """
    with naming(option):
        return parse_rate(text)


def origins_of(option: str, texts: list[str] | None) -> tuple[str, ...]:
    """Return the origins that an option names.

    Raises:
        InputError: one is not an origin, which no page would ever have.
    """
    from urllib.parse import urlsplit

    for text in texts or ():
        parts = urlsplit(text)
        if text != "*" and (not parts.scheme or not parts.netloc or parts.path.rstrip("/")):
            hint = "write it like https://example.org or https://example.org:8443"
            raise InputError(reason=f"{option} {text} is not an origin", hint=hint)
    return tuple(texts or ())


def stun_urls_of(option: str, urls: list[str] | None) -> tuple[str, ...]:
    """Return the STUN servers that an option names: those of the server by default.

    Raises:
        InputError: one is none.
    """
    if not urls:
        return (DEFAULT_STUN_URL,)
    if urls == [NO_STUN]:
        return ()
    for url in urls:
        if not url.startswith(("stun:", "stuns:")):
            hint = f"a STUN URL looks like {DEFAULT_STUN_URL}; `{option} {NO_STUN}` alone is for no server"
            raise InputError(reason=f"{option} {url} is not a STUN URL", hint=hint)
    return tuple(urls)


def _names_of(option: str, names: list[str] | None) -> tuple[str, ...]:
    return tuple(names or ())


LISTENING = OptionTable(
    ServerConfig,
    {
        "host": setting(
            str | None, "--host", "ADDRESS", "Address to listen on  [default: all, of IPv4 and IPv6]"
        ),
        "port": setting(int, "--port", "PORT", "Port to listen on; 0 is any free one", min=0, max=65535),
        "stun_urls": setting(
            list[str] | None,
            "--stun",
            "URL",
            f"STUN server to hand to clients, repeatable, or `{NO_STUN}`  [default: {DEFAULT_STUN_URL}]",
            convert=stun_urls_of,
        ),
        "max_rooms": setting(int, "--max-rooms", "N", "Most rooms at a time", min=1),
    },
)

LIMITS = OptionTable(
    LimitConfig,
    {
        "max_connections": setting(
            int, "--max-connections", "N", "Most connections at a time; 0 is no limit", min=0
        ),
        "max_connections_per_address": setting(
            int, "--max-connections-per-ip", "N", "Most connections of one address; 0 is no limit", min=0
        ),
        "create_rate": setting(
            str,
            "--create-rate",
            "RATE",
            "Rooms that one address may make",
            default=DEFAULT_CREATE_RATE,
            convert=rate_of,
        ),
        "join_rate": setting(
            str,
            "--join-rate",
            "RATE",
            "Times that one address may join a room",
            default=DEFAULT_JOIN_RATE,
            convert=rate_of,
        ),
        "miss_rate": setting(
            str,
            "--miss-rate",
            "RATE",
            "Times that one address may ask for a room that is not there",
            default=DEFAULT_MISS_RATE,
            convert=rate_of,
        ),
        "total_miss_rate": setting(
            str,
            "--total-miss-rate",
            "RATE",
            "The same for all addresses together; beyond it, each has one miss a minute",
            default=DEFAULT_TOTAL_MISS_RATE,
            convert=rate_of,
        ),
        "message_rate": setting(
            float,
            "--message-rate",
            "N",
            "Messages a second of one client in the long run; 0 is no limit",
            min=0,
        ),
        "message_burst": setting(int, "--message-burst", "N", "Messages of one client at once", min=1),
        "max_offers_per_peer": setting(
            int,
            "--max-offers",
            "N",
            "Offers or answers of one client to one peer in 10 minutes; 0 is no limit",
            min=0,
        ),
        "max_candidates_per_peer": setting(
            int,
            "--max-candidates",
            "N",
            "ICE candidates of one client to one peer in 10 minutes; 0 is no limit",
            min=0,
        ),
        "max_frame_size": setting(
            int,
            "--max-frame-size",
            "BYTES",
            "Longest WebSocket message that is read at all",
            # Less would cut off messages that the protocol allows.
            min=MAX_MESSAGE_SIZE,
        ),
        "max_body_size": setting(
            int, "--max-body-size", "BYTES", "Longest body of an HTTP request", min=1024
        ),
        "handshake_timeout": setting(
            float,
            "--handshake-timeout",
            "SECONDS",
            "Time for TLS, and for each request up to its last byte",
            min=0.1,
        ),
    },
)

ACCESS = OptionTable(
    ServerConfig,
    {
        "allowed_hosts": setting(
            list[str] | None,
            "--allow-host",
            "NAME",
            "Name under which clients may reach the server, repeatable  [default: any]",
            convert=_names_of,
        ),
        "allowed_origins": setting(
            list[str] | None,
            "--allow-origin",
            "ORIGIN",
            "Origin of web pages from elsewhere that may use the server, repeatable; * is any",
            convert=origins_of,
        ),
        "trusted_proxies": setting(
            list[str] | None,
            "--trusted-proxy",
            "NETWORK",
            "Address or network of a proxy whose X-Forwarded-For is believed, repeatable",
            convert=networks_of,
        ),
    },
)

OPERATION = OptionTable(
    ServerConfig,
    {
        "api_token": setting(
            str | None,
            "--api-token",
            "TOKEN",
            "Token without which nobody makes rooms; @FILE reads it from a file, - from standard input",
            convert=token_of,
        ),
        "admin_token": setting(
            str | None,
            "--admin-token",
            "TOKEN",
            "Token that shows all rooms (GET /rooms) and closes any (DELETE /room/ID); @FILE or - as well",
            convert=token_of,
        ),
        "metrics_port": setting(
            int | None,
            "--metrics-port",
            "PORT",
            "Port for /metrics and /status, instead of --port; 0 is any free one",
            min=0,
            max=65535,
        ),
        "metrics_host": setting(str, "--metrics-host", "ADDRESS", "Address to listen on for --metrics-port"),
        "metrics_token": setting(
            str | None,
            "--metrics-token",
            "TOKEN",
            "Token without which nobody sees /metrics and /status; @FILE or - as well",
            convert=token_of,
        ),
    },
)
