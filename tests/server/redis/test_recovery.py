from __future__ import annotations

import asyncio

import pytest

from flyx.errors import NoSuchRoom
from flyx.server.rooms.store import StoreUnavailable
from flyx.signaling.commands import AppendMissed, Resume
from flyx.signaling.messages import ErrorCode
from flyx.signaling.room import Room, step
from tests.server.redis.parts import ROOM, Parts, in_virtual_time, lost, occupied, parts, shared
from tests.server.rooms.store_contract import T0

APART = occupied(("sender", "b1"), ("receiver", "a1"))
TOGETHER = occupied(("sender", "a1"), ("receiver", "a1"))
GENERATION = APART.members["receiver"].generation
CONNECTION = ("receiver", GENERATION)


async def a_node(room: Room = APART) -> Parts:
    """Return a node that knows a room."""
    node = await parts()
    node.replicas.apply(shared(room), "a1")
    return node


def texts(node: Parts) -> list[tuple[str, ...] | None]:
    """Return what the room was told that connections missed, in turn."""
    return [command.texts for command in node.performed if isinstance(command, AppendMissed)]


@in_virtual_time
async def test_what_comes_while_a_connection_ends_is_kept_until_the_room_knows_and_then_told() -> None:
    node = await a_node()
    node.recovery.received_late(ROOM, *CONNECTION, "1")
    node.recovery.settle(ROOM, APART)
    node.recovery.received_late(ROOM, *CONNECTION, "2")
    await asyncio.sleep(1.0)
    assert node.performed == []
    node.recovery.settle(ROOM, lost(APART, "receiver", settled=False))
    await asyncio.sleep(1.0)
    first, *others = node.performed
    assert first == AppendMissed(*CONNECTION, ("1", "2"))
    # That there is nothing else may be told as well.
    assert all(other == AppendMissed(*CONNECTION, ()) for other in others)


@in_virtual_time
async def test_what_comes_when_the_room_knows_already_is_told_at_once() -> None:
    node = await a_node()
    node.replicas.apply(shared(lost(TOGETHER, "receiver", settled=False), 2), "a1")
    node.recovery.received_late(ROOM, *CONNECTION, "1")
    await asyncio.sleep(0)
    assert texts(node) == [("1",)]


@in_virtual_time
async def test_a_client_that_has_resumed_here_is_sent_it_before_anything_else() -> None:
    node = await a_node()
    node.recovery.received_late(ROOM, *CONNECTION, "1")
    away = lost(APART, "receiver", settled=True)
    back, _ = step(away, Resume("receiver", "token of receiver", "new", received=0, node="a1"), T0)
    newer = back.members["receiver"].generation
    node.people.here = {("receiver", newer)}
    node.recovery.settle(ROOM, back)
    assert node.people.sent == [("receiver", newer, "1", True)]
    assert node.performed == []


@in_virtual_time
async def test_a_room_is_told_that_a_connection_missed_nothing_once_that_is_certain() -> None:
    node = await a_node()
    node.gaps.lost_touch({"b1"})
    node.recovery.settle(ROOM, lost(APART, "receiver", settled=False))
    await asyncio.sleep(5.0)
    assert node.performed == []
    node.gaps.count("b1", 0, last=True)
    await asyncio.sleep(0.1)
    assert texts(node) == [()]


@in_virtual_time
async def test_if_a_change_did_not_come_in_its_place_nobody_knows_what_was_missed() -> None:
    node = await a_node()
    node.recovery.settle(ROOM, lost(APART, "receiver", settled=False), complete=False)
    await asyncio.sleep(0)
    assert texts(node) == [None]


@in_virtual_time
async def test_the_absence_of_a_client_of_another_node_is_left_to_that_node() -> None:
    node = await a_node()
    node.recovery.settle(ROOM, lost(APART, "sender", settled=False))
    await asyncio.sleep(1.0)
    assert node.performed == []


@pytest.mark.parametrize(("missed", "again"), [((), ()), (("1",), None), (None, None)])
def test_what_may_have_been_told_is_not_told_twice(
    missed: tuple[str, ...] | None, again: tuple[str, ...] | None
) -> None:
    @in_virtual_time
    async def run() -> None:
        node = await a_node()
        node.refusals.append(StoreUnavailable())
        node.recovery.amend(ROOM, *CONNECTION, missed)
        await asyncio.sleep(2.0)
        assert texts(node) == [missed, again]

    run()


@in_virtual_time
async def test_of_a_room_that_is_gone_nobody_asks() -> None:
    node = await a_node()
    node.refusals.append(NoSuchRoom(room_id=ROOM))
    node.recovery.amend(ROOM, *CONNECTION, ("1",))
    await asyncio.sleep(5.0)
    assert texts(node) == [("1",)]


@in_virtual_time
async def test_what_comes_while_the_room_is_told_is_told_after_it() -> None:
    node = await a_node()
    node.performing = 0.1
    node.recovery.amend(ROOM, *CONNECTION, ("1",))
    node.recovery.amend(ROOM, *CONNECTION, ("2",))
    await asyncio.sleep(0.05)
    node.recovery.amend(ROOM, *CONNECTION, ("3",))
    await asyncio.sleep(1.0)
    assert texts(node) == [("1", "2"), ("3",)]


@in_virtual_time
async def test_when_messages_of_a_node_were_lost_clients_in_its_rooms_begin_new_sessions() -> None:
    node = await a_node()
    node.recovery.messages_lost("c1")
    assert node.people.closed == []
    node.recovery.messages_lost("b1")
    await asyncio.sleep(0)
    assert node.people.closed == [(*CONNECTION, ErrorCode.RESYNC)]
    assert node.performed == [AppendMissed(*CONNECTION, None)]


@in_virtual_time
async def test_so_do_those_in_rooms_that_its_last_client_left_lately() -> None:
    node = await a_node(TOGETHER)
    node.recovery.nodes_left(ROOM, frozenset({"b1"}))
    assert node.recovery.senders == {"b1"}
    node.recovery.messages_lost("b1")
    assert {client_id for client_id, *_ in node.people.closed} == {"sender", "receiver"}


@in_virtual_time
async def test_and_those_whose_connections_ended_lately() -> None:
    node = await a_node()
    node.recovery.connection_ended(shared(APART), *CONNECTION)
    node.replicas.clear()
    assert node.recovery.senders == {"b1"}
    node.recovery.messages_lost("b1")
    await asyncio.sleep(0)
    assert node.people.closed == []
    assert node.performed == [AppendMissed(*CONNECTION, None)]


@in_virtual_time
async def test_who_has_gone_for_long_is_forgotten() -> None:
    node = await a_node()
    node.recovery.connection_ended(shared(APART), *CONNECTION)
    node.recovery.nodes_left(ROOM, frozenset({"c1"}))
    node.replicas.clear()
    await asyncio.sleep(61.0)
    node.recovery.nodes_left("000000", frozenset())
    assert node.recovery.senders == set()


@in_virtual_time
async def test_a_node_that_left_a_room_is_asked_only_while_something_of_it_may_be_missing() -> None:
    node = await a_node(TOGETHER)
    node.recovery.nodes_left(ROOM, frozenset({"b1"}))
    here = frozenset({"a1"})
    assert node.recovery.senders_in(ROOM, here) == frozenset()
    node.gaps.lost_touch({"b1"})
    assert node.recovery.senders_in(ROOM, here) == {"b1"}
    assert node.recovery.senders_in(ROOM, here | {"c1"}) == {"b1", "c1"}


@in_virtual_time
async def test_connections_under_an_old_name_are_closed() -> None:
    node = await a_node()
    node.recovery.disconnect_evicted(shared(APART), "b1")
    assert [client_id for client_id, *_ in node.people.closed] == ["sender"]


@in_virtual_time
async def test_under_a_new_name_what_was_late_is_not_passed_on() -> None:
    node = await a_node()
    node.recovery.received_late(ROOM, *CONNECTION, "1")
    node.recovery.nodes_left(ROOM, frozenset({"c1"}))
    node.recovery.renamed()
    node.recovery.settle(ROOM, lost(APART, "receiver"))
    await asyncio.sleep(1.0)
    assert node.performed == []
    assert node.recovery.senders == {"b1"}
