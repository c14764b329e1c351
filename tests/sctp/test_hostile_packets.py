"""Random bytes, damaged packets and well-formed nonsense into associations: nothing raises, nothing stalls.

Behind DTLS only the peer itself can send any of this. Without zero checksums, damage is dropped and what is
delivered is what was sent.
"""

import random
import struct

import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flyx.sctp.association import State
from flyx.sctp.config import Config
from flyx.sctp.packet import serialize_chunk, serialize_packet, with_checksum
from tests.sctp.link import Conditions, Link
from tests.thoroughness import share

CONFIG = Config(max_packet_size=1163, receive_window=100_000, max_message_size=50_000)
TYPES = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 130, 132, 192, 0x3F, 0x7F, 0xBF, 0xFF])


def established(config=CONFIG, seed=0):
    """A link, the packets that crossed it, and the tag of its right side."""
    link = Link(Conditions(delay=0.01), config=config, seed=seed)
    packets = []
    link.filter = lambda endpoint, packet: endpoint is link.right or packets.append(packet) is None
    link.connect()
    for number in range(4):
        link.left.association.send(number, 51, bytes([number]) * 3000)
    link.left.association.send(5, 51, b"p" * 3000, max_retransmits=0)
    link.left.association.reset_streams([3])
    link.run(until=link.now + 0.2)
    tag = int.from_bytes(next(p for p in packets if p[4:8] != bytes(4))[4:8], "big")
    return link, packets, tag


def bounded(link):
    """Drain and check what must hold of any association, whatever it was fed."""
    association = link.right.association
    for _ in range(100):
        if len(association.packets_to_send(link.now)) < 256:
            break
    else:
        raise AssertionError("it never stops sending")
    association.take_messages()
    association.take_departed()
    while association.next_event():
        pass
    if association._reception and association.state is not State.CLOSED:
        assert association._reception._reassembly.size <= CONFIG.receive_window + CONFIG.max_message_size
    if association.state is State.CLOSED:
        assert association.next_timeout() is None


class HostilePeer(RuleBasedStateMachine):
    """The left side sends what it likes, with the right tag and checksum."""

    @initialize(seed=st.integers(0, 3))
    def begin(self, seed):
        self.link, self.packets, self.tag = established(seed=seed)
        transmission = self.link.left.association.transmission
        self.next_tsn = transmission.outstanding.next_tsn

    def give(self, *packets):
        self.link.right.association.receive_packets(list(packets), self.link.now)
        bounded(self.link)

    def packet(self, *chunks, checksum=crc32c):
        return serialize_packet(5000, 5000, self.tag, chunks, checksum)

    @rule(garbage=st.binary(max_size=80))
    def random_bytes(self, garbage):
        self.give(garbage, self.packet() + garbage)

    @rule(kind=TYPES, flags=st.integers(0, 15), value=st.binary(max_size=40))
    def a_chunk_of_garbage(self, kind, flags, value):
        self.give(self.packet(serialize_chunk(kind, flags, value)))

    @rule(
        chunks=st.lists(
            st.tuples(
                st.integers(-3, 12),
                st.integers(0, 15),
                st.integers(0, 6),
                st.integers(0, 9),
                st.integers(1, 999),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def data(self, chunks):
        packets = []
        for offset, flags, stream_id, ssn, size in chunks:
            header = struct.pack("!IHHI", (self.next_tsn + offset) % (1 << 32), stream_id, ssn, 51)
            packets.append(self.packet(serialize_chunk(0, flags, header + bytes(size)), checksum=None))
        self.give(*packets)
        if self.link.right.association._reception:
            self.next_tsn = self.link.right.association._reception.cumulative + 1

    @rule(
        kind=st.sampled_from([3, 192]),
        offset=st.integers(-5, 5),
        rest=st.lists(st.integers(0, 9), max_size=8),
    )
    def acknowledgements_and_skips(self, kind, offset, rest):
        base = self.next_tsn
        if kind == 3:
            base = self.link.right.association.transmission.outstanding.next_tsn - 1
        tsn = struct.pack("!I", (base + offset) % (1 << 32))
        value = tsn + struct.pack(f"!{len(rest) // 2 * 2}H", *rest[: len(rest) // 2 * 2])
        if kind == 3:
            pairs = sorted(rest)[: len(rest) // 2 * 2]
            value = tsn + struct.pack(f"!IHH{len(pairs)}H", sum(rest) * 500, len(pairs) // 2, 0, *pairs)
        self.give(self.packet(serialize_chunk(kind, 0, value)))

    @rule(kind=st.sampled_from([13, 14, 16, 17]), numbers=st.lists(st.integers(-2, 3), max_size=5))
    def resets(self, kind, numbers):
        value = b"".join(struct.pack("!I", (self.next_tsn + n) % (1 << 32)) for n in numbers)
        parameter = struct.pack("!HH", kind, 4 + len(value)) + value
        self.give(self.packet(serialize_chunk(130, 0, parameter)))

    @rule(data=st.data())
    def a_real_packet_damaged(self, data):
        packet = bytearray(data.draw(st.sampled_from(self.packets)))
        for _ in range(data.draw(st.integers(0, 3))):
            packet[data.draw(st.integers(12, len(packet) - 1))] = data.draw(st.integers(0, 255))
        packet[8:12] = bytes(4)
        if data.draw(st.booleans()):
            packet = bytearray(with_checksum(bytes(packet), crc32c))
        self.give(bytes(packet[: data.draw(st.integers(0, len(packet)))]), bytes(packet))

    @rule(size=st.integers(1, 9000), limit=st.sampled_from([None, 0, 1]), reset=st.booleans())
    def our_side_sends(self, size, limit, reset):
        self.link.right.association.send(1, 51, bytes(size), max_retransmits=limit)
        if reset:
            self.link.right.association.reset_streams([1])
        bounded(self.link)

    @rule(seconds=st.sampled_from([0.001, 0.1, 1.5]))
    def time_passes(self, seconds):
        deadline = self.link.right.association.next_timeout()
        self.link.now += seconds
        if deadline is not None and deadline <= self.link.now:
            self.link.right.association.handle_timeout(self.link.now)
            bounded(self.link)

    @invariant()
    def what_is_outstanding_adds_up(self):
        transmission = getattr(self, "link", None) and self.link.right.association.transmission
        if transmission:
            outstanding = transmission.outstanding
            assert outstanding.in_flight >= 0
            assert outstanding.lost_waiting >= 0
            assert (
                sum(run.count for run in outstanding.runs)
                == outstanding.next_tsn - 1 - outstanding.cumulative
            )


TestHostilePeer = HostilePeer.TestCase
TestHostilePeer.settings = settings(max_examples=share(40), stateful_step_count=25)


@settings(max_examples=share(40))
@given(packets=st.lists(st.binary(max_size=100), max_size=20), start=st.booleans())
def test_garbage_before_set_up_changes_nothing(packets, start):
    link = Link(Conditions(delay=0.01))
    if start:
        link.connect()
    for garbage in packets:
        link.right.association.receive_packets([garbage], link.now)
    if not start:
        link.connect()
    link.left.association.send(1, 51, b"hello")
    link.run(until=link.now + 3)
    assert [m.data for m in link.right.messages] == [b"hello"]


@pytest.mark.parametrize("seed", range(share(5)))
def test_damaged_packets_among_good_ones_change_nothing_where_checksums_are_on(seed):
    rng = random.Random(seed)
    config = Config(max_packet_size=1163, zero_checksum=False)
    link = Link(Conditions(delay=0.01, loss=0.02), config=config, seed=seed)
    send = link._send

    def also_damaged(endpoint, other, packet):
        send(endpoint, other, packet)
        damaged = bytearray(packet)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= rng.randint(1, 255)
        cut = bytes(damaged[: rng.randint(0, len(damaged))])
        for bad in (bytes(damaged), cut, rng.randbytes(rng.randrange(60))):
            if bad != packet:
                send(endpoint, other, bad)

    link._send = also_damaged
    link.connect()
    data = [rng.randbytes(rng.randrange(1, 30_000)) for _ in range(30)]
    for message in data:
        link.left.association.send(1, 51, message)
    link.run(until=link.now + 60, done=lambda: len(link.right.messages) == 30)
    assert [m.data for m in link.right.messages] == data
