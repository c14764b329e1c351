"""Whether this node is a member of the service: its lease, its subscription, and the eviction of dead nodes.

    every 3 s    renew the lease (15 s), and probe the own channel
    audit        whenever something may have been missed: the subscription ended, Redis was away, the process
                 stood still. Every replica is then compared with Redis (NodeEvents.audit_due). Every tenth
                 renewal has one without such a reason
    new epoch    Redis has lost data: the audit puts back the rooms of which this node has replicas
    eviction     a node whose lease has run out loses its clients: they are away, and have the grace time to
                 resume. If it had only been frozen, it finds a tombstone under its name at the next renewal,
                 closes its connections and rejoins under another name

If Redis is away the lease is not lost: while no node can reach Redis, none can evict another, so clients of
one node go on talking. A node that stood still for longer than its lease asks before it sends a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

from flyx.server.logs import get_logger
from flyx.server.redis import wire
from flyx.server.redis.backend import LEASE, Backend, Lease, LeaseLost
from flyx.server.redis.interfaces import NodeEvents
from flyx.server.redis.tasks import Tasks
from flyx.server.rooms.store import StoreUnavailable

log = get_logger("flyx.server.redis.membership")

RENEWAL_INTERVAL = 3.0
"""Seconds between renewals of the lease, at most."""

ECHO_TIMEOUT = 1.0
"""Seconds in which a message that this node publishes to itself has to come back."""

_RETRY_INTERVAL = 1.0
"""Seconds between two tries while Redis is away, on average."""

_READY_TIMEOUT = 2.0
"""Seconds that a client waits for a node that is not ready."""

_RENEWALS_PER_AUDIT = 10
"""Renewals from one audit without a reason to the next."""

_LEAST_PAUSE = 0.02
"""Seconds between two renewals, however urgent the next one is."""


class Membership:
    """Knows whether this node may act for the service, and makes it so.

    Attributes:
        away: Redis did not answer the last time.
        subscribed: this node receives what is published on its channel.
    """

    def __init__(
        self,
        backend: Backend,
        tasks: Tasks,
        events: NodeEvents,
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        """Args:
        backend: keeps the lease.
        tasks: run evictions.
        events: told what is found out.
        monotonic: returns seconds that also pass while the process is frozen.
        uniform: draws a number between two, so that nodes do not renew in step.
        """
        self.away = False
        self.subscribed = False
        self._backend = backend
        self._tasks = tasks
        self._events = events
        self._monotonic = monotonic
        self._uniform = uniform
        # Until when the lease is certain to be ours.
        self._leased_until = float("-inf")
        # Something may have been missed since the last audit.
        self._audit_needed = True
        # Redis has lost data, and no audit has put back yet what this node has.
        self._data_lost = False
        self._epoch: str | None = None
        # Since when Redis has answered and the subscription lasted without a break.
        self._stable_since = float("inf")
        self._renewals = 0
        self._probe_numbers = itertools.count()
        self._probe: tuple[int, asyncio.Future[None]] | None = None
        self._evicting: set[str] = set()
        # Set when the next renewal must not wait; and while this node is ready.
        self._urgent = asyncio.Event()
        self._became_ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def leased(self) -> bool:
        """Whether clients of this node may talk to each other: no other node can have evicted it."""
        return self._monotonic() < self._leased_until

    @property
    def ready(self) -> bool:
        """Whether rooms can be changed from here."""
        return self.leased and self.subscribed and not self._audit_needed and not self.away

    async def until_ready(self) -> None:
        """Wait until rooms can be changed from here, for a while.

        Raises:
            StoreUnavailable: They cannot.
        """
        if self.ready:
            return
        if self.away:
            # Others have waited in vain already.
            raise StoreUnavailable("Redis is away")
        self._became_ready.clear()
        self._urgent.set()
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await self._became_ready.wait()
        except TimeoutError as error:
            raise StoreUnavailable("this node is not ready") from error

    async def start(self) -> None:
        """Take a lease if Redis is there, and keep it from now on."""
        await self.renew()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Renew the lease no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            interval = _RETRY_INTERVAL if self.away else RENEWAL_INTERVAL
            pause = interval * (self._uniform(0.5, 1.5) if self.away else self._uniform(0.9, 1.0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._urgent.wait()
            try:
                await self.renew()
            except Exception:
                # Without renewals other nodes evict this one; the next may fare better.
                log.exception("a beat failed")
            await asyncio.sleep(_LEAST_PAUSE)

    def on_subscription(self, subscribed: bool) -> None:
        """The subscription to the channel has begun, or ended."""
        if subscribed != self.subscribed:
            log.info("listening to the channel" if subscribed else "the channel is silent")
        self.subscribed = subscribed
        self._events.lost_touch()
        self.audit_soon()

    def audit_soon(self) -> None:
        """Something may have been missed: until the next audit, now due, this node is not ready."""
        self._audit_needed = True
        self._stable_since = float("inf")
        self._urgent.set()

    # Renewal.

    async def renew(self) -> None:
        """Renew the lease, and see to what turns out to be wrong."""
        self._urgent.clear()
        began = self._monotonic()
        was_leased = self.leased
        try:
            renewal = await self._backend.renew()
            if renewal.lease is Lease.EVICTED:
                self._rejoin()
                renewal = await self._backend.renew()
        except StoreUnavailable as error:
            self._went_away(was_leased, error)
            return
        if self.away:
            log.info("Redis is back")
            self.away = False
            self._audit_needed = True
        if not was_leased or renewal.lease is not Lease.HELD:
            self._audit_needed = True
            # What ended our lease may have ended those of others, who will be a moment later to renew theirs.
            self._stable_since = float("inf")
        if self._epoch is not None and renewal.epoch != self._epoch:
            log.warning("Redis has lost data; putting back the rooms of this node")
            self._data_lost = self._audit_needed = True
        self._epoch = renewal.epoch
        try:
            await self._follow_up(began)
        except LeaseLost:
            self._audit_needed = True
        except StoreUnavailable as error:
            self._went_away(self.leased, error)

    async def _follow_up(self, began: float) -> None:
        self._renewals += 1
        regular = self._renewals % _RENEWALS_PER_AUDIT == 0
        if (self._audit_needed or regular) and self.subscribed:
            # Whatever is missed while the audit goes on sets it anew.
            self._audit_needed = False
            if not await self._events.audit_due(data_lost=self._data_lost):
                self._audit_needed = True
            elif not self._audit_needed:
                self._data_lost = False
                if regular:
                    self._events.audited()
        if self.leased or not self._audit_needed:
            self._leased_until = began + LEASE
        if not self.ready:
            return
        self._became_ready.set()
        self._stable_since = min(self._stable_since, self._monotonic())
        await self.probe()
        await self._events.renewed()

    def _went_away(self, was_leased: bool, error: StoreUnavailable) -> None:
        if not self.away:
            log.warning("Redis is away: new clients are told to come back later", error=str(error))
        self.away = True
        self._stable_since = float("inf")
        if was_leased:
            # No other node can reach Redis to evict this one; if one can, it tells our clients of it.
            self._leased_until = self._monotonic() + LEASE

    def _rejoin(self) -> None:
        """Go on under a new name: under the old one this node was evicted, and its clients are away."""
        log.warning("this node was taken for dead; its clients connect anew")
        self._leased_until = float("-inf")
        self.subscribed = False
        old_name = self._backend.node_id
        self._backend.rename()
        self._events.renamed(old_name)

    # Probing.

    async def probe(self) -> bool:
        """Publish a message to this node and wait for it.

        Returns:
            Whether it came: then all that was published to this node before has come, too, or is known to be
            lost.
        """
        number = next(self._probe_numbers)
        returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probe = (number, returned)
        if await self._backend.publish(self._backend.node_id, wire.encode([wire.PROBE, number])):
            await asyncio.wait([returned], timeout=ECHO_TIMEOUT)
        if not returned.done():
            self.audit_soon()
        return returned.done()

    def probe_returned(self, number: int) -> None:
        """A probe of this node has come back."""
        if self._probe is not None and self._probe[0] == number and not self._probe[1].done():
            self._probe[1].set_result(None)

    # Eviction.

    def suspect(self, node_id: str) -> bool:
        """Evict a node if its lease has run out.

        Returns:
            False if Redis was away from this node until just now: all leases have run out then, and the first
            node that is back must not evict the others.
        """
        if self._monotonic() - self._stable_since < LEASE:
            return False
        if node_id != self._backend.node_id and node_id not in self._evicting:
            self._evicting.add(node_id)
            self._tasks.spawn(self._evict(node_id))
        return True

    async def _evict(self, node_id: str) -> None:
        try:
            room_ids = await self._backend.evict(node_id)
            if room_ids is None:
                return
            if room_ids:
                # One that has stopped in good order has left none.
                log.warning("a node is dead", node=node_id, rooms=len(room_ids))
            await self._events.node_dead(node_id, room_ids)
        finally:
            self._evicting.discard(node_id)
