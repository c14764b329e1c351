"""The hub with outlets that only note what they are given, and stores that take their time or fail."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from flyx.errors import NoSuchRoom, RoomTaken
from flyx.server.config import ServerConfig
from flyx.server.rooms.attachment import Attachment
from flyx.server.rooms.hub import Hub
from flyx.server.rooms.store import MemoryRoomStore, Stored, StoreUnavailable
from flyx.signaling.config import RoomConfig
from flyx.signaling.messages import (
    CloseCode,
    ErrorCode,
    JoinData,
    Offer,
    OfferData,
    Paired,
    PairedData,
    Role,
)
from flyx.signaling.room import Room
from tests.server.peers import FakeClock

OFFER = Offer(data=OfferData(sdp="v=0"))


@dataclass(eq=False)
class FakeOutlet:
    heard: list[dict[str, Any]] = field(default_factory=list)
    closed: tuple[CloseCode, ErrorCode] | None = None
    queued_size: int = 0
    gone: bool = False

    def send(self, text: str) -> None:
        self.heard.append(json.loads(text))

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        self.closed = self.closed or (code, error_code)

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.heard]

    def claim(self, received: int | None) -> JoinData:
        """What the client says when it comes back."""
        joined = next(m["data"] for m in reversed(self.heard) if m["type"] == "joined")
        return JoinData(client_id=joined["client_id"], resume_token=joined["resume_token"], received=received)


class MoodyStore(MemoryRoomStore):
    """Waits before each change while `gate` is closed; fails while `away`."""

    def __init__(self) -> None:
        super().__init__(max_rooms=10)
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def replace(self, seen: Stored, room: Room) -> bool:
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable
        return await super().replace(seen, room)

    async def create(self, room: Room) -> bool:
        if self.away:
            raise StoreUnavailable
        return await super().create(room)


class House:
    """A hub with one room in it."""

    def __init__(self, store: MoodyStore, **config: Any) -> None:
        self.clock = FakeClock()
        self.store = store
        self.hub = Hub(store, ServerConfig(room=RoomConfig(**config)), clock=self.clock)
        self.room_id = ""

    async def open(self) -> None:
        created = await self.hub.create_room(self.hub.config.room)
        self.room_id = created.room.room_id

    async def enter(self, role: Role | None = None) -> tuple[FakeOutlet, Attachment]:
        transport = FakeOutlet()
        self.hub.connect(transport)
        attachment = await self.hub.enter(transport, self.room_id, role)
        assert attachment is not None
        return transport, attachment

    async def resume(self, before: FakeOutlet, received: int | None) -> tuple[FakeOutlet, Attachment | None]:
        transport = FakeOutlet()
        self.hub.connect(transport)
        return transport, await self.hub.resume(transport, self.room_id, before.claim(received))

    async def say(self, attachment: Attachment) -> None:
        """Have a client make an offer, and wait until it has gone its way."""
        rest = self.hub.relay(attachment, OFFER)
        if rest is not None:
            await rest


@pytest.fixture
async def house() -> House:
    house = House(MoodyStore())
    await house.open()
    return house


async def test_a_room_that_is_over_and_not_swept_yet_is_not_in_the_way_of_the_next(house: House) -> None:
    config = house.hub.config.room
    _, attachment = await house.enter()
    await house.hub.lose(attachment, "lost", died=True)
    with pytest.raises(RoomTaken):
        await house.hub.create_room(config, wanted_id=house.room_id)
    house.clock.now += config.grace
    created = await house.hub.create_room(config, wanted_id=house.room_id)
    assert created.room.room_id == house.room_id


async def test_a_message_under_way_is_counted_once_when_its_client_comes_back(house: House) -> None:
    sender, attachment = await house.enter()
    _, other = await house.enter()
    await house.hub.lose(other, "lost")
    # To somebody away: that has to be written, which takes its time.
    house.store.gate.clear()
    relaying = asyncio.create_task(house.say(attachment))
    await asyncio.sleep(0)
    returning = asyncio.create_task(house.resume(sender, 2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert sender.closed == (CloseCode.REPLACED, ErrorCode.REPLACED)
    assert not returning.done()
    house.store.gate.set()
    await relaying
    back, _ = await returning
    assert back.heard[0]["data"]["recovered"] is True
    assert back.heard[0]["data"]["received"] == 1
    # What the older connection still brings is for nobody, and is not counted.
    await house.say(attachment)
    again, _ = await house.resume(back, 2)
    assert again.heard[0]["data"]["received"] == 1


async def test_a_message_that_could_not_be_taken_is_to_come_again(house: House) -> None:
    sender, attachment = await house.enter()
    receiver, other = await house.enter()
    await house.say(attachment)
    await house.hub.lose(other, "lost")
    house.store.away = True
    await house.say(attachment)
    assert sender.closed == (CloseCode.TRY_AGAIN_LATER, ErrorCode.UNAVAILABLE)
    refused, nobody = await house.resume(sender, 2)
    assert nobody is None
    assert refused.closed == (CloseCode.TRY_AGAIN_LATER, ErrorCode.UNAVAILABLE)
    house.store.away = False
    back, _ = await house.resume(sender, 2)
    assert (back.heard[0]["data"]["recovered"], back.heard[0]["data"]["received"]) == (True, 1)
    assert receiver.types == ["joined", "offer"]


async def test_a_goodbye_that_could_not_be_written_is_written_later(house: House) -> None:
    sender, _ = await house.enter()
    _, other = await house.enter()
    house.store.away = True
    await house.hub.leave(other, "enough")
    await house.hub.sweep()
    assert sender.types == ["joined", "join"]
    house.store.away = False
    await house.hub.sweep()
    assert sender.types == ["joined", "join", "disconnect"]


async def test_a_sender_that_pairs_while_rooms_are_away_stays(house: House) -> None:
    sender, attachment = await house.enter()
    _, other = await house.enter()
    house.store.away = True
    telling = house.hub.relay(attachment, Paired(data=PairedData(target_id=other.client_id)))
    assert telling is not None
    await telling
    assert sender.closed is None
    house.store.away = False
    await house.say(attachment)
    assert sender.closed is None


async def test_who_comes_in_while_rooms_are_away_is_asked_to_come_later(house: House) -> None:
    house.store.away = True
    transport = FakeOutlet()
    house.hub.connect(transport)
    assert await house.hub.enter(transport, house.room_id, None) is None
    assert transport.closed == (CloseCode.TRY_AGAIN_LATER, ErrorCode.UNAVAILABLE)
    with pytest.raises(StoreUnavailable):
        await house.hub.create_room(RoomConfig())


async def test_a_client_id_alone_ends_nobodys_connection(house: House) -> None:
    sender, attachment = await house.enter()
    thief = FakeOutlet()
    house.hub.connect(thief)
    claim = JoinData(client_id=attachment.client_id, resume_token="guess", received=0)
    assert await house.hub.resume(thief, house.room_id, claim) is None
    assert thief.closed == (CloseCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_SESSION)
    assert sender.closed is None
    assert not attachment.over
    # Nor in another room, with the right token.
    elsewhere = (await house.hub.create_room(RoomConfig())).room.room_id
    assert await house.hub.resume(thief, elsewhere, sender.claim(0)) is None
    assert not attachment.over


async def test_a_connection_that_ends_while_its_client_comes_in_leaves_no_ghost(house: House) -> None:
    sender, _ = await house.enter()
    house.store.gate.clear()
    transport = FakeOutlet()
    house.hub.connect(transport)
    entering = asyncio.create_task(house.hub.enter(transport, house.room_id, None))
    await asyncio.sleep(0)
    house.hub.disconnect(transport)
    house.store.gate.set()
    await entering
    for _ in range(5):
        await asyncio.sleep(0)
    assert sender.types == ["joined", "join", "disconnect"]
    assert sender.heard[-1]["data"]["away"] is True


async def test_the_sweep_empties_places_held_too_long_and_closes_rooms(house: House) -> None:
    sender, attachment = await house.enter()
    receiver, other = await house.enter()
    await house.hub.lose(other, "lost")
    house.clock.now += 30
    await house.hub.sweep()
    assert sender.types == ["joined", "join", "disconnect", "disconnect"]
    assert receiver.closed is None
    await house.hub.lose(attachment, "lost")
    house.clock.now += 30
    await house.hub.sweep()
    with pytest.raises(NoSuchRoom):
        await house.hub.find_room(house.room_id)
    late, nobody = await house.resume(sender, 3)
    assert nobody is None
    assert late.closed == (CloseCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_SESSION)


async def test_a_room_whose_end_is_due_is_not_found_even_before_the_sweep(house: House) -> None:
    _, attachment = await house.enter()
    await house.hub.lose(attachment, "lost")
    assert (await house.hub.find_room(house.room_id)).sender is not None
    house.clock.now += 30
    with pytest.raises(NoSuchRoom):
        await house.hub.find_room(house.room_id)


async def test_nobody_is_let_in_while_the_server_stops(house: House) -> None:
    sender, attachment = await house.enter()
    stopping = asyncio.create_task(house.hub.stop())
    await asyncio.sleep(0)
    assert sender.closed == (CloseCode.SERVICE_RESTART, ErrorCode.SERVER_STOPPING)
    await house.hub.lose(attachment, "the server is stopping")
    house.hub.disconnect(sender)
    late, nobody = await house.resume(sender, 0)
    assert nobody is None
    assert late.closed == (CloseCode.SERVICE_RESTART, ErrorCode.SERVER_STOPPING)
    house.hub.disconnect(late)
    await stopping
