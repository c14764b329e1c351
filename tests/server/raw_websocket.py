"""A WebSocket client that sends exactly what it is told, right or wrong."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from flyx.server.app import Server
from tests.server.peers import PATIENCE

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

PING_MESSAGE = b'{"type":"ping","data":{}}'
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    claim: int | None = None,
) -> bytes:
    """A frame of RFC 6455 §5.2.

    Args:
        claim: The length that the header tells, if not that of the payload.
    """
    length = len(payload) if claim is None else claim
    head = bytes([(fin << 7) | (rsv << 4) | opcode])
    flag = 0x80 if mask is not None else 0
    if length <= 125:
        head += bytes([flag | length])
    elif length <= 0xFFFF:
        head += bytes([flag | 126]) + struct.pack("!H", length)
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", length)
    if mask is None:
        return head + payload
    # As one number: a byte at a time would take longer than the server does.
    stream = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + masked.to_bytes(len(payload), "big")


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


@dataclass
class Raw:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    joined: dict[str, Any] = field(default_factory=dict)

    async def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.writer.write(chunk)
            await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """The next frame; servers send them whole and unmasked."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            assert first & 0x80
            length = second & 0x7F
            if length == 126:
                [length] = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                [length] = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def hear(self) -> str:
        """The next: type of a message, code of an error, "close CODE" or "pong frame PAYLOAD"."""
        opcode, payload = await self.receive()
        if opcode == TEXT:
            message = json.loads(payload)
            return str(message["data"]["code"] if message["type"] == "error" else message["type"])
        if opcode == CLOSE:
            return f"close {struct.unpack('!H', payload[:2])[0]}" if payload else "close"
        assert opcode == PONG, opcode
        return f"pong frame {payload.decode('latin-1')}"

    async def rest(self) -> bytes:
        """Everything up to the end. That may be a reset, if the server had not read all: what came counts."""
        heard = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while piece := await self.reader.read(1 << 16):
                    heard += piece
        return heard

    async def end(self) -> None:
        """The server has ended the connection; nothing more has come."""
        async with asyncio.timeout(PATIENCE):
            rest = await self.reader.read()
        assert rest == b""


@asynccontextmanager
async def connection(server: Server, **options: Any) -> AsyncIterator[Raw]:
    """A TCP connection, over TLS if there is an `ssl` option."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, **options)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw(server: Server, path: str = "/ws", *, headers: str = "") -> AsyncIterator[Raw]:
    """A client that has joined a room of its own."""
    async with connection(server) as client:
        host = f"127.0.0.1:{server.port}"
        await client.send(HANDSHAKE.format(path=path, host=host, headers=headers).encode())
        async with asyncio.timeout(PATIENCE):
            response = await client.reader.readuntil(b"\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 101 "), response
        opcode, payload = await client.receive()
        assert opcode == TEXT
        client.joined = json.loads(payload)["data"]
        yield client


async def http(server: Server, request: bytes, **options: Any) -> bytes:
    """Everything that the server answers to these bytes, up to its end of the connection."""
    async with connection(server, **options) as client, asyncio.timeout(PATIENCE):
        await client.send(request)
        return await client.reader.read()


def trusting(certificate: str) -> ssl.SSLContext:
    """What a client needs to trust this certificate alone."""
    return ssl.create_default_context(cafile=certificate)
