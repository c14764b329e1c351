from __future__ import annotations

import asyncio

import pytest

from flyx.server.redis.backend import LEASE
from flyx.server.redis.membership import RENEWAL_INTERVAL
from flyx.server.rooms.store import StoreUnavailable
from tests.server.redis.memory_backend import MemoryBackend, Service
from tests.server.redis.parts import Parts, Still, in_virtual_time, parts

LONG = LEASE + 1.0


@in_virtual_time
async def test_a_node_is_ready_once_it_has_a_lease_and_a_channel_and_was_audited() -> None:
    node = Parts(Service(Still()))
    assert not node.membership.ready
    await node.membership.start()
    # Without a subscription it may miss what is published.
    assert not node.membership.ready
    await node.backend.start()
    await node.membership.until_ready()
    assert node.membership.ready
    assert node.service.leased(node.backend.node_id)
    assert "audit" in node.events.told


@in_virtual_time
async def test_the_lease_is_renewed_long_before_it_runs_out() -> None:
    node = await parts()
    for _ in range(20):
        left = node.service.leases[node.backend.node_id] - node.service.now()
        assert left >= LEASE - RENEWAL_INTERVAL
        await asyncio.sleep(1.0)
    assert node.membership.leased


@in_virtual_time
async def test_nobody_waits_for_a_node_that_is_not_ready_for_more_than_a_moment() -> None:
    node = await parts()
    node.backend.subscribed_to = None
    node.membership.on_subscription(False)
    began = node.service.now()
    with pytest.raises(StoreUnavailable):
        await node.membership.until_ready()
    assert 0 < node.service.now() - began <= 2.0


@in_virtual_time
async def test_while_redis_is_away_nobody_waits_and_clients_of_the_node_go_on_talking() -> None:
    node = await parts()
    node.backend.cut = True
    await asyncio.sleep(2 * LEASE)
    assert node.membership.away
    assert node.membership.leased
    assert not node.membership.ready
    began = node.service.now()
    with pytest.raises(StoreUnavailable):
        await node.membership.until_ready()
    assert node.service.now() == began
    node.backend.cut = False
    await asyncio.sleep(2.0)
    assert not node.membership.away
    assert node.membership.ready


@in_virtual_time
async def test_a_node_that_stood_still_for_longer_than_its_lease_is_not_sure_of_it() -> None:
    node = await parts()
    node.backend.frozen_until = node.service.now() + 2 * LEASE
    await asyncio.sleep(LONG)
    assert not node.membership.leased


@in_virtual_time
async def test_the_end_of_the_subscription_is_told_and_its_return_is_followed_by_an_audit() -> None:
    node = await parts()
    node.backend.break_channel()
    assert node.events.told == ["lost touch"]
    assert not node.membership.ready
    await asyncio.sleep(1.0)
    assert node.events.told[:3] == ["lost touch", "lost touch", "audit"]
    assert node.membership.ready


@in_virtual_time
async def test_an_audit_that_could_not_be_made_is_made_again() -> None:
    node = await parts()
    node.events.in_step = False
    node.membership.audit_soon()
    await asyncio.sleep(1.0)
    assert not node.membership.ready
    node.events.in_step = True
    await asyncio.sleep(RENEWAL_INTERVAL)
    assert node.membership.ready


@in_virtual_time
async def test_what_is_missed_during_an_audit_is_looked_for_by_the_next_one() -> None:
    node = await parts()

    async def miss_something(*, data_lost: bool) -> bool:
        node.events.told.append("audit")
        if node.events.told.count("audit") == 1:
            node.membership.audit_soon()
        return True

    node.events.audit_due = miss_something  # type: ignore[method-assign]
    node.membership.audit_soon()
    await asyncio.sleep(1.0)
    assert node.events.told.count("audit") == 2
    assert node.membership.ready


@in_virtual_time
async def test_now_and_then_there_is_an_audit_without_any_reason() -> None:
    node = await parts()
    await asyncio.sleep(11 * RENEWAL_INTERVAL)
    assert node.events.told.count("audit") == node.events.told.count("audited") == 1
    assert node.events.told.count("renewed") >= 10


@in_virtual_time
async def test_that_redis_lost_its_data_is_told_until_an_audit_has_put_it_back() -> None:
    node = await parts()
    node.events.in_step = False
    node.service.flush()
    await asyncio.sleep(2 * RENEWAL_INTERVAL)
    audits = [told for told in node.events.told if told in ("audit", "data lost")]
    assert audits
    assert set(audits) == {"data lost"}
    node.events.in_step = True
    await asyncio.sleep(RENEWAL_INTERVAL)
    node.events.told.clear()
    node.membership.audit_soon()
    await asyncio.sleep(1.0)
    assert "data lost" not in node.events.told
    assert "audit" in node.events.told


@in_virtual_time
async def test_an_evicted_node_goes_on_under_another_name() -> None:
    node = await parts()
    name = node.backend.node_id
    del node.service.leases[name]
    assert await node.backend.evict(name) == []
    await asyncio.sleep(2 * RENEWAL_INTERVAL)
    assert ("renamed", name) in node.events.told
    assert node.backend.node_id != name
    assert node.service.leased(node.backend.node_id)
    assert node.membership.ready


@in_virtual_time
async def test_a_probe_shows_whether_the_channel_carries() -> None:
    node = await parts()
    assert await node.membership.probe()
    node.backend.on_message = lambda _: None
    began = node.service.now()
    assert not await node.membership.probe()
    assert node.service.now() == began + 1.0
    assert not node.membership.ready


@in_virtual_time
async def test_an_older_probe_that_comes_late_proves_nothing() -> None:
    node = await parts()
    node.backend.on_message = lambda _: None
    probing = asyncio.create_task(node.membership.probe())
    await asyncio.sleep(0.5)
    node.membership.probe_returned(0)
    assert not await probing


@in_virtual_time
async def test_a_node_without_a_lease_is_evicted_once() -> None:
    service = Service(Still())
    node = await parts("a", service)
    await asyncio.sleep(LONG)
    dead = MemoryBackend(service, "b").node_id
    service.homes[dead] = {"K7M2QX"}
    assert node.membership.suspect(dead)
    assert node.membership.suspect(dead)
    await asyncio.sleep(1.0)
    assert node.events.told.count(("node dead", dead, ["K7M2QX"])) == 1
    assert dead in service.tombstones


@in_virtual_time
async def test_a_node_that_has_a_lease_is_not() -> None:
    service = Service(Still())
    node, other = await parts("a", service), await parts("b", service)
    await asyncio.sleep(LONG)
    assert node.membership.suspect(other.backend.node_id)
    assert node.membership.suspect(node.backend.node_id)
    await asyncio.sleep(1.0)
    assert service.tombstones == set()


@in_virtual_time
async def test_who_was_away_from_redis_until_just_now_judges_nobody() -> None:
    service = Service(Still())
    node = await parts("a", service)
    await asyncio.sleep(LONG)
    node.backend.cut = True
    await asyncio.sleep(5.0)
    node.backend.cut = False
    await asyncio.sleep(5.0)
    dead = MemoryBackend(service, "b").node_id
    assert not node.membership.suspect(dead)
    await asyncio.sleep(LONG)
    assert node.membership.suspect(dead)
