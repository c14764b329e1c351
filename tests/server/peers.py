"""Clients for tests: the real `websockets` client, and short ways to say what one expects to hear."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from flyx.server.app import Server
from flyx.server.config import LimitConfig, ServerConfig

# Seconds within which whatever is awaited must have happened, on a slow machine too.
PATIENCE = 10.0

OFFER = {"type": "offer", "data": {"sdp": "v=0"}}
ANSWER = {"type": "answer", "data": {"sdp": "v=0"}}


def candidate(text: str = "candidate:1 1 udp 1 192.0.2.1 9 typ host", **data: object) -> dict[str, object]:
    return {"type": "ice_candidate", "data": {"candidate": {"candidate": text, "sdpMid": "0"}, **data}}


def to(client_id: str, message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "data": {**message["data"], "target_id": client_id}}


def http_of(server: Server, port: int | None = None) -> httpx.AsyncClient:
    # Without TLS there is nothing to verify, and to load the authorities would take 25 ms each time.
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port or server.port}", verify=False)


class Peer:
    """A connected client.

    Attributes:
        socket: The connection.
        joined: Data of the `joined` message; empty for a client that was refused.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.joined: dict[str, Any] = {}

    @property
    def id(self) -> str:
        return str(self.joined["client_id"])

    @property
    def room_id(self) -> str:
        return str(self.joined["room_id"])

    async def say(self, message: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            message = json.loads(await self.socket.recv())
        assert set(message) == {"type", "data"}
        return dict(message)

    async def expect(self, kind: str) -> dict[str, Any]:
        """The data of the next message, which must be of this type."""
        message = await self.hear()
        assert message["type"] == kind, message
        return dict(message["data"])

    async def expect_error(self, code: str, *, fatal: bool = False) -> None:
        data = await self.expect("error")
        assert (data["code"], data["fatal"]) == (code, fatal), data
        assert data["message"]

    async def expect_close(self, code: int) -> None:
        assert await self.drain() == []
        assert self.socket.close_code == code, (self.socket.close_code, self.socket.close_reason)

    async def drain(self) -> list[dict[str, Any]]:
        """Everything up to the close."""
        heard: list[dict[str, Any]] = []
        try:
            while True:
                heard.append(await self.hear())
        except ConnectionClosed:
            return heard

    async def expect_silence(self) -> None:
        """Nothing has been sent before now: the answer to a ping is the next message."""
        await self.say({"type": "ping"})
        await self.expect("pong")


@asynccontextmanager
async def peer(server: Server, path: str = "/ws", **options: Any) -> AsyncIterator[Peer]:
    """Connect, without expecting to be let in."""
    # Many leave messages unread; a client that does not read does not see the server's close either.
    async with connect(server.url + path, **{"close_timeout": 0.5, **options}) as socket:
        yield Peer(socket)


@asynccontextmanager
async def joined(server: Server, path: str = "/ws", **options: Any) -> AsyncIterator[Peer]:
    """Connect and take the `joined` message."""
    async with peer(server, path, **options) as client:
        client.joined = await client.expect("joined")
        yield client


@asynccontextmanager
async def pair(server: Server) -> AsyncIterator[tuple[Peer, Peer]]:
    """A sender and a receiver in a new room, with their introductions over."""
    async with joined(server) as sender, joined(server, f"/ws/{sender.room_id}") as receiver:
        assert (await sender.expect("join"))["client_id"] == receiver.id
        yield sender, receiver


@asynccontextmanager
async def trio(server: Server) -> AsyncIterator[tuple[Peer, Peer, Peer]]:
    """A sender and two receivers in a new room, with their introductions over."""
    async with pair(server) as (sender, first), joined(server, f"/ws/{sender.room_id}") as second:
        await sender.expect("join")
        yield sender, first, second


UNLIMITED = LimitConfig(
    create_rate=None,
    join_rate=None,
    miss_rate=None,
    total_miss_rate=None,
    message_rate=0.0,
    max_offers_per_peer=0,
    max_candidates_per_peer=0,
)


def local(**changes: Any) -> ServerConfig:
    """The config of a server for one test: all tests are one address and in a hurry, beyond any limit."""
    return ServerConfig(**{"host": "127.0.0.1", "port": 0, "limits": UNLIMITED, **changes})


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for: it is the kernel's state)
            await asyncio.sleep(0.005)


class FakeClock:
    """Unix time that passes when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
