"""What limits transfers, and how fast one is once it has found its speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.client.bench.measured import Part, slowest, steady_rate

FAST = {Part.DISK_WRITE: 500.0, Part.DISK_READ: 600.0, Part.SHA256: 1800.0, Part.TRANSFER: 400.0}


@pytest.mark.parametrize(
    ("rates", "part"),
    [
        (FAST, Part.TRANSFER),
        (FAST | {Part.DISK_WRITE: 90.0}, Part.DISK_WRITE),
        (FAST | {Part.DISK_READ: 90.0}, Part.DISK_READ),
        # It is a part of the transfer, which is measured as a whole.
        (FAST | {Part.SHA256: 90.0}, Part.TRANSFER),
        # Packets are that small where the network is slower, as a rule.
        (FAST | {Part.TRANSFER_1200: 90.0}, Part.TRANSFER),
        ({Part.TO_PEER: 10.0, Part.FROM_PEER: 20.0}, None),
        ({}, None),
    ],
)
def test_the_slowest_of_what_every_byte_goes_through_is_the_limit(
    rates: dict[Part, float], part: Part | None
) -> None:
    assert slowest(rates) is part


def test_the_time_in_which_a_transfer_finds_its_speed_does_not_count() -> None:
    samples = [(10.0, 0), (11.0, 100), (12.0, 1100), (13.0, 2100)]
    assert steady_rate(samples) == 1000


@pytest.mark.parametrize("samples", [[], [(1.0, 5)], [(1.0, 0), (1.2, 500)]])
def test_what_is_too_short_tells_no_speed(samples: list[tuple[float, int]]) -> None:
    assert steady_rate(samples) is None


@given(
    st.lists(st.tuples(st.floats(0.001, 10), st.integers(0, 1 << 40)), min_size=1, max_size=50),
    st.floats(0, 1e6),
)
def test_a_speed_lies_between_the_least_and_the_most_of_its_pieces(
    steps: list[tuple[float, int]], begun: float
) -> None:
    samples, rates = [(begun, 0)], []
    for seconds, size in steps:
        at, arrived = samples[-1]
        samples.append((at + seconds, arrived + size))
        rates.append(size / (samples[-1][0] - at))
    rate = steady_rate(samples)
    assert rate is None or 0.999 * min(rates) <= rate <= 1.001 * max(rates)
