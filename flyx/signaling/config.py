"""What may be chosen about a room, and how long a message may be.

Imports nothing that takes time to load: the command line shows the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_MESSAGE_SIZE: Final = 64 * 1024
"""Bytes of a signaling message, in UTF-8, both ways. An SDP with 200 candidates has about 20 KiB."""


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """What may be chosen when a room is made.

    Attributes:
        max_clients: most clients at a time, the sender included.
        ttl: seconds from creation to the end of the room, unless its sender is inside; None: no end.
        idle_timeout: seconds that a room without anybody inside is kept, unless it is persistent.
        persistent: the room outlives its sender and waits for the next one.
        grace: seconds that the place of a client is held after its connection was lost; 0: not at all.
        unused_timeout: seconds that a persistent room is kept before its first client; None: no end.
        max_hold: seconds that it is held at most for a client that asks for more, as it may sleep meanwhile.
            Beyond idle_timeout only in rooms that count in the budget of their maker: no client may fill a
            server with clients that are not there.
    """

    max_clients: int = 16
    ttl: float | None = 24 * 3600
    idle_timeout: float = 600
    persistent: bool = False
    grace: float = 30.0
    unused_timeout: float | None = None
    max_hold: float = 24 * 3600.0
