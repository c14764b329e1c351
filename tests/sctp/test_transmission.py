"""flyx/sctp/transmission.py."""

from flyx.sctp.chunks import Sack, parse_forward_tsn_untrusted
from flyx.sctp.congestion import make_controller
from flyx.sctp.path_mtu import PathMtu
from flyx.sctp.send_queue import OutgoingMessage, SendQueue
from flyx.sctp.timers import Timers
from flyx.sctp.transmission import Peer, Transmission

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
