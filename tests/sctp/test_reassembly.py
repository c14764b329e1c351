"""flyx/sctp/reassembly.py, against a model: fragments in any order, several streams, FORWARD TSN, reset."""

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.sctp.data_chunk import BEGINNING, ENDING, UNORDERED
from flyx.sctp.reassembly import MAX_WAITING, Fragment, Message, Reassembly
from tests.compiled import needs_lines
from tests.fuzz.work import steps
from tests.thoroughness import share

LIMIT = 10_000


def fragments_of(tsn, data, *, size=3, stream_id=1, ssn=0, unordered=False, ppid=51):
    """The fragments of one message from a TSN on."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    fragments = []
    for index, part in enumerate(parts):
        flags = UNORDERED if unordered else 0
        flags |= BEGINNING if index == 0 else 0
        flags |= ENDING if index == len(parts) - 1 else 0
        fragments.append(Fragment(tsn + index, flags, stream_id, ssn, ppid, part))
    return fragments


@st.composite
def traffic(draw):
    """Messages as (fragments, message, unordered), TSNs in a row from 1."""
    tsn, ssns, sent = 1, {}, []
    for number in range(draw(st.integers(1, 10))):
        stream_id, unordered = draw(st.integers(0, 2)), draw(st.booleans())
        ssn = 0 if unordered else ssns.get(stream_id, 0)
        if not unordered:
            ssns[stream_id] = ssn + 1
        data = bytes([number]) * draw(st.integers(1, 15))
        fragments = fragments_of(tsn, data, stream_id=stream_id, ssn=ssn, unordered=unordered)
        sent.append((fragments, Message(stream_id, 51, data), unordered))
        tsn += len(fragments)
    return sent


def ordered_of(messages, unordered_fills):
    streams = {}
    for message in messages:
        if message.data[0] not in unordered_fills:
            streams.setdefault(message.stream_id, []).append(message)
    return streams


@settings(max_examples=share(120))
@given(traffic(), st.data())
def test_fragments_in_any_order_become_the_messages_each_as_soon_as_it_is_due(sent, data):
    reassembly = Reassembly(LIMIT)
    fragments = [fragment for parts, _, _ in sent for fragment in parts]
    arrived: set[int] = set()
    due: set[int] = set()
    waiting = 0
    for fragment in data.draw(st.permutations(fragments)):
        reassembly.add(fragment)
        arrived.add(fragment.tsn)
        blocked = set()
        due, waiting = set(), 0
        for number, (parts, message, unordered) in enumerate(sent):
            whole = all(part.tsn in arrived for part in parts)
            if whole and (unordered or message.stream_id not in blocked):
                due.add(number)
            else:
                waiting += sum(len(part.data) for part in parts if part.tsn in arrived)
                if not unordered:
                    blocked.add(message.stream_id)
        assert {message.data[0] for message in reassembly.ready} == due
        assert reassembly.size == waiting
    fills = {message.data[0] for _, message, unordered in sent if unordered}
    assert ordered_of(reassembly.ready, fills) == ordered_of([m for _, m, _ in sent], fills)
    assert sorted(m.data for m in reassembly.ready) == sorted(m.data for _, m, _ in sent)
    assert reassembly.size == 0


@settings(max_examples=share(120))
@given(traffic(), st.data())
def test_messages_skipped_by_forward_tsn_hold_nothing_up(sent, data):
    """Some messages are abandoned, of which any part arrives before or never; all others are delivered."""
    reassembly = Reassembly(LIMIT)
    abandoned = data.draw(st.sets(st.integers(0, len(sent) - 1)))
    fragments = []
    for number, (parts, _, _) in enumerate(sent):
        fragments += parts if number not in abandoned else parts[: data.draw(st.integers(0, len(parts) - 1))]
    early = data.draw(st.permutations(fragments))
    cut = data.draw(st.integers(0, len(early)))
    for fragment in early[:cut]:
        reassembly.add(fragment)
    if abandoned:
        # The sender's point: the end of the last abandoned message, once all before it has arrived.
        last = max(abandoned)
        point = sent[last][0][-1].tsn
        for fragment in [f for f in early[cut:] if f.tsn <= point]:
            reassembly.add(fragment)
        streams = {sent[n][1].stream_id: sent[n][0][0].ssn for n in sorted(abandoned) if not sent[n][2]}
        reassembly.skip(point, streams.items())
        rest = [f for f in early[cut:] if f.tsn > point]
    else:
        rest = early[cut:]
    for fragment in rest:
        reassembly.add(fragment)
    expected = [m for n, (_, m, _) in enumerate(sent) if n not in abandoned]
    fills = {message.data[0] for _, message, unordered in sent if unordered}
    assert ordered_of(reassembly.ready, fills) == ordered_of(expected, fills)
    assert sorted(m.data for m in reassembly.ready) == sorted(m.data for m in expected)
    assert reassembly.size == 0


def test_a_reset_stream_begins_anew_with_ssn_0_and_frees_what_waited():
    reassembly = Reassembly(LIMIT)
    for fragment in fragments_of(1, b"a", ssn=0) + fragments_of(3, b"late", ssn=2):
        reassembly.add(fragment)
    assert reassembly.stream_ids() == [1]
    reassembly.reset([1])
    assert reassembly.size == 0
    reassembly.add(fragments_of(5, b"new", ssn=0)[0])
    assert [m.data for m in reassembly.ready] == [b"a", b"new"]


def test_a_reset_of_no_named_stream_is_one_of_all():
    reassembly = Reassembly(LIMIT)
    for stream_id in (1, 2):
        reassembly.add(fragments_of(stream_id, b"a", stream_id=stream_id)[0])
    reassembly.reset([])
    for stream_id in (1, 2):
        reassembly.add(fragments_of(stream_id + 2, b"b", stream_id=stream_id)[0])
    assert [m.data for m in reassembly.ready] == [b"a", b"a", b"b", b"b"]


def test_ssns_wrap():
    reassembly = Reassembly(LIMIT)
    for tsn in range(65_538):
        reassembly.add(Fragment(tsn, BEGINNING | ENDING, 1, tsn & 0xFFFF, 51, b"x"))
    assert len(reassembly.ready) == 65_538
    # Early, across the wrap.
    reassembly = Reassembly(LIMIT)
    reassembly.skip(0, [(1, 0x7FFE), (1, 0xFFFD)])
    for tsn, ssn in ((4, 0), (3, 0xFFFF), (2, 0xFFFE)):
        reassembly.add(Fragment(tsn, BEGINNING | ENDING, 1, ssn, 51, bytes([tsn])))
    assert [m.data for m in reassembly.ready] == [b"\2", b"\3", b"\4"]


def test_skipping_delivers_in_order_what_was_early():
    reassembly = Reassembly(LIMIT)
    for tsn, ssn in ((9, 7), (7, 5), (5, 3)):
        reassembly.add(Fragment(tsn, BEGINNING | ENDING, 1, ssn, 51, bytes([ssn])))
    reassembly.skip(8, [(1, 6)])
    assert [m.data for m in reassembly.ready] == [b"\3", b"\5", b"\7"]
    # One that goes back changes nothing.
    reassembly.skip(8, [(1, 2)])
    reassembly.add(Fragment(10, BEGINNING | ENDING, 1, 8, 51, b"\x08"))
    assert reassembly.ready[-1].data == b"\x08"


@pytest.mark.parametrize(
    "other",
    [
        Fragment(2, 0, 2, 0, 51, b"x"),
        Fragment(2, 0, 1, 1, 51, b"x"),
        Fragment(2, UNORDERED, 1, 0, 51, b"x"),
        Fragment(2, BEGINNING, 1, 0, 51, b"x"),
    ],
    ids=["stream", "ssn", "unordered", "beginning"],
)
@pytest.mark.parametrize("in_order", [True, False])
def test_fragments_of_different_messages_in_one_are_refused(other, in_order):
    reassembly = Reassembly(LIMIT)
    sequence = [Fragment(1, BEGINNING, 1, 0, 51, b"x"), other, Fragment(3, ENDING, 1, 0, 51, b"x")]

    def feed():
        for fragment in sequence if in_order else [sequence[2], sequence[1], sequence[0]]:
            reassembly.add(fragment)

    if not in_order and other.flags & BEGINNING:
        feed()  # two beginnings: what is between is not whole
        assert reassembly.ready == [Message(1, 51, b"xx")]
        return
    with pytest.raises(RemoteProtocolError):
        feed()


def test_a_message_without_its_beginning_is_refused():
    reassembly = Reassembly(LIMIT)
    reassembly.add(Fragment(1, BEGINNING, 1, 0, 51, b"x"))
    reassembly.add(Fragment(3, 0, 1, 1, 51, b"x"))
    with pytest.raises(RemoteProtocolError):
        reassembly.add(Fragment(2, ENDING, 1, 0, 51, b"x"))


def test_two_messages_of_one_ssn_are_refused():
    reassembly = Reassembly(LIMIT)
    reassembly.add(fragments_of(5, b"a", ssn=3)[0])
    with pytest.raises(RemoteProtocolError):
        reassembly.add(fragments_of(6, b"b", ssn=3)[0])


@pytest.mark.parametrize("backwards", [True, False])
def test_a_message_longer_than_may_be_is_refused(backwards):
    reassembly = Reassembly(10)
    fragments = fragments_of(1, b"x" * 11)
    *most, last = reversed(fragments) if backwards else fragments
    for fragment in most:
        reassembly.add(fragment)
    with pytest.raises(RemoteProtocolError):
        reassembly.add(last)
    reassembly = Reassembly(11)
    for fragment in reversed(fragments) if backwards else fragments:
        reassembly.add(fragment)
    assert len(reassembly.ready) == 1


def test_messages_that_never_come_due_are_bounded_in_number():
    reassembly = Reassembly(LIMIT)
    early = [
        Fragment(count, BEGINNING | ENDING, count & 3, 1 + (count >> 2), 51, b"x")
        for count in range(MAX_WAITING + 1)
    ]
    for fragment in early[:-1]:
        reassembly.add(fragment)
    with pytest.raises(RemoteProtocolError):
        reassembly.add(early[-1])


class SlowReassembly:
    """The twin: all that has come, looked through from the start at each step."""

    def __init__(self):
        self.waiting: dict[int, Fragment] = {}
        self.delivered: dict[int, Fragment] = {}
        self.early: list[tuple[Fragment, Message]] = []
        self.due: dict[int, int] = {}
        self.ready: list[Message] = []
        self.too_long = self.mixed = self.out_of_place = self.repeated = False

    def add(self, fragment):
        self.waiting[fragment.tsn] = fragment
        for run in self.runs():
            first, last = run[0], run[-1]
            size = sum(len(other.data) for other in run)
            self.too_long |= len(run) > 1 and size > LIMIT_OF_TWINS
            self.mixed |= any(not self.same(first, other) for other in run)
            if first.flags & BEGINNING and last.flags & ENDING:
                for other in run:
                    self.delivered[other.tsn] = self.waiting.pop(other.tsn)
                self.complete(first, Message(first.stream_id, first.ppid, b"".join(o.data for o in run)))
        taken = self.waiting | self.delivered
        self.out_of_place |= any(
            tsn - 1 in taken and bool(taken[tsn - 1].flags & ENDING) != bool(taken[tsn].flags & BEGINNING)
            for tsn in taken
        )

    def runs(self):
        """Fragments in a row, none but the last of which ends a message and none but the first begins one."""
        runs: list[list[Fragment]] = []
        for tsn in sorted(self.waiting):
            fragment, last = self.waiting[tsn], runs[-1][-1] if runs else None
            if last and last.tsn + 1 == tsn and not last.flags & ENDING and not fragment.flags & BEGINNING:
                runs[-1].append(fragment)
            else:
                runs.append([fragment])
        return runs

    @staticmethod
    def same(first, other):
        alike = first.stream_id == other.stream_id and not (first.flags ^ other.flags) & UNORDERED
        return alike and (first.flags & UNORDERED or first.ssn == other.ssn)

    def complete(self, first, message):
        if first.flags & UNORDERED:
            self.ready.append(message)
            return
        ahead = (first.ssn - self.due.setdefault(first.stream_id, 0)) & 0xFFFF
        self.repeated |= ahead > 0 and any(
            (other.stream_id, other.ssn) == (first.stream_id, first.ssn) for other, _ in self.early
        )
        self.early.append((first, message))
        self.deliver(first.stream_id, self.due[first.stream_id])

    def deliver(self, stream_id, due):
        """Of a stream, deliver all that lies before this SSN, and what follows without a gap."""
        early = [entry for entry in self.early if entry[0].stream_id == stream_id]
        begin = self.due[stream_id]
        for entry in sorted(early, key=lambda entry: (entry[0].ssn - begin) & 0xFFFF):
            distance = (entry[0].ssn - begin) & 0xFFFF
            if distance <= due - begin:
                self.early.remove(entry)
                self.ready.append(entry[1])
                due = max(due, begin + distance + 1)
        self.due[stream_id] = due

    def skip(self, point, streams):
        for run in self.runs():
            if run[0].tsn <= point:
                for fragment in run:
                    del self.waiting[fragment.tsn]
        for stream_id, ssn in streams:
            due = self.due.setdefault(stream_id, 0)
            skipped = (ssn + 1 - due) & 0xFFFF
            self.deliver(stream_id, due + skipped if skipped < 0x8000 else due)

    def reset(self, streams):
        for stream_id in streams or list(self.due):
            self.due.pop(stream_id, None)
            self.early = [entry for entry in self.early if entry[0].stream_id != stream_id]

    @property
    def size(self):
        waiting = sum(len(fragment.data) for fragment in self.waiting.values())
        return waiting + sum(len(message.data) for _, message in self.early)


LIMIT_OF_TWINS = 12
STREAMS = st.integers(0, 1)
FRAGMENTS = st.builds(
    Fragment,
    tsn=st.integers(1, 40),
    flags=st.sampled_from([0, 0, BEGINNING, ENDING, BEGINNING | ENDING, UNORDERED, UNORDERED | ENDING]),
    stream_id=STREAMS,
    ssn=st.integers(0, 2),
    ppid=st.just(51),
    data=st.binary(min_size=1, max_size=3),
)


@st.composite
def hostile_steps(draw):
    """Well-formed traffic in some order, with a little of anything in between, skips and resets."""
    good = [fragment for parts, _, _ in draw(traffic()) for fragment in parts]
    steps_ = [("add", fragment) for fragment in draw(st.permutations(good))]
    other = st.one_of(
        st.tuples(st.just("add"), FRAGMENTS),
        st.tuples(
            st.just("skip"), st.integers(0, 20), st.lists(st.tuples(STREAMS, st.integers(0, 4)), max_size=3)
        ),
        st.tuples(st.just("reset"), st.lists(STREAMS, max_size=2)),
    )
    for step in draw(st.lists(other, max_size=4)):
        steps_.insert(draw(st.integers(0, len(steps_))), step)
    return steps_


@settings(max_examples=share(600))
@given(hostile_steps())
def test_whatever_comes_in_whatever_order_it_does_what_its_slow_twin_does(steps_):
    fast, slow = Reassembly(LIMIT_OF_TWINS), SlowReassembly()
    taken, point = set(), 0
    for kind, *arguments in steps_:
        if kind == "add":
            (fragment,) = arguments
            # As the ReceiveTracker sees to.
            if fragment.tsn in taken or fragment.tsn <= point:
                continue
            taken.add(fragment.tsn)
        elif kind == "skip":
            point = max(point, arguments[0])
        getattr(slow, kind)(*arguments)
        try:
            getattr(fast, kind)(*arguments)
        except RemoteProtocolError:
            assert slow.too_long or slow.mixed or slow.out_of_place or slow.repeated
            return
        assert (slow.too_long, slow.mixed, slow.repeated) == (False, False, False)
        assert fast.ready == slow.ready
        assert fast.size == slow.size


def middle(tsn):
    return Fragment(tsn, 0, 1, 0, 51, b"x")


@needs_lines
@pytest.mark.parametrize("order", ["up", "down", "odd, then even", "shuffled", "all begin"])
def test_a_fragment_costs_the_same_however_many_wait(order):
    """16,000 fragments of one byte that never make a message: each has few steps."""
    count = 16_000
    tsns = list(range(2, count + 2))
    match order:
        case "down":
            tsns.reverse()
        case "odd, then even":
            tsns = tsns[1::2] + tsns[::2]
        case "shuffled":
            random.Random(5).shuffle(tsns)
    reassembly = Reassembly(1 << 20)
    flags = BEGINNING if order == "all begin" else 0
    # Something under way, so that none of them is the one that it goes on with.
    reassembly.add(Fragment(count + 10, BEGINNING, 2, 0, 51, b"x"))
    fragments = [Fragment(tsn, flags, 1, 0, 51, b"x") for tsn in tsns]
    for fragment in fragments:
        assert steps(lambda fragment=fragment: reassembly.add(fragment), limit=60)


@needs_lines
def test_a_skip_costs_what_it_removes():
    reassembly = Reassembly(1 << 20)
    for tsn in range(100, 10_000):
        reassembly.add(middle(tsn))
    for ssn in range(1, 5_000):
        reassembly.add(Fragment(20_000 + ssn, BEGINNING | ENDING, 1, ssn + 1, 51, b"x"))
    assert steps(lambda: reassembly.skip(50, [(1, 0)] * 100), limit=3_000)
    assert reassembly.size == 9_900 + 4_999
    reassembly.skip(100, [(1, 4_000)])
    assert [len(reassembly.ready), reassembly.size] == [4_999, 0]


def test_a_stream_that_is_only_named_is_remembered_by_a_number():
    reassembly = Reassembly(LIMIT)
    tracemalloc.start()
    try:
        reassembly.skip(1, [(stream_id, 7) for stream_id in range(65_536)])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # FORWARD TSN names a stream with four bytes.
    assert kept < 65_536 * 120
    assert len(reassembly.stream_ids()) == 65_536
