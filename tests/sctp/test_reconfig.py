"""flyx/sctp/reconfig.py: stream reset of RFC 6525."""

import pytest

from flyx.errors import RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.chunks import IncomingReset, OutgoingReset, Reconfig, ReconfigResponse, ReconfigResult
from flyx.sctp.reconfig import MAX_STREAMS_PER_REQUEST, MAX_WAITING_REQUESTS, StreamResets
from flyx.sctp.send_queue import OutgoingMessage, SendQueue
from flyx.sctp.timers import Timer, Timers
from tests.compiled import needs_lines
from tests.fuzz.work import steps

TOP = (1 << 32) - 1


class Side:
    """A StreamResets with what it needs."""

    def __init__(self, *, supported=True, max_retries=3, ours=TOP, peers=100):
        self.queue, self.timers = SendQueue(), Timers()
        self.resets = StreamResets(
            ours,
            peers,
            queue=self.queue,
            timers=self.timers,
            incoming_streams=lambda: [3, 4],
            supported=supported,
            max_retries=max_retries,
        )

    def sent(self, now=0.0, last_tsn=50):
        """The parameters that leave."""
        return [
            parameter
            for chunk in self.resets.chunks_to_send(now, last_tsn, 1.0)
            for parameter in parse(chunk).parameters
        ]

    def take(self, *parameters, cumulative=1000, unknown=()):
        self.resets.receive(Reconfig(parameters, unknown), cumulative)

    def push(self, stream_id):
        self.queue.push(
            OutgoingMessage(stream_id, 51, b"x", unordered=False, max_retransmits=None, expires_at=None)
        )

    def drain(self):
        order = []
        while (message := self.queue.peek(100, 0.0)) is not None:
            order.append((message.stream_id, message.ssn))
            self.queue.take(1)
        return order


def parse(chunk):
    return chunks.parse_reconfig_untrusted(memoryview(chunk)[4 : int.from_bytes(chunk[2:4], "big")])


def test_a_reset_waits_until_everything_of_its_stream_has_left():
    side = Side()
    side.push(1)
    side.resets.want([1, 2, 2])
    assert side.sent() == [OutgoingReset(TOP, 99, 50, (2,))]
    side.take(ReconfigResponse(TOP, ReconfigResult.PERFORMED))
    assert side.resets.outgoing_done == [2]
    assert side.sent() == []
    side.drain()
    assert side.sent(last_tsn=TOP + 5) == [OutgoingReset(0, 99, 4, (1,))]


def test_what_is_queued_meanwhile_waits_for_the_answer_and_begins_with_ssn_0():
    side = Side()
    side.push(1)
    side.drain()
    side.resets.want([1])
    side.sent()
    side.push(1)
    assert side.drain() == []
    side.take(ReconfigResponse(TOP, ReconfigResult.PERFORMED))
    assert side.drain() == [(1, 0)]


def test_a_denied_reset_keeps_the_numbers():
    side = Side()
    side.push(1)
    side.drain()
    side.resets.want([1])
    side.sent()
    side.push(1)
    side.take(ReconfigResponse(TOP, ReconfigResult.DENIED))
    assert side.resets.outgoing_done == [1]
    assert side.drain() == [(1, 1)]


def test_a_request_is_repeated_until_it_is_answered_and_then_given_up():
    side = Side()
    side.resets.want([1])
    (request,) = side.sent()
    now = side.timers.next_deadline()
    for _ in range(3):
        assert side.timers.due(now) == [Timer.RECONFIG]
        (chunk,) = side.resets.handle_timeout(now, 1.0)
        assert parse(chunk).parameters == [request]
        now = side.timers.next_deadline()
    side.timers.due(now)
    with pytest.raises(RemoteProtocolError):
        side.resets.handle_timeout(now, 1.0)


@pytest.mark.parametrize("result", [ReconfigResult.IN_PROGRESS, ReconfigResult.REQUEST_IN_PROGRESS])
def test_in_progress_goes_on_asking(result):
    side = Side()
    side.resets.want([1])
    side.sent()
    for _ in range(20):
        side.take(ReconfigResponse(TOP, result))
        assert side.resets.handle_timeout(0.0, 1.0)
    assert side.resets.outgoing_done == []


def test_answers_to_other_requests_change_nothing():
    side = Side()
    side.take(ReconfigResponse(TOP, 1))
    side.resets.want([1])
    side.sent()
    side.take(ReconfigResponse(5, 1))
    assert side.resets.pending is not None
    side.take(ReconfigResponse(TOP, 1), ReconfigResponse(TOP, 1))
    assert side.resets.outgoing_done == [1]
    assert not side.timers.running(Timer.RECONFIG)


def test_a_peer_that_knows_no_resets_is_not_asked():
    side = Side(supported=False)
    side.resets.want([1])
    assert side.sent() == []
    assert side.resets.outgoing_done == [1]
    assert side.timers.next_deadline() is None


def test_many_streams_take_several_requests():
    side = Side()
    side.resets.want(range(MAX_STREAMS_PER_REQUEST + 1))
    (first,) = side.sent()
    assert len(first.streams) == MAX_STREAMS_PER_REQUEST
    side.take(ReconfigResponse(first.request, 1))
    (second,) = side.sent()
    assert second.streams == (MAX_STREAMS_PER_REQUEST,)


def test_the_peers_reset_is_carried_out_once_and_answered_every_time():
    side = Side()
    request = OutgoingReset(100, 0, 900, (7,))
    for _ in range(3):
        side.take(request)
    assert side.resets.incoming_done == [7]
    assert side.sent() == [ReconfigResponse(100, ReconfigResult.PERFORMED)] * 3


def test_the_peers_reset_waits_for_data_that_is_missing():
    side = Side()
    request = OutgoingReset(100, 0, 1005, (7,))
    side.take(request, cumulative=1000)
    side.take(request, cumulative=1001)
    assert side.sent() == [ReconfigResponse(100, ReconfigResult.IN_PROGRESS)] * 2
    side.resets.data_arrived(1004)
    assert side.resets.incoming_done == []
    side.resets.data_arrived(1005)
    side.resets.data_arrived(1006)
    assert side.resets.incoming_done == [7]
    assert side.sent() == [ReconfigResponse(100, ReconfigResult.PERFORMED)]
    side.take(request, cumulative=1006)
    assert side.resets.incoming_done == [7]


def test_a_reset_of_no_named_stream_is_one_of_all_in_use():
    side = Side()
    side.take(OutgoingReset(100, 0, 900, ()))
    assert side.resets.incoming_done == [3, 4]


def test_old_requests_are_refused():
    side = Side()
    side.take(OutgoingReset(50, 0, 900, (7,)), IncomingReset(99, (7,)))
    assert side.resets.incoming_done == []
    assert [p.result for p in side.sent()] == [ReconfigResult.BAD_SEQUENCE_NUMBER] * 2


def test_requests_that_do_not_wait_for_answers_are_all_carried_out():
    """pion sends them so, and takes any answer for the end of a request; RFC 6525 §5.1.1 forbids it."""
    side = Side()
    first, second, third = (OutgoingReset(100 + n, 0, 1005 - n, (n,)) for n in range(3))
    side.take(first, second, third, cumulative=1000)
    assert side.sent() == [ReconfigResponse(100 + n, ReconfigResult.IN_PROGRESS) for n in range(3)]
    side.resets.data_arrived(1004)
    assert side.resets.incoming_done == [1, 2]
    side.take(second, first, cumulative=1004)
    side.resets.data_arrived(1005)
    assert side.resets.incoming_done == [1, 2, 0]
    side.take(first, second, third, cumulative=1005)
    assert side.resets.incoming_done == [1, 2, 0]
    assert [(p.response, p.result) for p in side.sent()] == [
        (101, ReconfigResult.PERFORMED),
        (102, ReconfigResult.PERFORMED),
        (101, ReconfigResult.PERFORMED),
        (100, ReconfigResult.IN_PROGRESS),
        *((100 + n, ReconfigResult.PERFORMED) for n in (0, 0, 1, 2)),
    ]


def test_a_request_that_overtook_another_is_taken_when_it_comes_again():
    side = Side()
    first, second = (OutgoingReset(100 + n, 0, 900, (n,)) for n in range(2))
    side.take(second)
    assert side.sent() == []
    side.take(first, second)
    assert side.resets.incoming_done == [0, 1]


def test_requests_that_wait_are_bounded_in_number():
    side = Side()
    for number in range(MAX_WAITING_REQUESTS + 10):
        side.take(OutgoingReset(100 + number, 0, 1001 + number, (number,)))
    assert len(side.sent()) == MAX_WAITING_REQUESTS
    side.resets.data_arrived(1001)
    side.take(OutgoingReset(100 + MAX_WAITING_REQUESTS, 0, 900, (9,)))
    assert side.resets.incoming_done == [0, 9]


def test_an_incoming_reset_request_resets_our_streams_once():
    side = Side()
    side.push(5)
    side.drain()
    for _ in range(2):
        side.take(IncomingReset(100, (5,)))
    sent = side.sent()
    assert [p for p in sent if isinstance(p, OutgoingReset)] == [OutgoingReset(TOP, 100, 50, (5,))]
    side.take(ReconfigResponse(TOP, 1))
    side.take(IncomingReset(100, (5,)))
    assert [p for p in side.sent() if isinstance(p, OutgoingReset)] == []


def test_an_incoming_reset_of_no_named_stream_means_all_of_ours():
    side = Side()
    side.push(8)
    side.drain()
    side.take(IncomingReset(100, ()))
    assert OutgoingReset(TOP, 100, 50, (8,)) in side.sent()


def test_what_is_unknown_is_denied():
    side = Side()
    side.take(unknown=[100])
    side.take(unknown=[100])
    assert side.sent() == [ReconfigResponse(100, ReconfigResult.DENIED)] * 2


@needs_lines
def test_an_incoming_reset_of_streams_that_nothing_was_sent_on_costs_nothing():
    side = Side()
    side.take(IncomingReset(100, tuple(range(60_000))))
    assert steps(side.sent, limit=100)
    assert side.resets.pending is None


def test_resets_of_all_streams_that_come_due_together_reset_each_once():
    side = Side()
    for number in range(MAX_WAITING_REQUESTS):
        side.take(OutgoingReset(100 + number, 0, 1001, ()))
    side.resets.data_arrived(1001)
    assert side.resets.incoming_done == [3, 4]
