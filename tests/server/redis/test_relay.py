from __future__ import annotations

import asyncio
import json

import pytest

from flyx.server.redis.relay import RELAY_TIMEOUT, retarget
from flyx.server.rooms.store import StoreUnavailable
from flyx.signaling.commands import AppendMissed, Deliver, Effects, Relay
from flyx.signaling.messages import Answer, AnswerData, Offer, OfferData, Paired, PairedData
from flyx.signaling.room import Room
from tests.server.redis.memory_backend import Service
from tests.server.redis.parts import ROOM, Parts, Still, in_virtual_time, lost, occupied, parts, shared
from tests.server.rooms.store_contract import T0

APART = occupied(("sender", "a1"), ("near", "a1"), ("far", "b1"))
GENERATIONS = {member.client_id: member.generation for member in APART.members.values()}


def offer(target_id: str | None = None) -> Relay:
    return Relay("sender", GENERATIONS["sender"], Offer(data=OfferData(sdp="sdp", target_id=target_id)))


def ignore(effects: Effects) -> None:
    """Nobody looks."""


async def two_nodes(room: Room = APART) -> tuple[Parts, Parts]:
    """Return two nodes that know a room, as the backend does."""
    service = Service(Still())
    nodes = await parts("a", service), await parts("b", service)
    service.keep(shared(room))
    for node in nodes:
        name = node.backend.node_id
        node.replicas.apply(shared(room), name)
        node.people.here = {(m.client_id, m.generation) for m in shared(room).members_at(name)}
        node.messages.clear()
    return nodes


def batches(node: Parts) -> list[list[list[object]]]:
    """Return the targets of each item in each batch that a node received."""
    received = [message for message in map(json.loads, node.messages) if message[0] == "relay"]
    return [[item[2] for item in items] for _, _, _, items in received]


@in_virtual_time
async def test_a_message_for_clients_here_leaves_at_once_and_the_backend_is_not_asked() -> None:
    here, _ = await two_nodes()
    here.backend.cut = True
    seen: list[Effects] = []
    effects = await here.relay.run_on_replica(ROOM, offer("near"), T0, seen.append)
    assert seen == [effects]
    assert effects is not None
    [deliver] = effects
    assert isinstance(deliver, Deliver)
    assert deliver.client_id == "near"


@in_virtual_time
async def test_a_message_for_all_goes_once_to_each_node() -> None:
    here, there = await two_nodes()
    seen: list[Effects] = []
    effects = await here.relay.run_on_replica(ROOM, offer(), T0, seen.append)
    await asyncio.sleep(0)
    assert effects is not None
    assert [[effect.client_id for effect in those if isinstance(effect, Deliver)] for those in seen] == [
        ["near"]
    ]
    assert batches(there) == [[[["far", GENERATIONS["far"]]]]]
    assert here.people.elsewhere == 1


@pytest.mark.parametrize("why", ["unknown", "changing", "to be changed", "no lease"])
def test_what_a_replica_does_not_decide_is_left_to_a_commit(why: str) -> None:
    @in_virtual_time
    async def run() -> None:
        here, there = await two_nodes()
        command = offer("near")
        match why:
            case "unknown":
                here.replicas.clear()
            case "changing":
                here.replicas.reserve(ROOM)
            case "to be changed":
                here.replicas.apply(shared(lost(APART, "near"), 2), "a1")
            case "no lease":
                here.backend.frozen_until = here.service.now() + 100.0
                await asyncio.sleep(20.0)
        assert await here.relay.run_on_replica(ROOM, command, T0, ignore) is None
        assert there.messages == [] or why == "no lease"

    run()


@in_virtual_time
async def test_a_message_for_a_client_that_is_away_is_kept_in_the_room() -> None:
    away = lost(APART, "far")
    here, _ = await two_nodes(away)
    await here.relay.run(ROOM, offer("far"), T0, ignore)
    entry = await here.backend.load(ROOM)
    assert entry is not None
    absence = entry.room.members["far"].absence
    assert absence is not None
    assert len(absence.mailbox) == 1


@in_virtual_time
async def test_a_message_that_a_change_has_overtaken_is_decided_anew() -> None:
    here, there = await two_nodes()
    moved = shared(occupied(("sender", "a1"), ("near", "a1"), ("far", "a1")), 2, "b1:0")
    here.service.keep(moved)
    here.people.here.add(("far", GENERATIONS["far"]))
    asyncio.get_running_loop().call_later(0.5, here.replicas.apply, moved, "a1")
    seen: list[Effects] = []
    await here.relay.run_on_replica(ROOM, offer("far"), T0, seen.append)
    assert batches(there) == []
    [[deliver]] = seen
    assert isinstance(deliver, Deliver)
    assert deliver.client_id == "far"


@in_virtual_time
async def test_a_message_for_a_connection_here_that_has_ended_is_decided_anew() -> None:
    here, _ = await two_nodes()
    here.people.here.discard(("near", GENERATIONS["near"]))
    after = shared(lost(APART, "near"), 2, "a1:0")
    here.service.keep(after)
    asyncio.get_running_loop().call_later(0.5, here.replicas.apply, after, "a1")
    await here.relay.run_on_replica(ROOM, offer("near"), T0, ignore)
    entry = await here.backend.load(ROOM)
    assert entry is not None
    absence = entry.room.members["near"].absence
    assert absence is not None
    assert len(absence.mailbox) == 1


@in_virtual_time
async def test_a_message_that_gets_nowhere_is_given_up_in_time_and_its_target_told() -> None:
    here, _ = await two_nodes()
    # The room says that the connection is here, and it is not.
    here.people.here.discard(("near", GENERATIONS["near"]))
    began = here.service.now()
    await here.relay.run_on_replica(ROOM, offer("near"), T0, ignore)
    await asyncio.sleep(0)
    assert here.service.now() - began <= RELAY_TIMEOUT
    assert here.performed == [AppendMissed("near", GENERATIONS["near"], None)]


@in_virtual_time
async def test_a_sender_whose_message_reached_nobody_may_send_it_again() -> None:
    here, there = await two_nodes()
    there.backend.subscribed_to = None
    with pytest.raises(StoreUnavailable):
        await here.relay.run_on_replica(ROOM, offer("far"), T0, ignore)
    assert here.performed == []


@in_virtual_time
async def test_if_others_have_it_those_whom_it_did_not_reach_begin_new_sessions() -> None:
    here, there = await two_nodes()
    there.backend.subscribed_to = None
    await here.relay.run_on_replica(ROOM, offer(), T0, ignore)
    await asyncio.sleep(0)
    assert here.performed == [AppendMissed("far", GENERATIONS["far"], None)]


@in_virtual_time
async def test_a_mark_goes_to_each_node_to_which_something_was_sent_and_to_one_that_asks() -> None:
    here, there = await two_nodes()
    here.relay.mark()
    await asyncio.sleep(0.1)
    assert there.messages == []
    here.relay.asked("b1")
    await asyncio.sleep(0.1)
    await here.relay.run_on_replica(ROOM, offer("far"), T0, ignore)
    here.relay.mark()
    await asyncio.sleep(0.1)
    assert [json.loads(message)[2] for message in there.messages if '"mark"' in message] == [0, 1]


@in_virtual_time
async def test_numbers_start_over_under_a_new_name_and_for_a_node_that_was_evicted() -> None:
    here, there = await two_nodes()
    for forget in (here.relay.renamed, None):
        await here.relay.run_on_replica(ROOM, offer("far"), T0, ignore)
        if forget is not None:
            forget()
        else:
            await here.relay.forget_node("b1")
    await here.relay.run_on_replica(ROOM, offer("far"), T0, ignore)
    await asyncio.sleep(0)
    numbers = [message[2] for message in map(json.loads, there.messages) if message[0] == "relay"]
    assert numbers == [1, 1, 1]


def test_a_message_is_aimed_at_one_client() -> None:
    assert retarget(Offer(data=OfferData(sdp="sdp")), "far") == Offer(
        data=OfferData(sdp="sdp", target_id="far")
    )
    answer = Answer(data=AnswerData(sdp="sdp"))
    assert retarget(answer, "far") is answer
    paired = retarget(Paired(data=PairedData()), "far")
    assert isinstance(paired, Paired)
    assert paired.data.target_id == "far"
