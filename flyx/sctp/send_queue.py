"""Messages that wait to be sent, and how they are cut into fragments (RFC 9260 §6.9).

Streams take turns message by message, so that a short message on one stream waits for one message of another
and not for all of them. A message is cut into fragments of equal size, the last somewhat shorter: equal
packets leave together (UDP segmentation offload).
"""

from __future__ import annotations

from collections import deque
from collections.abc import KeysView
from dataclasses import dataclass

from flyx.sctp.packet import padded

RELIABLE = 1 << 60
"""Retransmissions of a message without a limit."""


class OutgoingMessage:
    """One message, its fragments numbered from 0. Fragment i is data[i * fragment_size : (i + 1) * …]."""

    __slots__ = (
        "abandoned",
        "data",
        "expires_at",
        "fragment_count",
        "fragment_size",
        "ppid",
        "retransmits",
        "size",
        "ssn",
        "stream_id",
        "unordered",
    )

    def __init__(
        self,
        stream_id: int,
        ppid: int,
        data: bytes,
        *,
        unordered: bool,
        max_retransmits: int | None,
        expires_at: float | None,
    ) -> None:
        self.stream_id = stream_id
        self.ppid = ppid
        self.data = memoryview(data)
        self.size = len(data)
        self.unordered = unordered
        # Partial reliability (RFC 3758, RFC 7496): None is reliable.
        self.retransmits = RELIABLE if max_retransmits is None else max_retransmits
        self.expires_at = expires_at
        # Set when the first fragment is sent.
        self.ssn = 0
        self.fragment_size = 0
        self.fragment_count = 0
        # No more of it is sent; FORWARD TSN skips what was.
        self.abandoned = False

    def cut(self, largest: int) -> None:
        """Decide on the size of its fragments: at most `largest` bytes, a multiple of four if several."""
        # Chunks are padded: a fragment of 4n + 1 bytes takes 4n + 4.
        largest &= ~3
        count = -(-self.size // largest)
        if count > 1:
            self.fragment_size = min(largest, padded(-(-self.size // count)))
            count = -(-self.size // self.fragment_size)
        else:
            self.fragment_size = self.size
        self.fragment_count = count

    def span(self, first: int, count: int) -> int:
        """Bytes in `count` fragments from `first` on."""
        start = first * self.fragment_size
        return min(self.size, start + count * self.fragment_size) - start


@dataclass(slots=True)
class _Stream:
    """What waits on one stream."""

    messages: deque[OutgoingMessage]
    next_ssn: int = 0


class SendQueue:
    """The messages of all streams that have not been sent whole."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        # Streams with messages that may go on, the next one first.
        self._turns: deque[int] = deque()
        # Streams that wait for the peer to confirm their reset.
        self._paused: set[int] = set()
        # Messages that have run out of time before they were begun.
        self.expired: list[OutgoingMessage] = []
        # The message under way and the fragment to send next.
        self.current: OutgoingMessage | None = None
        self.next_fragment = 0
        # Bytes of messages not sent yet, the current one's rest included.
        self.size = 0

    @property
    def sendable(self) -> bool:
        """Whether anything waits that is not held back."""
        return self.current is not None or bool(self._turns)

    def push(self, message: OutgoingMessage) -> None:
        """Queue a message behind those of its stream."""
        stream = self._streams.setdefault(message.stream_id, _Stream(deque()))
        if not stream.messages and message.stream_id not in self._paused:
            self._turns.append(message.stream_id)
        stream.messages.append(message)
        self.size += message.size

    def peek(self, largest_fragment: int, now: float) -> OutgoingMessage | None:
        """Return the message to send from next, at next_fragment; None if nothing waits.

        Messages whose lifetime ends before they are begun go to `expired` here (RFC 3758 §3.5): nobody misses
        their TSNs.
        """
        while self.current is None and self._turns:
            stream_id = self._turns.popleft()
            stream = self._streams[stream_id]
            message = stream.messages.popleft()
            if stream.messages:
                self._turns.append(stream_id)
            if message.expires_at is not None and message.expires_at <= now:
                self.size -= message.size
                self.expired.append(message)
                continue
            if not message.unordered:
                message.ssn = stream.next_ssn
                stream.next_ssn = (stream.next_ssn + 1) & 0xFFFF
            message.cut(largest_fragment)
            self.current, self.next_fragment = message, 0
        return self.current

    def take(self, count: int) -> None:
        """`count` fragments of the current message, from next_fragment on, have been sent."""
        message = self.current
        assert message is not None
        self.size -= message.span(self.next_fragment, count)
        self.next_fragment += count
        if self.next_fragment == message.fragment_count:
            self.current = None

    def drop_current(self) -> None:
        """The current message has been abandoned: nothing more of it is sent."""
        message = self.current
        assert message is not None
        self.take(message.fragment_count - self.next_fragment)

    def waits(self, stream_id: int) -> bool:
        """Whether anything of this stream has not been sent whole."""
        if self.current is not None and self.current.stream_id == stream_id:
            return True
        stream = self._streams.get(stream_id)
        return stream is not None and bool(stream.messages)

    def reset(self, stream_id: int) -> None:
        """The stream begins anew with SSN 0 (RFC 6525 §5.2.2), with what was queued since hold()."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._paused.discard(stream_id)
            return
        stream.next_ssn = 0
        self.release(stream_id)
        if not stream.messages:
            del self._streams[stream_id]

    def hold(self, stream_id: int) -> None:
        """Send nothing on a stream until reset() or release(); nothing must wait on it now."""
        self._paused.add(stream_id)

    def release(self, stream_id: int) -> None:
        """Go on with a stream under its old SSNs."""
        stream = self._streams.get(stream_id)
        if stream_id in self._paused and stream is not None and stream.messages:
            self._turns.append(stream_id)
        self._paused.discard(stream_id)

    def stream_ids(self) -> KeysView[int]:
        """Streams that something was sent on since they began."""
        return self._streams.keys()
