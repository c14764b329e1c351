"""What create_datagram_endpoint() returns on our loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from flyx.net.loop import create_udp_endpoint, new_event_loop, with_udp_endpoints
from flyx.net.udp import UdpTransport


class Protocol(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.datagram = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagram.set_result((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.Loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=with_udp_endpoints(request.param)) as runner:
        yield runner


def test_the_fastest_loop_is_uvloop() -> None:
    loop = new_event_loop()
    try:
        assert isinstance(loop, uvloop.Loop)
    finally:
        loop.close()


def test_an_endpoint_with_only_a_local_address_is_ours_and_connected_on_return(
    runner: asyncio.Runner,
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        assert isinstance(transport, UdpTransport)
        assert protocol.transport is transport
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        # aioice would give it a smaller receive buffer.
        assert transport.get_extra_info("socket") is None
        transport.close()
        await protocol.lost

    runner.run(scenario())


def test_a_connected_endpoint_is_the_loops_own_and_talks_to_ours(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ours, receiver = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        theirs, sender = await loop.create_datagram_endpoint(
            Protocol, remote_addr=ours.get_extra_info("sockname")
        )
        assert not isinstance(theirs, UdpTransport)
        theirs.sendto(b"hello")
        assert await receiver.datagram == (b"hello", theirs.get_extra_info("sockname"))
        for transport, protocol in ((ours, receiver), (theirs, sender)):
            transport.close()
            await protocol.lost

    runner.run(scenario())


def test_an_endpoint_on_a_socket_is_the_loops_own(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Protocol, sock=sock)
        assert not isinstance(transport, UdpTransport)
        transport.close()
        await protocol.lost

    runner.run(scenario())


def test_an_address_that_is_not_here_cannot_be_bound(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        # RFC 5737: no machine has it.
        with pytest.raises(OSError, match="assign"):
            await loop.create_datagram_endpoint(Protocol, local_addr=("192.0.2.1", 0))

    runner.run(scenario())


def test_a_link_local_address_is_bound_on_its_interface(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        # The multicast address of all nodes: every machine has it on its loopback.
        address = f"ff02::1%{socket.if_indextoname(1)}"
        transport, protocol = await loop.create_datagram_endpoint(Protocol, local_addr=(address, 0))
        host, _, _, scope = transport.get_extra_info("sockname")
        assert (host, scope) == ("ff02::1", 1)
        transport.close()
        await protocol.lost

    runner.run(scenario())


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_link_local_address_is_bound_on_its_interface_also_on_a_loop_that_is_not_ours(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        address = f"ff02::1%{socket.if_indextoname(1)}"
        loop = asyncio.get_running_loop()
        transport, protocol = await create_udp_endpoint(loop, Protocol, (address, 0))
        assert transport.get_extra_info("sockname")[3] == 1
        transport.close()
        await protocol.lost

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


def test_a_protocol_that_cannot_be_made_leaves_no_socket_open(runner: asyncio.Runner) -> None:
    def refuse() -> Protocol:
        raise LookupError

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(LookupError):
            await loop.create_datagram_endpoint(refuse, local_addr=("127.0.0.1", 0))

    # A socket left open would be a ResourceWarning, which is an error here.
    runner.run(scenario())
