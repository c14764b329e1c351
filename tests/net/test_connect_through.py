from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

import pytest

from flyx.net import connect as module
from flyx.net.connect import ProxyError, connect, connect_through
from flyx.net.proxy import Proxy
from tests.net.endpoints import free_port, swallowing
from tests.net.names import NO_SUCH_NAME, TRY_AGAIN, Names
from tests.net.proxies import TestProxy, http_proxy, saying, serving, socks4_proxy, socks5_proxy
from tests.server.transport.test_tls import issue

# A name that only the proxy knows.
HIDDEN = {"hidden.test": "127.0.0.1"}


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that says everything again, a byte of 1 added; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(bytes([1]) + data)
            await writer.drain()

    async with serving(answer) as port:
        yield port


async def say(sock: socket.socket, words: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        await loop.sock_sendall(sock, words)
        heard = b""
        while len(heard) < len(words) + 1:
            heard += await loop.sock_recv(sock, 100)
        return heard


async def talk(proxy: Proxy, host: str, port: int) -> None:
    with await connect_through(proxy, host, port) as sock:
        assert not sock.getblocking()
        assert await say(sock, b"hello") == b"\1hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "hidden.test"])
@pytest.mark.parametrize(
    ("scheme", "run"),
    [
        ("http", http_proxy),
        ("socks5", socks5_proxy),
        ("socks5h", socks5_proxy),
        ("socks4", socks4_proxy),
        ("socks4a", socks4_proxy),
    ],
)
def test_a_proxy_leads_to_a_server(runner: asyncio.Runner, scheme: str, run: Any, host: str) -> None:
    async def go() -> None:
        async with echo() as port, run(ways=HIDDEN) as proxy:
            await talk(Proxy(scheme, "127.0.0.1", proxy.port), host, port)
            assert proxy.asked == [(host, port)]

    runner.run(go())


@pytest.mark.parametrize(("scheme", "local"), [("socks4", True), ("socks5", True), ("socks5h", False)])
async def test_a_name_is_looked_up_where_the_scheme_says(names: Names, scheme: str, local: bool) -> None:
    names.answer("server.test", AF_INET, ["127.0.0.1"])
    names.answer("server.test", AF_INET6, NO_SUCH_NAME)
    run = socks4_proxy if scheme == "socks4" else socks5_proxy
    async with echo() as port, run(ways={"server.test": "127.0.0.1"}) as proxy:
        await talk(Proxy(scheme, "127.0.0.1", proxy.port), "server.test", port)
        assert proxy.asked == [("127.0.0.1" if local else "server.test", port)]


async def test_an_ipv6_literal_is_bracketed_for_an_http_proxy() -> None:
    async with http_proxy(ways={"2001:db8::1": "127.0.0.1"}) as proxy, echo() as port:
        await talk(Proxy("http", "127.0.0.1", proxy.port), "2001:db8::1", port)


@pytest.mark.parametrize("run", [http_proxy, socks5_proxy])
async def test_credentials_open_a_proxy(run: Any) -> None:
    scheme = "http" if run is http_proxy else "socks5h"
    async with echo() as port, run(credentials="me:s3cret") as proxy:
        await talk(Proxy(scheme, "127.0.0.1", proxy.port, "me", "s3cret"), "127.0.0.1", port)
        for wrong in (None, "wr0ng"):
            user = "me" if wrong else None
            with pytest.raises(ProxyError) as caught:
                await talk(Proxy(scheme, "127.0.0.1", proxy.port, user, wrong), "127.0.0.1", port)
            told = str(caught.value)
            assert f"the proxy 127.0.0.1:{proxy.port} " in told
            assert "wr0ng" not in told
            assert caught.value.hint
            if scheme == "http":
                assert "(407)" in told
                assert "NAME:PASSWORD" in caught.value.hint


def refusals() -> list[tuple[str, AbstractAsyncContextManager[TestProxy], str]]:
    return [
        ("http", http_proxy(status="403 Forbidden"), "403 Forbidden"),
        ("http", http_proxy(status="502 Bad\tGateway"), "502"),
        ("socks5h", socks5_proxy(reply=2), "not allowed"),
        ("socks5h", socks5_proxy(reply=77), "refused"),
        ("socks4a", socks4_proxy(reply=91), "rejected"),
    ]


@pytest.mark.parametrize("case", range(len(refusals())))
async def test_a_proxy_that_refuses_is_quoted(case: int) -> None:
    scheme, running, told = refusals()[case]
    async with running as proxy:
        with pytest.raises(ProxyError, match=told):
            await connect_through(Proxy(scheme, "127.0.0.1", proxy.port), "server.test", 1)


HOSTILE = {
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
    "an endless line": b"A" * 1_000_000,
    "garbage": b"\0\xff" * 400,
    "not quite HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "nothing, and ends": b"",
    "half an answer, and ends": b"HTTP/1.1 200 OK\r\nX",
    "endless trials": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100_000,
    "steering": b"HTTP/1.1 403 \x9b31mred\r\n\r\n",
    "more than an answer": b"HTTP/1.1 200 OK\r\n\r\nX",
    "a method never offered": b"\x05\x01",
    "another version": b"\x04\x00" * 10,
    "a bad name in its answer": b"\x05\x00\x05\x00\x00\x03\x02\xff\xff\x00\x00",
}


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_proxy_that_lies_is_refused(runner: asyncio.Runner, scheme: str, name: str) -> None:
    async def go() -> None:
        async with saying(HOSTILE[name], end=True) as proxy:
            with pytest.raises(ProxyError) as caught:
                await connect_through(Proxy(scheme, "127.0.0.1", proxy.port), "server.test", 1)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 300

    runner.run(go())


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h", "socks4a"])
def test_a_proxy_that_never_answers_is_given_up(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(module, "PROXY_TIMEOUT", 0.1)

    async def go() -> None:
        async with saying(b"") as proxy:
            with pytest.raises(ProxyError, match="accepts connections but does not answer"):
                await connect_through(Proxy(scheme, "127.0.0.1", proxy.port), "server.test", 1)

    runner.run(go())


def test_an_answer_may_come_byte_by_byte(runner: asyncio.Runner) -> None:
    """python-socks takes the first read for the whole of it."""

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nVia: test\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        words = await reader.readexactly(5)
        writer.write(b"\1" + words)

    async def go() -> None:
        async with serving(dribble) as port:
            await talk(Proxy("http", "127.0.0.1", port), "server.test", 1)

    runner.run(go())


def test_a_proxy_may_be_spoken_to_by_tls(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = issue(tmp_path, "proxy")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def go() -> None:
        async with echo() as port, http_proxy(tls=tls, credentials="me:s3cret") as proxy:
            https = Proxy("https", "127.0.0.1", proxy.port, "me", "s3cret")
            with pytest.raises(ProxyError, match="certificate"):
                await connect_through(https, "127.0.0.1", port)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            with await connect_through(https, "127.0.0.1", port) as sock:
                words = bytes(300_000)
                assert await say(sock, words[:9]) == b"\1" + words[:9]
            plain = Proxy("https", "127.0.0.1", port)
            with pytest.raises(ProxyError, match="TLS"):
                await connect_through(plain, "127.0.0.1", port)

    runner.run(go())


@pytest.mark.parametrize("tls", [False, True])
def test_what_ends_on_one_side_ends_on_the_other(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    context = None
    if tls:
        certificate, key = issue(tmp_path, "proxy")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def go() -> None:
        ended = asyncio.Event()

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.read(1) != b"q":
                await reader.read()
                ended.set()

        loop = asyncio.get_running_loop()
        async with serving(once) as port, http_proxy(tls=context) as proxy:
            way = Proxy("https" if tls else "http", "127.0.0.1", proxy.port)
            async with asyncio.timeout(10):
                with await connect_through(way, "127.0.0.1", port) as sock:
                    await loop.sock_sendall(sock, b"q")
                    assert await loop.sock_recv(sock, 9) == b""
                with await connect_through(way, "127.0.0.1", port) as sock:
                    await loop.sock_sendall(sock, b"w")
                await ended.wait()

    runner.run(go())


async def test_a_proxy_that_cannot_be_reached_is_named() -> None:
    port = free_port()
    with pytest.raises(ProxyError, match=f"the proxy 127.0.0.1:{port} refuses connections"):
        await connect_through(Proxy("socks5h", "127.0.0.1", port, "me", "s3cret"), "server.test", 1)


def test_a_dead_proxy_that_is_not_needed_costs_nothing(runner: asyncio.Runner) -> None:
    async def go() -> None:
        async with echo() as port, http_proxy(status="403 Forbidden") as refusing:
            for proxy_port in (free_port(), refusing.port):
                with await connect(Proxy("http", "127.0.0.1", proxy_port), "127.0.0.1", port) as sock:
                    assert await say(sock, b"hello") == b"\1hello"

    runner.run(go())


def test_a_silent_proxy_that_is_not_needed_costs_a_moment(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DIRECT_DELAY", 0.1)
    dead = free_port()

    async def go() -> None:
        async with echo() as port:
            with await connect(Proxy("http", "127.0.0.2", dead), "127.0.0.1", port) as sock:
                assert await say(sock, b"hello") == b"\1hello"

    with swallowing("127.0.0.2", dead):
        runner.run(go())


def test_a_proxy_is_used_although_the_server_answers_directly(runner: asyncio.Runner) -> None:
    async def go() -> None:
        async with echo() as port, http_proxy() as proxy:
            (await connect(Proxy("http", "127.0.0.1", proxy.port), "127.0.0.1", port)).close()
            assert proxy.asked == [("127.0.0.1", port)]

    runner.run(go())


def test_a_proxy_that_is_needed_is_waited_for(
    runner: asyncio.Runner, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only a proxy leads out, names often cannot be looked up, and the proxy may be slow."""
    monkeypatch.setattr(module, "DIRECT_DELAY", 0.01)
    silence = threading.Event()
    for family in (AF_INET, AF_INET6):
        names.answer("hidden.test", family, silence, TRY_AGAIN)

    async def go() -> None:
        async with echo() as port, http_proxy(ways=HIDDEN) as proxy:
            with await connect(Proxy("http", "127.0.0.1", proxy.port), "hidden.test", port) as sock:
                assert await say(sock, b"hello") == b"\1hello"

    try:
        runner.run(go())
    finally:
        silence.set()


def test_when_nothing_leads_there_both_ways_are_told(runner: asyncio.Runner) -> None:
    proxy, server = free_port(), free_port()

    async def go() -> None:
        with pytest.raises(ProxyError) as caught:
            await connect(Proxy("http", "127.0.0.1", proxy), "127.0.0.2", server)
        assert str(caught.value) == (
            f"the proxy 127.0.0.1:{proxy} refuses connections; directly, 127.0.0.2 refuses connections"
        )
        assert caught.value.hint

    runner.run(go())
