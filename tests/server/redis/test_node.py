"""A node as its store shows it, on a service in memory; what several do to each other is in test_nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flyx.server.redis.store import RedisRoomStore
from flyx.server.rooms.store import RoomStore
from flyx.signaling.messages import Role
from tests.server.redis.memory_backend import MemoryBackend, Service
from tests.server.redis.parts import ROOM, People, Still, in_virtual_time
from tests.server.rooms.store_contract import T0, RoomStoreContract, a_room, enter


class Everybody(People):
    """Clients that are always here."""

    def holds(self, client_id: str, generation: int) -> bool:
        return True


@asynccontextmanager
async def a_store(
    service: Service, name: str = "a", people: People | None = None, **budget: int
) -> AsyncIterator[RedisRoomStore]:
    loop = asyncio.get_running_loop()
    backend = MemoryBackend(service, name)
    store = RedisRoomStore(
        backend,
        **{"max_rooms": 100, **budget},
        clock=lambda: T0,
        monotonic=loop.time,
        uniform=service.rng.uniform,
    )
    store.attach(people or Everybody())
    await store.open(T0)
    try:
        yield store
    finally:
        await store.close()


class TestRedisRoomStoreInMemory(RoomStoreContract):
    @asynccontextmanager
    async def make_store(self, *, max_rooms: int = 100, max_per_creator: int = 0) -> AsyncIterator[RoomStore]:
        service = Service(Still())
        async with a_store(service, max_rooms=max_rooms, max_per_creator=max_per_creator) as store:
            yield store


@in_virtual_time
async def test_a_node_that_stops_leaves_no_lease_and_no_task() -> None:
    service = Service(Still())
    async with a_store(service) as store:
        await store.create(a_room(ROOM))
        assert store.ready
        assert service.leases
    assert not service.leases
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_the_end_of_a_connection_that_was_forgotten_is_told_by_the_next_regular_audit() -> None:
    people = People()
    async with a_store(Service(Still()), people=people) as store:
        await store.create(a_room(ROOM))
        people.here = {("sender", 1)}
        await store.apply(ROOM, enter("sender"), T0)
        known = store.known(ROOM)
        assert known is not None
        people.here = {("sender", known.room.members["sender"].generation)}
        await asyncio.sleep(60.0)
        assert store.known(ROOM) is not None
        people.here.clear()
        await asyncio.sleep(60.0)
        entry = await store.load(ROOM)
        assert entry is not None
        assert entry.room.members["sender"].absence is not None


@in_virtual_time
async def test_clients_of_a_dead_node_are_away_and_its_rooms_stay() -> None:
    service = Service(Still())
    async with a_store(service, "a") as store, a_store(service, "b") as other:
        await store.create(a_room(ROOM))
        await other.apply(ROOM, enter("sender"), T0)
        await asyncio.sleep(20.0)
        service.nodes[1].die()
        await asyncio.sleep(20.0)
        await store.due(T0)
        await asyncio.sleep(1.0)
        entry = await store.load(ROOM)
        assert entry is not None
        sender = entry.room.members["sender"]
        assert sender.role is Role.SENDER
        assert sender.absence is not None
        assert "b1" not in service.leases
