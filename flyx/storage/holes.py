"""Holes: parts of a file where nothing is stored, and which read as zeros.

They are told from zeros that are stored: those are data. A filesystem that cannot say where its holes are has
none.
"""

from __future__ import annotations

import errno
import os

from flyx.transfer.manifest import BLOCK_SIZE

_CAN_SEEK = hasattr(os, "SEEK_DATA")


def may_have_holes(status: os.stat_result) -> bool:
    """Whether a file takes less room than it is long; if not, it is not worth asking."""
    return _CAN_SEEK and status.st_blocks * 512 < status.st_size


def is_hole(handle: int, offset: int, length: int) -> bool:
    """Whether these bytes, at least one and all within the file, are in holes."""
    return _next(handle, offset, os.SEEK_DATA, offset + length) >= offset + length


def bytes_in_holes(handle: int, size: int) -> int:
    """Return how many bytes of a file of this size are in blocks of which is_hole() is true.

    Takes one or two system calls for each run of blocks that are holes.
    """
    found = offset = 0
    while offset < size:
        data = _next(handle, offset, os.SEEK_DATA, size)
        # Up to the block that has data, or all of the rest.
        end = size if data >= size else data - data % BLOCK_SIZE
        found += max(0, end - offset)
        if data >= size:
            break
        hole = _next(handle, data, os.SEEK_HOLE, size)
        offset = -(-hole // BLOCK_SIZE) * BLOCK_SIZE
    return found


def _next(handle: int, offset: int, what: int, end: int) -> int:
    """Return where the next data is, or hole, from offset on; end if it is not before."""
    try:
        return min(os.lseek(handle, offset, what), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        # All is data, then, to its end.
        return offset if what == os.SEEK_DATA else end
