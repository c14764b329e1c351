"""flyx/sctp/outstanding.py, against a model that knows every TSN."""

import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.sctp.outstanding import MAX_RENEGES, MAX_SKIPPED_STREAMS, Outstanding, _uncovered
from flyx.sctp.runs import RunState
from flyx.sctp.send_queue import OutgoingMessage
from tests.compiled import needs_lines
from tests.fuzz.work import steps
from tests.thoroughness import share

FIRST = (1 << 32) - 30
SIZE = 100
LATER = 1e6


def outgoing(count=1, *, last=SIZE, stream_id=1, ssn=0, unordered=False, retransmits=None, expires_at=None):
    """A message of `count` fragments of SIZE bytes, the last one of `last`."""
    message = OutgoingMessage(
        stream_id,
        51,
        bytes((count - 1) * SIZE + last),
        unordered=unordered,
        max_retransmits=retransmits,
        expires_at=expires_at,
    )
    message.ssn, message.fragment_size, message.fragment_count = ssn, SIZE, count
    return message


def send(outstanding, now, *messages):
    """Send messages whole in one burst; return the first TSN."""
    burst = outstanding.begin_burst(now)
    first = outstanding.next_tsn
    for message in messages:
        outstanding.sent(message, 0, message.fragment_count, burst)
    burst.in_flight = outstanding.in_flight
    return first


def sack(outstanding, cumulative, *gaps, now, min_rtt=0.1):
    return outstanding.on_sack(cumulative, list(gaps), now=now, min_rtt=min_rtt, cwnd_limited=False)


def resend_all(outstanding, now):
    burst = outstanding.begin_burst(now)
    runs = outstanding.lost_runs()
    for run in runs:
        outstanding.resend(run, run.count, burst)
    return runs


def fates(outstanding):
    """RunState by TSN."""
    return {tsn: run.state for run in outstanding.runs for tsn in range(run.first, run.end)}


def lost(outstanding):
    return [tsn for tsn, fate in fates(outstanding).items() if fate is RunState.LOST]


def check(outstanding):
    """What must always hold."""
    expected = outstanding.cumulative + 1
    for run in outstanding.runs:
        assert run.first == expected
        assert run.count > 0
        expected = run.end
    assert expected == outstanding.next_tsn
    for fate, told in (
        (RunState.IN_FLIGHT, outstanding.in_flight),
        (RunState.LOST, outstanding.lost_waiting),
    ):
        assert told == sum(run.size for run in outstanding.runs if run.state is fate)
    for run in outstanding.runs:
        if run.state in (RunState.IN_FLIGHT, RunState.LOST):
            assert run.size == run.message.span(run.fragment, run.count) > 0
    for run, after in zip(outstanding.runs, outstanding.runs[1:], strict=False):
        assert not run.state is after.state is RunState.ACKED


BLOCKS = st.lists(st.integers(0, 60), max_size=20, unique=True).map(
    lambda edges: list(zip(*[iter(sorted(edges))] * 2, strict=False))
)


@given(BLOCKS, BLOCKS)
def test_the_fast_gap_difference_equals_the_naive_one(blocks, known):
    covered = {tsn for start, end in known for tsn in range(start, end + 1)}
    naive = [tsn for start, end in blocks for tsn in range(start, end + 1) if tsn not in covered]
    fast = [tsn for start, end in _uncovered(blocks, known) for tsn in range(start, end + 1)]
    assert fast == naive


@pytest.mark.parametrize("seed", range(share(40)))
def test_every_byte_is_acknowledged_or_lost_or_in_flight(seed):
    """Random sending, SACKs of a receiver that got some of it, old ones too, timers, resending."""
    rng = random.Random(seed)
    outstanding, now, ssn = Outstanding(FIRST), 1.0, 0
    sizes: dict[int, int] = {}
    messages: dict[int, OutgoingMessage] = {}
    received: set[int] = set()
    acked: set[int] = set()
    known: set[int] = set()
    cumulative, old_sacks = FIRST - 1, []
    partial = seed % 2
    for _ in range(120):
        now += rng.choice((0.0, 0.01, 0.05, 0.3))
        match rng.choice(
            ("send", "send", "arrive", "sack", "sack", "stale", "rack", "t3", "probe", "resend")
        ):
            case "send":
                message = outgoing(
                    rng.randint(1, 9),
                    last=rng.randint(1, SIZE),
                    ssn=ssn,
                    unordered=rng.random() < 0.3,
                    retransmits=rng.choice((None, 0, 1)) if partial else None,
                    expires_at=now + 1 if partial and rng.random() < 0.2 else None,
                )
                ssn += not message.unordered
                first = send(outstanding, now, message)
                for index in range(message.fragment_count):
                    sizes[first + index] = message.span(index, 1)
                    messages[first + index] = message
            case "arrive":
                received |= {t for t in range(cumulative + 1, outstanding.next_tsn) if rng.random() < 0.4}
            case "sack":
                while cumulative + 1 in received:
                    cumulative += 1
                beyond = sorted(t for t in received if t > cumulative)
                gaps = []
                for _, group in groupby(enumerate(beyond), lambda pair: pair[1] - pair[0]):
                    block = [tsn for _, tsn in group]
                    gaps.append((block[0], block[-1]))
                gaps = gaps[: rng.randint(0, 5)]
                old_sacks.append((cumulative, gaps))
                before, advanced = outstanding.delivered, cumulative > outstanding.cumulative
                result = sack(outstanding, cumulative, *gaps, now=now)
                told = {t for t in sizes if t <= cumulative} | {t for a, b in gaps for t in range(a, b + 1)}
                fresh = {t for t in told - acked if not messages[t].abandoned}
                assert outstanding.delivered - before == sum(sizes[t] for t in fresh)
                assert (result.sample.acked if result.sample else 0) == sum(sizes[t] for t in fresh)
                acked |= told
                if advanced:
                    reach = gaps[-1][1] if gaps else outstanding.next_tsn
                    gone = {t for t in acked - told if t <= reach}
                    taken = {t for t, fate in fates(outstanding).items() if fate is RunState.LOST} & gone
                    # What is abandoned hides now and then that something was taken back, until T3 expires.
                    assert taken == gone or partial
                    acked -= taken
                known = {t for a, b in gaps for t in range(a, b + 1)}
            case "stale" if old_sacks:
                old_cumulative, gaps = rng.choice(old_sacks)
                before = outstanding.delivered
                told = {t for a, b in gaps for t in range(a, b + 1)}
                fresh = {t for t in told - acked if not messages[t].abandoned}
                result = sack(outstanding, old_cumulative, *gaps, now=now)
                assert (result is None) is (old_cumulative < outstanding.cumulative)
                if result is not None:
                    # It may tell of what was taken back since.
                    assert outstanding.delivered - before == sum(sizes[t] for t in fresh)
                    acked |= told
                    known = told
                else:
                    assert outstanding.delivered == before
            case "rack":
                before = outstanding.lost
                losses, again = outstanding.detect_losses(now, 0.05)
                assert sum(loss.size for loss in losses) == outstanding.lost - before
                assert again is None or again > now
            case "t3":
                before = outstanding.in_flight
                assert sum(loss.size for loss in outstanding.lose_everything(LATER)) == before
                assert outstanding.in_flight == 0
                taken = {t for t, fate in fates(outstanding).items() if fate is RunState.LOST} & acked
                assert not taken & known
                acked -= taken
            case "probe":
                if not outstanding.lost_waiting and (run := outstanding.lose_last()):
                    assert run.count == 1
                    assert run.times_sent <= run.message.retransmits
                    outstanding.resend(run, 1, outstanding.begin_burst(now))
            case "resend":
                outstanding.abandon(now)
                skipped = outstanding.skip_abandoned()
                if skipped is not None:
                    point = skipped[0]
                    # Everything up to the point has arrived or is abandoned, and no live message is cut.
                    for tsn in range(outstanding.cumulative + 1, point + 1):
                        assert messages[tsn].abandoned or tsn in acked
                    assert messages[point].abandoned
                    if rng.random() < 0.5:
                        received |= set(range(cumulative + 1, point + 1))
                burst = outstanding.begin_burst(now)
                for run in outstanding.lost_runs():
                    assert not run.message.abandoned
                    outstanding.resend(run, rng.randint(1, run.count), burst)
        check(outstanding)
        told_fates = fates(outstanding)
        for tsn, fate in told_fates.items():
            if fate is RunState.ABANDONED:
                assert messages[tsn].abandoned
            else:
                assert (fate is RunState.ACKED) is (tsn in acked)
    # In the end everything can be acknowledged.
    sack(outstanding, outstanding.next_tsn - 1, now=now + 1)
    assert not outstanding.runs
    assert outstanding.in_flight == outstanding.lost_waiting == 0


def test_a_sack_for_what_was_not_sent_is_a_violation():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(3))
    with pytest.raises(RemoteProtocolError):
        sack(outstanding, FIRST + 3, now=1.1)
    with pytest.raises(RemoteProtocolError):
        sack(outstanding, FIRST, (FIRST + 2, FIRST + 3), now=1.1)


def reneged_on(outstanding, cumulative, *gaps, now=1.2):
    """TSNs, counted from FIRST, that this SACK takes back."""
    before = {tsn for tsn, fate in fates(outstanding).items() if fate is RunState.ACKED}
    sack(outstanding, cumulative, *gaps, now=now)
    check(outstanding)
    return [tsn - FIRST for tsn in lost(outstanding) if tsn in before]


def test_rfc_9260_section_6_2_1_what_a_newer_sack_no_longer_tells_of_is_sent_again():
    outstanding = Outstanding(FIRST)
    first, rest = outgoing(4), outgoing(6, last=7, ssn=1)
    send(outstanding, 1.0, first, rest)
    sack(outstanding, FIRST - 1, (FIRST + 2, FIRST + 7), now=1.1)
    assert reneged_on(outstanding, FIRST, (FIRST + 5, FIRST + 5)) == [2, 3, 4]
    # What the last block does not reach may only have had no room.
    assert {tsn - FIRST for tsn, fate in fates(outstanding).items() if fate is RunState.ACKED} == {5, 6, 7}
    assert outstanding.lost == 2 * SIZE
    sent = {run.first - FIRST: (run.message, run.fragment) for run in resend_all(outstanding, 1.3)}
    assert {sent[2], sent[4]} == {(first, 2), (rest, 0)}
    sack(outstanding, FIRST + 9, now=1.4)
    assert not outstanding.runs
    check(outstanding)


def test_a_newer_sack_without_gap_ack_blocks_takes_back_all_of_them():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, *(outgoing(ssn=ssn) for ssn in range(6)))
    sack(outstanding, FIRST - 1, (FIRST + 2, FIRST + 2), (FIRST + 4, FIRST + 5), now=1.1)
    assert reneged_on(outstanding, FIRST + 1) == [2, 4, 5]
    assert outstanding.in_flight + outstanding.lost_waiting == 4 * SIZE
    # It is acknowledged again when it has arrived again.
    resend_all(outstanding, 1.3)
    assert sack(outstanding, FIRST + 1, (FIRST + 4, FIRST + 5), now=1.4).sample.acked == 2 * SIZE


def test_a_sack_as_old_as_the_last_one_takes_nothing_back_before_t3_expires():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, *(outgoing(ssn=ssn) for ssn in range(6)))
    sack(outstanding, FIRST - 1, (FIRST + 2, FIRST + 5), now=1.1)
    # It may have been overtaken.
    assert reneged_on(outstanding, FIRST - 1, (FIRST + 4, FIRST + 4)) == []
    outstanding.lose_everything(LATER)
    assert [tsn - FIRST for tsn in lost(outstanding)] == [0, 1, 2, 3]
    check(outstanding)


def test_neighbours_that_are_acknowledged_become_one_run():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, *(outgoing() for _ in range(9)))
    for tsn in (2, 6, 4, 5, 3):
        sack(outstanding, FIRST - 1, (FIRST + tsn, FIRST + tsn), now=1.1)
    assert [(run.first - FIRST, run.count) for run in outstanding.runs if run.state is RunState.ACKED] == [
        (2, 5)
    ]
    check(outstanding)


def test_rfc_9260_section_7_2_4_third_report_of_a_missing_tsn_loses_it_at_once():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, *(outgoing() for _ in range(6)))
    for last in (1, 2):
        result = sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + last), now=1.1)
        assert not result.losses
        assert result.rack_deadline == pytest.approx(1.0 + 0.1 + 0.1 / 4)
    (loss,) = sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + 3), now=1.1).losses
    assert (loss.size, loss.sent_at) == (SIZE, 1.0)
    assert lost(outstanding) == [FIRST]


def test_rfc_8985_section_6_2_a_path_that_reorders_gets_a_quarter_round_trip():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, *(outgoing() for _ in range(3)))
    sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + 2), now=1.1)
    sack(outstanding, FIRST + 2, now=1.1)
    assert outstanding.reordering_seen
    send(outstanding, 2.0, *(outgoing() for _ in range(9)))
    result = sack(outstanding, FIRST + 2, (FIRST + 4, FIRST + 11), now=2.1)
    assert not result.losses
    assert result.rack_deadline == pytest.approx(2.125)
    losses, again = outstanding.detect_losses(2.13, 0.1)
    assert [loss.size for loss in losses] == [SIZE]
    assert again is None


def test_needless_retransmissions_widen_the_window_and_other_duplicates_do_not():
    outstanding = Outstanding(FIRST)
    send(outstanding, 0.5, outgoing())
    outstanding.on_duplicates([FIRST])
    assert not outstanding.reordering_seen
    outstanding.lose_everything(0.6)
    resend_all(outstanding, 0.6)
    sack(outstanding, FIRST, now=0.7)
    outstanding.on_duplicates([FIRST])
    send(outstanding, 1.0, *(outgoing() for _ in range(9)))
    result = sack(outstanding, FIRST, (FIRST + 2, FIRST + 9), now=1.1)
    assert result.rack_deadline == pytest.approx(1.15)


def test_a_lost_retransmission_is_found_by_what_left_after_it():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, *(outgoing() for _ in range(5)))
    sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + 4), now=1.1)
    assert [run.first for run in resend_all(outstanding, 1.1)] == [FIRST]
    send(outstanding, 1.11, *(outgoing() for _ in range(4)))
    sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + 8), now=1.21)
    outstanding.detect_losses(1.24, 0.1)
    assert lost(outstanding) == [FIRST]
    assert outstanding.runs[0].times_sent == 2


def test_karn_no_round_trip_from_what_was_sent_twice():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing())
    outstanding.lose_everything(LATER)
    resend_all(outstanding, 2.0)
    assert sack(outstanding, FIRST, now=2.05).sample.rtt is None
    send(outstanding, 3.0, outgoing())
    assert sack(outstanding, FIRST + 1, now=3.1).sample.rtt == pytest.approx(0.1)


def test_what_was_declared_lost_and_arrives_is_not_sent_again():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(4))
    outstanding.lose_everything(LATER)
    sack(outstanding, FIRST, (FIRST + 2, FIRST + 2), now=1.1)
    assert lost(outstanding) == [FIRST + 1, FIRST + 3]
    assert outstanding.lost_waiting == 2 * SIZE


def test_the_tail_probe_sends_the_last_fragment_again_without_counting_a_loss():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(3, last=7))
    run = outstanding.lose_last()
    assert (run.first, run.count, run.size) == (FIRST + 2, 1, 7)
    assert outstanding.lost == 0
    resend_all(outstanding, 1.5)
    result = sack(outstanding, FIRST - 1, (FIRST + 2, FIRST + 2), now=1.6)
    # Its acknowledgement tells that what left long before is lost.
    assert [loss.size for loss in result.losses] == [2 * SIZE]


def test_no_tail_probe_of_what_may_not_be_sent_again():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(), outgoing(retransmits=0))
    assert outstanding.lose_last().first == FIRST


def test_a_delivery_rate_sample_counts_what_was_delivered_since_the_packet_left():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(10))
    sack(outstanding, FIRST + 4, now=1.1)
    send(outstanding, 1.1, outgoing(5))
    sample = sack(outstanding, FIRST + 14, now=1.2).sample
    assert (sample.acked, sample.delivered, sample.prior_delivered) == (1000, 1500, 500)
    assert sample.delivery_rate == pytest.approx(1000 / 0.1)
    assert sample.in_flight == 0


def test_rfc_3758_a_message_is_abandoned_when_its_retransmissions_are_used_up():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(2, stream_id=5, ssn=9, retransmits=1), outgoing())
    outstanding.lose_everything(LATER)
    outstanding.abandon(1.1)
    assert outstanding.skip_abandoned() is None
    resend_all(outstanding, 1.2)
    outstanding.lose_everything(LATER)
    outstanding.abandon(2.0)
    assert outstanding.skip_abandoned() == (FIRST + 1, [(5, 9)])
    assert outstanding.lost_waiting == SIZE
    check(outstanding)


def test_forward_tsn_never_cuts_a_live_message_whose_beginning_has_arrived():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(1, retransmits=0), outgoing(4, ssn=1))
    sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + 2), now=1.1)
    outstanding.lose_everything(LATER)
    outstanding.abandon(1.2)
    assert outstanding.skip_abandoned() == (FIRST, [(1, 0)])


def test_forward_tsn_goes_over_whole_messages_to_the_end_of_the_last_abandoned_one():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(retransmits=0), outgoing(2, ssn=1), outgoing(3, ssn=2, retransmits=0))
    sack(outstanding, FIRST - 1, (FIRST + 1, FIRST + 2), (FIRST + 4, FIRST + 5), now=1.1)
    outstanding.lose_everything(LATER)
    outstanding.abandon(1.2)
    # The fragments of the last one that arrived are of no use.
    assert outstanding.skip_abandoned() == (FIRST + 5, [(1, 2)])


def test_an_abandoned_message_that_was_not_sent_whole_ends_with_a_tsn_of_its_own():
    outstanding = Outstanding(FIRST)
    message = outgoing(10, stream_id=3, ssn=4)
    outstanding.sent(message, 0, 4, outstanding.begin_burst(1.0))
    sack(outstanding, FIRST + 3, now=1.1)
    message.abandoned = True
    outstanding.end_early(message, 4, 1.2)
    assert outstanding.skip_abandoned() == (FIRST + 4, [(3, 4)])
    assert outstanding.in_flight == 0
    check(outstanding)
    sack(outstanding, FIRST + 4, now=1.3)
    assert not outstanding.runs


def test_unordered_messages_are_skipped_without_a_stream():
    outstanding = Outstanding(FIRST)
    send(outstanding, 1.0, outgoing(retransmits=0, unordered=True))
    outstanding.lose_everything(LATER)
    outstanding.abandon(1.1)
    assert outstanding.skip_abandoned() == (FIRST, [])


def test_one_forward_tsn_tells_of_a_bounded_number_of_streams():
    outstanding = Outstanding(FIRST)
    count = MAX_SKIPPED_STREAMS + 50
    send(outstanding, 1.0, *(outgoing(stream_id=number, retransmits=0) for number in range(count)))
    outstanding.lose_everything(LATER)
    outstanding.abandon(1.1)
    point, streams = outstanding.skip_abandoned()
    assert point == FIRST + MAX_SKIPPED_STREAMS - 1
    assert [stream_id for stream_id, _ in streams] == list(range(MAX_SKIPPED_STREAMS))
    sack(outstanding, point, now=1.2)
    assert outstanding.skip_abandoned()[0] == FIRST + count - 1


@needs_lines
def test_a_peer_that_acknowledges_every_other_fragment_costs_the_same_for_each_sack():
    outstanding = Outstanding(1)
    count = 20_000
    send(outstanding, 1.0, *[outgoing() for _ in range(count)])
    now = 1.1

    def acknowledge(tsn):
        nonlocal now
        now += 1e-5
        assert sack(outstanding, 0, (tsn, tsn), now=now)

    each = [steps(lambda tsn=tsn: acknowledge(tsn)) for tsn in range(2, 8_000, 2)]
    # A look at all of them now and then, at more with time; 4,000 looks at 8,000 would be 16 million.
    assert sum(each) < 1_000_000
    assert sorted(each)[len(each) // 2] < 120
    # What was not looked at is found when there is time.
    outstanding.detect_losses(now + 1.0, 0.1)
    assert {fate for tsn, fate in fates(outstanding).items() if tsn < 7_990} == {
        RunState.ACKED,
        RunState.LOST,
    }


def test_a_receiver_that_reneges_for_ever_is_refused():
    outstanding = Outstanding(1)
    send(outstanding, 1.0, *[outgoing() for _ in range(2 * MAX_RENEGES + 10)])
    last = outstanding.next_tsn - 1

    def renege(cumulative):
        sack(outstanding, cumulative, (cumulative + 2, last), now=2.0)
        sack(outstanding, cumulative + 1, now=2.0)

    for cumulative in range(MAX_RENEGES):
        renege(cumulative)
    with pytest.raises(RemoteProtocolError, match="taking back"):
        renege(MAX_RENEGES)
