"""WebSocket frames that are whole messages (RFC 6455 §5.2), as nearly all are, read and written at once.

All others are left to `websockets`.
"""

from __future__ import annotations

import struct

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

WHOLE_TEXT, WHOLE_BINARY = 0x81, 0x82
"""The first byte of a text frame that is a whole message, and of a binary one (RFC 6455 §5.2)."""

_MASKED = 0x80
"""The flag of a mask in the second byte of a frame; the rest of that byte tells the size of the payload."""

_LONGER = _MASKED | 126
"""That byte if the size is in the two bytes that follow."""

_PINGS = (0x89, 0x8A)
"""The first byte of a ping, and of a pong."""


def text_frame(payload: bytes) -> bytes:
    """Return a text frame that is a whole message, not masked, as `websockets` would."""
    return whole_frame(WHOLE_TEXT, payload)


def whole_frame(first: int, payload: bytes) -> bytes:
    """Return a frame of this first byte, not masked."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", first, size) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def text_in(data: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the payload of the masked text frame at this place, and where it ends.

    None if something else is there, it is not all there, or it has more than 65,535 bytes.
    """
    size = size_of_text(data, at)
    end = at + size
    if not size or end > len(data):
        return None
    start = at + (8 if data[at + 1] == _LONGER else 6)
    return apply_mask(data[start:end], data[start - 4 : start]), end


def size_of_text(data: bytes, at: int) -> int:
    """Return how many bytes the masked text frame has whose beginning, or all of it, is at this place.

    While too few are there to tell that: how many would tell. 0 if something else is there, or a frame whose
    payload has more than 65,535 bytes.
    """
    there = len(data) - at
    if there < 1 or data[at] != WHOLE_TEXT:
        return 0
    # Not more than tells what it is: a frame that no client may send can be shorter than any of these.
    if there < 2:
        return 2
    second = data[at + 1]
    if second == _LONGER:
        return 8 + (data[at + 2] << 8 | data[at + 3]) if there >= 4 else 4
    return 6 + second - _MASKED if _MASKED <= second < _LONGER else 0


def is_control(data: bytes) -> bool:
    """Tell whether data is one whole frame of a ping or a pong, masked, and nothing else."""
    return len(data) >= 6 and data[0] in _PINGS and len(data) == 6 + data[1] - _MASKED
