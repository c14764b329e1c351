from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time

import pytest

from flyx.server.app import Server
from flyx.server.config import ServerConfig
from tests.server.peers import http_of, joined, local, pair


async def test_the_url_is_known_before_the_first_client() -> None:
    async with Server(local()) as server:
        assert server.port > 0
        assert server.url == server.listening_url == f"ws://127.0.0.1:{server.port}"
        async with joined(server):
            pass


async def test_a_server_on_all_addresses_has_a_url_to_connect_to() -> None:
    async with Server(ServerConfig(host="0.0.0.0", port=0)) as server:
        assert server.listening_url == f"ws://0.0.0.0:{server.port}"
        assert server.url == f"ws://127.0.0.1:{server.port}"
        async with joined(server):
            pass


async def test_a_name_with_several_addresses_is_served_on_one_port() -> None:
    async with Server(ServerConfig(host="localhost", port=0)) as server:
        found = socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM)
        async with http_of(server) as http:
            for host in {str(address[0]) for *_, address in found}:
                shown = f"[{host}]" if ":" in host else host
                assert (await http.get(f"http://{shown}:{server.port}/healthz")).status_code == 200


async def test_two_servers_run_side_by_side() -> None:
    async with Server(local()) as one, Server(local()) as other:
        assert one.port != other.port
        async with joined(one), joined(other):
            pass


async def test_stopping_tells_every_client_and_is_quick() -> None:
    async with Server(local()) as server, pair(server) as (sender, receiver), joined(server) as lonely:
        # The room is not told: its clients are to come back, and then it is still theirs.
        started = time.monotonic()
        stopping = asyncio.create_task(server.stop())
        for client in (sender, receiver, lonely):
            await client.expect_error("server_stopping", fatal=True)
            await client.expect_close(1012)
        await stopping
        assert time.monotonic() - started < 2
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", server.port)
        # Leaving the block stops it once more.


async def test_a_client_that_does_not_read_cannot_hold_up_the_end() -> None:
    server = Server(local(close_timeout=0.2))
    await server.start()
    async with joined(server) as client:
        client.socket.transport.pause_reading()
        async with asyncio.timeout(5):
            await server.stop()
        client.socket.transport.abort()


async def test_an_embedded_server_leaves_signals_alone() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with Server(local()) as server, joined(server):
        assert {number: signal.getsignal(number) for number in before} == before


async def test_an_embedded_server_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async with Server(local(test_room=True)) as server, joined(server):
        pass
    assert capfd.readouterr() == ("", "")


async def test_nothing_is_left_of_a_server_that_has_stopped() -> None:
    before = asyncio.all_tasks()
    async with Server(local()) as server, pair(server):
        pass
    assert asyncio.all_tasks() == before


async def test_the_test_room_is_there_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Server(local(test_room=True)) as server:
        assert server.test_room_id is not None
        [record] = [r for r in caplog.records if r.getMessage() == "test room ready"]
        assert vars(record)["room_id"] == server.test_room_id
        for _ in range(2):
            async with joined(server, f"/ws/{server.test_room_id}") as sender:
                assert sender.joined["role"] == "sender"
                assert sender.joined["expires_at"] is None
                await sender.say({"type": "disconnect"})
                await sender.expect_close(1000)


async def test_no_stun_servers_means_none() -> None:
    async with Server(local(stun_urls=())) as server, joined(server) as client:
        assert client.joined["ice_servers"] == []
