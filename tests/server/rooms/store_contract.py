"""What every RoomStore promises. A version of the store inherits the tests and says how it is made."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from flyx.errors import NoSuchRoom
from flyx.server.rooms.store import BudgetSpent, RoomStore, StoreFull
from flyx.signaling.commands import (
    Admit,
    CloseClient,
    CloseRoom,
    Deliver,
    Effects,
    Enter,
    Expire,
    Leave,
    LoseConnection,
    Refuse,
    Relay,
    Resume,
    RoomClosed,
)
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import Traffic
from flyx.signaling.messages import Offer, OfferData, Role
from flyx.signaling.record import dump_room, load_room
from flyx.signaling.room import Room, new_room

T0 = 1_000_000.0


def a_room(room_id: str = "K7M2QX", *, creator: str | None = None, **config: object) -> Room:
    return new_room(room_id, RoomConfig(**config), T0, creator=creator)  # type: ignore[arg-type]


def closes(effects: Effects) -> list[int]:
    return [int(effect.close_code) for effect in effects if isinstance(effect, CloseClient | Refuse)]


def enter(client_id: str) -> Enter:
    return Enter(client_id, f"token of {client_id}")


def generation(effects: Effects) -> int:
    """Of the connection that was let in."""
    [admit] = [effect for effect in effects if isinstance(effect, Admit)]
    return admit.member.generation


class RoomStoreContract:
    @abstractmethod
    def make_store(
        self, *, max_rooms: int = 100, max_per_creator: int = 0
    ) -> AbstractAsyncContextManager[RoomStore]:
        """A new store without rooms."""

    async def test_a_room_comes_back_as_it_was_put_in(self) -> None:
        async with self.make_store() as store:
            config = RoomConfig(3, None, 5.0, True, 7.0, 9.0)
            room = new_room("K7M2QX", config, T0, owner_token="secret", creator="2001:db8::/64")
            assert await store.create(room)
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert seen.room == room
            assert await store.count() == 1

    async def test_a_command_that_nobody_wants_any_more_changes_nothing(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            seen_to: list[Effects] = []
            assert await store.apply("K7M2QX", enter("s"), T0, seen_to.append, lambda: False) == ()
            assert seen_to == []
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert seen.room == a_room()

    async def test_a_room_comes_back_with_those_inside_and_what_is_kept_for_them(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            await store.apply("K7M2QX", enter("s"), T0)
            other = generation(await store.apply("K7M2QX", enter("r"), T0))
            lost = LoseConnection("r", other, "lost", Traffic(1, 1, ("ünïcödé \x00 \u2028",)))
            await store.apply("K7M2QX", lost, T0)
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert load_room(dump_room(seen.room)) == seen.room
            absence = seen.room.members["r"].absence
            assert absence is not None
            assert absence.traffic == lost.traffic

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

    async def test_an_id_can_be_had_again_when_its_room_is_over(self) -> None:
        async with self.make_store() as store:
            assert await store.create(a_room(max_clients=3))
            await store.apply("K7M2QX", CloseRoom(None), T0)
            assert await store.create(a_room(max_clients=5))
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert seen.room.config.max_clients == 5

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

    async def test_a_creator_has_so_many_rooms_at_a_time_and_others_have_theirs(self) -> None:
        async with self.make_store(max_per_creator=2) as store:
            for room_id in ("000000", "000001"):
                assert await store.create(a_room(room_id, creator="192.0.2.1"))
            with pytest.raises(BudgetSpent):
                await store.create(a_room("000002", creator="192.0.2.1"))
            assert await store.create(a_room("000003", creator="192.0.2.2"))
            assert await store.create(a_room("000004"))
            assert await store.create(a_room("000005"))
            # What is over counts no longer, however it ended.
            await store.apply("000000", CloseRoom(None), T0)
            assert await store.create(a_room("000002", creator="192.0.2.1"))
            with pytest.raises(BudgetSpent):
                await store.create(a_room("000006", creator="192.0.2.1"))

    async def test_of_many_rooms_made_at_once_a_creator_gets_as_many_as_it_may_have(self) -> None:
        async with self.make_store(max_per_creator=3) as store:
            rooms = [a_room(f"{n:06}", creator="192.0.2.1") for n in range(10)]
            results = await asyncio.gather(*map(store.create, rooms), return_exceptions=True)
            assert sum(result is True for result in results) == 3
            assert sum(isinstance(result, BudgetSpent) for result in results) == 7
            assert await store.count() == 3

    async def test_all_rooms_can_be_named(self) -> None:
        async with self.make_store() as store:
            assert await store.room_ids() == []
            for room_id in ("00000B", "00000A", "00000C"):
                await store.create(a_room(room_id))
            await store.apply("00000B", CloseRoom(None), T0)
            assert sorted(await store.room_ids()) == ["00000A", "00000C"]

    async def test_a_persistent_room_that_no_client_enters_is_due(self) -> None:
        async with self.make_store() as store:
            for room_id in ("000000", "000001"):
                await store.create(a_room(room_id, persistent=True, ttl=None, unused_timeout=60.0))
            entered = generation(await store.apply("000001", enter("s"), T0))
            await store.apply("000001", Leave("s", entered, "bye"), T0)
            assert await store.due(T0 + 59) == []
            assert await store.due(T0 + 1e9) == ["000000"]
            effects = await store.apply("000000", Expire(), T0 + 60)
            assert isinstance(effects[-1], RoomClosed)
            assert await store.room_ids() == ["000001"]

    async def test_what_was_seen_can_be_replaced_once(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert await store.replace(seen, replace(seen.room, generation=1))
            assert not await store.replace(seen, replace(seen.room, generation=2))
            now = await store.load("K7M2QX")
            assert now is not None
            assert now.room.generation == 1

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
            assert not await store.replace(seen, replace(seen.room, generation=1))

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
            await store.apply("K7M2QX", enter("s"), T0)
            assert await store.due(T0 + 100) == []

    async def test_a_room_is_due_when_a_place_in_it_is_held_no_longer(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room(grace=30.0))
            effects = await store.apply("K7M2QX", enter("s"), T0)
            await store.apply("K7M2QX", LoseConnection("s", generation(effects), "lost", None), T0 + 5)
            assert await store.due(T0 + 34) == []
            assert await store.due(T0 + 35) == ["K7M2QX"]
            effects = await store.apply("K7M2QX", Expire(), T0 + 35)
            assert isinstance(effects[-1], RoomClosed)
            assert await store.count() == 0

    async def test_a_client_comes_back_and_gets_what_was_kept(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            first = generation(await store.apply("K7M2QX", enter("s"), T0))
            other = generation(await store.apply("K7M2QX", enter("r"), T0))
            lost = LoseConnection("r", other, "lost", Traffic(received=3, sent=2, tail=("one", "two")))
            await store.apply("K7M2QX", lost, T0)
            await store.apply("K7M2QX", Relay("s", first, Offer(data=OfferData(sdp="v=0"))), T0)
            back = Resume("r", "token of r", "next token", received=1)
            effects = await store.apply("K7M2QX", back, T0 + 29)
            admit = effects[0]
            assert isinstance(admit, Admit)
            assert admit.joined.data.recovered
            assert (admit.sent, admit.received) == (1, 3)
            assert admit.replay[0] == "two"
            assert "v=0" in admit.replay[1]
            assert len(admit.replay) == 2
            # What its older connection still does changes nothing.
            assert await store.apply("K7M2QX", Leave("r", other, "late"), T0 + 29) == ()

    async def test_of_many_that_resume_one_client_at_once_each_token_serves_once(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            await store.apply("K7M2QX", enter("s"), T0)
            tries = (Resume("s", "token of s", f"token {n}") for n in range(10))
            results = await asyncio.gather(*(store.apply("K7M2QX", back, T0) for back in tries))
            seen = await store.load("K7M2QX")
            assert seen is not None
            # The token before the newest is good for a while: the answer with the newest may have been lost.
            generations = [
                generation(effects) for effects in results if isinstance(effects[0], Admit | CloseClient)
            ]
            assert len(set(generations)) == len(generations) == 10
            assert seen.room.members["s"].generation == max(generations)

    async def test_apply_runs_a_whole_session(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room())
            sender = generation(await store.apply("K7M2QX", enter("s"), T0))
            await store.apply("K7M2QX", enter("r"), T0)
            relay = Relay("s", sender, Offer(data=OfferData(sdp="v=0")))
            [effect] = await store.apply("K7M2QX", relay, T0)
            assert isinstance(effect, Deliver)
            assert effect.client_id == "r"
            assert effect.message == Offer(data=OfferData(client_id="s", sdp="v=0"))
            effects = await store.apply("K7M2QX", Leave("s", sender, "done"), T0)
            assert closes(effects) == [4410]
            assert isinstance(effects[-1], RoomClosed)
            assert await store.load("K7M2QX") is None

    async def test_of_many_that_enter_at_once_one_is_the_sender(self) -> None:
        async with self.make_store() as store:
            await store.create(a_room(max_clients=16))
            names = [f"client-{n}" for n in range(30)]
            results = await asyncio.gather(*(store.apply("K7M2QX", enter(name), T0) for name in names))
            seen = await store.load("K7M2QX")
            assert seen is not None
            assert len(seen.room.members) == 16
            assert set(seen.room.members) <= set(names)
            assert sum(m.role is Role.SENDER for m in seen.room.members.values()) == 1
            assert [code for effects in results for code in closes(effects)] == [4413] * 14
