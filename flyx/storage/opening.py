"""Opening and reading a file that may not be what it was when it was looked at."""

from __future__ import annotations

import os

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: a file that became a FIFO must not hang us; it changes nothing about regular files."""


def read_to_end(handle: int, limit: int) -> bytes:
    """Return what can be read of a file, no more than limit bytes."""
    content = bytearray()
    while len(content) < limit and (more := os.read(handle, min(limit - len(content), 1 << 20))):
        content += more
    return bytes(content)
