"""What a measurement comes to, and what limits transfers by it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from flyx.client.limits import Limit

SETTLING = 1 / 3
"""Part of the time in which a transfer finds out how fast it can go: what comes then is not counted."""

MIN_SETTLING = 0.3
"""Seconds below which that part is too short to tell, and everything counts."""


class Part(StrEnum):
    """What is measured."""

    # Written and synced, and read back from the disk.
    DISK_WRITE = "disk_write"
    DISK_READ = "disk_read"
    # Hashing, on one thread.
    SHA256 = "sha256"
    BLAKE3 = "blake3"
    # From one process to another on this computer, memory to memory; and in packets that every path takes.
    TRANSFER = "transfer"
    TRANSFER_1200 = "transfer_1200"
    # From memory here to memory there, and back.
    TO_PEER = "to_peer"
    FROM_PEER = "from_peer"


class Measured(Struct, frozen=True):
    """How fast one part is.

    Attributes:
        bytes: that were moved.
        seconds: that it took, in all.
        rate: bytes a second, once it had found out how fast it can go.
        limit: what kept a transfer from being faster; None if nothing was seen to.
        rtt: round-trip time of the data in seconds, while it flowed; None if it is not known.
        resent: part of what was sent that was sent again because it seemed lost; None if it is not known.
    """

    part: Part
    bytes: int
    seconds: float
    rate: float
    limit: Limit | None = None
    rtt: float | None = None
    resent: float | None = None


_WHOLE = (Part.DISK_WRITE, Part.DISK_READ, Part.TRANSFER)
"""What every byte of a transfer goes through; hashing is a part of `transfer`."""


def slowest(rates: Mapping[Part, float]) -> Part | None:
    """Return which part limits transfers that begin or end on this computer; None if none was measured."""
    return min((part for part in _WHOLE if part in rates), key=lambda part: rates[part], default=None)


def steady_rate(samples: Sequence[tuple[float, int]]) -> float | None:
    """Return the bytes a second of a transfer once it had found its speed; None if it was too short to tell.

    Args:
        samples: monotonic seconds, and bytes that had arrived by then; neither ever goes back.
    """
    if not samples:
        return None
    begun, (end, arrived) = samples[0][0], samples[-1]
    settled = begun + SETTLING * (end - begun)
    if settled - begun < MIN_SETTLING:
        return None
    since, before = next(sample for sample in samples if sample[0] >= settled)
    return (arrived - before) / (end - since) if end > since else None
