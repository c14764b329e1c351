"""Real sockets on loopback, with the kernel's offload and without, on both event loops."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.net import udp
from flyx.net.loop import create_udp_endpoint, with_udp_endpoints
from flyx.net.udp import Address, UdpTransport
from tests.thoroughness import share

LOOPBACK = ("127.0.0.1", 0)
SO_NO_CHECK = 11

Run = Callable[[Coroutine[Any, Any, None]], None]

LOOPS = [asyncio.SelectorEventLoop, uvloop.Loop]


def run_on(base: Any, scenario: Coroutine[Any, Any, None]) -> None:
    async def with_a_limit() -> None:
        await asyncio.wait_for(scenario, 20)

    with asyncio.Runner(loop_factory=with_udp_endpoints(base)) as runner:
        runner.run(with_a_limit())


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return lambda scenario: run_on(request.param, scenario)


class Collector(asyncio.DatagramProtocol):
    """Takes single datagrams, and everything else that a protocol is told."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.addresses: set[Address] = set()
        self.errors: list[Exception] = []
        self.ends: list[Exception | None] = []
        self.transport: asyncio.BaseTransport | None = None
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.datagrams.append(data)
        self.addresses.add(addr)
        self.changed.set()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def received(self, count: int) -> list[bytes]:
        await self.until(lambda: len(self.datagrams) >= count)
        return self.datagrams


class RunCollector(Collector):
    """Takes runs, and cuts them up as they are documented."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[int] = []
        self.this_turn = 0

    def run_received(self, run: memoryview, segment_size: int, address: Address) -> None:
        assert 0 < len(run)
        self.this_turn += len(run)
        for at in range(0, len(run), segment_size):
            self.datagram_received(bytes(run[at : at + segment_size]), address)

    def receive_finished(self) -> None:
        self.turns.append(self.this_turn)
        self.this_turn = 0


async def endpoint(
    kind: type[Collector] = Collector, *, host: str = "127.0.0.1", offload: bool = True
) -> tuple[UdpTransport, Any]:
    loop = asyncio.get_running_loop()
    return await create_udp_endpoint(loop, kind, (host, 0), offload=offload)


def address_of(transport: UdpTransport) -> Address:
    address: Address = transport.get_extra_info("sockname")
    return address


async def closed(*ends: tuple[UdpTransport, Any]) -> None:
    for transport, protocol in ends:
        transport.close()
        await protocol.until(lambda protocol=protocol: bool(protocol.ends))


def numbered(sizes: list[int]) -> list[bytes]:
    """Datagrams of these sizes, no two alike where there is room to tell them apart."""
    return [(struct.pack("!I", n) * (size // 4 + 1))[:size] for n, size in enumerate(sizes)]


@pytest.fixture
def offloading(run: Run) -> Run:
    """Runs only where the kernel has both offloads."""

    async def probe() -> None:
        end = await endpoint()
        has_both = end[0].send_offload and end[0].receive_offload
        await closed(end)
        if not has_both:
            pytest.skip("this kernel has no UDP offload")

    run(probe())
    return run


sizes = st.one_of(
    st.lists(st.integers(1, 3000), max_size=40),
    # Rows of equal ones, each with a tail of another size: what the offload is for.
    st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 90), st.integers(0, 2500)), max_size=6).map(
        lambda rows: [size for size, count, tail in rows for size in [*[size] * count, *[tail] * (tail > 0)]]
    ),
    st.lists(st.sampled_from([1, 1200, 16421, 32500, 32501, 65000, 65001, 65507]), max_size=12),
)


@given(
    sizes=sizes,
    base=st.sampled_from(LOOPS),
    sender_offload=st.booleans(),
    receiver_offload=st.booleans(),
    kind=st.sampled_from([Collector, RunCollector]),
)
@settings(max_examples=share(80))
def test_datagrams_arrive_as_sent_and_in_order_with_and_without_offload(
    sizes: list[int], base: Any, sender_offload: bool, receiver_offload: bool, kind: type[Collector]
) -> None:
    datagrams = numbered(sizes)

    async def scenario() -> None:
        sender = await endpoint(offload=sender_offload)
        receiver = await endpoint(kind, offload=receiver_offload)
        for datagram in datagrams:
            sender[0].sendto(datagram, address_of(receiver[0]))
        assert await receiver[1].received(len(datagrams)) == datagrams
        assert receiver[1].addresses <= {address_of(sender[0])}
        assert sender[0].counters.datagrams_sent == len(datagrams)
        assert receiver[0].counters.datagrams_received == len(datagrams)
        await closed(sender, receiver)

    run_on(base, scenario())


@given(
    rows=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 150), st.integers(0, 2999)), max_size=8),
    base=st.sampled_from(LOOPS),
    offload=st.booleans(),
    between=st.booleans(),
)
@settings(max_examples=share(50))
def test_a_run_arrives_as_its_datagrams_in_order_with_single_ones_before_and_after(
    rows: list[tuple[int, int, int]], base: Any, offload: bool, between: bool
) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(offload=offload), await endpoint()
        expected: list[bytes] = []
        for size, count, tail in rows:
            buffer = bytearray(os.urandom(size * count + tail % size))
            expected += [bytes(buffer[at : at + size]) for at in range(0, len(buffer), size)]
            sender[0].send_run(memoryview(buffer), size, address_of(receiver[0]))
            # The caller's again.
            buffer[:] = bytes(len(buffer))
            if between:
                expected.append(b"between")
                sender[0].sendto(b"between", address_of(receiver[0]))
            await receiver[1].received(len(expected) - between)
        assert await receiver[1].received(len(expected)) == expected
        await closed(sender, receiver)

    run_on(base, scenario())


def test_equal_datagrams_of_one_turn_share_a_call_each_way(offloading: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint(RunCollector)
        datagrams = numbered([1200] * 100 + [500])
        for datagram in datagrams:
            sender[0].sendto(datagram, address_of(receiver[0]))
        assert await receiver[1].received(101) == datagrams
        assert sender[0].counters.send_calls == receiver[0].counters.receive_calls == 2
        await closed(sender, receiver)

    offloading(scenario())


def test_small_datagrams_leave_in_runs_of_64(offloading: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint()
        sender[0].send_run(bytes(10 * 130), 10, address_of(receiver[0]))
        assert sender[0].counters.send_calls == 3
        assert len(await receiver[1].received(130)) == 130
        await closed(sender, receiver)

    offloading(scenario())


def test_without_offload_each_datagram_is_a_call(run: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(offload=False), await endpoint(offload=False)
        assert not sender[0].send_offload
        assert not sender[0].receive_offload
        sender[0].send_run(bytes(12_000), 1200, address_of(receiver[0]))
        await receiver[1].received(10)
        assert sender[0].counters.send_calls == receiver[0].counters.receive_calls == 10
        await closed(sender, receiver)

    run(scenario())


def test_offload_that_the_kernel_refuses_is_given_up_and_nothing_is_lost(offloading: Run) -> None:
    async def scenario() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(LOOPBACK)
        # Linux does no segmentation on a socket without checksums: EINVAL (net/ipv4/udp.c, udp_send_skb).
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        protocol = Collector()
        transport = UdpTransport(asyncio.get_running_loop(), sock, protocol)
        receiver = await endpoint()
        before = transport.send_offload
        datagrams = numbered([700] * 30)
        transport.send_run(b"".join(datagrams), 700, address_of(receiver[0]))
        assert (before, transport.send_offload) == (True, False)
        for datagram in datagrams:
            transport.sendto(datagram, address_of(receiver[0]))
        assert await receiver[1].received(60) == datagrams * 2
        assert protocol.errors == []
        await closed((transport, protocol), receiver)

    offloading(scenario())


def test_datagrams_that_cannot_be_sent_at_all_do_not_cost_the_offload(offloading: Run) -> None:
    async def scenario() -> None:
        sender = await endpoint()
        # Nobody can be sent to at port 0: EINVAL, with segmentation and without.
        sender[0].send_run(bytes(3600), 1200, ("127.0.0.1", 0))
        assert [error.errno for error in sender[1].errors] == [errno.EINVAL] * 3
        assert sender[0].send_offload
        await closed(sender)

    offloading(scenario())


def test_a_datagram_too_large_for_udp_is_told_as_an_error(run: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint()
        sender[0].sendto(bytes(65_508), address_of(receiver[0]))
        sender[0].sendto(b"after", address_of(receiver[0]))
        assert await receiver[1].received(1) == [b"after"]
        assert [error.errno for error in sender[1].errors] == [errno.EMSGSIZE]
        await closed(sender, receiver)

    run(scenario())


def test_empty_datagrams_are_sent_but_not_delivered(run: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint()
        for datagram in (b"one", b"", b"two"):
            sender[0].sendto(datagram, address_of(receiver[0]))
        assert await receiver[1].received(2) == [b"one", b"two"]
        assert receiver[0].counters.datagrams_dropped == 1
        await closed(sender, receiver)

    run(scenario())


def test_datagrams_to_different_addresses_do_not_mix(run: Run) -> None:
    async def scenario() -> None:
        sender, *receivers = [await endpoint() for _ in range(3)]
        datagrams = numbered([100] * 40)
        for number, datagram in enumerate(datagrams):
            sender[0].sendto(datagram, address_of(receivers[number % 2][0]))
        for number, receiver in enumerate(receivers):
            assert await receiver[1].received(20) == datagrams[number::2]
        await closed(sender, *receivers)

    run(scenario())


def test_ipv6_works_as_ipv4_does(run: Run) -> None:
    async def scenario() -> None:
        try:
            ends = [await endpoint(host="::1") for _ in range(2)]
        except OSError:
            pytest.skip("no IPv6 here")
        sender, receiver = ends
        datagrams = numbered([1232] * 60)
        # aioice gives two of the four parts of an address.
        sender[0].send_run(b"".join(datagrams), 1232, address_of(receiver[0])[:2])
        assert await receiver[1].received(60) == datagrams
        assert sender[0].never_fragments == udp.LINUX
        await closed(*ends)

    run(scenario())


def test_the_loop_has_its_turn_while_datagrams_keep_coming(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Less than a socket holds.
    monkeypatch.setattr(udp, "RECEIVE_BYTES_PER_TURN", 1 << 17)

    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint(RunCollector)
        for _ in range(24):
            sender[0].send_run(bytes(60_000), 1200, address_of(receiver[0]))
        await receiver[1].received(24 * 50)
        assert len(receiver[1].turns) >= 24 * 60_000 // (udp.RECEIVE_BYTES_PER_TURN + udp.RECEIVE_SIZE)
        assert max(receiver[1].turns) < udp.RECEIVE_BYTES_PER_TURN + udp.RECEIVE_SIZE
        await closed(sender, receiver)

    run(scenario())


def test_a_protocol_that_fails_keeps_receiving(run: Run) -> None:
    class Failing(Collector):
        def datagram_received(self, data: bytes, addr: Address) -> None:
            super().datagram_received(data, addr)
            if data == b"poison":
                raise RuntimeError(data)

    async def scenario() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        sender, receiver = await endpoint(), await endpoint(Failing)
        for datagram in (b"poison", b"good"):
            sender[0].sendto(datagram, address_of(receiver[0]))
        assert await receiver[1].received(2) == [b"poison", b"good"]
        assert [str(error) for error in told] == ["b'poison'"]
        await closed(sender, receiver)

    run(scenario())


def test_another_protocol_can_take_over(run: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint()
        sender[0].sendto(b"first", address_of(receiver[0]))
        await receiver[1].received(1)
        second = RunCollector()
        receiver[0].set_protocol(second)
        assert receiver[0].get_protocol() is second
        sender[0].sendto(b"second", address_of(receiver[0]))
        assert await second.received(1) == [b"second"]
        assert receiver[1].datagrams == [b"first"]
        await closed(sender, (receiver[0], second))

    run(scenario())


class Full:
    """A transport whose socket is full: that of a Unix socket whose reader is not reading.

    UDP on loopback is never full, as the receiver's kernel drops instead.
    """

    def __init__(self, directory: Path) -> None:
        self.reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reader.bind(str(directory / "reader"))
        self.reader.setblocking(False)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(directory / "sender"))
        self.protocol = Collector()
        self.transport = UdpTransport(asyncio.get_running_loop(), sock, self.protocol)
        self.address: Any = str(directory / "reader")
        self.sent: list[bytes] = []
        while not self.transport.get_write_buffer_size():
            self.send(b"%d" % len(self.sent))

    def send(self, datagram: bytes) -> None:
        self.sent.append(datagram)
        self.transport.send_run(datagram, len(datagram), self.address)

    async def read(self, count: int) -> list[bytes]:
        loop = asyncio.get_running_loop()
        return [await loop.sock_recv(self.reader, 1 << 17) for _ in range(count)]

    async def close(self) -> None:
        await closed((self.transport, self.protocol))
        self.reader.close()


def test_what_a_full_socket_does_not_take_waits_in_order(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        full = Full(tmp_path)
        full.send(b"a run" * 3)
        run = numbered([50] * 20)
        full.transport.send_run(b"".join(run), 50, full.address)
        full.transport.sendto(b"a single one", full.address)
        assert full.transport.get_write_buffer_size() > 1000
        expected = [*full.sent, *run, b"a single one"]
        assert await full.read(len(expected)) == expected
        assert full.transport.get_write_buffer_size() == 0
        assert full.transport.counters.datagrams_dropped == 0
        await full.close()

    run(scenario())


def test_what_a_full_queue_does_not_take_is_dropped_and_counted(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        full = Full(tmp_path)
        for _ in range(udp.SEND_QUEUE_SIZE // 50_000 + 3):
            full.transport.sendto(bytes(50_000), full.address)
        assert full.transport.counters.datagrams_dropped == 3
        assert full.transport.get_write_buffer_size() <= udp.SEND_QUEUE_SIZE
        full.transport.sendto(b"small enough", full.address)
        expected = [*full.sent, *[bytes(50_000)] * (udp.SEND_QUEUE_SIZE // 50_000), b"small enough"]
        assert await full.read(len(expected)) == expected
        await full.close()

    run(scenario())


def test_closing_sends_what_waits_first(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        full = Full(tmp_path)
        full.send(b"last words")
        full.transport.close()
        full.send(b"too late")
        assert full.transport.is_closing()
        assert full.protocol.ends == []
        assert await full.read(len(full.sent) - 1) == full.sent[:-1]
        await full.protocol.until(lambda: bool(full.protocol.ends))
        assert full.protocol.ends == [None]
        await full.close()

    run(scenario())


def test_a_transport_that_has_fallen_silent_sends_not_even_what_waits(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        full = Full(tmp_path)
        full.send(b"waits")
        full.transport.fall_silent()
        full.send(b"too late")
        assert full.transport.get_write_buffer_size() == 0
        full.transport.close()
        await full.protocol.until(lambda: bool(full.protocol.ends))
        # The last that the socket did not take, and these two, are gone.
        assert await full.read(len(full.sent) - 3) == full.sent[:-3]
        with pytest.raises(BlockingIOError):
            full.reader.recv(100)
        await full.close()

    run(scenario())


def test_aborting_sends_nothing_more(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        full = Full(tmp_path)
        full.transport.abort()
        await full.protocol.until(lambda: bool(full.protocol.ends))
        assert await full.read(len(full.sent) - 1) == full.sent[:-1]
        with pytest.raises(BlockingIOError):
            full.reader.recv(100)
        await full.close()
        assert full.protocol.ends == [None]

    run(scenario())


def test_a_datagram_sent_before_closing_arrives(run: Run) -> None:
    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint()
        sender[0].sendto(b"good-bye", address_of(receiver[0]))
        sender[0].close()
        sender[0].close()
        sender[0].sendto(b"too late", address_of(receiver[0]))
        await sender[1].until(lambda: bool(sender[1].ends))
        assert sender[1].ends == [None]
        assert await receiver[1].received(1) == [b"good-bye"]
        await closed(receiver)

    run(scenario())


def test_a_transport_closed_while_it_delivers_stops_at_the_next_read(run: Run) -> None:
    class Closing(RunCollector):
        def run_received(self, run: memoryview, segment_size: int, address: Address) -> None:
            super().run_received(run, segment_size, address)
            assert self.transport
            self.transport.close()

    async def scenario() -> None:
        sender, receiver = await endpoint(), await endpoint(Closing, offload=False)
        for size in (3, 5, 7):
            sender[0].sendto(bytes(size), address_of(receiver[0]))
        await receiver[1].until(lambda: bool(receiver[1].ends))
        assert receiver[1].datagrams == [bytes(3)]
        await closed(sender)

    run(scenario())


def test_an_unconnected_socket_needs_an_address(run: Run) -> None:
    async def scenario() -> None:
        sender = await endpoint()
        with pytest.raises(ValueError, match="not connected"):
            sender[0].sendto(b"to whom?")
        await closed(sender)

    run(scenario())


def test_the_socket_has_large_buffers_and_never_fragments_unless_it_is_told_to(run: Run) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ordinary:
            default = ordinary.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(LOOPBACK)
        protocol = Collector()
        transport = UdpTransport(asyncio.get_running_loop(), sock, protocol)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > default
        assert transport.never_fragments == udp.LINUX
        if transport.never_fragments:
            assert sock.getsockopt(socket.IPPROTO_IP, udp.IP_MTU_DISCOVER) == udp.PMTUDISC_PROBE
            for allowed, option in ((True, udp.PMTUDISC_DONT), (False, udp.PMTUDISC_PROBE)):
                transport.allow_fragments(allowed)
                assert sock.getsockopt(socket.IPPROTO_IP, udp.IP_MTU_DISCOVER) == option
        await closed((transport, protocol))

    run(scenario())
