"""A TURN server in the test's own process."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from aioice import stun
from aioice.stun import Class, Message, Method


class Relay(asyncio.DatagramProtocol):
    """A TURN server for one client and one peer, which asks for no password: RFC 8656.

    Attributes:
        refusals: Error code and reason that a method is answered with; None: it is not answered.
        alternate: What a 300 names.
        lifetime: Seconds that it says allocations live.
        requests: What came, in order.
        relayed: Datagrams that went through, both ways.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.refusals: dict[Method, tuple[int, str] | None] = {}
        self.alternate: tuple[str, int] | None = None
        self.lifetime = 600
        self.requests: list[Message] = []
        self.relayed = 0
        self.client: Any = None
        self.peer: Any = None
        self.channel = b""
        self.inside: Any = None
        self.outside: Any = None
        self.changed = asyncio.Event()

    async def listen(self) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        outside = OutsideOfRelay(self)
        self.outside, _ = await loop.create_datagram_endpoint(lambda: outside, local_addr=(self.host, 0))
        self.inside, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, 0))
        return int(self.inside.get_extra_info("sockname")[1])

    def close(self) -> None:
        self.inside.close()
        self.outside.close()

    @property
    def count(self) -> Counter[Method]:
        """Requests that came, by method."""
        return Counter(request.message_method for request in self.requests)

    async def until(self, condition: Any) -> None:
        """Wait until a condition holds after a request."""
        async with asyncio.timeout(10.0):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[0] & 0xC0 == 0x40:
            self.relayed += 1
            self.outside.sendto(data[4 : 4 + int.from_bytes(data[2:4], "big")], self.peer)
            return
        request = stun.parse_message(data)
        self.client = addr
        if response := self.answer(request, addr):
            self.inside.sendto(bytes(response), addr)

    def answer(self, request: Message, addr: Any) -> Message | None:
        """Return the answer to a request, if there is to be one."""
        self.requests.append(request)
        self.changed.set()
        method = request.message_method
        if method in self.refusals:
            refusal = self.refusals[method]
            if refusal is None:
                return None
            response = Message(method, Class.ERROR, request.transaction_id)
            response.attributes["ERROR-CODE"] = refusal
            if self.alternate:
                response.attributes["ALTERNATE-SERVER"] = self.alternate
            return response
        response = Message(method, Class.RESPONSE, request.transaction_id)
        if method == Method.CHANNEL_BIND:
            self.channel = request.attributes["CHANNEL-NUMBER"].to_bytes(2, "big")
            self.peer = request.attributes["XOR-PEER-ADDRESS"]
        else:
            response.attributes["LIFETIME"] = self.lifetime
            response.attributes["XOR-MAPPED-ADDRESS"] = addr[:2]
            response.attributes["XOR-RELAYED-ADDRESS"] = self.outside.get_extra_info("sockname")[:2]
        return response

    def from_peer(self, data: bytes) -> None:
        self.relayed += 1
        if self.channel:
            self.to_client(self.channel + len(data).to_bytes(2, "big") + data)

    def to_client(self, message: bytes) -> None:
        self.inside.sendto(message, self.client)


class OutsideOfRelay(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.relay.from_peer(data)


class StreamRelay(Relay):
    """The same over TCP; what it sends comes a byte at a time if asked to."""

    async def listen(self) -> int:
        await super().listen()
        self.server = await asyncio.start_server(self._serve, self.host, 0)
        return int(self.server.sockets[0].getsockname()[1])

    def close(self) -> None:
        super().close()
        self.server.close()
        if self.client:
            self.client.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = writer
        try:
            while True:
                header = await reader.readexactly(4)
                length = int.from_bytes(header[2:], "big")
                is_data = header[0] & 0xC0 == 0x40
                rest = await reader.readexactly(length + -length % 4 if is_data else length + 16)
                if is_data:
                    self.relayed += 1
                    self.changed.set()
                    self.outside.sendto(rest[:length], self.peer)
                elif response := self.answer(
                    stun.parse_message(header + rest), writer.get_extra_info("peername")
                ):
                    writer.write(bytes(response))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def to_client(self, message: bytes) -> None:
        message += bytes(-len(message) % 4)
        # In pieces, as a stream may come.
        self.client.write(message[:3])
        self.client.write(message[3:])
