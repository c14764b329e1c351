"""This computer: UDP offload, open files, the disk, the local network's multicast."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyx.client.doctor.finding import Finding, FindingState
from flyx.client.threads import on_daemon
from flyx.errors import size_text
from flyx.net.dnssd import interfaces
from flyx.net.loop import create_udp_endpoint
from flyx.net.udp import Address
from flyx.storage.speed import measure_disk

DATAGRAMS, DATAGRAM_SIZE = 32, 1200
"""What is sent to ourselves to see how many calls it takes."""

FEW_DESCRIPTORS = 256
"""Open files that a process should be allowed: a transfer needs some ten for each peer, besides its own."""

LITTLE_SPACE = 1 << 30
"""Bytes."""

WRITTEN, WRITE_TIME = 32 << 20, 0.5
"""Bytes that are written to measure the disk, and seconds after which no more are begun."""

MDNS, MDNS_IPV6 = ("224.0.0.251", 5353), ("ff02::fb", 5353)
"""RFC 6762 §3."""

MDNS_PATIENCE = 1.0
"""Seconds for our own multicast to come back."""

_QUESTION = (
    struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\x09_services\x07_dns-sd\x04_udp\x05local\x00\x00\x0c\x00\x01"
)
"""A question for the services that there are (RFC 6763 §9), which disturbs nobody."""


async def check_offload() -> Finding:
    """Send datagrams to ourselves as a transfer sends them, and see whether the kernel takes many at once."""
    received = 0
    all_received = asyncio.Event()

    class Counter(asyncio.DatagramProtocol):
        def run_received(self, run: memoryview, segment_size: int, address: Address) -> None:
            nonlocal received
            received += len(run)
            if received >= DATAGRAMS * DATAGRAM_SIZE:
                all_received.set()

        def receive_finished(self) -> None:
            pass

    loop = asyncio.get_running_loop()
    incoming, _ = await create_udp_endpoint(loop, Counter, ("127.0.0.1", 0))
    outgoing, _ = await create_udp_endpoint(loop, asyncio.DatagramProtocol, ("127.0.0.1", 0))
    try:
        for _ in range(DATAGRAMS):
            outgoing.sendto(bytes(DATAGRAM_SIZE), incoming.get_extra_info("sockname"))
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await all_received.wait()
        sends, receives = outgoing.counters.send_calls, incoming.counters.receive_calls
    finally:
        outgoing.close()
        incoming.close()
    figures = {"datagrams": DATAGRAMS, "send_calls": sends, "receive_calls": receives}
    if not all_received.is_set():
        meaning = "packets are dropped inside this computer"
        advice = "look for a firewall on the loopback"
        words = "datagrams to this computer itself do not arrive"
        return Finding("offload", FindingState.WARNING, words, meaning, advice, figures)
    if max(sends, receives) * 4 <= DATAGRAMS:
        words = f"{DATAGRAMS} datagrams leave in {_calls(sends)} and arrive in {_calls(receives)} (GSO, GRO)"
        return Finding("offload", FindingState.OK, words, "full speed", figures=figures)
    words = f"{DATAGRAMS} datagrams need {_calls(sends)} to leave and {_calls(receives)} to arrive"
    meaning = "transfers are limited by the CPU, to some 200 MB/s at best"
    advice = "" if sys.platform == "linux" else "none: this system has no GSO or GRO for UDP"
    return Finding(
        "offload", FindingState.WARNING, words, meaning, advice or "Linux 5.0 or newer has both", figures
    )


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


async def check_descriptors() -> Finding:
    """See how many files and sockets this process may have open."""
    try:
        import resource
    except ImportError:
        return Finding("descriptors", FindingState.OK, "not limited by this system")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    figures = {"limit": limit}
    if limit == resource.RLIM_INFINITY:
        return Finding("descriptors", FindingState.OK, "no limit", figures=figures)
    words = f"{limit:,} open files at a time"
    if limit < FEW_DESCRIPTORS:
        meaning = "transfers to many receivers, or with many network interfaces, may fail"
        return Finding(
            "descriptors", FindingState.WARNING, words, meaning, "raise it: `ulimit -n 4096`", figures
        )
    return Finding("descriptors", FindingState.OK, words, "enough", figures=figures)


async def check_disk(directory: Path) -> Finding:
    """See whether files can be saved here, how many, and how fast about."""
    try:
        speed = await on_daemon(lambda: measure_disk(directory, WRITTEN, WRITE_TIME, reads=False))
    except OSError as error:
        words = f"{directory}: {error.strerror or error}"
        meaning = "nothing can be received into this directory; sending from it may work"
        return Finding("disk", FindingState.FAILING, words, meaning, "choose another one with --output")
    free, rate = speed.free, round(speed.write_rate)
    figures = {"free": free, "rate": rate}
    words = f"{size_text(free)} free, {size_text(rate)}/s written and synced"
    if free < LITTLE_SPACE:
        meaning = "larger transfers are refused before they begin"
        return Finding("disk", FindingState.WARNING, words, meaning, "free some space", figures)
    return Finding("disk", FindingState.OK, words, f"files can be saved into {directory}", figures=figures)


async def check_mdns() -> Finding:
    """Send a multicast question on each local network, and hear it come back on one of them."""
    ways = interfaces().choice
    if not ways:
        meaning = "only what runs on this computer itself can be reached"
        return Finding(
            "mdns", FindingState.WARNING, "this computer has no network", meaning, "connect it to one"
        )
    failures = await asyncio.gather(*map(_multicast_failure, ways))
    if "" in failures:
        meaning = "browsers and senders on this network are found by name"
        return Finding("mdns", FindingState.OK, "multicast leaves and comes back", meaning)
    meaning = "a sender without a server, or a browser on this network, is not found by name"
    advice = "let UDP port 5353 through in the firewall; some wifi and most VPNs have no multicast"
    return Finding("mdns", FindingState.WARNING, f"multicast does not work: {failures[0]}", meaning, advice)


async def _multicast_failure(way: str | int) -> str:
    """Return why multicast does not come back; empty if it does.

    Args:
        way: IPv4 address of an interface, or for IPv6 its index.
    """
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[None] = loop.create_future()

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if data == _QUESTION and not heard.done():
                heard.set_result(None)

    try:
        sock = _mdns_socket(way)
        transport, _ = await loop.create_datagram_endpoint(Listener, sock=sock)
    except OSError as error:
        return error.strerror or str(error)
    try:
        # Not through the transport, which would keep the error to itself.
        sock.sendto(_QUESTION, MDNS if isinstance(way, str) else (*MDNS_IPV6, 0, way))
        async with asyncio.timeout(MDNS_PATIENCE):
            await heard
    except TimeoutError:
        return "what is sent does not come back"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        transport.close()
    return ""


def _mdns_socket(way: str | int) -> socket.socket:
    sock = socket.socket(socket.AF_INET if isinstance(way, str) else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # The interface is named each time: there may be no route for multicast.
        if isinstance(way, str):
            sock.bind(("0.0.0.0", MDNS[1]))  # noqa: S104  # multicast comes to the group
            interface = socket.inet_aton(way)
            group = socket.inet_aton(MDNS[0]) + interface
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::", MDNS_IPV6[1]))
            group = socket.inet_pton(socket.AF_INET6, MDNS_IPV6[0]) + struct.pack("@I", way)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, way)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
