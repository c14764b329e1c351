"""A peer connection that takes its time tells what it tries."""

from __future__ import annotations

import pytest

from flyx.client import link
from flyx.client.link import Link
from flyx.client.signaling import Signaling
from flyx.errors import SenderLeft
from flyx.rtc.attempts import Attempts
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from flyx.signaling.messages import Role


async def test_what_is_tried_is_told_once_when_connecting_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TELL_AFTER", 0.05)
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)
    told: list[Attempts] = []
    async with Server(config) as server, Signaling(server.url, None, Role.SENDER) as signaling:
        connecting = Link(signaling, None)

        def tell(attempts: Attempts) -> None:
            told.append(attempts)
            connecting.give_up(SenderLeft())

        await connecting.offer()
        try:
            with pytest.raises(SenderLeft):
                await connecting.connected(tell)
        finally:
            await connecting.close()
    assert told == [Attempts()]


async def test_who_cannot_be_told_any_more_ends_the_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TELL_AFTER", 0.05)
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)

    def gone(_: Attempts) -> None:
        raise BrokenPipeError

    async with Server(config) as server, Signaling(server.url, None, Role.SENDER) as signaling:
        connecting = Link(signaling, None)
        await connecting.offer()
        try:
            with pytest.raises(BrokenPipeError):
                await connecting.connected(gone)
        finally:
            await connecting.close()
