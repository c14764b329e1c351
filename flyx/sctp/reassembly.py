"""From fragments to messages, in order within each ordered stream (RFC 9260 §6.5, §6.6, §6.9).

Fragments of one message have consecutive TSNs. What arrives in the order of TSNs, nearly everything, is put
together as it comes; what arrives beyond a gap waits in runs, and unordered messages and other streams do not
wait for the gap. TSNs here never wrap.

A fragment costs O(log n) of those that wait, whatever the peer sends and in whatever order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from flyx.errors import RemoteProtocolError
from flyx.sctp.data_chunk import BEGINNING, ENDING, UNORDERED

_BOTH = BEGINNING | ENDING
_SSN_MASK = 0xFFFF

MAX_WAITING = 1 << 17
"""Fragments and messages that wait. An honest peer has at most 65,535 TSNs beyond a gap on the way."""

MAX_RUNS = 1 << 14
"""Runs that wait. An honest peer has two in each of the ranges that a ReceiveTracker remembers, the end of
one message and the beginning of another, and those of messages that it has abandoned."""


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


class _Run:
    """Fragments of one message with consecutive TSNs, the first and the last included; `size` in bytes."""

    __slots__ = ("first", "last", "size")

    def __init__(self, first: int, last: int, size: int) -> None:
        self.first = first
        self.last = last
        self.size = size


class _Early:
    """The messages of one ordered stream that came before their turn, by SSNs that never wrap."""

    __slots__ = ("messages", "ssns")

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        # A heap of the same SSNs: they leave in order.
        self.ssns: list[int] = []


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
        # Fragments of unfinished messages by TSN, and the runs that they make by the TSN of the first, which
        # _run_starts has in order. Runs that touch are of different messages.
        self._fragments: dict[int, Fragment] = {}
        self._runs: dict[int, _Run] = {}
        self._run_starts: list[int] = []
        # The message that the next TSN in order goes on with: its first fragment, its parts and their size,
        # the next TSN. Reception's hot path appends to `parts` and then calls took_parts().
        self.under_way: Fragment | None = None
        self.parts: list[bytes] = []
        self.part_count = 0
        self.parts_size = 0
        self.expected = -1
        # Ordered streams in use: the SSN due, which never wraps here, and what came before its turn.
        self._due: dict[int, int] = {}
        self._early: dict[int, _Early] = {}

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
        self._skip_runs(point)
        for stream_id, ssn in streams:
            due = self._due.get(stream_id, 0)
            skipped = (ssn + 1 - due) & _SSN_MASK
            if skipped < 0x8000:
                due += skipped
            self._deliver_due(stream_id, due)

    def reset(self, streams: Sequence[int]) -> None:
        """The peer's streams begin anew with SSN 0 (RFC 6525 §5.2.2); none named means all."""
        for stream_id in streams or list(self._due):
            self._due.pop(stream_id, None)
            early = self._early.pop(stream_id, None)
            for message in early.messages.values() if early else ():
                self.size -= len(message.data)
                self._early_count -= 1

    def stream_ids(self) -> list[int]:
        """Streams that something ordered has come on since they began."""
        return list(self._due)

    def _skip_runs(self, point: int) -> None:
        """Forget the fragments that wait up to a TSN, and the rest of their messages, which has no use."""
        count = bisect_right(self._run_starts, point)
        for start in self._run_starts[:count]:
            run = self._runs.pop(start)
            self.size -= run.size
            for tsn in range(run.first, run.last + 1):
                del self._fragments[tsn]
        del self._run_starts[:count]

    def _begin(self, fragment: Fragment) -> None:
        self.under_way, self.parts = fragment, [fragment.data]
        self.part_count, self.parts_size = 1, len(fragment.data)
        self.expected = fragment.tsn + 1

    def _continue(self, fragment: Fragment) -> None:
        """Append the next fragment of the message under way, and those after it that came early."""
        self.size += len(fragment.data)
        self._append(fragment)
        following = fragment.tsn + 1
        while (run := self._runs.get(following)) is not None:
            self._forget_run(run)
            for tsn in range(run.first, run.last + 1):
                self._append(self._fragments.pop(tsn))
            following = run.last + 1

    def _append(self, fragment: Fragment) -> None:
        first = self.under_way
        if first is None:
            if not fragment.flags & BEGINNING:
                raise RemoteProtocolError(reason="an SCTP message without its beginning")
            self._begin(fragment)
            return
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
        tsn, size = fragment.tsn, len(fragment.data)
        self._fragments[tsn] = fragment
        self.size += size
        at = bisect_left(self._run_starts, tsn)
        before = None if fragment.flags & BEGINNING or not at else self._runs[self._run_starts[at - 1]]
        if before is not None and (before.last + 1 != tsn or self._fragments[before.last].flags & ENDING):
            before = None
        after = None if fragment.flags & ENDING else self._runs.get(tsn + 1)
        if after is not None and self._fragments[after.first].flags & BEGINNING:
            after = None
        if after is not None:
            self._check_same(fragment, self._fragments[after.first])
        if before is not None:
            self._check_same(self._fragments[before.first], fragment)
            run = before
            run.last, run.size = tsn, run.size + size
            if after is not None:
                run.last, run.size = after.last, run.size + after.size
                del self._runs[after.first], self._run_starts[at]
        elif after is not None:
            run = after
            del self._runs[run.first]
            run.first, run.size = tsn, run.size + size
            self._runs[tsn] = run
            self._run_starts[at] = tsn
        else:
            run = self._runs[tsn] = _Run(tsn, tsn, size)
            self._run_starts.insert(at, tsn)
        self._check_waiting()
        if run.size > self._max_message_size:
            raise RemoteProtocolError(reason="an SCTP message longer than we take")
        first = self._fragments[run.first]
        if first.flags & BEGINNING and self._fragments[run.last].flags & ENDING:
            self._forget_run(run)
            data = b"".join([self._fragments.pop(tsn).data for tsn in range(run.first, run.last + 1)])
            self.size -= len(data)
            self._complete(first, data)

    def _forget_run(self, run: _Run) -> None:
        del self._runs[run.first], self._run_starts[bisect_left(self._run_starts, run.first)]

    def _check_same(self, first: Fragment, other: Fragment) -> None:
        same = first.stream_id == other.stream_id and (first.flags ^ other.flags) & UNORDERED == 0
        if not same or other.flags & BEGINNING or (not first.flags & UNORDERED and first.ssn != other.ssn):
            raise RemoteProtocolError(reason="SCTP fragments of different messages in one")

    def _check_waiting(self) -> None:
        if len(self._fragments) + self._early_count > MAX_WAITING or len(self._run_starts) > MAX_RUNS:
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
        stream_id = first.stream_id
        due = self._due.get(stream_id, 0)
        ahead = (first.ssn - due) & _SSN_MASK
        if not ahead:
            self.ready.append(message)
            if stream_id in self._early:
                self._deliver_due(stream_id, due + 1)
            else:
                self._due[stream_id] = due + 1
            return
        self._due.setdefault(stream_id, 0)
        early = self._early.get(stream_id)
        if early is None:
            early = self._early[stream_id] = _Early()
        ssn = due + ahead
        if ssn in early.messages:
            raise RemoteProtocolError(reason="two SCTP messages of one sequence number")
        early.messages[ssn] = message
        heappush(early.ssns, ssn)
        self.size += len(data)
        self._early_count += 1
        self._check_waiting()

    def _deliver_due(self, stream_id: int, due: int) -> None:
        """An SSN is due: deliver what was early and has its turn now, what lies before it included."""
        early = self._early.get(stream_id)
        if early is not None:
            while early.ssns and early.ssns[0] <= due:
                ssn = heappop(early.ssns)
                message = early.messages.pop(ssn)
                self.size -= len(message.data)
                self._early_count -= 1
                self.ready.append(message)
                due = max(due, ssn + 1)
            if not early.ssns:
                del self._early[stream_id]
        self._due[stream_id] = due
