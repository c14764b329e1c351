"""flyx/sctp/send_queue.py."""

from hypothesis import given
from hypothesis import strategies as st

from flyx.sctp.packet import padded
from flyx.sctp.send_queue import OutgoingMessage, SendQueue


def outgoing(stream_id=1, size=10, *, unordered=False, expires_at=None, fill=b"x"):
    return OutgoingMessage(
        stream_id, 51, fill * size, unordered=unordered, max_retransmits=None, expires_at=expires_at
    )


def drain(queue, largest=100, now=0.0):
    """The messages in the order in which they are sent."""
    order = []
    while (message := queue.peek(largest, now)) is not None:
        order.append(message)
        queue.take(message.fragment_count - queue.next_fragment)
    return order


@given(size=st.integers(1, 300_000), largest=st.integers(16, 20_000))
def test_fragments_cover_the_message_and_fit(size, largest):
    message = outgoing(size=size)
    message.cut(largest)
    spans = [message.span(index, 1) for index in range(message.fragment_count)]
    assert sum(spans) == size
    assert min(spans) > 0
    assert all(padded(span) <= largest for span in spans)
    assert len(set(spans[:-1])) <= 1
    assert spans[-1] <= spans[0]
    if len(spans) > 1:
        assert message.fragment_size % 4 == 0
    assert message.span(0, message.fragment_count) == size


def test_streams_take_turns_message_by_message():
    queue = SendQueue()
    for stream_id in (1, 1, 1, 2, 3, 3):
        queue.push(outgoing(stream_id))
    assert [m.stream_id for m in drain(queue)] == [1, 2, 3, 1, 3, 1]


def test_ssns_count_ordered_messages_of_each_stream_and_wrap():
    queue = SendQueue()
    for _ in range(65_537):
        queue.push(outgoing(1, 1))
    queue.push(outgoing(1, 1, unordered=True))
    queue.push(outgoing(1, 1))
    numbers = [m.ssn for m in drain(queue) if not m.unordered]
    assert numbers == [*range(65_536), 0, 1]


def test_size_is_what_has_not_been_sent():
    queue = SendQueue()
    queue.push(outgoing(1, 250))
    queue.push(outgoing(2, 7))
    assert queue.size == 257
    queue.peek(100, 0.0)
    queue.take(1)
    assert queue.size == 257 - queue.current.fragment_size
    queue.drop_current()
    assert queue.size == 7
    drain(queue)
    assert queue.size == 0
    assert not queue.sendable


def test_what_runs_out_of_time_before_it_is_begun_is_set_aside_without_an_ssn():
    queue = SendQueue()
    late, good = outgoing(1, 5, expires_at=1.0), outgoing(1, 6, expires_at=9.0)
    queue.push(late)
    queue.push(good)
    assert drain(queue, now=1.0) == [good]
    assert queue.expired == [late]
    assert good.ssn == 0
    assert queue.size == 0


def test_waits_tells_of_the_current_message_too():
    queue = SendQueue()
    assert not queue.waits(1)
    queue.push(outgoing(1, 250))
    assert queue.waits(1)
    queue.peek(100, 0.0)
    assert queue.waits(1)
    drain(queue)
    assert not queue.waits(1)


def test_a_stream_that_is_held_goes_on_with_ssn_0_after_its_reset():
    queue = SendQueue()
    queue.push(outgoing(1))
    drain(queue)
    queue.hold(1)
    queue.push(outgoing(1, fill=b"n"))
    queue.push(outgoing(2))
    assert [m.stream_id for m in drain(queue)] == [2]
    assert queue.size
    assert not queue.sendable
    queue.reset(1)
    (message,) = drain(queue)
    assert (message.stream_id, message.ssn, message.data[0:1]) == (1, 0, b"n")
    assert queue.size == 0


def test_a_stream_whose_reset_was_denied_goes_on_with_its_numbers():
    queue = SendQueue()
    queue.push(outgoing(1))
    drain(queue)
    queue.hold(1)
    queue.push(outgoing(1))
    queue.release(1)
    assert [m.ssn for m in drain(queue)] == [1]
    queue.push(outgoing(1))
    assert [m.ssn for m in drain(queue)] == [2]
