"""How fast a disk takes and gives what a transfer writes and reads. Blocking, for a thread."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from msgspec import Struct

from flyx.storage.blocks import BlockWriter
from flyx.storage.durability import Durability
from flyx.transfer.manifest import BLOCK_SIZE


class DiskSpeed(Struct, frozen=True):
    """Bytes, and the seconds that they took.

    Attributes:
        free: bytes that were free before.
        written: bytes; their seconds include the sync at the end.
        read: bytes, from the disk and not from the page cache; 0 if nothing was to be read.
    """

    free: int
    written: int
    write_seconds: float
    read: int = 0
    read_seconds: float = 0.0

    @property
    def write_rate(self) -> float:
        """Bytes a second."""
        return self.written / max(1e-6, self.write_seconds)


def measure_disk(directory: Path, size: int, seconds: float, *, reads: bool) -> DiskSpeed:
    """Write a file as a receiver does, and read it back.

    It takes half of the free space at most, has no name that could be left behind, and is gone at the end.

    Args:
        directory: must exist.
        size: bytes at most; as of a file of this size, they go past the page cache if it is large.
        seconds: after which no more blocks are begun, to write and to read.
        reads: read it back.

    Raises:
        OSError: it cannot be written there.
    """
    blocks, noise = BlockWriter(), os.urandom(BLOCK_SIZE)
    with tempfile.TemporaryFile(dir=directory, prefix=".flyx-speed-", buffering=0) as file:
        handle = file.fileno()
        free = shutil.disk_usage(directory).free
        size = min(size, free // 2)
        begun = time.monotonic()
        written = 0
        while written < size and time.monotonic() - begun < seconds:
            block = blocks.gather([noise[: size - written]])
            blocks.write(handle, written, block, size)
            written += len(block)
        Durability().sync([handle])
        write_seconds = time.monotonic() - begun
        if not reads:
            return DiskSpeed(free, written, write_seconds)
        begun = time.monotonic()
        read = 0
        while read < written and time.monotonic() - begun < seconds:
            read += len(blocks.read_back(handle, read, min(BLOCK_SIZE, written - read)))
        return DiskSpeed(free, written, write_seconds, read, time.monotonic() - begun)
