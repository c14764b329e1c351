"""The receiving half: its hot path beside the slow one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.sctp.config import Config
from flyx.sctp.data_chunk import BEGINNING, DATA_PACKET_HEADER, ENDING
from flyx.sctp.packet import COMMON_HEADER, split_chunks_untrusted
from flyx.sctp.reception import Reception
from flyx.sctp.timers import Timers

TAG = 0x11223344
FIRST_TSN = (1 << 32) - 6
MISHAPS = ["lost", "repeated", "swapped", "other header", "longer", "shorter"]
# Of the tag, the flags, the TSN, the stream, the SSN, the PPID.
HEADER_BYTES = st.sampled_from([7, 13, 19, 21, 23, 27])
CONFIG = Config(max_message_size=400)


def packet(tsn: int, flags: int, size: int, ssn: int = 0) -> bytes:
    """A packet with one DATA chunk, padded."""
    header = DATA_PACKET_HEADER.pack(5000, 5000, TAG, 0, 0, flags, 16 + size, tsn % (1 << 32), 1, ssn, 53)
    return header + bytes((tsn + at) % 256 for at in range(size)) + bytes(-size % 4)


def take_slowly(reception: Reception, arrived: bytes) -> None:
    for _, flags, value in split_chunks_untrusted(arrived):
        reception.receive_data(flags, value)
    reception.packet_done()


def feed(reception: Reception, packets: list[bytes], *, fast: bool) -> list[object]:
    """Take packets as an association does; return all that can be seen of it."""
    index = 0
    try:
        while index < len(packets):
            if fast:
                index = reception.take_packets(packets, index, TAG)
                if index == len(packets):
                    break
            if COMMON_HEADER.unpack_from(packets[index])[2] == TAG:
                take_slowly(reception, packets[index])
            index += 1
    except RemoteProtocolError:
        return ["refused"]
    reception.sack_due()
    return [reception.cumulative, reception.take_messages(), reception.sacks(0.0)]


@given(st.data())
def test_the_hot_path_takes_what_the_slow_one_takes(data: st.DataObject) -> None:
    """Mostly fragments of equal size in order, some of which are lost, repeated, or differ in something."""
    packets: list[bytes] = []
    tsn = FIRST_TSN
    for ssn in range(data.draw(st.integers(1, 4))):
        count = data.draw(st.integers(1, 9))
        size = data.draw(st.sampled_from([1, 4, 40, 100]))
        for number in range(count):
            flags = BEGINNING * (number == 0) | ENDING * (number == count - 1)
            packets.append(packet(tsn, flags, size, ssn))
            tsn += 1
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(packets) - 1))
        match data.draw(st.sampled_from(MISHAPS)):
            case "lost":
                del packets[at : at + 1]
            case "repeated":
                packets.insert(at, packets[at])
            case "swapped":
                packets[at - 1], packets[at] = packets[at], packets[at - 1]
            case "other header":
                changed = bytearray(packets[at])
                changed[data.draw(HEADER_BYTES)] ^= 1 << data.draw(st.integers(0, 2))
                packets[at] = bytes(changed)
            case "longer":
                packets[at] += bytes(4)
            case "shorter":
                packets[at] = packet(FIRST_TSN + at, 0, 3)
        if not packets:
            return
    slow, fast = (Reception(FIRST_TSN, CONFIG, Timers()) for _ in range(2))
    assert feed(fast, packets, fast=True) == feed(slow, packets, fast=False)


def test_the_hot_path_takes_the_middle_of_a_message_whole() -> None:
    reception = Reception(FIRST_TSN, CONFIG, Timers())
    first, *others = [packet(FIRST_TSN + n, BEGINNING * (n == 0), 40) for n in range(10)]
    feed(reception, [first], fast=False)
    assert reception.take_packets(others, 0, TAG) == len(others)
    assert reception.cumulative == FIRST_TSN + 9


def test_the_hot_path_refuses_a_message_longer_than_may_be() -> None:
    reception = Reception(FIRST_TSN, CONFIG, Timers())
    packets = [packet(FIRST_TSN + n, BEGINNING * (n == 0), 40) for n in range(11)]
    assert feed(reception, packets, fast=True) == ["refused"]


def test_a_packet_alone_is_acknowledged_at_once_if_it_ends_a_message() -> None:
    """Its sender may have nothing else to send before it has the SACK: stock aiortc, for one."""
    reception = Reception(FIRST_TSN, CONFIG, Timers())

    def is_acknowledged(arrived: bytes) -> bool:
        take_slowly(reception, arrived)
        reception.schedule_sack(0.0)
        return bool(reception.sacks(0.0))

    assert not is_acknowledged(packet(FIRST_TSN, BEGINNING, 40))
    assert is_acknowledged(packet(FIRST_TSN + 1, 0, 40))
    assert is_acknowledged(packet(FIRST_TSN + 2, ENDING, 40))
    assert not is_acknowledged(packet(FIRST_TSN + 3, BEGINNING, 40, 1))
