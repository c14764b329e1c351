"""flyx/sctp/receive_tracker.py, against a set of TSNs."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flyx.sctp.chunks import MAX_DUPLICATE_TSNS, MAX_GAP_ACK_BLOCKS
from flyx.sctp.receive_tracker import MAX_RANGES, ReceiveTracker

INITIAL = (1 << 32) - 20
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "add", "advance", "sack"]), st.integers(-3, 60)), max_size=80
)


@given(STEPS)
def test_a_receive_tracker_agrees_with_a_set(steps):
    tracker = ReceiveTracker(INITIAL)
    received: set[int] = set()
    cumulative = INITIAL - 1
    duplicates = []
    for step, offset in steps:
        tsn = INITIAL + offset
        if step == "add":
            fresh = tsn > cumulative and tsn not in received
            assert tracker.add(tsn) is fresh
            if fresh:
                received.add(tsn)
            else:
                duplicates.append(tsn % (1 << 32))
        elif step == "advance":
            tracker.advance(tsn)
            cumulative = max(cumulative, tsn)
        while cumulative + 1 in received:
            cumulative += 1
        beyond = {tsn for tsn in received if tsn > cumulative}
        assert tracker.cumulative == cumulative
        assert tracker.has_gaps is bool(beyond)
        if step == "sack":
            sack = tracker.sack(5)
            told = [t for a, b in sack.gap_ack_blocks for t in range(cumulative + a, cumulative + b + 1)]
            assert told == sorted(beyond)
            assert sack.cumulative_tsn_ack == cumulative % (1 << 32)
            assert sack.duplicate_tsns == duplicates[:MAX_DUPLICATE_TSNS]
            duplicates = []
            blocks = sack.gap_ack_blocks
            assert all(left[1] + 1 < right[0] for left, right in pairwise(blocks))


def test_a_tsn_that_no_gap_ack_block_reaches_is_not_taken():
    tracker = ReceiveTracker(0)
    assert not tracker.add(0xFFFF)
    assert tracker.add(0xFFFE)
    assert tracker.sack(0).gap_ack_blocks == [(0xFFFF, 0xFFFF)]


def test_ranges_and_gap_ack_blocks_are_bounded():
    tracker = ReceiveTracker(0)
    taken = sum(tracker.add(tsn) for tsn in range(1, 2 * MAX_RANGES + 100, 2))
    assert taken == MAX_RANGES
    assert len(tracker.sack(0).gap_ack_blocks) == MAX_GAP_ACK_BLOCKS
    # What closes a gap is taken still.
    assert tracker.add(2)
    assert tracker.add(0)
    assert tracker.cumulative == 3
