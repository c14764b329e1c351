"""flyx/sctp/path_mtu.py, and how the association uses it."""

import pytest

from flyx.sctp.config import Config
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
    mtu.spare_stranger()
    sizes = [info_of(probe)[1] for probe in mtu.probes(0.0)[0]]
    assert len(sizes) > 1
    assert max(sizes) <= 1472 - 37


@pytest.mark.parametrize("path", [1200, 1500, 9000, 65535])
def test_the_association_finds_what_the_path_takes_and_no_more(path):
    link = Link(Conditions(mtu=path - 28 - 37), config=Config(initial_packet_size=1132))
    link.connect()
    link.run(until=link.now + 5)
    found = link.left.association.max_packet_size
    assert found <= path - 28 - 37
    assert found >= min(path, 16384) * 0.9
