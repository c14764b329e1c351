"""This computer: its disk, and how fast it hashes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flyx.client.bench.measured import Measured, Part
from flyx.client.threads import on_daemon
from flyx.storage.failures import write_error
from flyx.storage.speed import measure_disk
from flyx.transfer.digests import Algorithm
from flyx.transfer.manifest import BLOCK_SIZE

DISK_TIME = 2.0
"""Seconds of writing, and of reading, at most."""

HASH_TIME = 0.3
"""Seconds of each hash."""

HASHES: Mapping[Part, Callable[[bytes], bytes]] = {
    Part.SHA256: Algorithm.SHA256.digest,
    Part.BLAKE3: Algorithm.BLAKE3.digest,
}
"""What blocks are hashed by, in the order of the report."""


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def bench_disk(directory: Path, size: int) -> list[Measured]:
    """Write to the disk of a directory, or of the next one above it that exists, and read that back.

    Raises:
        FlyxError: it is full, or cannot be written to.
    """
    return await on_daemon(lambda: _bench_disk(directory.absolute(), size))


def _bench_disk(directory: Path, size: int) -> list[Measured]:
    # A receiver makes what is missing.
    existing = next(each for each in (directory, *directory.parents) if each.is_dir())
    try:
        speed = measure_disk(existing, size, DISK_TIME, reads=True)
        if not speed.written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise write_error(error, "write to", existing, existing, size) from error
    return [
        _measured(Part.DISK_WRITE, speed.written, speed.write_seconds),
        _measured(Part.DISK_READ, speed.read, speed.read_seconds),
    ]


async def bench_hash(part: Part) -> Measured:
    """Hash blocks on one thread, as a transfer does."""
    return await on_daemon(lambda: _hash(part))


def _hash(part: Part) -> Measured:
    digest, block = HASHES[part], os.urandom(BLOCK_SIZE)
    begun = now = time.monotonic()
    hashed = 0
    while now - begun < HASH_TIME:
        digest(block)
        hashed += len(block)
        now = time.monotonic()
    return _measured(part, hashed, now - begun)


def _measured(part: Part, size: int, seconds: float) -> Measured:
    seconds = max(seconds, 1e-6)
    return Measured(part, size, seconds, size / seconds)
