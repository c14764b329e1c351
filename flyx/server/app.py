"""The server as a whole: the ASGI application, and `Server`, which runs it inside any event loop.

async with Server(ServerConfig(host="127.0.0.1", port=0)) as server:
    print(server.url)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from fastapi import FastAPI

from flyx import __version__
from flyx.server import rest, websocket
from flyx.server.config import ServerConfig
from flyx.server.gate import Gate
from flyx.server.hub import Hub
from flyx.server.listener import Listener, affordable_connections, bind, connectable, reachable_urls, url_of
from flyx.server.logs import get_logger
from flyx.server.store import MemoryRoomStore, RoomStore
from flyx.signaling.room import RoomConfig

log = get_logger("flyx.server.app")


def create_app(hub: Hub) -> FastAPI:
    """Return the ASGI application that serves hub."""
    app = FastAPI(
        title="flyx signaling server",
        version=__version__,
        description="Rooms in which a sender and its receivers find each other; they talk over `WS /ws`.",
        # Their pages load scripts from elsewhere; /openapi.json is for the tools of one's choice.
        docs_url=None,
        redoc_url=None,
    )
    app.state.hub = hub
    app.include_router(rest.router)
    app.include_router(websocket.router)
    app.add_middleware(rest.BodyLimit)
    app.add_middleware(Gate, config=hub.config, door=hub.door)
    rest.add_error_handlers(app)
    return app


class Server:
    """A signaling server that runs in the current event loop while its `async with` block does.

    It installs no signal handlers and configures no logging.
    """

    def __init__(self, config: ServerConfig | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Args:
        config: What to listen on, and the limits.
        clock: Returns Unix time; for tests.
        """
        config = config or ServerConfig()
        wanted = config.limits.max_connections
        affordable = affordable_connections(wanted)
        if affordable != wanted:
            log.info("fewer connections, for want of open files", wanted=wanted, limit=affordable)
        self.config = replace(config, limits=replace(config.limits, max_connections=affordable))
        # Set from start() on: port is the real one, whatever was asked for.
        self.port = 0
        self.test_room_id: str | None = None
        self._store: RoomStore = MemoryRoomStore(max_rooms=self.config.max_rooms)
        self._hub = Hub(self._store, self.config, clock=clock)
        self._listener = Listener(create_app(self._hub), self.config, self._hub.door)
        self._serving: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """URL for clients on this computer, such as ws://127.0.0.1:8000."""
        return url_of(connectable(self.config.host), self.port)

    @property
    def listening_url(self) -> str:
        """URL with the host as it was asked for, such as ws://0.0.0.0:8000."""
        return url_of(self.config.host, self.port)

    async def start(self) -> None:
        """Bind, and return when clients can connect.

        Raises:
            InputError: The host or the port cannot be used.
        """
        sockets = await bind(self.config.host, self.config.port)
        self.port = sockets[0].getsockname()[1]
        await self._store.open(self._hub.clock())
        if self.config.test_room:
            created = await self._hub.create_room(RoomConfig(ttl=None, persistent=True))
            self.test_room_id = created.room.room_id
            log.info("test room ready", room_id=self.test_room_id, url=f"{self.url}/ws/{self.test_room_id}")
        self._serving = asyncio.create_task(self._listener.serve(sockets))
        self._sweeping = asyncio.create_task(self._sweep())
        await self._listener.ready.wait()
        log.info("listening", url=self.listening_url, version=__version__)
        for url in reachable_urls(self.config.host, self.port):
            log.info("others may reach this server", url=url)

    async def stop(self) -> None:
        """Tell every client, close every connection and return. Takes at most a few seconds."""
        assert self._serving is not None
        assert self._sweeping is not None
        log.info("stopping", clients=self._hub.client_count)
        self._sweeping.cancel()
        await self._hub.stop()
        self._listener.finish()
        await self._serving
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeping
        await self._store.close()
        log.info("stopped")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.config.sweep_interval)
            try:
                await self._hub.sweep()
            except Exception:
                # Rooms that never expire would fill the server; the next round may fare better.
                log.exception("sweep failed")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
