"""Data that is held to a rate: never more in any time, no less if it can be, and the same for all."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import LocalProtocolError
from flyx.transfer import messages
from flyx.transfer.frames import FRAME_HEADER, SHORTEST_DATA
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.rate_limit import (
    MAX_RATE,
    MIN_PORTION,
    MIN_RATE,
    MOST_PORTIONS,
    PORTION_TIME,
    Allowance,
    RateLimit,
    lower,
    portion_of,
)
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from tests.simulator import MemorySource, manifest_of

NOW = 1000.0
RATE = 1_000_000
LATE = 1e-9
"""Seconds by which a clock can be off, by rounding."""

MOST_LATE = (MOST_PORTIONS - 1) * PORTION_TIME
"""Seconds by which who is woken may be late, and lose nothing."""


class Simulated:
    """One that has always something to send, in messages of one size."""

    def __init__(self, *limits: RateLimit, size: int, lateness: float = 0.0) -> None:
        self.allowance = Allowance(*limits)
        self.size = size
        self.lateness = lateness
        self.sent = 0
        # When it is woken next.
        self.due = NOW

    def wake(self) -> None:
        """Send what may leave now."""
        now = self.due
        while self.allowance.take(self.size, now):
            self.sent += self.size
        assert self.allowance.next_time is not None
        self.due = self.allowance.next_time + self.lateness + LATE


def run(until: float, senders: Iterable[Simulated]) -> None:
    """Have them all send for so many seconds, each when its time has come."""
    senders = list(senders)
    while (first := min(senders, key=lambda one: one.due)).due < NOW + until:
        first.wake()


rates = st.integers(MIN_RATE, 10**9)
asks = st.lists(
    st.tuples(
        # Who asks, how long after the last one, for which part of a portion, and whether it has got a new
        # connection since.
        st.integers(0, 3),
        st.one_of(st.just(0.0), st.floats(0, 0.1), st.floats(0, 30)),
        st.floats(0.01, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=200,
)


@given(rates, asks)
def test_in_no_time_more_leaves_than_the_rate_and_what_each_may_have_missed(
    rate: int, asks: list[tuple[int, float, float, bool]]
) -> None:
    limit = RateLimit(rate, NOW)
    allowances = [Allowance(limit) for _ in range(4)]
    now = NOW
    left: list[tuple[float, int]] = []
    for who, pause, part, anew in asks:
        now += pause
        if anew:
            allowances[who].close()
            allowances[who] = Allowance(limit)
        size = max(1, int(part * limit.portion))
        while allowances[who].take(size, now):
            left.append((now, size))
    at_once = len(allowances) * MOST_PORTIONS * limit.portion
    until = [0, *accumulate(size for _, size in left)]
    for first, (begin, _) in enumerate(left):
        for last in range(first, len(left)):
            sent = until[last + 1] - until[first]
            assert sent <= rate * (left[last][0] - begin) * (1 + 1e-6) + at_once


@given(rates, st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_whoever_asks_again_when_told_to_is_never_sent_away_for_long(rate: int, parts: list[int]) -> None:
    limit = RateLimit(rate, NOW)
    senders = [Simulated(limit, size=max(1, limit.portion * part // 100)) for part in parts]
    portions = 20 * len(senders)
    time = portions * limit.portion / rate
    run(time, senders)
    for sender in senders:
        # As much as everybody else, and in all as much as the rate allows, whatever the messages are.
        assert abs(sender.sent - rate * time / len(senders)) <= 3 * limit.portion


@pytest.mark.parametrize("rate", [MIN_RATE, 100_000, RATE, 10**7, 10**9, MAX_RATE])
def test_the_rate_is_kept_to_from_the_beginning_on_and_used_up(rate: int) -> None:
    limit = RateLimit(rate, NOW)
    sender = Simulated(limit, size=limit.portion // 8)
    seconds = 100 * limit.portion / rate
    run(seconds, [sender])
    assert 0.98 * rate * seconds <= sender.sent <= rate * seconds


def test_an_event_loop_that_is_late_loses_nothing_of_the_rate() -> None:
    late = Simulated(RateLimit(RATE, NOW), size=4_000, lateness=0.9 * MOST_LATE)
    run(10, [late])
    assert 0.98 * RATE * 10 <= late.sent <= RATE * 10
    very_late = Simulated(RateLimit(RATE, NOW), size=4_000, lateness=20 * MOST_LATE)
    run(100, [very_late])
    assert very_late.sent < RATE * 10


def test_receivers_that_are_woken_late_all_get_the_same() -> None:
    limit = RateLimit(RATE, NOW)
    # As in one event loop: the first is woken before the second, whoever has waited longer.
    first, second = (Simulated(limit, size=4_000) for _ in range(2))
    for turn in range(1000):
        for sender in (first, second):
            sender.due = NOW + turn * MOST_LATE
            sender.wake()
    assert abs(first.sent - second.sent) <= 2 * limit.portion


def test_a_receiver_with_nothing_to_send_leaves_its_part_to_the_others() -> None:
    limit = RateLimit(RATE, NOW)
    assert not Allowance(limit).take(100, NOW)
    busy = Simulated(limit, size=4_000)
    run(10, [busy])
    assert busy.sent >= RATE * 10 - (MOST_PORTIONS + 1) * limit.portion


def test_one_with_a_lower_limit_of_its_own_keeps_to_that_and_the_others_get_the_rest() -> None:
    limit = RateLimit(RATE, NOW)
    slow, fast = (Simulated(limit, size=portion_of(RATE // 10)) for _ in range(2))
    slow.allowance.add(RateLimit(RATE // 10, NOW))
    run(10, [slow, fast])
    assert 0.98 * RATE <= slow.sent <= RATE
    assert 0.97 * RATE * 9 <= fast.sent <= RATE * 9 + 3 * limit.portion


def test_a_higher_limit_of_its_own_gives_nobody_more() -> None:
    sender = Simulated(RateLimit(RATE, NOW), size=4_000)
    sender.allowance.add(RateLimit(10 * RATE, NOW))
    run(10, [sender])
    assert 0.98 * RATE * 10 <= sender.sent <= RATE * 10


def test_a_receiver_that_leaves_while_it_waits_takes_nothing_from_the_others() -> None:
    limit = RateLimit(RATE, NOW)
    gone = Allowance(limit)
    assert not gone.take(4_000, NOW)
    gone.close()
    busy = Simulated(limit, size=4_000)
    run(10, [busy])
    assert busy.sent >= 0.99 * RATE * 10


def test_a_receiver_that_was_blocked_elsewhere_has_not_saved_up_much() -> None:
    limit = RateLimit(RATE, NOW)
    sender = Simulated(limit, size=limit.portion)
    sender.wake()
    # Its channel was full for so long.
    sender.due += 60
    sender.wake()
    assert sender.sent == MOST_PORTIONS * limit.portion


def test_a_message_that_might_never_leave_is_a_mistake() -> None:
    limit = RateLimit(RATE, NOW)
    with pytest.raises(LocalProtocolError):
        Allowance(limit).take(limit.portion + 1, NOW)


def test_without_a_limit_all_may_leave_at_once() -> None:
    allowance = Allowance()
    assert all(allowance.take(1 << 18, NOW) for _ in range(1000))
    assert allowance.next_time is None


def test_the_lower_of_two_rates_counts_if_there_are_two() -> None:
    assert (lower(1, 2), lower(2, 1), lower(None, 3), lower(3, None), lower(None, None)) == (1, 1, 3, 3, None)


# The two ends.

CONTENT = bytes(range(256)) * (BLOCK_SIZE // 256)
FILES = {"a": CONTENT}


def tell(machine: Sender | Receiver, *told: messages.ControlMessage) -> None:
    for message in told:
        machine.receive_control(messages.serialize_control(message), NOW)


@pytest.mark.parametrize(
    ("senders", "receivers", "longest"),
    [
        (None, None, 262_144),
        (100_000, None, MIN_PORTION),
        (None, 100_000, MIN_PORTION),
        (RATE, 100_000, MIN_PORTION),
        (100_000, RATE, MIN_PORTION),
        (RATE, None, int(RATE * PORTION_TIME)),
        (MAX_RATE, MAX_RATE, 262_144),
    ],
)
def test_messages_are_as_short_as_the_lower_rate_wants(
    senders: int | None, receivers: int | None, longest: int
) -> None:
    sender = Sender(manifest_of(FILES), max_message_size=1 << 20, now=NOW, rate=senders)
    sender.release()
    tell(sender, messages.Accept(below=1, rate=receivers), messages.Credit(bytes=2 << 20, written=0))
    source = MemorySource(sender.manifest, FILES)
    sizes = []
    while reads := sender.next_reads():
        sender.blocks_read(source.read(reads), NOW)
        while (size := sender.next_data_size) is not None:
            data = sender.next_data()
            assert data is not None
            assert len(data) == size
            sizes.append(size)
    assert max(sizes) == longest
    assert sum(sizes) > len(CONTENT)
    assert sender.rate == receivers


def test_what_cannot_be_sent_has_no_size() -> None:
    sender = Sender(manifest_of(FILES), max_message_size=1 << 20, now=NOW)
    sender.release()
    tell(sender, messages.Accept(below=1))
    sender.blocks_read(MemorySource(sender.manifest, FILES).read(sender.next_reads()), NOW)
    assert sender.next_data_size is None
    tell(sender, messages.Credit(bytes=1 << 20, written=0))
    assert sender.next_data_size == 262_144
    sender.channel_closed(NOW)
    assert sender.next_data_size is None


@pytest.mark.parametrize(
    ("senders", "receivers", "expected"), [(None, None, None), (5000, None, 5000), (5000, 4000, 4000)]
)
def test_both_ends_know_the_rate_that_is_kept_to(
    senders: int | None, receivers: int | None, expected: int | None
) -> None:
    receiver = Receiver(ask=False, now=NOW, rate=receivers)
    tell(receiver, *messages.manifest_messages(manifest_of(FILES), senders))
    assert receiver.rate == expected


def test_a_rate_is_told_only_if_there_is_one() -> None:
    """Older versions know of none."""
    assert "rate" not in messages.serialize_control(messages.Accept(below=1))
    assert messages.parse_control_untrusted('{"type":"accept","below":1}') == messages.Accept(below=1)
    assert '"rate":5000' in messages.serialize_control(messages.Accept(below=1, rate=5000))


def test_the_first_accept_says_which_rate_it_is() -> None:
    sender = Sender(manifest_of({"a": b"a", "b": b"b"}), max_message_size=16384, now=NOW)
    sender.release()
    tell(sender, messages.Accept(below=1, rate=5000), messages.Accept(below=2, rate=9000))
    assert sender.rate == 5000


def test_the_shortest_messages_hold_the_shortest_frames() -> None:
    assert portion_of(MIN_RATE) == MIN_PORTION >= FRAME_HEADER.size + SHORTEST_DATA
