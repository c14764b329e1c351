"""aioice's ICE connection with checks, nomination and consent of our own.

aioice gathers, answers and authenticates; what differs here:

- The sockets of candidates are flyx.net.udp's, whatever the event loop.
- Between two of ours, data takes a direct pair as soon as that works (RFC 8445 §12): the DTLS handshake does
  not wait for the nomination, a round trip at least.
- Nomination is regular, and goes on: a pair of better rank that begins to work later is gone over to, as long
  as the connection lives (flyx.rtc.nomination). aioice takes the first that works, and then stops checking.
- A check that comes in has its pair's own check sent again at once (RFC 8445 §7.3.1.4): the NAT between has
  just been seen to be open. aioice waits for its timer.
- A check fails after 10 s, not after 63.
- The names that browsers have for their addresses are looked up otherwise (flyx.rtc.seam.named).
- Consent ends 30 s after the last sign of life, however late the answers come (RFC 7675 §5.1). aioice waits
  0.5 s for an answer, and so closes a healthy path with a longer round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Sequence
from itertools import count

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import ICE_COMPLETED, ICE_FAILED, CandidatePair, StunProtocol
from aioice.mdns import is_mdns_hostname
from aiortc import RTCDtlsTransport, RTCIceTransport
from aiortc.rtcicetransport import RTCIceGatherer

from flyx.net.loop import create_udp_endpoint
from flyx.rtc.nomination import nomination_delay
from flyx.rtc.seam.consent import ask_for_consent
from flyx.rtc.seam.named import NamingConnection
from flyx.rtc.seam.pair import Pair, Transaction, is_link_local

logger = logging.getLogger("flyx.rtc")

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    RTCIceGatherer: ("_connection",),
    RTCIceTransport: ("_connection", "_recv", "_send"),
    Connection: (
        *("_check_list", "_check_list_done", "_check_list_state", "_closing", "_early_checks"),
        *("_local_candidates", "_local_candidates_end", "_local_candidates_start"),
        *("_check_list_maybe_fail", "_early_checks_done", "_end_remote_candidates", "_find_pair"),
        *("_nominated", "_pair_remote_candidate", "_protocols", "_query_consent_task", "_queue"),
        *("_remote_candidates_expected", "_unfreeze_initial"),
    ),
    Candidate: ("_network_host",),
}
"""Attributes that instances of these classes have and this module uses."""

COMPONENT = 1
"""The only component of a data channel's ICE stream."""

LOCAL_PREFERENCE = 65535
"""Of the best host candidate; each further one has one less (RFC 8445 §5.1.2.1)."""

CHECK_PACING = 0.02
"""Seconds between the beginnings of two checks: Ta (RFC 8445 §14.2 allows 5 ms and more)."""

CHECK_SCHEDULE = (0.5, 0.5, 1.0, 1.5, 2.0, 2.0, 2.5)
"""Seconds after each request of a check until the next one, and after the last until the pair has failed.

RFC 8489 §6.2.1 doubles from 0.5 s and gives up after 39.5 s, aioice after 63. What matters here is that NATs
are tried often while the other side's candidates still come, that a round trip of 2 s is no failure, and that
a person is told after 10 s rather than 60.
"""

MAX_LEARNED_CANDIDATES = 16
"""Peer-reflexive candidates of one peer. Honest ones have one for each NAT between, and signal the others."""

MAX_PAIRS = 200
"""Pairs that are checked; RFC 8445 §6.1.2.5 has 100, and only so many that pacing is done with in 4 s."""

MAX_QUEUED = 1024
"""Datagrams that wait to be read: as many as aiortc's SCTP has under way, which are of 1,200 bytes."""

RELAYED_TURN = 4
"""Each such check is one of a relayed pair, if there is one: else they would wait for all direct ones."""

LOST_RELAY_DELAY = 2.0
"""Seconds for other pairs to work before a relay on the Internet is asked to reach a private address.

It rarely can; and coturn, sending to an address that its host has no route to, ends the whole allocation.
"""

RECHECK_INTERVAL = 5.0
"""Seconds until a direct pair that failed is tried again while a relay is in use; doubled each time."""

ROLE_CONFLICT = 487
"""Error of STUN: both sides claim the same role (RFC 8445 §7.3.1.1)."""

MAX_ROLE_SWITCHES = 3
"""Of one check: an honest peer decides it at once."""


def install(dtls: RTCDtlsTransport) -> None:
    """Have a DTLS transport that nobody has used yet run over an IceConnection."""
    transport = dtls.transport
    ours = IceConnection()
    transport.iceGatherer._connection = transport._connection = ours
    transport._recv, transport._send = ours.recv, ours.send


class IceConnection(NamingConnection):
    """The ICE connection of one peer connection."""

    def __init__(self) -> None:
        super().__init__(ice_controlling=False)
        # Those to gather host candidates of, the best first.
        self.addresses: Sequence[str] = ()
        # Addresses of the peer that are not spoken to.
        self._refused: set[tuple[str, int]] = set()
        # Set by connect(), on the clock of the event loop.
        self._connecting_since = 0.0
        # Runs from connect() to close().
        self._checking: asyncio.Task[None] | None = None
        # There may be a pair to check.
        self._due = asyncio.Event()
        self._begun = count(1)
        # When the first pair worked; when the nomination waits for a better one, its timer; then its task.
        self._working_since: float | None = None
        self._nomination_timer: asyncio.TimerHandle | None = None
        self._nomination: asyncio.Task[None] | None = None
        # When anything authentic last came from the peer.
        self.heard_at = 0.0
        # The peer takes data before a pair is nominated; and connect() has ended with a pair for that.
        self.hurries = self._hurried = False
        # Ends the connection when no pair works after all.
        self._failing: asyncio.Task[None] | None = None

    @property
    def selected(self) -> Pair | None:
        """The pair in use."""
        pair = self._nominated.get(COMPONENT)
        assert pair is None or isinstance(pair, Pair)
        return pair

    @property
    def in_use(self) -> Pair | None:
        """The pair that data takes: the one nominated, or before that the best direct one that works.

        A relay has to wait for its nomination: see flyx.rtc.nomination.
        """
        if self.selected is not None or not self.hurries:
            return self.selected
        direct = (pair for pair in self.pairs if pair.works and not pair.rank.relays)
        return min(direct, key=lambda pair: pair.rank, default=None)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, the best first."""
        return [pair for pair in self._check_list if isinstance(pair, Pair)]

    def refuse(self, host: str, port: int) -> None:
        """Have nothing to do with an address of the peer, also when it checks ours from there."""
        with contextlib.suppress(ValueError):
            # As the socket will write it; a name will never be asked for.
            self._refused.add((str(ipaddress.ip_address(host)), port))

    def heard(self) -> None:
        """Something has come that only the peer can have sent: it wants what we send (RFC 7675 §4)."""
        self.heard_at = _now()

    async def gather_candidates(self) -> None:
        """Gather the host candidates of self.addresses: those that cannot be bound are left out."""
        if not self._local_candidates_start:
            self._local_candidates_start = True
            candidates = await self.bind(self.addresses)
            for number, candidate in enumerate(candidates):
                candidate.priority = candidate_priority(COMPONENT, "host", LOCAL_PREFERENCE - number)
            self._local_candidates += candidates
            self._local_candidates_end = True

    async def bind(self, addresses: Sequence[str]) -> list[Candidate]:
        """Bind a socket for each of these addresses that can be bound, and return their candidates."""
        candidates = []
        for address in addresses:
            protocol = StunProtocol(self)
            try:
                await self._open(protocol, address)
            except OSError as error:
                logger.info("cannot bind to %s: %s", address, error)
                continue
            host, port = protocol.transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = Candidate(
                candidate_foundation("host", "udp", host),
                COMPONENT,
                "udp",
                candidate_priority(COMPONENT, "host"),
                host,
                port,
                "host",
            )
            self._protocols.append(protocol)
            candidates.append(protocol.local_candidate)
        return candidates

    async def _open(self, protocol: StunProtocol, address: str) -> None:
        await create_udp_endpoint(asyncio.get_running_loop(), lambda: protocol, (address, 0))

    async def connect(self) -> None:
        """Check pairs until data can take one, and go on checking better ones until close().

        Raises:
            ConnectionError: every pair has failed, and no more candidates come on either side.
        """
        if self.remote_username is None or self.remote_password is None:
            raise ConnectionError("the peer's ICE credentials are missing")
        for remote_candidate in self._remote_candidates:
            self._pair_remote_candidate(remote_candidate)
        self.sort_check_list()
        self._unfreeze_initial()
        for early in self._early_checks:
            self.check_incoming(*early)
        self._early_checks.clear()
        self._early_checks_done = True
        self._check_list_maybe_fail()
        self._connecting_since = _now()
        self._checking = asyncio.create_task(self._check())
        if await self._check_list_state.get() != ICE_COMPLETED:
            raise ConnectionError("ICE negotiation failed")
        self._hurried = self.selected is None
        self._query_consent_task = asyncio.create_task(self.query_consent())

    async def close(self) -> None:
        """End everything; safe to call more than once."""
        self._closing = True
        if self._nomination_timer:
            self._nomination_timer.cancel()
        tasks = [task for task in (self._checking, self._nomination) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().close()

    async def sendto(self, data: bytes, component: int) -> None:
        """Send a datagram.

        Raises:
            ConnectionError: there is no path.
        """
        pair = self.in_use
        if pair is None:
            raise ConnectionError("no path to the peer")
        await pair.protocol.send_data(data, pair.remote_addr)

    async def recvfrom(self) -> tuple[bytes, int]:
        """Return the next datagram that is not STUN, and its component.

        Raises:
            ConnectionError: there is no path, or no longer.
        """
        received = await self._queue.get() if self.in_use else None
        if received is None:
            raise ConnectionError("no path to the peer")
        return received

    # Pairs.

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        named = is_mdns_hostname(remote_candidate.host)
        for protocol in self._protocols:
            local = protocol.local_candidate
            # Relaying to an mDNS candidate would tell the TURN server the address behind the name.
            if (named and local.type == "relay") or is_link_local(local) != is_link_local(remote_candidate):
                continue
            if local.can_pair_with(remote_candidate) and not self._find_pair(protocol, remote_candidate):
                self._check_list.append(Pair(protocol, remote_candidate))
        self._prune()
        self._due.set()

    def _prune(self) -> None:
        """Keep MAX_PAIRS, the best of direct and of relayed ones (RFC 8445 §6.1.2.5)."""
        surplus = len(self._check_list) - MAX_PAIRS
        if surplus <= 0:
            return
        self.sort_check_list()
        direct = [pair for pair in self.pairs if not pair.rank.relays]
        relayed = [pair for pair in self.pairs if pair.rank.relays]
        while surplus > 0 and (direct or relayed):
            pair = max(direct, relayed, key=len).pop()
            if pair.task is None and pair.state is not CandidatePair.State.SUCCEEDED:
                self._check_list.remove(pair)
                surplus -= 1

    # Checks.

    async def _check(self) -> None:
        """Begin a check every CHECK_PACING, as long as there is one to begin (RFC 8445 §6.1.4.2)."""
        while True:
            self._due.clear()
            pair = self._next_pair()
            if pair is not None:
                self.check_start_task(pair)
                await asyncio.sleep(CHECK_PACING)
                continue
            try:
                async with asyncio.timeout(self._until_retry()):
                    await self._due.wait()
            except TimeoutError:
                pass

    def _next_pair(self) -> Pair | None:
        """Return the pair to check next: the best that waits, else that is frozen, else that is due again."""
        candidates = [
            pair
            for pair in self.pairs
            if pair.task is None and self._is_wanted(pair) and not (self._held_back and pair.hopeless)
        ]
        if next(self._begun) % RELAYED_TURN == 0:
            candidates.sort(key=lambda pair: not pair.rank.relays)
        now = _now()
        for state in (CandidatePair.State.WAITING, CandidatePair.State.FROZEN):
            for pair in candidates:
                if pair.state is state:
                    return pair
        again = [pair for pair in candidates if self._may_be_tried_again(pair) and pair.retry_at <= now]
        return again[0] if again else None

    def _is_wanted(self, pair: Pair) -> bool:
        return self.selected is None or pair.rank < self.selected.rank

    @property
    def _held_back(self) -> bool:
        """Whether pairs of little hope wait for the others."""
        return self._working_since is not None or _now() < self._connecting_since + LOST_RELAY_DELAY

    def _may_be_tried_again(self, pair: Pair) -> bool:
        """Whether a failed pair is worth it: a relay costs somebody, and a NAT may open later."""
        return pair.state is CandidatePair.State.FAILED and self.selected is not None and not pair.rank.relays

    def _until_retry(self) -> float | None:
        times = [
            pair.retry_at for pair in self.pairs if self._is_wanted(pair) and self._may_be_tried_again(pair)
        ]
        if self._working_since is None and self._held_back:
            times.append(self._connecting_since + LOST_RELAY_DELAY)
        return max(0.0, min(times) - _now()) if times else None

    async def check_start(self, pair: CandidatePair) -> None:
        """Check a pair (RFC 8445 §7.2)."""
        assert isinstance(pair, Pair)
        self.check_state(pair, CandidatePair.State.IN_PROGRESS)
        pair.checks += 1
        if await self._ask(pair, nominate=False):
            self.check_state(pair, CandidatePair.State.SUCCEEDED)
            if pair.remote_nominated and not self.ice_controlling:
                pair.nominated = self._is_to_follow(pair)
        else:
            self.check_state(pair, CandidatePair.State.FAILED)
            pause = RECHECK_INTERVAL * 2 ** (pair.checks - 1)
            pair.retry_at = _now() + pause
        self.check_complete(pair)

    async def _ask(self, pair: Pair, *, nominate: bool) -> bool:
        """Send a Binding request; return whether the peer has answered it with success."""
        assert self.remote_password is not None
        for _ in range(MAX_ROLE_SWITCHES):
            controlling = self.ice_controlling
            request = self.build_request(pair, nominate=nominate)
            pair.transaction = Transaction(pair, request, self.remote_password.encode())
            try:
                round_trip = await pair.transaction.run(CHECK_SCHEDULE)
            except stun.TransactionFailed as error:
                if error.response.error_code != ROLE_CONFLICT:
                    return False
                # RFC 8445 §7.2.5.1.
                if self.ice_controlling is controlling:
                    self.switch_role(ice_controlling=not controlling)
                if nominate and not self.ice_controlling:
                    return False
            except stun.TransactionError:
                return False
            else:
                pair.round_trip = round_trip or pair.round_trip
                self.heard()
                return True
            finally:
                pair.transaction = None
        return False

    def build_request(self, pair: CandidatePair, nominate: bool) -> stun.Message:
        """Return a Binding request for a pair."""
        request = super().build_request(pair, nominate)
        if pair.local_candidate.type == "relay":
            # The priority of a candidate that the peer would learn from this (RFC 8445 §7.1.1): that it is a
            # relay must be seen even so.
            request.attributes["PRIORITY"] = candidate_priority(COMPONENT, "relay")
        return request

    def check_complete(self, pair: CandidatePair) -> None:
        """A check has ended, or the peer has nominated a pair that works."""
        assert isinstance(pair, Pair)
        pair.task = None
        self._due.set()
        if pair.state is CandidatePair.State.SUCCEEDED:
            if self._working_since is None:
                self._working_since = _now()
            if pair.nominated:
                pair.nominated = False
                self._select(pair)
            elif self.in_use is pair and self.selected is None:
                # Once is enough: a second changes nothing.
                self._check_list_state.put_nowait(ICE_COMPLETED)
            for other in self._check_list:
                # RFC 8445 §7.2.5.3.3.
                if (
                    other.local_candidate.foundation == pair.local_candidate.foundation
                    and other.state is CandidatePair.State.FROZEN
                ):
                    self.check_state(other, CandidatePair.State.WAITING)
        self._weigh()
        self._check_list_maybe_fail()

    def request_received(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """Take a check of the peer, unless it comes from where it may not."""
        if addr not in self._refused:
            super().request_received(message, addr, protocol)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """Take an authentic check of the peer (RFC 8445 §7.3.1)."""
        remote = self._remote_candidate(message, addr)
        if remote is None:
            return
        self.heard()
        pair = self._find_pair(protocol, remote)
        if pair is None:
            pair = Pair(protocol, remote)
            pair.state = CandidatePair.State.WAITING
            self._check_list.append(pair)
            self.sort_check_list()
        assert isinstance(pair, Pair)
        if pair.state in (CandidatePair.State.FROZEN, CandidatePair.State.FAILED):
            self.check_state(pair, CandidatePair.State.WAITING)
        if pair.state is CandidatePair.State.WAITING:
            self.check_start_task(pair)
        elif pair.transaction:
            pair.transaction.send()
        if "USE-CANDIDATE" not in message.attributes:
            pair.checked_plainly = True
        elif not self.ice_controlling and self._is_to_follow(pair):
            for other in self.pairs:
                other.remote_nominated = other is pair
            if pair.state is CandidatePair.State.SUCCEEDED:
                pair.nominated = True
                self.check_complete(pair)

    def _remote_candidate(self, message: stun.Message, addr: tuple[str, int]) -> Candidate | None:
        """Return the remote candidate of an address, learned if it is new (§7.3.1.3); None if it is too many.

        A check that passes for the peer's teaches one, and we then check it in turn, whatever its address.
        """
        for candidate in self._remote_candidates:
            if (candidate._network_host, candidate.port) == addr:
                return candidate
        learned = sum(candidate.type == "prflx" for candidate in self._remote_candidates)
        if learned >= MAX_LEARNED_CANDIDATES:
            return None
        foundation = f"prflx{learned}"
        priority = message.attributes.get("PRIORITY", 1)
        candidate = Candidate(foundation, COMPONENT, "udp", priority, addr[0], addr[1], "prflx")
        self._remote_candidates.append(candidate)
        return candidate

    def data_received(self, data: bytes, component: int) -> None:
        """Queue a datagram that is not STUN. Any computer may send one; none is read before a path is."""
        if self._queue.qsize() < MAX_QUEUED:
            super().data_received(data, component)

    # The path in use.

    def _is_to_follow(self, pair: Pair) -> bool:
        """Whether to take a nomination of the peer: the last one that it means, else the best.

        A peer that nominates aggressively nominates every pair that it checks (RFC 5245 §8.1.1.2).
        """
        selected = self.selected
        if selected is None or pair.checked_plainly:
            return True
        return self._check_list.index(pair) < self._check_list.index(selected)

    def _select(self, pair: Pair) -> None:
        """Send through this pair from now on."""
        if pair is self.selected:
            return
        logger.debug("path %s with %s", pair, pair.rank)
        self._nominated[COMPONENT] = pair
        # Pairs that have failed may be tried again from now on.
        self._due.set()
        for other in self.pairs:
            if other.state is CandidatePair.State.IN_PROGRESS and other.task and not self._is_wanted(other):
                other.task.cancel()
                other.task = None
                self.check_state(other, CandidatePair.State.FROZEN)
        if not self._check_list_done:
            self._check_list_done = True
            self._check_list_state.put_nowait(ICE_COMPLETED)

    def _weigh(self) -> None:
        """Nominate the best pair that works, now or when no better one comes for a while."""
        if self._nomination_timer:
            self._nomination_timer.cancel()
            self._nomination_timer = None
        if not self.ice_controlling or self._closing or self._nomination:
            return
        working = [pair for pair in self.pairs if pair.state is CandidatePair.State.SUCCEEDED]
        best = min(working, key=lambda pair: pair.rank, default=None)
        if best is None or not self._is_wanted(best):
            return
        assert self._working_since is not None
        delay = nomination_delay(
            best.rank,
            (pair.rank for pair in self.pairs if pair.open),
            _now() - self._working_since,
            more_to_come=self._remote_candidates_expected(),
        )
        if delay:
            self._nomination_timer = asyncio.get_running_loop().call_later(delay, self._weigh)
        else:
            self._nomination = asyncio.create_task(self._nominate(best))

    async def _nominate(self, pair: Pair) -> None:
        """Have the peer use a pair that works, and use it (RFC 8445 §8.1.1)."""
        succeeded = await self._ask(pair, nominate=True)
        self._nomination = None
        if succeeded:
            self._select(pair)
        else:
            self.check_state(pair, CandidatePair.State.FAILED)
        self._weigh()
        self._check_list_maybe_fail()

    def _end_remote_candidates(self) -> None:
        if self._early_checks_done:
            self._weigh()
            self._check_list_maybe_fail()

    def _check_list_maybe_fail(self) -> None:
        if self._check_list_done or self._remote_candidates_expected():
            return
        if all(pair.state is CandidatePair.State.FAILED for pair in self._check_list):
            self._check_list_done = True
            if self._hurried:
                self._failing = asyncio.create_task(self.close())
            else:
                self._check_list_state.put_nowait(ICE_FAILED)

    # Consent.

    async def query_consent(self) -> None:
        """Ask the peer whether it still wants what we send; close after a long silence."""
        self.heard()
        await ask_for_consent(self)
        self._query_consent_task = None
        await self.close()


def pair_in_use(connection: Connection) -> CandidatePair | None:
    """Return the pair that data takes; None if there is none."""
    if isinstance(connection, IceConnection):
        return connection.in_use
    return connection._nominated.get(COMPONENT)


def _now() -> float:
    return asyncio.get_running_loop().time()
