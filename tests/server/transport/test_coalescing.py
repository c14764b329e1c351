from __future__ import annotations

import asyncio
from typing import Any

from flyx.server.app import Server
from flyx.server.transport.coalescing import CoalescingTransport, WriteBatch
from tests.server.peers import local
from tests.server.raw_websocket import HANDSHAKE


class Below(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return 1000

    def close(self) -> None:
        self.written.append("close")
        self.closing = True

    def write_eof(self) -> None:
        self.written.append("eof")

    def abort(self) -> None:
        self.written.append("abort")
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


async def test_what_a_turn_writes_leaves_at_its_end_in_one_piece() -> None:
    batch, one, other = WriteBatch(), Below(), Below()
    first, second = CoalescingTransport(one, batch), CoalescingTransport(other, batch)
    first.write(b"a")
    second.write(b"b")
    first.write(b"c")
    assert not one.written
    assert not other.written
    await asyncio.sleep(0)
    assert (one.written, other.written) == ([b"ac"], [b"b"])
    first.write(b"d")
    await asyncio.sleep(0)
    assert (one.written, other.written) == ([b"ac", b"d"], [b"b"])


async def test_what_waits_counts_as_unsent() -> None:
    transport = CoalescingTransport(Below(), WriteBatch())
    transport.write(b"abc")
    assert transport.get_write_buffer_size() == 1003
    await asyncio.sleep(0)
    assert transport.get_write_buffer_size() == 1000


async def test_a_lot_does_not_wait() -> None:
    below = Below()
    transport = CoalescingTransport(below, WriteBatch())
    transport.write(b"a")
    transport.write(b"b" * 70_000)
    assert below.written == [b"a" + b"b" * 70_000]
    await asyncio.sleep(0)
    assert len(below.written) == 1


async def test_what_waits_comes_before_the_end() -> None:
    for end in ("close", "write_eof"):
        below = Below()
        transport = CoalescingTransport(below, WriteBatch())
        transport.write(b"a")
        getattr(transport, end)()
        await asyncio.sleep(0)
        assert below.written == [b"a", end.removeprefix("write_")]


async def test_nothing_is_written_to_a_connection_that_has_ended() -> None:
    aborted, lost = Below(), Below()
    batch = WriteBatch()
    first, second = CoalescingTransport(aborted, batch), CoalescingTransport(lost, batch)
    first.write(b"a")
    second.write(b"b")
    first.abort()
    lost.closing = True
    await asyncio.sleep(0)
    assert (aborted.written, lost.written) == (["abort"], [])


async def test_the_answer_to_a_handshake_brings_the_first_message_along() -> None:
    async with Server(local()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HANDSHAKE.format(path="/ws", host="127.0.0.1", headers="").encode())
        came = await reader.read(65536)
        writer.close()
    assert came.startswith(b"HTTP/1.1 101 ")
    assert b'"joined"' in came
