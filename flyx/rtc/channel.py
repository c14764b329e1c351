"""The two data channels of a transfer, as those see them who speak over them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

import flyx.rtc.seam  # noqa: F401  # loads aiortc without what we do not use

# isort: split
from aiortc import RTCDataChannel

from flyx.errors import RemoteProtocolError

MAX_EARLY_MESSAGES = 256
MAX_EARLY_BYTES = 4 << 20
"""What is kept on a channel that nobody listens to; a peer that sends more has not waited its turn. What a
sender may send ahead (transfer.messages.EAGER_CREDIT) is 128 messages at its lowest rates."""

BUFFERED_HIGH = 1 << 20
"""Bytes in a channel's send buffer above which it is not writable."""

BUFFERED_LOW = BUFFERED_HIGH // 2
"""Bytes at which it becomes writable again."""


class ChannelListener(Protocol):
    """Is called with what happens on a channel."""

    def message_received(self, message: bytes | str) -> None:
        """A whole message has come."""

    def channel_writable(self) -> None:
        """The send buffer has drained to BUFFERED_LOW."""

    def channel_closed(self) -> None:
        """No more messages will come or go; Channel.violation tells whether that is the peer's fault."""


class Channel:
    """A data channel, open or closed."""

    def __init__(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        self._listener: ChannelListener | None = None
        self._early: deque[bytes | str] = deque()
        self._early_size = 0
        self.closed = False
        # How the peer broke the protocol below, if that is why it closed: to connect again is no use.
        self.violation: RemoteProtocolError | None = None
        channel.bufferedAmountLowThreshold = BUFFERED_LOW
        channel.on("message", self._on_message)
        channel.on("bufferedamountlow", self._on_low)
        channel.on("close", self.mark_closed)

    @property
    def writable(self) -> bool:
        """Whether more should be sent now; channel_writable() follows when it becomes so again."""
        return self._channel.bufferedAmount < BUFFERED_HIGH

    @property
    def queued(self) -> int:
        """Bytes of messages that have not left whole."""
        return self._channel.bufferedAmount

    def listen(self, listener: ChannelListener) -> None:
        """Deliver everything to this listener from now on, what came before included."""
        self._listener = listener
        while self._early and self._listener is listener:
            message = self._early.popleft()
            self._early_size -= len(message)
            listener.message_received(message)
        if self.closed and self._listener is listener:
            listener.channel_closed()

    def release(self) -> None:
        """Deliver nothing more to the listener: what comes from now on is kept for the next one."""
        self._listener = None

    def take_first(self, messages: Sequence[str]) -> None:
        """Deliver these before anything that has come over the channel."""
        self._early.extendleft(reversed(messages))
        self._early_size += sum(map(len, messages))

    def send(self, message: bytes | str) -> None:
        """Queue one message; on a closed channel it is dropped, as it would be on the way."""
        if self._channel.readyState == "open":
            self._channel.send(message)

    def _on_message(self, message: bytes | str) -> None:
        if self._listener:
            self._listener.message_received(message)
        elif len(self._early) < MAX_EARLY_MESSAGES and self._early_size + len(message) <= MAX_EARLY_BYTES:
            self._early.append(message)
            self._early_size += len(message)
        else:
            self._channel.close()

    def _on_low(self) -> None:
        if self._listener:
            self._listener.channel_writable()

    def mark_closed(self) -> None:
        """The channel, or the connection under it, has closed."""
        if not self.closed:
            self.closed = True
            if self._listener:
                self._listener.channel_closed()


class Channels(Struct, frozen=True):
    """The two channels of a transfer, and how large a message the peer accepts, in bytes."""

    control: Channel
    data: Channel
    max_message_size: int
