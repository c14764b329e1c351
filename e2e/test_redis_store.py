"""The store of many nodes against a real Redis: the same contract as for every store, and its scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from e2e.redis import RedisServer
from flyx.server.redis.client import RedisShared
from flyx.server.redis.store import RedisRoomStore
from flyx.server.store import RoomStore
from flyx.signaling.commands import Effects
from flyx.signaling.messages import CloseCode, ErrorCode
from tests.server.store_contract import RoomStoreContract


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


class Everybody:
    """Clients that are always here and take everything."""

    def see_to(self, effects: Effects) -> None: ...

    def holds(self, client_id: str, generation: int) -> bool:
        return True

    def send(self, client_id: str, generation: int, text: str, *, counted: bool) -> None: ...

    async def oust(self, room_id: str, client_id: str, generation: int) -> None: ...

    def relayed_elsewhere(self, clients: int) -> None: ...

    def close(
        self, client_id: str, generation: int, code: CloseCode, error: ErrorCode, reason: str
    ) -> None: ...


@asynccontextmanager
async def node(redis_server: RedisServer, **options: object) -> AsyncIterator[RedisRoomStore]:
    store = RedisRoomStore(RedisShared(redis_server.url), **{"max_rooms": 100, **options})  # type: ignore[arg-type]
    store.clients = Everybody()
    await store.open(0.0)
    try:
        yield store
    finally:
        await store.close()


class TestRedisRoomStore(RoomStoreContract):
    server: RedisServer

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        redis_server.ask("FLUSHALL")
        self.server = redis_server

    @asynccontextmanager
    async def make_store(self, *, max_rooms: int = 100, max_per_creator: int = 0) -> AsyncIterator[RoomStore]:
        async with node(self.server, max_rooms=max_rooms, max_per_creator=max_per_creator) as store:
            yield store
            # Whatever was done, nothing stays for ever.
            assert all(ttl > 0 for ttl in self.server.keys().values()), self.server.keys()
