"""Two DTLS transports of aiortc in one process, with ours on top."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiortc import (
    RTCCertificate,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceTransport,
    RTCIceTransportPolicy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.net.loop import new_event_loop
from flyx.net.udp import UdpTransport
from flyx.rtc.dtls import MAX_PACKET_SIZE, DtlsBatcher
from flyx.rtc.seam import dtls as seam
from flyx.rtc.seam import turn
from flyx.rtc.seam.relayed import RelayTransport, use_allocation
from tests.rtc.relay import Relay
from tests.thoroughness import share

OVERHEAD = 37
"""Of a DTLS 1.2 record with AES-128-GCM: header 13, explicit nonce 8, tag 16 (RFC 5288, RFC 6347)."""


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    # The first check through a relay is lost: there is no channel yet.
    monkeypatch.setattr("aioice.stun.RETRY_RTO", 0.02)


@pytest.fixture(params=[True, False], ids=["batched", "singly"])
def batched(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


@dataclass
class End:
    """One side: what it has received, and when that changes."""

    dtls: RTCDtlsTransport
    batcher: DtlsBatcher
    received: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        self.dtls.on("statechange", self.changed.set)
        self.batcher.start(self.on_packets)

    def on_packets(self, packets: list[bytes], now: float) -> None:
        self.received += packets
        self.times.append(now)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)

    @property
    def protocol(self) -> Any:
        return seam.path_in_use(self.dtls).protocol


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def ice_of(dtls: RTCDtlsTransport) -> Any:
    return dtls.transport.iceGatherer._connection


async def unconnected(relay: Relay | None = None) -> tuple[RTCDtlsTransport, RTCDtlsTransport]:
    """Two transports whose ICE is connected, before their handshake; the first is the DTLS server.

    Args:
        relay: a TURN server, which the first one then sends through.
    """
    policy = RTCIceTransportPolicy.RELAY if relay else RTCIceTransportPolicy.ALL
    gatherers = [RTCIceGatherer([], policy), RTCIceGatherer([])]
    ices = [RTCIceTransport(gatherer) for gatherer in gatherers]
    ice_of_first: Any = gatherers[0]._connection
    ice_of_first.ice_controlling = True
    for gatherer in gatherers:
        await gatherer.gather()
    if relay:
        client = turn.open_udp("anyone", "secret", ("127.0.0.1", await relay.listen()), udp_socket())
        await client.allocate(None)
        use_allocation(ice_of_first, client, False, 65535)
    for ice, other in zip(ices, reversed(gatherers), strict=True):
        for candidate in [*other.getLocalCandidates(), None]:
            await ice.addRemoteCandidate(candidate)
    await asyncio.gather(
        *[ice.start(other.getLocalParameters()) for ice, other in zip(ices, reversed(gatherers), strict=True)]
    )
    first, second = (RTCDtlsTransport(ice, [RTCCertificate.generateCertificate()]) for ice in ices)
    return first, second


async def shake_hands(first: RTCDtlsTransport, second: RTCDtlsTransport) -> None:
    await asyncio.gather(first.start(second.getLocalParameters()), second.start(first.getLocalParameters()))
    assert first.state == second.state == "connected"


async def stop(*transports: RTCDtlsTransport) -> None:
    for dtls in transports:
        await dtls.stop()
        await dtls.transport.stop()


@contextlib.asynccontextmanager
async def pair(batched: bool = True, relay: Relay | None = None) -> AsyncIterator[tuple[End, End]]:
    transports = await unconnected(relay)
    await shake_hands(*transports)
    ends = [End(dtls, DtlsBatcher(dtls, batched=batched)) for dtls in transports]
    for end in ends:
        end.start()
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.batcher.close()
        await stop(*transports)


@pytest.fixture(params=["ours", "stock"])
def runner(request: pytest.FixtureRequest) -> Any:
    """Runs on a loop with our UDP endpoints, and on one with its own."""
    factory = new_event_loop if request.param == "ours" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


def at_least(end: End, count: int) -> Callable[[], bool]:
    return lambda: len(end.received) >= count


def packets_of(sizes: list[int], seed: int = 0) -> list[bytes]:
    return [random.Random(seed + number).randbytes(size) for number, size in enumerate(sizes)]


def test_thousands_of_packets_each_way_arrive_as_they_were_sent(
    runner: asyncio.Runner, batched: bool
) -> None:
    draw = random.Random(1)
    rows = ([1160] * 54, [1160] * 200, [12] * 70, [1160] * 30 + [700], [40, 1400, 1400, 16_384, 16_384])
    sizes: list[int] = []
    while len(sizes) < share(10_000):
        sizes += draw.choice(rows)
    packets = packets_of(sizes)

    async def exchange() -> None:
        async with pair(batched) as ends:
            # No more at once than a receive buffer without privileges holds.
            for at in range(0, len(packets), 100):
                for end in ends:
                    end.batcher.send(packets[at : at + 100])
                for end in ends:
                    await end.until(at_least(end, len(packets[: at + 100])))
            for end in ends:
                assert end.received == packets
                assert end.times == sorted(end.times)

    runner.run(exchange())


def test_a_batch_of_equal_packets_is_one_call_each_way() -> None:
    async def scenario() -> None:
        async with pair() as (sender, receiver):
            outgoing = seam.path_in_use(sender.dtls).transport
            incoming = seam.path_in_use(receiver.dtls).transport
            assert isinstance(outgoing, UdpTransport)
            assert isinstance(incoming, UdpTransport)
            if not (outgoing.send_offload and incoming.receive_offload):
                pytest.skip("this kernel has no UDP offload")
            calls = outgoing.counters.send_calls, incoming.counters.receive_calls
            sender.batcher.send(packets_of([1163] * 53 + [600]))
            await receiver.until(lambda: len(receiver.received) == 54)
            assert (outgoing.counters.send_calls, incoming.counters.receive_calls) == (
                calls[0] + 1,
                calls[1] + 1,
            )
            assert len(receiver.times) == 1

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(scenario())


async def test_packets_may_be_any_buffer(batched: bool) -> None:
    async with pair(batched) as (sender, receiver):
        packet = bytearray(b"a packet")
        sender.batcher.send([packet, memoryview(packet)[2:], bytes(packet)])
        packet[:] = bytes(8)
        await receiver.until(lambda: len(receiver.received) == 3)
        assert receiver.received == [b"a packet", b"packet", b"a packet"]


async def test_the_largest_packet_arrives_and_a_larger_one_is_refused(batched: bool) -> None:
    async with pair(batched) as (sender, receiver):
        small, largest = packets_of([100, MAX_PACKET_SIZE])
        for wrong in (bytes(MAX_PACKET_SIZE + 1), b""):
            with pytest.raises(ValueError, match=f"{len(wrong)} bytes"):
                sender.batcher.send([small, wrong])
        sender.batcher.send([largest])
        await receiver.until(lambda: len(receiver.received) == 3)
        assert receiver.received == [small, small, largest]


async def test_the_overhead_of_a_record_is_what_its_datagram_has_more() -> None:
    async with pair() as (sender, _):
        assert sender.batcher.record_overhead == OVERHEAD
        captured = capture(sender)
        sender.batcher.send([bytes(1163)])
        assert [len(datagram) for datagram in captured] == [1200]


async def test_aiortc_negotiates_the_cipher_that_is_cheapest() -> None:
    async with pair() as (sender, _):
        connection = seam.record_layer(sender.dtls).connection
        assert connection.get_protocol_version_name() == "DTLSv1.2"
        assert connection.get_cipher_name() == "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.parametrize("cipher", [b"ECDHE-ECDSA-CHACHA20-POLY1305", b"ECDHE-ECDSA-AES128-SHA"])
async def test_packets_pass_with_each_cipher_that_aiortc_offers(
    monkeypatch: pytest.MonkeyPatch, cipher: bytes
) -> None:
    create = RTCCertificate._create_ssl_context

    def create_with_cipher(*args: Any, **options: Any) -> Any:
        context = create(*args, **options)
        context.set_cipher_list(cipher)
        return context

    monkeypatch.setattr(RTCCertificate, "_create_ssl_context", create_with_cipher)
    packets = packets_of([1000, 1000, 999, 992, 993, 1000, 1000, 1000, 10, MAX_PACKET_SIZE, MAX_PACKET_SIZE])
    async with pair() as (sender, receiver):
        assert seam.record_layer(sender.dtls).connection.get_cipher_name() == cipher.decode()
        sender.batcher.send(packets)
        await receiver.until(lambda: len(receiver.received) == len(packets))
        assert receiver.received == packets
        captured = capture(sender)
        for size in range(1000, 1040):
            sender.batcher.send([bytes(size)])
            assert len(captured.pop()) <= size + sender.batcher.record_overhead


async def test_datagrams_that_ice_queued_before_start_are_delivered_or_left_to_aiortc() -> None:
    transports = await unconnected()
    await shake_hands(*transports)
    sender, receiver = (End(dtls, DtlsBatcher(dtls)) for dtls in transports)
    sender.start()
    captured = capture(sender)
    sender.batcher.send([b"early"])
    # No turn of the loop, and so none of aiortc's task, until start() has returned.
    for datagram in (b"\x80 not DTLS", *captured):
        seam.queue_datagram(receiver.dtls, datagram)
    receiver.start()
    assert receiver.received == [b"early"]
    assert seam.take_queued_datagrams(receiver.dtls) == [b"\x80 not DTLS"]
    await stop(*transports)


async def test_the_peers_close_notify_closes_the_transport_after_the_last_packet(batched: bool) -> None:
    async with pair(batched) as (sender, receiver):
        sender.batcher.send([b"last words"])
        await sender.dtls.stop()
        await receiver.until(lambda: receiver.dtls.state == "closed")
        assert receiver.received == [b"last words"]
        with pytest.raises(ConnectionError):
            receiver.batcher.send([b"too late"])
        await sender.until(lambda: sender.dtls.state == "closed")
        with pytest.raises(ConnectionError):
            sender.batcher.send([b"too late"])


async def test_losing_the_path_closes_the_transport() -> None:
    async with pair() as (_, receiver):
        path = seam.path_in_use(receiver.dtls)
        path.transport.abort()
        await receiver.until(lambda: receiver.dtls.state == "closed")
        with pytest.raises(ConnectionError):
            receiver.batcher.send([b"too late"])


async def test_a_transport_without_handshake_cannot_be_taken() -> None:
    first, second = await unconnected()
    with pytest.raises(ConnectionError):
        DtlsBatcher(first)
    await stop(first, second)


async def test_consent_is_still_asked_and_given() -> None:
    async with pair() as ends:
        for end in ends:
            ice, path = ice_of(end.dtls), seam.path_in_use(end.dtls)
            (nominated,) = ice._nominated.values()
            protocol: Any = path.protocol
            response, address = await protocol.request(
                ice.build_request(nominated, nominate=False),
                path.address,
                integrity_key=ice.remote_password.encode(),
                retransmissions=0,
            )
            assert address == path.address
            assert (
                response.attributes["XOR-MAPPED-ADDRESS"][1] == path.transport.get_extra_info("sockname")[1]
            )


async def test_after_close_datagrams_are_aiortcs_again() -> None:
    class Receiver:
        def __init__(self) -> None:
            self.packet = asyncio.get_running_loop().create_future()

        async def _handle_data(self, data: bytes) -> None:
            self.packet.set_result(data)

    async with pair() as (sender, receiver):
        receiver.batcher.close()
        stock = Receiver()
        receiver.dtls._register_data_receiver(stock)
        sender.batcher.send([b"for aiortc"])
        assert await asyncio.wait_for(stock.packet, 10) == b"for aiortc"
        assert receiver.received == []


async def test_garbage_from_anyone_is_ignored(batched: bool) -> None:
    header = b"\x17\xfe\xfd\x00\x01" + bytes(6)
    garbage = [
        # STUN, with a PRIORITY of one byte.
        b"\x00\x01\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x00\x24\x00\x01\x01\0\0\0",
        *(bytes([first]) for first in (0, 19, 20, 23, 63, 64, 127, 255)),
        *(bytes([first]) + os.urandom(400) for first in range(0, 256, 3)),
        header,
        header + b"\x00\x10",
        header + b"\x00\x10" + bytes(16),
        header + b"\xff\xff" + bytes(1000),
        header + (1000).to_bytes(2, "big") + bytes(1000),
        b"\x15" + header[1:] + b"\x00\x02\x02\x28",
        b"\x15\xfe\xfd\x00\x00" + bytes(6) + b"\x00\x02\x02\x28",
        b"\x16\xfe\xfd\x00\x00" + bytes(6) + b"\x00\x04\x01\x00\x00\x00",
    ]
    troubles: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    async with pair(batched) as (sender, receiver):
        target = seam.path_in_use(receiver.dtls).transport.get_extra_info("sockname")
        packets = packets_of([1160] * 300)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for number in range(0, 300, 3):
                stranger.sendto(garbage[number // 3 % len(garbage)], target)
                sender.batcher.send(packets[number : number + 3])
                await receiver.until(at_least(receiver, number + 3))
        assert receiver.received == packets
        assert receiver.dtls.state == "connected"
    assert troubles == []


class OtherTransport(asyncio.DatagramTransport):
    """Stands before a transport, as that of a relay: not one of ours, one datagram a call. Can lose some."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.loses: Callable[[bytes], bool] = lambda _: False
        self.lost: list[bytes] = []
        self.sent: list[bytes] = []

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self.loses(data):
            self.lost.append(data)
        else:
            self.sent.append(data)
            self.inner.sendto(data, addr)

    def __getattribute__(self, name: str) -> Any:
        if name in ("close", "get_extra_info", "is_closing", "set_protocol", "abort"):
            return getattr(self.inner, name)
        return super().__getattribute__(name)


def capture(end: End) -> list[bytes]:
    """Have what an end sends collected instead."""
    transport = OtherTransport(end.protocol.transport)
    transport.loses = lambda _: True
    end.protocol.transport = transport
    # The path is looked up anew.
    ((component, nominated),) = ice_of(end.dtls)._nominated.items()
    ice_of(end.dtls)._nominated[component] = type(nominated)(nominated.protocol, nominated.remote_candidate)
    return transport.lost


async def test_a_transport_that_is_not_ours_gets_a_datagram_a_record(batched: bool) -> None:
    packets = packets_of([1160] * 10 + [500, 1160, MAX_PACKET_SIZE])
    async with pair(batched) as (sender, receiver):
        captured = capture(sender)
        sender.batcher.send(packets)
        assert [len(datagram) for datagram in captured] == [len(packet) + OVERHEAD for packet in packets]
        assert sender.batcher.backlog == 0
        assert sender.batcher.max_probe_size is None
        for datagram in captured:
            receiver.batcher.run_received(memoryview(datagram), len(datagram), (), receiver.protocol)
        receiver.batcher.receive_finished()
        assert receiver.received == packets


async def test_a_peer_that_missed_our_last_flight_gets_it_again() -> None:
    server, client = await unconnected()
    transport = OtherTransport(seam.path_in_use(server).transport)
    # ChangeCipherSpec and Finished, which are the server's last: RFC 6347 §4.2.4.
    transport.loses = lambda datagram: datagram[0] == 20 and not transport.lost
    seam.path_in_use(server).protocol.transport = transport  # type: ignore[attr-defined]
    starting = asyncio.ensure_future(client.start(server.getLocalParameters()))
    await server.start(client.getLocalParameters())
    assert server.state == "connected"
    end = End(server, DtlsBatcher(server))
    end.start()
    # The client's timer is OpenSSL's: one second.
    await asyncio.wait_for(starting, 10)
    assert client.state == "connected"
    assert len(transport.lost) == 1
    await stop(client, server)


def test_each_genuine_packet_comes_once_whatever_datagrams_are_among_them(batched: bool) -> None:
    """However datagrams come in runs. The same is asked of the fast way in and of its slow twin."""
    with asyncio.Runner() as runner:
        context = pair(batched)
        sender, receiver = runner.run(context.__aenter__())
        captured = capture(sender)

        @given(data=st.data())
        @settings(max_examples=share(150))
        def try_mixtures(data: st.DataObject) -> None:
            send_mixture(sender, captured, receiver, data)

        try_mixtures()
        runner.run(context.__aexit__(None, None, None))


def send_mixture(sender: End, captured: list[bytes], receiver: End, data: st.DataObject) -> None:
    captured.clear()
    receiver.received.clear()
    rows = data.draw(
        st.lists(st.tuples(st.sampled_from([1, 100, 1160, 9000]), st.integers(1, 12)), max_size=5)
    )
    packets = packets_of([size for size, count in rows for _ in range(count)], data.draw(st.integers(0, 9)))
    sender.batcher.send(packets)
    datagrams, expected = [], []
    for packet, record in zip(packets, list(captured), strict=True):
        fate = data.draw(st.sampled_from("ooooooooorlfgbh"))
        if fate != "l":
            expected.append(packet)
        if fate == "o":
            datagrams.append(record)
        elif fate == "r":
            datagrams += [record, record]
        elif fate == "f":
            # Forged, then genuine.
            datagrams += [record[:-1] + bytes([record[-1] ^ 1]), record]
        elif fate == "g":
            datagrams += [bytes([data.draw(st.integers(20, 63))]) + bytes(len(record) - 1), record]
        elif fate == "b":
            # A version and an epoch that do not exist.
            at = data.draw(st.integers(1, 4))
            datagrams += [record[:at] + bytes([record[at] ^ 2]) + record[at + 1 :], record]
        elif fate == "h":
            # A length that is not that of the datagram.
            datagrams += [
                record[:11] + data.draw(st.binary(min_size=2, max_size=2)) + record[13:],
                record,
            ]
    for run, segment_size in runs_of(datagrams):
        receiver.batcher.run_received(memoryview(run), segment_size, (), receiver.protocol)
    receiver.batcher.receive_finished()
    assert receiver.received == expected


def runs_of(datagrams: list[bytes]) -> list[tuple[bytes, int]]:
    """Merge datagrams as GRO does: those of one size and a shorter one after them."""
    runs: list[tuple[bytes, int]] = []
    for datagram in datagrams:
        run, size = runs[-1] if runs else (b"", 0)
        if run and len(run) % size == 0 and len(datagram) <= size and len(run) + len(datagram) < 65_536:
            runs[-1] = run + datagram, size
        else:
            runs.append((datagram, len(datagram)))
    return runs


async def test_several_records_in_one_datagram_are_all_delivered(batched: bool) -> None:
    async with pair(batched) as (sender, receiver):
        captured = capture(sender)
        packets = packets_of([100, 100, 50])
        sender.batcher.send(packets)
        receiver.batcher.run_received(memoryview(b"".join(captured)), 1 << 16, (), receiver.protocol)
        receiver.batcher.receive_finished()
        assert receiver.received == packets


async def test_stun_within_a_run_is_answered_and_not_decrypted() -> None:
    async with pair() as (sender, receiver):
        captured = capture(sender)
        seen: list[bytes] = []

        class Ice(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                seen.append(data)

        packets = packets_of([100, 100])
        sender.batcher.send(packets)
        stun = b"\x00\x01" + bytes(135)
        run = captured[0] + stun + captured[1]
        receiver.batcher.run_received(memoryview(run), 137, ("peer", 1), Ice())
        receiver.batcher.receive_finished()
        assert receiver.received == packets
        assert seen == [stun]


def test_packets_pass_through_a_relay_both_ways(runner: asyncio.Runner, batched: bool) -> None:
    packets = packets_of([1160] * 40 + [30] * 10)

    async def scenario() -> None:
        relay = Relay()
        async with pair(batched, relay) as ends:
            assert isinstance(seam.path_in_use(ends[0].dtls).transport, RelayTransport)
            before = relay.relayed
            for end in ends:
                end.batcher.send(packets)
            for end in ends:
                await end.until(at_least(end, len(packets)))
                assert end.received == packets
            assert relay.relayed - before >= 2 * len(packets)
            await ends[0].dtls.stop()
            await ends[1].until(lambda: ends[1].dtls.state == "closed")
        relay.close()
        await asyncio.sleep(0)

    runner.run(scenario())
