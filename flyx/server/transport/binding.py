"""WebSockets that listen, and errors that people understand where there can be none."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from flyx.errors import InputError
from flyx.server.logs import get_logger
from flyx.server.transport.urls import EVERYWHERE

log = get_logger("flyx.server.transport.binding")

BACKLOG = 2048
"""Connections that the kernel accepts before we do: a restarted server meets all its clients at once."""

_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL}
"""What binding to IPv6 ends in on a computer without it."""

_TRIES = 16
"""Ports tried in turn for one that is free for IPv4 and for IPv6."""


async def bind(
    host: str | None,
    port: int,
    *,
    shared: bool = False,
    host_option: str = "--host",
    port_option: str = "--port",
) -> list[socket.socket]:
    """Return sockets that listen on every address that host resolves to, all on the same port.

    Args:
        host: address or name; None: every address, of IPv4 and, where there is IPv6, of that.
        port: 0 takes any free one.
        shared: other processes of ours listen there, too, and the kernel spreads connections over them.
        host_option: where a person says the host, for hints.
        port_option: where a person says the port.

    Raises:
        InputError: host is not here, or port cannot be had.
    """
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        if host is None:
            return _bind_everywhere(port, shared=shared)
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # The same address can come up more than once.
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_bind_one(family, (address[0], chosen, *address[2:]), shared=shared))
            # Several sockets may be bound to one port as long as none listens: only now is it ours.
            sockets[-1].listen(BACKLOG)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise _explain(host, port, error, host_option, port_option) from error
    return sockets


def _bind_everywhere(port: int, *, shared: bool) -> list[socket.socket]:
    """Return a socket for IPv4 and one for IPv6: so the address of a client is of the family that it has."""
    for tries in range(_TRIES):
        sockets = [_bind_one(socket.AF_INET, (EVERYWHERE, port), shared=shared)]
        try:
            sockets[0].listen(BACKLOG)
            chosen = sockets[0].getsockname()[1]
            with _without_ipv6():
                sockets.append(_bind_one(socket.AF_INET6, ("::", chosen), shared=shared, only_ipv6=True))
                sockets[-1].listen(BACKLOG)
        except OSError as error:
            for bound in sockets:
                bound.close()
            # A port that is free for IPv4 alone is not free.
            if port or error.errno != errno.EADDRINUSE or tries == _TRIES - 1:
                raise
        else:
            break
    return sockets


@contextlib.contextmanager
def _without_ipv6() -> Iterator[None]:
    """Leave IPv6 out where there is none."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        log.info("no IPv6 on this computer: listening on IPv4 alone")


async def reserve(host: str | None, port: int) -> list[socket.socket]:
    """Return sockets that keep a port for processes which bind it as `shared`, without listening themselves.

    Raises:
        InputError: host is not here, port cannot be had, or this system does not share ports.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise InputError(
            reason="this system does not share a port among processes", hint="leave out --workers"
        )
    # No other program may have it, not even one that would share it.
    taken = await bind(host, port)
    addresses = [(bound.family, bound.getsockname()) for bound in taken]
    for bound in taken:
        bound.close()
    return [
        _bind_one(family, address, shared=True, only_ipv6=host is None and family == socket.AF_INET6)
        for family, address in addresses
    ]


def _bind_one(
    family: int, address: tuple[object, ...], *, shared: bool, only_ipv6: bool = False
) -> socket.socket:
    # asyncio sets TCP_NODELAY only on sockets that name the protocol, and what a socket accepts inherits it.
    # Without it two small messages in a row are 40 ms apart.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # Elsewhere the option lets two servers share one port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if only_ipv6:
            # Else the port would be taken by the socket for IPv4, or not, as the system has it.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _explain(host: str | None, port: int, error: OSError, host_option: str, port_option: str) -> InputError:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        hint = f"{host_option} takes an address of this computer; 0.0.0.0 stands for all of IPv4, :: for all"
        return InputError(reason=f"cannot listen on {host}: it is not an address of this computer", hint=hint)
    if error.errno == errno.EADDRINUSE:
        hint = f"choose another port with {port_option}, or {port_option} 0 for any free one"
        return InputError(reason=f"cannot listen on port {port}: another program uses it", hint=hint)
    if error.errno == errno.EACCES:
        hint = f"choose a port from 1024 on with {port_option}; lower ones are for the administrator"
        return InputError(reason=f"cannot listen on port {port}: not permitted", hint=hint)
    return InputError(reason=f"cannot listen on {host}, port {port}: {error.strerror}")
