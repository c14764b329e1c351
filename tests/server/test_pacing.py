from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.server.pacing import BURST_TIME, QUEUE_TIME, PacedQueue

DATAGRAM = 1200


@given(
    st.floats(16_000, 1e8),
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 40), st.integers(1, 2048)), max_size=80),
)
def test_whatever_comes_no_more_leaves_than_the_rate_and_all_that_was_taken_does(
    rate: float, arrivals: list[tuple[float, int, int]]
) -> None:
    now = 0.0
    queue = PacedQueue(rate, now)
    taken: list[bytes] = []
    left: list[bytes] = []
    sent = 0

    def leave() -> None:
        nonlocal sent
        while (datagram := queue.pop(now)) is not None:
            left.append(datagram)
            sent += len(datagram)
        # One datagram may begin when there is next to no allowance.
        assert sent <= rate * (now + BURST_TIME) + 2048 + 1e-6 * sent

    for number, (pause, count, size) in enumerate(arrivals):
        now += pause
        for _ in range(count):
            datagram = number.to_bytes(2, "big") * ((size + 1) // 2)
            if queue.push(datagram):
                taken.append(datagram)
            assert queue.size <= max(rate * QUEUE_TIME, 32 * 1024)
        leave()
    while (delay := queue.delay()) is not None:
        now += delay + 1e-9
        leave()
    # In order, and none but those that were dropped is missing.
    assert left == taken
    assert queue.size == 0


def test_a_full_queue_drops_and_counts() -> None:
    queue = PacedQueue(2e6, 0.0)
    took = [queue.push(bytes(DATAGRAM)) for _ in range(1000)]
    assert took.count(True) == 2e6 * QUEUE_TIME // DATAGRAM
    assert queue.dropped == took.count(False)
    # What was there first leaves first.
    assert took == sorted(took, reverse=True)


@pytest.mark.parametrize("late", [0.002, 0.05])
def test_in_the_long_run_the_rate_is_used_to_the_full_however_late_the_timers_are(late: float) -> None:
    queue, now, sent = PacedQueue(1e6, 0.0), 0.0, 0
    while now < 10:
        while queue.push(bytes(DATAGRAM)):
            pass
        while queue.pop(now) is not None:
            sent += DATAGRAM
        now += (queue.delay() or 0.0) + late
    assert 0.99 < sent / 10 / 1e6 <= 1.01


def test_who_has_sent_nothing_for_long_may_send_one_burst_also_after_a_late_timer() -> None:
    queue = PacedQueue(1e6, 0.0)

    def leave(now: float) -> int:
        sent = 0
        while (datagram := queue.pop(now)) is not None:
            sent += len(datagram)
        return sent

    def fill() -> None:
        while queue.push(bytes(DATAGRAM)):
            pass

    fill()
    waited = queue.size
    assert leave(0.0) + leave(1.0) == waited
    fill()
    assert leave(3.0) <= 1e6 * BURST_TIME + DATAGRAM
