from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flyx.signaling.commands import AppendMissed
from flyx.signaling.messages import ErrorCode
from flyx.signaling.record import dump_room
from flyx.signaling.room import Room
from tests.server.redis.parts import (
    ROOM,
    Parts,
    in_virtual_time,
    lacks_a_message,
    lost,
    occupied,
    parts,
    shared,
)

APART = occupied(("sender", "b1"), ("receiver", "a1"))
GENERATION = APART.members["receiver"].generation
CONNECTION = ("receiver", GENERATION)


async def a_node(room: Room = APART) -> Parts:
    """Return a node that knows a room, as the backend does."""
    node = await parts()
    node.people.here = {CONNECTION}
    node.replicas.apply(shared(room), "a1")
    node.service.keep(shared(room))
    return node


def receive(
    node: Parts,
    *effects: list[Any],
    room: Room | None = APART,
    version: int = 2,
    change: str = "b1:1",
    before: str = "",
) -> None:
    record = None if room is None else dump_room(room)
    node.replication.receive(ROOM, "incarnation", version, change, before, record, list(effects))


@in_virtual_time
async def test_a_change_by_another_node_is_applied_and_its_effects_reach_clients_in_order() -> None:
    node = await a_node()
    receive(
        node,
        ["send", *CONNECTION, "1", True],
        ["send", *CONNECTION, "2", False],
        ["close", *CONNECTION, 4410, "room_closed", "over"],
    )
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.state == ("incarnation", 2, "b1:1")
    assert node.people.sent == [(*CONNECTION, "1", True), (*CONNECTION, "2", False)]
    assert node.people.closed == [(*CONNECTION, ErrorCode.ROOM_CLOSED)]


@pytest.mark.parametrize(("counted", "remembered"), [(True, True), (False, False)])
def test_a_connection_that_a_counted_message_did_not_reach_is_remembered(
    counted: bool, remembered: bool
) -> None:
    @in_virtual_time
    async def run() -> None:
        node = await a_node()
        node.people.here.clear()
        receive(node, ["send", *CONNECTION, "1", counted])
        assert node.people.sent == []
        assert lacks_a_message(node, *CONNECTION) is remembered

    run()


@in_virtual_time
async def test_an_older_change_is_not_applied() -> None:
    node = await a_node()
    receive(node, version=3, change="b1:2")
    receive(node, ["send", *CONNECTION, "1", True], version=2)
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.version == 3
    assert node.people.sent == []
    assert node.membership.ready


@in_virtual_time
async def test_two_changes_to_one_version_call_for_an_audit() -> None:
    node = await a_node()
    receive(node)
    receive(node, change="c1:9")
    assert not node.membership.ready


@in_virtual_time
async def test_a_change_left_out_has_clients_begin_new_sessions() -> None:
    node = await a_node()
    receive(node, version=3, change="b1:2", before="b1:1")
    await asyncio.sleep(0)
    assert node.people.closed == [(*CONNECTION, ErrorCode.RESYNC)]
    assert node.performed == [AppendMissed(*CONNECTION, None)]


@in_virtual_time
async def test_a_closed_room_is_forgotten() -> None:
    node = await a_node()
    receive(node, ["close", *CONNECTION, 4410, "room_closed", "over"], room=None)
    assert node.replicas.known(ROOM) is None
    assert node.people.closed == [(*CONNECTION, ErrorCode.ROOM_CLOSED)]


@in_virtual_time
async def test_a_client_that_a_room_does_not_have_any_more_is_disconnected() -> None:
    node = await a_node()
    node.replication.apply(shared(occupied(("sender", "b1"), ("other", "a1")), 2))
    assert node.people.closed == [(*CONNECTION, ErrorCode.RESYNC)]


@in_virtual_time
async def test_unless_the_change_itself_says_why() -> None:
    node = await a_node()
    node.replication.apply(shared(occupied(("sender", "b1"), ("other", "a1")), 2), {"receiver"})
    assert node.people.closed == []


@in_virtual_time
async def test_a_client_that_is_away_although_its_connection_is_here_is_disconnected() -> None:
    node = await a_node()
    node.replication.apply(shared(lost(APART, "receiver"), 2))
    assert node.people.closed == [(*CONNECTION, ErrorCode.RESYNC)]
    # Messages of the sender's node may still be on their way to it.
    assert node.recovery.senders == {"b1"}


@in_virtual_time
async def test_a_refreshed_replica_is_what_the_backend_has_and_clients_begin_new_sessions() -> None:
    node = await a_node()
    newer = shared(APART, 5, "b1:4")
    node.service.keep(newer)
    await node.replication.refresh(ROOM)
    assert node.replicas.known(ROOM) == newer
    assert node.people.closed == [(*CONNECTION, ErrorCode.RESYNC)]


@in_virtual_time
async def test_a_refresh_that_a_change_has_overtaken_changes_nothing() -> None:
    node = await a_node()
    node.service.keep(shared(APART, 5, "b1:4"))
    node.backend.slow = 0.5
    refreshing = asyncio.create_task(node.replication.refresh(ROOM))
    await asyncio.sleep(0.1)
    receive(node)
    await refreshing
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.version == 2
    assert node.people.closed == []


@in_virtual_time
async def test_an_audit_finds_what_changed_unheard_and_leaves_the_rest() -> None:
    node = await a_node()
    assert await node.replication.audit(data_lost=False)
    assert node.people.closed == []
    node.service.keep(shared(APART, 5, "b1:4"))
    assert await node.replication.audit(data_lost=False)
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.version == 5
    assert node.people.closed == [(*CONNECTION, ErrorCode.RESYNC)]


@pytest.mark.parametrize("data_lost", [True, False])
def test_a_room_that_is_gone_is_put_back_if_data_was_lost_and_else_forgotten(data_lost: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        node = await a_node()
        del node.service.rooms[ROOM]
        assert await node.replication.audit(data_lost=data_lost)
        assert (ROOM in node.service.rooms) is data_lost
        assert (node.replicas.known(ROOM) is not None) is data_lost
        assert node.people.closed == ([] if data_lost else [(*CONNECTION, ErrorCode.RESYNC)])

    run()


@in_virtual_time
async def test_a_backend_that_went_back_in_time_is_given_the_newer_room() -> None:
    node = await a_node()
    newer = shared(APART, 5, "b1:4")
    node.replicas.apply(newer, "a1")
    assert await node.replication.audit(data_lost=False)
    assert node.service.rooms[ROOM][0] == newer.state
    assert node.people.closed == []


@in_virtual_time
async def test_there_is_no_audit_while_the_channel_does_not_carry() -> None:
    node = await a_node()
    node.backend.on_message = lambda _: None
    node.service.keep(shared(APART, 5, "b1:4"))
    assert not await node.replication.audit(data_lost=False)
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.version == 1
