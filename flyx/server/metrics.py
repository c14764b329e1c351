"""What the server counts, for Prometheus. Nothing here has a label by room, client or address.

What is counted for each message is a plain integer that is read when somebody asks; the rest are metrics of
the client library, with their children made once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, Metric

from flyx import __version__
from flyx.server.limits import Limit
from flyx.signaling.messages import ErrorCode, Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds between two looks at the loop's lag.
_LAG_INTERVAL = 0.5
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

JOINED = "joined"


class Metrics:
    """The counters of one server. They begin at nothing: two servers in one process do not mix.

    Attributes:
        messages: Messages received, by type, those that could not be used as "invalid".
        relayed_locally: Messages passed on to clients of this process.
        relayed_remotely: Messages passed on to other nodes.
    """

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.relayed_locally = 0
        self.relayed_remotely = 0

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
        joins = PrometheusCounter(
            "flyx_joins",
            "Clients that asked to enter a room, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        self._joins = {outcome: joins.labels(outcome) for outcome in (JOINED, *ErrorCode)}
        limits = PrometheusCounter("flyx_limits", "Limits reached, by limit.", ["limit"], registry=registry)
        self._limits = {limit: limits.labels(limit) for limit in Limit}
        transfers = PrometheusCounter(
            "flyx_transfers",
            "Transfers, by outcome, as their receivers tell.",
            ["outcome"],
            registry=registry,
        )
        self._transfers = {outcome: transfers.labels(outcome) for outcome in Outcome}
        self._slow_consumers = PrometheusCounter(
            "flyx_slow_consumers", "Clients closed because they did not read.", registry=registry
        )
        self._lag = Histogram(
            "flyx_loop_lag_seconds", "How late the event loop is.", registry=registry, buckets=_LAG_BUCKETS
        )
        registry.register(_Plain(self))

    def join_ended(self, refusal: ErrorCode | None) -> None:
        """A client has been let in, or has not."""
        self._joins[JOINED if refusal is None else refusal].inc()

    def limit_reached(self, limit: Limit) -> None:
        """Somebody was told to ask for less."""
        self._limits[limit].inc()

    def transfer_ended(self, outcome: Outcome) -> None:
        """A receiver has told how its transfer went."""
        self._transfers[outcome].inc()

    def client_was_slow(self) -> None:
        """A client is closed because what is for it piles up."""
        self._slow_consumers.inc()

    def expose(self, *, rooms: int, connections: int, queues: Iterable[int]) -> bytes:
        """Return everything in the text format of Prometheus.

        Args:
            rooms: How many there are.
            connections: TCP connections.
            queues: Bytes waiting for each client.
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
        return generate_latest(self._registry)

    async def watch_loop(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL
            await asyncio.sleep(_LAG_INTERVAL)
            self._lag.observe(max(0.0, loop.time() - due))


class _Plain:
    """Collects what is counted as plain integers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        messages = CounterMetricFamily("flyx_messages", "Messages received, by type.", labels=["type"])
        for kind, count in sorted(self._metrics.messages.items()):
            messages.add_metric([kind], count)
        yield messages
        relays = CounterMetricFamily("flyx_relays", "Messages passed on, by where to.", labels=["path"])
        relays.add_metric(["local"], self._metrics.relayed_locally)
        relays.add_metric(["remote"], self._metrics.relayed_remotely)
        yield relays
