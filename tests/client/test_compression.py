"""Where compression pays: every decision by literal rates, sizes and times."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.client.compression import (
    CLEARLY,
    KNOWN_FOR,
    PAUSE,
    RATE_WINDOW,
    Compression,
    CompressionPolicy,
)
from tests.thoroughness import share

MB = 1_000_000
BLOCK = 1 << 20


def auto() -> CompressionPolicy:
    return CompressionPolicy(Compression.AUTO, 10.0)


def measured(rate: float) -> CompressionPolicy:
    """A policy that has seen a path carry so many bytes a second, without a pause."""
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=BLOCK, now=10.0)
    policy.wants(BLOCK, left=round(rate), waiting=BLOCK, now=11.0)
    return policy


def test_on_compresses_and_off_does_not_whatever_came_of_it() -> None:
    for compression in (Compression.ON, Compression.OFF):
        policy = CompressionPolicy(compression, 10.0)
        policy.tried(BLOCK, BLOCK, 5.0, waiting=BLOCK, now=10.0)
        wants = policy.wants(BLOCK, left=0, waiting=0, now=10.0)
        assert wants is (compression is Compression.ON)


def test_the_first_blocks_are_compressed_as_nothing_is_known_yet() -> None:
    policy = auto()
    assert policy.wants(BLOCK, left=0, waiting=0, now=10.0)
    policy.tried(BLOCK, BLOCK // 2, 0.003, waiting=BLOCK, now=10.003)
    assert policy.wants(BLOCK, left=0, waiting=BLOCK // 2, now=10.003)
    assert policy.rate is None


@pytest.mark.parametrize(
    ("rate", "after", "pays"),
    [
        # A block takes 3 ms. What it is smaller by takes 1.68 s of 0.5 MB/s, 13.4 ms of 62.5 MB/s.
        (0.5 * MB, BLOCK // 5, True),
        (62.5 * MB, BLOCK // 5, True),
        (62.5 * MB, BLOCK * 4 // 5, True),
        (62.5 * MB, BLOCK * 9 // 10, False),
        (350 * MB, BLOCK // 5, False),
        (350 * MB, BLOCK // 2, False),
        (0.5 * MB, BLOCK, False),
    ],
)
def test_compression_goes_on_where_the_path_would_have_needed_longer(
    rate: float, after: int, pays: bool
) -> None:
    policy = measured(rate)
    policy.tried(BLOCK, after, 0.003, waiting=BLOCK, now=11.0)
    assert policy.wants(BLOCK, left=round(rate), waiting=4 * BLOCK, now=11.001) is pays


def test_after_a_try_that_did_not_pay_it_waits_for_a_hundred_times_as_long() -> None:
    policy = measured(62.5 * MB)
    policy.tried(BLOCK, BLOCK, 0.0002, waiting=BLOCK, now=11.0)
    assert PAUSE == 100
    assert not policy.wants(BLOCK, left=70 * MB, waiting=4 * BLOCK, now=11.0199)
    assert policy.wants(BLOCK, left=70 * MB, waiting=4 * BLOCK, now=11.0201)
    # The next block is another one.
    policy.tried(BLOCK, BLOCK // 4, 0.003, waiting=BLOCK, now=11.03)
    assert policy.wants(BLOCK, left=70 * MB, waiting=4 * BLOCK, now=11.03)


def test_a_path_with_nothing_to_carry_is_not_kept_waiting() -> None:
    policy = measured(150 * MB)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=11.0)
    # In 3 ms it carries 450,000 bytes.
    assert not policy.wants(BLOCK, left=150 * MB, waiting=440_000, now=11.001)
    assert policy.wants(BLOCK, left=150 * MB, waiting=460_000, now=11.001)
    # Small files take less time.
    assert policy.wants(BLOCK // 10, left=150 * MB, waiting=46_000, now=11.001)


def test_the_path_waits_for_compression_that_saves_three_times_its_time_until_its_rate_must_show_again() -> (
    None
):
    policy = measured(90 * MB)
    assert (CLEARLY, KNOWN_FOR) == (3.0, 10.0)
    # 3 ms save 9.3 ms; and 8.7 ms.
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=11.0)
    assert policy.wants(BLOCK, left=90 * MB, waiting=0, now=11.001)
    policy.tried(BLOCK, BLOCK // 4, 0.003, waiting=BLOCK, now=11.0)
    assert not policy.wants(BLOCK, left=90 * MB, waiting=0, now=11.001)

    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=20.9)
    assert policy.wants(BLOCK, left=91 * MB, waiting=0, now=20.9)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=21.1)
    assert not policy.wants(BLOCK, left=92 * MB, waiting=0, now=21.1)
    # Something waits again, and it shows.
    assert not policy.wants(BLOCK, left=93 * MB, waiting=BLOCK, now=21.15)
    assert policy.wants(BLOCK, left=101 * MB, waiting=BLOCK, now=21.25)
    assert policy.rate == pytest.approx(9 * MB / 0.15)
    assert policy.wants(BLOCK, left=102 * MB, waiting=0, now=21.26)


def test_before_the_rate_has_shown_nothing_keeps_the_path_waiting() -> None:
    """What has left while nothing waited says little: a fast path would never be found out."""
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=0, now=10.0)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=10.003)
    assert not policy.wants(BLOCK, left=4 * MB, waiting=0, now=10.2)
    assert policy.rate == pytest.approx(20 * MB)
    assert not policy.wants(BLOCK, left=5 * MB, waiting=BLOCK, now=10.21)
    # Here is one that is slow, and has had work from the first block on.
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=0, now=10.0)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=10.003)
    assert policy.wants(BLOCK, left=MB, waiting=BLOCK, now=11.0)
    assert policy.rate == MB


def test_a_rate_is_taken_over_a_while() -> None:
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=BLOCK, now=10.0)
    policy.wants(BLOCK, left=5 * MB, waiting=BLOCK, now=10.0 + RATE_WINDOW / 2)
    assert policy.rate is None
    # Nothing that takes longer to leave is taken for no rate.
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=BLOCK, now=12.0)
    assert policy.rate is None
    policy.wants(BLOCK, left=MB, waiting=BLOCK, now=14.0)
    assert policy.rate == MB / 4


def test_a_path_shows_its_rate_only_while_it_has_something_to_carry() -> None:
    policy = measured(100 * MB)
    policy.wants(BLOCK, left=100 * MB, waiting=0, now=11.05)
    policy.wants(BLOCK, left=101 * MB, waiting=BLOCK, now=12.0)
    assert policy.rate == 100 * MB
    # With something to carry, it has become slower; and faster it can be at any time.
    policy.wants(BLOCK, left=103 * MB, waiting=BLOCK, now=13.0)
    assert policy.rate == 2 * MB
    policy.wants(BLOCK, left=103 * MB, waiting=0, now=13.05)
    policy.wants(BLOCK, left=153 * MB, waiting=0, now=14.0)
    assert policy.rate == 50 * MB


def test_a_path_is_not_idle_before_the_receiver_takes_the_first_bytes() -> None:
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=0, now=10.0)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=0, now=10.003)
    policy.wants(BLOCK, left=0, waiting=BLOCK, now=10.01)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=BLOCK, now=10.013)
    assert policy.wants(BLOCK, left=MB, waiting=BLOCK, now=10.5)
    assert policy.rate == MB / 0.5


def test_a_path_that_was_idle_while_a_block_was_compressed_has_not_shown_its_rate() -> None:
    policy = auto()
    policy.wants(BLOCK, left=0, waiting=BLOCK, now=10.0)
    policy.tried(BLOCK, BLOCK // 5, 0.003, waiting=0, now=10.003)
    assert not policy.wants(BLOCK, left=4 * MB, waiting=BLOCK, now=10.2)


@dataclass
class Path:
    """A path and a thread of a sender, in time: what a policy's decisions come to.

    Attributes:
        rate: bytes a second of the path.
        compress: the same of the compressor.
        read: the same of what reads and hashes.
    """

    rate: float
    compress: float
    read: float = 1e9

    def send(self, shrinks_to: list[float], compression: Compression) -> tuple[float, float]:
        """Send a block for each of these, which shrinks to such a part of it.

        Returns:
            Seconds until the last has left, and how many of them went into compressing.
        """
        policy = CompressionPolicy(compression, 0.0)
        now = busy_until = spent = 0.0
        given = 0.0
        for part in shrinks_to:
            now += BLOCK / self.read
            waiting = max(0.0, (busy_until - now) * self.rate)
            # At most four blocks wait.
            if waiting > 4 * BLOCK:
                now = busy_until - 4 * BLOCK / self.rate
                waiting = 4 * BLOCK
            size: float = BLOCK
            if policy.wants(BLOCK, left=round(given - waiting), waiting=round(waiting), now=now):
                seconds = BLOCK / (self.compress if part < 1 else 7e9)
                now += seconds
                spent += seconds
                size = BLOCK * part
                waiting = max(0, round((busy_until - now) * self.rate))
                policy.tried(BLOCK, round(size), seconds, waiting=waiting, now=now)
            given += size
            busy_until = max(busy_until, now) + size / self.rate
        return max(now, busy_until), spent


@pytest.mark.parametrize(
    ("rate", "part", "gain"),
    [
        # 5, 50 and 500 Mbit/s.
        (0.625 * MB, 0.2, 4.9),
        (6.25 * MB, 0.2, 4.9),
        (62.5 * MB, 0.2, 4.0),
        (62.5 * MB, 0.5, 1.95),
        (350 * MB, 0.5, 0.98),
        (350 * MB, 0.2, 0.98),
        (0.625 * MB, 1.0, 0.99),
        (62.5 * MB, 1.0, 0.99),
        (350 * MB, 1.0, 0.99),
    ],
)
def test_a_whole_file_is_so_much_faster(rate: float, part: float, gain: float) -> None:
    path, blocks = Path(rate, compress=350 * MB), [part] * 500
    without, _ = path.send(blocks, Compression.OFF)
    took, _ = path.send(blocks, Compression.AUTO)
    assert without / took > gain


def test_compressed_and_plain_blocks_mix_where_the_compressor_is_slower_than_the_path() -> None:
    """120 MB/s of a path, a compressor that makes 200: together they do more than either."""
    path, blocks = Path(120 * MB, compress=200 * MB), [0.2] * 1000
    alone = [path.send(blocks, compression)[0] for compression in (Compression.OFF, Compression.ON)]
    assert path.send(blocks, Compression.AUTO)[0] < 0.9 * min(alone)


@given(
    rate=st.floats(1e5, 1e9),
    compress=st.floats(2e7, 1e9),
    blocks=st.lists(st.sampled_from([0.05, 0.2, 0.5, 0.9, 0.999, 1.0]), min_size=1, max_size=60),
    repeat=st.integers(1, 8),
)
@settings(max_examples=share(200))
def test_compression_is_never_much_slower_than_none_whatever_is_sent_over_whatever_path(
    rate: float, compress: float, blocks: list[float], repeat: int
) -> None:
    path, blocks = Path(rate, compress), [part for part in blocks for _ in range(repeat)]
    without, _ = path.send(blocks, Compression.OFF)
    took, _ = path.send(blocks, Compression.AUTO)
    # Until the rate is known, some blocks are compressed that need not be.
    assert took <= 1.06 * without + RATE_WINDOW + 3 * BLOCK / compress
