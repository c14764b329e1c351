"""Tunnels of a real server, with real WebSockets: those of two clients that may, and of strangers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flyx.cli.turn_options import relay_of
from flyx.errors import InputError, RemoteProtocolError
from flyx.server.app import Server
from flyx.server.config import ServerConfig, TunnelConfig
from flyx.signaling.tunnel import OPENED, TunnelClaim, parse_claim_untrusted, serialize_claim
from tests.server.peers import PATIENCE, Peer, http_of, joined, local, pair, peer
from tests.server.raw_websocket import BINARY, HANDSHAKE, TEXT, Raw, connection, frame

FAST = TunnelConfig(rate=10e6)
MAX_DATAGRAM_SIZE = FAST.max_datagram_size


def relaying(relay: TunnelConfig = FAST, **changes: Any) -> ServerConfig:
    return local(relay=relay, **changes)


def claim(ours: Peer, theirs: Peer, **changes: str) -> str:
    said = {"client_id": ours.id, "peer_id": theirs.id, "token": ours.joined["tunnel"]["token"], **changes}
    return serialize_claim(TunnelClaim(**said))


@asynccontextmanager
async def half(server: Server, ours: Peer, theirs: Peer, **changes: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket of a tunnel that has said who it is."""
    async with connect(f"{server.url}/relay/{ours.room_id}", max_queue=None) as socket:
        # It may have been refused already.
        with suppress(ConnectionClosed):
            await socket.send(claim(ours, theirs, **changes))
        yield socket


@asynccontextmanager
async def raw_half(server: Server, ours: Peer, theirs: Peer) -> AsyncIterator[Raw]:
    """The same as bytes on a TCP connection."""
    async with connection(server) as client:
        host = f"127.0.0.1:{server.port}"
        path = f"/relay/{ours.room_id}"
        await client.send(HANDSHAKE.format(path=path, host=host, headers="").encode())
        async with asyncio.timeout(PATIENCE):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await client.send(frame(TEXT, claim(ours, theirs).encode()))
        yield client


@asynccontextmanager
async def tunnel(
    server: Server, sender: Peer, receiver: Peer
) -> AsyncIterator[tuple[ClientConnection, ClientConnection]]:
    async with half(server, sender, receiver) as one, half(server, receiver, sender) as other:
        assert [await hear(one), await hear(other)] == [OPENED, OPENED]
        yield one, other


async def hear(socket: ClientConnection) -> str | bytes:
    async with asyncio.timeout(PATIENCE):
        return await socket.recv()


async def refusal(socket: ClientConnection) -> tuple[str, int]:
    """The code of the error that comes, and of the close."""
    error = json.loads(await hear(socket))
    assert error["type"] == "error"
    with pytest.raises(ConnectionClosed):
        await hear(socket)
    assert socket.close_code is not None
    return str(error["data"]["code"]), socket.close_code


async def test_datagrams_go_both_ways_as_they_are() -> None:
    datagrams = [bytes([number]) * size for number, size in enumerate((1, 125, 126, 1200, MAX_DATAGRAM_SIZE))]
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            for here, there in ((one, other), (other, one)):
                for datagram in datagrams:
                    await here.send(datagram)
                assert [await hear(there) for _ in datagrams] == datagrams
        async with http_of(server) as http:
            metrics = (await http.get("/metrics")).text
        assert f"flyx_tunnel_bytes_total {2.0 * sum(map(len, datagrams))}" in metrics
        assert "flyx_tunnels_opened_total 1.0" in metrics


async def test_rooms_in_a_file_have_tunnels_as_well(tmp_path: Path) -> None:
    async with Server(relaying(state=tmp_path / "rooms")) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            await one.send(b"datagram")
            assert await hear(other) == b"datagram"


async def test_a_client_that_came_back_has_its_tunnel() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with peer(server, f"/ws/{receiver.room_id}?resume=1") as again:
            data = {"client_id": receiver.id, "resume_token": receiver.joined["resume_token"]}
            await again.say({"type": "join", "data": data})
            again.joined = await again.expect("joined")
            async with tunnel(server, sender, again):
                pass


async def test_a_server_without_relay_has_no_tunnels() -> None:
    async with Server(local()) as server, joined(server) as client:
        assert "tunnel" not in client.joined
        with pytest.raises(InvalidStatus):
            async with connect(f"{server.url}/relay/{client.room_id}"):
                pass


async def test_one_side_that_goes_takes_the_other_along() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            await one.close()
            assert await refusal(other) == ("no_such_peer", 4404)
        # The two can come back.
        async with tunnel(server, sender, receiver):
            pass


async def test_a_newer_tunnel_takes_the_place_of_an_older_one() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            async with tunnel(server, sender, receiver) as (newer, another):
                assert await refusal(one) == ("replaced", 4409)
                assert await refusal(other) == ("no_such_peer", 4404)
                await newer.send(b"still there")
                assert await hear(another) == b"still there"


async def test_only_who_holds_the_token_of_a_client_is_that_client() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with pair(server) as (_, stranger):
            stolen = stranger.joined["tunnel"]["token"]
            for ours, theirs, changes in (
                (receiver, sender, {"token": "0" * 64}),
                (receiver, sender, {"token": "\u00e9"}),
                # Somebody else's, of another room.
                (receiver, sender, {"token": stolen}),
                (receiver, sender, {"client_id": stranger.id, "token": stolen}),
                # A client of another room as the other side.
                (receiver, stranger, {}),
                # Nobody talks to itself, nor to one that is not there.
                (receiver, receiver, {}),
                (receiver, sender, {"peer_id": "nobody"}),
            ):
                async with half(server, ours, theirs, **changes) as socket:
                    assert await refusal(socket) == ("bad_token", 4401)


async def test_receivers_have_no_tunnel_between_them() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, first):
        async with joined(server, f"/ws/{sender.room_id}") as second:
            async with half(server, first, second) as socket:
                assert await refusal(socket) == ("bad_token", 4401)


@pytest.mark.parametrize(
    "first",
    [b"bytes", "", "{}", '{"type":"ping","data":{}}', "x" * 100_000, '{"type":"tunnel","data":{"token":1}}'],
)
async def test_what_is_no_claim_ends_the_connection(first: str | bytes) -> None:
    async with Server(relaying()) as server, joined(server) as client:
        async with connect(f"{server.url}/relay/{client.room_id}") as socket:
            await socket.send(first)
            assert await refusal(socket) == ("bad_message", 4400)


@pytest.mark.parametrize(("rate", "size"), [(1e4, 2048), (2e6, 2048), (10e6, 10_000), (1e9, 16_384)])
async def test_a_client_hears_how_large_a_datagram_may_be(rate: float, size: int) -> None:
    async with Server(relaying(TunnelConfig(rate))) as server, pair(server) as (sender, receiver):
        assert [peer.joined["tunnel"]["max_datagram_size"] for peer in (sender, receiver)] == [size, size]


@pytest.mark.parametrize("second", ["text", b"", bytes(MAX_DATAGRAM_SIZE + 1)])
async def test_what_is_no_datagram_ends_the_tunnel(second: str | bytes) -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            await one.send(second)
            assert await refusal(one) == ("bad_message", 4400)
            assert (await refusal(other))[1] == 4404


async def test_who_does_not_wait_for_the_other_side_is_closed() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with half(server, sender, receiver) as socket:
            await socket.send(b"too early")
            assert await refusal(socket) == ("bad_message", 4400)


async def test_who_waits_too_long_or_says_nothing_is_closed() -> None:
    config = relaying(TunnelConfig(10e6, wait_timeout=0.05, idle_timeout=0.05))
    async with Server(config) as server, pair(server) as (sender, receiver):
        async with connect(f"{server.url}/relay/{sender.room_id}") as silent:
            assert await refusal(silent) == ("join_timeout", 4408)
        async with half(server, sender, receiver) as alone:
            assert await refusal(alone) == ("join_timeout", 4408)
    config = relaying(TunnelConfig(10e6, idle_timeout=0.05))
    async with Server(config) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, _):
            assert (await refusal(one))[1] in (4404, 4408)


async def test_pairs_and_those_of_one_address_are_bounded() -> None:
    config = relaying(TunnelConfig(10e6, max_pairs=1))
    async with Server(config) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver), pair(server) as (another, third):
            async with half(server, another, third) as socket:
                assert await refusal(socket) == ("too_many_connections", 1013)
        async with http_of(server) as http:
            assert 'flyx_limits_total{limit="tunnels"} 1.0' in (await http.get("/metrics")).text
    config = relaying(TunnelConfig(10e6, max_per_address=2))
    async with Server(config) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver), half(server, sender, receiver) as third:
            assert await refusal(third) == ("too_many_connections", 4429)
        # Those that have gone no longer count.
        async with http_of(server) as http:
            await until_tunnels(http, 0)
        async with tunnel(server, sender, receiver):
            pass


async def test_who_waits_for_the_other_side_takes_no_pair_s_place() -> None:
    config = relaying(TunnelConfig(10e6, max_pairs=1))
    async with Server(config) as server, pair(server) as (sender, receiver), http_of(server) as http:
        async with half(server, sender, receiver) as waiting, pair(server) as (another, third):
            async with tunnel(server, another, third):
                await until_tunnels(http, 1)
                # Now there is no place for its pair.
                async with half(server, receiver, sender) as late:
                    assert await refusal(late) == ("too_many_connections", 1013)
                assert await refusal(waiting) == ("too_many_connections", 1013)
        await until_tunnels(http, 0)
        async with tunnel(server, sender, receiver):
            await until_tunnels(http, 1)


def counted(metrics: str, name: str) -> float:
    return float(metrics.partition(f"\n{name} ")[2].partition("\n")[0])


async def until_tunnels(http: Any, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while f"flyx_tunnels {float(count)}" not in (await http.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_pair_has_its_rate_and_what_is_beyond_is_dropped() -> None:
    rate, size = 400_000.0, 1000
    async with Server(relaying(TunnelConfig(rate))) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            began = time.monotonic()
            for number in range(500):
                await one.send(number.to_bytes(2, "big") * (size // 2))
            await one.send(b"")
            heard: list[int] = []
            while isinstance(datagram := await hear(other), bytes):
                heard.append(int.from_bytes(datagram[:2], "big"))
            seconds = time.monotonic() - began
        assert heard == sorted(set(heard))
        # What was in the queue when the last came is gone with the tunnel.
        assert len(heard) * size <= rate * (seconds + 0.02) + size
        async with http_of(server) as http:
            metrics = (await http.get("/metrics")).text
        assert counted(metrics, "flyx_tunnel_drops_total") > 300


async def test_a_client_that_sends_far_too_much_is_read_no_faster_than_so() -> None:
    rate = 100_000.0
    async with Server(relaying(TunnelConfig(rate))) as server, pair(server) as (sender, receiver):
        async with half(server, receiver, sender) as other:
            async with raw_half(server, sender, receiver) as one:
                assert await hear(other) == OPENED
                # Until the server, and every buffer on the way, takes no more.
                size = TunnelConfig(rate).max_datagram_size
                flood = frame(BINARY, bytes(size)) * 64
                began = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        while True:
                            one.writer.write(flood)
                            await one.writer.drain()
                async with http_of(server) as http:
                    metrics = (await http.get("/metrics")).text
                seconds = time.monotonic() - began
        read = counted(metrics, "flyx_tunnel_drops_total") * size
        read += counted(metrics, "flyx_tunnel_bytes_total")
        # What is taken at once, and what one read brings.
        assert read < 4 * rate * (seconds + 1) + 256 * 1024


async def test_one_that_does_not_read_costs_the_server_a_bounded_amount() -> None:
    async with Server(relaying(TunnelConfig(50e6))) as server, pair(server) as (sender, receiver):
        async with half(server, sender, receiver) as one:
            async with raw_half(server, receiver, sender):
                assert await hear(one) == OPENED
                async with http_of(server) as http:
                    async with asyncio.timeout(PATIENCE):
                        drops = 0.0
                        while drops < 100:
                            for _ in range(500):
                                await one.send(bytes(MAX_DATAGRAM_SIZE))
                            metrics = (await http.get("/metrics")).text
                            drops = counted(metrics, "flyx_tunnel_drops_total")


async def test_a_server_that_stops_ends_tunnels() -> None:
    async with Server(relaying()) as server, pair(server) as (sender, receiver):
        async with tunnel(server, sender, receiver) as (one, other):
            stopping = asyncio.create_task(server.stop())
            assert (await refusal(one))[1] in (1012, 4404)
            assert (await refusal(other))[1] in (1012, 4404)
            await stopping


@pytest.mark.parametrize("text", ["\ud800", '{"type":"tunnel","later":"\ud800"}'])
def test_a_claim_that_is_no_unicode_is_refused_as_others_are(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_claim_untrusted(text)


def test_a_claim_survives_the_wire() -> None:
    said = TunnelClaim(client_id="one", peer_id="other", token="secret")
    assert parse_claim_untrusted(serialize_claim(said)) == said
    with pytest.raises(RemoteProtocolError) as caught:
        parse_claim_untrusted('{"type":"tunnel","data":{"token":"secret"}}')
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("rate", ["", "fast", "1KB", "0", "-1MB", "2TB"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(InputError):
        relay_of(rate, 16, 8, redis=False)


@pytest.mark.parametrize(("rate", "bytes_"), [("2MB", 2e6), ("2MB/s", 2e6), ("500k", 5e5), ("1MiB", 2.0**20)])
def test_rates_are_bytes_a_second(rate: str, bytes_: float) -> None:
    config = relay_of(rate, 3, 2, redis=False)
    assert config == TunnelConfig(bytes_, max_pairs=3, max_per_address=2)


def test_many_nodes_relay_nothing() -> None:
    assert relay_of(None, 16, 8, redis=True) is None
    with pytest.raises(InputError, match="--redis"):
        relay_of("2MB", 16, 8, redis=True)
