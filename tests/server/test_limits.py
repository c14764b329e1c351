from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.server.config import MAX_MAX_CLIENTS, LimitConfig, parse_rate
from flyx.server.limits import (
    ConnectionCounter,
    Limit,
    LimitReached,
    PairBook,
    PairLimits,
    RateLimits,
    TokenBucket,
    WindowStorage,
    address_key,
)
from tests.server.peers import FakeClock


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_an_ipv6_address_counts_as_its_network_of_64_bits(host: str, key: str) -> None:
    assert address_key(host) == key


def test_connections_beyond_a_limit_are_told_so_up_to_a_point() -> None:
    counter = ConnectionCounter(LimitConfig(max_connections=2, max_connections_per_address=0))
    visits = [counter.admit("a"), counter.admit("b")]
    assert [slot and slot.exceeds for slot in visits] == [None, None]
    crowd = [counter.admit("c") for _ in range(counter.SLACK + 5)]
    assert [slot.exceeds for slot in crowd if slot] == [Limit.CONNECTIONS] * counter.SLACK
    assert crowd[counter.SLACK :] == [None] * 5
    for slot in (*visits, *crowd):
        if slot is not None:
            slot.release()
            # Whoever ends twice is counted once.
            slot.release()
    assert counter.total == 0
    again = counter.admit("c")
    assert again is not None
    assert again.exceeds is None


def test_one_address_does_not_use_up_what_others_may_have() -> None:
    counter = ConnectionCounter(LimitConfig(max_connections=0, max_connections_per_address=1))
    assert [slot and slot.exceeds for slot in (counter.admit("a"), counter.admit("b"))] == [None, None]
    third = counter.admit("a")
    assert third is not None
    assert third.exceeds is Limit.CONNECTIONS_PER_ADDRESS


def test_a_connection_of_a_proxy_belongs_to_whom_it_speaks_for() -> None:
    counter = ConnectionCounter(LimitConfig(max_connections_per_address=1))
    visits = [counter.admit(None) for _ in range(3)]
    assert all(slot and slot.exceeds is None for slot in visits)
    for slot, address in zip(visits, ("a", "b", "a"), strict=True):
        assert slot is not None
        slot.belong_to(address)
    assert [slot and slot.exceeds for slot in visits] == [None, None, Limit.CONNECTIONS_PER_ADDRESS]


@given(st.lists(st.floats(0, 10), max_size=200), st.floats(0.1, 50), st.integers(1, 50))
def test_a_bucket_never_lets_through_more_than_burst_and_rate(
    pauses: list[float], rate: float, burst: int
) -> None:
    now = 0.0
    bucket = TokenBucket(rate, burst, now)
    passed = 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now)
        assert passed <= burst + now * rate + 1e-6


def test_a_full_bucket_lets_the_burst_through_and_then_the_rate() -> None:
    bucket = TokenBucket(2.0, 3, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    unlimited = TokenBucket(0.0, 1, 0.0)
    assert all(unlimited.take(0.0) for _ in range(100))


async def refused(limits: RateLimits, address: str) -> int:
    """Look for a room; how long the answer says to wait, 0 if one may look."""
    try:
        await limits.look(address)
    except LimitReached as reached:
        return reached.retry_after
    return 0


async def test_a_rate_counts_from_its_first_and_says_when_it_is_over() -> None:
    clock = FakeClock()
    limits = RateLimits(LimitConfig(create_rate=parse_rate("2/minute")), clock=clock)
    await limits.create("a")
    clock.now += 20
    await limits.create("a")
    with pytest.raises(LimitReached) as reached:
        await limits.create("a")
    assert (reached.value.limit, reached.value.retry_after) == (Limit.CREATE, 40)
    await limits.create("b")
    clock.now += 40
    await limits.create("a")


async def test_who_misses_too_often_learns_nothing_for_a_while() -> None:
    clock = FakeClock()
    limits = RateLimits(LimitConfig(miss_rate=parse_rate("2/minute"), total_miss_rate=None), clock=clock)
    for _ in range(2):
        assert await refused(limits, "a") == 0
        await limits.miss("a")
    assert await refused(limits, "a") == 60
    assert await refused(limits, "b") == 0
    clock.now += 60
    assert await refused(limits, "a") == 0


async def test_when_all_together_miss_too_often_one_miss_is_enough_and_none_is_fine() -> None:
    clock = FakeClock()
    config = LimitConfig(miss_rate=parse_rate("20/minute"), total_miss_rate=parse_rate("10/minute"))
    limits = RateLimits(config, clock=clock)
    for n in range(10):
        assert await refused(limits, f"attacker {n}") == 0
        await limits.miss(f"attacker {n}")
    assert await refused(limits, "attacker 3") == 60
    # Who knows where to go must not suffer from those who do not.
    assert await refused(limits, "honest") == 0
    clock.now += 60
    assert await refused(limits, "attacker 3") == 0


async def test_no_rate_is_no_limit() -> None:
    none = LimitConfig(create_rate=None, join_rate=None, miss_rate=None, total_miss_rate=None)
    limits = RateLimits(none)
    for _ in range(1000):
        await limits.create("a")
        await limits.join("a")
        await limits.look("a")
        await limits.miss("a")


async def test_windows_are_forgotten_and_never_more_than_so_many() -> None:
    clock = FakeClock()
    storage = WindowStorage(clock=clock, max_windows=100)
    for n in range(1000):
        assert await storage.incr(f"attacker {n}", 60) == 1
    assert await storage.reset() == 100
    for n in range(50):
        await storage.incr(f"old {n}", 60)
    clock.now += 60
    for n in range(25):
        await storage.incr(f"new {n}", 60)
    # Two of the old go for each of the new.
    assert await storage.reset() == 25


def test_what_is_said_to_one_peer_has_its_own_count_and_its_time() -> None:
    pairs = PairLimits(LimitConfig(max_offers_per_peer=2, max_candidates_per_peer=3, pair_window=10))
    assert [pairs.describe("p", "pq", 0) for _ in range(3)] == [True, True, False]
    assert [pairs.trickle("p", "pq", 0) for _ in range(4)] == [True, True, True, False]
    assert pairs.describe("q", "pq", 0)
    assert not pairs.describe("p", "pq", 9.9)
    assert pairs.describe("p", "pq", 10)


def test_what_is_said_to_all_counts_for_each() -> None:
    pairs = PairLimits(LimitConfig(max_offers_per_peer=3, pair_window=10))
    assert [pairs.describe(peer, "p", 0) for peer in ("p", None, "p", "p")] == [True, True, True, False]
    pairs = PairLimits(LimitConfig(max_offers_per_peer=3, pair_window=10))
    assert [pairs.describe(peer, "p", 0) for peer in ("p", "p", None, None)] == [True, True, True, False]
    assert pairs.describe(None, "p", 10)


def test_targets_that_are_not_there_count_together_and_for_no_peer() -> None:
    pairs = PairLimits(LimitConfig(max_offers_per_peer=3, pair_window=10))
    assert [pairs.describe("p", "p", 1) for _ in range(2)] == [True, True]
    granted = [pairs.describe(f"absent {n}", "p", 2) for n in range(10_000)]
    assert granted == [True] * 3 + [False] * 9_997
    assert len(pairs) == 2
    # What was said to a peer is not forgotten for that, and neither it nor all of them are held to that.
    assert [pairs.describe("p", "p", 3), pairs.describe("p", "p", 3)] == [True, False]
    pairs = PairLimits(LimitConfig(max_offers_per_peer=3, pair_window=10))
    assert [pairs.describe("absent", "p", 2) for _ in range(4)] == [True, True, True, False]
    assert [pairs.describe(None, "p", 3) for _ in range(4)] == [True, True, True, False]


def test_a_peer_in_the_room_is_spoken_to_however_many_have_come_and_gone() -> None:
    pairs = PairLimits(LimitConfig(max_offers_per_peer=1, pair_window=10))
    for n in range(2_000):
        assert pairs.describe(f"peer {n}", {f"peer {n}"}, 0)
        assert len(pairs) == 1
    crowd = [f"peer {n}" for n in range(MAX_MAX_CLIENTS)]
    assert all(pairs.describe(peer, crowd, 1) for peer in crowd)
    assert not any(pairs.describe(peer, crowd, 1) for peer in crowd)


_PEERS = st.sampled_from([None, "p", "q", "r", "absent", "gone"])


@given(st.lists(st.tuples(st.booleans(), _PEERS, st.sets(st.sampled_from("pqr")), st.floats(0, 4))))
def test_no_peer_hears_more_than_its_limit_whoever_comes_and_goes(
    said: list[tuple[bool, str | None, set[str], float]],
) -> None:
    limit, window, now = 3, 10.0, 0.0
    config = LimitConfig(max_offers_per_peer=limit, max_candidates_per_peer=limit, pair_window=window)
    pairs = PairLimits(config)
    heard: dict[tuple[bool, str], list[float]] = {}
    left: set[str] = set()
    for is_offer, peer, members, pause in said:
        now += pause
        # None comes back.
        members -= left
        left |= set("pqr") - members
        count = pairs.describe if is_offer else pairs.trickle
        granted = count(peer, members, now)
        for listener in members if peer is None else {peer} & members:
            times = heard.setdefault((is_offer, listener), [])
            times += [now] * granted
            # Windows do not slide: at the end of one and the beginning of the next, twice the limit is heard.
            assert sum(now - time < window for time in times) <= 2 * limit


def test_what_clients_said_is_kept_while_it_counts_and_never_for_more_than_so_many_peers() -> None:
    book = PairBook(LimitConfig(max_offers_per_peer=1, pair_window=10), max_peers=50)
    assert book.of_client("c", 0).describe("p", "p", 0)
    for n in range(20):
        book.of_client(f"other {n}", 1).describe("p", "p", 1)
        assert not book.of_client("c", 1).describe("p", "p", 1)
    for n in range(1000):
        assert book.of_client(f"stranger {n}", 2).describe("p", "p", 2)
        assert len(book) <= 50
    crowd = [f"peer {n}" for n in range(40)]
    for n in range(10):
        assert all(book.of_client(f"popular {n}", 3).describe(peer, crowd, 3) for peer in crowd)
        assert len(book) <= 50
    book.of_client("late", 13)
    assert len(book) == 1


def test_made_up_names_of_clients_that_have_left_take_no_memory() -> None:
    """A client could have a thousand of them kept, for ten minutes after it had left: 0.27 MB each time."""
    book = PairBook(LimitConfig())
    for n in range(50):
        for name in range(1_000):
            book.of_client(f"client {n}", 0).trickle(f"made up {n} {name}", ("p",), 0)
    assert len(book) <= 2 * 50
