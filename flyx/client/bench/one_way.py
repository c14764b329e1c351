"""A measurement in one direction: a transfer as any other, of noise, from memory to memory."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec.structs import replace

from flyx.client import events
from flyx.client.bench import report
from flyx.client.bench.measured import Measured, Part, steady_rate
from flyx.client.bench.noise import Amount, Noise, NoiseDriver
from flyx.client.bench.report import Received, Report
from flyx.client.driver import Driver, DriverContext
from flyx.client.limits import Limit, limit_of_both
from flyx.client.receiving import ReceiveDriver
from flyx.client.serving import StreamReader
from flyx.errors import TransferInterrupted
from flyx.storage.discard import DiscardingDestination
from flyx.storage.single import scan_of_stream
from flyx.transfer.digests import Algorithm
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender

if TYPE_CHECKING:
    from typing import Any

    from flyx.client.link import Link
    from flyx.rtc.channel import Channels

PEER = 1
"""The number of the only peer."""

PATIENCE = 30.0
"""Seconds for one direction, whatever the other side does. What is under way on a slow path when the time is
over comes to some seconds."""

STREAM = "measurement"
"""The name of the stream, which is never shown."""

Tell = Callable[[events.Event], None]


class OneWay:
    """One direction over one connection, and what is seen of it."""

    def __init__(self, link: Link, channels: Channels, tell: Tell) -> None:
        """Args:
        link: whose connection it is.
        channels: of that, free.
        tell: told which path it takes, and how it goes on.
        """
        self._connection = link.connection
        self._channels = channels
        self._tell = tell
        # What both sides can hash with, the fastest first.
        self.algorithms: tuple[Algorithm, ...] = (Algorithm.SHA256,)
        # Set while it is under way.
        self.driver: Driver[Any, Any, Any] | None = None
        # How often each limit was seen, about once a second.
        self._limits: Counter[Limit] = Counter()
        self._condition = events.Condition(PEER, None, None, 0, 0)
        # Seconds, and bytes that had arrived by then.
        self._samples: list[tuple[float, int]] = []
        self._done: events.TransferDone | None = None

    async def send(self, amount: Amount, received: Measured | None = None) -> Measured:
        """Send noise; return what this side has seen.

        Args:
            amount: of noise.
            received: what came of the other direction before, for the other side to know.

        Raises:
            FlyxError: it could not be sent.
        """

        def last_block() -> bytes:
            seen = self._condition
            opposite = received and Received(rate=round(received.rate), limit=received.limit)
            return report.serialize(
                Report(
                    limit=self._limit,
                    rtt=seen.rtt,
                    delivered=seen.delivered,
                    resent=seen.resent,
                    received=opposite or None,
                )
            )

        with ThreadPoolExecutor(1, thread_name_prefix="flyx-noise") as disk:
            manifest = scan_of_stream(STREAM).manifest
            machine = Sender(manifest, max_message_size=self._channels.max_message_size, now=time.monotonic())
            noise = Noise(amount, disk, last_block)
            reader = StreamReader(manifest, noise, PEER)
            machine.release()
            await self._run(NoiseDriver(machine, self._context(disk), reader))
        seen = self._condition
        own = Report(delivered=seen.delivered, resent=seen.resent)
        return self._measured(Part.TO_PEER, self._limit, seen.rtt, own.resent_part)

    async def receive(self) -> tuple[Measured, Report]:
        """Take noise; return what both sides have seen, and what the other side says.

        Raises:
            FlyxError: it did not come, or is none.
        """
        sink = DiscardingDestination(report.MAX_SIZE)
        with ThreadPoolExecutor(1, thread_name_prefix="flyx-noise") as disk:
            machine = Receiver(ask=False, now=time.monotonic(), algorithms=self.algorithms)
            await self._run(ReceiveDriver(machine, self._context(disk), lambda _: sink, None))
        told = report.parse_untrusted(sink.last)
        limit = limit_of_both(report.limit_named(told.limit), self._limit)
        return self._measured(Part.FROM_PEER, limit, told.rtt, told.resent_part), told

    async def _run(self, driver: Driver[Any, Any, Any]) -> None:
        self.driver = driver
        try:
            async with asyncio.timeout(PATIENCE):
                await driver.run()
        except TimeoutError:
            reason = f"the measurement of one direction did not end within {PATIENCE:g} s"
            raise TransferInterrupted(reason=reason, hint="the path may be too slow for it") from None
        finally:
            self.driver = None

    def _context(self, disk: Executor) -> DriverContext:
        return DriverContext(self._connection, self._channels, disk, PEER, self._take)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.PeerConnected():
                self._tell(event)
            case events.Condition(limit=limit):
                self._condition = event
                if limit is not None:
                    self._limits[_without_disks(limit)] += 1
            case events.Progress(bytes=size):
                if self._done is None:
                    self._samples.append((time.monotonic(), size))
                self._tell(event)
            case events.TransferDone():
                self._done = event
            case _:
                # It is noise: no other event means anything.
                pass

    @property
    def _limit(self) -> Limit | None:
        """What this side has seen most often."""
        return max(self._limits, key=lambda limit: self._limits[limit], default=None)

    def _measured(self, part: Part, limit: Limit | None, rtt: float | None, resent: float | None) -> Measured:
        assert self._done is not None, "a transfer that ends without an error is done"
        seconds = max(self._done.seconds, 1e-6)
        rate = steady_rate(self._samples) or self._done.bytes / seconds
        return Measured(part, self._done.bytes, seconds, rate, limit, rtt, resent)


def as_the_other_side_saw(sent: Measured, told: Received) -> Measured:
    """Return what was sent with what the other side says of it: it has counted what arrived."""
    return replace(
        sent,
        rate=float(told.rate) or sent.rate,
        limit=limit_of_both(sent.limit, report.limit_named(told.limit)),
    )


def _without_disks(limit: Limit) -> Limit:
    """Return what a limit is where nothing is written: what looks like a disk is a processor."""
    return Limit.RECEIVERS_CPU if limit is Limit.RECEIVERS_DISK else limit
