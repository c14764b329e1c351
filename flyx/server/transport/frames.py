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
    if len(data) < at + 6 or data[at] != WHOLE_TEXT:
        return None
    size, start = data[at + 1] - 0x80, at + 6
    if size == 126:
        size, start = data[at + 2] << 8 | data[at + 3], at + 8
    elif not 0 <= size < 126:
        return None
    end = start + size
    if end > len(data):
        return None
    return apply_mask(data[start:end], data[start - 4 : start]), end


def size_of_torn_text(data: bytes) -> int:
    """Return how many bytes there are, or at least, of the masked text frame that data is the beginning of.

    0 if data is not the beginning of one, or of one of more than 65,535 bytes.
    """
    if not data or data[0] != WHOLE_TEXT:
        return 0
    # Not more than tells what it is: a frame that no client may send can be shorter than any of these.
    if len(data) < 2:
        return 2
    size = data[1] - 0x80
    if size == 126:
        return 8 + (data[2] << 8 | data[3]) if len(data) >= 4 else 4
    return 6 + size if 0 <= size < 126 else 0


def is_control(data: bytes) -> bool:
    """Tell whether data is one whole frame of a ping or a pong, masked, and nothing else."""
    return len(data) >= 6 and data[0] in _PINGS and len(data) == 6 + data[1] - 0x80
