"""The server as a whole: the ASGI application, and `Server`, which runs it inside any event loop.

async with Server(ServerConfig(host="127.0.0.1", port=0)) as server:
    print(server.url)
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from fastapi import FastAPI
from starlette.types import ASGIApp

from flyx import __version__
from flyx.errors import InputError
from flyx.server.admission import Admission, affordable_connections
from flyx.server.config import MAX_TTL, ServerConfig
from flyx.server.coturn import Coturn
from flyx.server.http import operations, pages, rest, websocket
from flyx.server.http.access import AccessControl
from flyx.server.http.bodies import BodyLimit
from flyx.server.http.errors import add_error_handlers
from flyx.server.logs import get_logger
from flyx.server.redis.client import RedisBackend
from flyx.server.redis.store import RedisRoomStore
from flyx.server.rooms.hub import Hub
from flyx.server.rooms.sqlite import SqliteRoomStore
from flyx.server.rooms.store import UNAVAILABLE, MemoryRoomStore, RoomStore, StoreFull, StoreUnavailable
from flyx.server.transport.binding import bind
from flyx.server.transport.listener import Listener
from flyx.server.transport.tls import Certificate
from flyx.server.transport.urls import connectable, reachable_urls, url_of
from flyx.server.turn import check_ice_servers

log = get_logger("flyx.server.app")

_PLAIN = "browsers elsewhere need https: --tls-cert, or a proxy that has it (flyx help serving)"


def create_app(hub: Hub) -> ASGIApp:
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
    if hub.config.admin_token is not None:
        app.include_router(rest.admin)
    app.include_router(operations.health)
    if hub.config.metrics_port is None:
        app.include_router(operations.router)
    if hub.config.page:
        pages.add_pages(app, pages.load())
    app.add_middleware(BodyLimit, limit=hub.config.limits.max_body_size)
    add_error_handlers(app, hub.admission)
    if hub.config.api_token is None:
        _need_no_token(app, ("/room", "post"))
    if hub.config.metrics_token is None:
        _need_no_token(app, ("/status", "get"), ("/metrics", "get"))
    # Not as middleware of the application: a WebSocket would pay for all that FastAPI puts around it.
    return AccessControl(websocket.WebSockets(app, hub), hub.config, hub.admission)


def _need_no_token(app: FastAPI, *operations: tuple[str, str]) -> None:
    """Have the description of app say so."""
    paths = app.openapi()["paths"]
    for path, method in operations:
        paths.get(path, {}).get(method, {}).pop("security", None)


def create_operations_app(hub: Hub, config: ServerConfig, admission: Admission) -> FastAPI:
    """Return the ASGI application for those who watch over hub, on a port of its own.

    Args:
        hub: what it tells of.
        config: of the listener that it is for.
        admission: of that listener: who watches must not be turned away because many others came.
    """
    app = FastAPI(title="flyx operations", version=__version__, docs_url=None, redoc_url=None)
    app.state.hub = hub
    app.include_router(operations.health)
    app.include_router(operations.router)
    app.add_middleware(BodyLimit, limit=hub.config.limits.max_body_size)
    app.add_middleware(AccessControl, config=config, admission=admission)
    add_error_handlers(app, admission)
    return app


def _make_store(config: ServerConfig, clock: Callable[[], float]) -> RoomStore:
    most, most_per_creator = config.max_rooms, config.max_persistent_per_address
    if config.redis is not None:
        backend = RedisBackend(config.redis)
        return RedisRoomStore(backend, max_rooms=most, max_per_creator=most_per_creator, clock=clock)
    if config.state is None:
        return MemoryRoomStore(max_rooms=most, max_per_creator=most_per_creator)
    return SqliteRoomStore(config.state, max_rooms=most, max_per_creator=most_per_creator)


class Server:
    """A signaling server that runs in the current event loop while its `async with` block does.

    It installs no signal handlers and configures no logging.
    """

    def __init__(self, config: ServerConfig | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Args:
        config: what to listen on, and the limits.
        clock: returns Unix time; for tests.

        Raises:
            InputError: the STUN and TURN servers are none that clients take.
        """
        config = config or ServerConfig()
        check_ice_servers(config.stun_urls, config.turn)
        wanted = config.limits.max_connections
        affordable = affordable_connections(wanted)
        if affordable != wanted:
            asked = f"{wanted:,} were" if wanted else "no limit was"
            text = f"allows {affordable:,} connections (open-file limit); {asked} asked for"
            log.info(text)
        self.config = replace(config, limits=replace(config.limits, max_connections=affordable))
        # Set from start() on: port is the real one, whatever was asked for.
        self.port = 0
        self.metrics_port = 0
        self.test_room_id: str | None = None
        self._store = _make_store(self.config, clock)
        self._hub = Hub(self._store, self.config, clock=clock)
        if isinstance(self._store, RedisRoomStore):
            self._store.attach(self._hub)
        self._certificate = Certificate(*self.config.tls) if self.config.tls else None
        self._coturn = Coturn(self.config.coturn, self._hub.metrics) if self.config.coturn else None
        self._listener = Listener(create_app(self._hub), self.config, self._hub.admission, self._certificate)
        self._operations = self._make_operations()
        self._serving: list[asyncio.Task[None]] = []
        # What goes on as long as the server runs.
        self._chores: list[asyncio.Task[None]] = []

    def _make_operations(self) -> Listener | None:
        if self.config.metrics_port is None:
            return None
        # Names under which clients may come are not those under which monitoring does; nor are its pages any.
        config = replace(self.config, host=self.config.metrics_host, allowed_hosts=(), allowed_origins=())
        admission = Admission(config, self._hub.metrics)
        return Listener(create_operations_app(self._hub, config, admission), config, admission, None)

    @property
    def url(self) -> str:
        """URL for clients on this computer, such as ws://127.0.0.1:8000."""
        return url_of(connectable(self.config.host), self.port, secure=self._secure)

    @property
    def listening_url(self) -> str:
        """URL with the host as it was asked for, such as ws://0.0.0.0:8000, which stands for IPv6 too."""
        return url_of(self.config.host, self.port, secure=self._secure)

    @property
    def turn_up(self) -> bool:
        """Whether the coturn of this server answers."""
        return bool(self._hub.metrics.turn_up)

    @property
    def _secure(self) -> bool:
        return self._certificate is not None

    async def start(self) -> None:
        """Bind, and return when clients can connect.

        Raises:
            InputError: The host, the port or the state file cannot be used.
        """
        await self._store.open(self._hub.clock())
        try:
            sockets = await bind(self.config.host, self.config.port, shared=self.config.shared_port)
            self.port = sockets[0].getsockname()[1]
            if self._operations is not None:
                await self._start_operations(self._operations, sockets)
            if self._coturn is not None:
                await self._start_coturn(self._coturn, sockets)
        except InputError:
            await self._store.close()
            raise
        if self.config.test_room:
            await self._provide_test_room()
        self._serving.append(asyncio.create_task(self._listener.serve(sockets)))
        self._chores.append(asyncio.create_task(self._sweep()))
        self._chores.append(asyncio.create_task(self._hub.metrics.watch_loop()))
        await self._listener.ready.wait()
        log.info("listening", url=self.listening_url, version=__version__)
        if self.config.page:
            log.info("page", digest=pages.load().page.digest)
        if urls := reachable_urls(self.config.host, self.port, secure=self._secure):
            # A certificate is for a name, which others may not know otherwise.
            name, *addresses = urls
            url = name if self._secure or not addresses else addresses[0]
            text = f"on other computers: export FLYX_SERVER={url}"
            log.info(text)
            if self.config.page and not (self._secure or self.config.trusted_proxies):
                log.info(_PLAIN)

    async def _provide_test_room(self) -> None:
        try:
            self.test_room_id = await self._store.test_room() or await self._make_test_room()
        except (StoreUnavailable, StoreFull) as error:
            # Neither is a reason not to serve.
            log.warning("no test room", reason=str(error) or UNAVAILABLE)
        else:
            log.info("test room ready", room_id=self.test_room_id, url=f"{self.url}/ws/{self.test_room_id}")

    async def _make_test_room(self) -> str:
        # What many nodes share must not gather the test rooms of all their starts.
        ttl = None if self.config.redis is None else float(MAX_TTL)
        created = await self._hub.create_room(
            replace(self.config.room, ttl=ttl, persistent=True), owned=False
        )
        return created.room.room_id

    async def _start_operations(self, listener: Listener, others: list[socket.socket]) -> None:
        assert self.config.metrics_port is not None
        try:
            sockets = await bind(
                self.config.metrics_host,
                self.config.metrics_port,
                host_option="--metrics-host",
                port_option="--metrics-port",
            )
        except InputError:
            for bound in others:
                bound.close()
            raise
        self.metrics_port = sockets[0].getsockname()[1]
        self._serving.append(asyncio.create_task(listener.serve(sockets)))
        await listener.ready.wait()
        url = url_of(self.config.metrics_host, self.metrics_port, scheme="http")
        log.info("metrics", url=f"{url}/metrics")

    async def _start_coturn(self, coturn: Coturn, others: list[socket.socket]) -> None:
        try:
            await coturn.start()
        except InputError:
            for bound in others:
                bound.close()
            if self._operations is not None:
                self._operations.finish()
                await asyncio.gather(*self._serving)
            raise

    def reload_certificate(self) -> None:
        """Show from now on what the certificate's files hold; what they held if they cannot be used."""
        if self._certificate is None:
            return
        try:
            self._certificate.reload()
        except InputError as error:
            log.error("certificate not reloaded", reason=str(error))
        else:
            log.info("certificate reloaded")
            if self._coturn is not None:
                self._coturn.reload_certificate()

    async def drain(self, seconds: float) -> None:
        """Admit no client, and tell those connected to come back, spread over so many seconds.

        Call stop() next. Returns when all have gone or when the time is over; meanwhile the server answers
        that it is not ready.
        """
        log.info("draining", clients=self._hub.client_count, seconds=seconds)
        await self._hub.drain(seconds)

    async def stop(self) -> None:
        """Tell every client, close every connection and return. Takes at most a few seconds."""
        log.info("stopping", clients=self._hub.client_count)
        for chore in self._chores:
            chore.cancel()
        await self._hub.stop()
        self._listener.finish()
        if self._operations is not None:
            self._operations.finish()
        await asyncio.gather(*self._serving)
        await asyncio.gather(*self._chores, return_exceptions=True)
        if self._coturn is not None:
            await self._coturn.stop()
        await self._store.close()
        log.info("stopped")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.config.sweep_interval)
            try:
                await self._hub.sweep()
            except StoreUnavailable:
                # Whose store it is knows, and has said so.
                continue
            except Exception:
                # Rooms that never expire would fill the server; the next round may fare better.
                log.exception("sweep failed")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
