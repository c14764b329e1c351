"""Under which URLs a server is reached that listens on a host and a port."""

from __future__ import annotations

import socket

from flyx.net.interfaces import offered_addresses, outgoing_address

EVERYWHERE = "0.0.0.0"  # noqa: S104
_WILDCARDS = {EVERYWHERE: "127.0.0.1", "::": "::1"}
"""What a server that listens on every address is called, and what stands for it on this computer."""


def url_of(host: str | None, port: int, *, secure: bool = False, scheme: str | None = None) -> str:
    """Return the WebSocket URL of a server that listens on host and port, or that of another scheme."""
    host = host or EVERYWHERE
    scheme = scheme or ("wss" if secure else "ws")
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def connectable(host: str | None) -> str:
    """Return a host that this computer can connect to for a server that listens on host."""
    host = host or EVERYWHERE
    return _WILDCARDS.get(host, host)


def reachable_urls(host: str | None, port: int, *, secure: bool = False) -> list[str]:
    """Return the URLs under which others probably reach a server that listens on all addresses; else none."""
    if host is not None and host not in _WILDCARDS:
        return []
    names = [socket.gethostname()]
    # Of "::" as well: most systems have it listen on IPv4, too.
    families = [socket.AF_INET] if host == EVERYWHERE else [socket.AF_INET, socket.AF_INET6]
    outgoing = list(filter(None, map(outgoing_address, families)))
    # Without a way to the internet those of local networks, but none that leads nowhere without a scope.
    local = [each for each in offered_addresses() if "%" not in each]
    names += outgoing or [each for each in local if ":" not in each or len(families) > 1]
    return [url_of(name, port, secure=secure) for name in names]
