"""Sockets and uvicorn: binding with errors that people understand, and uvicorn fitted to our needs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from flyx.errors import InputError
from flyx.net.interfaces import offered_addresses, outgoing_address
from flyx.server.config import ServerConfig
from flyx.server.http.access import Doorkeeper
from flyx.server.limits import ConnectionCounter
from flyx.server.logs import get_logger
from flyx.server.transport.coalescing import Turn
from flyx.server.transport.protocols import HttpProtocol, WebSocketProtocol
from flyx.server.transport.tls import Certificate, TlsServer

log = get_logger("flyx.server.transport.listener")

# Connections that the kernel accepts before we do: a restarted server meets all its clients at once.
_BACKLOG = 2048
# Seconds that requests have to finish when the server stops, after the WebSockets are closed.
_HTTP_GRACE = 1
# Seconds between two looks whether they have: uvicorn has no event for it.
_SHUTDOWN_STEP = 0.01
# Files that a server needs besides those of its connections, and of those it turns away.
_OTHER_FILES = 64 + 2 * ConnectionCounter.SLACK

# What a server that listens on every address is called, and what stands for it on this computer.
_EVERYWHERE = "0.0.0.0"  # noqa: S104
_WILDCARDS = {_EVERYWHERE: "127.0.0.1", "::": "::1"}
# What binding to IPv6 ends in on a computer without it.
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL}
# Ports tried in turn for one that is free for IPv4 and for IPv6.
_TRIES = 16


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
        host: Address or name; None: every address, of IPv4 and, where there is IPv6, of that.
        port: 0 takes any free one.
        shared: Other processes of ours listen there, too, and the kernel spreads connections over them.
        host_option: Where a person says the host, for hints.
        port_option: Where a person says the port.

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
            sockets[-1].listen(_BACKLOG)
    except OSError as exc:
        for bound in sockets:
            bound.close()
        raise _explain(host, port, exc, host_option, port_option) from exc
    return sockets


def _bind_everywhere(port: int, *, shared: bool) -> list[socket.socket]:
    """Return a socket for IPv4 and one for IPv6: so the address of a client is of the family that it has."""
    for tries in range(_TRIES):
        sockets = [_bind_one(socket.AF_INET, (_EVERYWHERE, port), shared=shared)]
        try:
            sockets[0].listen(_BACKLOG)
            chosen = sockets[0].getsockname()[1]
            with _without_ipv6():
                sockets.append(_bind_one(socket.AF_INET6, ("::", chosen), shared=shared, only_ipv6=True))
                sockets[-1].listen(_BACKLOG)
        except OSError as exc:
            for bound in sockets:
                bound.close()
            # A port that is free for IPv4 alone is not free.
            if port or exc.errno != errno.EADDRINUSE or tries == _TRIES - 1:
                raise
        else:
            break
    return sockets


@contextlib.contextmanager
def _without_ipv6() -> Iterator[None]:
    """Leave IPv6 out where there is none."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _NO_IPV6:
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
    # Nobody else may have it, not even somebody who would share it.
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


def _explain(host: str | None, port: int, exc: OSError, host_option: str, port_option: str) -> InputError:
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        hint = f"{host_option} takes an address of this computer; 0.0.0.0 stands for all of IPv4, :: for all"
        return InputError(reason=f"cannot listen on {host}: it is not an address of this computer", hint=hint)
    if exc.errno == errno.EADDRINUSE:
        hint = f"choose another port with {port_option}, or {port_option} 0 for any free one"
        return InputError(reason=f"cannot listen on port {port}: another program uses it", hint=hint)
    if exc.errno == errno.EACCES:
        hint = f"choose a port from 1024 on with {port_option}; lower ones are for the administrator"
        return InputError(reason=f"cannot listen on port {port}: not permitted", hint=hint)
    return InputError(reason=f"cannot listen on {host}, port {port}: {exc.strerror}")


def url_of(host: str | None, port: int, *, secure: bool = False, scheme: str | None = None) -> str:
    """Return the WebSocket URL of a server that listens on host and port, or that of another scheme."""
    host = host or _EVERYWHERE
    scheme = scheme or ("wss" if secure else "ws")
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def connectable(host: str | None) -> str:
    """Return a host that this computer can connect to for a server that listens on host."""
    host = host or _EVERYWHERE
    return _WILDCARDS.get(host, host)


def reachable_urls(host: str | None, port: int, *, secure: bool = False) -> list[str]:
    """Return the URLs under which others probably reach a server that listens on all addresses; else none."""
    if host is not None and host not in _WILDCARDS:
        return []
    names = [socket.gethostname()]
    # Of "::" as well: most systems have it listen on IPv4, too.
    families = [socket.AF_INET] if host == _EVERYWHERE else [socket.AF_INET, socket.AF_INET6]
    outgoing = list(filter(None, map(outgoing_address, families)))
    # Without a way to the internet those of local networks, but none that leads nowhere without a scope.
    local = [each for each in offered_addresses() if "%" not in each]
    names += outgoing or [each for each in local if ":" not in each or len(families) > 1]
    return [url_of(name, port, secure=secure) for name in names]


# What uvicorn logs as if it were an error of ours: garbage from clients, as often as they like.
_CLIENTS_FAULTS = ("Invalid UTF-8", "Invalid HTTP request", "Unsupported upgrade request")


def _is_not_a_clients_fault(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_CLIENTS_FAULTS)


def affordable_connections(wanted: int) -> int:
    """Return wanted, or less if this process may not have so many files open; 0 stands for no limit in both.

    A server that runs out of files cannot even say so to whom it turns away.
    """
    try:
        import resource
    except ImportError:
        return wanted
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = max(1, soft - _OTHER_FILES)
    return min(wanted or most, most)


class Listener(uvicorn.Server):
    """uvicorn inside somebody else's event loop: no signal handlers, and `ready` tells when it serves."""

    def __init__(
        self, app: ASGIApp, config: ServerConfig, door: Doorkeeper, certificate: Certificate | None
    ) -> None:
        """Args:
        app: What is served.
        config: Limits and times.
        door: Counts the connections.
        certificate: What the server shows; None: no TLS.
        """
        self._door = door
        self._certificate = certificate
        self._handshake_timeout = config.limits.handshake_timeout
        shared = {"settings": config, "door": door, "turn": Turn()}
        self._http_protocol: type[HttpProtocol] = type("HttpProtocol", (HttpProtocol,), shared)
        super().__init__(
            uvicorn.Config(
                app,
                http=self._http_protocol,
                ws=type("WebSocketProtocol", (WebSocketProtocol,), shared),
                # Signaling messages are small and many: compression costs memory for every idle client and
                # lets a few bytes blow up to megabytes.
                ws_per_message_deflate=False,
                ws_max_size=config.limits.max_frame_size,
                ws_ping_interval=config.ping_interval,
                ws_ping_timeout=config.ping_timeout,
                lifespan="off",
                # At "info" uvicorn logs paths, which hold room ids, and addresses of clients.
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
            )
        )
        self.ready = asyncio.Event()
        self._finishing = asyncio.Event()
        logging.getLogger("uvicorn.error").addFilter(_is_not_a_clients_fault)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the event loop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        loop = asyncio.get_running_loop()
        # uvicorn closes them, and asks no more of them.
        servers: list[asyncio.AbstractServer | TlsServer] = []
        for bound in sockets or []:
            if self._certificate is None:
                servers.append(await loop.create_server(self._make_http, sock=bound, backlog=_BACKLOG))
            else:
                servers.append(
                    TlsServer(
                        bound,
                        self._certificate,
                        self._door,
                        self._make_http,
                        handshake_timeout=self._handshake_timeout,
                    )
                )
        self.servers = cast(list[asyncio.base_events.Server], servers)
        self.started = True
        self.ready.set()

    def _make_http(self) -> HttpProtocol:
        return self._http_protocol(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, end what can be ended in good order, and cut off the rest.

        uvicorn's own takes a tenth of a second for each step, which tests would wait for a thousand times.
        """
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        end = asyncio.get_running_loop().time() + _HTTP_GRACE
        while self.server_state.connections or self.server_state.tasks:
            if asyncio.get_running_loop().time() > end:
                log.warning("connections cut off", connections=len(self.server_state.connections))
                break
            await asyncio.sleep(_SHUTDOWN_STEP)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        for server in self.servers:
            await server.wait_closed()

    def finish(self) -> None:
        """Make `serve` stop listening, close what is still open, and return."""
        self.should_exit = True
        self._finishing.set()

    async def main_loop(self) -> None:
        """Wait for the end; once a second, let uvicorn write the time into its headers.

        uvicorn's own loop wakes up ten times a second to see whether it shall exit.
        """
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), 1.0)
