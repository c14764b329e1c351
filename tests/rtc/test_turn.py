"""The client of a TURN server, against one in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aioice.stun import Method

from flyx.rtc.seam import turn
from flyx.rtc.seam.relayed import RelayTransport
from flyx.rtc.seam.turn import Refused, TurnClient
from tests.rtc.relay import Relay, StreamRelay


class Inner(asyncio.DatagramProtocol):
    """What is above a relayed transport."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Peer(Inner):
    """A host that the relay reaches."""

    async def start(self) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        address: tuple[str, int] = self.transport.get_extra_info("sockname")
        return address


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


async def client_of(relay: Relay, port: int) -> TurnClient:
    if not isinstance(relay, StreamRelay):
        return turn.open_udp("anyone", "secret", ("127.0.0.1", port), udp_socket())
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    return await turn.open_stream("anyone", "secret", sock, None)


@asynccontextmanager
async def allocated(
    relay: Relay, family: int | None = None
) -> AsyncIterator[tuple[RelayTransport, Inner, Peer, tuple[str, int]]]:
    """A transport through a relay, what is above it, and a peer with its address."""
    client = await client_of(relay, await relay.listen())
    inner, peer = Inner(), Peer()
    address = await peer.start()
    try:
        await client.allocate(family)
        yield RelayTransport(client, inner), inner, peer, address
    finally:
        client.close()
        peer.transport.close()
        await asyncio.gather(*turn._farewells)
        relay.close()


RELAYS = [Relay, StreamRelay]


@pytest.mark.parametrize("kind", RELAYS)
async def test_datagrams_go_both_ways_in_order(kind: type[Relay]) -> None:
    relay = kind()
    async with allocated(relay) as (transport, inner, peer, address):
        sent = [bytes([number]) * size for number, size in enumerate([1, 2, 3, 4, 5, 1200, 7, 16_000])]
        for data in sent:
            transport.sendto(data, address)
        assert [(await peer.received.get())[0] for _ in sent] == sent
        relayed = transport.get_extra_info("sockname")
        for data in sent:
            peer.transport.sendto(data, relayed)
        assert [await inner.received.get() for _ in sent] == [(data, address) for data in sent]
        assert relay.count[Method.CHANNEL_BIND] == 1
        assert transport.get_extra_info("related_address")[0] == "127.0.0.1"


@pytest.mark.parametrize("kind", RELAYS)
async def test_the_allocation_is_given_back_at_the_end_and_nobody_waits(kind: type[Relay]) -> None:
    relay = kind()
    async with allocated(relay) as (transport, inner, _, address):
        transport.close()
        assert await inner.lost is None
        assert transport.is_closing()
        transport.sendto(b"too late", address)
    refreshes = [request for request in relay.requests if request.message_method == Method.REFRESH]
    assert [request.attributes["LIFETIME"] for request in refreshes] == [0]


async def test_a_channel_is_bound_again_with_one_request_and_data_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "REBIND_TIME", 0.0)
    relay = Relay()
    async with allocated(relay) as (transport, _, peer, address):
        transport.sendto(b"first", address)
        assert (await peer.received.get())[0] == b"first"
        # From now on it says nothing to that request.
        relay.refusals[Method.CHANNEL_BIND] = None
        for number in range(50):
            transport.sendto(b"%d" % number, address)
        assert [(await peer.received.get())[0] for _ in range(50)] == [b"%d" % n for n in range(50)]
        asked = {r.transaction_id for r in relay.requests if r.message_method == Method.CHANNEL_BIND}
        assert len(asked) == 2


async def test_a_channel_whose_renewal_is_refused_serves_until_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "REBIND_TIME", 0.0)
    relay = Relay()
    async with allocated(relay) as (transport, _, peer, address):
        transport.sendto(b"first", address)
        await peer.received.get()
        relay.refusals[Method.CHANNEL_BIND] = 508, "Insufficient Capacity"
        transport.sendto(b"second", address)
        await relay.until(lambda: relay.count[Method.CHANNEL_BIND] == 2)
        transport.sendto(b"third", address)
        assert [(await peer.received.get())[0] for _ in range(2)] == [b"second", b"third"]


async def test_a_peer_that_the_server_forbids_costs_one_request() -> None:
    relay = Relay()
    async with allocated(relay) as (transport, _, _, address):
        relay.refusals[Method.CHANNEL_BIND] = 403, "Forbidden"
        for _ in range(3):
            transport.sendto(b"hello", address)
            await relay.until(lambda: relay.count[Method.CHANNEL_BIND] >= 1)
            await asyncio.sleep(0)
        assert relay.count[Method.CHANNEL_BIND] == 1


async def test_what_waits_for_a_channel_is_bounded() -> None:
    relay = Relay()
    async with allocated(relay) as (transport, _, peer, address):
        for _ in range(100):
            transport.sendto(bytes(1000), address)
        transport.sendto(b"last", address)
        await relay.until(lambda: relay.count[Method.CHANNEL_BIND] == 1)
        for _ in range(turn.MAX_WAITING // 1000):
            assert (await peer.received.get())[0] == bytes(1000)
        assert relay.relayed == turn.MAX_WAITING // 1000 + 1


async def test_an_allocation_is_refreshed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay()
    relay.lifetime = 1
    monkeypatch.setattr(turn, "REFRESH_PART", 0.02)
    async with allocated(relay) as (transport, *_):
        await relay.until(lambda: relay.count[Method.REFRESH] == 3)
        assert not transport.is_closing()


async def test_a_server_that_lets_allocations_live_for_no_time_is_not_asked_all_the_time() -> None:
    relay = Relay()
    relay.lifetime = 0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with allocated(relay) as (transport, *_):
        await relay.until(lambda: relay.count[Method.REFRESH] == 2)
        assert loop.time() - begun > turn.REFRESH_PART
        assert not transport.is_closing()


async def test_an_unanswered_refresh_is_asked_again_until_the_allocation_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("REFRESH_PART", 0.1), ("REFRESH_TIMEOUT", 0.1), ("REFRESH_PAUSE", 0.01)):
        monkeypatch.setattr(turn, name, value)
    relay = Relay()
    relay.lifetime = 1
    relay.refusals[Method.REFRESH] = None
    async with allocated(relay) as (transport, inner, *_):
        assert isinstance(await inner.lost, ConnectionError)
        assert relay.count[Method.REFRESH] >= 3
        assert transport.is_closing()


async def test_a_server_that_knows_us_no_more_is_noticed_by_its_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "SILENT_TICKS", 1)
    relay = Relay()
    async with allocated(relay) as (transport, inner, peer, address):
        transport.sendto(b"first", address)
        await peer.received.get()
        relay.refusals[Method.REFRESH] = 437, "Allocation Mismatch"
        async with asyncio.timeout(5.0):
            while not inner.lost.done():
                transport.sendto(b"more", address)
                await asyncio.sleep(0.05)
        assert isinstance(inner.lost.result(), ConnectionError)


async def test_a_server_that_is_gone_is_noticed_where_the_network_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "SILENT_TICKS", 1)
    relay = Relay()
    async with allocated(relay) as (transport, inner, peer, address):
        transport.sendto(b"first", address)
        await peer.received.get()
        relay.close()
        async with asyncio.timeout(5.0):
            while not inner.lost.done():
                transport.sendto(b"more", address)
                await asyncio.sleep(0.05)
        assert "nothing listens" in str(inner.lost.result())


async def test_a_server_that_closes_the_stream_is_noticed_at_once() -> None:
    relay = StreamRelay()
    async with allocated(relay) as (transport, inner, *_):
        relay.client.close()
        assert isinstance(await inner.lost, ConnectionError)
        assert transport.is_closing()


async def test_the_code_of_a_refusal_is_kept() -> None:
    relay = Relay()
    relay.refusals[Method.ALLOCATE] = 486, "Allocation Quota Reached"
    with pytest.raises(Refused) as caught:
        async with allocated(relay):
            pass
    assert (caught.value.code, caught.value.reason) == (486, "Allocation Quota Reached")


async def test_the_family_that_is_wanted_is_asked_for() -> None:
    relay = Relay()
    async with allocated(relay, turn.IPV6):
        assert relay.requests[0].attributes["REQUESTED-ADDRESS-FAMILY"] == turn.IPV6


async def test_nothing_listens_there() -> None:
    with udp_socket() as taken:
        port = taken.getsockname()[1]
    client = turn.open_udp("anyone", "secret", ("127.0.0.1", port), udp_socket())
    try:
        async with asyncio.timeout(5.0):
            with pytest.raises(ConnectionError):
                await client.allocate(None)
    finally:
        client.close()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x40",
        b"\x40\x00",
        b"\x40\x00\x00\x09short",
        b"\x40\x01\x00\x01x",
        b"\x7f\xff\x00\x00",
        # A header without its last byte.
        b"\x00\x17\x00\x00\x21\x12\xa4\x42" + bytes(11),
        # A LIFETIME of one byte, which aioice cannot read.
        b"\x01\x04\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x00\x0d\x00\x01\x01\0\0\0",
        b"\xff" * 100,
    ],
)
async def test_nothing_that_a_server_may_say_does_harm(message: bytes) -> None:
    relay = Relay()
    async with allocated(relay) as (transport, inner, peer, address):
        transport.sendto(b"first", address)
        await peer.received.get()
        relay.to_client(message)
        peer.transport.sendto(b"good", transport.get_extra_info("sockname"))
        assert await inner.received.get() == (b"good", address)


async def test_a_stranger_s_datagrams_are_not_taken_for_the_server_s() -> None:
    relay = Relay()
    async with allocated(relay) as (transport, inner, peer, address):
        transport.sendto(b"first", address)
        await peer.received.get()
        with udp_socket() as stranger:
            stranger.sendto(relay.channel + b"\x00\x05false", relay.client)
            peer.transport.sendto(b"true", transport.get_extra_info("sockname"))
            assert await inner.received.get() == (b"true", address)


async def test_a_stream_that_is_full_drops_and_says_how_much_waits() -> None:
    relay = StreamRelay()
    async with allocated(relay) as (transport, _, peer, address):
        transport.sendto(b"first", address)
        await peer.received.get()
        for _ in range(2000):
            transport.sendto(bytes(1200), address)
        waiting = transport.get_write_buffer_size()
        assert 0 < waiting <= turn.STREAM_BACKLOG
        await relay.until(lambda: relay.relayed >= waiting // 1204)
