"""Event loops whose plain UDP sockets are flyx.net.udp's.

A library that calls create_datagram_endpoint() gets the faster transport without knowing of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from flyx.net.udp import UdpTransport

Endpoint = tuple[asyncio.BaseTransport, asyncio.BaseProtocol]

# Of gc.set_threshold(); those of Python are 700, 10, 10.
_GC_THRESHOLDS = 10_000, 10, 10

# Of mallopt(3), in glibc's malloc.h, and bytes: more than a transfer has under way.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 32 << 20

# Those of a loop are 9, with what is loaded meanwhile. No transfer is made with 20.
_FIRST_FILES = 16


def calm_collector() -> None:
    """Have the garbage collector stop the event loop less often; for a process that does nothing but run one.

    Each client of a server is many objects that live long, and so is a manifest, and each full collection
    looks at all of them: by default the collector takes a tenth of the CPU while 4,000 clients come, in
    pauses of up to 0.2 s. Little of what we drop is in cycles, so looking a fourteenth as often costs some
    memory for a while. What the program itself consists of is never looked at.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()


def calm_allocator() -> None:
    """Have the C library keep freed memory for what is allocated next; for a process that moves bulk data.

    By default it gives each block and each message back to the kernel, hundreds of times a second, and every
    4 KiB of the next one cost a page fault: 6 % of a transfer's CPU. Does nothing where it is not glibc.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)


def raise_file_limit(enough: int | None = None) -> None:
    """Let this process have more files and sockets open, if it may have few.

    Args:
        enough: how many it needs; None: as many as the system allows.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = hard if enough is None else enough if hard == unlimited else min(enough, hard)
    if soft == unlimited or (wanted != unlimited and soft >= wanted):
        return
    # Where "as many as it likes" is more than it can have, what there was stays.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_files() -> None:
    """Fail at once where an event loop could not have the few files and sockets that it begins with.

    libuv aborts the process if it gets none for its signals, and a loop of uvloop that gets none a moment
    later can be neither run nor closed.

    Raises:
        OSError: this process may not have that many more open.
    """
    with ExitStack() as opened:
        for _ in range(_FIRST_FILES):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))


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
