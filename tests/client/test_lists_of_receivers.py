"""Each receiver of one sender gets what is there when it comes: a real server and real connections."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyx.client import events, listing
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.receiving import ReceiveDriver
from flyx.client.send import SendOptions, send
from flyx.client.signaling import Signaling
from flyx.errors import FlyxError, NothingToSend
from flyx.server.app import Server
from flyx.signaling.messages import Role
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.receiver import Receiver
from tests.client.test_send import CODE, ByHand, Told
from tests.server.peers import local


@pytest.fixture(autouse=True)
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list is too old at once."""
    monkeypatch.setattr(listing, "FRESH", 0.0)


@asynccontextmanager
async def sender_of(url: str, *paths: Path) -> AsyncIterator[tuple[Told, str]]:
    """A sender to as many as come, what it tells, and its room."""
    told = Told()
    task = asyncio.create_task(send(SendOptions(url, paths, CODE, receivers=0), told.queue.put_nowait))
    try:
        yield told, (await told.hear(events.RoomOpened)).room_id
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def received(url: str, room_id: str, directory: Path) -> dict[str, bytes]:
    """Receive; return what has arrived."""
    words = "lemon", "otter"
    options = ReceiveOptions(url, room_id, words, None, directory, ExistingPolicy.REFUSE, None)
    await receive(options, lambda _: None)
    return contents_of(directory)


def contents_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_each_receiver_gets_what_is_there_when_it_comes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"first")
    async with (
        Server(local(stun_urls=())) as server,
        sender_of(server.url, tree) as (told, room_id),
    ):
        assert await received(server.url, room_id, tmp_path / "in 1") == {"a": b"first"}
        (tree / "a").write_bytes(b"second, longer")
        (tree / "b").write_bytes(b"new")
        now_there = {"a": b"second, longer", "b": b"new"}
        assert await received(server.url, room_id, tmp_path / "in 2") == now_there
        known = await told.hear(events.ManifestKnown)
        assert known.manifest.file_count == 2

        os.rename(tree, tmp_path / "elsewhere")
        with pytest.raises(FlyxError, match="what was to be sent is gone"):
            await received(server.url, room_id, tmp_path / "in 3")
        ended = await told.hear(events.PeerEnded, lambda event: event.error is not None)
        assert isinstance(ended.error, NothingToSend)
        assert str(ended.error) == f"What was to be sent is gone: there is no file or directory {tree}"

        os.rename(tmp_path / "elsewhere", tree)
        assert await received(server.url, room_id, tmp_path / "in 4") == now_there


async def test_a_receiver_whose_connection_is_repaired_goes_on_with_its_list(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"first")
    async with (
        Server(local(stun_urls=())) as server,
        sender_of(server.url, tree) as (told, room_id),
        Signaling(server.url, room_id, Role.RECEIVER) as signaling,
    ):
        receiver = ByHand(signaling)
        with ThreadPoolExecutor(1) as disk:
            async with receiver.connected(disk):
                await told.hear(events.PeerPaired)
            await told.hear(events.PeerLost)
            (tree / "b").write_bytes(b"new")
            async with receiver.connected(disk) as context:
                machine = Receiver(ask=False, now=time.monotonic())
                with Destination(tmp_path / "in") as destination:
                    await ReceiveDriver(machine, context, lambda _: destination, None).run()
        assert os.listdir(tmp_path / "in" / "tree") == ["a"]
        assert await received(server.url, room_id, tmp_path / "in 2") == {"a": b"first", "b": b"new"}


async def test_a_list_that_takes_long_is_made_before_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any is too long.
    monkeypatch.setattr(listing, "LONG", 0.0)
    (tmp_path / "a").write_bytes(b"first")
    async with (
        Server(local(stun_urls=())) as server,
        sender_of(server.url, tmp_path / "a") as (_, room_id),
    ):
        (tmp_path / "a").write_bytes(b"second")
        assert await received(server.url, room_id, tmp_path / "in") == {"a": b"second"}
