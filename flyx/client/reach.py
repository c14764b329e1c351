"""Under which URL others reach a server: one that is named `localhost` here is called otherwise there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from flyx.errors import FlyxError, without_credentials
from flyx.net.interfaces import offered_addresses
from flyx.net.proxy import is_here

LOOK_TIMEOUT = 1.5
"""Seconds to look whether a server of this computer is reached by its address on the network."""


class Reach(Struct, frozen=True):
    """How others reach a server.

    Attributes:
        url: to pass on, without credentials; None if there is none that means the same elsewhere.
        by_others: another computer reaches it, if only by an address that an announcement carries.
    """

    url: str | None
    by_others: bool


async def reach_of(server: str, room_id: str) -> Reach:
    """Return how others reach a server that we have reached.

    Args:
        server: its URL as we know it.
        room_id: of a room that is there. A server on this computer is reached by others if it shows that room
            also at an address of the network.
    """
    shown = without_credentials(server)
    parts = urlsplit(shown if "://" in shown else f"ws://{shown}")
    # What comes after the path is none of a server's.
    parts = parts._replace(path=parts.path.rstrip("/"), query="", fragment="")
    if not is_here(parts.hostname or ""):
        return Reach(urlunsplit(parts), True)
    port = f":{parts.port}" if parts.port else ""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_TIMEOUT):
            for address in network_addresses():
                host = f"[{address}]" if ":" in address else address
                url = urlunsplit(parts._replace(netloc=f"{host}{port}"))
                if await _shows(url, room_id):
                    return Reach(None if "%" in address else url, True)
    return Reach(None, False)


def network_addresses() -> list[str]:
    """Return the addresses of this computer under which others reach it, the best first.

    IPv4 comes first, which is easy to type; what nobody has given out after the others; and last what leads
    nowhere without the name of an interface (fe80::1%eth0), which is another one elsewhere.
    """

    def order(text: str) -> tuple[bool, bool, int]:
        address = ip_address(text)
        return "%" in text, address.is_link_local, address.version

    return sorted(offered_addresses(), key=order)


async def _shows(url: str, room_id: str) -> bool:
    from flyx.client.doctor.http import get, origin_of

    try:
        return (await get(origin_of(url), f"/room/{room_id}", direct=True)).status == 200
    except (OSError, FlyxError):
        return False
