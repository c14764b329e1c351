"""Reads what flyx.rtc.trace writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from flyx.rtc.trace import Direction


@dataclass(frozen=True)
class Packet:
    """A packet of a capture.

    Attributes:
        association: the number of its interface.
        time: seconds since 1970.
    """

    association: int
    time: float
    direction: Direction
    data: bytes


def read(path: Path) -> list[Packet]:
    """Return the packets of a capture, in order.

    Raises:
        AssertionError: it is none, or ends in the middle of a block.
    """
    rest, packets, interfaces = path.read_bytes(), [], 0
    assert rest[:4] == bytes.fromhex("0a0d0d0a")
    while rest:
        kind, size = struct.unpack_from("<II", rest)
        block, rest = rest[:size], rest[size:]
        assert len(block) == size
        assert struct.unpack_from("<I", block, size - 4) == (size,)
        if kind == 1:
            interfaces += 1
        elif kind == 6:
            interface, high, low, length, original = struct.unpack_from("<5I", block, 8)
            assert interface < interfaces
            assert length == original
            data = block[28 : 28 + length]
            code, _, flags = struct.unpack_from("<HHI", block, 28 + length + -length % 4)
            assert code == 2
            packets.append(Packet(interface, (high << 32 | low) / 1e9, Direction(flags & 3), data))
    return packets
