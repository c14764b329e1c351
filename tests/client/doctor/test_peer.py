"""A sender that waits is connected to, and is none the worse for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyx.client import events
from flyx.client.doctor import peer
from flyx.client.doctor.finding import FindingState
from flyx.client.doctor.peer import check_peer
from flyx.client.receive import ReceiveOptions, receive
from flyx.client.signaling import Signaling
from flyx.errors import NoSuchRoom, TransferInterrupted
from flyx.rtc import peer as rtc_peer
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from flyx.signaling.messages import Role
from flyx.storage.writer import ExistingPolicy
from tests.client.test_send import sending


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)
    async with Server(config) as server:
        yield server


async def test_the_way_is_tried_often_and_the_code_stays_good(tmp_path: Path) -> None:
    async with running() as server, sending(server.url, tmp_path) as (task, told, room_id):
        for _ in range(4):
            found, *pairs = await check_peer(server.url, room_id)
            assert (found.name, found.state) == ("peer", FindingState.OK)
            assert "connected directly" in found.words
            assert {pair.name for pair in pairs} == {"pair"}
            assert "works" in {pair.figures["result"] for pair in pairs}
            assert "127.0.0.1" not in "".join(pair.words for pair in pairs)
            ended = await told.hear(events.PeerEnded)
            # No words were wrong: none were given. Nor was anything lost.
            assert type(ended.error) is TransferInterrupted
            assert ended.error.fields["reason"] == "the receiver left"
            assert not ended.error.closes_room
        options = ReceiveOptions(
            server.url, room_id, ("lemon", "otter"), None, tmp_path / "in", ExistingPolicy.REFUSE, None
        )
        await receive(options, lambda _: None)
        await task
    assert (tmp_path / "in" / "file").read_bytes() == b"content"


async def test_a_sender_that_offers_nothing_is_said_to_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer, "OFFER_TIMEOUT", 0.1)
    async with running() as server, Signaling(server.url, None, Role.SENDER) as sender:
        (found,) = await check_peer(server.url, sender.joined.room_id)
    assert found.state is FindingState.FAILING
    assert "has offered none within 0.1 s" in found.words


async def test_where_no_path_is_the_words_say_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as server, sending(server.url, tmp_path) as (_, told, room_id):
        monkeypatch.setattr(rtc_peer, "CONNECT_TIMEOUT", 0.0)
        found, *_ = await check_peer(server.url, room_id)
        monkeypatch.undo()
        await told.hear(events.PeerEnded)
    assert found.state is FindingState.FAILING
    assert "it was not made within" in found.words
    assert "flyx doctor" in found.advice


async def test_without_such_a_room_the_error_is_the_finding() -> None:
    async with running() as server:
        with pytest.raises(NoSuchRoom):
            await check_peer(server.url, "ABCDEF")
