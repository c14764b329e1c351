"""flyx/sctp/path_mtu.py, and how the association uses it."""

import pytest

from flyx.sctp.chunks import ChunkType
from flyx.sctp.config import Config
from flyx.sctp.congestion import make_controller
from flyx.sctp.packet import serialize_packet, split_chunks_untrusted, split_parameters_untrusted
from flyx.sctp.path_mtu import RAISE_INTERVAL, TRIES, PathMtu
from tests.sctp.link import Conditions, Link


def info_of(probe):
    packet = serialize_packet(1, 1, 1, probe, None)
    kind, _, value = next(split_chunks_untrusted(packet))
    assert kind == 4
    ((_, info),) = split_parameters_untrusted(value)
    return bytes(info), len(packet)


def make(largest=16384):
    return PathMtu(37, 1160, largest, 0x1234)


def test_probes_have_the_sizes_that_they_ask_about():
    mtu = make()
    probes, again = mtu.probes(5.0)
    sizes = [info_of(probe)[1] for probe in probes]
    assert sizes == sorted(sizes)
    assert all(1160 < size <= 16384 and size % 4 == 0 for size in sizes)
    assert 16384 in sizes
    assert again > 5.0
    for probe, size in zip(probes, sizes, strict=True):
        assert mtu.acknowledged(info_of(probe)[0])
        assert mtu.size == size


def test_answers_to_smaller_probes_and_twice_the_same_change_nothing():
    mtu = make()
    probes, _ = mtu.probes(0.0)
    assert mtu.acknowledged(info_of(probes[2])[0])
    assert not mtu.acknowledged(info_of(probes[2])[0])
    assert not mtu.acknowledged(info_of(probes[0])[0])


@pytest.mark.parametrize("info", [b"", b"x" * 14, bytes(200)])
def test_foreign_heartbeats_change_nothing(info):
    mtu = make()
    mtu.probes(0.0)
    assert not mtu.acknowledged(info)
    assert mtu.size == 1160


def test_unanswered_probes_are_tried_again_and_then_rest():
    mtu = make()
    now = 0.0
    for _ in range(TRIES):
        probes, again = mtu.probes(now)
        assert probes
        waited, now = again - now, again
    assert waited == RAISE_INTERVAL
    assert mtu.probes(now)[0]


def test_nothing_to_probe_rests_at_once():
    assert make(largest=1160).probes(0.0) == ([], RAISE_INTERVAL)


def test_a_peer_that_does_not_know_pad_gets_no_packets_that_could_break_its_dtls():
    mtu = make()
    mtu.cap_for_unknown_peer()
    sizes = [info_of(probe)[1] for probe in mtu.probes(0.0)[0]]
    assert len(sizes) > 1
    assert max(sizes) <= 1472 - 37


def test_probes_for_a_peer_that_does_not_know_pad_are_of_chunks_that_everybody_knows():
    mtu = make()
    mtu.cap_for_unknown_peer()
    probes = mtu.probes(0.0)[0]
    for probe in probes:
        packet = serialize_packet(1, 1, 1, probe, None)
        kinds = [kind for kind, _, _ in split_chunks_untrusted(packet)]
        assert kinds[0] == ChunkType.HEARTBEAT
        assert set(kinds[1:]) == {ChunkType.COOKIE_ACK}
        size = info_of(probe)[1]
        assert len(packet) == size
        assert mtu.acknowledged(info_of(probe)[0])
        assert mtu.size == size


@pytest.mark.parametrize("path", [1200, 1500, 9000, 65535])
def test_the_association_finds_what_the_path_takes_and_no_more(path):
    link = Link(Conditions(mtu=path - 28 - 37), config=Config(initial_packet_size=1132))
    link.connect()
    link.run(until=link.now + 5)
    found = link.left.association.max_packet_size
    assert found <= path - 28 - 37
    assert found >= min(path, 16384) * 0.9


def test_rfc_8899_section_4_3_falling_back_searches_anew_and_believes_no_older_probe():
    mtu = make()
    probes, _ = mtu.probes(0.0)
    assert mtu.acknowledged(info_of(probes[-1])[0])
    mtu.fall_back(5.0)
    assert mtu.size == 1160
    assert not mtu.acknowledged(info_of(probes[0])[0])
    for _ in range(TRIES):
        again, _ = mtu.probes(6.0)
        assert len(again) == len(probes)
    assert mtu.acknowledged(info_of(again[0])[0])


def sending(**conditions):
    """A link whose path has been found to take the largest packets, and 40 messages under way on it."""
    link = Link(Conditions(rate=5e6, **conditions))
    link.connect()
    link.run(until=link.now + 4)
    assert link.left.association.max_packet_size == 16384
    for number in range(40):
        link.left.association.send(1, 51, bytes([number]) * 100_000)
    link.run(until=link.now + 0.2)
    return link


def finish(link, begun, within):
    link.run(until=begun + within, done=lambda: len(link.right.messages) >= 40)
    assert [m.data[0] for m in link.right.messages if m.stream_id == 1] == list(range(40))
    assert not link.left.association.needs_fragments


def test_rfc_8899_section_4_3_a_path_that_takes_large_packets_no_more_is_noticed_and_the_rest_arrives():
    link = sending()
    begun = link.now
    link.conditions = Conditions(rate=5e6, mtu=1300)
    finish(link, begun, 8)
    link.run(until=link.now + 5)
    assert 1160 < link.left.association.max_packet_size <= 1300


def test_a_path_that_takes_large_packets_no_more_is_noticed_though_small_ones_are_acknowledged():
    link = sending()
    begun = link.now
    link.conditions = Conditions(rate=5e6, mtu=1300)
    for _ in range(400):
        link.left.association.send(2, 51, b"small", unordered=True)
        link.run(until=link.now + 0.01)
        if link.left.association.max_packet_size <= 1300:
            break
    assert link.left.association.max_packet_size <= 1300
    assert link.now - begun < 4
    link.run(until=begun + 20, done=lambda: sum(m.stream_id == 1 for m in link.right.messages) == 40)
    finish(link, begun, 20)


def test_an_outage_costs_the_large_packets_only_until_a_round_trip_after_it():
    link = sending()
    begun = link.now
    link.conditions = Conditions(rate=5e6, outage=(begun - 100, begun - 100 + 4))
    link.run(until=begun + 4)
    assert link.left.association.max_packet_size < 16384
    finish(link, begun, 8)
    link.run(until=link.now + 1)
    assert link.left.association.max_packet_size == 16384


def test_losses_of_large_packets_on_a_path_that_takes_them_change_nothing():
    link = sending()
    link.conditions = Conditions(rate=5e6, loss=0.1)
    link.run(until=link.now + 60, done=lambda: len(link.right.messages) == 40)
    assert link.left.association.max_packet_size == 16384


INITIAL = Config().initial_packet_size


def change_path(link, controller="bbr", largest=16384):
    for endpoint in (link.left, link.right):
        congestion = make_controller(controller, INITIAL - 28, link.random.random)
        endpoint.association.path_changed(congestion, largest, link.now)


def test_another_path_is_searched_anew_while_what_is_on_its_way_arrives():
    link = sending()
    begun = link.now
    link.conditions = Conditions(rate=5e6, mtu=1300)
    change_path(link)
    assert link.left.association.max_packet_size == INITIAL
    finish(link, begun, 8)
    link.run(until=link.now + 1)
    assert INITIAL < link.left.association.max_packet_size <= 1300


def test_a_path_that_takes_larger_packets_than_that_of_a_relay_is_made_use_of():
    link = Link(config=Config(max_packet_size=INITIAL))
    link.connect()
    link.run(until=link.now + 4)
    assert link.left.association.max_packet_size == INITIAL
    change_path(link)
    link.run(until=link.now + 1)
    assert link.left.association.max_packet_size == 16384
