"""ICE over networks in memory: which pair becomes the path, and for how long it is believed to be one."""

from __future__ import annotations

import asyncio

import pytest
from aioice import Connection
from hypothesis import given
from hypothesis import strategies as st

from flyx.rtc.seam import connection as seam
from flyx.rtc.seam.connection import IceConnection
from flyx.rtc.seam.consent import CONSENT_TIMEOUT
from flyx.rtc.seam.pair import Pair
from tests.rtc.wires import Address, Wires, introduce, run, tell

LEFT, RIGHT = ("10.0.0.1", 1), ("10.0.0.2", 2)
RELAY, OTHER_RELAY = ("198.51.100.1", 3), ("198.51.100.2", 4)


def direct(one: Address, other: Address) -> bool:
    return {one, other} == {LEFT, RIGHT}


def opens_at(opening: float, *, delay: float = 0.01, relayed: float = 0.01) -> Wires:
    """A network where the direct path takes nothing until `opening`, and a relay everything."""

    def travel(one: Address, other: Address, now: float) -> float | None:
        if direct(one, other):
            return delay if now >= opening else None
        return relayed

    return Wires(travel)


def attach_all(wires: Wires, left: Connection, right: Connection, *, relays: int = 1) -> None:
    wires.attach(left, "host", LEFT)
    wires.attach(right, "host", RIGHT)
    if relays > 0:
        wires.attach(left, "relay", RELAY)
    if relays > 1:
        wires.attach(right, "relay", OTHER_RELAY)


async def connect(left: Connection, right: Connection) -> None:
    await asyncio.gather(left.connect(), right.connect())


def path(connection: Connection) -> tuple[Address, Address]:
    pair = connection._nominated[1]
    return pair.local_addr, pair.remote_addr


def settled(left: Connection, right: Connection) -> tuple[Address, Address]:
    """The path that both use."""
    assert path(left) == path(right)[::-1]
    return path(left)


async def close(*connections: Connection) -> None:
    for each in connections:
        await each.close()


STOCK_OR_OURS = pytest.mark.parametrize("other", [IceConnection, None], ids=["flyx", "aioice"])


def make(other: type[IceConnection] | None, *, controlling: bool) -> Connection:
    return other() if other else Connection(ice_controlling=controlling)


@STOCK_OR_OURS
def test_a_direct_path_that_opens_a_little_later_than_the_relay_is_the_path(
    other: type[IceConnection] | None,
) -> None:
    async def scenario() -> None:
        left, right = IceConnection(), make(other, controlling=False)
        introduce(left, right)
        attach_all(opens_at(0.3), left, right)
        await tell(left, right)
        await connect(left, right)
        assert settled(left, right) == (LEFT, RIGHT)
        await close(left, right)

    run(scenario())


@STOCK_OR_OURS
@pytest.mark.parametrize("opening", [3.0, 30.0])
def test_a_path_through_a_relay_is_left_when_a_direct_one_opens(
    other: type[IceConnection] | None, opening: float
) -> None:
    async def scenario() -> None:
        left, right = IceConnection(), make(other, controlling=False)
        introduce(left, right)
        attach_all(opens_at(opening), left, right)
        await tell(left, right)
        await connect(left, right)
        assert RELAY in path(left)
        assert asyncio.get_running_loop().time() < 1.5
        await asyncio.sleep(2 * opening)
        # aioice leaves the pair that it was told to use only for one that it was checking itself by chance.
        assert path(left) == (LEFT, RIGHT)
        if other:
            assert settled(left, right)
        await close(left, right)

    run(scenario())


def test_a_controlling_aioice_is_followed_to_a_pair_that_works() -> None:
    async def scenario() -> None:
        left, right = Connection(ice_controlling=True), IceConnection()
        introduce(left, right)
        attach_all(opens_at(0.3), left, right, relays=2)
        await tell(left, right)
        await connect(left, right)
        await asyncio.sleep(20)
        assert settled(left, right)
        await close(left, right)

    run(scenario())


def test_two_controlling_sides_agree_on_one() -> None:
    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        right.ice_controlling = True
        attach_all(opens_at(0.0), left, right)
        await tell(left, right)
        await connect(left, right)
        assert left.ice_controlling is not right.ice_controlling
        assert settled(left, right) == (LEFT, RIGHT)
        await close(left, right)

    run(scenario())


def test_a_nat_that_both_sides_open_is_passed_in_one_round_trip_more() -> None:
    """What comes in shows that the way out is open: nothing waits for the timer of a lost check."""
    reached: set[Address] = set()

    def address_restricted(one: Address, other: Address, now: float) -> float | None:
        reached.add(one)
        return 0.05 if other in reached else None

    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        attach_all(Wires(address_restricted), left, right, relays=0)
        await tell(left, right)
        await connect(left, right)
        assert asyncio.get_running_loop().time() < 0.4
        await close(left, right)

    run(scenario())


def test_a_relay_known_before_it_is_told_is_not_taken_for_a_direct_path() -> None:
    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        wires = opens_at(0.3)
        attach_all(wires, left, right, relays=0)
        await tell(left, right, end=False)
        # Only the right side knows of its relay, and checks us through it.
        wires.attach(right, "relay", OTHER_RELAY)
        await connect(left, right)
        assert settled(left, right) == (LEFT, RIGHT)
        await close(left, right)

    run(scenario())


@pytest.mark.parametrize("round_trip", [0.6, 2.0])
def test_a_long_round_trip_connects_and_stays(round_trip: float) -> None:
    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        wires = Wires(lambda one, other, now: round_trip / 2)
        attach_all(wires, left, right, relays=0)
        await tell(left, right)
        await connect(left, right)
        assert asyncio.get_running_loop().time() < 3 * round_trip
        await asyncio.sleep(300)
        assert settled(left, right)
        # A few checks a minute each way, and their answers.
        assert len(wires.sent) < 300
        await close(left, right)

    run(scenario())


def test_consent_ends_half_a_minute_after_the_last_sign_of_life() -> None:
    async def scenario() -> None:
        cut = 100.0
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        wires = Wires(lambda one, other, now: 0.01 if now < cut else None)
        attach_all(wires, left, right, relays=0)
        await tell(left, right)
        await connect(left, right)
        loop = asyncio.get_running_loop()
        await left.get_event()
        assert cut + CONSENT_TIMEOUT - 7 < loop.time() < cut + CONSENT_TIMEOUT + 1
        # Nothing is sent from then on (RFC 7675 §5.1).
        sent = len([each for each in wires.sent if each[0] == LEFT])
        await asyncio.sleep(60)
        assert len([each for each in wires.sent if each[0] == LEFT]) == sent
        await close(left, right)

    run(scenario())


def test_what_the_peer_encrypted_is_a_sign_of_life() -> None:
    async def scenario() -> None:
        cut = 10.0
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        attach_all(Wires(lambda one, other, now: 0.01 if now < cut else None), left, right, relays=0)
        await tell(left, right)
        await connect(left, right)
        for _ in range(10):
            await asyncio.sleep(10)
            left.heard()
        assert left.selected is not None
        assert right.selected is None
        await close(left, right)

    run(scenario())


@pytest.mark.parametrize("controlling", [True, False])
def test_a_connection_fails_soon_after_its_last_pair_has(controlling: bool) -> None:
    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        left.ice_controlling = controlling
        attach_all(Wires(lambda one, other, now: None), left, right)
        await tell(left, right)
        with pytest.raises(ConnectionError):
            await left.connect()
        longest = seam.LOST_RELAY_DELAY + sum(seam.CHECK_SCHEDULE)
        assert asyncio.get_running_loop().time() <= longest + 1
        await close(left, right)

    run(scenario())


def test_a_connection_does_not_fail_while_candidates_are_to_come() -> None:
    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        wires = opens_at(1e9)
        wires.attach(left, "host", LEFT)
        wires.attach(right, "host", RIGHT)
        await tell(left, right, end=False)
        connecting = asyncio.create_task(connect(left, right))
        await asyncio.sleep(15)
        relayed = wires.attach(left, "relay", RELAY)
        await right.add_remote_candidate(relayed)
        await connecting
        assert settled(left, right) == (RELAY, RIGHT)
        await close(left, right)

    run(scenario())


def test_the_pairs_are_bounded_and_relayed_ones_are_not_lost_among_direct_ones() -> None:
    async def scenario() -> None:
        left = IceConnection()
        left.remote_username, left.remote_password = "peer", "p" * 22
        wires = Wires(lambda one, other, now: None)
        for number in range(16):
            wires.attach(left, "host", (f"10.0.1.{number}", 1))
        wires.attach(left, "relay", RELAY)
        right = Connection(ice_controlling=False)
        for number in range(64):
            await left.add_remote_candidate(wires.attach(right, "host", (f"10.0.2.{number}", 1)))
        assert len(left.pairs) == seam.MAX_PAIRS
        assert len([pair for pair in left.pairs if pair.rank.relays]) == 64
        await close(left, right)

    run(scenario())


def test_a_peer_s_address_is_refused_however_it_is_written() -> None:
    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        wires = Wires(lambda one, other, now: 0.01)
        wires.attach(left, "host", ("2001:db8::1", 1))
        wires.attach(right, "relay", ("2001:db8::2", 2))
        left.refuse("2001:DB8:0:0::2", 2)
        left.refuse("name.local", 2)
        await right.add_remote_candidate(left.local_candidates[0])
        connecting = [asyncio.create_task(side.connect()) for side in (left, right)]
        await asyncio.sleep(1)
        assert left.pairs == []
        await close(left, right)
        await asyncio.gather(*connecting, return_exceptions=True)

    run(scenario())


def test_pairs_that_work_are_kept_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        left = IceConnection()
        wires = Wires(lambda one, other, now: None)
        wires.attach(left, "host", LEFT)
        right = Connection(ice_controlling=False)
        for number in range(8):
            await left.add_remote_candidate(wires.attach(right, "host", (f"10.0.2.{number}", 1)))
        for pair in left.pairs[1:]:
            pair.state = Pair.State.SUCCEEDED
        monkeypatch.setattr(seam, "MAX_PAIRS", 4)
        await left.add_remote_candidate(wires.attach(right, "host", ("10.0.3.1", 1)))
        assert [pair.state for pair in left.pairs] == [Pair.State.SUCCEEDED] * 7
        await close(left, right)

    run(scenario())


def test_what_strangers_send_before_there_is_a_path_is_not_all_kept() -> None:
    async def scenario() -> None:
        left = IceConnection()
        wires = Wires(lambda one, other, now: 0.01)
        wires.attach(left, "host", LEFT)
        for _ in range(10_000):
            wires.protocols[LEFT].datagram_received(b"\x17" + bytes(1199), RIGHT)
        assert left._queue.qsize() <= seam.MAX_QUEUED
        await close(left)

    run(scenario())


@pytest.mark.parametrize("other_way", [True, False])
def test_a_relay_on_the_internet_is_asked_to_reach_private_addresses_only_at_last(other_way: bool) -> None:
    """coturn ends an allocation that sends to an address which its host has no route to."""

    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        # With another way, nothing comes from the private address: a NAT is before it.
        wires = Wires(lambda one, other, now: None if other_way and one == RIGHT else 0.01)
        wires.attach(left, "relay", RELAY)
        wires.attach(right, "host", RIGHT)
        if other_way:
            wires.attach(right, "srflx", ("203.0.113.5", 5))
        await tell(left, right)
        await connect(left, right)
        await asyncio.sleep(30)
        asked = [each for each in wires.sent if each == (RELAY, RIGHT)]
        assert bool(asked) is not other_way
        await close(left, right)

    run(scenario())


KINDS = st.lists(st.sampled_from(["host", "relay"]), min_size=1, max_size=3)
OPENINGS = st.sampled_from([0.0, 0.2, 0.7, 2.0, None])


@given(KINDS, KINDS, st.lists(OPENINGS, min_size=9, max_size=9), st.sampled_from([0.001, 0.1, 0.6]))
def test_both_sides_settle_on_one_path_and_a_relay_is_the_last_resort(
    lefts: list[str], rights: list[str], openings: list[float | None], delay: float
) -> None:
    left_addresses = [(f"10.0.1.{number}", 1) for number in range(len(lefts))]
    right_addresses = [(f"10.0.2.{number}", 2) for number in range(len(rights))]
    opening_of = {
        frozenset((one, other)): openings[3 * i + j]
        for i, one in enumerate(left_addresses)
        for j, other in enumerate(right_addresses)
    }
    relays = {
        frozenset((one, other)): (lefts[i], rights[j]).count("relay")
        for i, one in enumerate(left_addresses)
        for j, other in enumerate(right_addresses)
    }

    def travel(one: Address, other: Address, now: float) -> float | None:
        opening = opening_of[frozenset((one, other))]
        return None if opening is None or now < opening else delay

    async def scenario() -> None:
        left, right = IceConnection(), IceConnection()
        introduce(left, right)
        wires = Wires(travel)
        for kinds, addresses, side in ((lefts, left_addresses, left), (rights, right_addresses, right)):
            for kind, address in zip(kinds, addresses, strict=True):
                wires.attach(side, kind, address)
        await tell(left, right)
        usable = [pair for pair, opening in opening_of.items() if opening is not None]
        if not usable:
            with pytest.raises(ConnectionError):
                await connect(left, right)
        else:
            await connect(left, right)
            await asyncio.sleep(60)
            used = relays[frozenset(settled(left, right))]
            if not min(relays[pair] for pair in usable):
                assert not used
        await close(left, right)

    run(scenario())
