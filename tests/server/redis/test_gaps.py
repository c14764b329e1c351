from __future__ import annotations

import asyncio

import pytest

from flyx.server.redis.backend import LEASE
from tests.server.redis.memory_backend import MemoryBackend, Service
from tests.server.redis.parts import Parts, Still, in_virtual_time, parts

OTHER, THIRD = "b1", "c1"


def lost(node: Parts) -> list[str]:
    """Return the nodes of which messages were found lost."""
    return [told[1] for told in node.events.told if told[0] == "messages lost"]


@in_virtual_time
async def test_batches_in_order_are_complete() -> None:
    node = await parts()
    assert [node.gaps.count(OTHER, n) for n in (1, 2, 3)] == [True] * 3
    assert not node.gaps.count(OTHER, 3, last=True)
    assert lost(node) == []


@in_virtual_time
async def test_a_batch_that_comes_again_is_told() -> None:
    node = await parts()
    assert node.gaps.count(OTHER, 1)
    assert not node.gaps.count(OTHER, 1)
    assert lost(node) == []


@in_virtual_time
async def test_a_number_left_out_is_a_gap_and_the_batch_is_still_good() -> None:
    node = await parts()
    assert node.gaps.count(OTHER, 2)
    assert node.gaps.count(THIRD, 1)
    assert lost(node) == [OTHER]
    assert node.gaps.count(OTHER, 3)
    assert lost(node) == [OTHER]


@in_virtual_time
async def test_a_mark_shows_that_the_last_batch_is_missing() -> None:
    node = await parts()
    node.gaps.count(OTHER, 1)
    node.gaps.count(OTHER, 2, last=True)
    assert lost(node) == [OTHER]


@in_virtual_time
async def test_a_node_is_uncertain_from_the_loss_of_the_channel_until_it_is_heard_of() -> None:
    node, both = await parts(), frozenset({OTHER, THIRD})
    node.gaps.count(OTHER, 1)
    node.gaps.lost_touch({OTHER})
    assert node.gaps.uncertain(both) == {OTHER}
    waiting = asyncio.create_task(node.gaps.until_certain(both))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    node.gaps.count(OTHER, 1, last=True)
    await waiting
    assert node.gaps.uncertain(both) == frozenset()
    assert lost(node) == []


@in_virtual_time
async def test_a_node_of_which_a_batch_was_not_used_is_uncertain() -> None:
    node = await parts()
    node.gaps.discarded(OTHER)
    assert node.gaps.uncertain(frozenset({OTHER})) == {OTHER}


@in_virtual_time
async def test_an_uncertain_node_is_asked() -> None:
    service = Service(Still())
    node, other = await parts("a", service), await parts("b", service)
    node.gaps.lost_touch({OTHER})
    other.messages.clear()
    await node.gaps.ask()
    await asyncio.sleep(0)
    assert other.messages == ['["ask","a1"]']
    assert lost(node) == []


@in_virtual_time
async def test_one_that_gives_no_answer_for_as_long_as_a_lease_lasts_counts_as_lost() -> None:
    service = Service(Still())
    node, _ = await parts("a", service), await parts("b", service)
    node.gaps.lost_touch({OTHER})
    await asyncio.sleep(LEASE + 1.0)
    await node.gaps.ask()
    assert lost(node) == [OTHER]
    assert node.gaps.uncertain(frozenset({OTHER})) == frozenset()


@in_virtual_time
async def test_one_that_is_not_subscribed_is_suspected() -> None:
    service = Service(Still())
    node = await parts("a", service)
    # Long enough for this node to judge others.
    await asyncio.sleep(LEASE + 1.0)
    silent = MemoryBackend(service, "b")
    service.homes[silent.node_id] = {"K7M2QX"}
    node.gaps.lost_touch({OTHER})
    await node.gaps.ask()
    await asyncio.sleep(1.0)
    assert ("node dead", OTHER, ["K7M2QX"]) in node.events.told


@pytest.mark.parametrize("uncertain", [True, False])
def test_of_a_node_that_is_evicted_before_it_answers_something_is_lost(uncertain: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        node = await parts()
        node.gaps.count(OTHER, 1)
        if uncertain:
            node.gaps.lost_touch({OTHER})
        node.gaps.forget_node(OTHER)
        assert lost(node) == [OTHER] * uncertain

    run()


@in_virtual_time
async def test_under_a_new_name_numbers_start_over_and_what_was_missed_is_lost() -> None:
    node = await parts()
    node.gaps.count(OTHER, 7)
    node.events.told.clear()
    node.gaps.lost_touch({THIRD})
    node.gaps.renamed()
    assert lost(node) == [THIRD]
    assert node.gaps.count(OTHER, 1)
    assert lost(node) == [THIRD]
