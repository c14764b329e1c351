"""uvicorn, fitted to our needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import cast

from starlette.types import ASGIApp

from flyx.server.admission import Admission
from flyx.server.config import ServerConfig
from flyx.server.logs import get_logger
from flyx.server.transport.binding import BACKLOG
from flyx.server.transport.coalescing import WriteBatch
from flyx.server.transport.protocols import HttpProtocol, WebSocketProtocol
from flyx.server.transport.seam import Config, Server
from flyx.server.transport.tls import Certificate, TlsServer

log = get_logger("flyx.server.transport.listener")

_HTTP_GRACE = 1
"""Seconds that requests have to finish when the server stops, after the WebSockets are closed."""

_SHUTDOWN_STEP = 0.01
"""Seconds between two looks whether they have: uvicorn has no event for it."""


_CLIENTS_FAULTS = ("Invalid UTF-8", "Invalid HTTP request", "Unsupported upgrade request")
"""What uvicorn logs as if it were an error of ours: garbage from clients, as often as they like."""


def _is_not_a_clients_fault(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_CLIENTS_FAULTS)


class Listener(Server):
    """uvicorn inside the event loop of a program: no signal handlers, and `ready` tells when it serves."""

    def __init__(
        self, app: ASGIApp, config: ServerConfig, admission: Admission, certificate: Certificate | None
    ) -> None:
        """Args:
        app: what is served.
        config: limits and times.
        admission: counts the connections.
        certificate: what the server shows; None: no TLS.
        """
        self._admission = admission
        self._certificate = certificate
        self._handshake_timeout = config.limits.handshake_timeout
        shared = {"settings": config, "admission": admission, "batch": WriteBatch()}
        self._http_protocol: type[HttpProtocol] = type("HttpProtocol", (HttpProtocol,), shared)
        super().__init__(
            Config(
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
                backlog=BACKLOG,
            )
        )
        self.ready = asyncio.Event()
        self._finishing = asyncio.Event()
        logging.getLogger("uvicorn.error").addFilter(_is_not_a_clients_fault)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program that runs the event loop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        loop = asyncio.get_running_loop()
        # uvicorn closes them, and asks no more of them.
        servers: list[asyncio.AbstractServer | TlsServer] = []
        for bound in sockets or []:
            if self._certificate is None:
                servers.append(await loop.create_server(self._make_http, sock=bound, backlog=BACKLOG))
            else:
                servers.append(
                    TlsServer(
                        bound,
                        self._certificate,
                        self._admission,
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
