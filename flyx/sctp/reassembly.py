"""From fragments to messages, in order within each ordered stream (RFC 9260 §6.5, §6.6, §6.9).

Fragments of one message have consecutive TSNs. What arrives in the order of TSNs, nearly everything, is put
together as it comes; what arrives beyond a gap waits by its TSN, and unordered messages and other streams do
not wait for the gap. TSNs here never wrap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flyx.errors import RemoteProtocolError

BEGINNING, ENDING, UNORDERED = 0x02, 0x01, 0x04
"""Flags of a DATA chunk: B, E, U (RFC 9260 §3.3.1)."""

_BOTH = BEGINNING | ENDING
_SSN_MASK = 0xFFFF

MAX_WAITING = 1 << 17
"""Fragments and messages that wait. An honest peer has at most 65,535 TSNs beyond a gap on the way."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the peer sent it."""

    stream_id: int
    ppid: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Fragment:
    """A DATA chunk."""

    tsn: int
    flags: int
    stream_id: int
    ssn: int
    ppid: int
    data: bytes


class _Stream:
    """An ordered stream: the SSN due, and the messages that came before their turn."""

    __slots__ = ("early", "next_ssn")

    def __init__(self) -> None:
        self.next_ssn = 0
        self.early: dict[int, Message] = {}


class Reassembly:
    """Fragments that are not messages yet, and messages that are not due yet."""

    def __init__(self, max_message_size: int) -> None:
        self._max_message_size = max_message_size
        # Bytes that wait here: what the receive window has to leave out.
        self.size = 0
        # Messages that are early, over all streams.
        self._early_count = 0
        # Messages to deliver, in order.
        self.ready: list[Message] = []
        # Fragments of unfinished messages by TSN.
        self._fragments: dict[int, Fragment] = {}
        # The message that the next TSN in order goes on with: its first fragment, its parts and their size,
        # the next TSN. Reception's hot path appends to `parts` and then calls took_parts().
        self.under_way: Fragment | None = None
        self.parts: list[bytes] = []
        self.part_count = 0
        self.parts_size = 0
        self.expected = -1
        self._streams: dict[int, _Stream] = {}

    def add(self, fragment: Fragment) -> None:
        """Take a fragment that has not been taken before.

        Raises:
            RemoteProtocolError: it does not fit its neighbours, or its message is longer than may be.
        """
        flags = fragment.flags
        if flags & _BOTH == _BOTH:
            self._complete(fragment, fragment.data)
        elif fragment.tsn == self.expected:
            self._continue(fragment)
        elif flags & BEGINNING and self.under_way is None and fragment.tsn + 1 not in self._fragments:
            self.size += len(fragment.data)
            self._begin(fragment)
        else:
            self._keep(fragment)

    def took_parts(self, count: int, size: int) -> None:
        """The next `count` fragments, `size` bytes, have been appended to `parts`.

        Raises:
            RemoteProtocolError: the message has become longer than may be.
        """
        self.part_count += count
        self.parts_size += size
        self.size += size
        self.expected += count
        if self.parts_size > self._max_message_size:
            raise RemoteProtocolError(reason="an SCTP message longer than we take")

    def skip(self, point: int, streams: Iterable[tuple[int, int]]) -> None:
        """FORWARD TSN: forget fragments up to a TSN, and go on after these SSNs (RFC 3758 §3.6)."""
        if self.under_way is not None and self.under_way.tsn <= point:
            self.size -= self.parts_size
            self._forget_current()
        for tsn in [tsn for tsn in self._fragments if tsn <= point]:
            self.size -= len(self._fragments.pop(tsn).data)
        for stream_id, ssn in streams:
            stream = self._stream(stream_id)
            after = (ssn + 1) & _SSN_MASK
            skipped = (after - stream.next_ssn) & _SSN_MASK
            if skipped < 0x8000:
                due = {(early - stream.next_ssn) & _SSN_MASK: early for early in stream.early}
                for distance in sorted(due):
                    if distance < skipped:
                        self._release(stream, due[distance])
                stream.next_ssn = after
            self._deliver_due(stream)

    def reset(self, streams: Iterable[int]) -> None:
        """The peer's streams begin anew with SSN 0 (RFC 6525 §5.2.2); none named means all."""
        for stream_id in list(streams) or list(self._streams):
            stream = self._streams.pop(stream_id, None)
            for message in stream.early.values() if stream else ():
                self.size -= len(message.data)
                self._early_count -= 1

    def stream_ids(self) -> list[int]:
        """Streams that something ordered has come on since they began."""
        return list(self._streams)

    def _begin(self, fragment: Fragment) -> None:
        self.under_way, self.parts = fragment, [fragment.data]
        self.part_count, self.parts_size = 1, len(fragment.data)
        self.expected = fragment.tsn + 1

    def _continue(self, fragment: Fragment) -> None:
        """Append the next fragment of the message under way, and whatever after it came early."""
        self.size += len(fragment.data)
        following: Fragment | None = fragment
        while following is not None:
            if self.under_way is None:
                if not following.flags & BEGINNING:
                    raise RemoteProtocolError(reason="an SCTP message without its beginning")
                self._begin(following)
            else:
                self._append(self.under_way, following)
            following = self._fragments.pop(following.tsn + 1, None) if self._fragments else None

    def _append(self, first: Fragment, fragment: Fragment) -> None:
        self._check_same(first, fragment)
        self.parts.append(fragment.data)
        self.part_count += 1
        self.parts_size += len(fragment.data)
        self.expected += 1
        if self.parts_size > self._max_message_size:
            raise RemoteProtocolError(reason="an SCTP message longer than we take")
        if fragment.flags & ENDING:
            data = b"".join(self.parts)
            self.size -= self.parts_size
            self._forget_current()
            self._complete(first, data)

    def _keep(self, fragment: Fragment) -> None:
        """Keep a fragment that comes early, and see whether its message is complete with it."""
        self._fragments[fragment.tsn] = fragment
        self.size += len(fragment.data)
        self._check_waiting()
        first = fragment.tsn
        while not self._fragments[first].flags & BEGINNING:
            first -= 1
            if first not in self._fragments:
                return
        last = fragment.tsn
        while not self._fragments[last].flags & ENDING:
            last += 1
            if last not in self._fragments:
                return
        fragments = [self._fragments.pop(tsn) for tsn in range(first, last + 1)]
        for other in fragments[1:]:
            self._check_same(fragments[0], other)
        data = b"".join([kept.data for kept in fragments])
        self.size -= len(data)
        if len(data) > self._max_message_size:
            raise RemoteProtocolError(reason="an SCTP message longer than we take")
        self._complete(fragments[0], data)

    def _check_same(self, first: Fragment, other: Fragment) -> None:
        same = first.stream_id == other.stream_id and (first.flags ^ other.flags) & UNORDERED == 0
        if not same or other.flags & BEGINNING or (not first.flags & UNORDERED and first.ssn != other.ssn):
            raise RemoteProtocolError(reason="SCTP fragments of different messages in one")

    def _check_waiting(self) -> None:
        if len(self._fragments) + self._early_count > MAX_WAITING:
            raise RemoteProtocolError(reason="SCTP messages that never end or never come due")

    def _forget_current(self) -> None:
        self.under_way = None
        self.parts = []
        self.part_count = 0
        self.parts_size = 0
        self.expected = -1

    def _complete(self, first: Fragment, data: bytes) -> None:
        message = Message(first.stream_id, first.ppid, data)
        if first.flags & UNORDERED:
            self.ready.append(message)
            return
        stream = self._stream(first.stream_id)
        if first.ssn == stream.next_ssn:
            stream.next_ssn = (stream.next_ssn + 1) & _SSN_MASK
            self.ready.append(message)
            if stream.early:
                self._deliver_due(stream)
        else:
            if first.ssn in stream.early:
                raise RemoteProtocolError(reason="two SCTP messages of one sequence number")
            stream.early[first.ssn] = message
            self.size += len(data)
            self._early_count += 1
            self._check_waiting()

    def _deliver_due(self, stream: _Stream) -> None:
        while self._release(stream, stream.next_ssn):
            stream.next_ssn = (stream.next_ssn + 1) & _SSN_MASK

    def _release(self, stream: _Stream, ssn: int) -> bool:
        message = stream.early.pop(ssn, None)
        if message is None:
            return False
        self.size -= len(message.data)
        self._early_count -= 1
        self.ready.append(message)
        return True

    def _stream(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = _Stream()
        return stream
