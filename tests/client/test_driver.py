"""A driver of a transfer, between channels and a disk that the test is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from flyx.client.driver import Wiring
from flyx.client.receiving import ReceiveDriver
from flyx.client.serving import SendDriver
from flyx.errors import ConnectionLost
from flyx.net.changes import Change, Moved, Slept
from flyx.rtc.peer import ChannelListener, Channels, PeerConnection
from flyx.storage.writer import Destination
from flyx.transfer import messages
from flyx.transfer.disk import Operation, Outcome
from flyx.transfer.rate_limit import MOST_PORTIONS, RateLimit
from flyx.transfer.receiver import Receiver
from flyx.transfer.sender import Sender
from tests.server.peers import until
from tests.simulator import MemorySource, manifest_of

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

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
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
        wiring = Wiring(connection, channels, self.disk, 1, lambda _: None)
        machine = Receiver(ask=False, now=time.monotonic())
        self.driver = ReceiveDriver(machine, wiring, lambda _: self.destination, None)

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
        wiring = Wiring(cast(PeerConnection, FakeConnection()), channels, disk, 1, lambda _: None)
        source = cast(Any, MemorySource(machine.manifest, files))
        driver = SendDriver(machine, wiring, source, limit=limit)
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
