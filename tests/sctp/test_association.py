"""flyx/sctp/association.py: its life, its chunks, its limits. Whole transfers are in test_transfer.py."""

import random
import struct

import pytest
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import LocalProtocolError, RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.association import Association, Closed, Established, State, StreamsReset
from flyx.sctp.chunks import ChunkType, ForwardTsn, Init, OutgoingReset, Sack, serialize_init
from flyx.sctp.config import Config
from flyx.sctp.congestion import make_controller
from flyx.sctp.initiation import draw_init, parse_init_chunk_untrusted
from flyx.sctp.packet import (
    COMMON_HEADER,
    checksum_ok,
    has_zero_checksum,
    serialize_chunk,
    serialize_packet,
    split_chunks_untrusted,
)
from tests.sctp.link import Conditions, Link

TAG, TSN = 0x11111111, 1000


def kinds(packet):
    return [kind for kind, _, _ in split_chunks_untrusted(packet)]


def values(packets, kind):
    """The values of all chunks of a type."""
    return [bytes(value) for packet in packets for k, _, value in split_chunks_untrusted(packet) if k == kind]


def connected(**arguments):
    link = Link(Conditions(delay=0.01), **arguments)
    link.connect()
    link.run(until=link.now + 3)
    assert link.left.association.state is link.right.association.state is State.ESTABLISHED
    return link


def closed(endpoint):
    """The only Closed event, the last of all."""
    ends = [event for event in endpoint.events if isinstance(event, Closed)]
    assert len(ends) == 1
    assert endpoint.events[-1] is ends[0]
    return ends[0]


class ByHand:
    """One association, and a peer that is the test: its tag is TAG, its first TSN is TSN."""

    def __init__(self, config=None, *, extensions=frozenset({130, 192}), a_rwnd=1 << 20, init=None):
        self.config = config or Config(max_packet_size=1163)
        self.link = Link(config=self.config)
        self.association = self.link.left.association
        self.now = 100.0
        self.association.connect(self.now)
        (packet,) = self.drain()
        ((_, _, value),) = split_chunks_untrusted(packet)
        self.init = chunks.parse_init_untrusted(value)
        self.tag, self.tsn = self.init.initiate_tag, self.init.initial_tsn
        self.peer = init or Init(TAG, a_rwnd, 100, 100, TSN, b"cookie", True, True, extensions)
        self.next_tsn = TSN
        self.events = []

    def establish(self):
        self.give(chunks.serialize_init(self.peer))
        assert kinds(self.drain()[0]) == [ChunkType.COOKIE_ECHO]
        self.give(serialize_chunk(ChunkType.COOKIE_ACK, 0, b""))
        assert self.association.state is State.ESTABLISHED
        self.drain()
        return self

    def drain(self):
        sent = []
        while packets := self.association.packets_to_send(self.now):
            sent += packets
        return sent

    def give(self, *serialized, tag=None, checksum=crc32c):
        packet = serialize_packet(5000, 5000, self.tag if tag is None else tag, serialized, checksum)
        self.association.receive_packets([packet], self.now)

    def data(self, data=b"x", *, tsn=None, flags=3, stream_id=1, ssn=0, ppid=51):
        tsn = self.next_tsn if tsn is None else tsn
        self.next_tsn = tsn + 1
        return serialize_chunk(0, flags, struct.pack("!IHHI", tsn % (1 << 32), stream_id, ssn, ppid) + data)

    def sack(self, count, *gaps, a_rwnd=1 << 20):
        """SACK of our first `count` TSNs."""
        return chunks.serialize_sack(Sack((self.tsn + count - 1) % (1 << 32), a_rwnd, gaps))

    def at(self, now):
        self.now = now
        self.association.handle_timeout(now)
        return self.drain()

    def next(self):
        return self.at(self.association.next_timeout())

    def closed(self):
        event = None
        while (following := self.association.next_event()) is not None:
            event = following
        return event if isinstance(event, Closed) else None


# Set-up.


def test_rfc_9260_section_5_1_both_ends_are_established_after_two_round_trips():
    link = Link(Conditions(delay=0.1))
    link.left.association.connect(link.now)
    link.run(until=link.now + 5, done=lambda: len(link.left.events) + len(link.right.events) == 2)
    assert link.now == pytest.approx(100.4)
    assert link.left.events == link.right.events == [Established(65535, 65535)]


def test_inits_that_cross_make_one_association():
    link = connected()
    assert len(link.left.events) == len(link.right.events) == 1


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("drops", [{n} for n in range(9)] + [{0, 1}, {2, 3}, {1, 4}, {0, 2, 4, 6, 8}])
def test_set_up_survives_the_loss_of_any_packet(both, drops):
    link = Link(Conditions(delay=0.1, jitter=0.02), seed=len(drops))
    counter = iter(range(1000))
    link.filter = lambda endpoint, packet: next(counter) not in drops
    link.left.association.connect(link.now)
    if both:
        link.right.association.connect(link.now)
    for endpoint, fill in ((link.left, b"l"), (link.right, b"r")):
        endpoint.association.send(1, 51, fill * 3000)
    link.run(until=link.now + 90, done=lambda: link.left.messages and link.right.messages)
    assert [m.data for m in link.left.messages] == [b"r" * 3000]
    assert [m.data for m in link.right.messages] == [b"l" * 3000]


def test_t1_gives_up_after_its_retries_in_bounded_time():
    peer = ByHand(Config(init_retries=3))
    waits, before = [], peer.now
    while peer.association.next_timeout() is not None:
        sent = peer.next()
        waits.append(peer.now - before)
        before = peer.now
        assert [kinds(packet) for packet in sent] in ([[ChunkType.INIT]], [])
    assert waits == [1, 2, 4, 8]
    assert isinstance(peer.closed().error, RemoteProtocolError)


def test_a_cookie_ack_without_a_checksum_is_taken_once_we_have_offered_it():
    peer = ByHand()
    peer.give(chunks.serialize_init(peer.peer))
    peer.drain()
    peer.give(serialize_chunk(ChunkType.COOKIE_ACK, 0, b""), checksum=None)
    assert peer.association.state is State.ESTABLISHED


def test_a_peer_whose_own_init_bears_another_tag_than_its_init_ack_is_answered():
    """usrsctp that is asked before it asks: RFC 9260 §5.2.4 action C discards our COOKIE ECHO then."""
    link = Link(config=Config(max_packet_size=1163))
    association = link.left.association
    association.connect(100.0)
    (ours,) = association.packets_to_send(100.0)
    (value,) = values([ours], ChunkType.INIT)
    tag = struct.unpack_from("!I", value)[0]

    def from_peer(chunk, verification_tag):
        packet = serialize_packet(5000, 5000, verification_tag, [chunk], crc32c)
        association.receive_packets([packet], 100.0)
        return association.packets_to_send(100.0)

    stateless = chunks.serialize_init(Init(TAG + 1, 1 << 20, 10, 10, TSN + 1, cookie=b"late"))
    assert [kinds(packet) for packet in from_peer(stateless, tag)] == [[ChunkType.COOKIE_ECHO]]
    (answer,) = from_peer(chunks.serialize_init(Init(TAG, 1 << 20, 10, 10, TSN)), 0)
    assert COMMON_HEADER.unpack_from(answer)[2] == TAG
    (body,) = values([answer], ChunkType.INIT_ACK)
    cookie = chunks.parse_init_untrusted(memoryview(body)).cookie
    packets = from_peer(serialize_chunk(ChunkType.COOKIE_ECHO, 0, cookie), tag)
    assert association.state is State.ESTABLISHED
    assert {COMMON_HEADER.unpack_from(packet)[2] for packet in packets} == {TAG}


def test_init_and_cookie_echo_bear_checksums_and_data_does_not_if_both_agree():
    for other, zero in ((True, True), (False, False)):
        link = Link(config=Config(), right_config=Config(zero_checksum=other))
        sent = []
        link.filter = lambda _, packet, sent=sent: sent.append(packet) is None
        link.connect()
        link.left.association.send(1, 51, b"a" * 5000)
        link.right.association.send(1, 51, b"b" * 5000)
        link.run(until=link.now + 3)
        for packet in sent:
            assert has_zero_checksum(packet) is (zero and kinds(packet) == [ChunkType.DATA])
            assert has_zero_checksum(packet) or checksum_ok(packet, crc32c)
        assert len(link.left.messages) == len(link.right.messages) == 1


def test_packets_without_a_checksum_are_dropped_if_we_did_not_offer_it():
    peer = ByHand(Config(zero_checksum=False)).establish()
    peer.give(peer.data(), checksum=None)
    assert peer.association.take_messages() == []
    peer.give(peer.data(tsn=TSN))
    assert len(peer.association.take_messages()) == 1


def test_a_cookie_echo_twice_is_acknowledged_twice_and_establishes_once():
    link = Link()
    link.filter = lambda endpoint, packet: (
        not (kinds(packet) == [ChunkType.COOKIE_ACK] and endpoint is link.right and link.now < 102.5)
    )
    link.left.association.connect(link.now)
    link.run(until=link.now + 8)
    assert link.right.events == link.left.events == [Established(65535, 65535)]


def test_a_flood_of_cookies_is_answered_in_one_packet():
    peer = ByHand()
    peer.give(chunks.serialize_init(Init(TAG, 1 << 20, 1, 1, TSN)), tag=0)
    told = chunks.parse_init_untrusted(memoryview(peer.drain()[0])[16:])
    echo = serialize_chunk(ChunkType.COOKIE_ECHO, 0, told.cookie or b"")
    peer.give(echo)
    peer.drain()
    peer.give(*[echo] * 40)
    assert [kinds(packet) for packet in peer.drain()] == [[ChunkType.COOKIE_ACK] * 40]


def test_data_stands_for_a_cookie_ack_that_is_lost():
    link = Link(Conditions(delay=0.01))
    link.filter = lambda _, packet: kinds(packet) != [ChunkType.COOKIE_ACK]
    link.left.association.connect(link.now)
    link.right.association.send(1, 51, bytes(3000))
    link.run(until=link.now + 0.5)
    assert len(link.left.messages) == 1
    assert link.left.events == [Established(65535, 65535)]


@pytest.mark.parametrize("cookie", [b"", b"stale", bytes(16)])
def test_a_foreign_cookie_is_ignored(cookie):
    peer = ByHand()
    peer.give(chunks.serialize_init(Init(TAG, 1 << 20, 1, 1, TSN)), tag=0)
    assert kinds(peer.drain()[0]) == [ChunkType.INIT_ACK]
    peer.give(serialize_chunk(ChunkType.COOKIE_ECHO, 0, cookie))
    assert peer.drain() == []
    assert peer.association.state is State.COOKIE_WAIT


def test_a_restart_of_the_peer_is_ignored():
    peer = ByHand().establish()
    peer.give(chunks.serialize_init(Init(TAG + 1, 1 << 20, 1, 1, 77)), tag=0)
    assert peer.drain() == []
    peer.give(peer.data())
    assert len(peer.association.take_messages()) == 1


def test_an_init_ack_without_a_cookie_is_ignored():
    peer = ByHand()
    peer.give(serialize_chunk(ChunkType.INIT_ACK, 0, struct.pack("!IIHHI", 1, 2, 3, 4, 5)))
    assert peer.association.state is State.COOKIE_WAIT


def test_rfc_9260_section_8_5_packets_with_a_wrong_tag_are_dropped():
    peer = ByHand().establish()
    for tag in (0, TAG, peer.tag ^ 1):
        for chunk in (peer.data(tsn=TSN), serialize_chunk(ChunkType.ABORT, 0, b"")):
            peer.give(chunk, tag=tag)
        peer.give(peer.data(tsn=TSN), tag=tag, checksum=None)
    peer.give(chunks.serialize_init(peer.peer))
    assert peer.association.state is State.ESTABLISHED
    assert peer.association.take_messages() == []
    assert peer.drain() == []


def test_rfc_9260_section_8_5_1_abort_with_the_tag_reflected():
    peer = ByHand().establish()
    peer.give(serialize_chunk(ChunkType.ABORT, 1, b""), tag=peer.tag)
    assert peer.association.state is State.ESTABLISHED
    peer.give(serialize_chunk(ChunkType.ABORT, 1, b""), tag=TAG)
    assert isinstance(peer.closed().error, RemoteProtocolError)


def test_connecting_twice_and_empty_messages_are_our_own_mistakes():
    peer = ByHand()
    with pytest.raises(LocalProtocolError):
        peer.association.connect(peer.now)
    with pytest.raises(LocalProtocolError):
        peer.association.send(1, 51, b"")


# Chunks.


@pytest.mark.parametrize("kind", [0x3F, 0x7F, 0xBF, 0xFF])
def test_rfc_9260_section_3_2_unknown_chunks_by_their_high_bits(kind):
    peer = ByHand().establish()
    unknown = serialize_chunk(kind, 7, b"abc")
    peer.give(unknown, peer.data())
    assert bool(peer.association.take_messages()) is bool(kind & 0x80)
    errors = values(peer.drain(), ChunkType.ERROR)
    assert errors == ([struct.pack("!HH", 6, 12) + unknown] if kind & 0x40 else [])


def test_heartbeats_come_back_as_they_were():
    peer = ByHand().establish()
    peer.give(serialize_chunk(ChunkType.HEARTBEAT, 0, bytes.fromhex("0001000a 010203040506")))
    assert values(peer.drain(), ChunkType.HEARTBEAT_ACK) == [bytes.fromhex("0001000a 010203040506")]


@pytest.mark.parametrize(
    "chunk",
    [
        serialize_chunk(0, 3, struct.pack("!IHHI", TSN, 1, 0, 51)),
        serialize_chunk(0, 3, b"short"),
        serialize_chunk(3, 0, b"short"),
        serialize_chunk(192, 0, b""),
        serialize_chunk(130, 0, b"1234567"),
        serialize_chunk(7, 0, b""),
    ],
)
def test_malformed_chunks_abort(chunk):
    peer = ByHand().establish()
    peer.give(chunk)
    assert kinds(peer.drain()[-1]) == [ChunkType.ABORT]
    assert isinstance(peer.closed().error, RemoteProtocolError)


def test_a_sack_of_what_was_not_sent_aborts():
    peer = ByHand().establish()
    peer.give(peer.sack(1))
    assert isinstance(peer.closed().error, RemoteProtocolError)


def test_a_peer_that_reneges_gets_everything_again():
    peer = ByHand().establish()
    data = bytes(range(250)) * 40
    peer.association.send(1, 51, data)
    first = values(peer.drain(), ChunkType.DATA)
    count = len(first)
    peer.give(peer.sack(0, (2, count)))
    peer.now += 0.05
    again = values(peer.drain(), ChunkType.DATA)
    assert again == first[:1]
    peer.give(peer.sack(1))
    # At once, and all that was acknowledged by a gap ack block only.
    assert values(peer.drain(), ChunkType.DATA) == first[1:]
    peer.give(peer.sack(count))
    assert peer.association.state is State.ESTABLISHED
    assert peer.association.next_timeout() is None or not peer.next()


def test_rfc_9260_section_6_2_every_second_packet_is_acknowledged_and_one_alone_soon():
    peer = ByHand().establish()
    peer.give(peer.data(b"1", flags=2))
    assert peer.drain() == []
    peer.give(peer.data(b"2", flags=0))
    assert len(values(peer.drain(), ChunkType.SACK)) == 1
    peer.give(peer.data(b"3", flags=0))
    assert peer.drain() == []
    assert len(values(peer.at(peer.now + peer.config.sack_delay), ChunkType.SACK)) == 1


@pytest.mark.parametrize(("size", "expected"), [(1000, 100), (100, 400)])
def test_sacks_of_fast_data_are_a_millisecond_apart_and_those_of_slow_data_are_not_held_up(size, expected):
    peer = ByHand(Config(max_packet_size=1163, sack_stretch_rate=4e6)).establish()
    start, ssn, sacks = peer.now, 0, []
    while peer.now < start + 0.1:
        # Of the larger ones 8 MB/s, of the smaller ones 0.8.
        peer.now += 0.0005
        sacks += values(peer.at(peer.now), ChunkType.SACK)
        for _ in range(4):
            peer.give(peer.data(bytes(size), ssn=ssn))
            ssn += 1
        sacks += values(peer.drain(), ChunkType.SACK)
    assert len(sacks) == pytest.approx(expected, abs=3)


def sacks_of(peer, packets):
    """What the SACKs tell that these packets get if they come together: all of it in one packet."""
    together = [serialize_packet(5000, 5000, peer.tag, [chunk], crc32c) for chunk in packets]
    peer.association.receive_packets(together, peer.now)
    (packet,) = peer.drain()
    parsed = [chunks.parse_sack_untrusted(memoryview(value)) for value in values([packet], ChunkType.SACK)]
    return [((sack.cumulative_tsn_ack - TSN + 1) % (1 << 32), list(sack.gap_ack_blocks)) for sack in parsed]


def test_packets_that_come_together_are_acknowledged_as_if_each_came_alone():
    """A browser answers each SACK with four packets at most."""
    peer = ByHand().establish()
    data = [peer.data(ssn=number) for number in range(9)]
    assert sacks_of(peer, data[:8]) == [(2, []), (4, []), (6, []), (8, [])]
    assert sacks_of(peer, data[8:]) == [(9, [])]
    # However many they are, the SACKs are few.
    many = [peer.data(ssn=9 + number) for number in range(400)]
    assert sacks_of(peer, many) == [(9 + 25 * count, []) for count in range(1, 17)]


def test_packets_larger_than_a_browser_s_get_one_sack_a_millisecond_however_slowly_they_come():
    """Of several flows that share a processor each is slow, and comes in bursts."""
    peer = ByHand().establish()
    large = bytes(1400)
    for burst in range(3):
        # 0.6 MB/s, each burst in four parts.
        peer.now += 0.02
        parts = [[peer.data(large, ssn=8 * burst + 2 * part + n) for n in range(2)] for part in range(4)]
        if burst:
            assert sacks_of(peer, parts[0]) == [(8 * burst + 2, [])]
            for part in parts[1:]:
                peer.now += 0.0002
                for chunk in part:
                    peer.give(chunk)
                assert peer.drain() == []
            assert values(peer.at(peer.now + 0.0003), ChunkType.SACK) == []
            assert len(values(peer.at(peer.now + 0.0002), ChunkType.SACK)) == 1
        else:
            # What they are is known when they have come.
            sacks_of(peer, [chunk for part in parts for chunk in part])


def test_a_sack_never_takes_back_what_one_before_it_has_told():
    peer = ByHand().establish()
    data = [peer.data(ssn=number) for number in range(12)]
    assert sacks_of(peer, data[:4] + data[6:]) == [(4, [(3, 8)])]
    assert sacks_of(peer, data[4:6]) == [(12, [])]
    more = [peer.data(ssn=12 + number) for number in range(4)]
    assert sacks_of(peer, more) == [(14, []), (16, [])]


@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "in packets that come together"])
def test_of_several_sacks_the_last_one_counts(together):
    one, other = (ByHand().establish() for _ in range(2))
    answers = []
    for peer, counts in ((one, [2, 4, 6]), (other, [6])):
        peer.association.send(1, 51, bytes(20_000))
        peer.drain()
        peer.now += 0.05
        sacks = [peer.sack(count) for count in counts]
        if together:
            peer.give(*sacks)
        else:
            peer.association.receive_packets(
                [serialize_packet(5000, 5000, peer.tag, [sack], crc32c) for sack in sacks], peer.now
            )
        answers.append((peer.drain(), peer.association.next_timeout()))
    assert len(values(answers[0][0], ChunkType.DATA)) > 0
    assert [len(packets) for packets, _ in answers] == [len(answers[1][0])] * 2
    assert answers[0][1] == answers[1][1]


def sack_packet(cumulative, *, tag=1, gaps=(), duplicates=()):
    sack = chunks.serialize_sack(chunks.Sack(cumulative % (1 << 32), 1000, gaps, duplicates))
    return serialize_packet(5000, 5000, tag, [sack], None)


def test_a_sack_is_left_out_only_if_the_next_packet_tells_all_that_it_tells():
    plain = sack_packet(-1)
    for told in (plain, sack_packet(1), sack_packet(0, gaps=[(2, 3)]), sack_packet(0, duplicates=[7])):
        assert chunks.is_told_again([plain, told], 0)
    assert not chunks.is_told_again([plain], 0)
    # An older one; one of another association; one that is cut; no SACK.
    data = serialize_packet(5000, 5000, 1, [serialize_chunk(ChunkType.DATA, 3, bytes(20))], None)
    for other in (sack_packet(-2), sack_packet(1, tag=2), sack_packet(1)[:-1], data):
        assert not chunks.is_told_again([plain, other], 0)
    for richer in (sack_packet(-1, gaps=[(2, 3)]), sack_packet(-1, duplicates=[7]), data):
        assert not chunks.is_told_again([richer, sack_packet(1)], 0)


def test_a_gap_in_fast_data_is_told_at_once():
    peer = ByHand(Config(max_packet_size=1163, sack_stretch_rate=1e6)).establish()
    for ssn in range(40):
        peer.now += 0.0005
        peer.give(peer.data(bytes(1000), ssn=ssn))
        peer.drain()
    peer.give(peer.data(tsn=peer.next_tsn + 1, ssn=41))
    assert len(values(peer.drain(), ChunkType.SACK)) == 1


@pytest.mark.parametrize(("pause", "filling"), [(0.001, 3), (0.0001, 5)], ids=["slow", "fast"])
def test_while_many_packets_are_missing_not_each_that_comes_is_told(pause, filling):
    """A sender would take each SACK for news that what it has sent again is missing still."""
    peer = ByHand().establish()
    # Of one message, whose end is still to come.
    lost = [peer.data(flags=2), *(peer.data(flags=0) for _ in range(21))]
    beyond = [peer.data(flags=0) for _ in range(10)]

    def sacks_for(arriving):
        told = 0
        for chunk in arriving:
            peer.now += pause
            peer.give(chunk)
            told += len(values(peer.drain(), ChunkType.SACK))
        return told

    # The loss is seen by three.
    assert sacks_for(beyond[:4]) == 4
    assert sacks_for(beyond[4:]) == 1
    assert sacks_for(lost[:20]) == filling
    # No longer than any other one.
    assert sacks_for(lost[20:21]) == 0
    assert len(values(peer.at(peer.now + peer.config.sack_delay), ChunkType.SACK)) == 1
    # The last gap is filled.
    assert sacks_for(lost[21:]) == 1
    # The next loss is told as promptly.
    peer.data()
    assert sacks_for([peer.data(flags=0) for _ in range(4)]) == 4


def test_the_end_of_a_message_is_told_at_once_while_packets_are_missing():
    peer = ByHand().establish()
    peer.data()
    for ssn in range(10):
        peer.give(peer.data(ssn=ssn))
        assert len(values(peer.drain(), ChunkType.SACK)) == 1


def test_rfc_9260_section_6_7_gaps_duplicates_and_the_i_bit_are_told_at_once():
    peer = ByHand().establish()
    for chunk, expected in (
        (peer.data(tsn=TSN + 2, ssn=1), Sack(TSN - 1, 0, [(3, 3)])),
        (peer.data(tsn=TSN + 2, ssn=1), Sack(TSN - 1, 0, [(3, 3)], (TSN + 2,))),
        (peer.data(tsn=TSN, flags=3 | 8), Sack(TSN, 0, [(2, 2)])),
        (peer.data(tsn=TSN + 1, ssn=0, flags=7), Sack(TSN + 2, 0)),
        (peer.data(tsn=TSN + 3, ssn=2, flags=3 | 8), Sack(TSN + 3, 0)),
    ):
        peer.give(chunk)
        (value,) = values(peer.drain(), ChunkType.SACK)
        sack = chunks.parse_sack_untrusted(memoryview(value))
        assert (sack.cumulative_tsn_ack, tuple(sack.gap_ack_blocks)) == (
            expected.cumulative_tsn_ack,
            tuple(expected.gap_ack_blocks),
        )
        assert tuple(sack.duplicate_tsns) == tuple(expected.duplicate_tsns)


def test_the_fast_path_of_reception_equals_the_slow_one():
    sender = connected(config=Config(max_packet_size=1163))
    sent = []
    sender.filter = lambda endpoint, packet: sent.append(packet) is None
    sender.left.association.send(3, 51, bytes(range(256)) * 100)
    sender.run(until=sender.now + 2)
    data = [packet for packet in sent if kinds(packet) == [ChunkType.DATA]]
    assert len(data) > 20
    results = []
    for fast in (True, False):
        peer = ByHand().establish()
        batch = []
        for index, packet in enumerate(data):
            _, _, value = next(split_chunks_untrusted(packet))
            chunk = packet[12:16] + struct.pack("!I", TSN + index) + bytes(value[4:])
            chunk += bytes(-len(chunk) % 4)
            batch.append(serialize_packet(5000, 5000, peer.tag, [chunk], None if fast else crc32c))
        peer.association.receive_packets(batch, peer.now)
        results.append((peer.association.take_messages(), values(peer.drain(), ChunkType.SACK)))
    assert results[0] == results[1]
    assert results[0][0][0].data == bytes(range(256)) * 100


# Windows and limits.


def test_the_peers_window_is_honoured():
    peer = ByHand(a_rwnd=10_000).establish()
    peer.association.send(1, 51, bytes(100_000))
    sent = values(peer.drain(), ChunkType.DATA)
    size = sum(len(value) - 12 for value in sent)
    assert 10_000 - 1200 * 2 < size <= 10_000
    peer.give(peer.sack(2, a_rwnd=3000))
    # More than 3,000 are in flight already.
    assert values(peer.drain(), ChunkType.DATA) == []
    peer.give(peer.sack(len(sent), a_rwnd=3000))
    assert 0 < sum(len(value) - 12 for value in values(peer.drain(), ChunkType.DATA)) <= 3000


def test_rfc_9260_section_6_1_a_closed_window_is_probed_for_as_long_as_it_is_answered():
    peer = ByHand(a_rwnd=0).establish()
    peer.association.send(1, 51, bytes(5000))
    assert len(values(peer.drain(), ChunkType.DATA)) == 1
    probes = 0
    while probes < 40:
        probes += len(values(peer.next(), ChunkType.DATA))
        if peer.association.state is not State.ESTABLISHED:
            break
        peer.give(peer.sack(0, a_rwnd=0))
        assert values(peer.drain(), ChunkType.DATA) == []
    assert peer.association.state is State.ESTABLISHED
    peer.give(peer.sack(1, a_rwnd=1 << 20))
    assert len(values(peer.drain(), ChunkType.DATA)) >= 2


def test_a_hostile_peer_cannot_fill_memory_beyond_window_and_one_message():
    config = Config(receive_window=50_000, max_message_size=20_000, max_packet_size=1163)
    for flags, ssn in ((2, 0), (3, 5)):
        peer = ByHand(config).establish()
        taken = 0
        while peer.association.state is State.ESTABLISHED and taken < 1_000_000:
            peer.give(peer.data(bytes(1000), flags=flags, ssn=(ssn + taken // 1000) & 0xFFFF))
            taken += 1000
        assert taken <= 50_000 + 20_000 + 1000


def test_what_comes_beyond_a_full_window_is_not_taken_and_what_fills_the_gap_is():
    peer = ByHand(Config(receive_window=5000, max_packet_size=1163)).establish()
    for tsn in range(TSN + 1, TSN + 20):
        peer.give(peer.data(bytes(1000), tsn=tsn, ssn=tsn - TSN))
    sack = chunks.parse_sack_untrusted(memoryview(values(peer.drain(), ChunkType.SACK)[-1]))
    assert sack.a_rwnd == 0
    assert list(sack.gap_ack_blocks) == [(2, 6)]
    peer.give(peer.data(tsn=TSN))
    assert len(peer.association.take_messages()) == 6
    sack = chunks.parse_sack_untrusted(memoryview(values(peer.drain(), ChunkType.SACK)[-1]))
    assert sack.a_rwnd == 5000


@pytest.mark.parametrize("size", [262_144, 262_145])
def test_messages_up_to_the_size_agreed_are_taken(size):
    link = connected()
    link.left.association.send(1, 51, bytes(size))
    link.run(until=link.now + 5)
    assert len(link.right.messages) == (size <= 262_144)
    assert (link.right.association.state is State.ESTABLISHED) is (size <= 262_144)


def test_packets_never_exceed_their_size():
    link = Link(config=Config(initial_packet_size=1163, max_packet_size=1163), seed=4)
    sizes = []
    link.filter = lambda _, packet: sizes.append(len(packet)) is None
    link.connect()
    for size in [*range(1120, 1145), 1, 2, 3, 500, 501, 4541, 70_000]:
        link.left.association.send(1, 51, bytes(size))
    link.run(until=link.now + 5)
    assert len(link.right.messages) == 32
    assert max(sizes) <= 1163


def test_more_tsns_than_gap_ack_blocks_can_tell_of_are_never_on_the_way():
    peer = ByHand(a_rwnd=1 << 30).establish()
    for _ in range(70_000):
        peer.association.send(1, 51, b"x")
    sent, now = 0, peer.now
    for _ in range(3000):
        sent += len(values(peer.drain(), ChunkType.DATA))
        if sent >= 0xFFFF:
            break
        # Everything but the first arrives.
        peer.now += 0.001
        if sent > 1:
            peer.give(peer.sack(0, (2, sent)))
    deadline = peer.association.next_timeout()
    assert sent <= 0xFFFF + (peer.now - now) * 1000
    assert deadline is None or deadline >= peer.now


@pytest.mark.parametrize("bits", [0xFFFFFFFF, 0xFFFFFFF0, 0xFFFFFF00, 0])
def test_tsns_wrap(bits):
    link = connected(initial_bits=lambda count: bits if count == 32 else 5)
    data = [bytes([n]) * 9000 for n in range(40)]
    for message in data:
        link.left.association.send(1, 51, message)
        link.right.association.send(1, 51, message)
    link.run(until=link.now + 10)
    assert [m.data for m in link.left.messages] == [m.data for m in link.right.messages] == data


# INITs that each side has of the other beforehand (draft-hancke-tsvwg-snap-00).


def exchanged(seed=0):
    """Two associations that have exchanged their INITs by another way."""
    link = Link(Conditions(delay=0.1), seed=seed)
    inits = [draw_init(Config(), random.Random(seed + side).getrandbits) for side in range(2)]
    told = [parse_init_chunk_untrusted(serialize_init(init)) for init in inits]
    assert told == inits
    for endpoint, ours, theirs in ((link.left, *inits), (link.right, *reversed(inits))):
        endpoint.association = Association(
            config=Config(),
            local_port=5000,
            remote_port=5000,
            controller=make_controller("bbr", 1132, random.Random(seed).random),
            checksum=crc32c,
            draw=random.Random(seed + 9).getrandbits,
            exchanged=(ours, theirs),
        )
    return link


def test_data_leaves_at_once_where_both_inits_are_known():
    link = exchanged()
    started = link.now
    link.left.association.send(1, 51, b"first")
    link.connect()
    assert link.left.association.state is link.right.association.state is State.ESTABLISHED
    link.run(done=lambda: bool(link.right.messages))
    assert link.now == pytest.approx(started + 0.1)
    link.right.association.send(1, 51, bytes(200_000))
    link.left.association.send(2, 51, bytes(200_000))
    link.run(until=link.now + 5)
    assert [len(message.data) for message in link.left.messages] == [200_000]
    assert [len(message.data) for message in link.right.messages] == [5, 200_000]


def test_an_exchanged_association_sends_nothing_before_it_has_data():
    link = exchanged()
    sent = []
    link.filter = lambda _, packet: sent.append(packet) is None
    link.connect()
    link.run(until=link.now + 1)
    assert {kind for packet in sent for kind in kinds(packet)} <= {
        *(ChunkType.HEARTBEAT, ChunkType.HEARTBEAT_ACK, ChunkType.PAD)
    }


@given(st.binary(max_size=60))
def test_an_init_chunk_from_elsewhere_is_one_or_is_refused(chunk):
    try:
        init = parse_init_chunk_untrusted(chunk)
    except RemoteProtocolError:
        return
    assert chunk[0] == ChunkType.INIT
    assert init.initiate_tag


def test_an_init_chunk_cut_short_anywhere_is_refused():
    chunk = serialize_init(draw_init(Config(), random.Random(1).getrandbits))
    for size in range(len(chunk)):
        with pytest.raises(RemoteProtocolError):
            parse_init_chunk_untrusted(chunk[:size])
    with pytest.raises(RemoteProtocolError):
        parse_init_chunk_untrusted(chunk + chunk)


# The end.


@pytest.mark.parametrize("simultaneous", [True, False])
@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_shutdown_delivers_everything_first_and_ends_both_sides(simultaneous, loss):
    for seed in range(4):
        link = connected(seed=seed, config=Config(max_packet_size=1163))
        link.conditions = Conditions(loss=loss)
        for endpoint in (link.left, link.right):
            for _ in range(5):
                endpoint.association.send(1, 51, bytes(20_000))
        link.left.association.shutdown(link.now)
        if simultaneous:
            link.right.association.shutdown(link.now)
        link.run(until=link.now + 200)
        assert len(link.left.messages) == len(link.right.messages) == 5
        assert closed(link.left).error is None
        assert closed(link.right).error is None


def test_a_shutdown_while_the_peer_shuts_down_changes_nothing():
    link = connected()
    link.left.association.shutdown(link.now)
    link.right.association.send(1, 51, bytes(100_000))
    link.run(until=link.now + 1, done=lambda: link.right.association.state is State.SHUTDOWN_RECEIVED)
    link.right.association.shutdown(link.now)
    link.run(until=link.now + 5)
    assert len(link.left.messages) == 1
    assert closed(link.left).error is closed(link.right).error is None


def test_rfc_9260_section_8_4_who_has_missed_shutdown_complete_is_told_again():
    link = connected()
    dropped = []
    link.filter = lambda _, packet: (
        bool(dropped)
        or (kinds(packet) != [ChunkType.SHUTDOWN_COMPLETE] or dropped.append(packet) is not None)
    )
    link.left.association.shutdown(link.now)
    link.run(until=link.now + 5)
    assert dropped
    assert closed(link.left).error is closed(link.right).error is None


def test_packets_overtaken_by_the_end_do_not_make_an_abort_of_a_shutdown():
    peer = ByHand().establish()
    peer.association.shutdown(peer.now)
    peer.drain()
    peer.give(serialize_chunk(ChunkType.SHUTDOWN_ACK, 0, b""))
    assert [kinds(packet) for packet in peer.drain()] == [[ChunkType.SHUTDOWN_COMPLETE]]
    peer.give(peer.data())
    assert peer.drain() == []


def test_shutdown_before_it_is_established_is_an_abort():
    peer = ByHand()
    peer.association.shutdown(peer.now)
    assert peer.closed() == Closed(None)
    assert peer.association.next_timeout() is None


def test_an_abort_ends_both_sides_at_once():
    link = connected()
    link.left.association.send(1, 51, bytes(1 << 20))
    link.left.association.abort()
    link.left.association.abort()
    link.run(until=link.now + 1)
    assert closed(link.left).error is None
    assert isinstance(closed(link.right).error, RemoteProtocolError)


def test_a_peer_that_has_missed_an_abort_gets_another():
    link = connected()
    dropped = []
    link.filter = lambda _, packet: (
        bool(dropped) or (kinds(packet) != [ChunkType.ABORT] or dropped.append(packet) is not None)
    )
    link.left.association.abort()
    link.right.association.send(1, 51, b"anybody there?")
    link.run(until=link.now + 5)
    assert isinstance(closed(link.right).error, RemoteProtocolError)


def test_nothing_leaves_and_no_timer_runs_after_the_end():
    peer = ByHand().establish()
    peer.association.send(1, 51, bytes(100_000))
    peer.drain()
    # Data that wants a SACK, a heartbeat and a reset come with the abort.
    peer.give(peer.data(flags=3 | 8), serialize_chunk(4, 0, b""), serialize_chunk(ChunkType.ABORT, 0, b""))
    assert peer.drain() == []
    assert peer.association.next_timeout() is None
    peer.association.send(1, 51, b"late")
    peer.association.handle_timeout(peer.now + 100)
    assert peer.drain() == []
    assert peer.association.next_timeout() is None


def test_data_beside_a_violation_starts_no_timer():
    peer = ByHand().establish()
    peer.give(peer.data(), serialize_chunk(3, 0, b"bad"))
    assert [kinds(packet) for packet in peer.drain()] == [[ChunkType.ABORT]]
    assert peer.association.next_timeout() is None


# Stream reset.


def test_streams_are_reset_and_used_again():
    link = connected()
    left = link.left.association
    for number in range(3):
        for _ in range(4):
            left.send(7, 51, bytes([number]) * 2000)
        left.reset_streams([7])
    link.run(until=link.now + 5)
    left.send(7, 51, b"anew")
    link.run(until=link.now + 5)
    assert [m.data[0] for m in link.right.messages] == [0] * 4 + [1] * 4 + [2] * 4 + [ord("a")]
    assert StreamsReset((7,), ()) in link.right.events
    assert StreamsReset((), (7,)) in link.left.events


def test_what_is_sent_during_a_reset_arrives_after_it():
    for seed in range(5):
        link = connected(seed=seed)
        link.conditions = Conditions(loss=0.2, jitter=0.01)
        left = link.left.association
        expected = []
        for number in range(30):
            left.send(7, 51, bytes([number]) * 2000)
            expected.append(number)
            if number % 5 == 0:
                left.reset_streams([7])
            link.run(until=link.now + 0.03)
        link.run(until=link.now + 60)
        assert [m.data[0] for m in link.right.messages] == expected
        assert link.left.departed == 30 * 2000


def test_a_reset_wished_for_before_set_up_is_carried_out():
    link = Link()
    link.left.association.send(4, 51, b"x")
    link.left.association.reset_streams([4])
    link.connect()
    link.run(until=link.now + 5)
    assert StreamsReset((4,), ()) in link.right.events


def test_a_peer_that_does_not_answer_resets_is_given_up_and_one_without_them_is_not_asked():
    peer = ByHand(Config(max_packet_size=1163, max_retries=4)).establish()
    peer.association.reset_streams([1])
    assert len(values(peer.drain(), ChunkType.RE_CONFIG)) == 1
    while peer.association.state is State.ESTABLISHED:
        peer.next()
    assert peer.now < 200
    assert isinstance(peer.closed().error, RemoteProtocolError)
    peer = ByHand(extensions=frozenset()).establish()
    peer.association.reset_streams([1])
    assert peer.drain() == []
    events = [peer.association.next_event() for _ in range(2)]
    assert events[1] == StreamsReset((), (1,))


def test_the_peers_reset_waits_for_its_data():
    peer = ByHand().establish()
    peer.give(
        peer.data(b"b", tsn=TSN + 1, ssn=1), chunks.serialize_reconfig([OutgoingReset(TSN, 0, TSN + 1, [1])])
    )
    peer.drain()
    peer.give(peer.data(b"a", tsn=TSN, ssn=0))
    peer.give(peer.data(b"c", tsn=TSN + 2, ssn=0))
    assert [m.data for m in peer.association.take_messages()] == [b"a", b"b", b"c"]


# Partial reliability.


def test_a_message_that_expires_halfway_is_skipped_even_if_all_that_was_sent_has_arrived():
    peer = ByHand(a_rwnd=3000).establish()
    peer.association.send(1, 51, bytes(10_000), expires_at=peer.now + 1)
    peer.association.send(1, 51, b"next")
    sent = len(values(peer.drain(), ChunkType.DATA))
    assert sent == 2
    peer.give(peer.sack(sent, a_rwnd=0))
    peer.drain()
    peer.now += 2
    peer.give(peer.sack(sent, a_rwnd=1 << 20))
    out = peer.drain()
    (value,) = values(out, ChunkType.FORWARD_TSN)
    forward = chunks.parse_forward_tsn_untrusted(memoryview(value))
    assert list(forward.streams) == [(1, 0)]
    assert (forward.new_cumulative_tsn - peer.tsn) % (1 << 32) >= sent
    assert values(out, ChunkType.DATA)[-1].endswith(b"next")
    assert peer.association.take_departed() == [(1, 10_000), (1, 4)]


def test_what_expires_before_it_leaves_has_departed_too():
    peer = ByHand(a_rwnd=1000).establish()
    peer.association.send(1, 51, bytes(500), expires_at=peer.now - 1)
    peer.association.send(1, 51, b"y")
    assert len(values(peer.drain(), ChunkType.DATA)) == 1
    assert peer.association.take_departed() == [(1, 1), (1, 500)]


def test_nothing_is_abandoned_for_a_peer_without_forward_tsn():
    init = Init(TAG, 1 << 20, 1, 1, TSN, b"cookie", False, True)
    peer = ByHand(init=init).establish()
    peer.association.send(1, 51, b"x", max_retransmits=0)
    assert len(values(peer.drain(), ChunkType.DATA)) == 1
    again = []
    while not again:
        again = values(peer.next(), ChunkType.DATA)
    assert values(peer.drain(), ChunkType.FORWARD_TSN) == []


def test_forward_tsn_among_the_extensions_alone_is_enough_to_abandon():
    # As pion tells it.
    init = Init(TAG, 1 << 20, 1, 1, TSN, b"cookie", False, True, frozenset({ChunkType.FORWARD_TSN}))
    peer = ByHand(init=init).establish()
    peer.association.send(1, 51, b"x", max_retransmits=0)
    peer.drain()
    forwards = []
    while not forwards:
        forwards = values(peer.next(), ChunkType.FORWARD_TSN)
    assert chunks.parse_forward_tsn_untrusted(memoryview(forwards[0])).streams == [(1, 0)]


def test_forward_tsn_delivers_what_was_held_up():
    peer = ByHand().establish()
    peer.give(peer.data(b"b", tsn=TSN + 1, ssn=1))
    assert peer.association.take_messages() == []
    peer.give(chunks.serialize_forward_tsn(ForwardTsn(TSN, [(1, 0)])))
    assert [m.data for m in peer.association.take_messages()] == [b"b"]
    sack = chunks.parse_sack_untrusted(memoryview(values(peer.drain(), ChunkType.SACK)[0]))
    assert sack.cumulative_tsn_ack == TSN + 1


def test_packets_carry_our_ports_and_the_peers_tag():
    peer = ByHand().establish()
    peer.association.send(1, 51, b"x")
    for packet in peer.drain():
        assert COMMON_HEADER.unpack_from(packet)[:3] == (5000, 5000, TAG)
