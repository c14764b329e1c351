"""A STUN server with two addresses (RFC 5780) on the loopback, and NATs that it pretends to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aioice import stun

MAIN, OTHER = "127.0.0.1", "127.0.0.2"

Endpoint = tuple[str, int]


class StunServer:
    """Answers at MAIN and OTHER, each at two ports.

    Attributes:
        maps: what a NAT makes of the source of a request (first) on its way to one of our addresses (second).
        lets_in: whether a NAT lets an answer in from there (first), its client having asked there (second).
        has_other: whether it tells of its other address, and does as CHANGE-REQUEST says.
        largest: bytes of a request that are not lost on the way.
    """

    def __init__(self) -> None:
        self.maps: Callable[[Endpoint, Endpoint], Endpoint] = lambda source, _: source
        self.lets_in: Callable[[Endpoint, Endpoint], bool] = lambda source, asked: True
        self.has_other = True
        self.largest = 65535
        self.requests = 0
        self._transports: dict[Endpoint, asyncio.DatagramTransport] = {}
        self.ports = (0, 0)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        ports = []
        for _ in range(2):
            port = 0
            for host in (MAIN, OTHER):
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Address(self), local_addr=(host, port)
                )
                at = transport.get_extra_info("sockname")
                port = at[1]
                self._transports[at] = transport
            ports.append(port)
        self.ports = (ports[0], ports[1])

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()

    def answer(self, data: bytes, client: Endpoint, asked: Endpoint) -> None:
        self.requests += 1
        if len(data) > self.largest:
            return
        request = stun.parse_message(data)
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = self.maps(client, asked)
        host, port = asked
        if self.has_other:
            response.attributes["OTHER-ADDRESS"] = self._other(host, port)
            change = request.attributes.get("CHANGE-REQUEST", 0)
            host = self._other(host, port)[0] if change & 4 else host
            port = self._other(host, port)[1] if change & 2 else port
        if self.lets_in((host, port), asked):
            self._transports[host, port].sendto(bytes(response), client)

    def _other(self, host: str, port: int) -> Endpoint:
        first, second = self.ports
        return (OTHER if host == MAIN else MAIN), (second if port == first else first)


class _Address(asyncio.DatagramProtocol):
    def __init__(self, server: StunServer) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._at = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._server.answer(data, addr, self._at)


@asynccontextmanager
async def stun_server() -> AsyncIterator[StunServer]:
    server = StunServer()
    await server.start()
    try:
        yield server
    finally:
        server.close()
