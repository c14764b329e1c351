"""What keeps a transfer from being faster: a disk, the network, a processor, or the rate of --limit. Pure.

Each side sees what it waits for. A sender that has nothing to send waits for its own disk; if its data
channel is full, for the network; if its credit is used up, for the receiver's disk, which gives more as it
writes; if it is held to a rate, for the time of the next portion. A receiver sees how much of the time its
disk writes, and how near the bytes that arrive come to the rate. Either side sees how busy its event loop is:
if that never rests, all else waits for it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Cause(StrEnum):
    """What a side waits for."""

    # Its own disk: to read, or to write.
    DISK = "disk"
    # The data channel, which is full.
    NETWORK = "network"
    # The other side's leave to send more.
    CREDIT = "credit"
    # The time at which it may send more, by the rate that it is held to.
    RATE = "rate"
    # A thread of its own that compresses.
    COMPRESSION = "compression"


class Limit(StrEnum):
    """What keeps a transfer from being faster."""

    SENDERS_DISK = "sender's disk"
    SENDERS_CPU = "sender's CPU"
    NETWORK = "network"
    RECEIVERS_DISK = "receiver's disk"
    RECEIVERS_CPU = "receiver's CPU"
    # That of --limit, at either side.
    RATE = "rate limit"


BUSY = 0.9
"""Share of the time from which on a processor, or a receiver's disk, is the limit: the rest is for others."""

MOSTLY = 0.5
"""Share of the time that a sender waits for one thing, from which on that is the limit."""


NEARLY = 0.8
"""Share of the rate that both sides keep to from which on that is the limit: what arrives within a second is
never exactly what left."""


class Shares(Struct, frozen=True):
    """How a side has spent some time: shares of 0 to 1 of it.

    Attributes:
        waiting: for each cause.
        cpu: what its event loop has computed, or waited for a processor; other waits may be at the same time.
        seconds: the time itself.
    """

    waiting: dict[Cause, float]
    cpu: float
    seconds: float


class Waits:
    """Adds up what a side waits for. Times are seconds, of one clock that never goes back."""

    def __init__(self, now: float, cpu: float) -> None:
        """Args:
        now: the time.
        cpu: seconds that the event loop has been busy until now (flyx.client.processor).
        """
        self._begun, self._cpu = now, cpu
        self._since = now
        self._cause: Cause | None = None
        self._seconds = dict.fromkeys(Cause, 0.0)

    def wait_for(self, cause: Cause | None, now: float) -> None:
        """From now on this is what is waited for; None if nothing is."""
        if self._cause is not None:
            self._seconds[self._cause] += now - self._since
        self._cause, self._since = cause, now

    def shares(self, now: float, cpu: float) -> Shares | None:
        """Return how the time was spent since the last call, and begin anew; None if there was no time."""
        self.wait_for(self._cause, now)
        elapsed, computed = now - self._begun, cpu - self._cpu
        seconds, self._seconds = self._seconds, dict.fromkeys(Cause, 0.0)
        self._begun, self._cpu = now, cpu
        if elapsed <= 0:
            return None
        waiting = {cause: min(1.0, share / elapsed) for cause, share in seconds.items()}
        return Shares(waiting, min(1.0, max(0.0, computed / elapsed)), elapsed)


def senders_limit(shares: Shares) -> Limit | None:
    """Return what limits a sender's transfer; None if nothing does for most of the time."""
    if shares.cpu >= BUSY:
        return Limit.SENDERS_CPU
    cause, share = max(shares.waiting.items(), key=lambda item: item[1])
    if share < MOSTLY:
        return None
    return {
        Cause.DISK: Limit.SENDERS_DISK,
        Cause.NETWORK: Limit.NETWORK,
        Cause.CREDIT: Limit.RECEIVERS_DISK,
        Cause.RATE: Limit.RATE,
        Cause.COMPRESSION: Limit.SENDERS_CPU,
    }[cause]


def limit_of_both(sender: Limit | None, receiver: Limit | None) -> Limit | None:
    """Return what limits a transfer, by what each side of it sees (senders_limit(), receivers_limit()).

    A receiver that cannot follow is, to the sender, a network that takes no more; and a receiver that can
    sees no limit.
    """
    return receiver or sender


def receivers_limit(shares: Shares, arrived: int, rate: int | None) -> Limit | None:
    """Return what limits a transfer at its receiver; None if that is not here, but before.

    Args:
        shares: how it has spent its time.
        arrived: data bytes in that time.
        rate: bytes a second that the sender keeps to; None: it is held to none.
    """
    if shares.cpu >= BUSY:
        return Limit.RECEIVERS_CPU
    if shares.waiting[Cause.DISK] >= BUSY:
        return Limit.RECEIVERS_DISK
    return Limit.RATE if rate is not None and arrived >= NEARLY * rate * shares.seconds else None
