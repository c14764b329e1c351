from __future__ import annotations

import asyncio

import pytest

from flyx.server.redis import wire
from flyx.server.redis.inbox import Inbox
from flyx.signaling.commands import AppendMissed, Enter
from flyx.signaling.record import dump_room
from tests.server.redis.memory_backend import Service
from tests.server.redis.parts import ROOM, Parts, Still, in_virtual_time, occupied, parts, shared
from tests.server.rooms.store_contract import T0

APART = occupied(("sender", "b1"), ("receiver", "a1"))
CONNECTION = ("receiver", APART.members["receiver"].generation)
BATCH = wire.encode([wire.RELAY, "b1", 1, [[ROOM, "sender", [list(CONNECTION)], "text"]]])


async def a_node() -> tuple[Parts, Inbox]:
    node = await parts("a", Service(Still()))
    node.replicas.apply(shared(APART), "a1")
    node.service.keep(shared(APART))
    node.people.here = {CONNECTION}
    inbox = Inbox(
        node.tasks,
        node.people,
        node.membership,
        node.gaps,
        node.recovery,
        node.replication,
        node.commits,
        node.relay,
    )
    node.backend.on_message = inbox.receive
    return node, inbox


@in_virtual_time
async def test_messages_of_clients_of_other_nodes_are_sent_on_once() -> None:
    node, inbox = await a_node()
    inbox.receive(BATCH)
    inbox.receive(BATCH)
    assert node.people.sent == [(*CONNECTION, "text", True)]


@in_virtual_time
async def test_those_for_a_connection_that_is_over_are_left_to_recovery() -> None:
    node, inbox = await a_node()
    node.people.here.clear()
    node.replicas.clear()
    inbox.receive(BATCH)
    await asyncio.sleep(0)
    assert node.performed == [AppendMissed(*CONNECTION, ("text",))]


@in_virtual_time
async def test_a_change_by_another_node_is_applied() -> None:
    node, inbox = await a_node()
    inbox.receive(wire.encode([wire.ROOM, ROOM, "incarnation", 2, "b1:0", "", dump_room(APART), []]))
    known = node.replicas.known(ROOM)
    assert known is not None
    assert known.version == 2


@in_virtual_time
async def test_a_change_by_this_node_is_carried_out() -> None:
    node, _ = await a_node()
    began = node.service.now()
    await node.commits.run(ROOM, Enter("other", "token"), T0, lambda effects: None)
    assert node.service.now() == began
    assert node.membership.ready


@in_virtual_time
async def test_marks_and_questions_and_probes_and_takeovers_reach_those_whom_they_are_for() -> None:
    node, inbox = await a_node()
    inbox.receive(wire.encode([wire.MARK, "b1", 3]))
    assert ("messages lost", "b1") in node.events.told
    inbox.receive(wire.encode([wire.TAKEOVER, ROOM, *CONNECTION]))
    await asyncio.sleep(0)
    assert node.people.taken_over == [(ROOM, *CONNECTION)]
    assert await node.membership.probe()
    other = await parts("b", node.service)
    other.messages.clear()
    inbox.receive(wire.encode([wire.ASK, "b1"]))
    await asyncio.sleep(0.1)
    assert other.messages == ['["mark","a1",0]']


@in_virtual_time
async def test_without_a_lease_nothing_is_believed_but_a_probe() -> None:
    node, inbox = await a_node()
    node.backend.frozen_until = node.service.now() + 100.0
    await asyncio.sleep(20.0)
    inbox.receive(BATCH)
    inbox.receive(wire.encode([wire.ROOM, ROOM, "incarnation", 2, "b1:0", "", None, []]))
    assert node.people.sent == []
    assert node.replicas.known(ROOM) is not None
    # What was not used is missing.
    assert node.gaps.uncertain(frozenset({"b1"})) == {"b1"}
    assert not node.membership.ready


def test_a_message_of_another_version_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        _, inbox = await a_node()
        inbox.receive('["something new"]')

    run()
    assert any("another version" in record.getMessage() for record in caplog.records)
