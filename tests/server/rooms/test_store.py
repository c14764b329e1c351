from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flyx.server.rooms.store import MemoryRoomStore, RoomStore, Stored
from flyx.signaling.commands import Relay
from flyx.signaling.messages import Offer, OfferData
from flyx.signaling.room import Room
from tests.server.rooms.store_contract import T0, RoomStoreContract, a_room, enter, generation


class TestMemoryRoomStore(RoomStoreContract):
    @asynccontextmanager
    async def make_store(self, *, max_rooms: int = 100, max_per_creator: int = 0) -> AsyncIterator[RoomStore]:
        yield MemoryRoomStore(max_rooms=max_rooms, max_per_creator=max_per_creator)


class DistantStore(MemoryRoomStore):
    """Others get their turn between every load and the replace that follows, as with a store elsewhere."""

    def __init__(self, *, max_rooms: int, max_per_creator: int = 0) -> None:
        super().__init__(max_rooms=max_rooms, max_per_creator=max_per_creator)
        self.replaced = 0
        self.refused = 0

    async def load(self, room_id: str) -> Stored | None:
        seen = await super().load(room_id)
        await asyncio.sleep(0)
        return seen

    async def replace(self, seen: Stored, room: Room) -> bool:
        await asyncio.sleep(0)
        done = await super().replace(seen, room)
        self.replaced += done
        self.refused += not done
        return done


class TestDistantStore(RoomStoreContract):
    @asynccontextmanager
    async def make_store(self, *, max_rooms: int = 100, max_per_creator: int = 0) -> AsyncIterator[RoomStore]:
        yield DistantStore(max_rooms=max_rooms, max_per_creator=max_per_creator)


async def test_apply_tries_again_when_another_was_first() -> None:
    store = DistantStore(max_rooms=1)
    await store.create(a_room())
    await asyncio.gather(*(store.apply("K7M2QX", enter(name), T0) for name in "abc"))
    assert store.replaced == 3
    assert store.refused > 0


async def test_relaying_writes_nothing() -> None:
    store = DistantStore(max_rooms=1)
    await store.create(a_room())
    sender = generation(await store.apply("K7M2QX", enter("s"), T0))
    await store.apply("K7M2QX", enter("r"), T0)
    written = store.replaced
    await store.apply("K7M2QX", Relay("s", sender, Offer(data=OfferData(sdp="v=0"))), T0)
    assert store.replaced == written
