"""Which part of a transfer is the slowest, by how much of the time each is waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.client.limits import (
    BUSY,
    Cause,
    Limit,
    Shares,
    Waits,
    limit_of_both,
    receivers_limit,
    senders_limit,
)


def spent(
    disk: float = 0,
    network: float = 0,
    credit: float = 0,
    rate: float = 0,
    compression: float = 0,
    cpu: float = 0,
    seconds: float = 1,
) -> Shares:
    waiting = {Cause.DISK: disk, Cause.NETWORK: network, Cause.CREDIT: credit, Cause.RATE: rate}
    return Shares(waiting | {Cause.COMPRESSION: compression}, cpu, seconds)


@pytest.mark.parametrize(
    ("shares", "limit"),
    [
        (spent(disk=0.8, network=0.1), Limit.SENDERS_DISK),
        (spent(disk=0.1, network=0.8), Limit.NETWORK),
        (spent(network=0.3, credit=0.6), Limit.RECEIVERS_DISK),
        (spent(disk=0.1, rate=0.8), Limit.RATE),
        # An event loop without rest fills the channel late, and looks like a network.
        (spent(network=0.9, cpu=0.97), Limit.SENDERS_CPU),
        # A thread that compresses is one of its processor's.
        (spent(network=0.3, compression=0.6), Limit.SENDERS_CPU),
        (spent(disk=0.3, network=0.3, credit=0.3), None),
        (spent(), None),
    ],
)
def test_a_sender_is_limited_by_what_it_waits_for_most(shares: Shares, limit: Limit | None) -> None:
    assert senders_limit(shares) is limit


@pytest.mark.parametrize(
    ("shares", "limit"),
    [
        (spent(disk=0.95), Limit.RECEIVERS_DISK),
        (spent(disk=0.5), None),
        (spent(disk=0.95, cpu=0.95), Limit.RECEIVERS_CPU),
        (spent(), None),
    ],
)
def test_a_receiver_is_the_limit_only_if_it_has_no_rest(shares: Shares, limit: Limit | None) -> None:
    assert receivers_limit(shares, 1_000, None) is limit


@pytest.mark.parametrize(
    ("shares", "arrived", "limit"),
    [
        (spent(seconds=2), 2_000, Limit.RATE),
        (spent(seconds=2), 1_700, Limit.RATE),
        # Something before us is slower than the rate; or others get a part of it.
        (spent(seconds=2), 1_000, None),
        (spent(disk=0.95, seconds=2), 2_000, Limit.RECEIVERS_DISK),
    ],
)
def test_a_receiver_sees_a_rate_by_what_arrives(shares: Shares, arrived: int, limit: Limit | None) -> None:
    assert receivers_limit(shares, arrived, 1_000) is limit


def test_time_is_counted_for_what_was_waited_for_and_begins_anew() -> None:
    waits = Waits(10.0, 1.0)
    waits.wait_for(Cause.NETWORK, 10.0)
    waits.wait_for(Cause.DISK, 10.5)
    waits.wait_for(None, 10.75)
    assert waits.shares(11.0, 1.5) == spent(network=0.5, disk=0.25, cpu=0.5)
    waits.wait_for(Cause.CREDIT, 11.0)
    # What is waited for still counts up to now.
    assert waits.shares(12.0, 1.5) == spent(credit=1.0)
    assert waits.shares(13.0, 1.5) == spent(credit=1.0)
    assert waits.shares(13.0, 1.5) is None


_steps = st.lists(st.tuples(st.sampled_from([*Cause, None]), st.floats(0, 10), st.floats(0, 1)), min_size=1)


@given(_steps)
def test_shares_never_leave_0_to_1_and_a_limit_is_what_the_shares_say(
    steps: list[tuple[Cause | None, float, float]],
) -> None:
    now = cpu = 0.0
    waits = Waits(now, cpu)
    for cause, seconds, busy in steps:
        waits.wait_for(cause, now)
        now += seconds
        cpu += seconds * busy
    shares = waits.shares(now, cpu)
    if shares is None:
        assert now == 0
        return
    assert all(0 <= share <= 1 for share in [*shares.waiting.values(), shares.cpu])
    assert sum(shares.waiting.values()) <= 1 + 1e-9
    limit = senders_limit(shares)
    compresses = shares.waiting[Cause.COMPRESSION]
    assert limit is Limit.SENDERS_CPU if shares.cpu >= BUSY else compresses or limit is not Limit.SENDERS_CPU
    if limit is Limit.NETWORK:
        assert shares.waiting[Cause.NETWORK] == max(shares.waiting.values())


@pytest.mark.parametrize(
    ("sender", "receiver", "limit"),
    [
        # To a sender, a receiver that cannot follow looks like a network.
        (Limit.NETWORK, Limit.RECEIVERS_CPU, Limit.RECEIVERS_CPU),
        (Limit.NETWORK, None, Limit.NETWORK),
        (Limit.SENDERS_CPU, None, Limit.SENDERS_CPU),
        (None, Limit.RECEIVERS_DISK, Limit.RECEIVERS_DISK),
        (None, None, None),
    ],
)
def test_what_limits_is_judged_by_both_sides(
    sender: Limit | None, receiver: Limit | None, limit: Limit | None
) -> None:
    assert limit_of_both(sender, receiver) is limit
