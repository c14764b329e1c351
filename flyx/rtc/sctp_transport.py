"""Runs an SCTP association of ours over DTLS, behind the interface of aiortc's SCTP transport.

    RTCDataChannel --send()--> SctpTransport --> Association --packets--> DtlsBatcher --> socket
                  <--message--               <--            <--packets--

The association is drained once per turn of the event loop, whatever was sent or received in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import time
from collections.abc import Callable

import flyx.rtc.seam  # noqa: F401  # loads aiortc without what we do not use

# isort: split
from aiortc import RTCConfiguration, RTCDtlsTransport, RTCPeerConnection
from google_crc32c import value as crc32c

from flyx.errors import RemoteProtocolError
from flyx.rtc import trace
from flyx.rtc.dtls import DtlsBatcher
from flyx.rtc.seam.sctp import SctpSeam, SeamPeerConnection, StockSctp
from flyx.rtc.tunnel import MAX_QUEUE_SIZE
from flyx.sctp.association import MAX_BURST_PACKETS, Association, Closed, Established, StreamsReset
from flyx.sctp.chunks import Init, serialize_init
from flyx.sctp.config import DEFAULT_CONGESTION, DTLS_MTU, Config
from flyx.sctp.congestion import make_controller
from flyx.sctp.congestion.base import CongestionController
from flyx.sctp.data_chunk import PACKET_OVERHEAD
from flyx.sctp.initiation import draw_init, parse_init_chunk_untrusted
from flyx.sctp.transmission import SendStatistics

logger = logging.getLogger("flyx.rtc")

STOCK_VARIABLE, STOCK = "FLYX_SCTP", "aiortc"
"""FLYX_SCTP=aiortc: the switch back to aiortc's own association."""

MAX_BURSTS = 4
"""Bursts in a row before other tasks get their turn."""

MAX_BACKLOG = 1 << 18
"""Bytes waiting in our own socket above which nothing more is given to it."""

RELAY_BURST = 16 * 1200
"""Bytes that leave back to back for a TURN server. coturn's sockets hold 56 datagrams of 1,200 bytes (64 KiB
of buffer, by Linux's count), and it is late on a busy machine: of 125,000 packets its sockets dropped 800 to
960 without this limit, 200 to 500 with 32 packets and 0 to 60 with 16."""

TUNNEL_BURST = MAX_QUEUE_SIZE // 2
"""Bytes that leave back to back for a tunnel: half of what it holds. With RELAY_BURST at each wake-up, once a
millisecond or, on a busy machine, every four, 20 MB/s were never reached."""

BACKLOG_PAUSE = 0.001
"""Seconds to wait then."""

TIMER_RESOLUTION = 0.001
"""Seconds that a timer takes at least. uvloop rounds to whole milliseconds: for less than half of one it
would call at once, to be told that it is too early, and again, as fast as it can, until the time has come.
Where bursts are kept short that is what it takes: one burst a millisecond to a TURN server were 19 MB/s, and
where the end of a long burst was lost, less is saved up than a late timer needs."""

Violation = Callable[[RemoteProtocolError], None]
"""Told that the peer broke the protocol; then its association has been aborted, and the channels close."""


def make_peer_connection(
    configuration: RTCConfiguration,
    congestion: str | None = None,
    *,
    expected: set[str] | None = None,
    on_violation: Violation = lambda _: None,
    probes: bool = True,
) -> RTCPeerConnection:
    """Return a peer connection with our association, or aiortc's if FLYX_SCTP says so.

    Args:
        configuration: as for RTCPeerConnection.
        congestion: name of the congestion control; see flyx.sctp.congestion.
        expected: labels of the channels that the peer may open, each once; it may be added to, and what has
            been opened is taken from it. Any other is a violation. None lets the peer open what it likes.
        on_violation: called before the channels close.
        probes: look for packets larger than those that every path takes.
    """

    def make_sctp(transport: RTCDtlsTransport) -> SctpTransport | StockSctp:
        if os.environ.get(STOCK_VARIABLE) == STOCK:
            return StockSctp(transport, expected, on_violation)
        return SctpTransport(
            transport, congestion or DEFAULT_CONGESTION, expected, on_violation, probes=probes
        )

    return SeamPeerConnection(configuration, make_sctp)


class SctpTransport(SctpSeam):
    """The SCTP transport of a peer connection."""

    def __init__(
        self,
        transport: RTCDtlsTransport,
        congestion: str,
        expected: set[str] | None,
        on_violation: Violation,
        *,
        probes: bool,
    ) -> None:
        super().__init__(transport, expected)
        self._probes = probes
        self._congestion = congestion
        self._on_violation = on_violation
        # What we tell to begin with, and what the peer has told so, if that came with its description (SNAP).
        self._our_init = draw_init(Config(), secrets.randbits)
        self._peer_init: Init | None = None
        # Set by begin().
        self._batcher: DtlsBatcher | None = None
        self._association: Association | None = None
        self._trace: trace.AssociationTrace | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pump_scheduled = False
        # IP may fragment what is sent.
        self._fragments = False

    @property
    def max_packet_size(self) -> int | None:
        """Bytes of the largest packet that is known to pass, once there is an association."""
        return self._association.max_packet_size if self._association else None

    def init_chunk(self, *, offering: bool) -> bytes | None:
        """Return our INIT for a description: none for an answer to an offer that had none."""
        return serialize_init(self._our_init) if offering or self._peer_init else None

    def take_init_chunk(self, chunk: bytes) -> None:
        """Take the INIT of the peer's description, if it is its own; that it has ours follows.

        Raises:
            RemoteProtocolError: it is malformed.
        """
        if chunk != serialize_init(self._our_init):
            # libdatachannel puts what it does not know into its answers as it stood in our offer.
            self._peer_init = parse_init_chunk_untrusted(chunk)

    def begin(self, remote_port: int) -> None:
        """DTLS is connected: send INIT, unless both sides have told it."""
        batcher = self._batcher = DtlsBatcher(self.transport)
        config = Config(
            packet_overhead=batcher.record_overhead,
            initial_packet_size=_initial_packet_size(batcher),
            max_packet_size=self._max_packet_size(batcher),
            max_message_size=self.getCapabilities().maxMessageSize,
        )
        self._association = Association(
            config=config,
            local_port=self.port,
            remote_port=remote_port,
            controller=self._make_controller(batcher),
            checksum=crc32c,
            draw=secrets.randbits,
            exchanged=(self._our_init, self._peer_init) if self._peer_init else None,
        )
        if traced := trace.start():
            self._trace = traced.association()
        self._association.connect(time.monotonic())
        batcher.start(self._packets_received)
        self._pump()

    def _max_packet_size(self, batcher: DtlsBatcher) -> int:
        """Bytes of the largest packet that is tried on the path in use."""
        largest = batcher.max_probe_size if self._probes else None
        return largest or _initial_packet_size(batcher)

    def _make_controller(self, batcher: DtlsBatcher) -> CongestionController:
        size = _initial_packet_size(batcher) - PACKET_OVERHEAD
        controller = make_controller(self._congestion, size, random.random)
        if (round_trip := batcher.round_trip) is not None:
            controller.expect_round_trip(round_trip)
        if batcher.is_tunnelled:
            controller.max_burst = TUNNEL_BURST
        elif batcher.is_relayed:
            controller.max_burst = RELAY_BURST
        return controller

    def statistics(self) -> SendStatistics | None:
        """Return what sending has shown of the path; None while there is no association."""
        transmission = self._association.transmission if self._association else None
        return transmission.statistics() if transmission else None

    def end(self) -> None:
        """Abort the association and give the datagrams back to aiortc."""
        if self._association is None or self._batcher is None:
            return
        self._association.abort()
        self._pump()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._batcher.close()

    def send_message(
        self,
        stream_id: int,
        ppid: int,
        data: bytes,
        *,
        unordered: bool,
        max_retransmits: int | None,
        max_life_time_ms: int | None,
    ) -> None:
        """Queue a message; it leaves at the end of this turn of the event loop."""
        assert self._association is not None
        expires_at = None if max_life_time_ms is None else time.monotonic() + max_life_time_ms / 1000
        self._association.send(
            stream_id,
            ppid,
            data,
            unordered=unordered,
            max_retransmits=max_retransmits,
            expires_at=expires_at,
        )
        self._schedule_pump()

    def reset_streams(self, stream_ids: list[int]) -> None:
        """Close our direction of these streams."""
        if self._association:
            self._association.reset_streams(stream_ids)
            self._schedule_pump()

    def _packets_received(self, packets: list[bytes], now: float) -> None:
        assert self._association is not None
        if self._trace:
            self._trace.received(packets, now)
        self._association.receive_packets(packets, now)
        self._pump()

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _timeout(self) -> None:
        self._timer = None
        assert self._association is not None
        self._association.handle_timeout(time.monotonic())
        self._pump()

    def _pump(self) -> None:
        """Drain the association."""
        self._pump_scheduled = False
        association = self._association
        assert association is not None
        now = time.monotonic()
        try:
            pause = self._send_packets(association, now)
        except ConnectionError:
            # DTLS or the path is gone; aiortc notices as well and stops us.
            pause = None
        for stream_id, size in association.take_departed():
            self.association_departed(stream_id, size)
        self._deliver(association)
        while (event := association.next_event()) is not None:
            match event:
                case Established(outbound_streams=outbound, inbound_streams=inbound):
                    self.association_established(outbound, inbound)
                case StreamsReset(incoming=incoming, outgoing=outgoing):
                    self.association_reset(incoming, outgoing)
                case Closed(error=error, violated=violated):
                    if error:
                        logger.debug("association closed: %s", error)
                    if error and violated:
                        self._on_violation(error)
                    self.association_closed()
        if self._trace and (statistics := self.statistics()):
            self._trace.progressed(statistics, now)
        self._set_timer(association, now, pause)

    def _send_packets(self, association: Association, now: float) -> float | None:
        """Send what may leave; return when to go on if that was not all."""
        batcher = self._batcher
        assert batcher is not None
        if batcher.path_changed():
            self._fragments = False
            association.path_changed(self._make_controller(batcher), self._max_packet_size(batcher), now)
        for _ in range(MAX_BURSTS):
            if batcher.backlog > MAX_BACKLOG:
                return now + BACKLOG_PAUSE
            packets = association.packets_to_send(now)
            if association.needs_fragments is not self._fragments:
                self._fragments = association.needs_fragments
                batcher.allow_fragments(self._fragments)
            if packets:
                if self._trace:
                    self._trace.sent(packets, now)
                batcher.send(packets)
            if len(packets) < MAX_BURST_PACKETS:
                return None
        return now

    def _deliver(self, association: Association) -> None:
        for message in association.take_messages():
            try:
                self.association_message(message.stream_id, message.ppid, message.data)
            except RemoteProtocolError as error:
                association.violated(error)
                self._schedule_pump()
                return

    def _set_timer(self, association: Association, now: float, pause: float | None) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        deadlines = [t for t in (association.next_timeout(), pause) if t is not None]
        if deadlines:
            transmission, delay = association.transmission, min(deadlines) - now
            if delay > 0 and not (transmission and transmission.has_short_bursts):
                delay = max(delay, TIMER_RESOLUTION)
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self._timeout)


def _initial_packet_size(batcher: DtlsBatcher) -> int:
    return (DTLS_MTU - batcher.record_overhead) & ~3
