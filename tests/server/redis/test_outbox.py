from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from flyx.server.redis import outbox
from flyx.server.redis.backend import Item
from flyx.server.redis.outbox import DELIVERY_TIMEOUT, Outbox
from flyx.server.rooms.store import StoreUnavailable
from tests.server.redis.memory_backend import Service
from tests.server.redis.parts import ROOM, Parts, Still, in_virtual_time, occupied, parts, shared

ENTRY = shared(occupied(("sender", "a1"), ("receiver", "b1")))


@dataclass
class Way:
    """An outbox of one node, the other node, and what the outbox told of."""

    node: Parts
    other: Parts
    will_be_evicted: bool = True
    dead: list[str] = field(default_factory=list)
    leases_lost: int = 0
    outbox: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.node.backend, self.other.backend.node_id, self._dead, self._lease_lost)

    def _dead(self, node_id: str) -> bool:
        self.dead.append(node_id)
        return self.will_be_evicted

    def _lease_lost(self) -> None:
        self.leases_lost += 1

    def put(self, text: str) -> asyncio.Future[bool]:
        return self.outbox.put(Item(ROOM, ENTRY.state, "sender", (("receiver", 2),), text))

    async def put_and_lose_the_answer(self, text: str) -> asyncio.Future[bool]:
        backend = self.node.backend
        backend.slow = 0.1
        put = self.put(text)
        # It is there, and the answer is on its way.
        await asyncio.sleep(0.15)
        backend.cut = True
        await asyncio.sleep(0.1)
        backend.cut = False
        return put

    def received(self) -> list[tuple[int, list[str]]]:
        """Return the number of each batch that the other node received, and its texts."""
        batches = [message for message in map(json.loads, self.other.messages) if message[0] == "relay"]
        return [(number, [item[3] for item in items]) for _, _, number, items in batches]

    def marks(self) -> list[int]:
        return [message[2] for message in map(json.loads, self.other.messages) if message[0] == "mark"]


async def a_way() -> Way:
    service = Service(Still())
    service.keep(ENTRY)
    return Way(await parts("a", service), await parts("b", service))


@in_virtual_time
async def test_what_is_put_together_goes_together_and_the_rest_in_the_next_batch() -> None:
    way = await a_way()
    way.node.backend.slow = 0.1
    first = [way.put("1"), way.put("2")]
    await asyncio.sleep(0.05)
    second = [way.put("3"), way.put("4")]
    assert await asyncio.gather(*first, *second) == [True] * 4
    await asyncio.sleep(0)
    assert way.received() == [(1, ["1", "2"]), (2, ["3", "4"])]
    assert way.outbox.sequence == 2


@in_virtual_time
async def test_an_item_of_a_room_that_has_changed_is_not_sent() -> None:
    way = await a_way()
    way.node.service.keep(shared(ENTRY.room, 2, "a1:0"))
    assert await way.put("1") is False
    assert way.received() == []
    assert way.outbox.sequence == 0


@in_virtual_time
async def test_a_node_that_is_not_subscribed_gets_the_batch_when_it_is() -> None:
    way = await a_way()
    way.other.backend.subscribed_to = None
    put = way.put("1")
    await asyncio.sleep(1.0)
    assert not put.done()
    way.other.backend.listen()
    assert await put
    await asyncio.sleep(0)
    assert way.received() == [(1, ["1"])]
    assert way.dead == []


@in_virtual_time
async def test_if_it_never_is_the_item_may_be_sent_again() -> None:
    way = await a_way()
    way.other.backend.subscribed_to = None
    with pytest.raises(StoreUnavailable):
        await way.put("1")
    assert way.outbox.sequence == 0


@in_virtual_time
async def test_a_node_without_a_lease_is_told_of_and_its_clients_are_decided_anew() -> None:
    way = await a_way()
    await way.other.stop()
    assert await way.put("1") is False
    assert way.dead == ["b1"]


@in_virtual_time
async def test_a_batch_whose_answer_was_lost_is_sent_under_the_same_number() -> None:
    way = await a_way()
    put = await way.put_and_lose_the_answer("1")
    assert await put
    await asyncio.sleep(0)
    assert way.received() == [(1, ["1"]), (1, ["1"])]
    assert way.outbox.sequence == 1


@in_virtual_time
async def test_it_counts_as_sent_even_if_the_room_has_changed_before_the_second_try() -> None:
    way = await a_way()
    put = await way.put_and_lose_the_answer("1")
    way.node.service.keep(shared(ENTRY.room, 2, "a1:0"))
    # Decided anew it would come twice.
    assert await put
    assert way.received() == [(1, ["1"])]
    assert way.outbox.sequence == 1


@in_virtual_time
async def test_a_batch_whose_fate_stays_unknown_counts_as_sent_and_a_mark_shows_whether_it_was() -> None:
    way = await a_way()
    way.node.backend.cut = True
    put = way.put("1")
    began = way.node.service.now()
    assert await put
    assert way.node.service.now() - began >= DELIVERY_TIMEOUT
    assert way.outbox.sequence == 1
    way.node.backend.cut = False
    way.outbox.mark()
    await asyncio.sleep(0.1)
    assert way.received() == []
    assert set(way.marks()) == {1}


@in_virtual_time
async def test_a_node_that_has_no_lease_itself_is_told_so_and_goes_on_when_it_has() -> None:
    way = await a_way()
    lease = way.node.service.leases.pop("a1")
    put = way.put("1")
    await asyncio.sleep(0.5)
    assert way.leases_lost
    assert not put.done()
    way.node.service.leases["a1"] = lease
    assert await put
    await asyncio.sleep(0)
    assert way.received() == [(1, ["1"])]


@in_virtual_time
async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    way = await a_way()
    way.node.backend.slow = 1.0
    monkeypatch.setattr(outbox, "MAX_SIZE", 10)
    assert not way.put("1" * 10).done()
    with pytest.raises(StoreUnavailable):
        await way.put("1")


@in_virtual_time
async def test_what_waits_fails_when_the_node_stops() -> None:
    way = await a_way()
    way.node.backend.slow = 1.0
    under_way = way.put("1")
    await asyncio.sleep(0.1)
    waiting = way.put("2")
    await way.outbox.close()
    with pytest.raises(StoreUnavailable):
        await waiting
    assert not under_way.done()
