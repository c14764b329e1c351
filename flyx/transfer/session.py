"""What both ends of a transfer share: heartbeat, giving up, and the queues that a driver drains.

The two sides have greeted and paired before (flyx.pairing): who speaks here is who it should be.

Input methods change the state: receive_control, handle_timeout, cancel, peer_gone, channel_closed and those
of the subclass. After each, drain in this order until each is empty: next_control, what the subclass adds,
next_event; then ask next_timeout when to call handle_timeout. `now` is monotonic seconds, never earlier than
in the last call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from flyx.errors import (
    ConnectionLost,
    FlyxError,
    RemoteProtocolError,
    TransferInterrupted,
    TransferRefused,
)
from flyx.transfer import messages
from flyx.transfer.messages import Cancel, ControlMessage, Ping, Pong

PING_INTERVAL = 5.0
"""Seconds between our pings: a third of the loss that ICE consent (RFC 7675) tolerates, and cheap."""

SILENCE_LIMIT = 20.0
"""Seconds without any message after which the path counts as lost. An outage of 10 s passes: SCTP, which
doubles its timeout, tries again at 16 s at the latest."""

GONE_LIMIT = 5.0
"""The same when the signaling server says that it has gone: long enough to see that the server is wrong."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A ping came back after this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class FileLost:
    """The sender cannot deliver this file. `code` is from disk.FAILURE_REASONS."""

    file: int
    code: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The transfer has ended without success; nothing more will happen."""

    error: FlyxError


class Session(ABC):
    """The common half of Sender and Receiver."""

    # How the other side is called in errors: "sender" or "receiver".
    _peer: str

    def __init__(self, now: float) -> None:
        self._outgoing: deque[ControlMessage] = deque()
        # Set once, at the end.
        self._ended = False
        # Ours is the last message: the other side closes the connection once it has read it.
        self.has_last_word = False
        self._deadline = now + SILENCE_LIMIT
        self._silence_limit = SILENCE_LIMIT
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
            self._dispatch(messages.parse_control_untrusted(message), now)
        except RemoteProtocolError as error:
            self.cancel(error)

    def handle_timeout(self, now: float) -> None:
        """Do what is due at next_timeout()."""
        if self._ended:
            return
        if now >= self._deadline:
            reason = f"nothing was heard from the {self._peer} for {self._silence_limit:.0f} s"
            # Not told: if it can still read us, it sees the connection close, and may repair it.
            self._lose_path(ConnectionLost(reason=reason))
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
        if self._ended or self._silence_limit == GONE_LIMIT:
            return
        self._silence_limit = GONE_LIMIT
        self._deadline = min(self._deadline, now + GONE_LIMIT)
        # The next ping has a new token, and none that is on its way counts.
        self._ping_sent = None
        self._next_ping = now

    def channel_closed(self) -> None:
        """A data channel has closed under us."""
        self._lose_path(ConnectionLost(reason=f"the connection to the {self._peer} was lost"))

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
            case Ping(token=token):
                if not self._pong_waiting:
                    self._pong_waiting = True
                    self._outgoing.append(Pong(token=token))
            case Pong(token=token):
                if token == self._ping_token and self._ping_sent is not None:
                    self._emit(RoundTrip(now - self._ping_sent))
                    self._ping_sent = None
                    self._silence_limit = SILENCE_LIMIT
                    self._heard(now)
            case _:
                self._receive(message, now)


_REFUSALS = frozenset(
    {
        "refused",
        "declined",
        "consent_needed",
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
    if message.code in _REFUSALS:
        return TransferRefused(reason=message.message)
    return TransferInterrupted(reason=f"the {peer} reported: {message.message}")
