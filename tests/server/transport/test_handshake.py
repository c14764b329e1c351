from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from flyx.server.admission import SLOT, Admission
from flyx.server.config import ServerConfig
from flyx.server.metrics import Metrics
from flyx.server.transport.coalescing import WriteBatch
from flyx.server.transport.connection import WIRE
from flyx.server.transport.handshake import handshake_in
from flyx.server.transport.protocols import HttpProtocol, WebSocketProtocol
from tests.server.peers import PATIENCE

PLAIN = [
    b"Host: 127.0.0.1:8000",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]
BROWSER = [
    b"Host: flyx.example",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Accept: */*",
    b"Accept-Language: en-US,en;q=0.5",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Sec-WebSocket-Version: 13",
    b"Origin: https://flyx.example",
    b"Sec-WebSocket-Protocol: flyx.v1",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Connection: keep-alive, Upgrade",
    b"Cookie: theme=dark",
    b"Sec-Fetch-Dest: empty",
    b"Pragma: no-cache",
    b"Upgrade: websocket",
]


def request(lines: list[bytes], target: bytes = b"/ws", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((b"GET " + target + b" " + version, *lines, b"", b""))


class Network(asyncio.Transport):
    """Below a protocol; nothing ever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.written += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        ends = {"peername": ("192.0.2.7", 50_000), "sockname": ("192.0.2.1", 8000)}
        return ends.get(name, default)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


async def opened(*pieces: bytes) -> tuple[dict[str, Any], bytes]:
    """What the application is asked when these bytes come, and what goes back when it agrees."""
    asked: list[Scope] = []
    agreed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope)
        assert (await receive())["type"] == "websocket.connect"
        headers = [(b"x-greeting", b"hello")]
        await send({"type": "websocket.accept", "subprotocol": "flyx.v1", "headers": headers})
        agreed.set()
        await asyncio.Event().wait()

    settings = ServerConfig(ping_interval=None)
    shared = {"settings": settings, "admission": Admission(settings, Metrics()), "batch": WriteBatch()}
    config = uvicorn.Config(
        app,
        http=type("Http", (HttpProtocol,), shared),
        ws=type("WebSocket", (WebSocketProtocol,), shared),
        ws_per_message_deflate=False,
        log_config=None,
    )
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Mon, 30 Nov 2026 12:00:00 GMT")]
    network = Network()
    network.protocol = config.http_protocol_class(config, state, {})
    network.protocol.connection_made(network)
    for piece in pieces:
        network.protocol.data_received(piece)
    async with asyncio.timeout(PATIENCE):
        await agreed.wait()
    # What was written leaves at the end of the turn.
    await asyncio.sleep(0)
    for task in state.tasks:
        task.cancel()
    network.protocol.connection_lost(None)
    [scope] = asked
    del scope["state"][SLOT]
    assert scope["extensions"].pop(WIRE) is network.protocol
    return dict(scope), network.written


def compare(data: bytes) -> None:
    """Hold what is read at once against what h11, uvicorn and `websockets` make of it.

    They do where the first piece is no handshake.
    """

    async def both() -> None:
        assert await opened(data) == await opened(data[:1], data[1:])

    asyncio.run(both())


@pytest.mark.parametrize("lines", [PLAIN, BROWSER, [line.lower() for line in PLAIN[:3]] + PLAIN[3:]])
@pytest.mark.parametrize("target", [b"/ws", b"/ws/K7M2QX?role=receiver&hold=3", b"/ws/%41%2F?", b"/?a?b#c"])
def test_what_clients_send_is_read_at_once_and_means_the_same(lines: list[bytes], target: bytes) -> None:
    data = request(lines, target)
    assert handshake_in(data) is not None
    compare(data)


NAMES = st.sampled_from(
    [b"Host", b"X-Forwarded-For", b"Origin", b"Cookie", b"X-~!", b"Upgrade", b"Forwarded"]
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.encode)
LINES = st.one_of(
    st.sampled_from(PLAIN + BROWSER),
    st.tuples(NAMES, st.sampled_from([b": ", b":", b" : "]), VALUES).map(b"".join),
    st.tuples(st.sampled_from([b"Sec-WebSocket-Protocol: ", b"Connection: ", b"TE: "]), VALUES).map(b"".join),
)
TARGETS = st.binary(max_size=12).map(lambda path: b"/" + path) | VALUES.map(lambda path: b"/" + path)


@given(st.lists(LINES, max_size=4), st.randoms(use_true_random=False), TARGETS)
def test_whatever_is_read_at_once_means_the_same(more: list[bytes], order: Any, target: bytes) -> None:
    lines = [*PLAIN, *more]
    order.shuffle(lines)
    data = request(lines, target)
    if handshake_in(data) is not None:
        compare(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(PLAIN)[:-1],
        request(PLAIN) + b"\x89\x80\0\0\0\0",
        request(PLAIN).replace(b"GET", b"POST"),
        request(PLAIN, version=b"HTTP/1.0"),
        request(PLAIN, b"http://127.0.0.1/ws"),
        request(PLAIN, b"/w s"),
        request(PLAIN, b"/w\xc3\xa4"),
        request(PLAIN).replace(b"\r\n", b"\n"),
        *(request(PLAIN[:missing] + PLAIN[missing + 1 :]) for missing in range(len(PLAIN))),
        *(request([*PLAIN, line]) for line in PLAIN),
        request([*PLAIN, b"host: elsewhere"]),
        request([*PLAIN, b"Content-Length: 0"]),
        request([*PLAIN, b"Transfer-Encoding: chunked"]),
        request([*PLAIN, b"Expect: 100-continue"]),
        request([*PLAIN, b"Sec-WebSocket-Protocol: flyx.v1,,x"]),
        request([*PLAIN, b"X: folded", b" line"]),
        request([*PLAIN, b"X : space before the colon"]),
        request([*PLAIN, b"X: \xff"]),
        request([*PLAIN, b"X: nul\0"]),
        request([*PLAIN, b"X: return\rX"]),
        request([*PLAIN, b"X: " + b"x" * 4096]),
        request([*PLAIN, *(b"X-%d: x" % number for number in range(100))]),
        request(PLAIN).replace(b"websocket", b"h2c"),
        request(PLAIN).replace(b"ion: Upgrade", b"ion: close"),
        request(PLAIN).replace(b"13", b"8"),
        request(PLAIN).replace(b"dGhl", b""),
    ],
)
def test_what_is_not_plain_is_left_to_others(data: bytes) -> None:
    assert handshake_in(data) is None
