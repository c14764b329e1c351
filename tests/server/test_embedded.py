"""The server of a sender that serves itself: for its own room alone, wherever the receivers come from."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import httpx
import pytest
import pytest_asyncio

from flyx.client.signaling import Signaling
from flyx.errors import RoomFull, ServerRefused, SignalingError
from flyx.server import embedded
from flyx.server.embedded import EmbeddedServer
from flyx.signaling.local import LOCAL_PORTS
from flyx.signaling.messages import Role
from tests.net.test_changes import Host, on_a_host  # noqa: F401  # a fixture


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer() as running:
        yield running


def as_sender(server: EmbeddedServer) -> Signaling:
    return Signaling(server.url, None, Role.SENDER, api_token=server.api_token, direct=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_receivers_come_by_either_protocol_into_the_room_of_the_sender(
    server: EmbeddedServer, host: str
) -> None:
    async with as_sender(server) as sender:
        room_id = sender.joined.room_id
        url = f"ws://{host}:{server.port}"
        async with Signaling(url, room_id, Role.RECEIVER, direct=True) as receiver:
            assert receiver.joined.room_id == room_id
            assert receiver.joined.ice_servers == ()


async def test_nobody_else_makes_a_room(server: EmbeddedServer) -> None:
    with pytest.raises(ServerRefused):
        async with Signaling(server.url, None, Role.SENDER, direct=True):
            pass
    async with as_sender(server):
        with pytest.raises(ServerRefused):
            async with Signaling(server.url, None, Role.SENDER, api_token="guess", direct=True):
                pass
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", verify=False) as http:
            assert (await http.post("/room")).status_code == 401


async def test_not_even_the_sender_makes_a_second_room(server: EmbeddedServer) -> None:
    async with as_sender(server):
        with pytest.raises(SignalingError) as refusal:
            async with as_sender(server):
                pass
        assert not isinstance(refusal.value, RoomFull)


async def test_strangers_learn_nothing_of_it_and_pages_cannot_use_it(server: EmbeddedServer) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", verify=False) as http:
        assert (await http.get("/status")).status_code == 401
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/rooms")).status_code == 404
        # DNS rebinding: a page whose name leads here.
        for host, status in ((f"192.0.2.7:{server.port}", 200), ("page.example", 403)):
            assert (await http.get("/openapi.json", headers={"Host": host})).status_code == status


async def test_it_has_one_of_the_known_ports_or_else_any(monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setattr(embedded, "LOCAL_PORTS", (port,))
            other = await stack.enter_async_context(EmbeddedServer())
            assert other.port != port
        monkeypatch.setattr(embedded, "LOCAL_PORTS", LOCAL_PORTS)
        servers = [await stack.enter_async_context(EmbeddedServer()) for _ in range(len(LOCAL_PORTS) + 1)]
        assert len({server.port for server in servers}) == len(servers)
        assert not {server.port for server in servers} <= set(LOCAL_PORTS)


async def test_clients_that_take_nothing_hold_up_no_end() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        await stack.enter_async_context(as_sender(server))
        for request in (b"", b"GET /ws/", b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            writer.write(request)
            await writer.drain()
        before = monotonic()
        await stack.pop_all().aclose()
        assert monotonic() - before < embedded.STOP_TIMEOUT + 1.0


def test_it_is_there_by_both_protocols_also_where_a_socket_of_ipv6_takes_no_ipv4(
    on_a_host: Callable[[Callable[[Host], Awaitable[None]]], None],  # noqa: F811
) -> None:
    def keep_apart() -> None:
        # As on Windows and some BSDs.
        Path("/proc/sys/net/ipv6/bindv6only").write_text("1")

    async def serve(_: Host) -> None:
        keep_apart()
        async with EmbeddedServer() as server:
            for address in ("127.0.0.1", "::1"):
                _, writer = await asyncio.open_connection(address, server.port)
                writer.close()

    on_a_host(serve)
