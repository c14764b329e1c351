"""How fast do datagrams and DTLS records go between two processes on loopback, without SCTP?

    python -m e2e.bench.datagrams [--size 200MB] [--runs 5] [--packet 1160] [--packet 16384]

The sender keeps at most WINDOW bytes on the way and the receiver tells its count now and then, so that
nothing is lost and the figure is that of both together. One after the other:

    asyncio, uvloop   the loop's own endpoint, a call for each datagram
    sendto            flyx.net.udp under a protocol that does not know of it: a call for each datagram
    runs              flyx.net.udp, send_run() and run_received()
    dtls singly       flyx.rtc.dtls with its slow twins, over flyx.net.udp
    dtls batches      flyx.rtc.dtls
    direct            the same records in a loop around blocking sockets: no event loop, no ICE; the ceiling

Datagrams without DTLS are as large as the records of the packets would be. MB/s are 10^6 bytes of packets;
CPU is user and system microseconds a packet of each process. Medians; the ratio is to `direct` of the same
round.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import socket
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop
from aiortc import (
    RTCCertificate,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceTransport,
)
from aiortc.rtcdtlstransport import SRTP_PROFILES
from OpenSSL import SSL

from flyx.cli.demo import parse_size
from flyx.net import udp
from flyx.net.loop import create_udp_endpoint, new_event_loop
from flyx.rtc.dtls import DtlsBatcher
from flyx.rtc.seam.ice import COMPONENT

OVERHEAD = 37
"""Bytes of a DTLS 1.2 record with AES-128-GCM beside the packet."""

WINDOW = 1 << 20
COUNT = struct.Struct("!QQ")
REPORT_EVERY = 1 << 16
LOOPBACK = ("127.0.0.1", 0)


@dataclass(frozen=True)
class Instant:
    """A time, and the seconds of CPU that this process had used by then."""

    seconds: float
    cpu: float

    @classmethod
    def now(cls) -> Instant:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), usage.ru_utime + usage.ru_stime)

    def since(self, start: Instant) -> Instant:
        return Instant(self.seconds - start.seconds, self.cpu - start.cpu)


class Sender:
    """Keeps the window full; done() is resolved when the receiver has all."""

    def __init__(self, packet_size: int, total: int, send: Callable[[int], None]) -> None:
        self.total, self.sent = total, 0
        self.window = max(2, WINDOW // packet_size)
        self.batch = max(1, udp.MAX_RUN_SIZE // (packet_size + OVERHEAD))
        self.send = send
        self.done = asyncio.get_running_loop().create_future()

    def pump(self, counted: int = 0) -> None:
        """Send as many packets as the receiver's count allows."""
        while (batch := min(self.batch, counted + self.window - self.sent, self.total - self.sent)) > 0:
            self.sent += batch
            self.send(batch)
        if counted == self.total and not self.done.done():
            self.done.set_result(None)


class Receiver:
    """Counts packets and reports; done() is resolved when all have come."""

    def __init__(self, packet_size: int, total: int, report: Callable[[bytes], None]) -> None:
        self.every = max(1, REPORT_EVERY // packet_size)
        self.total, self.count, self.reported = total, 0, 0
        self.report = report
        self.done = asyncio.get_running_loop().create_future()
        self.started: Instant | None = None

    def received(self, packets: int) -> None:
        """Take note of more packets."""
        self.started = self.started or Instant.now()
        self.count += packets
        if self.count - self.reported >= self.every or self.count == self.total:
            self.reported = self.count
            self.report(COUNT.pack(self.count, 0))
            if self.count == self.total and not self.done.done():
                self.done.set_result(None)


class Ordinary(asyncio.DatagramProtocol):
    """A protocol of single datagrams."""

    def __init__(self) -> None:
        self.received: Callable[[bytes], None] = lambda _: None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received(data)


class Runs(Ordinary):
    """A protocol of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.finished: Callable[[int], None] = lambda _: None

    def run_received(self, run: memoryview, segment_size: int, address: Any) -> None:
        if segment_size == COUNT.size:
            self.received(bytes(run[-segment_size:]))
        else:
            self.count += -(-len(run) // segment_size)

    def receive_finished(self) -> None:
        count, self.count = self.count, 0
        if count:
            self.finished(count)


async def datagrams(kind: str, packet_size: int, total: int, pipe: Connection, sending: bool) -> Instant:
    """Send or receive plain datagrams; return how long it took."""
    loop = asyncio.get_running_loop()
    size = packet_size + OVERHEAD
    protocol = Runs() if kind == "runs" else Ordinary()
    transport: Any
    if kind in ("runs", "sendto"):
        transport, _ = await create_udp_endpoint(loop, lambda: protocol, LOOPBACK)
    else:
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=LOOPBACK)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, udp.SO_RCVBUFFORCE, udp.SOCKET_BUFFER_SIZE)
    pipe.send(transport.get_extra_info("sockname"))
    peer = await asyncio.to_thread(pipe.recv)
    if sending:
        packet = os.urandom(size)
        run = packet * (udp.MAX_RUN_SIZE // size)

        def send(count: int) -> None:
            if kind == "runs":
                transport.send_run(memoryview(run)[: count * size], size, peer)
            else:
                for _ in range(count):
                    transport.sendto(packet, peer)

        sender = Sender(packet_size, total, send)
        protocol.received = lambda data: sender.pump(COUNT.unpack(data)[0])
        await asyncio.to_thread(pipe.recv)
        started = Instant.now()
        sender.pump()
        await sender.done
    else:
        receiver = Receiver(packet_size, total, lambda data: transport.sendto(data, peer))
        protocol.received = lambda data: receiver.received(1)
        if isinstance(protocol, Runs):
            protocol.finished = receiver.received
        pipe.send("ready")
        await receiver.done
        assert receiver.started
        started = receiver.started
    used = Instant.now().since(started)
    transport.close()
    # The last report leaves at the end of a turn of the loop.
    await asyncio.sleep(0)
    return used


async def dtls_transport(pipe: Connection, sending: bool) -> RTCDtlsTransport:
    """Return a DTLS transport connected to that of the other process."""
    gatherer = RTCIceGatherer([])
    ice = RTCIceTransport(gatherer)
    ice._connection.ice_controlling = sending
    ice._connection._local_candidates_start = ice._connection._local_candidates_end = True
    ice._connection._local_candidates = await ice._connection.get_component_candidates(
        COMPONENT, [LOOPBACK[0]]
    )
    dtls = RTCDtlsTransport(ice, [RTCCertificate.generateCertificate()])
    pipe.send((gatherer.getLocalParameters(), gatherer.getLocalCandidates(), dtls.getLocalParameters()))
    ice_parameters, candidates, dtls_parameters = await asyncio.to_thread(pipe.recv)
    for candidate in [*candidates, None]:
        await ice.addRemoteCandidate(candidate)
    await ice.start(ice_parameters)
    await dtls.start(dtls_parameters)
    assert dtls.state == "connected"
    return dtls


async def records(kind: str, packet_size: int, total: int, pipe: Connection, sending: bool) -> Instant:
    """Send or receive packets in DTLS records; return how long it took."""
    dtls = await dtls_transport(pipe, sending)
    batcher = DtlsBatcher(dtls, batched=kind == "dtls batches")
    if sending:
        packet = os.urandom(packet_size)
        sender = Sender(packet_size, total, lambda count: batcher.send([packet] * count))
        batcher.start(lambda packets, now: sender.pump(COUNT.unpack(packets[-1])[0]))
        await asyncio.to_thread(pipe.recv)
        started = Instant.now()
        sender.pump()
        await sender.done
    else:
        receiver = Receiver(packet_size, total, lambda data: batcher.send([data]))
        batcher.start(lambda packets, now: receiver.received(len(packets)))
        pipe.send("ready")
        await receiver.done
        assert receiver.started
        started = receiver.started
    used = Instant.now().since(started)
    pipe.send("done")
    await asyncio.to_thread(pipe.recv)
    await dtls.stop()
    await dtls.transport.stop()
    return used


def direct(packet_size: int, total: int, pipe: Connection, sending: bool) -> Instant:
    """Send or receive the same records with blocking calls; return how long it took."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(LOOPBACK)
        sock.setsockopt(socket.SOL_SOCKET, udp.SO_RCVBUFFORCE, udp.SOCKET_BUFFER_SIZE)
        sock.setsockopt(udp.SOL_UDP, udp.UDP_GRO, 1)
        pipe.send(sock.getsockname())
        sock.connect(pipe.recv())
        certificate = RTCCertificate.generateCertificate()
        connection = SSL.Connection(certificate._create_ssl_context(SRTP_PROFILES))
        connection.set_ciphertext_mtu(1400)
        (connection.set_connect_state if sending else connection.set_accept_state)()
        _shake_hands(connection, sock)
        pipe.send("ready")
        pipe.recv()
        lib, ffi, ssl = SSL._lib, SSL._ffi, connection._ssl  # type: ignore[attr-defined]
        buffer = ffi.new("unsigned char[]", 2 * udp.MAX_RUN_SIZE)
        view = memoryview(ffi.buffer(buffer))
        size = packet_size + OVERHEAD
        batch = max(1, udp.MAX_RUN_SIZE // size)
        control = [(udp.SOL_UDP, udp.UDP_SEGMENT, struct.pack("=H", size))]
        started = Instant.now()
        if sending:
            packet = os.urandom(packet_size)
            sent = counted = 0
            while counted < total:
                while (count := min(batch, counted + WINDOW // packet_size - sent, total - sent)) > 0:
                    sent += count
                    for _ in range(count):
                        lib.SSL_write(ssl, packet, packet_size)
                    length = lib.BIO_read(connection._from_ssl, buffer, len(view))
                    sock.sendmsg([view[:length]], control if count > 1 else [])
                counted = COUNT.unpack(sock.recv(65536)[-COUNT.size :])[0]
            return Instant.now().since(started)
        count = reported = 0
        fed = max(1, 16_384 // size) * size
        incoming = bytearray(65536)
        while count < total:
            length = sock.recvmsg_into([incoming], 64)[0]
            start = ffi.from_buffer(incoming)
            for at in range(0, length, fed):
                piece = min(fed, length - at)
                lib.BIO_write(connection._into_ssl, start + at, piece)
                for _ in range(piece // size):
                    got = lib.SSL_read(ssl, buffer, 16_384)
                    bytes(view[:got])
                    count += 1
            if count - reported >= REPORT_EVERY // packet_size or count == total:
                reported = count
                sock.send(COUNT.pack(count, 0))
        return Instant.now().since(started)


def _shake_hands(connection: SSL.Connection, sock: socket.socket) -> None:
    while True:
        try:
            connection.do_handshake()
            finished = True
        except SSL.WantReadError:
            finished = False
        try:
            sock.send(connection.bio_read(65536))
        except SSL.WantReadError:
            pass
        if finished:
            return
        connection.bio_write(sock.recv(65536))


KINDS = ("asyncio", "uvloop", "sendto", "runs", "dtls singly", "dtls batches", "direct")


def side(
    kind: str, packet_size: int, total: int, pipe: Connection, results: Connection, sending: bool
) -> None:
    """Be one of the two processes."""
    if kind == "direct":
        used = direct(packet_size, total, pipe, sending)
    else:
        factory: Any = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}.get(kind)
        with asyncio.Runner(loop_factory=factory or new_event_loop) as runner:
            part = records if kind.startswith("dtls") else datagrams
            used = runner.run(part(kind, packet_size, total, pipe, sending))
    results.send(used)


def measure(kind: str, packet_size: int, total: int) -> tuple[Instant, Instant]:
    """Return what the sender and the receiver took."""
    context = multiprocessing.get_context("spawn")
    ends = context.Pipe()
    results = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [
        context.Process(
            target=side, args=(kind, packet_size, total, ends[number], results[number][1], number == 0)
        )
        for number in range(2)
    ]
    for process in processes:
        process.start()
    for ours in (*ends, *(theirs for _, theirs in results)):
        # So that the end of either process is seen by the other, and here.
        ours.close()
    sender, receiver = (result.recv() for result, _ in results)
    for process in processes:
        process.join()
    return sender, receiver


def main() -> None:
    """Print a table for each packet size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("200MB"), help="bytes each time")
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--packet", type=int, action="append", help="bytes of a packet; may be repeated")
    parser.add_argument("--only", action="append", choices=KINDS, help="measure only these")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if not options.only or kind in options.only or kind == "direct"]
    for packet_size in options.packet or (1160, 16_384):
        total = options.size // packet_size
        rows: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
        for _ in range(options.runs):
            for kind in kinds:
                sender, receiver = measure(kind, packet_size, total)
                rate = total * packet_size / sender.seconds / 1e6
                rows[kind].append((rate, sender.cpu / total * 1e6, receiver.cpu / total * 1e6))
        print(f"\npackets of {packet_size} bytes, {options.runs} x {total * packet_size / 1e6:.0f} MB")
        print(f"{'':14}{'MB/s':>7}  {'range':>11}{'of direct':>11}{'sender µs':>11}{'receiver µs':>13}")
        for kind, runs in rows.items():
            rates, *costs = zip(*runs, strict=True)
            ratio = statistics.median(a / b[0] for a, b in zip(rates, rows["direct"], strict=True))
            sender_cost, receiver_cost = map(statistics.median, costs)
            print(
                f"{kind:14}{statistics.median(rates):7.0f}  {min(rates):5.0f}-{max(rates):5.0f}"
                f"{ratio:10.0%}{sender_cost:11.2f}{receiver_cost:13.2f}"
            )


if __name__ == "__main__":
    main()
