"""A UDP transport for asyncio that touches the kernel and Python once for many datagrams.

Out: equal-sized datagrams to one address that are sent within one turn of the loop leave in one sendmsg with
UDP_SEGMENT (GSO). In: one recvmsg with UDP_GRO returns many datagrams of one sender. Both are features of
Linux 5.0 and later (udp(7)); elsewhere, and where a device refuses, each datagram goes by itself. A protocol
that has the methods of RunProtocol is given runs of datagrams, any other one asyncio's datagram_received().

This module must not know what is in the datagrams. The split of the work (GSO with graceful fallback, one
place for socket options) is that of quinn-udp.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Address = tuple[Any, ...]
"""As the socket module has it: (host, port) or (host, port, flow info, scope id)."""

Buffer = bytes | bytearray | memoryview

LINUX = sys.platform == "linux"

# Linux's numbers (include/uapi/linux/udp.h, in.h, in6.h), which the socket module of Python 3.11 lacks.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
PMTUDISC_PROBE = 3
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

MAX_SEGMENTS = 64
"""Datagrams in one sendmsg: UDP_MAX_SEGMENTS of Linux before 6.9, which later releases doubled."""

MAX_RUN_SIZE = 65_000
"""Bytes in one sendmsg of several datagrams.

65,507 are allowed, but a run that has no room left for the headers below UDP in 64 KiB is cut up before it is
sent, on Linux, and so arrives one by one.
"""

RECEIVE_SIZE = 65_536
"""Bytes that one recvmsg can return: no datagram is larger, nor does the kernel merge more."""

RECEIVE_BYTES_PER_TURN = 1 << 20
RECEIVE_CALLS_PER_TURN = 64
"""After so much the transport lets the rest of the loop have its turn; the socket stays readable.

Each turn has its price: acknowledgements, timers, a look at what there is to write. It is dear to a program
that shares its processor, whose caches have little of it left, and which finds much in its socket. Eight
receivers on two processors took 2.3 CPU seconds a GB in turns of 128 KiB, 1.8 so, one alone 1.16 and 0.95.
Twice as much gains nothing more. malloc has to keep what is freed (flyx/cli/process.py): by default it may
give back what each turn had, and a receiver that does nothing but receive takes 1.9 instead of 0.9.
"""

SEND_QUEUE_SIZE = 1 << 20
"""Bytes that wait for a full socket buffer. What would be more is dropped, as the network would drop it."""

KEPT_TIME = 10.0
"""Seconds for which a socket outlives its transport, if that was told to fall silent."""

SOCKET_BUFFER_SIZE = 8 << 20
"""Bytes asked of the kernel each way: 8 ms of a loopback transfer while Python is busy elsewhere."""

_CONTROL_SIZE = 64
_SEGMENT_SIZE = struct.Struct("=i")
_UINT16 = struct.Struct("=H")

_REFUSALS = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP})
"""What GSO sends fail with where a device cannot do it; see also udp_send_skb in Linux's net/ipv4/udp.c."""


@runtime_checkable
class RunProtocol(Protocol):
    """A protocol that takes runs of datagrams instead of single ones."""

    def run_received(self, run: memoryview, segment_size: int, address: Address) -> None:
        """Take datagrams of segment_size bytes each, the last one of 1 to segment_size, back to back.

        The view is valid until this returns.
        """

    def receive_finished(self) -> None:
        """No more runs come in this turn of the loop: what was collected should be worked on now."""


@dataclass(slots=True)
class Counters:
    """What a transport has done so far."""

    datagrams_sent: int = 0
    datagrams_received: int = 0
    datagrams_dropped: int = 0
    """Ours, because the send queue was full; and empty ones of others."""
    send_calls: int = 0
    receive_calls: int = 0
    """Those that moved something."""


class _Run:
    """Datagrams of one size to one address, the last one possibly shorter, in order."""

    __slots__ = ("address", "buffers", "segment_size", "size")

    def __init__(self, buffer: Buffer, segment_size: int, address: Address) -> None:
        # One datagram each, or a single buffer that has all of them.
        self.buffers: list[Buffer] = [buffer]
        self.segment_size = segment_size
        self.size = len(buffer)
        self.address = address

    def takes(self, size: int, address: Address) -> bool:
        """Whether one more datagram may join, no shorter one having ended the run."""
        return (
            size <= self.segment_size
            and self.size % self.segment_size == 0
            and len(self.buffers) < MAX_SEGMENTS
            and self.size + size <= MAX_RUN_SIZE
            and self.address == address
        )

    def append(self, datagram: bytes) -> None:
        self.buffers.append(datagram)
        self.size += len(datagram)

    def datagrams(self) -> list[Buffer]:
        if len(self.buffers) > 1 or self.size <= self.segment_size:
            return self.buffers
        view = memoryview(self.buffers[0])
        return [view[at : at + self.segment_size] for at in range(0, self.size, self.segment_size)]


class UdpTransport(asyncio.DatagramTransport):
    """An unconnected UDP socket with GSO and GRO where they exist.

    get_extra_info() knows "sockname". It does not give the "socket" away: aioice would set a smaller receive
    buffer on it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        *,
        offload: bool = True,
    ) -> None:
        """Take over a bound socket, and call protocol.connection_made().

        Args:
            offload: False never uses GSO and GRO.
        """
        sock.setblocking(False)
        super().__init__({"sockname": sock.getsockname()})
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._receive_offload = offload and _has_receive_offload(sock)
        # Cleared when a send shows that it does not work after all.
        self._send_offload = offload and _has_send_offload(sock)
        # PROBE and not DO: what the kernel believes of the path would hide what the path really takes.
        self._never_fragments = _discover_mtu(sock, PMTUDISC_PROBE)
        _enlarge_buffers(sock)
        self.counters = Counters()
        self._received = memoryview(bytearray(RECEIVE_SIZE))
        self._queue: deque[_Run] = deque()
        self._queued = 0
        # A flush is due at the end of this turn of the loop.
        self._flush_scheduled = False
        # The socket's buffer is full: the loop watches for room.
        self._blocked = False
        self._closing = False
        self._closed = False
        # What is sent is dropped, and the socket outlives this.
        self._silent = False
        self.set_protocol(protocol)
        protocol.connection_made(self)
        if not self._closing:
            loop.add_reader(self._fd, self._on_readable)

    # asyncio's interface.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to this protocol from now on."""
        self._protocol: Any = protocol
        self._run_protocol = protocol if isinstance(protocol, RunProtocol) else None

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is delivered to."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Whether close() or abort() was called."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Return the bytes that have not been given to the kernel."""
        return self._queued

    def sendto(self, data: Buffer, addr: Any = None) -> None:
        """Send one datagram at the end of this turn of the loop, with others if it can join them.

        On a closed transport, or with SEND_QUEUE_SIZE bytes waiting, it is dropped.
        """
        if addr is None:
            raise ValueError("this socket is not connected")
        if self._closing or self._silent or not self._has_room(len(data)):
            return
        datagram = bytes(data)
        last = self._queue[-1] if self._queue else None
        if last and len(datagram) and last.takes(len(datagram), addr):
            last.append(datagram)
        else:
            # An empty datagram is not part of any run: it has its own segment size of one, and ends at once.
            self._queue.append(_Run(datagram, len(datagram) or 1, addr))
        self._queued += len(datagram)
        self._schedule_flush()

    def close(self) -> None:
        """Send what is queued, then close the socket and call protocol.connection_lost(None)."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        if not self._blocked:
            self._flush()
        if not self._queue:
            self._loop.call_soon(self._close_socket)

    def abort(self) -> None:
        """Close without sending what is queued."""
        self._closing = True
        self._loop.remove_reader(self._fd)
        self._queue.clear()
        self._queued = 0
        self._loop.call_soon(self._close_socket)

    # What asyncio does not have.

    @property
    def send_offload(self) -> bool:
        """Whether runs leave in one call."""
        return self._send_offload

    @property
    def receive_offload(self) -> bool:
        """Whether the kernel may return several datagrams a call."""
        return self._receive_offload

    @property
    def never_fragments(self) -> bool:
        """Whether what arrives proves its size fit the path (RFC 8899 §3, requirement 1)."""
        return self._never_fragments

    def allow_fragments(self, allowed: bool) -> None:
        """Let IP fragment datagrams from now on, or forbid it again, if it was forbidden at all."""
        if self._never_fragments:
            _discover_mtu(self._sock, PMTUDISC_DONT if allowed else PMTUDISC_PROBE)

    def fall_silent(self) -> None:
        """Send nothing more, not even what is queued. The socket stays open for KEPT_TIME after the end."""
        self._silent = True
        self._queue.clear()
        self._queued = 0
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._fd)

    def send_run(self, run: Buffer, segment_size: int, address: Address) -> None:
        """Send datagrams of segment_size bytes each, the last one of 1 to segment_size, back to back.

        Unlike sendto() this sends at once; the buffer may be reused when it returns. Where the socket is full
        the rest waits, up to SEND_QUEUE_SIZE, as with sendto().
        """
        if self._closing or self._silent:
            return
        if self._queue and not self._blocked:
            self._flush()
        view = memoryview(run)
        segments = max(1, min(MAX_SEGMENTS, MAX_RUN_SIZE // segment_size))
        step = segments * segment_size
        for at in range(0, len(view), step):
            part = _Run(view[at : at + step], segment_size, address)
            if not self._blocked:
                if self._transmit(part):
                    continue
                self._wait_for_room()
            self._enqueue(part)

    # Sending.

    def _has_room(self, size: int) -> bool:
        """Whether a datagram may be queued; if not, it is counted as dropped."""
        if self._queued + size > SEND_QUEUE_SIZE:
            if not self._blocked:
                self._flush()
            if self._queued + size > SEND_QUEUE_SIZE:
                self.counters.datagrams_dropped += 1
                return False
        return True

    def _enqueue(self, run: _Run) -> None:
        """Keep a copy of a run for when the socket has room."""
        for datagram in run.datagrams():
            if self._has_room(len(datagram)):
                last = self._queue[-1] if self._queue else None
                if last and last.takes(len(datagram), run.address):
                    last.append(bytes(datagram))
                else:
                    self._queue.append(_Run(bytes(datagram), run.segment_size, run.address))
                self._queued += len(datagram)

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled and not self._blocked:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        self._flush_scheduled = False
        while self._queue:
            # Taken out first: a protocol that is told of an error may send, or abort.
            run = self._queue.popleft()
            self._queued -= run.size
            if not self._transmit(run):
                self._queue.appendleft(run)
                self._queued += run.size
                if not self._blocked:
                    self._wait_for_room()
                return
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._fd)
            if self._closing:
                self._close_socket()

    def _wait_for_room(self) -> None:
        self._blocked = True
        self._loop.add_writer(self._fd, self._flush)

    def _transmit(self, run: _Run) -> bool:
        """Send a run; False if the socket is full, with the run cut down to what is left of it."""
        refused = False
        if self._send_offload and run.size > run.segment_size:
            control = [(SOL_UDP, UDP_SEGMENT, _UINT16.pack(run.segment_size))]
            try:
                self._sock.sendmsg(run.buffers, control, 0, run.address)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in _REFUSALS:
                    self._protocol.error_received(error)
                    return True
                refused = True
            else:
                self.counters.send_calls += 1
                self.counters.datagrams_sent += -(-run.size // run.segment_size)
                return True
        return self._transmit_singly(run, refused)

    def _transmit_singly(self, run: _Run, refused: bool) -> bool:
        """The slow twin of sending with offload, which does not need it.

        Args:
            refused: the same run was just refused with offload. If a datagram of it can be sent, it was the
                offload that was refused, and it is not tried again; otherwise the datagrams are at fault,
                such as larger than the device's MTU.
        """
        datagrams = run.datagrams()
        for number, datagram in enumerate(datagrams):
            try:
                self._sock.sendto(datagram, run.address)
            except BlockingIOError:
                run.buffers = datagrams[number:]
                run.size = sum(map(len, run.buffers))
                return False
            except OSError as error:
                self._protocol.error_received(error)
            else:
                self.counters.send_calls += 1
                self.counters.datagrams_sent += 1
                if refused:
                    self._send_offload = False
        return True

    # Receiving.

    def _on_readable(self) -> None:
        budget = RECEIVE_BYTES_PER_TURN
        delivered = False
        try:
            for _ in range(RECEIVE_CALLS_PER_TURN):
                try:
                    size, control, _, address = self._sock.recvmsg_into([self._received], _CONTROL_SIZE)
                except BlockingIOError:
                    break
                except OSError as error:
                    self._protocol.error_received(error)
                    break
                if not size:
                    # Nothing that we speak has empty datagrams, and aiortc's DTLS transport dies of one.
                    self.counters.datagrams_dropped += 1
                    continue
                delivered = True
                self._deliver(self._received[:size], _segment_size(control) or size, address)
                budget -= size
                if budget <= 0 or self._closing:
                    break
        finally:
            if delivered and self._run_protocol:
                self._run_protocol.receive_finished()

    def _deliver(self, run: memoryview, segment_size: int, address: Address) -> None:
        self.counters.receive_calls += 1
        self.counters.datagrams_received += -(-len(run) // segment_size)
        if self._run_protocol:
            self._run_protocol.run_received(run, segment_size, address)
            return
        for at in range(0, len(run), segment_size):
            try:
                self._protocol.datagram_received(bytes(run[at : at + segment_size]), address)
            except Exception as error:
                # As with a loop's own transport, one bad datagram does not take others along.
                context = {"message": "datagram_received() failed", "exception": error, "transport": self}
                self._loop.call_exception_handler(context)

    # The end.

    def _close_socket(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._blocked:
            self._loop.remove_writer(self._fd)
        if self._silent:
            with contextlib.suppress(OSError):
                # What comes is dropped.
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            self._loop.call_later(KEPT_TIME, os.close, self._sock.detach())
        else:
            self._sock.close()
        self._protocol.connection_lost(None)


def _segment_size(control: list[tuple[int, int, bytes]]) -> int | None:
    """Return the size of the datagrams that the kernel has merged; None if it is only one."""
    for level, kind, value in control:
        if level == SOL_UDP and kind == UDP_GRO:
            size: int = _SEGMENT_SIZE.unpack_from(value)[0]
            return size
    return None


def _has_send_offload(sock: socket.socket) -> bool:
    # Zero is no segmentation by default; each send says what it wants.
    return LINUX and _set(sock, SOL_UDP, UDP_SEGMENT, 0)


def _has_receive_offload(sock: socket.socket) -> bool:
    return LINUX and _set(sock, SOL_UDP, UDP_GRO, 1)


def _discover_mtu(sock: socket.socket, how: int) -> bool:
    if not LINUX:
        return False
    if sock.family == socket.AF_INET6:
        return _set(sock, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, how)
    return sock.family == socket.AF_INET and _set(sock, socket.IPPROTO_IP, IP_MTU_DISCOVER, how)


def _enlarge_buffers(sock: socket.socket) -> None:
    """Ask beyond the system's limit, which takes a privilege; else up to it."""
    for forced, ordinary in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        if not (LINUX and _set(sock, socket.SOL_SOCKET, forced, SOCKET_BUFFER_SIZE)):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, ordinary, SOCKET_BUFFER_SIZE)


def _set(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
