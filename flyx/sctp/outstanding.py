"""Sent data until it is acknowledged: SACK handling, loss detection, what to send again.

Nothing is kept per packet: a SACK moves, splits or removes runs (see runs.py). Loss is found by time (RACK,
RFC 8985 §6, with gap ack blocks and duplicate TSNs of SCTP for SACK and DSACK of TCP) and, until the path has
shown that it reorders, by three missing reports (RFC 9260 §7.2.4). TSNs here never wrap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from flyx.errors import RemoteProtocolError
from flyx.sctp.congestion.base import AckSample, Loss
from flyx.sctp.runs import Burst, Run, RunState
from flyx.sctp.send_queue import OutgoingMessage
from flyx.sctp.spurious import SuspectLosses

DUPLICATE_THRESHOLD = 3
"""Packets acknowledged beyond a missing one that prove its loss (RFC 9260 §7.2.4), if nothing reorders."""

FREE_LOOKS, LOOK_TIME = 512, 2e-6
"""A look for losses at more runs than the first is not repeated before the second, in seconds for each run: a
peer that acknowledges every other fragment, one a SACK, would have us look at all of them each time."""

MAX_RENEGES = 256
"""Times that a receiver may take back what it acknowledged. An honest one does when it is out of memory."""

MAX_SKIPPED_STREAMS = 200
"""Streams in one FORWARD TSN: 800 bytes, which fit every packet."""


@dataclass(slots=True)
class _Ack:
    """What one SACK has acknowledged, while it is being handled."""

    size: int = 0
    newest: Burst | None = None
    # What is newest was sent once: only then its round trip means anything (Karn).
    newest_once: bool = False


@dataclass(frozen=True, slots=True)
class SackResult:
    """What one SACK has changed.

    Attributes:
        sample: for congestion control; None if nothing was newly acknowledged.
        losses: what is newly lost.
        rack_deadline: when detect_losses() is due; None if nothing is suspect.
        advanced: the cumulative TSN ack moved.
    """

    sample: AckSample | None
    losses: list[Loss]
    rack_deadline: float | None
    advanced: bool


_first_of = attrgetter("first")
_MATTERS = (RunState.IN_FLIGHT, RunState.LOST)


def _uncovered(
    blocks: Sequence[tuple[int, int]], known: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the parts of blocks that no known block covers; both in order."""
    position = 0
    for start, end in blocks:
        while position < len(known) and known[position][1] < start:
            position += 1
        at = position
        while at < len(known) and known[at][0] <= end:
            if known[at][0] > start:
                yield start, known[at][0] - 1
            start = known[at][1] + 1
            at += 1
        if start <= end:
            yield start, end


class Outstanding:
    """All TSNs that were sent and are not cumulatively acknowledged."""

    def __init__(self, initial_tsn: int, safe_fragment: int = 1 << 16) -> None:
        """Args:
        initial_tsn: of the first fragment.
        safe_fragment: bytes of the largest fragment that every path takes.
        """
        self._safe_fragment = safe_fragment
        # Times in a row that larger fragments were lost though sent again, without any that arrived.
        self.large_losses = 0
        self.next_tsn = initial_tsn
        # Everything up to here is acknowledged.
        self.cumulative = initial_tsn - 1
        # In TSN order, without holes from cumulative + 1 to next_tsn - 1. Neighbours that are ACKED are one
        # run.
        self.runs: list[Run] = []
        # The gap ack blocks of the last SACK: most of them come again in the next one.
        self._known_gaps: Sequence[tuple[int, int]] = ()
        # Bytes that are IN_FLIGHT, and bytes that are LOST.
        self.in_flight = 0
        self.lost_waiting = 0
        # Whether any run may be ABANDONED; FORWARD TSN may have to wait for others before it.
        self.abandoned_waiting = False
        # Bytes over the association's life (C.delivered, C.lost).
        self.delivered = 0
        self.delivered_at = 0.0
        self.lost = 0
        # The same: what has left more than once.
        self.resent = 0
        self._first_sent_at = 0.0
        # Delivery samples are app-limited until this many bytes are delivered.
        self._app_limited_until = 0
        # The highest TSN acknowledged by anything.
        self.highest_acked = initial_tsn - 1
        # RACK: when the newest acknowledged run left, its last TSN, and its round trip.
        self._rack_sent_at = 0.0
        self._rack_tsn = initial_tsn - 1
        self._rack_rtt = 0.0
        self.reordering_seen = False
        self.suspects = SuspectLosses()
        # The reordering window is this many quarters of the least RTT.
        self._reorder_steps = 1
        # Fragments acknowledged out of order, for the duplicate threshold.
        self._gap_acked = 0
        # When the next look for losses may be.
        self._next_look = 0.0
        self._reneges = 0

    # Sending.

    def begin_burst(self, now: float) -> Burst:
        """Return what is known now, for what is sent now."""
        if not self.in_flight:
            self._first_sent_at = self.delivered_at = now
        return Burst(
            now,
            self.delivered,
            self.delivered_at,
            self._first_sent_at,
            self.lost,
            self._app_limited_until > self.delivered,
        )

    def sent(self, message: OutgoingMessage, fragment: int, count: int, burst: Burst) -> int:
        """Fragments leave for the first time; return the TSN of the first."""
        first = self.next_tsn
        run = Run(first, count, message, fragment, burst, 1)
        self.runs.append(run)
        self.next_tsn += count
        self.in_flight += run.size
        return first

    def mark_app_limited(self) -> None:
        """Nothing more waits to be sent although more could be in flight."""
        self._app_limited_until = self.delivered + self.in_flight or 1

    def lost_runs(self) -> list[Run]:
        """Runs to be sent again, the oldest first."""
        if not self.lost_waiting:
            return []
        return [run for run in self.runs if run.state is RunState.LOST]

    def resend(self, run: Run, count: int, burst: Burst) -> None:
        """The first `count` fragments of a lost run leave again."""
        if count < run.count:
            self.runs.insert(self.runs.index(run) + 1, run.split(count))
        self.lost_waiting -= run.size
        self.in_flight += run.size
        self.resent += run.size
        run.state = RunState.IN_FLIGHT
        run.burst = burst
        run.times_sent += 1

    # Acknowledgements.

    def on_sack(
        self,
        cumulative: int,
        gaps: Sequence[tuple[int, int]] | None,
        *,
        now: float,
        min_rtt: float,
        cwnd_limited: bool,
    ) -> SackResult | None:
        """Apply a SACK and look for losses.

        Args:
            cumulative: the cumulative TSN ack, widened.
            gaps: first and last TSN of each gap ack block, widened, in order; None if they are not told.
            now: monotonic seconds.
            min_rtt: the least round trip lately, for the reordering window.
            cwnd_limited: for the sample.

        Returns:
            None for a SACK older than one that was handled.

        Raises:
            RemoteProtocolError: it acknowledges what was never sent, or takes back too much too often.
        """
        if cumulative < self.cumulative:
            return None
        if cumulative >= self.next_tsn or (gaps and gaps[-1][1] >= self.next_tsn):
            raise RemoteProtocolError(reason="a SACK for data that was not sent")
        ack = _Ack()
        advanced = cumulative > self.cumulative
        if advanced:
            self._advance(cumulative, ack)
        if gaps is not None:
            if gaps:
                self._mark_gaps(gaps, ack)
            self._known_gaps = gaps
            if advanced and self._gap_acked > sum([end - start + 1 for start, end in gaps]):
                # This SACK is newer than all others, and tells of less.
                self._reneges += self._handle_reneging()
                if self._reneges > MAX_RENEGES:
                    raise RemoteProtocolError(reason="SACKs that keep taking back what they acknowledged")
        rtt = self._count(ack, now)
        lost_before = self.lost
        losses, rack_deadline = self.detect_losses(now, min_rtt)
        sample = self._sample(ack, now, rtt, self.lost - lost_before, cwnd_limited)
        return SackResult(sample, losses, rack_deadline, advanced)

    def _advance(self, cumulative: int, ack: _Ack) -> None:
        runs = self.runs
        count = 0
        for run in runs:
            if run.first > cumulative:
                break
            if run.end - 1 > cumulative:
                runs.insert(count + 1, run.split(cumulative + 1 - run.first))
            self._acknowledge(run, ack)
            count += 1
        del runs[:count]
        self.cumulative = cumulative
        self.highest_acked = max(self.highest_acked, cumulative)

    def _mark_gaps(self, gaps: Sequence[tuple[int, int]], ack: _Ack) -> None:
        """Acknowledge what gap ack blocks cover and those of the last SACK did not."""
        for start, end in _uncovered(gaps, self._known_gaps):
            if start > self.cumulative:
                self._mark(start, end, ack)
        self.highest_acked = max(self.highest_acked, gaps[-1][1])

    def _mark(self, start: int, end: int, ack: _Ack) -> None:
        """Acknowledge the TSNs from start to end; split runs at the edges, join them to ACKED neighbours."""
        runs = self.runs
        index = bisect_right(runs, start, key=_first_of) - 1
        if runs[index].first < start:
            runs.insert(index + 1, runs[index].split(start - runs[index].first))
            index += 1
        after = index
        while after < len(runs) and runs[after].first <= end:
            run = runs[after]
            if run.end - 1 > end:
                runs.insert(after + 1, run.split(end + 1 - run.first))
            if run.state in _MATTERS:
                self._acknowledge(run, ack)
                self._gap_acked += run.count
                run.state = RunState.ACKED
            after += 1
        self._join(max(index - 1, 0), min(after + 1, len(runs)))

    def _handle_reneging(self) -> bool:
        """Have sent again what was acknowledged by a gap ack block and is none of those known now, if any is.

        The receiver reneged (RFC 9260 §6.2.1 D). What lies beyond the last block may only have had no room in
        the SACK, unless there is none at all. Nothing of this tells of congestion.
        """
        known = self._known_gaps
        reach = known[-1][1] if known else self.next_tsn - 1
        holes = list(_uncovered([(self.cumulative + 1, reach)], known))
        if not holes:
            return False
        before = self._gap_acked
        runs: list[Run] = []
        position = 0
        pending = self.runs[::-1]
        while pending:
            run = pending.pop()
            while position < len(holes) and holes[position][1] < run.first:
                position += 1
            if run.state is not RunState.ACKED or position == len(holes) or holes[position][0] >= run.end:
                runs.append(run)
                continue
            start, end = holes[position]
            if run.first < start:
                pending.append(run.split(start - run.first))
                runs.append(run)
                continue
            if run.end - 1 > end:
                pending.append(run.split(end + 1 - run.first))
            self._gap_acked -= run.count
            for part in (run, *run.part()):
                if part.message.abandoned:
                    part.state = RunState.ABANDONED
                    self.abandoned_waiting = True
                else:
                    part.state = RunState.LOST
                    self.lost_waiting += part.size
                runs.append(part)
        self.runs = runs
        return self._gap_acked < before

    def _join(self, begin: int, end: int) -> None:
        """Make one run of neighbours that are ACKED, in runs[begin:end]."""
        joined: list[Run] = []
        for run in self.runs[begin:end]:
            if joined and run.state is joined[-1].state is RunState.ACKED:
                joined[-1].join(run)
            else:
                joined.append(run)
        self.runs[begin:end] = joined

    def _acknowledge(self, run: Run, ack: _Ack) -> None:
        """Count a run that was not acknowledged before."""
        match run.state:
            case RunState.ACKED:
                self._gap_acked -= run.count
                return
            case RunState.ABANDONED:
                return
            case RunState.IN_FLIGHT:
                self.in_flight -= run.size
            case RunState.LOST:
                # It was not lost after all.
                self.lost_waiting -= run.size
                self.suspects.arrived(run.first, run.count)
        ack.size += run.size
        if self.large_losses and run.largest_fragment > self._safe_fragment:
            self.large_losses = 0
        if run.first + run.count - 1 < self.highest_acked and run.times_sent == 1:
            self.reordering_seen = True
        newest = ack.newest
        if newest is None or run.burst.sent_at >= newest.sent_at:
            ack.newest = run.burst
            ack.newest_once = run.times_sent == 1
        if (run.burst.sent_at, run.end) > (self._rack_sent_at, self._rack_tsn):
            self._rack_sent_at, self._rack_tsn = run.burst.sent_at, run.end

    def _count(self, ack: _Ack, now: float) -> float | None:
        """Count what was delivered; return the round trip, if it can be told."""
        burst = ack.newest
        if burst is None:
            return None
        self.delivered += ack.size
        self.delivered_at = now
        self._first_sent_at = burst.sent_at
        rtt = now - burst.sent_at
        # An acknowledgement of a retransmission that came sooner than any round trip is the original's.
        if ack.newest_once or rtt >= self._rack_rtt / 2:
            self._rack_rtt = rtt
        return rtt if ack.newest_once else None

    def _sample(
        self, ack: _Ack, now: float, rtt: float | None, lost: int, cwnd_limited: bool
    ) -> AckSample | None:
        burst = ack.newest
        if burst is None:
            return None
        interval = max(burst.sent_at - burst.first_sent_at, now - burst.delivered_at)
        return AckSample(
            acked=ack.size,
            lost=lost,
            delivered=self.delivered,
            prior_delivered=burst.delivered,
            delivery_rate=(self.delivered - burst.delivered) / interval if interval > 0 else None,
            is_app_limited=burst.is_app_limited,
            rtt=rtt,
            tx_in_flight=burst.in_flight,
            lost_since=self.lost - burst.lost,
            in_flight=self.in_flight,
            cwnd_limited=cwnd_limited,
            sent_at=burst.sent_at,
        )

    # Losses.

    def detect_losses(self, now: float, min_rtt: float) -> tuple[list[Loss], float | None]:
        """Declare lost what is overdue.

        Args:
            now: monotonic seconds.
            min_rtt: the least round trip lately, for the reordering window.

        Returns:
            What is newly lost, and when to look again; None if nothing is suspect.
        """
        if now < self._next_look:
            return [], self._next_look
        if self.highest_acked <= self.cumulative and not self._overtaken():
            return [], None
        window = self._reordering_window(min_rtt)
        limit = self._rack_rtt + window
        losses: dict[Burst, int] = {}
        large = False
        again: float | None = None
        looks = 0
        for run in self.runs:
            looks += 1
            if run.state is not RunState.IN_FLIGHT:
                continue
            if (run.burst.sent_at, run.end) >= (self._rack_sent_at, self._rack_tsn):
                # Sent after everything that is acknowledged. First transmissions from here on are all newer.
                if run.times_sent == 1 and run.first > self.highest_acked:
                    break
                continue
            due = run.burst.sent_at + limit
            if due <= now:
                losses[run.burst] = losses.get(run.burst, 0) + run.size
                large |= run.times_sent > 1 and run.largest_fragment > self._safe_fragment
                self._lose(run, now)
            elif again is None or due < again:
                again = due
        if looks > FREE_LOOKS:
            self._next_look = now + looks * LOOK_TIME
        self.large_losses += large
        return self._losses(losses), again

    def _overtaken(self) -> bool:
        """Whether something in flight left before something that is acknowledged."""
        return bool(self.runs) and self.runs[0].burst.sent_at < self._rack_sent_at

    def _reordering_window(self, min_rtt: float) -> float:
        """RFC 8985 §6.2 step 4."""
        if not self.reordering_seen and self._gap_acked >= DUPLICATE_THRESHOLD:
            return 0.0
        return min(self._reorder_steps * min_rtt / 4, self._rack_rtt)

    def on_duplicates(self, tsns: Iterable[int]) -> None:
        """The receiver has got these twice; a needless retransmission widens the reordering window.

        RFC 8985 §6.2 step 4. A tail probe, or what the path duplicates, was not declared lost before.
        """
        if self.suspects.duplicated(tsns):
            self.reordering_seen = True
            self._reorder_steps = min(self._reorder_steps + 1, 16)

    def lose_everything(self, now: float) -> list[Loss]:
        """T3-rtx has expired: all that is in flight counts as lost (RFC 9260 §6.3.3)."""
        losses: dict[Burst, int] = {}
        large = False
        for run in self.runs:
            if run.state is RunState.IN_FLIGHT:
                losses[run.burst] = losses.get(run.burst, 0) + run.size
                large |= run.largest_fragment > self._safe_fragment
                self._lose(run, now)
        self.large_losses += large
        if self._gap_acked:
            # The last SACK may have been as old as the one before it; the next would long have corrected it.
            self._handle_reneging()
        return self._losses(losses)

    def lose_last(self) -> Run | None:
        """Return the last fragment that is in flight, to be sent again as a probe (RFC 8985 §7.3)."""
        for index in range(len(self.runs) - 1, -1, -1):
            run = self.runs[index]
            if run.state is not RunState.IN_FLIGHT or run.times_sent > run.message.retransmits:
                continue
            if run.count > 1:
                last = run.split(run.count - 1)
                self.runs.insert(index + 1, last)
                run = last
            # A probe is no evidence of loss: it counts as none.
            self.in_flight -= run.size
            self.lost_waiting += run.size
            run.state = RunState.LOST
            return run
        return None

    def _lose(self, run: Run, now: float) -> None:
        self.suspects.lost(run.first, run.count, run.burst.sent_at, now)
        self.in_flight -= run.size
        self.lost_waiting += run.size
        self.lost += run.size
        run.state = RunState.LOST

    def _losses(self, sizes: dict[Burst, int]) -> list[Loss]:
        return [
            Loss(
                size, burst.size, burst.sent_at, burst.in_flight, self.lost - burst.lost, burst.is_app_limited
            )
            for burst, size in sizes.items()
        ]

    def has_large(self) -> bool:
        """Whether fragments larger than the safe size may have to be sent again."""
        return any(run.message.fragment_size > self._safe_fragment for run in self.runs)

    # Partial reliability.

    def abandon(self, now: float) -> None:
        """Give up the messages whose limits are reached (RFC 3758 §3.5, RFC 7496)."""
        for run in self.runs:
            if run.state is not RunState.LOST:
                continue
            message = run.message
            expired = message.expires_at is not None and message.expires_at <= now
            if expired or run.times_sent > message.retransmits:
                message.abandoned = True

    def end_early(self, message: OutgoingMessage, fragment: int, now: float) -> None:
        """No fragment from this one on will be sent of an abandoned message that was begun.

        One TSN stands for them. The receiver may have everything that was sent, and without a TSN of its
        own the missing rest could not be told by FORWARD TSN: the stream would wait for it forever.
        """
        burst = Burst(now, self.delivered, self.delivered_at, self._first_sent_at, self.lost, True)
        run = Run(self.next_tsn, 1, message, fragment, burst, 1)
        run.state, run.size = RunState.ABANDONED, 0
        self.abandoned_waiting = True
        message.fragment_count = fragment + 1
        self.runs.append(run)
        self.next_tsn += 1

    def skip_abandoned(self) -> tuple[int, list[tuple[int, int]]] | None:
        """Give up what is left of abandoned messages, and return what FORWARD TSN may tell (RFC 3758 §3.5).

        Returns:
            The Advanced.Peer.Ack.Point with the stream and last SSN of each ordered stream skipped; None if
            it is not beyond the cumulative TSN ack.
        """
        for run in self.runs:
            if run.message.abandoned and run.state in _MATTERS:
                self._skip(run)
        self.abandoned_waiting = any(run.state is RunState.ABANDONED for run in self.runs)
        point = self.cumulative
        streams: dict[int, int] = {}
        for run in self.runs:
            message = run.message
            if run.state is RunState.ABANDONED:
                if not message.unordered:
                    if message.stream_id not in streams and len(streams) == MAX_SKIPPED_STREAMS:
                        break
                    streams[message.stream_id] = message.ssn
                # Up to the end of the message: fragments that arrived are of no use any more. Beyond it the
                # point never rests on what is merely acknowledged: that can be half of a live message. What
                # lies between two abandoned messages is whole.
                point = run.first - run.fragment + message.fragment_count - 1
            elif run.state is not RunState.ACKED:
                break
        return (point, list(streams.items())) if point > self.cumulative else None

    def _skip(self, run: Run) -> None:
        if run.state is RunState.IN_FLIGHT:
            self.in_flight -= run.size
        else:
            self.lost_waiting -= run.size
        run.state = RunState.ABANDONED
