"""Everything that can be chosen about a signaling server, with its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from flyx.signaling.messages import MAX_MESSAGE_SIZE
from flyx.signaling.room import RoomConfig

DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 8000
DEFAULT_STUN_URL = "stun:stun.l.google.com:19302"
DEFAULT_MAX_ROOMS = 10_000

# Bounds of what POST /room may ask for. A room of two is a sender and one receiver.
MIN_MAX_CLIENTS, MAX_MAX_CLIENTS = 2, 256
MIN_TTL, MAX_TTL, MAX_PERSISTENT_TTL = 60, 24 * 3600, 30 * 24 * 3600
MIN_IDLE_TIMEOUT, MAX_IDLE_TIMEOUT = 10, 24 * 3600

# What the WebSocket layer lets through. Frames between the two limits get a proper `error`; larger ones,
# whose bytes should not even be collected, end the connection with 1009.
MAX_FRAME_SIZE = 2 * MAX_MESSAGE_SIZE
MAX_BODY_SIZE = 16 * 1024


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How one server listens and what it puts up with. Times are seconds, sizes bytes.

    Attributes:
        host: Address or name to bind; every address that it resolves to is bound.
        port: 0 takes any free one.
        stun_urls: Handed to every client as ICE servers.
        test_room: Make a persistent room that never expires at the start and log its id.
        room: Config of rooms made by `WS /ws`, and the default of `POST /room`.
        max_rooms: Rooms at a time; more are refused with 503 or 1013.
        max_queue_size: Outgoing messages waiting for one client; a client that lets more pile up is closed.
        max_bad_messages: Malformed messages answered before the connection is closed.
        join_timeout: Time for a client that resumes to say who it is.
        sweep_interval: Pause between looks for rooms whose time is over.
        close_timeout: Time for a client to take its last messages before it is cut off.
        linger: Time after the end of a connection for a peer that reads slowly; then it is cut off.
        ping_interval: Pause between WebSocket pings.
        ping_timeout: Time for a client to answer one.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    stun_urls: tuple[str, ...] = (DEFAULT_STUN_URL,)
    test_room: bool = False
    room: RoomConfig = field(default_factory=RoomConfig)
    max_rooms: int = DEFAULT_MAX_ROOMS
    max_queue_size: int = 256 * 1024
    max_bad_messages: int = 16
    join_timeout: float = 10.0
    sweep_interval: float = 1.0
    close_timeout: float = 2.0
    linger: float = 10.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
