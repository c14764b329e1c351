"""Everything that can be chosen about a signaling server, with its bounds.

Imports nothing that takes time to load: the command line shows the defaults.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

from flyx.errors import InputError
from flyx.signaling.config import MAX_MESSAGE_SIZE, RoomConfig

if TYPE_CHECKING:
    from limits import RateLimitItem

DEFAULT_STUN_URL = "stun:stun.l.google.com:19302"

MIN_MAX_CLIENTS, MAX_MAX_CLIENTS = 2, 256
MIN_TTL, MAX_TTL, MAX_PERSISTENT_TTL = 60, 24 * 3600, 30 * 24 * 3600
MIN_IDLE_TIMEOUT, MAX_IDLE_TIMEOUT = 10, 24 * 3600
"""Bounds of what POST /room may ask for. A room of two is a sender and one receiver."""

DEFAULT_MAX_FRAME_SIZE = 2 * MAX_MESSAGE_SIZE
DEFAULT_MAX_BODY_SIZE = 16 * 1024
"""What the WebSocket layer lets through.

Frames between the two limits get a proper `error`; larger ones, whose bytes should not even be collected, end
the connection with 1009.
"""

NO_LIMIT = "none"
DEFAULT_CREATE_RATE = "60/minute"
DEFAULT_JOIN_RATE = "300/minute"
DEFAULT_MISS_RATE = "20/minute"
DEFAULT_TOTAL_MISS_RATE = "600/minute"

_SECRET_SIZE = 32
"""Bytes of randomness in the secret of a coturn."""

_MAX_ALLOCATIONS = 2000
"""Its allocations in all, if there are as many ports."""

IPNetwork = IPv4Network | IPv6Network


def parse_rate(text: str) -> RateLimitItem | None:
    """Return the rate that text means, such as "60/minute" or "1000 per 2 hours"; None for "none".

    Raises:
        InputError: It means none.
    """
    if text == NO_LIMIT:
        return None
    from limits import parse

    try:
        rate: RateLimitItem | None = parse(text)
    except ValueError:
        rate = None
    # A rate of nothing would switch off what it limits, which is hardly what was meant.
    if rate is None or rate.amount < 1:
        hint = f"write it like 60/minute or 1000/hour, or `{NO_LIMIT}` for no limit"
        raise InputError(reason=f"{text} is not a rate", hint=hint)
    return rate


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """What strangers may ask of one server. Times are seconds; 0, and None for a rate, are no limit.

    An address is an IPv4 address or an IPv6 network of 64 bits. The rates count in a window that begins with
    the first of what they count.

    Attributes:
        max_connections: connections at a time, WebSockets and HTTP together.
        max_connections_per_address: of these, from one address.
        create_rate: rooms that one address may make.
        join_rate: rooms that one address may ask to enter.
        miss_rate: looks for a room that is not there, for one address; then it may look for none.
        total_miss_rate: the same for all together; above that, one miss ends the looks of an address.
        message_rate: messages a second of one client, in the long run.
        message_burst: messages that it may send at once before that counts.
        max_offers_per_peer: offers or answers of one client to one peer, or to all, within pair_window.
        max_candidates_per_peer: the same for ICE candidates.
        pair_window: see above.
        max_frame_size: bytes of a WebSocket message; what is longer ends the connection unread.
        max_body_size: bytes of the body of an HTTP request.
        handshake_timeout: time for TLS, and then for each request up to its last byte.
    """

    max_connections: int = 50_000
    max_connections_per_address: int = 200
    create_rate: RateLimitItem | None = field(default_factory=partial(parse_rate, DEFAULT_CREATE_RATE))
    join_rate: RateLimitItem | None = field(default_factory=partial(parse_rate, DEFAULT_JOIN_RATE))
    miss_rate: RateLimitItem | None = field(default_factory=partial(parse_rate, DEFAULT_MISS_RATE))
    total_miss_rate: RateLimitItem | None = field(
        default_factory=partial(parse_rate, DEFAULT_TOTAL_MISS_RATE)
    )
    message_rate: float = 100.0
    message_burst: int = 1000
    max_offers_per_peer: int = 16
    max_candidates_per_peer: int = 256
    pair_window: float = 600.0
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE
    max_body_size: int = DEFAULT_MAX_BODY_SIZE
    handshake_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """A TURN service.

    Attributes:
        urls: "turn:host:port?transport=udp" or "turns:…" (RFC 7065).
        secret: its `static-auth-secret`.
        ttl: seconds for which credentials are good; an allocation made in that time goes on.
    """

    urls: tuple[str, ...]
    secret: str
    ttl: float = 3600.0


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """What tunnels may carry. Times are seconds.

    Attributes:
        rate: bytes a second of one pair, each way.
        max_pairs: pairs at a time of which both sides are there.
        max_per_address: WebSockets of tunnels from one address.
        wait_timeout: for the other side to come.
        idle_timeout: without a datagram.
    """

    rate: float
    max_pairs: int = 16
    max_per_address: int = 8
    wait_timeout: float = 30.0
    idle_timeout: float = 60.0

    @property
    def max_datagram_size(self) -> int:
        """Bytes that a datagram may have."""
        from flyx.signaling.tunnel import max_datagram_size

        return max_datagram_size(self.rate)


@dataclass(frozen=True, slots=True)
class CoturnConfig:
    """A coturn that is part of the server.

    Attributes:
        host: name or address by which clients reach it; also its realm.
        relay_addresses: addresses of this machine at which it relays, one of a family.
        public_address: what the world sees in the place of the relay address of the same family; None: that.
        listening_addresses: addresses of this machine that it listens on; empty: all.
        port: for UDP and TCP.
        tls_port: for TLS over TCP; None: no TLS.
        relay_ports: first and last port at which it relays.
        tls: PEM files of a certificate chain and its key.
        allowed: networks to which it relays though they are not public.
        user_quota: allocations of one client at a time.
        ttl: seconds for which credentials are good.
        secret: of which these are made.
    """

    host: str
    relay_addresses: tuple[str, ...]
    public_address: str | None = None
    listening_addresses: tuple[str, ...] = ()
    port: int = 3478
    tls_port: int | None = None
    relay_ports: tuple[int, int] = (49152, 65535)
    tls: tuple[Path, Path] | None = None
    allowed: tuple[IPNetwork, ...] = ()
    user_quota: int = 120
    ttl: float = 3600.0
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(_SECRET_SIZE), repr=False)

    @property
    def turn(self) -> TurnConfig:
        """What clients are told."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        urls = [f"turn:{host}:{self.port}?transport={transport}" for transport in ("udp", "tcp")]
        if self.tls_port is not None:
            urls.append(f"turns:{host}:{self.tls_port}?transport=tcp")
        return TurnConfig(tuple(urls), self.secret, self.ttl)

    @property
    def stun_url(self) -> str:
        """It is a STUN server, too."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"stun:{host}:{self.port}"

    @property
    def total_quota(self) -> int:
        """Allocations at a time: each has a port of its own."""
        first, last = self.relay_ports
        return min(_MAX_ALLOCATIONS, last - first + 1)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How one server listens and what it puts up with. Times are seconds, sizes bytes.

    Attributes:
        host: address or name to bind; every address that it resolves to is bound. None: every address of this
            computer, of IPv4 and of IPv6.
        port: 0 takes any free one.
        stun_urls: handed to every client as ICE servers.
        test_room: make a persistent room that never expires at the start and log its id.
        room: config of rooms made by `WS /ws`, and the default of `POST /room`.
        max_rooms: rooms at a time; more are refused with 503 or 1013.
        max_persistent_per_address: of these, made by one address and persistent, or kept empty
            for longer than is usual here; 0: no limit.
        unused_timeout: time for which a persistent room that no client has entered is kept.
        state: file that keeps the rooms for the next start; None: they are forgotten.
        redis: URL of the Redis that keeps the rooms for many nodes, of which this is one; None: it is alone.
        shared_port: other processes of ours listen on the same port.
        max_queue_size: outgoing messages waiting for one client; a client that lets more pile up is closed.
        max_bad_messages: malformed messages answered before the connection is closed.
        join_timeout: time for a client that resumes to say who it is.
        sweep_interval: pause between looks for rooms whose time is over.
        close_timeout: time for a client to take its last messages before it is cut off.
        linger: time after the end of a connection for a peer that reads slowly; then it is cut off.
        ping_interval: pause between WebSocket pings.
        ping_timeout: time for a client to answer one.
        limits: what strangers may ask of it.
        allowed_hosts: names under which clients may reach it; empty: any name, but on the loopback none other
            than `localhost`. IP addresses are always allowed.
        allowed_origins: of pages from elsewhere that may use it, such as "https://example.org"; "*": any.
        trusted_proxies: networks of proxies that are believed about whom they speak for.
        turn: a TURN service for which every client gets credentials.
        coturn: the coturn that this server starts and looks after, whose service `turn` is; None: none.
        relay: what datagrams are passed on for clients that find no path; None: none. For a server that is
            alone.
        tls: PEM files of a certificate chain and its key; None: no TLS.
        api_token: needed to make rooms; None: no token is.
        admin_token: shows all rooms, and closes any; None: there is no such way.
        metrics_host: address to bind for metrics_port.
        metrics_port: where /metrics and /status are, instead of where everything else is; 0: any free port.
        metrics_token: needed for /metrics and /status; None: none.
        page: serve the page with which browsers send and receive.
    """

    host: str | None = None
    port: int = 8000
    stun_urls: tuple[str, ...] = (DEFAULT_STUN_URL,)
    test_room: bool = False
    room: RoomConfig = field(default_factory=RoomConfig)
    max_rooms: int = 10_000
    max_persistent_per_address: int = 8
    unused_timeout: float = 3600
    state: Path | None = None
    redis: str | None = None
    shared_port: bool = False
    max_queue_size: int = 256 * 1024
    max_bad_messages: int = 16
    join_timeout: float = 10.0
    sweep_interval: float = 1.0
    close_timeout: float = 2.0
    linger: float = 10.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    limits: LimitConfig = field(default_factory=LimitConfig)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[IPNetwork, ...] = ()
    turn: TurnConfig | None = None
    coturn: CoturnConfig | None = None
    relay: TunnelConfig | None = None
    tls: tuple[Path, Path] | None = None
    api_token: str | None = None
    admin_token: str | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    metrics_token: str | None = None
    page: bool = True
