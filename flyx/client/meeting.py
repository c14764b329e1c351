"""Where the two sides of a transfer meet, and for how long; it loads quickly, as `--help` shows it."""

from __future__ import annotations

from msgspec import Struct

DEFAULT_SERVER = "ws://localhost:8000"

RECONNECT_TIME = 7200.0
"""Seconds for which both ends try to make a connection anew that was lost, and would like the server to hold
their places: a router restarts, a train leaves a tunnel, a laptop sleeps for an hour."""


class Meeting(Struct, frozen=True):
    """Where to meet.

    Attributes:
        server: the server to ask; None: none.
        local: on the local network, if `server` is None or does not know of the room, or is not there.
    """

    server: str | None
    local: bool


def meet(server: str | None, local: bool | None) -> Meeting:
    """Return where to meet: on a server that is named, and there alone; else on DEFAULT_SERVER and locally.

    Args:
        server: None if none is named.
        local: True: on the local network alone, which no server is named for; False: never there.
    """
    if server is not None:
        return Meeting(server, False)
    return Meeting(None if local else DEFAULT_SERVER, local is not False)
