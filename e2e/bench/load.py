"""WebSocket clients that cost so little that a measurement is one of the server.

RFC 6455 and no more than a load generator needs: frames are made beforehand, under a masking key of zeros,
and what comes is cut into messages and handed on. Nothing is checked, since the servers are known.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import cast

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Zmx5eCBiZW5jaCBmbHl4IQ==\r\n{more}\r\n"
)


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    TEXT = 1
    CLOSE = 8
    PING = 9
    PONG = 10


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    """Return one whole client frame. Masked with zeros, the payload stays as it is."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    else:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    return head + bytes(4) + payload


class Client(asyncio.Protocol):
    """One client.

    Attributes:
        first: Resolved with the first message.
        heard: Messages after the first one.
        lost: Resolved when the connection is over.
        hear: Called with each later message.
    """

    __slots__ = (
        "_greeting",
        "_handshake",
        "_rest",
        "_upgraded",
        "first",
        "hear",
        "heard",
        "lost",
        "transport",
    )

    def __init__(self, path: str, subprotocol: str = "", greeting: bytes = b"") -> None:
        """Args:
        path: What to ask for.
        subprotocol: To offer; empty for none.
        greeting: A frame to send as soon as the server has agreed.
        """
        more = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        loop = asyncio.get_running_loop()
        self._handshake = _HANDSHAKE.format(path=path, more=more).encode()
        self._greeting = greeting
        self._rest = b""
        self._upgraded = False
        self.heard = 0
        self.first: asyncio.Future[bytes] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.hear: Callable[[bytes], None] = ignore
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._handshake)
        self._handshake = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.first.done():
            self.first.set_exception(ConnectionError(f"refused: {self._rest!r}"))
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if not self._upgraded:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank or not head.startswith(b"HTTP/1.1 101 "):
                self._rest = head + blank + data
                return
            self._upgraded = True
            if self._greeting:
                self.transport.write(self._greeting)
        self._rest = self._cut(data)

    def _cut(self, data: bytes) -> bytes:
        """Hand on the whole frames in data; return the rest."""
        at, end = 0, len(data)
        while at + 4 <= end or at + 2 + (data[at + 1] if at + 1 < end else end) <= end:
            opcode, size, start = data[at] & 15, data[at + 1], at + 2
            if size == 126:
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            if start + size > end:
                break
            at = start + size
            if opcode == Opcode.TEXT:
                if self.first.done():
                    self.heard += 1
                    self.hear(data[start:at])
                else:
                    self.first.set_result(data[start:at])
            elif opcode == Opcode.PING:
                self.transport.write(frame(data[start:at], Opcode.PONG))
            elif opcode == Opcode.CLOSE:
                self.transport.close()
        return data[at:]


def ignore(message: bytes) -> None:
    """Most clients of a benchmark have nothing to do with what they hear."""
