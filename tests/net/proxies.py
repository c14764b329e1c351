"""Proxies of the tests' own: HTTP CONNECT, by TLS too, and SOCKS 4, 4a and 5; and some that lie."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ask = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[tuple[str, int] | None]]


class TestProxy:
    """A proxy that listens on the loopback.

    Attributes:
        port: where.
        asked: hosts and ports that it was asked for.
    """

    __test__ = False

    def __init__(self, ask: Ask, granted: bytes, ways: dict[str, str] | None) -> None:
        self._ask = ask
        self._granted = granted
        self._ways = ways or {}
        self.port = 0
        self.asked: list[tuple[str, int]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted = await self._ask(reader, writer)
        if wanted is None:
            return
        self.asked.append(wanted)
        host, port = wanted
        upstream, onward = await asyncio.open_connection(self._ways.get(host, host), port)
        try:
            writer.write(self._granted)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, onward))
                group.create_task(_copy(upstream, writer))
        finally:
            onward.close()
            await onward.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def serving(
    handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Run what serves each connection to a port, and return that; at the end all are closed."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ExceptionGroup):
            pass
        finally:
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _running(
    proxy: TestProxy, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[TestProxy]:
    async with serving(proxy.serve, tls, host) as proxy.port:
        yield proxy


@asynccontextmanager
async def http_proxy(
    *,
    credentials: str | None = None,
    status: str = "200 Connection established",
    answer: bytes | None = None,
    ways: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[TestProxy]:
    """Run one.

    Args:
        credentials: "NAME:PASSWORD" that it wants.
        status: it answers; nothing but 200 connects.
        answer: all that it answers, and then waits.
        ways: the addresses of names, which it alone knows.
        tls: what it is spoken to by.
        host: where it listens.
    """

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if answer is not None:
            writer.write(answer)
            await reader.read()
            return None
        method, target, _ = head.split("\r\n")[0].split()
        assert method == "CONNECT"
        token = b64encode((credentials or "").encode()).decode()
        if credentials and f"\r\nproxy-authorization: basic {token}\r\n".lower() not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return None
        if not status.startswith("200"):
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return None
        name, _, port = target.rpartition(":")
        return name.strip("[]"), int(port)

    granted = f"HTTP/1.1 {status}\r\nVia: test\r\n\r\n".encode()
    async with _running(TestProxy(ask, granted, ways), tls, host) as proxy:
        yield proxy


@asynccontextmanager
async def socks5_proxy(
    *,
    credentials: str | None = None,
    reply: int = 0,
    ways: dict[str, str] | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[TestProxy]:
    """Run one: RFC 1928, RFC 1929. `reply` is its REP; nothing but 0 connects."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        assert version == 5
        wanted = 2 if credentials else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return None
        writer.write(bytes([5, wanted]))
        if credentials:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = f"{user.decode()}:{password.decode()}" == credentials
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                return None
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            name = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        elif kind == 1:
            name = socket.inet_ntop(socket.AF_INET, await reader.readexactly(4))
        else:
            name = socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        if reply:
            writer.write(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
            return None
        return name, port

    async with _running(TestProxy(ask, b"\x05\x00\x00\x01" + bytes(6), ways), host=host) as proxy:
        yield proxy


@asynccontextmanager
async def socks4_proxy(*, reply: int = 90, ways: dict[str, str] | None = None) -> AsyncIterator[TestProxy]:
    """Run one: SOCKS4 and SOCKS4a. `reply` is its CD; nothing but 90 connects."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        _, command, port, address = struct.unpack("!BBH4s", await reader.readexactly(8))
        assert command == 1
        await reader.readuntil(b"\0")
        host = socket.inet_ntop(socket.AF_INET, address)
        if address[:3] == b"\0\0\0":
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        if reply != 90:
            writer.write(bytes([0, reply]) + bytes(6))
            return None
        return host, port

    async with _running(TestProxy(ask, b"\x00\x5a" + bytes(6), ways)) as proxy:
        yield proxy


@asynccontextmanager
async def saying(answer: bytes, *, end: bool = False) -> AsyncIterator[TestProxy]:
    """Run what says this to all that connect, whatever they say; then it ends, or waits."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if not end:
            await reader.read()

    async with _running(TestProxy(ask, b"", None)) as proxy:
        yield proxy
