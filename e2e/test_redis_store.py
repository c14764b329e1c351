"""The store of many nodes against a real Redis: the same contract as for every store, and its scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from e2e.redis import RedisServer
from flyx.server.redis.backend import Budget, SharedRoom
from flyx.server.redis.client import RedisBackend
from flyx.server.redis.store import RedisRoomStore
from flyx.server.rooms.store import RoomStore
from flyx.signaling.commands import Effects
from flyx.signaling.messages import CloseCode, ErrorCode
from tests.server.rooms.store_contract import RoomStoreContract, a_room


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


class Everybody:
    """Clients that are always here and take everything."""

    def dispatch(self, effects: Effects) -> None: ...

    def holds(self, client_id: str, generation: int) -> bool:
        return True

    def send(self, client_id: str, generation: int, text: str, *, counted: bool) -> None: ...

    async def take_over(self, room_id: str, client_id: str, generation: int) -> None: ...

    def relayed_elsewhere(self, clients: int) -> None: ...

    def close(
        self, client_id: str, generation: int, code: CloseCode, error: ErrorCode, reason: str
    ) -> None: ...


@asynccontextmanager
async def node(redis_server: RedisServer, **options: object) -> AsyncIterator[RedisRoomStore]:
    store = RedisRoomStore(RedisBackend(redis_server.url), **{"max_rooms": 100, **options})  # type: ignore[arg-type]
    store.attach(Everybody())
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

    async def test_a_connection_that_redis_has_closed_is_made_anew(self) -> None:
        async with self.make_store() as store:
            assert await store.create(a_room("000001"))
            self.server.ask("CLIENT", "KILL", "TYPE", "normal")
            # The event loop takes note of it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert await store.create(a_room("000002"))
            assert await store.room_ids() == ["000001", "000002"]

    async def test_a_creator_without_a_budget_leaves_no_list_of_rooms(self) -> None:
        async with self.make_store() as store:
            for n in range(20):
                assert await store.create(a_room(f"{n:06}", creator="192.0.2.1"))
            assert [key for key in self.server.keys() if key.startswith("flyx:made:")] == []

    @pytest.mark.parametrize(("per_creator", "lists"), [(0, []), (8, ["flyx:made:192.0.2.1"])])
    async def test_nor_does_a_room_of_it_that_is_put_back(self, per_creator: int, lists: list[str]) -> None:
        backend = RedisBackend(self.server.url)
        backend.on_message = backend.on_subscription = lambda _: None
        await backend.start()
        try:
            await backend.renew()
            entry = SharedRoom(a_room(creator="192.0.2.1"), 1, "incarnation")
            assert await backend.restore(entry, Budget(100, per_creator))
            assert [key for key in self.server.keys() if key.startswith("flyx:made:")] == lists
        finally:
            await backend.stop()
