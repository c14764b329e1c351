"""What becomes of a receiver that has paired and lost its connection: a real server and real connections."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from flyx.client import events, pairing
from flyx.client.compression import Compression
from flyx.client.driver import DriverContext
from flyx.client.link import Link
from flyx.client.pairing import Pairing
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.receiving import ReceiveDriver
from flyx.client.send import SendOptions, send
from flyx.client.signaling import Signaling
from flyx.errors import ConnectionLost, FlyxError, RoomLost, TooManyTries, WrongWords
from flyx.pairing.exchange import Code, Greeting, ReceiverExchange, WordsWanted
from flyx.pairing.keys import PairingSession
from flyx.rtc.channel import Channels
from flyx.server.app import Server
from flyx.signaling.messages import Offer, Role
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.digests import BLAKE3, Algorithm
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.messages import ZSTD
from flyx.transfer.rate_limit import MOST_PORTIONS, portion_of
from flyx.transfer.receiver import Receiver
from tests.client.network import network
from tests.server.peers import local, until
from tests.simulator import digests_of

CODE = Code("words", 2, "lemon-otter")

Event = TypeVar("Event")


class Told:
    """What a sender tells."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[events.Event] = asyncio.Queue()

    async def hear(self, kind: type[Event], matches: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next event of this kind."""
        while not isinstance(event := await self.queue.get(), kind) or not matches(event):
            pass
        return event


@asynccontextmanager
async def sending(
    url: str,
    tmp_path: Path,
    content: bytes = b"content",
    limit: int | None = None,
    compression: Compression = Compression.AUTO,
    receivers: int = 1,
) -> AsyncIterator[tuple[asyncio.Task[None], Told, str]]:
    """A sender of one file, what it tells, and its room."""
    (tmp_path / "file").write_bytes(content)
    told = Told()
    options = SendOptions(
        url, [tmp_path / "file"], CODE, receivers=receivers, limit=limit, compression=compression
    )
    task = asyncio.create_task(send(options, told.queue.put_nowait))
    try:
        yield task, told, (await told.hear(events.RoomOpened)).room_id
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class ByHand:
    """A receiver whose connections are made, and lost, by the test."""

    def __init__(self, signaling: Signaling, features: frozenset[str] = frozenset()) -> None:
        """Args:
        features: that it says it has.
        """
        self._signaling = signaling
        self._greeting = Greeting("by hand", features)
        self._session: PairingSession | None = None

    @asynccontextmanager
    async def connected(self, disk: ThreadPoolExecutor) -> AsyncIterator[DriverContext]:
        """Take the next offer, and pair; the connection is lost with the block."""
        while not isinstance(message := await self._signaling.receive(), Offer):
            pass
        link = Link(self._signaling, None)
        try:
            link.take(message)
            channels = await link.connection.connected()
            await self._pair(link, channels)
            yield DriverContext(link.connection, channels, disk, 1, lambda _: None)
        finally:
            await link.close()

    async def _pair(self, link: Link, channels: Channels) -> None:
        def known(_: WordsWanted) -> str:
            assert self._session is None, "asked for words again"
            return CODE.password

        exchange = ReceiverExchange(
            self._signaling.joined.room_id,
            self._greeting,
            self._session,
            has_words=True,
            entropy=secrets.token_bytes,
        )
        self._session = (await Pairing(exchange, known).run(link.connection, channels)).session


async def guess(url: str, room_id: str, directory: Path) -> FlyxError:
    """Give wrong words; return what that comes to."""
    words = "lemon", "apple"
    options = ReceiveOptions(url, room_id, words, None, directory, ExistingPolicy.REFUSE, None)
    with pytest.raises(FlyxError) as caught:
        await receive(options, lambda _: None)
    return caught.value


async def test_guessers_who_have_the_room_closed_do_not_end_a_repair(tmp_path: Path) -> None:
    async with (
        Server(local(stun_urls=())) as server,
        sending(server.url, tmp_path) as (task, told, room_id),
        Signaling(server.url, room_id, Role.RECEIVER) as signaling,
    ):
        receiver = ByHand(signaling)
        with ThreadPoolExecutor(1) as disk:
            async with receiver.connected(disk):
                await told.hear(events.PeerPaired)
            await told.hear(events.PeerLost)
            guesses = [await guess(server.url, room_id, tmp_path / "guesser") for _ in range(3)]
            assert [type(error) for error in guesses] == [WrongWords, WrongWords, TooManyTries]
            closed = await told.hear(events.PeerEnded, lambda e: isinstance(e.error, TooManyTries))
            assert closed.peer == 4
            async with receiver.connected(disk) as context:
                machine = Receiver(ask=False, now=time.monotonic())
                with Destination(tmp_path / "in") as destination:
                    await ReceiveDriver(machine, context, lambda _: destination, None).run()
        done = await told.hear(events.PeerEnded)
        assert (done.peer, done.error) == (1, None)
        await task
        assert (tmp_path / "in" / "file").read_bytes() == b"content"


async def test_without_a_room_a_repair_ends_at_once(tmp_path: Path) -> None:
    async with (
        Server(local(stun_urls=())) as server,
        Server(local(stun_urls=())) as other,
        network(server.port) as net,
        sending(net.url, tmp_path) as (task, told, room_id),
        Signaling(server.url, room_id, Role.RECEIVER) as signaling,
    ):
        with ThreadPoolExecutor(1) as disk:
            async with ByHand(signaling).connected(disk):
                await told.hear(events.PeerPaired)
            await told.hear(events.PeerLost)
        # It forgot its rooms.
        net.target = other.port
        net.cut()
        ended = await told.hear(events.PeerEnded)
        assert isinstance(ended.error, ConnectionLost)
        with pytest.raises(RoomLost):
            await task


@pytest.mark.parametrize("whose", ["sender's", "receiver's"])
async def test_a_limit_holds_over_another_connection(whose: str, tmp_path: Path) -> None:
    rate = 400_000
    content = bytes(range(256)) * (rate // 256)
    senders, receivers = (rate, None) if whose == "sender's" else (None, rate)
    async with (
        Server(local(stun_urls=())) as server,
        sending(server.url, tmp_path, content, senders) as (task, told, room_id),
        Signaling(server.url, room_id, Role.RECEIVER) as signaling,
    ):
        receiver = ByHand(signaling)
        with ThreadPoolExecutor(1) as disk, Destination(tmp_path / "in") as destination:
            async with receiver.connected(disk) as context:
                first = Receiver(ask=False, now=time.monotonic(), rate=receivers)
                driver = ReceiveDriver(first, context, lambda _: destination, None)
                running = asyncio.create_task(driver.run())
                await until(lambda: first.data_received > rate // 10)
                driver.channel_closed()
                with pytest.raises(ConnectionLost):
                    await running
            await told.hear(events.PeerLost)
        with ThreadPoolExecutor(1) as disk, Destination(tmp_path / "in") as destination:
            async with receiver.connected(disk) as context:
                begun = time.monotonic()
                second = Receiver(ask=False, now=begun, rate=receivers)
                await ReceiveDriver(second, context, lambda _: destination, None).run()
                most = rate * (time.monotonic() - begun) + MOST_PORTIONS * portion_of(rate)
        await task
    assert (tmp_path / "in" / "file").read_bytes() == content
    assert rate // 2 < second.data_received <= most


async def test_one_sender_hashes_for_each_receiver_as_that_can(tmp_path: Path) -> None:
    content = os.urandom(2 * BLOCK_SIZE + 7)

    async def take(algorithms: tuple[Algorithm, ...], context: DriverContext) -> tuple[str, str]:
        """Receive all of it; return its digest, and what that is by."""
        machine = Receiver(ask=False, now=time.monotonic(), algorithms=algorithms)
        algorithm = algorithms[0]
        with Destination(tmp_path / algorithm.value) as destination:
            confirmed = await ReceiveDriver(machine, context, lambda _: destination, None).run()
        assert (tmp_path / algorithm.value / "file").read_bytes() == content
        file_digest = algorithm.digest(digests_of(content, algorithm))
        assert confirmed.digest == algorithm.digest(file_digest).hex()
        return confirmed.digest, algorithm.value

    async with (
        Server(local(stun_urls=())) as server,
        sending(server.url, tmp_path, content, receivers=2) as (task, told, room_id),
        Signaling(server.url, room_id, Role.RECEIVER) as first,
        Signaling(server.url, room_id, Role.RECEIVER) as second,
    ):
        with ThreadPoolExecutor(2) as disk:
            async with (
                ByHand(first, frozenset({BLAKE3})).connected(disk) as new,
                ByHand(second).connected(disk) as old,
            ):
                confirmed = await asyncio.gather(
                    take((Algorithm.BLAKE3, Algorithm.SHA256), new), take((Algorithm.SHA256,), old)
                )
        done = [await told.hear(events.TransferDone) for _ in range(2)]
        # Each of them has told what the sender tells of it.
        assert {(event.digest, event.algorithm) for event in done} == set(confirmed)
        await task


@pytest.mark.parametrize("old", ["neither", "sender", "receiver"])
async def test_an_older_flyx_at_either_end_is_spoken_to_in_sha256(
    old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = pairing._GREETING
    older = replace(new, features=new.features - {BLAKE3})
    heard: list[events.Event] = []
    async with Server(local(stun_urls=())) as server:
        monkeypatch.setattr(pairing, "_GREETING", older if old == "sender" else new)
        async with sending(server.url, tmp_path) as (task, told, room_id):
            monkeypatch.setattr(pairing, "_GREETING", older if old == "receiver" else new)
            words = tuple(CODE.password.split("-"))
            options = ReceiveOptions(
                server.url, room_id, words, None, tmp_path / "in", ExistingPolicy.REFUSE, None
            )
            await receive(options, heard.append)
            sent = await told.hear(events.TransferDone)
            await task
    (received,) = [event for event in heard if isinstance(event, events.TransferDone)]
    (file,) = [event for event in heard if isinstance(event, events.FileFinished)]
    algorithm = Algorithm.BLAKE3 if old == "neither" else Algorithm.SHA256
    assert sent.algorithm == received.algorithm == file.algorithm == algorithm.value
    assert sent.digest == received.digest
    assert file.digest == algorithm.digest(algorithm.digest(b"content")).hex()
    assert (tmp_path / "in" / "file").read_bytes() == b"content"


TEXT = b"a line of text\n" * 200_000


@pytest.mark.parametrize(
    ("features", "compression", "spared"),
    [
        (frozenset({ZSTD, "unheard-of"}), Compression.ON, range(len(TEXT) // 2, len(TEXT))),
        (frozenset({ZSTD}), Compression.AUTO, range(BLOCK_SIZE // 2, len(TEXT))),
        (frozenset({ZSTD}), Compression.OFF, range(1)),
        # A browser has no zstandard.
        (frozenset({"unheard-of"}), Compression.ON, range(1)),
        (frozenset(), Compression.AUTO, range(1)),
    ],
)
async def test_only_a_receiver_that_can_undo_it_gets_compressed_blocks(
    tmp_path: Path, features: frozenset[str], compression: Compression, spared: range
) -> None:
    async with (
        Server(local(stun_urls=())) as server,
        sending(server.url, tmp_path, TEXT, compression=compression) as (task, told, room_id),
        Signaling(server.url, room_id, Role.RECEIVER) as signaling,
    ):
        with ThreadPoolExecutor(1) as disk:
            async with ByHand(signaling, features).connected(disk) as context:
                machine = Receiver(ask=False, now=time.monotonic())
                with Destination(tmp_path / "in") as destination:
                    await ReceiveDriver(machine, context, lambda _: destination, None).run()
        assert (await told.hear(events.TransferDone)).spared in spared
        await task
        assert (tmp_path / "in" / "file").read_bytes() == TEXT
