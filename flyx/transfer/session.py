"""What both ends of a transfer share: heartbeat, giving up, and the queues that a driver drains.

The two sides have greeted and paired before (flyx.pairing): the peer is the one that has the code.

Input methods change the state: receive_control, handle_timeout, cancel, peer_gone, check_path, path_gone,
stood_still, channel_closed and those of the subclass. After each, drain in this order until each is empty:
next_control, what the subclass adds, next_event; then ask next_timeout when to call handle_timeout. `now` is
monotonic seconds, never earlier than in the last call.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque

from msgspec import Struct

from flyx.errors import (
    ConnectionLost,
    Declined,
    FlyxError,
    PairingFailed,
    RemoteProtocolError,
    StorageError,
    StreamBegun,
    TransferInterrupted,
    TransferRefused,
)
from flyx.transfer import messages
from flyx.transfer.digests import Algorithm
from flyx.transfer.messages import Cancel, ControlMessage, Ping, Pong, Reject

logger = logging.getLogger("flyx.transfer")

PING_INTERVAL = 5.0
"""Seconds between our pings: a third of the loss that ICE consent (RFC 7675) tolerates, and cheap."""

SILENCE_LIMIT = 20.0
"""Seconds without any message after which the path counts as lost. An outage of 10 s passes: SCTP, which
doubles its timeout, tries again at 16 s at the latest."""

GONE_LIMIT = 5.0
"""The same when the signaling server says that it has gone: long enough to see that the server is wrong."""

CHECK_LIMIT = 0.75
"""The same, at least, when there is reason to think that the path is gone: CHECK_ROUND_TRIPS times the last
round trip if that is more, up to GONE_LIMIT."""

CHECK_ROUND_TRIPS = 4

LATE = 2.0
"""Seconds that handle_timeout() is called too late when we stood still; load makes less."""

LONG_STANDSTILL = SILENCE_LIMIT - PING_INTERVAL
"""Seconds after which the other side may have lost patience with us: it has heard nothing for longer."""

STANDSTILL_COUNTS = 10.0
"""Seconds after a long standstill in which a loss is explained by it."""


class RoundTrip(Struct, frozen=True):
    """A ping came back after this many seconds."""

    seconds: float


class EntryLeftOut(Struct, frozen=True):
    """The receiver will not have this entry of the manifest. `code` says why: see left_out.reason()."""

    index: int
    code: str


class Failed(Struct, frozen=True):
    """The transfer has ended without success; nothing more will happen."""

    error: FlyxError


class TransferSession(ABC):
    """The common half of Sender and Receiver."""

    # How the other side is called in errors: "sender" or "receiver".
    _peer: str

    def __init__(self, now: float) -> None:
        # What digests are by: the receiver's disk chooses.
        self.algorithm = Algorithm.SHA256
        self._outgoing: deque[ControlMessage] = deque()
        # Set once, at the end.
        self._ended = False
        # Ours is the last message: the other side closes the connection once it has read it.
        self.has_last_word = False
        self._deadline = now + SILENCE_LIMIT
        self._silence_limit = SILENCE_LIMIT
        # Why the path is being checked; None: nobody knows more than that nothing is heard.
        self._suspicion: str | None = None
        # For how long we stood still last, and until when that explains a loss.
        self._standstill = 0.0
        self._standstill_counts = now
        # Seconds of the last one.
        self._round_trip: float | None = None
        self._next_ping = now
        self._ping_token = 0
        # One pong waits at most, whatever a peer asks that does not read.
        self._pong_waiting = False
        # When the last ping left, until its pong arrives.
        self._ping_sent: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the transfer is over, with success or without. Drain once more, then close."""
        return self._ended

    def receive_control(self, message: str | bytes, now: float) -> None:
        """Take one message of the control channel. A bad one ends the transfer."""
        if self._ended:
            return
        self._heard(now)
        try:
            parsed = messages.parse_control_untrusted(message)
            logger.debug("%s < %s", self._peer, parsed.type)
            self._dispatch(parsed, now)
        except RemoteProtocolError as error:
            self.cancel(error)

    def handle_timeout(self, now: float) -> None:
        """Do what is due at next_timeout()."""
        if self._ended:
            return
        self._notice_standstill(now)
        if now >= self._deadline:
            silence = f"nothing was heard from the {self._peer} for {self._silence_limit:.0f} s"
            # Not told: if it can still read us, it sees the connection close, and may repair it.
            self._lose_path(ConnectionLost(reason=self._suspicion or silence))
        elif now >= self._next_ping:
            self._next_ping = now + PING_INTERVAL
            if self._ping_sent is None:
                self._ping_token += 1
                self._ping_sent = now
            self._outgoing.append(Ping(token=self._ping_token))

    def peer_gone(self, now: float) -> None:
        """The server says that the other side has left: believe it unless it answers.

        What comes meanwhile may have been under way when it died, and shows only that there is more to wait
        for. The answer to a ping that leaves from now on shows that it lives, and that the server is wrong.
        That the server has it back would show nothing of our path, and a path that is lost is best given up
        early, while there is a way to make another one.
        """
        self._expect_answer(now, GONE_LIMIT, None)

    def check_path(self, now: float, suspicion: str | None = None) -> None:
        """There is reason to think that the path is gone: believe it unless the other side answers at once.

        Args:
            now: monotonic seconds.
            suspicion: the reason, as a clause; None if there is no more to tell than that nothing is heard.
        """
        limit = GONE_LIMIT
        if self._round_trip is not None:
            limit = min(GONE_LIMIT, max(CHECK_LIMIT, CHECK_ROUND_TRIPS * self._round_trip))
        self._expect_answer(now, limit, suspicion)

    def stood_still(self, seconds: float, now: float) -> None:
        """We were not there for so long: the computer slept, or something stopped us.

        That nothing was heard meanwhile shows nothing. The other side has given us up if it was for longer
        than its patience; what it said at last may not have been read yet.
        """
        if self._ended:
            return
        self._standstill = max(seconds, self._standstill if now < self._standstill_counts else 0.0)
        self._standstill_counts = now + STANDSTILL_COUNTS
        self._deadline = max(self._deadline, now + GONE_LIMIT)
        self._next_ping = now
        if self._standstill >= LONG_STANDSTILL:
            self.check_path(now, self._why_lost(now))

    def path_gone(self, reason: str) -> None:
        """The path is known to be gone, for this reason: a clause."""
        self._lose_path(ConnectionLost(reason=reason))

    def channel_closed(self, now: float) -> None:
        """A data channel has closed under us."""
        self._notice_standstill(now)
        reason = self._why_lost(now) or f"the connection to the {self._peer} was lost"
        self._lose_path(ConnectionLost(reason=reason))

    def cancel(self, error: FlyxError) -> None:
        """Give up for this reason and tell the other side."""
        if self._ended:
            return
        # What has not left yet no longer matters.
        self._outgoing.clear()
        self.has_last_word = True
        self._outgoing.append(Cancel(code=error.code, message=(error.for_peer or str(error))[:1000]))
        self._fail(error)

    def next_control(self) -> str | None:
        """Return the next message for the control channel."""
        if not self._outgoing:
            return None
        message = self._outgoing.popleft()
        if isinstance(message, Pong):
            self._pong_waiting = False
        logger.debug("%s > %s", self._peer, message.type)
        return messages.serialize_control(message)

    def next_timeout(self) -> float | None:
        """When handle_timeout() is due, in the same seconds as `now`."""
        if self._ended:
            return None
        return min(self._deadline, self._next_ping)

    @abstractmethod
    def next_event(self) -> object | None:
        """Return what has happened, oldest first: RoundTrip, Failed, or an event of the subclass."""

    @abstractmethod
    def _receive(self, message: ControlMessage, now: float) -> None:
        """Handle one message of the subclass's own; raise RemoteProtocolError if it is out of place."""

    @abstractmethod
    def _emit(self, event: RoundTrip | Failed) -> None:
        """Queue an event for the subclass's next_event()."""

    def _expect_answer(self, now: float, limit: float, suspicion: str | None) -> None:
        """Have the path count as lost unless the other side answers within limit, or at least speaks."""
        if self._ended or limit >= self._silence_limit:
            return
        self._silence_limit, self._suspicion = limit, suspicion
        self._deadline = min(self._deadline, now + limit)
        # The next ping has a new token, and none that is on its way counts.
        self._ping_sent = None
        self._next_ping = now

    def _notice_standstill(self, now: float) -> None:
        late = now - min(self._deadline, self._next_ping)
        if not self._ended and late > LATE:
            self.stood_still(late, now)

    def _why_lost(self, now: float) -> str | None:
        """Return that it was us who were away, as long as that explains a loss."""
        if now >= self._standstill_counts or self._standstill < LONG_STANDSTILL:
            return None
        return f"this computer slept, or this program was stopped, for {self._standstill:.0f} s"

    def _heard(self, now: float) -> None:
        """The other side is alive."""
        self._deadline = now + self._silence_limit

    def _lose_path(self, error: FlyxError) -> None:
        """The path to the other side is lost."""
        self._fail(error)

    def _fail(self, error: FlyxError) -> None:
        if not self._ended:
            self._ended = True
            self._emit(Failed(error))

    def _dispatch(self, message: ControlMessage, now: float) -> None:
        match message:
            case Cancel():
                self._fail(error_of_cancel(message, self._peer))
            case Reject():
                reason = f"the {self._peer}'s code has words, and this one has none"
                self._fail(PairingFailed(reason=reason))
            case Ping(token=token):
                if not self._pong_waiting:
                    self._pong_waiting = True
                    self._outgoing.append(Pong(token=token))
            case Pong(token=token):
                if token == self._ping_token and self._ping_sent is not None:
                    self._round_trip = now - self._ping_sent
                    self._emit(RoundTrip(self._round_trip))
                    self._ping_sent = None
                    self._silence_limit, self._suspicion = SILENCE_LIMIT, None
                    self._heard(now)
            case _:
                self._receive(message, now)


_REFUSALS = frozenset(
    {
        "refused",
        "consent_needed",
        "nothing_wanted",
        "unverified_sender",
        "destination_exists",
        "unsafe_name",
        "no_space",
    }
)


def error_of_cancel(message: Cancel, peer: str) -> FlyxError:
    """Return the error that a cancel of the other side is for us."""
    if message.code == TransferInterrupted.code:
        return TransferInterrupted(reason=f"the {peer} stopped it")
    if message.code == Declined.code:
        return Declined()
    if message.code == StreamBegun.code:
        return StreamBegun()
    if message.code in _REFUSALS:
        return TransferRefused(reason=message.message)
    if message.code == StorageError.code:
        verb = "write" if peer == "receiver" else "read"
        return TransferInterrupted(reason=f"the {peer} could not {verb} where it wanted to")
    return TransferInterrupted(reason=f"the {peer} reported: {message.message}")
