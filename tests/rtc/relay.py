"""A TURN server in the test's own process."""

from __future__ import annotations

import asyncio
from typing import Any

from aioice import stun
from aiortc import RTCIceServer


class Relay(asyncio.DatagramProtocol):
    """A TURN server for one client and one peer, which asks for no password: RFC 8656."""

    def __init__(self) -> None:
        self.client: Any = None
        self.peer: Any = None
        self.channel = b""
        self.inside: Any = None
        self.outside: Any = None
        self.relayed = 0

    async def start(self) -> RTCIceServer:
        """Listen; return how aiortc is told of it."""
        return RTCIceServer(f"turn:127.0.0.1:{await self.listen()}", username="anyone", credential="secret")

    async def listen(self) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        outside = OutsideOfRelay(self)
        self.outside, _ = await loop.create_datagram_endpoint(lambda: outside, local_addr=("127.0.0.1", 0))
        self.inside, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return int(self.inside.get_extra_info("sockname")[1])

    def close(self) -> None:
        self.inside.close()
        self.outside.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[0] & 0xC0 == 0x40:
            self.relayed += 1
            self.outside.sendto(data[4 : 4 + int.from_bytes(data[2:4], "big")], self.peer)
            return
        request = stun.parse_message(data)
        response = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        self.client = addr
        if request.message_method == stun.Method.CHANNEL_BIND:
            self.channel = request.attributes["CHANNEL-NUMBER"].to_bytes(2, "big")
            self.peer = request.attributes["XOR-PEER-ADDRESS"]
        else:
            response.attributes["LIFETIME"] = 600
            response.attributes["XOR-MAPPED-ADDRESS"] = addr
            response.attributes["XOR-RELAYED-ADDRESS"] = self.outside.get_extra_info("sockname")
        self.inside.sendto(bytes(response), addr)

    def from_peer(self, data: bytes) -> None:
        self.relayed += 1
        if self.channel:
            self.inside.sendto(self.channel + len(data).to_bytes(2, "big") + data, self.client)


class OutsideOfRelay(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.relay.from_peer(data)
