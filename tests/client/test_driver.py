"""A driver of a transfer, between channels and a disk that the test is."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from flyx.client import events
from flyx.client.broadcast import Broadcast
from flyx.client.driver import DriverContext
from flyx.client.receiving import ReceiveDriver
from flyx.client.serving import SendDriver, StreamReader
from flyx.errors import ConnectionLost
from flyx.net.changes import Change, Moved, Slept
from flyx.rtc.channel import ChannelListener, Channels
from flyx.rtc.peer import PeerConnection
from flyx.storage.stream_source import StreamSource
from flyx.storage.writer import Destination
from flyx.transfer import messages
from flyx.transfer.disk import BlockRead, BlockRequest, Operation, OperationResult
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.rate_limit import MOST_PORTIONS, RateLimit
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from flyx.transfer.session import PING_INTERVAL
from tests.server.peers import until
from tests.simulator import MemorySource, manifest_of, manifest_of_stream

PATIENCE = 10.0


class FakeChannel:
    """One that takes everything, and keeps it."""

    def __init__(self) -> None:
        self.writable = True
        self.closed = False
        self.violation = None
        self.queued = 0
        self.listener: ChannelListener | None = None
        self.sent: list[bytes | str] = []

    def listen(self, listener: ChannelListener) -> None:
        self.listener = listener

    def send(self, message: bytes | str) -> None:
        self.sent.append(message)


class FakeConnection:
    """One between two sockets of this computer."""

    def __init__(self) -> None:
        self.local: tuple[Any, ...] = ("127.0.0.1", 4000)
        self.is_silent = False

    def path(self) -> None:
        return None

    def statistics(self) -> None:
        return None

    def ends(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return self.local, ("127.0.0.1", 5000)

    def fall_silent(self) -> None:
        self.is_silent = True


class StuckDestination(Destination):
    """A disk that does not come back from its work before it is abandoned."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.begun = threading.Event()
        self.abandoned = threading.Event()

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        self.begun.set()
        assert self.abandoned.wait(PATIENCE)
        return []

    def abandon(self) -> None:
        self.abandoned.set()


class Scene:
    """A driver of a receiver under way."""

    def __init__(self, directory: Path) -> None:
        self.disk = ThreadPoolExecutor(1)
        self.control, self.data = FakeChannel(), FakeChannel()
        # Nobody is waited for that would read our last message.
        self.control.closed = True
        self.connection = FakeConnection()
        self.destination = StuckDestination(directory)
        channels = Channels(cast(Any, self.control), cast(Any, self.data), 16_384)
        connection = cast(PeerConnection, self.connection)
        context = DriverContext(connection, channels, self.disk, 1, lambda _: None)
        machine = Receiver(ask=False, now=time.monotonic())
        self.driver = ReceiveDriver(machine, context, lambda _: self.destination, None)

    def hear(self, message: messages.ControlMessage) -> None:
        assert self.control.listener is not None
        self.control.listener.message_received(messages.serialize_control(message))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "in")
    yield made
    made.destination.abandoned.set()
    made.disk.shutdown()


async def under_way(scene: Scene) -> asyncio.Task[Any]:
    running = asyncio.create_task(scene.driver.run())
    await until(lambda: scene.control.listener is not None)
    return running


async def test_work_of_the_disk_is_told_to_end_before_it_is_waited_for(scene: Scene) -> None:
    """Or Ctrl-C would wait until gigabytes of a doubted journal are read back."""
    running = await under_way(scene)
    for message in messages.manifest_messages(manifest_of({"a": b"a"})):
        scene.hear(message)
    await asyncio.to_thread(scene.destination.begun.wait, PATIENCE)
    running.cancel()
    async with asyncio.timeout(PATIENCE / 2):
        await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert scene.destination.abandoned.is_set()


async def to_a_reader_that_does_not_read(scene: Scene) -> asyncio.Task[Any]:
    """Begin to pass a stream on: the next connection goes on with where it goes."""
    scene.destination.outlives_connection = True
    running = await under_way(scene)
    for message in messages.manifest_messages(manifest_of_stream()):
        scene.hear(message)
    await asyncio.to_thread(scene.destination.begun.wait, PATIENCE)
    return running


@pytest.mark.parametrize("how", ["Ctrl-C", "the sender stops"])
async def test_a_reader_that_does_not_read_holds_up_no_end(scene: Scene, how: str) -> None:
    running = await to_a_reader_that_does_not_read(scene)
    if how == "Ctrl-C":
        running.cancel()
    else:
        scene.hear(messages.Cancel(code="interrupted", message="it was stopped"))
    async with asyncio.timeout(PATIENCE / 2):
        await asyncio.gather(running, return_exceptions=True)
    assert scene.destination.abandoned.is_set()


async def test_what_a_stream_goes_to_outlives_a_connection_that_is_lost(scene: Scene) -> None:
    running = await to_a_reader_that_does_not_read(scene)
    assert scene.control.listener is not None
    scene.control.listener.channel_closed()
    await until(lambda: scene.driver.machine.ended)
    assert not scene.destination.abandoned.is_set()
    # Who reads goes on.
    scene.destination.abandoned.set()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionLost):
            await running


class StreamScene:
    """A driver that sends a stream to a receiver, which has accepted it; the test writes it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        source = StreamSource(self.reader)
        self.broadcast = Broadcast(source, 1, on_wait=lambda _: None, on_begin=lambda: None)
        self.control, self.data = FakeChannel(), FakeChannel()
        channels = Channels(cast(Any, self.control), cast(Any, self.data), 16_384)
        self.disk = ThreadPoolExecutor(1)
        self.events: list[events.Event] = []
        connection = cast(PeerConnection, FakeConnection())
        context = DriverContext(connection, channels, self.disk, 1, self.events.append)
        stream = StreamReader(manifest_of_stream(), self.broadcast, 1)
        self.machine = Sender(stream.manifest, max_message_size=16_384, now=time.monotonic())
        self.machine.release()
        self.driver = SendDriver(self.machine, context, stream)
        self.running: asyncio.Task[Any] | None = None

    async def begin(self) -> asyncio.Task[Any]:
        self.running = asyncio.create_task(self.driver.run())
        await until(lambda: self.control.listener is not None)
        self.hear(messages.Accept(below=1))
        self.hear(messages.Credit(bytes=1 << 20, written=0))
        await until(lambda: self.driver.disk_is_busy)
        # Nobody is waited for that would read our last message.
        self.control.closed = True
        return self.running

    def hear(self, message: messages.ControlMessage) -> None:
        assert self.control.listener is not None
        self.control.listener.message_received(messages.serialize_control(message))

    async def write(self, line: bytes) -> None:
        """Write a line, and wait until it has left."""
        os.write(self.writer, line)
        await until(lambda: any(line in cast(bytes, message) for message in self.data.sent))

    async def close(self) -> None:
        if self.running:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        await self.broadcast.close()
        self.disk.shutdown()
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
async def stream() -> AsyncIterator[StreamScene]:
    made = StreamScene()
    yield made
    await made.close()


@pytest.mark.parametrize("how", ["Ctrl-C", "the receiver stops", "the connection is lost"])
async def test_a_writer_that_says_nothing_holds_up_no_end(stream: StreamScene, how: str) -> None:
    running = await stream.begin()
    assert stream.control.listener is not None
    if how == "Ctrl-C":
        running.cancel()
    elif how == "the receiver stops":
        stream.hear(messages.Cancel(code="interrupted", message="it was stopped"))
    else:
        stream.control.listener.channel_closed()
    async with asyncio.timeout(PATIENCE / 2):
        await asyncio.gather(running, return_exceptions=True)
    # Another connection goes on.
    os.write(stream.writer, b"line")
    (block,) = await stream.broadcast.read(1, [BlockRequest(0, 0, BLOCK_SIZE)])
    assert isinstance(block, BlockRead)
    assert block.data == b"line"


async def test_what_is_verified_is_dropped_also_while_nothing_more_comes(stream: StreamScene) -> None:
    """Or a stream of short lines, of which all that are kept were on their way, would wait for ever."""
    await stream.begin()
    await stream.write(b"line")
    assert not stream.broadcast.has_begun
    stream.hear(messages.Credit(bytes=1 << 20, written=4))
    await until(lambda: stream.broadcast.has_begun)


async def test_the_last_bytes_before_a_pause_are_told_as_progress(stream: StreamScene) -> None:
    await stream.begin()
    for written in (4, 8):
        await stream.write(b"%4d" % written)
        stream.hear(messages.Credit(bytes=1 << 20, written=written))
    # No later than the next look: no ping is due for seconds.
    async with asyncio.timeout(PING_INTERVAL / 2):
        await until(lambda: events.Progress(1, 8, None) in stream.events)


@pytest.mark.parametrize("change", [Moved(), Slept(3.0)])
async def test_a_change_that_does_not_concern_the_path_is_borne(scene: Scene, change: Change) -> None:
    running = await under_way(scene)
    scene.driver.network_changed(change)
    scene.hear(messages.Ping(token=7))
    await until(lambda: messages.serialize_control(messages.Pong(token=7)) in scene.control.sent)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_path_whose_address_is_gone_is_given_up_at_once(scene: Scene) -> None:
    scene.connection.local = ("192.0.2.1", 4000)
    running = await under_way(scene)
    scene.driver.network_changed(Moved())
    async with asyncio.timeout(PATIENCE / 2):
        with pytest.raises(ConnectionLost) as caught:
            await running
    assert "the network of this computer has changed" in str(caught.value)
    # The other side need not have noticed, and may go on sending.
    assert not scene.driver.was_closed
    assert scene.connection.is_silent


@pytest.mark.parametrize(("senders", "receivers"), [(100_000, None), (None, 100_000), (10**9, 100_000)])
async def test_data_leaves_at_the_lower_rate_and_pings_at_once(
    senders: int | None, receivers: int | None
) -> None:
    files = {"a": bytes(40_000)}
    control, data = FakeChannel(), FakeChannel()
    control.closed = True
    channels = Channels(cast(Any, control), cast(Any, data), 262_144)
    limit = RateLimit(senders, time.monotonic()) if senders else None
    machine = Sender(manifest_of(files), max_message_size=262_144, now=time.monotonic(), rate=senders)
    with ThreadPoolExecutor(1) as disk:
        context = DriverContext(cast(PeerConnection, FakeConnection()), channels, disk, 1, lambda _: None)
        source = cast(Any, MemorySource(machine.manifest, files))
        driver = SendDriver(machine, context, source, limit=limit)
        machine.release()
        running = asyncio.create_task(driver.run())
        await until(lambda: control.listener is not None)
        assert control.listener is not None
        begun = time.monotonic()
        for message in (messages.Accept(below=1, rate=receivers), messages.Credit(bytes=1 << 20, written=0)):
            control.listener.message_received(messages.serialize_control(message))
        await until(lambda: len(data.sent) > 2)
        control.listener.message_received(messages.serialize_control(messages.Ping(token=7)))
        await until(lambda: messages.serialize_control(messages.Pong(token=7)) in control.sent)
        assert sum(map(len, data.sent)) < 40_000
        await until(lambda: sum(map(len, data.sent)) > 40_000)
        portion = 2_048
        assert time.monotonic() - begun >= (40_000 - MOST_PORTIONS * portion) / 100_000
        assert max(map(len, data.sent)) <= portion
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
