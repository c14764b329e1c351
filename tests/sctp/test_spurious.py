"""flyx/sctp/spurious.py, and what the association makes of it."""

import pytest

from flyx.sctp import chunks
from flyx.sctp.chunks import ChunkType, Sack
from flyx.sctp.config import Config
from flyx.sctp.spurious import SuspectLosses
from tests.sctp.link import Conditions, Link
from tests.sctp.test_association import ByHand, values


def test_a_congestion_event_was_an_error_once_all_of_it_has_arrived():
    suspects = SuspectLosses()
    suspects.lost(10, 3, sent_at=1.0, now=2.0)
    suspects.lost(20, 1, sent_at=1.9, now=2.1)
    suspects.arrived(10, 2)
    assert not suspects.were_none()
    assert suspects.duplicated([12, 99])
    assert not suspects.were_none()
    assert suspects.duplicated([20])
    assert suspects.were_none()
    assert not suspects.were_none()


def test_duplicates_of_other_tsns_and_the_same_one_twice_tell_nothing():
    suspects = SuspectLosses()
    suspects.lost(10, 2, sent_at=1.0, now=2.0)
    assert suspects.duplicated([10])
    assert not suspects.duplicated([10, 12])
    assert not suspects.were_none()


def test_what_left_after_the_event_began_is_another_event():
    suspects = SuspectLosses()
    suspects.lost(10, 2, sent_at=1.0, now=2.0)
    suspects.lost(30, 1, sent_at=2.5, now=3.0)
    suspects.arrived(30, 1)
    assert suspects.were_none()
    suspects.arrived(10, 2)
    assert not suspects.were_none()


def controller(peer):
    return peer.association.transmission._controller


def test_a_window_reduced_for_what_was_only_late_is_restored():
    peer = ByHand().establish()
    peer.association.send(1, 51, bytes(12_000))
    count = len(values(peer.drain(), ChunkType.DATA))
    before = controller(peer).cwnd
    peer.now += 0.05
    peer.give(peer.sack(0, (2, 4)))
    assert len(values(peer.drain(), ChunkType.DATA)) == 1
    assert controller(peer).cwnd < before
    # The original arrives, and then the retransmission.
    peer.now += 0.01
    peer.give(peer.sack(count))
    assert controller(peer).cwnd < before
    sack = Sack((peer.tsn + count - 1) % (1 << 32), 1 << 20, (), [peer.tsn])
    peer.give(chunks.serialize_sack(sack))
    assert controller(peer).cwnd >= before


@pytest.mark.parametrize("name", ["cubic", "bbr"])
def test_a_path_that_is_late_once_costs_no_window(name):
    """A second of standstill: T3 expires, and then all that was sent arrives."""
    link = Link(Conditions(delay=0.02), controller=name, config=Config(max_packet_size=1163))
    link.connect()
    link.run(until=link.now + 4)
    for _ in range(20):
        link.left.association.send(1, 51, bytes(100_000))
    link.run(until=link.now + 0.15)
    before = link.left.association.transmission._controller.cwnd
    held, passing = [], []

    def late(endpoint, packet):
        if endpoint is link.left and packet not in passing:
            held.append(packet)
            return False
        return True

    link.filter = late
    link.run(until=link.now + 0.5)
    assert link.left.association.transmission.failures
    assert link.left.association.transmission._controller.cwnd < before / 2
    passing += held
    for packet in held:
        link._send(link.left, link.right, packet)
    link.filter = lambda _, __: True
    link.run(until=link.now + 0.06)
    assert link.left.association.transmission._controller.cwnd >= before * 0.7
    link.run(until=link.now + 60, done=lambda: len(link.right.messages) == 20)
    assert len(link.right.messages) == 20
