"""DTLS in batches both ways, over aiortc's transport once that has made its handshake.

aiortc spends a coroutine, a queue and several calls on each packet. Here a whole batch of SCTP packets
becomes one run of records, given to the socket at once; and the datagrams that the kernel returns in one go
are fed to OpenSSL together and delivered as one list. aiortc still owns the connection: its handshake, its
timers, its state and its end, and ICE still answers STUN.

Datagrams are told apart by their first byte (RFC 7983): 20 to 63 is DTLS and never seen by aioice again.

The fast ways in and out are for DTLS 1.2 (RFC 6347 §4.1), whose records say their length in the clear. Each
has a slow twin, one record at a time, which serves any other version and every datagram that is not one
record of data.
"""

from __future__ import annotations

import asyncio
import functools
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flyx.rtc.seam  # noqa: F401  # loads aiortc without what we do not use

# isort: split
from aiortc import RTCDtlsTransport
from OpenSSL import SSL

from flyx.net.udp import MAX_RUN_SIZE, MAX_SEGMENTS, Address, UdpTransport
from flyx.rtc.seam import dtls as seam
from flyx.rtc.seam.relayed import RelayTransport
from flyx.rtc.tunnel import TunnelTransport

MAX_PACKET_SIZE = 16_384
"""Bytes in the largest packet: that of a record's plaintext (RFC 6347 §4.3.1)."""

Packet = bytes | bytearray | memoryview
PacketsReceived = Callable[[list[bytes], float], None]
"""Called with packets in order of arrival and the time, in monotonic seconds."""

_FIRST_BYTES = range(20, 64)

_HEADER_SIZE = 13
_LENGTH_AT = 11
_DATA_HEADER = b"\x17\xfe\xfd\x00\x01"
"""Type application_data, version DTLS 1.2, and the only epoch that a handshake without renegotiation leads
to."""

_FED_AT_ONCE = 16_384
"""Bytes of records given to OpenSSL together: it reads no more than a record's worth, and drops the rest."""

_OUTGOING_SIZE = 2 * MAX_RUN_SIZE
"""Bytes of room for a run of records, or for a single record of any size."""


class DtlsBatcher:
    """Sends and receives the SCTP packets of one RTCDtlsTransport."""

    def __init__(self, transport: RTCDtlsTransport, *, batched: bool = True) -> None:
        """Take a transport that is connected.

        Args:
            batched: False uses the slow twins only.

        Raises:
            ConnectionError: it is not connected.
        """
        if transport.state != "connected":
            raise ConnectionError("the DTLS transport is not connected")
        self._dtls = transport
        self._records = records = seam.record_layer(transport)
        self._batched = batched and records.connection.get_protocol_version_name() == "DTLSv1.2"
        self._overhead = _record_overhead(records.connection)
        self._ssl_read = records.lib.SSL_read
        self._ssl_write = records.lib.SSL_write
        self._bio_read = records.lib.BIO_read
        self._bio_write = records.lib.BIO_write
        self._plain = records.ffi.new("unsigned char[]", MAX_PACKET_SIZE)
        self._plain_buffer = records.ffi.buffer(self._plain)
        self._outgoing = records.ffi.new("unsigned char[]", _OUTGOING_SIZE)
        self._outgoing_view = memoryview(records.ffi.buffer(self._outgoing))
        # Until start(), and again after close() and the peer's close_notify.
        self._on_packets: PacketsReceived | None = None
        # Decrypted in this turn of the loop, not delivered yet.
        self._packets: list[bytes] = []
        self._demultiplexers: dict[asyncio.DatagramProtocol, _Demultiplexer] = {}
        # The path that self._path was looked up for.
        self._pair: object | None = None
        self._path: seam.Path | None = None
        # The path that path_changed() knew of last.
        self._known_pair = seam.path_identity(transport)

    @property
    def record_overhead(self) -> int:
        """Bytes that a datagram is larger than the packet in it, at most."""
        return self._overhead

    @property
    def backlog(self) -> int:
        """Bytes that wait for room in our own socket: sending more now only makes the queue longer."""
        transport = self._path.transport if self._path else None
        if isinstance(transport, UdpTransport | RelayTransport):
            return transport.get_write_buffer_size()
        return 0

    @property
    def max_probe_size(self) -> int | None:
        """Bytes of the largest packet that proves, if it arrives, that its size fits the path (RFC 8899 §3).

        None if none does, since something on the way may fragment it.
        """
        transport = self._find_path().transport
        if isinstance(transport, TunnelTransport):
            return min(MAX_PACKET_SIZE, transport.max_datagram_size - self._overhead)
        return MAX_PACKET_SIZE if isinstance(transport, UdpTransport) and transport.never_fragments else None

    @property
    def round_trip(self) -> float | None:
        """Seconds that a check of the path in use took, if that is known."""
        return seam.round_trip(self._dtls)

    @property
    def is_relayed(self) -> bool:
        """Whether a TURN server is on the path in use."""
        return not self.is_tunnelled and seam.is_relayed(self._dtls)

    @property
    def is_tunnelled(self) -> bool:
        """Whether the path in use is a tunnel through the signaling server."""
        return isinstance(self._find_path().transport, TunnelTransport)

    def path_changed(self) -> bool:
        """Whether ICE has gone over to another path since this was asked last."""
        pair = seam.path_identity(self._dtls)
        if pair is None or pair is self._known_pair:
            return False
        changed, self._known_pair = self._known_pair is not None, pair
        return changed

    def allow_fragments(self, allowed: bool) -> None:
        """Let IP fragment what is sent from now on, or forbid it again."""
        transport = self._find_path().transport
        if isinstance(transport, UdpTransport):
            transport.allow_fragments(allowed)

    def start(self, on_packets: PacketsReceived) -> None:
        """Deliver packets to this callback from now on, those included that ICE has queued."""
        self._on_packets = on_packets
        for protocol in seam.datagram_protocols(self._dtls):
            self._take_over(protocol)
        self._find_path()
        for datagram in seam.take_queued_datagrams(self._dtls):
            if datagram and datagram[0] in _FIRST_BYTES:
                self._decrypt_datagram(memoryview(datagram))
            else:
                seam.queue_datagram(self._dtls, datagram)
        self.receive_finished()

    def send(self, packets: Sequence[Packet]) -> None:
        """Encrypt and send packets, in order, of 1 to MAX_PACKET_SIZE bytes each; the buffers may be reused.

        Packets of one size in a row are cheapest; a shorter one may end the row.

        Raises:
            ConnectionError: the transport, or the path below it, is closed.
        """
        if self._dtls.state != "connected":
            raise ConnectionError("the DTLS transport is not connected")
        path = self._find_path()
        if not self._batched:
            self._send_singly(packets, path)
            return
        ssl, write, from_buffer = self._records.ssl, self._ssl_write, self._records.ffi.from_buffer
        # A row is what one call sends: packets of one size, and a shorter one that ends it.
        row_size = row_length = room = 0
        for packet in packets:
            size = len(packet)
            ends_row = False
            if size != row_size or not room:
                ends_row = size < row_size and room > 0
                if not ends_row:
                    self._send_written(row_length - room, path)
                    row_size = size
                    row_length = room = max(1, min(MAX_SEGMENTS, MAX_RUN_SIZE // (size + self._overhead)))
            try:
                written = write(ssl, packet, size)
            except TypeError:
                # cffi takes nothing but bytes for a pointer.
                written = write(ssl, from_buffer(packet), size)
            if written <= 0:
                self._send_written(row_length - room, path)
                self._refuse(size)
            room -= 1
            if ends_row:
                self._send_written(row_length - room, path)
                row_size = row_length = room = 0
        self._send_written(row_length - room, path)

    def close(self) -> None:
        """Deliver nothing more and give the datagrams back to aiortc, whose stop() tells the peer."""
        self._on_packets = None
        self._packets.clear()
        for protocol in self._demultiplexers:
            seam.redirect_datagrams(protocol, protocol)
        self._demultiplexers.clear()

    # Sending.

    def _find_path(self) -> seam.Path:
        pair = seam.path_identity(self._dtls)
        if pair is None:
            raise ConnectionError("no path to the peer")
        if pair is not self._pair or self._path is None:
            self._pair = pair
            self._path = seam.path_in_use(self._dtls)
            # A relayed candidate, say, may have been gathered after start().
            self._take_over(self._path.protocol)
        return self._path

    def _send_written(self, count: int, path: seam.Path) -> None:
        """Send the records that OpenSSL holds: as many as were written, of one size but for the last."""
        if not count:
            return
        size = self._bio_read(self._records.outgoing, self._outgoing, _OUTGOING_SIZE)
        record_size = size
        if count > 1:
            record_size = _record_size(self._outgoing, 0)
        if isinstance(path.transport, UdpTransport):
            path.transport.send_run(self._outgoing_view[:size], record_size, path.address)
        else:
            for at in range(0, size, record_size):
                record = bytes(self._outgoing_view[at : min(at + record_size, size)])
                path.transport.sendto(record, path.address)

    def _send_singly(self, packets: Sequence[Packet], path: seam.Path) -> None:
        """The slow twin of sending: one record, one datagram."""
        for packet in packets:
            data = bytes(packet)
            if self._ssl_write(self._records.ssl, data, len(data)) <= 0:
                self._refuse(len(data))
            size = self._bio_read(self._records.outgoing, self._outgoing, _OUTGOING_SIZE)
            path.transport.sendto(bytes(self._outgoing_view[:size]), path.address)

    def _refuse(self, size: int) -> None:
        self._records.lib.ERR_clear_error()
        if not 0 < size <= MAX_PACKET_SIZE:
            raise ValueError(f"a packet of {size} bytes")
        raise ConnectionError("the DTLS connection is closed")

    def _send_pending(self) -> None:
        """Send what OpenSSL has to say by itself: alerts, and its last flight again if the peer missed it."""
        records = self._records
        if records.lib.BIO_get_mem_data(records.outgoing, records.ffi.NULL) <= 0:
            return
        size = self._bio_read(records.outgoing, self._outgoing, _OUTGOING_SIZE)
        flight = bytes(self._outgoing_view[:size])
        if seam.path_identity(self._dtls) is not None:
            path = self._find_path()
            # As aiortc sends it: OpenSSL made the flight fit its own small MTU.
            path.transport.sendto(flight, path.address)

    # Receiving.

    def _take_over(self, protocol: asyncio.DatagramProtocol) -> None:
        if self._on_packets and protocol not in self._demultiplexers:
            self._demultiplexers[protocol] = demultiplexer = _Demultiplexer(protocol, self)
            seam.redirect_datagrams(protocol, demultiplexer)

    def run_received(
        self, run: memoryview, segment_size: int, address: Address, protocol: asyncio.DatagramProtocol
    ) -> None:
        """Decrypt the datagrams of a run that are DTLS, and give the others to the ICE protocol."""
        whole = len(run) - len(run) % segment_size
        self._equals_received(run[:whole], segment_size, address, protocol)
        if whole < len(run):
            self._equals_received(run[whole:], len(run) - whole, address, protocol)

    def _equals_received(
        self, run: memoryview, segment_size: int, address: Address, protocol: asyncio.DatagramProtocol
    ) -> None:
        if self._batched and _is_run_of_data(run, segment_size):
            self._decrypt_run(run, segment_size)
            return
        for at in range(0, len(run), segment_size):
            datagram = run[at : at + segment_size]
            if datagram[0] in _FIRST_BYTES:
                self._decrypt_datagram(datagram)
            else:
                protocol.datagram_received(bytes(datagram), address)

    def receive_finished(self) -> None:
        """Deliver what was decrypted."""
        packets, self._packets = self._packets, []
        if packets and self._on_packets:
            seam.heard(self._dtls)
            self._on_packets(packets, time.monotonic())

    def _decrypt_run(self, run: memoryview, segment_size: int) -> None:
        """Decrypt datagrams that are one data record each."""
        records, read, plain = self._records, self._ssl_read, self._plain
        ssl, buffer, packets = records.ssl, self._plain_buffer, self._packets
        start = records.ffi.from_buffer(run)
        step = max(1, _FED_AT_ONCE // segment_size) * segment_size
        for at in range(0, len(run), step):
            fed = min(step, len(run) - at)
            self._bio_write(records.incoming, start + at, fed)
            for _ in range(fed // segment_size):
                size = read(ssl, plain, MAX_PACKET_SIZE)
                if size <= 0:
                    # Fewer packets than records: a forged or a repeated one was dropped on the way.
                    self._after_silence()
                    break
                packets.append(buffer[:size])

    def _decrypt_datagram(self, datagram: memoryview) -> None:
        """The slow twin: whatever is in one datagram."""
        records = self._records
        self._bio_write(records.incoming, records.ffi.from_buffer(datagram), len(datagram))
        while (size := self._ssl_read(records.ssl, self._plain, MAX_PACKET_SIZE)) > 0:
            self._packets.append(self._plain_buffer[:size])
        self._after_silence()
        self._send_pending()

    def _after_silence(self) -> None:
        """OpenSSL had no packet to give: there was none, or the peer has ended the connection."""
        self._records.lib.ERR_clear_error()
        if self._on_packets and self._records.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
            # What came before the end counts.
            self.receive_finished()
            self._on_packets = None
            seam.end_datagrams(self._dtls)


class _Demultiplexer(asyncio.DatagramProtocol):
    """Stands between a transport and the ICE protocol of one local candidate."""

    def __init__(self, protocol: asyncio.DatagramProtocol, batcher: DtlsBatcher) -> None:
        self._protocol = protocol
        self._batcher = batcher

    def run_received(self, run: memoryview, segment_size: int, address: Address) -> None:
        self._batcher.run_received(run, segment_size, address, self._protocol)

    def receive_finished(self) -> None:
        self._batcher.receive_finished()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        # From a transport that is not ours: that of a relay.
        if data:
            self._batcher.run_received(memoryview(data), len(data), addr, self._protocol)
            self._batcher.receive_finished()

    def error_received(self, exc: Exception) -> None:
        self._protocol.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)


def _is_run_of_data(run: memoryview, segment_size: int) -> bool:
    """Whether each datagram of a run is one data record of the current epoch and nothing else.

    OpenSSL finds the next record only by the length of the one before, and of some records it drops no more
    than the header: other datagrams fed together with one of those would be lost.
    """
    if segment_size <= _HEADER_SIZE:
        return False
    expected = (_DATA_HEADER, segment_size - _HEADER_SIZE)
    for header in _headers_in(segment_size)(run):
        if header != expected:
            return False
    return True


@functools.lru_cache(maxsize=64)
def _headers_in(segment_size: int) -> Callable[[memoryview], Iterator[tuple[bytes, int]]]:
    """Return what gives the fixed part and the length of the header at the start of each segment of a run."""
    return struct.Struct(f"!5s6xH{segment_size - _HEADER_SIZE}x").iter_unpack


def _record_size(buffer: Any, at: int) -> int:
    return _HEADER_SIZE + _uint16(buffer, at + _LENGTH_AT)


def _uint16(buffer: Any, at: int) -> int:
    value: int = buffer[at] << 8 | buffer[at + 1]
    return value


def _record_overhead(connection: SSL.Connection) -> int:
    """Return the bytes of header, nonce, tag and padding that the negotiated cipher adds, at most."""
    overheads = []
    # A block cipher pads to 16 bytes.
    for size in range(1200, 1216):
        connection.set_ciphertext_mtu(size)
        overheads.append(size - connection.get_cleartext_mtu())
    return max(overheads)
