"""What the server counts, for Prometheus. Nothing here has a label by room, client or address.

Counters are plain integers, which cost next to nothing to raise; they become metrics when they are asked for.
"""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from flyx import __version__
from flyx.server.limits import Limit
from flyx.signaling.messages import ErrorCode, Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LAG_INTERVAL = 0.5
"""Seconds between two looks at the loop's lag."""

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_PAUSE_BUCKETS = (0.0001, 0.00025, 0.0005, *_LAG_BUCKETS)
"""Seconds. Nine in ten collections look at young objects alone."""

JOINED = "joined"
LOCAL, REMOTE = "local", "remote"


class Metrics:
    """The counters of one server. They begin at nothing: two servers in one process do not mix.

    Attributes:
        messages: messages received, by type, those that could not be used as "invalid".
        joins: clients that asked to enter a room, by what came of it: JOINED, or the code they were told.
        limits: limits reached.
        transfers: transfers, by outcome, as their receivers tell.
        relays: messages passed on, to clients of this process (LOCAL) and to other nodes (REMOTE).
        slow_consumers: clients closed because they did not read.
        turn_up: the coturn of this server answers; None: it has none.
        turn_starts: how often it was started.
        tunnels: pairs whose datagrams are passed on; None: this server passes on none.
        tunnels_opened: how many there were.
        tunnel_bytes: bytes of datagrams passed on.
        tunnel_drops: datagrams that were not, for want of room.
        pauses: what the garbage collector has taken, while the loop is watched.
    """

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.joins: Counter[str] = Counter({JOINED: 0})
        self.limits: Counter[str] = Counter(dict.fromkeys(Limit, 0))
        self.transfers: Counter[str] = Counter(dict.fromkeys(Outcome, 0))
        self.relays: Counter[str] = Counter({LOCAL: 0, REMOTE: 0})
        self.slow_consumers = 0
        self.turn_up: bool | None = None
        self.turn_starts = 0
        self.tunnels: int | None = None
        self.tunnels_opened = self.tunnel_bytes = self.tunnel_drops = 0
        self.pauses = Pauses()

        self._registry = CollectorRegistry()
        registry = self._registry
        ProcessCollector(registry=registry)
        Info("flyx", "The server.", registry=registry).info({"version": __version__})
        self._rooms = Gauge("flyx_rooms", "Rooms.", registry=registry)
        self._clients = Gauge("flyx_clients", "Clients connected to this process.", registry=registry)
        self._connections = Gauge(
            "flyx_connections", "TCP connections to this process, HTTP included.", registry=registry
        )
        self._queued = Gauge(
            "flyx_queued_bytes", "Bytes that wait for clients of this process.", registry=registry
        )
        self._longest_queue = Gauge(
            "flyx_longest_queue_bytes", "Bytes that wait for the slowest client.", registry=registry
        )
        self._tasks = Gauge(
            "flyx_tasks", "Tasks of the event loop; an idle client has none.", registry=registry
        )
        self._lag = Histogram(
            "flyx_loop_lag_seconds", "How late the event loop is.", registry=registry, buckets=_LAG_BUCKETS
        )
        registry.register(_Plain(self))

    def join_ended(self, refusal: ErrorCode | None) -> None:
        """A client has been let in, or has not."""
        self.joins[JOINED if refusal is None else refusal] += 1

    def limit_reached(self, limit: Limit) -> None:
        """A client has reached a limit."""
        self.limits[limit] += 1

    def transfer_ended(self, outcome: Outcome) -> None:
        """A receiver has told how its transfer went."""
        self.transfers[outcome] += 1

    def expose(self, *, rooms: int, connections: int, tasks: int, queues: Iterable[int]) -> bytes:
        """Return everything in the text format of Prometheus.

        Args:
            rooms: how many there are.
            connections: TCP connections.
            tasks: of the event loop.
            queues: bytes waiting for each client.
        """
        clients = total = longest = 0
        for size in queues:
            clients += 1
            total += size
            longest = max(longest, size)
        self._rooms.set(rooms)
        self._connections.set(connections)
        self._clients.set(clients)
        self._queued.set(total)
        self._longest_queue.set(longest)
        self._tasks.set(tasks)
        return generate_latest(self._registry)

    async def watch_loop(self) -> None:
        """Measure how late the event loop is, and the pauses of the collector, until cancelled."""
        loop = asyncio.get_running_loop()
        gc.callbacks.append(self.pauses.collector_runs)
        try:
            while True:
                due = loop.time() + _LAG_INTERVAL
                await asyncio.sleep(_LAG_INTERVAL)
                self._lag.observe(max(0.0, loop.time() - due))
        finally:
            gc.callbacks.remove(self.pauses.collector_runs)


class Pauses:
    """How long each garbage collection has stopped the process.

    Not a histogram of the library: those take a lock, and a collection may begin in the code that holds it.
    """

    def __init__(self) -> None:
        # For each of _PAUSE_BUCKETS, and beyond.
        self._counts = [0] * (len(_PAUSE_BUCKETS) + 1)
        self._total = 0.0
        # Monotonic seconds; None between two collections.
        self._began: float | None = None

    def collector_runs(self, phase: str, info: dict[str, int]) -> None:
        """A collection begins or is over; for gc.callbacks."""
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        elif self._began is not None:
            pause, self._began = now - self._began, None
            self._counts[bisect_left(_PAUSE_BUCKETS, pause)] += 1
            self._total += pause

    def family(self) -> Metric:
        """Return all of them as a metric."""
        limits = (*map(str, _PAUSE_BUCKETS), "+Inf")
        return HistogramMetricFamily(
            "flyx_gc_pause_seconds",
            "How long a garbage collection stopped the process.",
            buckets=list(zip(limits, accumulate(self._counts), strict=True)),
            sum_value=self._total,
        )


class _Plain:
    """Collects what is counted as plain integers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        counted = self._metrics
        yield _family("flyx_joins", "Clients that asked for a room, by outcome.", "outcome", counted.joins)
        yield _family("flyx_messages", "Messages received, by type.", "type", counted.messages)
        yield _family("flyx_relays", "Messages passed on, by where to.", "path", counted.relays)
        yield _family("flyx_limits", "Limits reached, by limit.", "limit", counted.limits)
        yield _family("flyx_transfers", "Transfers, as receivers tell.", "outcome", counted.transfers)
        yield CounterMetricFamily(
            "flyx_slow_consumers", "Clients closed because they did not read.", value=counted.slow_consumers
        )
        if counted.turn_up is not None:
            yield GaugeMetricFamily(
                "flyx_turn_up", "The coturn of this server answers: 1, or not: 0.", value=counted.turn_up
            )
            yield CounterMetricFamily("flyx_turn_starts", "Starts of coturn.", value=counted.turn_starts)
        if counted.tunnels is not None:
            yield GaugeMetricFamily("flyx_tunnels", "Pairs of --relay.", value=counted.tunnels)
            for name, text, value in (
                ("flyx_tunnels_opened", "Pairs of --relay that were both there.", counted.tunnels_opened),
                ("flyx_tunnel_bytes", "Bytes of their datagrams.", counted.tunnel_bytes),
                ("flyx_tunnel_drops", "Datagrams dropped for want of room.", counted.tunnel_drops),
            ):
                yield CounterMetricFamily(name, text, value=value)
        yield counted.pauses.family()


def _family(name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
