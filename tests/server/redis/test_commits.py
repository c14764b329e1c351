from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flyx.errors import NoSuchRoom
from flyx.server.rooms.store import StoreUnavailable
from flyx.signaling.commands import AppendMissed, Effects, Enter, Expire, Leave, LoseConnection, Refuse, Relay
from flyx.signaling.config import RoomConfig
from flyx.signaling.members import Traffic
from flyx.signaling.messages import Offer, OfferData
from flyx.signaling.room import Room
from tests.server.redis.memory_backend import Service
from tests.server.redis.parts import (
    ROOM,
    Parts,
    Still,
    in_virtual_time,
    lacks_a_message,
    lost,
    occupied,
    parts,
    shared,
)
from tests.server.rooms.store_contract import T0

SENDER = occupied(("sender", "a1"))
GENERATION = SENDER.members["sender"].generation
LEAVE = Leave("sender", GENERATION, "it left")


async def a_node(room: Room = SENDER) -> Parts:
    """Return a node that knows a room, as the backend does."""
    node = await parts()
    node.replicas.apply(shared(room), "a1")
    node.service.keep(shared(room))
    return node


class Seen:
    """What was carried out, and when (of the loop's clock)."""

    def __init__(self) -> None:
        self.effects: list[Effects] = []
        self.times: list[float] = []

    def __call__(self, effects: Effects) -> None:
        self.effects.append(effects)
        self.times.append(asyncio.get_running_loop().time())


@in_virtual_time
async def test_a_change_is_carried_out_when_it_comes_back_through_the_channel() -> None:
    node, seen = await a_node(), Seen()
    node.backend.lag = 0.5
    began = node.service.now()
    effects = await node.commits.run(ROOM, Enter("receiver", "token"), T0, seen)
    assert seen.effects == [effects]
    assert seen.times == [began + 0.5]
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.state == node.service.rooms[ROOM][0]
    assert known.room.members["receiver"].node == "a1"


@in_virtual_time
async def test_what_changes_nothing_is_carried_out_without_the_backend() -> None:
    node, seen = await a_node(), Seen()
    before = node.service.rooms[ROOM]
    effects = await node.commits.run(ROOM, Leave("nobody", 9, "it left"), T0, seen)
    assert seen.effects == [effects]
    assert node.service.rooms[ROOM] is before


@in_virtual_time
async def test_what_a_command_left_unchanged_is_told_to_the_caller() -> None:
    node, seen = await a_node(), Seen()
    relay = Relay("sender", GENERATION, Offer(data=OfferData(sdp="sdp", target_id="nobody")))
    decided = await node.commits.decide(ROOM, relay, T0, seen)
    assert decided.room == node.replicas.known(ROOM)
    assert seen.effects == []
    decided = await node.commits.decide(ROOM, LEAVE, T0, seen)
    assert decided.room is None
    assert seen.effects == [decided.effects]


@in_virtual_time
async def test_a_command_that_no_client_gave_is_carried_out_for_all() -> None:
    node = await a_node()
    await node.commits.perform(ROOM, LEAVE)
    assert len(node.people.seen_to) == 1


@in_virtual_time
async def test_there_must_be_a_room() -> None:
    node = await a_node()
    with pytest.raises(NoSuchRoom):
        await node.commits.run("000000", Expire(), T0, Seen())


@in_virtual_time
async def test_what_is_not_wanted_any_more_changes_nothing() -> None:
    node, seen = await a_node(), Seen()
    before = node.service.rooms[ROOM]
    assert await node.commits.run(ROOM, LEAVE, T0, seen, lambda: False) == ()
    assert node.service.rooms[ROOM] is before
    assert seen.effects == []


@in_virtual_time
async def test_commands_of_one_room_are_run_one_after_the_other() -> None:
    node, seen = await a_node(), Seen()
    node.backend.slow = 0.1
    first = asyncio.create_task(node.commits.run(ROOM, Enter("one", "token"), T0, seen))
    second = asyncio.create_task(node.commits.run(ROOM, Enter("two", "token"), T0, seen))
    assert node.replicas.quiet(ROOM) is not None
    await asyncio.sleep(0.05)
    assert node.replicas.quiet(ROOM) is None
    assert [*await asyncio.gather(first, second)] == seen.effects
    assert node.service.rooms[ROOM][0][1] == 3


@in_virtual_time
async def test_a_command_is_decided_anew_when_another_node_was_faster() -> None:
    node, seen = await a_node(), Seen()
    newer = shared(occupied(("sender", "a1"), ("receiver", "b1")), 2, "b1:0")
    node.service.keep(newer)
    asyncio.get_running_loop().call_later(0.5, node.replicas.apply, newer, "a1")
    effects = await node.commits.run(ROOM, Enter("other", "token"), T0, seen)
    assert seen.effects == [effects]
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.room.members.keys() == {"sender", "receiver", "other"}
    assert known.version == 3


@in_virtual_time
async def test_no_client_is_refused_by_what_a_room_was() -> None:
    full = replace(occupied(("sender", "a1"), ("receiver", "b1")), config=RoomConfig(max_clients=2))
    node, seen = await a_node(full), Seen()
    # The receiver has left, and this node does not know yet.
    node.service.keep(shared(replace(SENDER, config=full.config), 2, "b1:0"))
    effects = await node.commits.run(ROOM, Enter("other", "token"), T0, seen)
    assert not any(isinstance(effect, Refuse) for effect in effects)


@in_virtual_time
async def test_a_commit_of_unknown_outcome_is_made_once() -> None:
    node, seen = await a_node(), Seen()
    node.backend.slow = 0.1
    committing = asyncio.create_task(node.commits.run(ROOM, Enter("receiver", "token"), T0, seen))
    # It is made, and neither the answer nor the message on the channel arrives.
    await asyncio.sleep(0.15)
    node.backend.break_channel()
    await asyncio.sleep(0.0)
    node.backend.cut = True
    await asyncio.sleep(0.2)
    node.backend.cut = False
    effects = await committing
    assert seen.effects == [effects]
    assert node.service.rooms[ROOM][0][1] == 2


@in_virtual_time
async def test_a_commit_that_cannot_be_made_for_long_fails_and_is_not_carried_out() -> None:
    node, seen = await a_node(), Seen()
    node.backend.slow = 0.1
    committing = asyncio.create_task(node.commits.run(ROOM, Enter("receiver", "token"), T0, seen))
    await asyncio.sleep(0.05)
    node.backend.cut = True
    with pytest.raises(StoreUnavailable):
        await committing
    assert seen.effects == []
    assert node.service.rooms[ROOM][0][1] == 1


@in_virtual_time
async def test_a_change_that_does_not_come_back_is_carried_out_and_an_audit_is_due() -> None:
    node, seen = await a_node(), Seen()
    node.backend.on_message = lambda _: None
    effects = await node.commits.run(ROOM, Enter("receiver", "token"), T0, seen)
    assert seen.effects == [effects]
    assert not node.membership.ready


@in_virtual_time
async def test_without_a_lease_nothing_is_changed_until_there_is_one() -> None:
    node, seen = await a_node(), Seen()
    del node.service.leases["a1"]
    effects = await node.commits.run(ROOM, Enter("receiver", "token"), T0, seen)
    assert seen.effects == [effects]
    assert node.service.leased("a1")


@in_virtual_time
async def test_nodes_that_are_not_subscribed_are_suspected() -> None:
    service = Service(Still())
    node, other = await parts("a", service), await parts("b", service)
    room = occupied(("sender", "a1"), ("receiver", "b1"))
    node.replicas.apply(shared(room), "a1")
    service.keep(shared(room))
    await asyncio.sleep(16.0)
    await other.stop()
    await node.commits.run(ROOM, Leave("sender", 1, "it left"), T0, Seen())
    await asyncio.sleep(1.0)
    assert ("node dead", "b1", []) in node.events.told


@in_virtual_time
async def test_who_lost_a_connection_that_lacks_a_message_has_traffic_that_nobody_knows() -> None:
    node = await a_node()
    node.undelivered.add("sender", GENERATION)
    await node.commits.run(ROOM, LoseConnection("sender", GENERATION, "lost", Traffic(1, 2)), T0, Seen())
    entry = await node.backend.load(ROOM)
    assert entry is not None
    absence = entry.room.members["sender"].absence
    assert absence is not None
    assert absence.traffic is None


@pytest.mark.parametrize("alone", [True, False])
def test_an_absence_is_settled_at_once_only_if_no_other_node_can_have_sent_anything(alone: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        room = SENDER if alone else occupied(("sender", "a1"), ("receiver", "b1"))
        node = await a_node(room)
        await node.commits.run(ROOM, LoseConnection("sender", GENERATION, "lost", Traffic()), T0, Seen())
        entry = await node.backend.load(ROOM)
        assert entry is not None
        absence = entry.room.members["sender"].absence
        assert absence is not None
        assert absence.settled is alone
        await asyncio.sleep(0.1)
        # Recovery tells the rest.
        assert node.performed == ([] if alone else [AppendMissed("sender", GENERATION, ())])

    run()


@in_virtual_time
async def test_a_message_for_a_connection_that_ends_meanwhile_is_remembered_as_undelivered() -> None:
    room = occupied(("sender", "a1"), ("receiver", "a1"))
    node = await a_node(room)
    # The connection of the sender has ended, and its room does not know yet.
    node.people.here = {("receiver", room.members["receiver"].generation)}
    await node.commits.run(ROOM, Enter("other", "token"), T0, Seen())
    assert lacks_a_message(node, "sender", GENERATION)


@in_virtual_time
async def test_connections_of_a_node_that_was_evicted_while_it_waited_are_closed() -> None:
    node, seen = await a_node(), Seen()
    node.backend.lag = 0.5
    committing = asyncio.create_task(node.commits.run(ROOM, Enter("receiver", "token"), T0, seen))
    await asyncio.sleep(0.1)
    node.backend.node_id = "a2"
    await committing
    assert {client_id for client_id, *_ in node.people.closed} == {"sender", "receiver"}


@in_virtual_time
async def test_a_room_is_replaced_only_as_it_was_seen() -> None:
    node = await a_node()
    seen = node.replicas.known(ROOM)
    assert seen is not None
    assert await node.commits.replace(seen, lost(SENDER, "sender"))
    assert not await node.commits.replace(seen, SENDER)
