"""What clients may ask of the server, and what they have asked so far.

    ConnectionCounter   connections at a time, in all and for each address: a ConnectionSlot each
    RateLimits          creating rooms, entering them, looking for rooms that are not there
    TokenBucket         messages of one connection
    PairBook            offers, answers and candidates: PairLimits for each client

Addresses are counted, never logged: `address_key` is what stands for one here. Rates are those of the library
`limits`, over any of its asynchronous storages; WindowStorage is the one for a single process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice
from math import ceil

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from flyx.errors import printable
from flyx.server.config import LimitConfig
from flyx.signaling.members import MAX_ADDRESS_LENGTH

_MAX_WINDOWS = 100_000
"""Of the windows that are kept, and of the peers, how many at most.

An attacker with many addresses must not fill the memory.
"""

_REMEMBERED = 4096
"""Addresses whose key need not be worked out anew: each connection asks for it twice."""


class Limit(StrEnum):
    """What a client has had too much of. The values are the labels of a metric."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_ADDRESS = "connections_per_address"
    CREATE = "create"
    PERSISTENT = "persistent"
    JOIN = "join"
    MISS = "miss"
    MESSAGES = "messages"
    OFFERS = "offers"
    CANDIDATES = "candidates"
    HANDSHAKE = "handshake"
    CONTROL_FRAMES = "control_frames"
    FRAGMENTS = "fragments"
    TUNNELS = "tunnels"
    TUNNELS_PER_ADDRESS = "tunnels_per_address"


class LimitReached(Exception):
    """No more of this for now.

    Attributes:
        limit: which one.
        retry_after: whole seconds after which it may be asked again.
    """

    def __init__(self, limit: Limit, retry_after: int, reason: str) -> None:
        super().__init__(reason)
        self.limit = limit
        self.retry_after = retry_after
        self.reason = reason


@lru_cache(_REMEMBERED)
def address_key(host: str) -> str:
    """Return what an address counts as: an IPv4 address as itself, an IPv6 address as its network of 64 bits.

    A host that has one IPv6 address has 2^64 of them. What is no address, such as a Unix socket, is one
    client.
    """
    # An interface may follow an IPv6 address (RFC 4007 §11).
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        # A proxy may have been told anything.
        return printable(host)[:MAX_ADDRESS_LENGTH]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, 64), strict=False))


class ConnectionSlot:
    """One connection, as it is counted. It needs its release(), whatever became of it.

    Attributes:
        exceeds: the limit that it is beyond; None: welcome. Those beyond one are told so and sent away.
        proxied: it comes from a proxy, which speaks for others.
    """

    __slots__ = ("_address", "_counter", "exceeds", "proxied")

    def __init__(self, counter: ConnectionCounter, exceeds: Limit | None, *, proxied: bool) -> None:
        self.exceeds = exceeds
        self.proxied = proxied
        self._address: str | None = None
        self._counter: ConnectionCounter | None = counter

    def belong_to(self, address: str) -> None:
        """Count the connection for an address, too; once."""
        if self._counter is None or self._address is not None:
            return
        self._address = address
        self.exceeds = self._counter.add_address(address) or self.exceeds

    def release(self) -> None:
        """The connection is over."""
        if self._counter is not None:
            self._counter.remove(self._address)
            self._counter = None


class ConnectionCounter:
    """Counts connections, in all and for each address."""

    # Connections beyond a limit that are told so at a time, for each limit; more are cut off without a word.
    SLACK = 64

    def __init__(self, config: LimitConfig) -> None:
        self._max_total = config.max_connections
        self._max_per_address = config.max_connections_per_address
        self._addresses: Counter[str] = Counter()
        self.total = 0

    def admit(self, address: str | None) -> ConnectionSlot | None:
        """Count a connection.

        Args:
            address: whose it is; None: a proxy's.

        Returns:
            None, and nothing is counted, if so many are beyond a limit that this one is not even to be told.
        """
        per_address = self._addresses.get(address, 0) if address is not None else 0
        for count, limit in ((self.total, self._max_total), (per_address, self._max_per_address)):
            if limit and count >= limit + self.SLACK:
                return None
        self.total += 1
        over = Limit.CONNECTIONS if self._max_total and self.total > self._max_total else None
        slot = ConnectionSlot(self, over, proxied=address is None)
        if address is not None:
            slot.belong_to(address)
        return slot

    def add_address(self, address: str) -> Limit | None:
        """Count a connection of an address; return the limit that it is beyond."""
        self._addresses[address] += 1
        over = self._max_per_address and self._addresses[address] > self._max_per_address
        return Limit.CONNECTIONS_PER_ADDRESS if over else None

    def remove(self, address: str | None) -> None:
        """A connection is over."""
        self.total -= 1
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]


class TokenBucket:
    """Lets through `burst` at once and `rate` a second in the long run."""

    __slots__ = ("_burst", "_rate", "_seen", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Args:
        rate: tokens a second; 0 is no limit.
        burst: tokens that the bucket holds; it starts full.
        now: monotonic seconds, as in all calls.
        """
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._seen = now

    def take(self, now: float) -> bool:
        """Take a token; False if there is none."""
        if not self._rate:
            return True
        tokens = self._tokens + (now - self._seen) * self._rate
        self._seen = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True


class WindowStorage(Storage):
    """Counts of one process for the fixed windows of `limits`.

    The library's own storages in memory look at every key on every hit, on a thread or in a task of its own:
    with as many keys as an attacker has addresses. Here windows are dropped in the order in which they
    began, a few for each new one, and never are there more than _MAX_WINDOWS.
    """

    STORAGE_SCHEME = None

    def __init__(self, *, clock: Callable[[], float] = time.time, max_windows: int = _MAX_WINDOWS) -> None:
        super().__init__()
        self._clock = clock
        self._max_windows = max_windows
        # Key to (count, end of the window), in the order in which they began.
        self._windows: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = self._clock()
        count, end = self._windows.get(key, (0, 0.0))
        if end <= now:
            count, end = 0, now + expiry
            self._windows.pop(key, None)
            self._make_room(now)
        self._windows[key] = (count + amount, end)
        return count + amount

    def _make_room(self, now: float) -> None:
        # Two for each new one: what is over goes faster than it comes.
        for oldest in list(islice(self._windows, 2)):
            if self._windows[oldest][1] <= now or len(self._windows) >= self._max_windows:
                del self._windows[oldest]

    async def get(self, key: str) -> int:
        count, end = self._windows.get(key, (0, 0.0))
        return count if end > self._clock() else 0

    async def get_expiry(self, key: str) -> float:
        """Return when the window of key ends, on the clock of this storage."""
        now = self._clock()
        return max(now, self._windows.get(key, (0, now))[1])

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        self._windows.pop(key, None)


_ONE_MISS = RateLimitItemPerMinute(1, namespace="STRICT")
"""One miss in a minute; what an address gets while all together miss too often."""


class RateLimits:
    """The rates at which addresses may do what costs us something or tells them something."""

    def __init__(self, config: LimitConfig, *, clock: Callable[[], float] = time.time) -> None:
        """Args:
        config: the rates.
        clock: returns Unix time, as the storages of `limits` do.
        """
        self._config = config
        self._clock = clock
        self._storage: Storage = WindowStorage(clock=clock)
        self._limiter = FixedWindowRateLimiter(self._storage)

    async def create(self, address: str) -> None:
        """An address asks for a new room.

        Raises:
            LimitReached: It has made too many.
        """
        reason = "too many rooms made from your address"
        await self._hit(Limit.CREATE, self._config.create_rate, address, reason)

    async def join(self, address: str) -> None:
        """An address asks to enter a room.

        Raises:
            LimitReached: It has done so too often.
        """
        await self._hit(Limit.JOIN, self._config.join_rate, address, "too many joins from your address")

    async def look(self, address: str) -> None:
        """An address is about to look for a room; tell miss() if it is not there.

        An answer, either way, would let it go on guessing: a client that has missed too often gets none.

        Raises:
            LimitReached: It has missed too often, or all have and it is one of them.
        """
        reason = "too many looks for rooms that are not there"
        rate = self._config.miss_rate
        if rate is not None and not await self._limiter.test(rate, Limit.MISS, address):
            raise LimitReached(Limit.MISS, await self._wait(rate, Limit.MISS, address), reason)
        total = self._config.total_miss_rate
        if total is None or await self._limiter.test(total, Limit.MISS):
            return
        if not await self._limiter.test(_ONE_MISS, Limit.MISS, address):
            raise LimitReached(Limit.MISS, await self._wait(_ONE_MISS, Limit.MISS, address), reason)

    async def miss(self, address: str) -> None:
        """The room that an address looked for is not there."""
        if self._config.miss_rate is not None:
            await self._limiter.hit(self._config.miss_rate, Limit.MISS, address)
        if self._config.total_miss_rate is not None:
            await self._limiter.hit(self._config.total_miss_rate, Limit.MISS)
            await self._limiter.hit(_ONE_MISS, Limit.MISS, address)

    async def _hit(self, limit: Limit, rate: RateLimitItem | None, address: str, reason: str) -> None:
        if rate is not None and not await self._limiter.hit(rate, limit, address):
            raise LimitReached(limit, await self._wait(rate, limit, address), reason)

    async def _wait(self, rate: RateLimitItem, *identifiers: str) -> int:
        end = await self._storage.get_expiry(rate.key_for(*identifiers))
        return max(1, ceil(end - self._clock()))


_NOBODY = ""
"""What counts for all targets that are not in the room, whatever their names; no client has it as its id."""


class PairLimits:
    """What one client has said to each of its peers: offers, answers and candidates, within a window.

    What is said to all peers counts for each of them. What is said to targets that are not in the room counts
    together: a client can make up names without end. When another peer is spoken to, those that have left are
    forgotten, as none of them comes back under its client id. So no more are kept than a room has places.
    """

    __slots__ = ("_max_candidates", "_max_descriptions", "_said", "_window")

    def __init__(self, config: LimitConfig, scale: int = 1) -> None:
        """Args:
        config: how much one client may say to one peer.
        scale: so many times as much is granted.
        """
        self._max_descriptions = config.max_offers_per_peer * scale
        self._max_candidates = config.max_candidates_per_peer * scale
        self._window = config.pair_window
        # Peer, None for all of them, to the end of its window, descriptions and candidates.
        self._said: dict[str | None, list[float]] = {}

    def __len__(self) -> int:
        """Return how many peers are kept."""
        return len(self._said)

    def describe(self, peer: str | None, members: Collection[str], now: float) -> bool:
        """Count an offer or an answer; False if it is one too many.

        Args:
            peer: whom it is for; None: all peers.
            members: the clients in the room.
            now: monotonic seconds.
        """
        return self._count(peer, members, 1, self._max_descriptions, now)

    def trickle(self, peer: str | None, members: Collection[str], now: float) -> bool:
        """Count a candidate, as describe() does the rest; False if it is one too many."""
        return self._count(peer, members, 2, self._max_candidates, now)

    def _count(self, peer: str | None, members: Collection[str], kind: int, limit: int, now: float) -> bool:
        if not limit:
            return True
        if peer is not None and peer not in members:
            peer = _NOBODY
        said = self._said.get(peer)
        if said is None or said[0] <= now:
            self._forget(members, now)
            said = self._said[peer] = [now + self._window, 0, 0]
        said[kind] += 1
        if said[kind] > limit:
            return False
        if peer == _NOBODY:
            return True
        if peer is None:
            # The peer that was told most decides.
            others = (told[kind] for name, told in self._said.items() if name and told[0] > now)
            return said[kind] + max(others, default=0) <= limit
        to_all = self._said.get(None)
        return to_all is None or to_all[0] <= now or said[kind] + to_all[kind] <= limit

    def _forget(self, members: Collection[str], now: float) -> None:
        for name, told in list(self._said.items()):
            if told[0] <= now or (name and name not in members):
                del self._said[name]


class PairBook:
    """What the clients of this process have said, kept when they connect anew.

    Each client counts by itself. The receivers of a room that have one address count together as well, of
    however many client ids, and may say as much as a whole room of them. Ask anew for each message: what no
    longer counts is forgotten, and beyond `max_peers` what was asked for longest ago.

    Attributes:
        counting: there is a limit.
    """

    def __init__(self, config: LimitConfig, *, max_peers: int = _MAX_WINDOWS) -> None:
        """Args:
        config: how much one client may say to one peer.
        max_peers: peers that are kept at most, of all clients together.
        """
        self.counting = bool(config.max_offers_per_peer or config.max_candidates_per_peer)
        self._config = config
        self._most = max_peers
        # Each with when it was asked for last, in that order, and the peers that it has had at most since.
        self._entries: dict[tuple[str, ...], tuple[PairLimits, float, int]] = {}
        self._peers = 0

    def __len__(self) -> int:
        """Return how many peers are kept at most, of all clients together."""
        return self._peers

    def of_client(self, client_id: str, now: float) -> PairLimits:
        """Return what counts for a client, over whichever connection."""
        return self._of((client_id,), 1, now)

    def of_address(self, room_id: str, address: str, places: int, now: float) -> PairLimits:
        """Return what counts for all receivers of one address in a room with so many places."""
        return self._of((room_id, address), places, now)

    def _of(self, key: tuple[str, ...], scale: int, now: float) -> PairLimits:
        if key in self._entries:
            limits = self._remove(key)
        else:
            limits = PairLimits(self._config, scale)
        # One message adds one peer at most.
        peers = len(limits) + 1
        while self._entries:
            oldest = next(iter(self._entries))
            counts = self._entries[oldest][1] + self._config.pair_window > now
            if counts and self._peers + peers <= self._most:
                break
            self._remove(oldest)
        self._entries[key] = limits, now, peers
        self._peers += peers
        return limits

    def _remove(self, key: tuple[str, ...]) -> PairLimits:
        limits, _, peers = self._entries.pop(key)
        self._peers -= peers
        return limits
