from __future__ import annotations

import asyncio

from flyx.server.redis.handover import Handover
from flyx.signaling.commands import Resume
from tests.server.redis.memory_backend import Service
from tests.server.redis.parts import ROOM, Parts, Still, in_virtual_time, lost, occupied, parts, shared
from tests.server.rooms.store_contract import T0

RESUME = Resume("receiver", "token of receiver", "new")


async def two_nodes() -> tuple[Parts, Parts, Handover]:
    service = Service(Still())
    here, there = await parts("a", service), await parts("b", service)
    return here, there, Handover(here.backend, here.people)


def always_wanted() -> bool:
    return True


@in_virtual_time
async def test_the_node_of_the_older_connection_is_asked_once_and_its_end_waited_for() -> None:
    here, there, handover = await two_nodes()
    room = occupied(("sender", "a1"), ("receiver", "b1"))
    here.service.keep(shared(room))
    there.messages.clear()
    preparing = asyncio.create_task(handover.prepare(ROOM, RESUME, T0, always_wanted))
    await asyncio.sleep(1.0)
    generation = room.members["receiver"].generation
    assert there.messages == [f'["oust","{ROOM}","receiver",{generation}]']
    here.service.keep(shared(lost(room, "receiver", settled=False), 2))
    await asyncio.sleep(1.0)
    # What was on its way to it is not known yet.
    assert not preparing.done()
    here.service.keep(shared(lost(room, "receiver"), 3))
    await asyncio.sleep(0.1)
    assert preparing.done()


@in_virtual_time
async def test_it_is_not_waited_for_longer_than_a_client_would() -> None:
    here, _, handover = await two_nodes()
    here.service.keep(shared(occupied(("sender", "a1"), ("receiver", "b1"))))
    began = here.service.now()
    await handover.prepare(ROOM, RESUME, T0, always_wanted)
    assert 3.0 <= here.service.now() - began < 3.1


@in_virtual_time
async def test_nothing_is_waited_for_if_the_older_connection_was_here_or_its_node_is_gone() -> None:
    here, there, handover = await two_nodes()
    here.service.keep(shared(occupied(("sender", "a1"), ("receiver", "a1"))))
    here.people.here = {("receiver", 2)}
    began = here.service.now()
    await handover.prepare(ROOM, RESUME, T0, always_wanted)
    here.service.keep(shared(occupied(("sender", "a1"), ("receiver", "b1"))))
    await there.stop()
    await handover.prepare(ROOM, RESUME, T0, always_wanted)
    assert here.service.now() == began


@in_virtual_time
async def test_nor_for_a_stranger_or_a_client_that_has_gone_meanwhile() -> None:
    here, there, handover = await two_nodes()
    here.service.keep(shared(occupied(("sender", "a1"), ("receiver", "b1"))))
    there.messages.clear()
    began = here.service.now()
    await handover.prepare(ROOM, Resume("receiver", "guessed", "new"), T0, always_wanted)
    await handover.prepare(ROOM, Resume("nobody", "token of nobody", "new"), T0, always_wanted)
    await handover.prepare("000000", RESUME, T0, always_wanted)
    await handover.prepare(ROOM, RESUME, T0, lambda: False)
    assert here.service.now() == began
    assert there.messages == []
