"""What every RoomStore promises. A version of the store inherits the tests and says how it is made."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from flyx.errors import NoSuchRoom
from flyx.server.store import RoomStore, StoreFull
from flyx.signaling.messages import Offer, OfferData
from flyx.signaling.room import (
    CloseClient,
    Deliver,
    Effects,
    Enter,
    Expire,
    Leave,
    Relay,
    Room,
    RoomClosed,
    RoomConfig,
    new_room,
)

T0 = 1_000_000.0


def a_room(room_id: str = "K7M2QX", **config: object) -> Room:
    return new_room(room_id, RoomConfig(**config), T0)  # type: ignore[arg-type]


def closes(effects: Effects) -> list[int]:
    return [int(effect.close_code) for effect in effects if isinstance(effect, CloseClient)]


class RoomStoreContract:
    @abstractmethod
    def make_store(self, *, max_rooms: int = 100) -> AbstractAsyncContextManager[RoomStore]:
        """A new store without rooms."""

    async def test_a_room_comes_back_as_it_was_put_in(self) -> None:
        async with self.make_store() as store:
            room = replace(a_room(max_clients=3, ttl=None, persistent=True), owner_token_hash="abc")
            assert await store.create(room)
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert seen.room == room
            assert await store.count() == 1

    async def test_a_missing_room_is_none(self) -> None:
        async with self.make_store() as store:
            assert await store.load("K7M2QX") is None
            with pytest.raises(NoSuchRoom):
                await store.apply("K7M2QX", Expire(), T0)

    async def test_an_id_is_given_out_once(self) -> None:
        async with self.make_store() as store:
            assert await store.create(a_room(max_clients=3))
            assert not await store.create(a_room(max_clients=5))
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert seen.room.config.max_clients == 3
            assert await store.count() == 1

    async def test_of_many_that_create_one_id_at_once_one_gets_it(self) -> None:
        async with self.make_store() as store:
            results = await asyncio.gather(*(store.create(a_room()) for _ in range(20)))
            assert sorted(results) == [False] * 19 + [True]

    async def test_a_full_store_takes_a_room_again_when_one_is_over(self) -> None:
        async with self.make_store(max_rooms=2) as store:
            assert await store.create(a_room("000000"))
            assert await store.create(a_room("000001"))
            with pytest.raises(StoreFull):
                await store.create(a_room("000002"))
            # Taken is taken, full or not.
            assert not await store.create(a_room("000001"))
            await store.apply("000000", Expire(), T0 + 1e6)
            assert await store.create(a_room("000002"))

    async def test_what_was_seen_can_be_replaced_once(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert await store.replace(seen, replace(seen.room, sender_id="a"))
            assert not await store.replace(seen, replace(seen.room, sender_id="b"))
            now = await store.load("K7M2QX")
            assert now is not None
            assert now.room.sender_id == "a"

    async def test_a_closed_room_is_forgotten(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert await store.replace(seen, replace(seen.room, closed=True))
            assert await store.load("K7M2QX") is None
            assert await store.count() == 0
            assert not await store.replace(seen, seen.room)

    async def test_who_saw_an_earlier_room_of_the_same_id_cannot_replace_the_new_one(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            seen = await store.load("K7M2QX")
            assert seen is not None
            await store.apply("K7M2QX", Expire(), T0 + 1e6)
            await store.create(a_room())
            assert not await store.replace(seen, replace(seen.room, sender_id="a"))

    async def test_rooms_past_their_deadline_are_due(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room("000000", idle_timeout=10.0))
            await store.create(a_room("000001", idle_timeout=20.0))
            await store.create(a_room("000002", idle_timeout=1.0, persistent=True, ttl=None))
            assert await store.due(T0 + 9) == []
            assert await store.due(T0 + 10) == ["000000"]
            assert sorted(await store.due(T0 + 1e9)) == ["000000", "000001"]

    async def test_a_room_that_is_used_is_due_later(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room(idle_timeout=10.0, persistent=False))
            await store.apply("K7M2QX", Enter("s"), T0)
            assert await store.due(T0 + 100) == []

    async def test_apply_runs_a_whole_session(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            await store.apply("K7M2QX", Enter("s"), T0)
            await store.apply("K7M2QX", Enter("r"), T0)
            effects = await store.apply("K7M2QX", Relay("s", Offer(data=OfferData(sdp="v=0"))), T0)
            assert effects == (Deliver("r", Offer(data=OfferData(client_id="s", sdp="v=0"))),)
            effects = await store.apply("K7M2QX", Leave("s", "done"), T0)
            assert closes(effects) == [4410]
            assert isinstance(effects[-1], RoomClosed)
            assert await store.load("K7M2QX") is None

    async def test_of_many_that_enter_at_once_one_is_the_sender(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room(max_clients=16))
            names = [f"client-{n}" for n in range(30)]
            results = await asyncio.gather(*(store.apply("K7M2QX", Enter(name), T0) for name in names))
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert len(seen.room.client_ids) == 16
            assert set(seen.room.client_ids) <= set(names)
            assert [code for effects in results for code in closes(effects)] == [4413] * 14
