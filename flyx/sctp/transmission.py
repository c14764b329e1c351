"""The sending half of an established association: what leaves, when, and what is done about loss.

Owns the send queue, what is outstanding, congestion control and pacing, and the timers T3, tail probe, RACK
and pacing. Builds packets whole, common header included, in one go: this is the hot path.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyx.sctp import chunks
from flyx.sctp.chunks import ChunkType
from flyx.sctp.congestion.base import CongestionController, Loss
from flyx.sctp.data_chunk import (
    BEGINNING,
    DATA_CHUNK_HEADER,
    DATA_CHUNK_HEADER_SIZE,
    DATA_PACKET_HEADER,
    ENDING,
    PACKET_OVERHEAD,
    TSN_AT,
    UNORDERED,
    put_tsn,
)
from flyx.sctp.outstanding import Outstanding
from flyx.sctp.pacing import Pacer
from flyx.sctp.packet import COMMON_HEADER, COMMON_HEADER_SIZE, Checksum, padded, with_checksum
from flyx.sctp.path_mtu import TRIES, PathMtu
from flyx.sctp.rto import RttEstimator
from flyx.sctp.runs import Burst
from flyx.sctp.send_queue import OutgoingMessage, SendQueue
from flyx.sctp.serial import TSN_MODULUS, widen
from flyx.sctp.timers import Timer, Timers

MAX_BURST_PACKETS = 256
"""Packets built before the driver gets its turn: the event loop must not stand still."""

MAX_TSN_SPAN = 0xFFFF
"""TSNs from the cumulative one to the last sent: a gap ack block reaches no further (RFC 9260 §3.3.4)."""

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


@dataclass(frozen=True, slots=True)
class Peer:
    """What the other side told when the association was set up.

    Attributes:
        checksum: puts the checksum into packets; None when the peer takes packets without one.
    """

    source_port: int
    destination_port: int
    verification_tag: int
    initial_a_rwnd: int
    checksum: Checksum | None


@dataclass(frozen=True, slots=True)
class SendStatistics:
    """What sending has shown of the path.

    Attributes:
        rtt: smoothed round-trip time in seconds; None while there is none.
        delivered: payload bytes that the peer has acknowledged.
        lost: payload bytes declared lost, some of which may have arrived.
        resent: payload bytes that have left again, as they seemed lost.
        in_flight: payload bytes that have left and are neither acknowledged nor lost.
        cwnd: how many of them there may be.
        pacing_rate: payload bytes a second; inf: as fast as cwnd allows.
        phase: the state of congestion control.
    """

    rtt: float | None
    delivered: int
    lost: int
    resent: int
    in_flight: int
    cwnd: int
    pacing_rate: float
    phase: str


class Transmission:
    """Data on its way out."""

    def __init__(
        self,
        peer: Peer,
        queue: SendQueue,
        initial_tsn: int,
        controller: CongestionController,
        timers: Timers,
        path_mtu: PathMtu,
    ) -> None:
        self.queue = queue
        max_packet_size = path_mtu.size
        self.outstanding = Outstanding(initial_tsn, max_packet_size - PACKET_OVERHEAD)
        self.rtt = RttEstimator()
        # T3 expiries in a row; the association gives up on too many.
        self.failures = 0
        # (stream id, size) of messages that have left whole, for the application's buffered amount.
        self.departed: list[tuple[int, int]] = []
        self._peer = peer
        self._controller = controller
        self._timers = timers
        self._pacer = Pacer(max_packet_size, controller.max_burst)
        self._path_mtu = path_mtu
        self._max_packet_size = max_packet_size
        # The path has taken fewer bytes than before, and messages begun have fragments too large for it.
        self.oversized = False
        self._a_rwnd = peer.initial_a_rwnd
        # cwnd has kept a burst from being longer: so the round counts, until this many bytes are delivered.
        self._cwnd_limited_until = -1
        # A tail probe is due or has left since the last acknowledgement.
        self._probe_due = False
        self._probed = False
        # Set once any message is only partially reliable: until then nothing is ever abandoned.
        self.partial_reliability = False
        # How far FORWARD TSN is to go, while the peer has not acknowledged it.
        self._forward_to: int | None = None
        self._forward_due = False

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is unacknowledged."""
        return not self.queue.size and self.queue.current is None and not self.outstanding.runs

    @property
    def has_short_bursts(self) -> bool:
        """Bursts are kept short: the rate is reached only with timers that are not late."""
        return self._pacer.has_short_bursts

    def statistics(self) -> SendStatistics:
        """Return what sending has shown so far."""
        outstanding, controller = self.outstanding, self._controller
        return SendStatistics(
            rtt=self.rtt.srtt,
            delivered=outstanding.delivered,
            lost=outstanding.lost,
            resent=outstanding.resent,
            in_flight=outstanding.in_flight,
            cwnd=controller.cwnd,
            pacing_rate=controller.pacing_rate,
            phase=controller.phase,
        )

    def path_mtu_changed(self) -> None:
        """Packets may be of another size than before; messages begun keep their fragments."""
        size = self._max_packet_size = self._path_mtu.size
        self._pacer.on_max_packet_size(size)
        self._controller.on_max_packet_size(size - PACKET_OVERHEAD)

    def path_changed(self, controller: CongestionController, now: float) -> None:
        """Forget what was measured of the path before: round trips, congestion and the path MTU.

        What is on its way stays so: where one path is left for a better one, both carry it. As QUIC does
        (RFC 9000 §9.4); RFC 9260 knows paths by their addresses, and keeps all of this for each (§6.3.1, §7).
        """
        self._controller = controller
        self.rtt = RttEstimator()
        self._pacer = Pacer(self._path_mtu.size, controller.max_burst)
        self.path_mtu_changed()
        self.outstanding.large_losses = 0
        # What has been cut for larger packets is fragmented until it is through, and no probe leaves before.
        self.oversized = True
        self._timers.stop(Timer.HEARTBEAT)
        self._watch_path_mtu(now)

    def _watch_path_mtu(self, now: float) -> None:
        """Fall back when large packets do not pass any more; search anew when the last of them is through.

        A fragment keeps its size for good. RFC 9260 §6.9 has IP fragment those that the path takes no longer;
        meanwhile no probe could prove anything.
        """
        outstanding = self.outstanding
        if self.oversized:
            current = self.queue.current
            held = current is not None and current.fragment_size + PACKET_OVERHEAD > self._max_packet_size
            if not held and not outstanding.has_large():
                self.oversized = False
                outstanding.large_losses = 0
                self._timers.start(Timer.HEARTBEAT, now)
        elif outstanding.large_losses >= TRIES:
            self.oversized = True
            self._path_mtu.fall_back(now)
            self._timers.stop(Timer.HEARTBEAT)
            self.path_mtu_changed()

    # Acknowledgements and timers.

    def receive_sack(self, sack: chunks.Sack, now: float) -> None:
        """Apply a SACK; packets() next: it can open the window.

        RFC 9260 §6.2.1, §6.3.2, §7.2.
        """
        cumulative = widen(sack.cumulative_tsn_ack, self.outstanding.cumulative)
        gaps = [(cumulative + start, cumulative + end) for start, end in sack.gap_ack_blocks]
        if not self._acknowledged(cumulative, gaps, now):
            return
        self._a_rwnd = sack.a_rwnd
        if sack.a_rwnd < self._max_packet_size:
            # It lives: probes of a closed window do not count (RFC 9260 §6.1 A).
            self.failures = 0
        if sack.duplicate_tsns:
            self.outstanding.on_duplicates([widen(tsn, cumulative) for tsn in sack.duplicate_tsns])
        if self.outstanding.suspects.were_none():
            self._controller.on_spurious_loss(now)

    def receive_shutdown(self, cumulative_tsn_ack: int, now: float) -> None:
        """Apply the acknowledgement in SHUTDOWN: of gaps and window it tells nothing (RFC 9260 §9.2)."""
        self._acknowledged(widen(cumulative_tsn_ack, self.outstanding.cumulative), None, now)

    def _acknowledged(self, cumulative: int, gaps: list[tuple[int, int]] | None, now: float) -> bool:
        """Apply what was acknowledged; return False if it is older than what was applied before."""
        outstanding = self.outstanding
        result = outstanding.on_sack(
            cumulative,
            gaps,
            now=now,
            min_rtt=self.rtt.min_rtt or 0.0,
            cwnd_limited=outstanding.delivered <= self._cwnd_limited_until,
        )
        if result is None:
            return False
        self._lost(result.losses, now)
        if result.sample is not None:
            if result.sample.rtt is not None:
                self.rtt.update(result.sample.rtt, now)
                self._pacer.on_round_trip(result.sample.rtt, self.rtt.min_rtt or 0.0, self.rtt.queueing)
            self.rtt.reset_back_off()
            self.failures = 0
            self._probed = False
            self._controller.on_ack(now, result.sample)
        if result.rack_deadline is not None:
            self._timers.start(Timer.RACK, result.rack_deadline)
        else:
            self._timers.stop(Timer.RACK)
        if self._forward_to is not None and outstanding.cumulative >= self._forward_to:
            self._forward_to = None
        if result.advanced or result.sample is not None or not outstanding.runs:
            self._restart_loss_timers(now)
        return True

    def handle_rack(self, now: float) -> None:
        """What was suspect may be lost by now."""
        losses, again = self.outstanding.detect_losses(now, self.rtt.min_rtt or 0.0)
        self._lost(losses, now)
        if again is not None:
            self._timers.start(Timer.RACK, again)

    def _lost(self, losses: list[Loss], now: float) -> None:
        if not losses:
            return
        for loss in losses:
            self._pacer.on_loss(now, self._controller.pacing_rate, loss.burst, loss.size)
        self._controller.on_loss(now, losses, self.outstanding.in_flight)

    def handle_tail_probe(self, now: float) -> None:
        """Nothing was acknowledged for two round trips: send what makes the peer report what is lost."""
        if self.outstanding.runs:
            self._probe_due = self._probed = True
            self._timers.start(Timer.T3, now + self.rtt.rto)

    def handle_t3(self, now: float) -> None:
        """Nothing was acknowledged for a whole timeout (RFC 9260 §6.3.3)."""
        if not self.outstanding.runs:
            return
        self.failures += 1
        self.rtt.back_off()
        losses = self.outstanding.lose_everything(now)
        if losses:
            self._controller.on_timeout(now, self.outstanding.in_flight)
        if self._forward_to is not None:
            self._forward_due = True
        self._timers.start(Timer.T3, now + self.rtt.rto)

    def _restart_loss_timers(self, now: float) -> None:
        if not self.outstanding.runs:
            self._timers.stop(Timer.T3, Timer.TAIL_PROBE, Timer.RACK)
            return
        self._timers.start(Timer.T3, now + self.rtt.rto)
        srtt = self.rtt.srtt
        if srtt is not None and not self._probed and not self.outstanding.lost_waiting:
            # RFC 8985 §7.2; the peer may delay its SACK of a lone packet.
            delay = 2 * srtt + (0.2 if self.outstanding.in_flight <= self._max_packet_size else 0.002)
            self._timers.start(Timer.TAIL_PROBE, now + min(delay, self.rtt.rto))
        else:
            self._timers.stop(Timer.TAIL_PROBE)

    # Packets.

    def forward_tsn(self, now: float) -> bytes | None:
        """Return FORWARD TSN if something was abandoned that the peer still waits for (RFC 3758 §3.5)."""
        current = self.queue.current
        expired = current is not None and current.expires_at is not None and current.expires_at <= now
        if not self.partial_reliability or not (
            self.outstanding.lost_waiting or self.outstanding.abandoned_waiting or expired
        ):
            return None
        if current is not None and expired:
            current.abandoned = True
        self.outstanding.abandon(now)
        if current is not None and current.abandoned:
            self._depart(current)
            fragment = self.queue.next_fragment
            self.queue.drop_current()
            self.outstanding.end_early(current, fragment, now)
        skipped = self.outstanding.skip_abandoned()
        if skipped is None:
            self._forward_to = None
            return None
        point, streams = skipped
        if point == self._forward_to and not self._forward_due:
            return None
        self._forward_to, self._forward_due = point, False
        if not self._timers.running(Timer.T3):
            self._timers.start(Timer.T3, now + self.rtt.rto)
        return chunks.serialize_forward_tsn(chunks.ForwardTsn(point % TSN_MODULUS, streams))

    def packets(self, now: float) -> list[bytes]:
        """Build what may leave now: what was lost first, then what is new."""
        outstanding = self.outstanding
        if self.oversized or outstanding.large_losses:
            self._watch_path_mtu(now)
        if not outstanding.lost_waiting and not self.queue.sendable:
            if not self._probe_due:
                return []
            if not outstanding.lose_last():
                self._probe_due = False
                return []
        rate = self._controller.pacing_rate
        allowed = self._allowed(now, rate)
        burst = outstanding.begin_burst(now)
        builder = _Builder(self._peer, self._max_packet_size)
        before = outstanding.in_flight
        if allowed > 0:
            allowed -= self._resend(builder, burst, allowed)
        if allowed > 0:
            self._send_new(builder, burst, allowed, now)
        if self.queue.expired:
            for message in self.queue.expired:
                self._depart(message)
            self.queue.expired.clear()
        packets = builder.finish()
        self._probe_due = False
        size = outstanding.in_flight - before
        if packets:
            burst.in_flight, burst.size = outstanding.in_flight, size
            self._pacer.on_sent(size)
            self._after_sending(now, size, burst)
        self._schedule_more(now, rate)
        return packets

    def _allowed(self, now: float, rate: float) -> int:
        """Bytes that may leave now: by cwnd, by the peer's window, by pacing."""
        if self._probe_due or (self.outstanding.in_flight == 0 and self._window() <= 0):
            # A probe (of the tail, or of a closed window, RFC 9260 §6.1 A) is one packet, even beyond these.
            return 1
        return min(self._window(), self._pacer.budget(now, rate))

    def _window(self) -> int:
        """Bytes that cwnd and the peer's window let leave.

        The last fragment may exceed it: allowed of cwnd (§6.1 B), but not of the peer's window.
        """
        in_flight = self.outstanding.in_flight
        by_peer = self._a_rwnd - in_flight - (self._max_packet_size - PACKET_OVERHEAD - 1)
        return min(self._controller.cwnd - in_flight, by_peer)

    def _resend(self, builder: _Builder, burst: Burst, allowed: int) -> int:
        """Send lost fragments again, as far as allowed; return the bytes."""
        sent = 0
        for run in self.outstanding.lost_runs():
            if sent >= allowed or builder.count >= MAX_BURST_PACKETS:
                break
            fragment_size = run.message.fragment_size or 1
            count = min(run.count, max(1, (allowed - sent) // fragment_size))
            self.outstanding.resend(run, count, burst)
            builder.add(run.message, run.fragment, run.count, run.first)
            sent += run.size
        return sent

    def _send_new(self, builder: _Builder, burst: Burst, allowed: int, now: float) -> None:
        queue, outstanding = self.queue, self.outstanding
        largest = self._max_packet_size - PACKET_OVERHEAD
        while allowed > 0 and builder.count < MAX_BURST_PACKETS:
            message = queue.peek(largest, now)
            if message is None:
                break
            left = message.fragment_count - queue.next_fragment
            room = min(MAX_BURST_PACKETS - builder.count, self._tsns_left())
            if room <= 0:
                break
            # Whole fragments only, unless nothing at all could leave otherwise.
            count = min(left, room, max(1, allowed // (message.fragment_size or 1)))
            first = outstanding.sent(message, queue.next_fragment, count, burst)
            builder.add(message, queue.next_fragment, count, first)
            allowed -= message.span(queue.next_fragment, count)
            queue.take(count)
            if queue.current is None:
                self._depart(message)

    def _tsns_left(self) -> int:
        return MAX_TSN_SPAN - (self.outstanding.next_tsn - 1 - self.outstanding.cumulative)

    def _depart(self, message: OutgoingMessage) -> None:
        self.departed.append((message.stream_id, message.size))

    def _after_sending(self, now: float, size: int, burst: Burst) -> None:
        outstanding = self.outstanding
        waits = bool(self.queue.sendable or outstanding.lost_waiting)
        if waits and outstanding.in_flight + self._max_packet_size > self._controller.cwnd:
            self._cwnd_limited_until = outstanding.delivered + outstanding.in_flight
        if not waits and outstanding.in_flight < self._controller.cwnd:
            outstanding.mark_app_limited()
        self._controller.on_sent(now, size, outstanding.in_flight, burst.is_app_limited)
        if not self._timers.running(Timer.T3):
            self._restart_loss_timers(now)
        elif not self._probed and self.rtt.srtt is not None and not self._timers.running(Timer.TAIL_PROBE):
            self._restart_loss_timers(now)

    def _schedule_more(self, now: float, rate: float) -> None:
        """Wake up when the pacer lets more leave, if that is what holds it."""
        self._timers.stop(Timer.PACING)
        if not self.outstanding.lost_waiting and not (self.queue.sendable and self._tsns_left() > 0):
            return
        if self._window() > 0:
            self._timers.start(Timer.PACING, max(now, self._pacer.next_send_time(now, rate)))


class _Builder:
    """Packs fragments into packets: one large one each, or several small ones together."""

    def __init__(self, peer: Peer, max_packet_size: int) -> None:
        self._peer = peer
        self._max_packet_size = max_packet_size
        self._packets: list[bytes] = []
        # Chunks of the packet that more may be added to, and its size.
        self._open: list[bytes] = []
        self._open_size = COMMON_HEADER_SIZE

    @property
    def count(self) -> int:
        """Packets so far."""
        return len(self._packets) + bool(self._open)

    def add(self, message: OutgoingMessage, fragment: int, count: int, tsn: int) -> None:
        """Add `count` fragments of a message, the first one with this TSN."""
        end = fragment + count
        if padded(message.fragment_size) + PACKET_OVERHEAD > self._max_packet_size // 2:
            middle, last = max(fragment, 1), min(end, message.fragment_count - 1)
            if middle < last:
                self._add_chunks(message, fragment, middle, tsn)
                self._close_packet()
                self._add_middle(message, middle, last, tsn + middle - fragment)
                fragment, tsn = last, tsn + last - fragment
        self._add_chunks(message, fragment, end, tsn)

    def finish(self) -> list[bytes]:
        """Return the packets."""
        self._close_packet()
        checksum = self._peer.checksum
        if checksum is None:
            return self._packets
        return [with_checksum(packet, checksum) for packet in self._packets]

    def _add_middle(self, message: OutgoingMessage, first: int, end: int, tsn: int) -> None:
        """The hot path: fragments that are neither first nor last, each a packet; _add_chunks is its twin.

        Their headers are the same but for the TSN.
        """
        peer, size = self._peer, message.fragment_size
        header = bytearray(
            DATA_PACKET_HEADER.pack(
                peer.source_port,
                peer.destination_port,
                peer.verification_tag,
                0,
                ChunkType.DATA,
                UNORDERED if message.unordered else 0,
                size + DATA_CHUNK_HEADER_SIZE,
                0,
                message.stream_id,
                message.ssn,
                message.ppid,
            )
        )
        packets, data = self._packets, message.data
        for position in range(first * size, end * size, size):
            put_tsn(header, TSN_AT, tsn % TSN_MODULUS)
            # No padding: where there are several, their size is a multiple of four.
            packets.append(b"".join((header, data[position : position + size])))
            tsn += 1

    def _add_chunks(self, message: OutgoingMessage, first: int, end: int, tsn: int) -> None:
        for index in range(first, end):
            chunk = self._chunk(message, index, tsn % TSN_MODULUS)
            if self._open_size + len(chunk) > self._max_packet_size:
                self._close_packet()
            self._open.append(chunk)
            self._open_size += len(chunk)
            tsn += 1

    def _chunk(self, message: OutgoingMessage, index: int, tsn: int) -> bytes:
        part = message.data[index * message.fragment_size :][: message.fragment_size]
        flags = UNORDERED if message.unordered else 0
        flags |= BEGINNING if index == 0 else 0
        flags |= ENDING if index == message.fragment_count - 1 else 0
        header = DATA_CHUNK_HEADER.pack(
            ChunkType.DATA,
            flags,
            len(part) + DATA_CHUNK_HEADER_SIZE,
            tsn,
            message.stream_id,
            message.ssn,
            message.ppid,
        )
        return b"".join((header, part, _PADDING[len(part) & 3]))

    def _close_packet(self) -> None:
        if self._open:
            peer = self._peer
            header = COMMON_HEADER.pack(peer.source_port, peer.destination_port, peer.verification_tag, 0)
            self._packets.append(b"".join((header, *self._open)))
            self._open = []
            self._open_size = COMMON_HEADER_SIZE
