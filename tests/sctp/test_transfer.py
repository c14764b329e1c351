"""Whole transfers between two associations in the simulator: byte-exact, in order, without end never."""

import itertools
import random

import pytest
from google_crc32c import value as crc32c

from flyx.errors import RemoteProtocolError
from flyx.sctp.association import Closed, State
from flyx.sctp.chunks import ChunkType
from flyx.sctp.config import Config
from flyx.sctp.packet import serialize_chunk, serialize_packet, split_chunks_untrusted
from flyx.sctp.receive_tracker import MAX_RANGES
from flyx.sctp.runs import RunState
from flyx.sctp.transmission import MAX_TSN_SPAN
from tests.sctp.link import Conditions, Link
from tests.thoroughness import THOROUGH, share

SMALL = Config(max_packet_size=1163)
CHECKSUMS = Config(max_packet_size=1163, zero_checksum=False)

CONDITIONS = {
    "clean": Conditions(),
    "loss 1 %": Conditions(loss=0.01, rate=5e6),
    "loss 20 %": Conditions(loss=0.2),
    "reordering": Conditions(jitter=0.03),
    "duplication": Conditions(duplicate=0.3, jitter=0.005),
    "everything": Conditions(loss=0.05, jitter=0.02, duplicate=0.1, rate=2e6, queue=0.05),
    "long": Conditions(delay=0.3, loss=0.02),
    "corruption": Conditions(corrupt=0.1, loss=0.02),
}


def connect(conditions, *, seed=0, config=SMALL, controller="cubic", **arguments):
    link = Link(
        Conditions(delay=conditions.delay), seed=seed, config=config, controller=controller, **arguments
    )
    link.connect()
    link.run(until=link.now + 4)
    link.conditions = conditions
    return link


def messages(rng, count, largest):
    return [rng.randbytes(min(largest, int(2 ** rng.uniform(0, 18.01)))) for _ in range(count)]


class Invariants:
    """What must hold at every step of a link; call at each."""

    def __init__(self, link):
        self._link = link
        # Whether to add up what is in flight at a step.
        self._adds_up = itertools.cycle((True,) if THOROUGH else (True, False, False, False))
        self._in_flight = {link.left: 0, link.right: 0}

    def __call__(self):
        adds_up = next(self._adds_up)
        for endpoint in (self._link.left, self._link.right):
            association = endpoint.association
            transmission, reception = association.transmission, association._reception
            if transmission is None or reception is None:
                continue
            config, outstanding = association._config, transmission.outstanding
            # Nothing waits beyond the window that was offered.
            assert reception._reassembly.size <= config.receive_window + 1200
            assert len(reception._tracker._starts) <= MAX_RANGES
            cwnd = transmission._controller.cwnd
            assert cwnd >= 1136
            if adds_up:
                in_flight = sum(r.size for r in outstanding.runs if r.state is RunState.IN_FLIGHT)
                assert outstanding.in_flight == in_flight
            assert outstanding.next_tsn - 1 - outstanding.cumulative <= MAX_TSN_SPAN
            if outstanding.in_flight > self._in_flight[endpoint]:
                # RFC 9260 §6.1 B: cwnd may be exceeded by less than one packet; a probe is one packet.
                assert outstanding.in_flight <= max(cwnd, self._in_flight[endpoint]) + 1163
            self._in_flight[endpoint] = outstanding.in_flight


def by_stream(received):
    streams = {}
    for message in received:
        streams.setdefault(message.stream_id, []).append(message.data)
    return streams


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_both_directions_are_exact_and_in_order(name, controller):
    conditions = CONDITIONS[name]
    for seed in range(share(2)):
        config = CHECKSUMS if conditions.corrupt else SMALL
        link = connect(conditions, seed=seed, config=config, controller=controller)
        rng = random.Random(seed)
        sent = {}
        for endpoint in (link.left, link.right):
            data = messages(rng, 25, 1 << 18)
            sent[endpoint] = {}
            for number, message in enumerate(data):
                endpoint.association.send(number % 4, 51, message)
                sent[endpoint].setdefault(number % 4, []).append(message)

        invariants = Invariants(link)

        def finished(link=link, invariants=invariants):
            invariants()
            return len(link.left.messages) == len(link.right.messages) == 25

        link.run(until=link.now + 300, done=finished)
        assert by_stream(link.right.messages) == sent[link.left], seed
        assert by_stream(link.left.messages) == sent[link.right], seed
        link.run(until=link.now + 60)
        for endpoint in (link.left, link.right):
            assert endpoint.departed == sum(len(m) for stream in sent[endpoint].values() for m in stream)
            assert endpoint.association.state is State.ESTABLISHED
            assert endpoint.association.transmission.outstanding.in_flight == 0


@pytest.mark.parametrize("seed", range(share(3)))
def test_the_wrap_of_tsns_and_ssns_under_loss(seed):
    rng = random.Random(seed)
    link = connect(
        Conditions(loss=0.02, jitter=0.01),
        seed=seed,
        initial_bits=lambda bits: (1 << 32) - 20 if bits == 32 else rng.getrandbits(bits),
    )
    sent = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(200)]
    for data in sent:
        link.left.association.send(1, 51, data)
    link.run(until=link.now + 60, done=lambda: len(link.right.messages) == 200)
    assert [m.data for m in link.right.messages] == sent


@pytest.mark.skipif(not THOROUGH, reason="takes seconds; send queue and reassembly wrap in their own tests")
def test_many_small_messages_across_the_wrap_of_ssns():
    link = connect(Conditions(loss=0.01, delay=0.01))
    for number in range(66_000):
        link.left.association.send(1, 51, number.to_bytes(3, "big"))
    link.run(until=link.now + 120, done=lambda: len(link.right.messages) == 66_000)
    assert [int.from_bytes(m.data, "big") for m in link.right.messages] == list(range(66_000))


def test_hundreds_of_streams_ordered_and_not():
    link = connect(Conditions(loss=0.05, jitter=0.02))
    sent = {}
    for number in range(1200):
        stream_id, data = number % 400, number.to_bytes(4, "big") * (1 + number % 700)
        link.left.association.send(stream_id, 51, data, unordered=stream_id % 2 == 0)
        sent.setdefault(stream_id, []).append(data)
    link.run(until=link.now + 120, done=lambda: len(link.right.messages) == 1200)
    received = by_stream(link.right.messages)
    for stream_id, data in sent.items():
        if stream_id % 2 == 0:
            assert sorted(received[stream_id]) == sorted(data)
        else:
            assert received[stream_id] == data


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
def test_an_outage_of_two_seconds_is_survived(controller):
    link = connect(Conditions(rate=3e6), controller=controller)
    begun = link.now
    link.conditions = Conditions(rate=3e6, outage=(begun - 100 + 0.5, begun - 100 + 2.5))
    data = [bytes([n]) * 100_000 for n in range(50)]
    for message in data:
        link.left.association.send(1, 51, message)
    link.run(until=begun + 2.5)
    before = len(link.right.messages)
    link.run(until=begun + 2.5 + 1 + 3 * 0.04)
    assert len(link.right.messages) > before
    link.run(until=begun + 60, done=lambda: len(link.right.messages) == 50)
    assert [m.data for m in link.right.messages] == data
    # 5 MB at 3 MB/s, the outage, and what coming back costs.
    assert link.now - begun < 1.7 + 2 + 3


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
def test_bursts_of_loss(controller):
    link = connect(Conditions(), controller=controller, seed=3)
    rng, gone = random.Random(5), [0]

    def burst(_, __):
        if gone[0] == 0 and rng.random() < 0.003:
            gone[0] = rng.randint(5, 60)
        gone[0] -= gone[0] > 0
        return gone[0] == 0

    link.filter = burst
    data = [rng.randbytes(100_000) for _ in range(20)]
    for message in data:
        link.left.association.send(1, 51, message)
    link.run(until=link.now + 120, done=lambda: len(link.right.messages) == 20)
    assert [m.data for m in link.right.messages] == data


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
def test_a_peer_that_vanishes_ends_it_in_bounded_time(controller):
    link = connect(Conditions(), controller=controller)
    for _ in range(50):
        link.left.association.send(1, 51, bytes(200_000))
    link.run(until=link.now + 0.1)
    begun = link.now
    link.filter = lambda _, __: False
    link.run(until=begun + 300, done=lambda: any(isinstance(e, Closed) for e in link.left.events))
    assert isinstance(link.left.events[-1].error, RemoteProtocolError)
    assert 5 < link.now - begun < 60
    assert link.left.association.next_timeout() is None


def test_a_peer_that_vanishes_during_a_shutdown_ends_it_in_bounded_time():
    link = connect(Conditions())
    link.filter = lambda endpoint, _: endpoint is link.left
    begun = link.now
    link.left.association.shutdown(link.now)
    link.run(until=begun + 900, done=lambda: any(isinstance(e, Closed) for e in link.left.events))
    assert isinstance(link.left.events[-1].error, RemoteProtocolError)
    assert link.left.association.next_timeout() is None


def with_closed_window(packet):
    """The packet with an a_rwnd of zero in its SACKs."""
    bundle = [
        serialize_chunk(kind, flags, bytes(value[:4]) + bytes(4) + bytes(value[8:]))
        if kind == ChunkType.SACK
        else serialize_chunk(kind, flags, bytes(value))
        for kind, flags, value in split_chunks_untrusted(packet)
    ]
    return serialize_packet(5000, 5000, int.from_bytes(packet[4:8], "big"), bundle, crc32c)


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
def test_a_window_closed_for_a_minute_is_probed_sparsely_and_opens_again(controller):
    link = connect(Conditions(), controller=controller)
    data = [bytes([n]) * 50_000 for n in range(20)]
    for message in data:
        link.left.association.send(1, 51, message)
    closed_until = link.now + 60
    probes, told = [], []

    def close(endpoint, packet):
        if link.now >= closed_until:
            return True
        kinds = {kind for kind, _, _ in split_chunks_untrusted(packet)}
        if endpoint is link.right and ChunkType.SACK in kinds:
            told.append(with_closed_window(packet))
            link.deliver(link.left, told[-1])
            return False
        if ChunkType.DATA in kinds and told:
            # A receiver without room drops it and says so.
            probes.append(link.now)
            link.deliver(link.left, told[-1])
            return False
        return True

    link.filter = close
    link.run(until=link.now + 5)
    before = len(probes)
    link.run(until=closed_until)
    assert link.left.association.state is State.ESTABLISHED
    assert 5 < len(probes) - before < 60
    assert link.left.association.transmission.outstanding.in_flight <= 1163
    link.run(until=closed_until + 70, done=lambda: len(link.right.messages) == 20)
    assert [m.data for m in link.right.messages] == data


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
def test_a_clean_path_carries_hardly_more_packets_than_there_is_data(controller):
    link = connect(Conditions(rate=5e6), controller=controller)
    before = link.packets
    for _ in range(10):
        link.left.association.send(1, 51, bytes(200_000))
    link.run(until=link.now + 30, done=lambda: len(link.right.messages) == 10)
    # Data, and a SACK for every second packet at most.
    assert link.packets - before < 1.1 * (2_000_000 / 1135) * 1.5


@pytest.mark.parametrize("window", [4000, 20_000])
def test_a_small_receive_window_is_kept_and_never_stalls(window):
    config = Config(max_packet_size=1163, receive_window=window)
    for seed in range(share(3)):
        link = connect(Conditions(loss=0.03, jitter=0.01), seed=seed, config=config)
        data = [random.Random(n).randbytes(3 * window) for n in range(4)]
        for message in data:
            link.left.association.send(1, 51, message)

        def finished(link=link):
            # What fills a gap is taken beyond the window: one message at most.
            assert link.right.association._reception._reassembly.size <= 4 * window
            return len(link.right.messages) == 4

        link.run(until=link.now + 300, done=finished)
        assert [m.data for m in link.right.messages] == data


@pytest.mark.parametrize("controller", ["cubic", "bbr"])
@pytest.mark.parametrize("seed", range(share(4)))
def test_partial_reliability_delivers_a_part_in_order_and_never_stalls(seed, controller):
    conditions = Conditions(loss=0.15, jitter=0.01, rate=1e6, queue=0.1)
    link = connect(conditions, seed=seed, controller=controller)
    rng = random.Random(seed)
    reliable, limited = [], []
    for number in range(150):
        data = number.to_bytes(4, "big") + rng.randbytes(rng.choice((1, 900, 5000, 20_000)))
        kind = rng.randrange(4)
        if kind == 0:
            link.left.association.send(1, 51, data)
            reliable.append(number)
        elif kind == 1:
            link.left.association.send(2, 51, data, max_retransmits=rng.randrange(2))
        elif kind == 2:
            link.left.association.send(3, 51, data, expires_at=link.now + 0.2)
        else:
            link.left.association.send(4, 51, data, unordered=True, max_retransmits=0)
        limited.append(data)
        link.run(until=link.now + 0.01)
    link.run(until=link.now + 120)
    for stream_id in (1, 2, 3, 4):
        link.left.association.send(stream_id, 51, b"last" + bytes([stream_id]))
    link.run(until=link.now + 30)
    assert link.left.departed == sum(len(data) for data in limited) + 4 * len(b"last1")
    received = by_stream(link.right.messages)
    for stream_id in (1, 2, 3, 4):
        assert received[stream_id].pop() == b"last" + bytes([stream_id])
        numbers = [int.from_bytes(data[:4], "big") for data in received[stream_id]]
        assert [limited[number] for number in numbers] == received[stream_id]
        assert len(set(numbers)) == len(numbers)
        if stream_id != 4:
            assert numbers == sorted(numbers)
        if stream_id == 1:
            assert numbers == reliable
    for endpoint in (link.left, link.right):
        assert endpoint.association.state is State.ESTABLISHED
        assert endpoint.association._reception._reassembly.size == 0
        assert not endpoint.association.transmission.outstanding.runs
