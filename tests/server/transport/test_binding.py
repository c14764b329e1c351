from __future__ import annotations

import asyncio
import socket

import pytest

from flyx.errors import InputError
from flyx.server.app import Server
from flyx.server.config import LimitConfig, ServerConfig
from flyx.server.transport.binding import bind, reserve
from tests.server.peers import joined, peer


async def test_small_messages_are_not_held_back() -> None:
    [listening] = await bind("127.0.0.1", 0)
    nodelay: list[int] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        nodelay.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(note, sock=listening):
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert nodelay == [1]


async def test_every_address_of_a_name_gets_the_same_port() -> None:
    sockets = await bind("localhost", 0)
    try:
        assert len({s.getsockname()[1] for s in sockets}) == 1
        assert len({s.getsockname() for s in sockets}) == len(sockets)
    finally:
        for bound in sockets:
            bound.close()


@pytest.mark.parametrize(("host", "port"), [("192.0.2.77", 0), ("no-such-host.invalid", 0)])
async def test_what_cannot_be_bound_is_an_input_error_with_a_hint(host: str, port: int) -> None:
    with pytest.raises(InputError) as caught:
        await bind(host, port)
    assert host in str(caught.value)
    assert "--host" in str(caught.value.hint)


async def test_a_port_that_somebody_listens_on_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(InputError) as caught:
            await bind("127.0.0.1", other.getsockname()[1])
        assert "another program" in str(caught.value)
        assert "--port" in str(caught.value.hint)


@pytest.fixture
def ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")


@pytest.mark.usefixtures("ipv6")
async def test_by_default_a_server_is_reached_over_ipv4_and_over_ipv6() -> None:
    limits = LimitConfig(max_connections_per_address=1)
    async with Server(ServerConfig(port=0, limits=limits)) as server:
        assert server.listening_url == f"ws://0.0.0.0:{server.port}"
        # Each client counts as the address that it has.
        async with joined(server), joined(server, host="::1", port=server.port):
            async with peer(server) as third, peer(server, host="::1", port=server.port) as fourth:
                await third.expect_error("too_many_connections", fatal=True)
                await fourth.expect_error("too_many_connections", fatal=True)


@pytest.mark.usefixtures("ipv6")
async def test_a_port_that_somebody_has_for_ipv6_alone_is_refused() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        with pytest.raises(InputError, match="another program"):
            await bind(None, other.getsockname()[1])


@pytest.mark.usefixtures("ipv6")
async def test_workers_share_a_port_for_both_families() -> None:
    reserved = await reserve(None, 0)
    port = reserved[0].getsockname()[1]
    sockets = [*reserved]
    try:
        for _ in range(2):
            sockets += await bind(None, port, shared=True)
        families = [bound.family for bound in sockets]
        assert families == [socket.AF_INET, socket.AF_INET6] * 3
        assert {bound.getsockname()[1] for bound in sockets} == {port}
    finally:
        for bound in sockets:
            bound.close()


async def test_without_ipv6_a_server_listens_on_ipv4_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        """As of a kernel that has no IPv6."""

        def __init__(self, family: int = socket.AF_INET, *more: int, **options: object) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("flyx.server.transport.binding.socket.socket", WithoutIPv6)
    [only] = await bind(None, 0)
    only.close()
    assert only.family == socket.AF_INET
