from __future__ import annotations

import asyncio

from flyx.server.redis.replicas import Replicas
from tests.server.redis.parts import ROOM, in_virtual_time, lost, occupied, shared

HERE, THERE = "a1", "b1"
TOGETHER = shared(occupied(("sender", HERE), ("receiver", HERE)))
APART = shared(occupied(("sender", HERE), ("receiver", THERE)))


def test_a_room_is_known_while_a_client_of_the_node_is_connected_to_it() -> None:
    replicas = Replicas()
    replicas.apply(APART, HERE)
    assert replicas.known(ROOM) is APART
    assert replicas.entries() == [APART]
    replicas.apply(shared(lost(APART.room, "sender"), 2), HERE)
    assert replicas.known(ROOM) is None
    assert len(replicas) == 0


def test_a_room_is_at_hand_only_without_clients_of_other_nodes_and_without_a_change_under_way() -> None:
    replicas = Replicas()
    replicas.apply(APART, HERE)
    assert replicas.at_hand(ROOM) is None
    assert replicas.quiet(ROOM) is APART
    replicas.apply(TOGETHER, HERE)
    assert replicas.at_hand(ROOM) is TOGETHER.room
    replicas.reserve(ROOM)
    assert replicas.at_hand(ROOM) is None
    assert replicas.quiet(ROOM) is None
    assert replicas.known(ROOM) is TOGETHER
    replicas.release(ROOM)
    assert replicas.at_hand(ROOM) is TOGETHER.room


def test_what_is_reserved_is_kept_until_it_is_released() -> None:
    replicas = Replicas()
    replica = replicas.reserve(ROOM)
    assert replicas.get(ROOM) is replica
    assert replica.entry is None
    replicas.release(ROOM)
    assert replicas.get(ROOM) is None


def test_no_room_is_known_under_a_new_name() -> None:
    replicas = Replicas()
    replicas.apply(APART, HERE)
    replicas.clear()
    assert replicas.entries() == []


@in_virtual_time
async def test_news_are_waited_for_until_the_deadline() -> None:
    replicas, loop = Replicas(), asyncio.get_running_loop()
    replica = replicas.reserve(ROOM)
    loop.call_later(1.0, replicas.apply, APART, HERE)
    assert await replicas.news(replica, loop.time() + 2.0)
    assert loop.time() == 1.0
    assert not await replicas.news(replica, loop.time() + 2.0)
    assert loop.time() == 3.0
    loop.call_later(1.0, replicas.drop, ROOM)
    assert await replicas.news(replica, loop.time() + 2.0)
