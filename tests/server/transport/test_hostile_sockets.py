"""Clients that break every rule they can, one socket each, against the running server.

Whatever they do: it ends by itself, it costs a bounded amount of memory, nobody else notices, and nothing of
it is logged as an error of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flyx.server.app import Server
from flyx.server.config import LimitConfig
from tests.server.peers import PATIENCE, local, pair, until
from tests.server.raw_websocket import CONT, HANDSHAKE, PING, PONG, TEXT, Raw, connection, frame, http, raw

HASTY = LimitConfig(handshake_timeout=0.2)
# A request that goes on.
POST = b"POST /room HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def unimpressed(caplog: pytest.LogCaptureFixture, **changes: Any) -> AsyncIterator[Server]:
    """A server whose other clients, connections and log must be as before in the end."""
    caplog.set_level(logging.INFO)
    async with Server(local(**{"limits": HASTY, "linger": 0.2, **changes})) as server:
        async with pair(server) as (sender, receiver):
            yield server
            await sender.expect_silence()
            await receiver.expect_silence()
            async with asyncio.timeout(PATIENCE):
                while b"flyx_connections 3.0" not in await http(server, get("/metrics")):
                    pass
    wrong = [r for r in caplog.records if r.levelno >= logging.WARNING and r.getMessage() != "limit reached"]
    assert wrong == []


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


# Slow ones.

SLOW = {
    "nothing": b"",
    "half a request line": b"GET /ro",
    "half a header": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "no end of headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y\r\n",
    "no body": POST + b"Content-Length: 10\r\n\r\n",
    "half a body": POST + b"Content-Length: 10\r\n\r\n{}",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "half a handshake": HANDSHAKE.partition("Sec-")[0].format(path="/ws", host="localhost").encode(),
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW.keys())
async def test_half_a_request_is_not_waited_for(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server:
        answer = await http(server, sent)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'limit="handshake"} 1.0' in await http(server, get("/metrics"))


async def test_a_request_that_trickles_in_is_not_waited_for_either(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server, connection(server) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        answer = asyncio.create_task(client.rest())
        # Each line comes long before the deadline, were there one for each. The last may find it closed.
        while not answer.done():
            with contextlib.suppress(ConnectionError):
                await client.send(b"X-Padding: x\r\n")
            await asyncio.wait((answer,), timeout=0.05)
        assert answer.result().startswith(b"HTTP/1.1 408 ")


async def test_who_never_reads_the_answer_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server, connection(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(get("/openapi.json").replace(b"close", b"keep-alive") * 20)


async def test_pings_that_are_never_answered_end_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog, ping_interval=0.2, ping_timeout=0.2) as server, raw(server) as client:
        opcode, _ = await client.receive()
        assert opcode == PING
        assert await client.hear() == "close 1011"
        await client.end()


# Large and deep ones.


async def test_headers_without_end_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server:
        for flood in (b"X: " + b"y" * 100_000, b"X: y\r\n" * 20_000, b"A" * 100_000):
            answer = await flooded(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + flood)
            assert answer == b"" or answer.split()[1] in (b"400", b"431")


async def test_a_handshake_with_too_many_headers_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server:
        many = "".join(f"X-{n}: y\r\n" for n in range(300))
        handshake = HANDSHAKE.format(path="/ws", host="localhost", headers=many)
        answer = await flooded(server, handshake.encode())
        assert answer.split()[1] == b"431"


async def flooded(server: Server, request: bytes) -> bytes:
    """What is answered to more than is read; the connection may be reset."""
    async with connection(server) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(request)
        return await client.rest()


DEEP = [
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b'{"type":' + b"[" * 30_000,
    b'{"type":"offer","data":' + b'{"sdp":' * 8000,
]


@pytest.mark.parametrize("deep", DEEP, ids=["lists", "objects", "type", "data"])
async def test_deep_json_is_only_bad_json(deep: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server, raw(server) as client:
        for _ in range(3):
            await client.send(frame(TEXT, deep))
            assert await client.hear() == "bad_json"


async def test_huge_numbers_and_strange_constants_are_only_bad_json(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server, raw(server) as client:
        for text in (b"1" * 60_000, b"1e999999999", b"NaN", b"[Infinity]", b'"\\ud800"'):
            await client.send(frame(TEXT, text))
            assert await client.hear() in ("bad_json", "bad_message")


# Many ones.


async def test_a_flood_of_fragments_without_bytes_is_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server, raw(server) as client:
        await client.send(frame(TEXT, b"", fin=False))
        await until_refused(client, frame(CONT, b"", fin=False) * 100)
        assert b'limit="fragments"} 1.0' in await http(server, get("/metrics"))


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_a_flood_of_pings_or_pongs_is_cut_short(opcode: int, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server, raw(server) as client:
        await until_refused(client, frame(opcode, b"x" * 125) * 50)
        assert b'limit="control_frames"} 1.0' in await http(server, get("/metrics"))


async def test_messages_without_end_are_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    limits = LimitConfig(message_rate=10.0, message_burst=100)
    async with unimpressed(caplog, limits=limits) as server, raw(server) as client:
        await until_refused(client, frame(TEXT, b'{"type":"ping"}') * 50)


async def until_refused(client: Raw, flood: bytes) -> None:
    """Send again and again, reading along, until the server ends the connection."""

    async def read() -> None:
        while await client.reader.read(1 << 16):
            pass

    async with asyncio.timeout(PATIENCE):
        reading = asyncio.create_task(read())
        with contextlib.suppress(ConnectionError):
            while not reading.done():
                await client.send(flood)
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            await reading


# Nonsense.

GARBAGE = {
    "zeros": bytes(1000),
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(190),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a null in a header": b"GET /healthz HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "an unknown upgrade": get("/ws").replace(b"close", b"close, Upgrade\r\nUpgrade: h2c"),
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
async def test_what_is_not_http_is_answered_or_ended(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server:
        answer = await flooded(server, sent)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer


HANDSHAKES = {
    "no key": HANDSHAKE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
    "a short key": HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
    "two keys": HANDSHAKE.replace("{headers}", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
    "an old version": HANDSHAKE.replace("Version: 13", "Version: 8"),
    "no version": HANDSHAKE.replace("Sec-WebSocket-Version: 13\r\n", ""),
    "POST": HANDSHAKE.replace("GET", "POST"),
}


@pytest.mark.parametrize("handshake", HANDSHAKES.values(), ids=HANDSHAKES.keys())
async def test_a_bad_handshake_is_refused(handshake: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server:
        answer = await http(server, handshake.format(path="/ws", host="localhost", headers="").encode())
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer


async def test_pipelined_requests_are_answered_in_turn_and_garbage_after_them_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = get("/healthz").replace(b"Connection: close\r\n", b"")
    async with unimpressed(caplog) as server:
        answer = await flooded(server, request * 3 + b"\xff\xfe garbage\r\n\r\n")
        assert answer.count(b'{"status":"ok"}') == 3
        assert b"HTTP/1.1 400 " in answer


async def test_frames_before_the_handshake_is_over_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    handshake = HANDSHAKE.format(path="/ws", host="localhost", headers="").encode()
    async with unimpressed(caplog) as server, connection(server) as client:
        await client.send(handshake + frame(TEXT, b"garbage") * 3)
        async with asyncio.timeout(PATIENCE):
            response = await client.reader.readuntil(b"\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 101 ")


async def test_noise_in_the_place_of_frames_ends_only_its_own_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noise = random.Random(11)
    async with unimpressed(caplog) as server:
        for _ in range(30):
            async with raw(server) as client:
                try:
                    await client.send(noise.randbytes(noise.randrange(1, 5000)))
                    client.writer.write_eof()
                    async with asyncio.timeout(PATIENCE):
                        await client.reader.read()
                except ConnectionError:
                    pass


async def test_connections_that_vanish_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as server:
        tasks = len(asyncio.all_tasks())
        for sent in (b"", b"GET /", POST, POST + b"Content-Length: 5\r\n\r\n"):
            for _ in range(10):
                async with connection(server) as client:
                    await client.send(sent)
        for _ in range(10):
            async with raw(server) as client:
                await client.send(frame(TEXT, b"x", fin=False))
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
