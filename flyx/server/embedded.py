"""The server of a sender that serves itself: one room, for as long as it sends.

It is the server of `flyx serve`, application, limits and all, held to less: only its own sender can
make a room, there is one, and what watches over servers is not there for strangers.
"""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Self

from flyx.errors import InputError
from flyx.server.app import Server
from flyx.server.config import LimitConfig, ServerConfig
from flyx.server.logs import get_logger
from flyx.server.transport.urls import url_of
from flyx.signaling.config import RoomConfig
from flyx.signaling.local import LOCAL_PORTS

log = get_logger("flyx.server.embedded")

MAX_CONNECTIONS = 128
MAX_CONNECTIONS_PER_ADDRESS = 32
"""Connections at a time: the sender needs descriptors for files and peers, which strangers must not take."""

CLOSE_TIMEOUT = 0.5
"""Seconds for a client to take its last messages when the sender ends."""

STOP_TIMEOUT = 1.5
"""Seconds that the end of the server may take, whatever its clients do."""

_TOKEN_SIZE = 24
"""Of randomness, in bytes."""


class EmbeddedServer:
    """Serves one room in the current event loop while its `async with` block runs.

    Attributes:
        port: where it listens, on all addresses. Set from the beginning of the block on.
        url: for clients on this computer, likewise.
        api_token: what makes the room.
    """

    def __init__(self) -> None:
        self.port = 0
        self.url = ""
        self.api_token = secrets.token_urlsafe(_TOKEN_SIZE)
        self._server: Server

    async def __aenter__(self) -> Self:
        """Listen, on one of LOCAL_PORTS if any is free.

        Raises:
            InputError: No port can be had.
        """
        self._server = await self._start()
        self.port, self.url = self._server.port, url_of("127.0.0.1", self._server.port)
        return self

    async def _start(self) -> Server:
        for port in LOCAL_PORTS:
            server = Server(self._config(port))
            try:
                await server.start()
                return server
            except InputError:
                # Another sender has it, or some other program.
                continue
        server = Server(self._config(0))
        await server.start()
        return server

    def _config(self, port: int) -> ServerConfig:
        return ServerConfig(
            # Others are to reach it, over IPv4 and, where there is any, over IPv6.
            host=None,
            port=port,
            # Candidates of the hosts are enough, and there may be no way to a STUN server.
            stun_urls=(),
            # As old as its sender gets.
            room=RoomConfig(ttl=None),
            max_rooms=1,
            # POST /room could make none either.
            api_token=self.api_token,
            metrics_token=secrets.token_urlsafe(_TOKEN_SIZE),
            # It has no TLS, without which browsers lack what the page needs.
            page=False,
            # Receivers come by address. A name is that of a page which was led here (DNS rebinding).
            allowed_hosts=("localhost",),
            close_timeout=CLOSE_TIMEOUT,
            limits=LimitConfig(
                max_connections=MAX_CONNECTIONS, max_connections_per_address=MAX_CONNECTIONS_PER_ADDRESS
            ),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._server.stop()
        except TimeoutError:
            # The end of the process closes what is left.
            log.info("cut off what was still open")
