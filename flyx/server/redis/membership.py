"""Looks after a node: its lease, its channel, and what was lost while either was away.

    every 3 s    renew the lease (15 s), listen to a probe of our own, tell others our last batch's number,
                 and ask for theirs if something may have been missed
    doubt        whenever something may have been missed: the channel broke, Redis was away, the process stood
                 still. Then every copy is compared with Redis, and clients of rooms that changed unheard
                 connect anew. Now and then this happens without any doubt
    new epoch    Redis has lost data: rooms that nodes have copies of are put back
    burial       a node whose lease is over loses its clients: they are away, and have the grace time to
                 return. If it was only frozen, it finds itself buried, sends its clients back and goes on
                 under another name

Redis away is not a lost lease. While nobody can reach Redis, nobody can take a node for dead, so clients of
one node go on talking; a node that stood still for longer than its lease asks before it says a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from flyx.errors import NoSuchRoom
from flyx.server.logs import get_logger
from flyx.server.redis import wire
from flyx.server.redis.backend import Backend, Lease, LeaseLost, RoomState, SharedRoom
from flyx.server.redis.replicas import Replicas
from flyx.server.rooms.store import StoreAway
from flyx.signaling.commands import LoseNode

if TYPE_CHECKING:
    from flyx.server.redis.store import RedisRoomStore

log = get_logger("flyx.server.redis.membership")

# Seconds between renewals, and that a lease lasts; as in scripts.LEASE_MS.
BEAT = 3.0
LEASE = 15.0
# Seconds between two tries while Redis is away, on average.
RETRY = 1.0
# Seconds that a client waits for a node that is not fit to work.
PATIENCE = 2.0
# Beats between two comparisons of copies that nobody doubts.
_AUDIT = 10
# Rooms that are compared in one go.
_CHUNK = 100
# Seconds in which a probe has to come back.
_ECHO = 1.0


class Membership:
    """Knows whether this node is fit to work, and makes it so.

    Attributes:
        away: Redis did not answer the last time.
        hearing: The channel of this node is listened to.
    """

    def __init__(
        self,
        store: RedisRoomStore,
        backend: Backend,
        replicas: Replicas,
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        """Args:
        store: Whose copies these are.
        backend: What all nodes have in common.
        replicas: To be looked after.
        monotonic: Returns seconds that also pass while the process is frozen.
        uniform: Draws a number between two, so that nodes do not beat in step.
        """
        self.away = False
        self.hearing = False
        self._store = store
        self._backend = backend
        self._replicas = replicas
        self._monotonic = monotonic
        self._uniform = uniform
        # Until when the lease is certain to be ours.
        self._good_until = float("-inf")
        # Something may have been missed.
        self._doubtful = True
        # Redis has lost data and not been given back yet what we have.
        self._bereft = False
        self._epoch: str | None = None
        # Since when Redis has answered and our channel been heard without a break.
        self._steady_since = float("inf")
        self._beats = 0
        self._probes = itertools.count()
        self._probe: tuple[int, asyncio.Future[None]] | None = None
        self._burying: set[str] = set()
        # Set when the next beat must not wait; and while this node is fit.
        self._hurry = asyncio.Event()
        self._fit = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def sound(self) -> bool:
        """Whether clients of this node may talk to each other: nobody can have taken it for dead."""
        return self._monotonic() < self._good_until

    @property
    def ready(self) -> bool:
        """Whether rooms can be changed from here."""
        return self.sound and self.hearing and not self._doubtful and not self.away

    async def fit(self) -> None:
        """Wait until rooms can be changed from here, for a while.

        Raises:
            StoreAway: They cannot.
        """
        if self.ready:
            return
        if self.away:
            # Others have waited in vain already.
            raise StoreAway("Redis is away")
        self._fit.clear()
        self._hurry.set()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._fit.wait()
        except TimeoutError as exc:
            raise StoreAway("this node is not ready") from exc

    async def start(self) -> None:
        """Take a lease if Redis is there, and look after it from now on."""
        await self.beat()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look after nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            pause = RETRY * self._uniform(0.5, 1.5) if self.away else BEAT * self._uniform(0.9, 1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            try:
                await self.beat()
            except Exception:
                # A node without a heart dies for its peers; the next beat may fare better.
                log.exception("a beat failed")
            # Hurry, but not in circles.
            await asyncio.sleep(0.02)

    def on_subscription(self, hearing: bool) -> None:
        """The channel is listened to, or no longer."""
        if hearing != self.hearing:
            log.info("listening to the channel" if hearing else "the channel is silent")
        self.hearing = hearing
        self._store.lose_touch()
        self.doubt()

    def on_probe(self, number: int) -> None:
        """A probe of ours has come back."""
        if self._probe is not None and self._probe[0] == number and not self._probe[1].done():
            self._probe[1].set_result(None)

    def doubt(self) -> None:
        """Something may have been missed: look as soon as possible."""
        self._doubtful = True
        self._steady_since = float("inf")
        self._hurry.set()

    # The beat.

    async def beat(self) -> None:
        """Renew the lease, and see to what turns out to be wrong."""
        self._hurry.clear()
        began = self._monotonic()
        was_sound = self.sound
        try:
            pulse = await self._backend.renew()
            if pulse.lease is Lease.EVICTED:
                self._rise_again()
                pulse = await self._backend.renew()
        except StoreAway as exc:
            self._miss(was_sound, exc)
            return
        if self.away:
            log.info("Redis is back")
            self.away = False
            self._doubtful = True
        if not was_sound or pulse.lease is not Lease.HELD:
            self._doubtful = True
            # What ended our lease may have ended those of others, who will be a moment later to renew theirs.
            self._steady_since = float("inf")
        if self._epoch is not None and pulse.epoch != self._epoch:
            log.warning("Redis has lost data; putting back the rooms of this node")
            self._bereft = self._doubtful = True
        self._epoch = pulse.epoch
        try:
            await self._look(began)
        except LeaseLost:
            self._doubtful = True
        except StoreAway as exc:
            self._miss(self.sound, exc)

    async def _look(self, began: float) -> None:
        self._beats += 1
        audit = self._beats % _AUDIT == 0
        if (self._doubtful or audit) and self.hearing:
            self._doubtful = False
            if not await self._compare():
                self._doubtful = True
            elif not self._doubtful:
                self._bereft = False
                if audit:
                    self._store.make_up()
        if self.sound or not self._doubtful:
            self._good_until = began + LEASE
        if not self.ready:
            return
        self._fit.set()
        self._steady_since = min(self._steady_since, self._monotonic())
        await self._probe_channel()
        await self._store.compare_notes()

    def _miss(self, was_sound: bool, exc: StoreAway) -> None:
        if not self.away:
            log.warning("Redis is away: new clients are told to come back later", error=str(exc))
        self.away = True
        self._steady_since = float("inf")
        if was_sound:
            # Nobody else can reach it to take us for dead, or they can and our clients are told so elsewhere.
            self._good_until = self._monotonic() + LEASE

    def _rise_again(self) -> None:
        """This node was taken for dead: its clients are away in their rooms, and have to come back."""
        log.warning("this node was taken for dead; its clients connect anew")
        for entry in self._replicas.entries():
            self._store.close_buried(entry, self._backend.node_id)
        self._good_until = float("-inf")
        self.hearing = False
        self._backend.rename()
        self._store.start_over()

    # Comparing.

    async def _probe_channel(self) -> bool:
        """Say something to ourselves; False if we do not hear it."""
        number = next(self._probes)
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probe = (number, heard)
        if await self._backend.publish(self._backend.node_id, wire.encode([wire.PROBE, number])):
            await asyncio.wait([heard], timeout=_ECHO)
        if not heard.done():
            self.doubt()
        return heard.done()

    async def _compare(self) -> bool:
        """Compare every copy with Redis and set right what differs; False if that cannot be done now."""
        entries = self._replicas.entries()
        found: list[RoomState | None] = []
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            found += await self._backend.states([entry.room.room_id for entry in chunk])
        # What was under way in our channel when Redis answered has arrived once this has.
        if not await self._probe_channel():
            return False
        for entry, state in zip(entries, found, strict=True):
            await self._set_right(entry, state)
        return True

    async def _set_right(self, seen: SharedRoom, found: RoomState | None) -> None:
        room_id = seen.room.room_id
        entry = self._replicas.known(room_id)
        if entry is None or found == entry.state:
            return
        if found is None:
            if entry is not seen:
                return
            if not (self._bereft and await self._backend.restore(entry, self._store.budget)):
                await self._store.refresh(room_id)
        elif found[0] == entry.incarnation and found[1] < entry.version:
            # We know of more than Redis: it went back in time, or we have been told since it answered.
            if entry is seen and not await self._backend.restore(entry, self._store.budget):
                await self._store.refresh(room_id)
        else:
            await self._store.refresh(room_id)

    # Burials.

    def suspect(self, node_id: str) -> bool:
        """Bury a node if it is dead; False if we have been away ourselves until just now.

        When Redis was away all leases ran out, and whoever comes back first must not bury the others.
        """
        if self._monotonic() - self._steady_since < LEASE:
            return False
        if node_id != self._backend.node_id and node_id not in self._burying:
            self._burying.add(node_id)
            self._store.spawn(self._bury(node_id))
        return True

    async def _bury(self, node_id: str) -> None:
        try:
            room_ids = await self._backend.evict(node_id)
            if room_ids is None:
                return
            if room_ids:
                # One that has stopped in good order has left none.
                log.warning("a node is dead", node=node_id, rooms=len(room_ids))
            await self._lose(node_id, room_ids)
            await self._backend.forget(node_id)
            await self._store.forget_node(node_id)
        finally:
            self._burying.discard(node_id)

    async def _lose(self, node_id: str, room_ids: Collection[str]) -> None:
        for room_id in room_ids:
            with contextlib.suppress(NoSuchRoom):
                await self._store.perform(room_id, LoseNode(node_id, "its server is gone"))
