"""Event loops whose plain UDP sockets are flyx.net.udp's.

A library that calls create_datagram_endpoint() gets the faster transport without knowing of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from flyx.net.udp import UdpTransport

Endpoint = tuple[asyncio.BaseTransport, asyncio.BaseProtocol]


def with_udp_endpoints(base: Any) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a subclass of an event loop: datagram endpoints that only have a local address are ours.

    A link-local IPv6 address may be written with its interface, on uvloop as well: `fe80::1%eth0`.
    """

    class Loop(base):  # type: ignore[misc]  # any event loop that has add_reader() and add_writer()
        async def create_datagram_endpoint(
            self,
            protocol_factory: Callable[[], asyncio.BaseProtocol],
            local_addr: Any = None,
            remote_addr: Any = None,
            **options: Any,
        ) -> Endpoint:
            special = any(value for name, value in options.items() if name != "family")
            # A local address that is a string is that of a Unix socket.
            if remote_addr is None and isinstance(local_addr, tuple) and not special:
                family = options.get("family", 0)
                return await create_udp_endpoint(self, protocol_factory, local_addr, family=family)
            endpoint: Endpoint = await super().create_datagram_endpoint(
                protocol_factory, local_addr, remote_addr, **options
            )
            return endpoint

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
            if isinstance(host, str) and "%" in host:
                return _scoped(host, port, **options)
            found: list[Any] = await super().getaddrinfo(host, port, **options)
            return found

    Loop.__name__ = Loop.__qualname__ = f"{base.__name__}WithUdpEndpoints"
    return Loop


async def create_udp_endpoint(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    local_addr: tuple[str, int],
    *,
    family: int = 0,
    offload: bool = True,
) -> tuple[UdpTransport, asyncio.BaseProtocol]:
    """Bind a UDP socket; connection_made() has been called when this returns.

    Raises:
        OSError: no address that local_addr stands for can be bound.
    """
    sock = await _bound_socket(loop, local_addr, family)
    try:
        protocol = protocol_factory()
        return UdpTransport(loop, sock, protocol, offload=offload), protocol
    except BaseException:
        sock.close()
        raise


async def _bound_socket(
    loop: asyncio.AbstractEventLoop, address: tuple[str, int], family: int
) -> socket.socket:
    host, port = address[:2]
    if "%" in host:
        found = _scoped(host, port, family=family, type=socket.SOCK_DGRAM)
    else:
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
    failure = OSError(f"no address for {host}")
    for kind, _, number, _, resolved in found:
        sock = socket.socket(kind, socket.SOCK_DGRAM, number)
        try:
            sock.bind(resolved)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _scoped(host: str, port: Any, *, flags: int = 0, **options: Any) -> list[Any]:
    """Look up a link-local address with its interface, which uvloop forgets: it cannot be bound without."""
    return socket.getaddrinfo(host, port, flags=flags | socket.AI_NUMERICHOST, **options)


try:
    import uvloop
except ImportError:
    # Not made for every platform.
    new_event_loop = with_udp_endpoints(asyncio.SelectorEventLoop)
    """The fastest event loop there is, with our UDP endpoints: a loop_factory of asyncio.Runner."""
else:
    new_event_loop = with_udp_endpoints(uvloop.Loop)
