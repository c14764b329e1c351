"""A peer connection that takes its time tells what it tries."""

from __future__ import annotations

import gc

import pytest

from flyx.client import link
from flyx.client.link import ConnectionOptions, Link
from flyx.client.signaling import Signaling
from flyx.errors import NoRelay, SenderLeft
from flyx.rtc.attempts import Attempts
from flyx.rtc.policy import IcePolicy
from flyx.server.app import Server
from flyx.server.config import ServerConfig, TunnelConfig
from flyx.signaling.messages import IceCandidate, IceCandidateData, Role


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


async def test_an_output_that_is_closed_ends_the_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_relays_alone_are_not_to_be_had_of_a_server_with_the_last_resort_alone() -> None:
    """No checks begin without a relayed candidate, and the tunnel would come after them."""
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False, relay=TunnelConfig(2e6))
    options = ConnectionOptions(IcePolicy(relay_only=True))
    async with Server(config) as server, Signaling(server.url, None, Role.SENDER) as signaling:
        assert signaling.joined.tunnel is not None
        with pytest.raises(NoRelay):
            options.check(signaling)


async def test_what_was_told_at_the_last_moment_leaves_nothing_behind() -> None:
    """A coroutine that nobody awaits is a warning, and so an error here."""
    config = ServerConfig(host="127.0.0.1", port=0, stun_urls=(), test_room=False)
    async with Server(config) as server, Signaling(server.url, None, Role.SENDER) as signaling:
        ending = Link(signaling, None)
        ending.take(IceCandidate(data=IceCandidateData(client_id=signaling.joined.client_id, candidate=None)))
        await ending.close()
    gc.collect()
