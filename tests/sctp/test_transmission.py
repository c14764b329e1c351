"""flyx/sctp/transmission.py."""

import random

from hypothesis import given
from hypothesis import strategies as st

from flyx.sctp.chunks import Sack, parse_forward_tsn_untrusted
from flyx.sctp.congestion import make_controller
from flyx.sctp.data_chunk import DATA_CHUNK_HEADER
from flyx.sctp.packet import split_chunks_untrusted
from flyx.sctp.path_mtu import PathMtu
from flyx.sctp.send_queue import OutgoingMessage, SendQueue
from flyx.sctp.timers import Timers
from flyx.sctp.transmission import Peer, Transmission, _Builder

TSN = 100


def test_forward_tsn_follows_once_what_is_before_an_abandoned_message_is_acknowledged():
    queue = SendQueue()
    peer = Peer(5000, 5000, 1, 3000, None)
    controller = make_controller("cubic", 1160, lambda: 0.5)
    transmission = Transmission(peer, queue, TSN, controller, Timers(), PathMtu(37, 1160, 1160, 0))
    transmission.partial_reliability = True
    queue.push(OutgoingMessage(2, 53, b"x", unordered=False, max_retransmits=None, expires_at=None))
    transmission.packets(0.0)
    queue.push(OutgoingMessage(1, 53, bytes(9000), unordered=False, max_retransmits=None, expires_at=1.0))
    transmission.packets(0.0)
    last = transmission.outstanding.next_tsn - 1
    assert TSN < last < TSN + 9
    # It expires: its rest gets a TSN of its own. What is reliable and before it may still be on its way.
    assert transmission.forward_tsn(1.5) is None
    assert transmission.outstanding.next_tsn == last + 2
    transmission.receive_sack(Sack(last, 1 << 20), 1.6)
    forward = transmission.forward_tsn(1.6)
    assert forward is not None
    told = parse_forward_tsn_untrusted(memoryview(forward)[4:])
    assert (told.new_cumulative_tsn, list(told.streams)) == (last + 1, [(1, 0)])
    transmission.receive_sack(Sack(last + 1, 1 << 20), 1.7)
    assert transmission.forward_tsn(1.7) is None
    assert not transmission.outstanding.abandoned_waiting


@given(
    largest=st.integers(32, 300),
    size=st.integers(1, 3000),
    first=st.integers(0, 20),
    count=st.integers(1, 20),
    max_packet_size=st.sampled_from([328, 700, 5000]),
)
def test_fragments_leave_whole_and_in_order_alone_or_together(largest, size, first, count, max_packet_size):
    message = OutgoingMessage(
        7, 53, random.Random(size).randbytes(size), unordered=True, max_retransmits=None, expires_at=None
    )
    message.cut(largest)
    first = min(first, message.fragment_count - 1)
    count = min(count, message.fragment_count - first)
    tsn = (1 << 32) - 2
    builder = _Builder(Peer(5000, 5000, 9, 3000, None), max_packet_size)
    builder.add(message, first, count, tsn)
    packets = builder.finish()
    assert all(len(packet) <= max_packet_size for packet in packets)
    sent = [chunk for packet in packets for chunk in split_chunks_untrusted(packet)]
    for index, (kind, flags, value) in enumerate(sent, first):
        part = message.data[index * message.fragment_size :][: message.fragment_size]
        ends = 2 * (index == 0) + (index == message.fragment_count - 1)
        fields = (0, 4 + ends, 16 + len(part), (tsn + index - first) % (1 << 32), 7, 0, 53)
        header = bytes([kind, flags]) + (len(value) + 4).to_bytes(2, "big") + bytes(value[:12])
        assert DATA_CHUNK_HEADER.unpack(header) == fields
        assert value[12:] == part
    assert len(sent) == count
