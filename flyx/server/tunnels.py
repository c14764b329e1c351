"""Tunnels: the server passes the datagrams of two clients of a room from one WebSocket to another.

The last resort, where nothing lets UDP through and there is no TURN server (`flyx serve --relay`); what goes
over the wire is in flyx.signaling.tunnel. The server sees of it what a TURN server would: how much, when, and
the encrypted records of DTLS.

    one client --frame--> Half --PacedQueue--> Half --frame--> the other

Each direction has a rate and a queue that is short and drops. A client that sends much more than the rate is
not read for a while; one that does not read what it is sent has it dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable

from flyx.errors import RemoteProtocolError
from flyx.server.admission import Admission
from flyx.server.config import TunnelConfig
from flyx.server.limits import Limit
from flyx.server.logs import get_logger, room_tag
from flyx.server.metrics import Metrics
from flyx.server.pacing import PacedQueue
from flyx.server.transport.connection import Connection, Frame, Job
from flyx.signaling.messages import CloseCode, ErrorCode, Role
from flyx.signaling.tunnel import OPENED, parse_claim_untrusted

log = get_logger("flyx.server.tunnels")

_MAX_UNSENT = 64 * 1024
"""Bytes that may wait in the transport of a client before its datagrams wait in the queue instead."""

_UNSENT_PAUSE = 0.01
"""Seconds until another look, then."""

_MAX_EXCESS, _EXCESS_PAUSE = 4.0, 0.25
"""A client may send so many times the rate; then it is not read for so many seconds."""


RoleOf = Callable[[str, str], Role | None]
"""By room id and client id; None: the client is not in the room."""


class _Pair:
    """A sender and a receiver of a room, as far as they are there."""

    __slots__ = ("halves",)

    def __init__(self) -> None:
        self.halves: dict[Role, Half] = {}

    @property
    def is_whole(self) -> bool:
        """Whether both are there."""
        return len(self.halves) == 2


class Tunnels:
    """All tunnels of this process."""

    def __init__(self, config: TunnelConfig, role_of: RoleOf, metrics: Metrics, admission: Admission) -> None:
        """Args:
        config: what they may carry.
        role_of: tells what a client is in a room.
        metrics: of this server.
        admission: told of limits that were reached.
        """
        self.config = config
        self.metrics = metrics
        self._role_of = role_of
        self._admission = admission
        # Tokens are good as long as this process lives, and their client is in its room.
        self._key = secrets.token_bytes(32)
        # By room, sender and receiver.
        self._pairs: dict[tuple[str, str, str], _Pair] = {}
        # Those of which both sides are there.
        self._whole = 0
        self._addresses: Counter[str] = Counter()
        metrics.tunnels = 0

    def token(self, room_id: str, client_id: str) -> str:
        """Return the token of this client of this room, which no other may ever see."""
        # Neither of the two contains the character between them.
        return hmac.new(self._key, f"{room_id} {client_id}".encode(), hashlib.sha256).hexdigest()

    def enter(self, half: Half, room_id: str, client_id: str, peer_id: str, token: str) -> None:
        """Take a client that says who it is; it is closed if it may not be here."""
        good = hmac.compare_digest(self.token(room_id, client_id).encode(), token.encode())
        role, other = (self._role_of(room_id, member) for member in (client_id, peer_id))
        if not good or role is None or other is None or role is other:
            half.refuse(CloseCode.NOT_ALLOWED, ErrorCode.BAD_TOKEN, "no tunnel for these two")
            return
        sender, receiver = (client_id, peer_id) if role is Role.SENDER else (peer_id, client_id)
        key = room_id, sender, receiver
        pair = self._pairs.get(key)
        if pair is not None and role in pair.halves:
            # The client makes a connection anew, and so will the other one.
            earlier = pair.halves[role]
            earlier.refuse(CloseCode.REPLACED, ErrorCode.REPLACED, "a newer tunnel took its place")
            self.leave(earlier)
            pair = None
        if self._whole >= self.config.max_pairs:
            self._admission.rejected(Limit.TUNNELS)
            for refused in (half, *(pair.halves.values() if pair else ())):
                reason = "as many are relayed as may be"
                refused.refuse(CloseCode.TRY_AGAIN_LATER, ErrorCode.TOO_MANY_CONNECTIONS, reason)
            return
        if pair is None:
            pair = self._pairs[key] = _Pair()
        pair.halves[role] = half
        half.inside(key, role)
        if pair.is_whole:
            self._count_whole(1)
            self.metrics.tunnels_opened += 1
            log.info("tunnel opened", room=room_tag(room_id))
            sending, receiving = pair.halves[Role.SENDER], pair.halves[Role.RECEIVER]
            sending.couple(receiving)
            receiving.couple(sending)

    def leave(self, half: Half) -> None:
        """Forget a client; the other one of its pair is closed."""
        if half.place is None:
            return
        key, role = half.place
        pair = self._pairs.get(key)
        if pair is None or pair.halves.get(role) is not half:
            return
        del self._pairs[key]
        if pair.is_whole:
            self._count_whole(-1)
        for other in pair.halves.values():
            if other is not half:
                other.refuse(CloseCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_PEER, "the other side has gone")

    def _count_whole(self, change: int) -> None:
        self._whole += change
        self.metrics.tunnels = self._whole

    def count_address(self, address: str) -> bool:
        """Count a WebSocket; False, and it is not counted, if there are too many from there."""
        if self._addresses[address] >= self.config.max_per_address:
            self._admission.rejected(Limit.TUNNELS_PER_ADDRESS)
            return False
        self._addresses[address] += 1
        return True

    def discount_address(self, address: str) -> None:
        """A counted WebSocket has ended."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def close(self) -> None:
        """End all: the server stops."""
        for pair in list(self._pairs.values()):
            for half in list(pair.halves.values()):
                half.refuse(CloseCode.SERVICE_RESTART, ErrorCode.SERVER_STOPPING, "the server is stopping")


class Half:
    """One client's WebSocket of a tunnel: a flyx.server.transport.connection.Session."""

    def __init__(self, tunnels: Tunnels, connection: Connection, room_id: str, address: str) -> None:
        """Args:
        tunnels: those that it is to be one of.
        connection: the client.
        room_id: where it says that it is.
        address: what its address counts as.
        """
        self._tunnels = tunnels
        self._connection = connection
        self._room_id = room_id
        self._address = address
        self._counted = False
        self._max_datagram_size = tunnels.config.max_datagram_size
        self._loop = asyncio.get_running_loop()
        # Where it is, once it has been let in.
        self.place: tuple[tuple[str, str, str], Role] | None = None
        # Who gets what it sends, and in what order, once both are there.
        self._other: Half | None = None
        self._queue: PacedQueue
        self._sending: asyncio.TimerHandle | None = None
        # What it may send before it is not read for a while.
        self._budget = 0.0
        self._budget_at = self._loop.time()
        self._reading_on: asyncio.TimerHandle | None = None
        # When the last datagram came, and what looks at that, or at how long it has waited.
        self._heard_at = self._loop.time()
        self._patience = self._loop.call_later(tunnels.config.wait_timeout, self._too_late)

    def begin(self) -> None:
        """Count the client; it is closed if there are too many of its address."""
        self._counted = self._tunnels.count_address(self._address)
        if not self._counted:
            reason = "too many tunnels from your address"
            self.refuse(CloseCode.TOO_MANY_REQUESTS, ErrorCode.TOO_MANY_CONNECTIONS, reason)

    def refuse(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        """Say why, and close."""
        self._connection.close(code, error_code, reason)

    def inside(self, key: tuple[str, str, str], role: Role) -> None:
        """It has been let in; the other one may still have to come."""
        self.place = key, role

    def couple(self, other: Half) -> None:
        """The other one is there: pass on datagrams."""
        now = self._loop.time()
        self._other = other
        self._queue = PacedQueue(self._tunnels.config.rate, now)
        self._budget, self._budget_at, self._heard_at = self._max_budget, now, now
        self._connection.send(OPENED)
        self._look_later()

    @property
    def _max_budget(self) -> float:
        # A second of it at once.
        return max(_MAX_EXCESS * self._tunnels.config.rate, 8 * self._max_datagram_size)

    # What the connection tells.

    def handle(self, frame: Frame) -> Job | None:
        """Take the claim, then datagrams."""
        if self.place is None:
            self._claim(frame)
        elif isinstance(frame, str) or self._other is None:
            self._complain("datagrams are binary frames, and come when both sides are there")
        elif not 0 < len(frame) <= self._max_datagram_size:
            self._complain(f"datagrams have 1 to {self._max_datagram_size} bytes")
        else:
            self._take(frame)
        return None

    async def end(self) -> None:
        """The connection is over."""
        for timer in (self._sending, self._reading_on, self._patience):
            if timer is not None:
                timer.cancel()
        self._tunnels.leave(self)
        self._other = None
        if self._counted:
            self._counted = False
            self._tunnels.discount_address(self._address)

    def gone(self) -> None:
        """The connection is over for good."""

    def _claim(self, frame: Frame) -> None:
        if isinstance(frame, bytes):
            self._complain("the first message of a tunnel says who it is for")
            return
        try:
            claim = parse_claim_untrusted(frame)
        except RemoteProtocolError as error:
            self._complain(str(error.fields["reason"]))
            return
        self._tunnels.enter(self, self._room_id, claim.client_id, claim.peer_id, claim.token)

    def _complain(self, reason: str) -> None:
        self.refuse(CloseCode.BAD_MESSAGE, ErrorCode.BAD_MESSAGE, reason)

    # Datagrams.

    def _take(self, datagram: bytes) -> None:
        now = self._heard_at = self._loop.time()
        rate = self._tunnels.config.rate
        earned = (now - self._budget_at) * _MAX_EXCESS * rate
        self._budget = min(self._max_budget, self._budget + earned) - len(datagram)
        self._budget_at = now
        if self._budget < 0 and self._reading_on is None:
            self._connection.pause_reading()
            self._reading_on = self._loop.call_later(_EXCESS_PAUSE, self._read_on)
        if not self._queue.push(datagram):
            self._tunnels.metrics.tunnel_drops += 1
        elif self._sending is None:
            self._send()

    def _read_on(self) -> None:
        self._reading_on = None
        self._connection.resume_reading()

    def _send(self) -> None:
        """Pass on what may leave now, and come back for the rest."""
        self._sending = None
        other, metrics = self._other, self._tunnels.metrics
        if other is None:
            return
        now = self._loop.time()
        while other._connection.queued_size <= _MAX_UNSENT:
            datagram = self._queue.pop(now)
            if datagram is None:
                delay = self._queue.delay()
                break
            other._connection.send_datagram(datagram)
            metrics.tunnel_bytes += len(datagram)
        else:
            delay = _UNSENT_PAUSE
        if delay is not None:
            self._sending = self._loop.call_later(delay, self._send)

    # Time.

    def _too_late(self) -> None:
        reason = "the other side did not come" if self.place else "the client did not say who it is"
        self.refuse(CloseCode.TIMED_OUT, ErrorCode.JOIN_TIMEOUT, reason)

    def _look_later(self) -> None:
        self._patience.cancel()
        idle_at = self._heard_at + self._tunnels.config.idle_timeout
        self._patience = self._loop.call_at(idle_at, self._look)

    def _look(self) -> None:
        if self._loop.time() >= self._heard_at + self._tunnels.config.idle_timeout:
            self.refuse(CloseCode.TIMED_OUT, ErrorCode.TOO_SLOW, "nothing came through the tunnel")
        else:
            self._look_later()
