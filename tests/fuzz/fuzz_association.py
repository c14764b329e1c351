"""Packets to an SCTP association.

The input is a list of packets, each led by its length in two bytes, whose high bit asks for a valid header:
our tag, and no checksum, as under DTLS. A receive buffer beyond its bounds is a finding, and so is a sender
that never stops.
"""

from __future__ import annotations

import random

from flyx.sctp.association import State
from flyx.sctp.config import Config
from tests.fuzz.target import Target
from tests.sctp.link import Conditions, Link

CONFIG = Config(max_packet_size=1163, receive_window=100_000, max_message_size=50_000)


def established() -> tuple[Link, bytes]:
    """Return a link and the header that the right side takes."""
    link = Link(Conditions(delay=0.01), config=CONFIG, initial_bits=random.Random(1).getrandbits)
    headers: list[bytes] = []
    link.filter = lambda endpoint, packet: endpoint is link.right or headers.append(packet[:8]) is None
    link.connect()
    link.left.association.send(1, 51, bytes(3000))
    link.run(until=link.now + 0.2)
    # What the right side has on the way, so that there is something to acknowledge.
    link.right.association.send(1, 51, bytes(9000))
    link.right.association.send(2, 51, bytes(900), max_retransmits=0)
    link.right.association.reset_streams([1])
    link.right.association.packets_to_send(link.now)
    return link, headers[-1] + bytes(4)


def one_input(data: bytes) -> None:
    """Feed one input to a fresh association."""
    link, header = established()
    association = link.right.association
    position = 0
    while position + 2 <= len(data):
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + 2 + (length & 0x3FF)]
        position += 2 + len(body)
        association.receive_packets([header + body if length & 0x8000 else body], link.now)
        if length & 0x4000:
            link.now += 0.3
            association.handle_timeout(link.now)
        for _ in range(100):
            if len(association.packets_to_send(link.now)) < 256:
                break
        else:
            raise AssertionError("it never stops sending")
        association.take_messages()
        reception = association._reception
        if reception and association.state is not State.CLOSED:
            assert reception._reassembly.size <= CONFIG.receive_window + CONFIG.max_message_size


TARGETS = {"association": Target(one_input, base=40_000, per_byte=100)}
