"""The receiving half of an established association: DATA in, messages and SACKs out.

The hot path is take_packets(): packets with one DATA chunk each, the middle of a long message, in order. It
does by hand what receive_data() does for any chunk.
"""

from __future__ import annotations

from typing import Final

from flyx.errors import RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.config import DTLS_MTU, Config
from flyx.sctp.data_chunk import (
    BEGINNING,
    DATA_CHUNK_HEADER_SIZE,
    DATA_PACKET_HEADER,
    ENDING,
    IMMEDIATE,
    PACKET_OVERHEAD,
    TSN_AT,
    put_tsn,
)
from flyx.sctp.packet import COMMON_HEADER_SIZE, padded
from flyx.sctp.reassembly import Fragment, Message, Reassembly
from flyx.sctp.receive_tracker import ReceiveTracker
from flyx.sctp.serial import TSN_MODULUS, widen
from flyx.sctp.timers import Timer, Timers

MAX_SACKS = 16
"""SACKs in a packet, at most."""

PROMPT_GAP_SACKS = 4
"""SACKs that tell of gaps without delay, from the first gap on: three of them let the sender see a loss
(RFC 9260 §7.2.4)."""

GAP_SACK_EVERY = 6
"""Packets after which a SACK leaves that tells of gaps, after those. RFC 9260 §6.7 has one for each (SHOULD).

But while a sender repairs a loss of many packets, as at the end of slow start, it counts what it has sent
again as missing once more with each SACK that moves the cumulative TSN, and sends it a third time after three
of them (§7.2.4), long before it can be there. Of what came from Chromium over 20 and 3 Mbit/s with buffers of
150 and 700 ms, a fifth to a half had come before; now, 0 and a seventh, in 0.8 and 0.6 of the time. With 8, a
sender of four packets a SACK fills 20 Mbit/s no more; with 4, half as much is saved at 3."""

FAST_GAP_SACK_EVERY = 4
FAST_GAP_SACK_TIME = 0.001
"""The same where so many come within so many seconds of the last SACK: where a round trip is short, nothing
is sent three times, and with 6 Chromium would send a tenth less."""

_unpack_header: Final = DATA_PACKET_HEADER.unpack_from


class Reception:
    """Data on its way in."""

    def __init__(self, initial_tsn: int, config: Config, timers: Timers) -> None:
        self._config = config
        self._timers = timers
        self._tracker = ReceiveTracker(initial_tsn)
        self._reassembly = Reassembly(config.max_message_size)
        # What fills a gap is taken beyond the window: of an honest peer, one message at most.
        self._most = config.receive_window + config.max_message_size
        # Packets with DATA since the last SACK, and whether one of them ends a message.
        self._unsacked = 0
        self._ended = False
        # The next SACK must not wait.
        self._sack_now = False
        # When the last one left, and how many in a row have told of gaps.
        self._sacked_at = 0.0
        self._gap_sacks = 0
        # What the last SACK told, and whether all since then has come in order.
        self._told = self._tracker.cumulative
        self._in_order = True
        # How fast data comes: bytes since a moment, counted for `sack_stretch` at least.
        self._counted_since = 0.0
        self._counted = 0
        self._fast = False
        # Some packet was larger than any that a browser sends.
        self._large = False

    @property
    def cumulative(self) -> int:
        """The TSN up to which everything has arrived."""
        return self._tracker.cumulative

    def take_messages(self) -> list[Message]:
        """Return the messages that are complete and due."""
        ready, self._reassembly.ready = self._reassembly.ready, []
        return ready

    def take_packets(self, packets: list[bytes], start: int, tag: int) -> int:
        """Take packets from `start` on as long as each is the next fragment of the message under way.

        Only packets whose checksum is zero are taken, so the caller must have agreed to such (RFC 9653).

        Returns:
            The index of the first packet that was not taken.
        """
        tracker, reassembly = self._tracker, self._reassembly
        first = reassembly.under_way
        if first is None or tracker.has_gaps or reassembly.expected != tracker.cumulative + 1:
            return start
        expected = (tracker.cumulative + 1) % TSN_MODULUS
        wanted = (tag, 0, 0, first.flags & ~BEGINNING, expected, first.stream_id, first.ssn)
        packet = packets[start]
        whole = len(packet)
        if whole <= PACKET_OVERHEAD:
            return start
        _, _, told, checksum, kind, flags, length, tsn, stream_id, ssn, _ = _unpack_header(packet)
        size, end = length - DATA_CHUNK_HEADER_SIZE, length + COMMON_HEADER_SIZE
        if (told, checksum, kind, flags, tsn, stream_id, ssn) != wanted or padded(end) != whole:
            return start
        # No more than one beyond the largest message: took_parts() refuses that.
        most = start + (self._config.max_message_size - reassembly.parts_size) // size + 1
        parts = reassembly.parts
        # Of the next packets, all of the header must be the same but for the TSN.
        header = bytearray(packet[:PACKET_OVERHEAD])
        index = start
        for packet in packets[start:most]:
            put_tsn(header, TSN_AT, expected)
            if len(packet) != whole or packet[:PACKET_OVERHEAD] != header:
                break
            parts.append(packet[PACKET_OVERHEAD:end])
            expected = (expected + 1) % TSN_MODULUS
            index += 1
        taken = index - start
        tracker.cumulative += taken
        reassembly.took_parts(taken, taken * size)
        self._unsacked += taken
        self._counted += taken * size
        self._large |= size > DTLS_MTU
        return index

    def receive_data(self, flags: int, value: memoryview) -> None:
        """Take the value of one DATA chunk; after all chunks of a packet call packet_done().

        Raises:
            RemoteProtocolError: it has no data, or does not fit its neighbours.
        """
        if len(value) <= DATA_CHUNK_HEADER_SIZE - 4:
            raise RemoteProtocolError(reason="a DATA chunk without data")
        tsn_wire = int.from_bytes(value[0:4], "big")
        stream_id = int.from_bytes(value[4:6], "big")
        ssn = int.from_bytes(value[6:8], "big")
        ppid = int.from_bytes(value[8:12], "big")
        tracker = self._tracker
        tsn = widen(tsn_wire, tracker.cumulative)
        self._counted += len(value)
        self._large |= len(value) > DTLS_MTU
        if flags & ENDING:
            self._ended = True
        if flags & IMMEDIATE:
            self._sack_now = True
        if self._full() and tsn != tracker.cumulative + 1:
            # Dropped without a word: it was sent beyond the window. What fills the first gap frees space.
            self._sack_now = True
            return
        in_order = tsn == tracker.cumulative + 1 and not tracker.has_gaps
        if tracker.add(tsn):
            self._reassembly.add(Fragment(tsn, flags & 0x07, stream_id, ssn, ppid, bytes(value[12:])))
            if self._reassembly.size > self._most:
                raise RemoteProtocolError(reason="SCTP data that fills the window and never comes due")
        if not in_order:
            self._in_order = False
            # RFC 9260 §6.7: tell of gaps, their end, and duplicates without delay.
            if not tracker.has_gaps or self._gap_sacks < PROMPT_GAP_SACKS:
                self._sack_now = True

    def packet_done(self) -> None:
        """A packet with DATA has been taken whole; after all packets that came together, schedule_sack()."""
        self._unsacked += 1

    def schedule_sack(self, now: float) -> None:
        """Let the SACK wait if it may."""
        if not self._unsacked or self._sack_now:
            return
        every = self._config.sack_every
        if self._tracker.has_gaps:
            is_fast = now - self._sacked_at < FAST_GAP_SACK_TIME
            every = FAST_GAP_SACK_EVERY if is_fast else GAP_SACK_EVERY
        if self._unsacked < every and not self._ended:
            if not self._timers.running(Timer.SACK):
                self._timers.start(Timer.SACK, now + self._config.sack_delay)
            return
        # While data comes fast, no sooner than this.
        next_sack_at = self._sacked_at + (self._config.sack_stretch if self._fast else 0.0)
        if next_sack_at <= now:
            self._sack_now = True
        else:
            self._timers.start(Timer.SACK, next_sack_at)

    def receive_forward_tsn(self, forward: chunks.ForwardTsn) -> None:
        """Skip what the sender has abandoned (RFC 3758 §3.6)."""
        point = widen(forward.new_cumulative_tsn, self._tracker.cumulative)
        self._sack_now = True
        self._in_order = False
        if point > self._tracker.cumulative:
            self._tracker.advance(point)
            self._reassembly.skip(point, forward.streams)

    def stream_ids(self) -> list[int]:
        """The peer's ordered streams that are in use."""
        return self._reassembly.stream_ids()

    def reset_streams(self, streams: tuple[int, ...]) -> None:
        """The peer's streams begin anew."""
        self._reassembly.reset(streams)

    def sack_due(self) -> None:
        """The SACK may be delayed no longer."""
        self._sack_now = True

    def sacks(self, now: float) -> list[bytes]:
        """Return the SACKs that are to leave now, in one packet, if any are."""
        if not self._sack_now:
            return []
        self._sack_now = False
        self._unsacked = 0
        self._ended = False
        self._timers.stop(Timer.SACK)
        stretch, elapsed = self._config.sack_stretch, now - self._counted_since
        if elapsed >= stretch:
            # Of several flows that share a processor each is slow, but what comes of it comes at once.
            self._fast = self._large or self._counted >= self._config.sack_stretch_rate * elapsed
            self._counted_since, self._counted = now, 0
        a_rwnd = max(0, self._config.receive_window - self._reassembly.size)
        told, self._told = self._told, self._tracker.cumulative
        # What a gap ack block has told must be in each SACK after it, or it counts as taken back (§6.2.1).
        points = self._points(told) if self._in_order and not self._fast else []
        self._in_order = not self._tracker.has_gaps
        self._gap_sacks = 0 if self._in_order else self._gap_sacks + 1
        self._sacked_at = now
        sacks = [chunks.Sack(point % TSN_MODULUS, a_rwnd) for point in points]
        return [chunks.serialize_sack(sack) for sack in (*sacks, self._tracker.sack(a_rwnd))]

    def _points(self, told: int) -> range:
        """Cumulative TSNs that SACKs would have told if packets had not come together (Config.sack_every)."""
        step = max(self._config.sack_every, -(-(self._told - told) // MAX_SACKS))
        return range(told + step, self._told, step)

    def _full(self) -> bool:
        return self._reassembly.size >= self._config.receive_window
