from __future__ import annotations

from dataclasses import replace

import pytest

from flyx.cli.turn_options import turn_of
from flyx.errors import InputError
from flyx.server.app import Server
from flyx.server.config import ServerConfig, TurnConfig
from flyx.server.turn import credentials
from tests.server.peers import FakeClock, joined, local

TURN = TurnConfig(("turn:turn.example:3478", "turns:turn.example:5349?transport=tcp"), "north", ttl=600)


def test_a_password_is_the_hmac_of_a_name_that_says_when_it_ends() -> None:
    server = credentials(TURN, "somebody", 1_000_000.9)
    assert server.urls == TURN.urls
    assert server.username == "1000600:somebody"
    # `echo -n 1000600:somebody | openssl dgst -sha1 -hmac north -binary | base64`
    assert server.credential == "JQAxGKWAdDKCBe7PCAJ/cSYIIn8="


async def test_each_client_gets_credentials_of_its_own() -> None:
    clock = FakeClock()
    config = local(turn=TURN, stun_urls=("stun:stun.example",))
    async with Server(config, clock=clock) as server, joined(server) as sender:
        async with joined(server, f"/ws/{sender.room_id}") as receiver:
            for client in (sender, receiver):
                stun, turn = client.joined["ice_servers"]
                assert stun == {"urls": ["stun:stun.example"]}
                assert turn["urls"] == list(TURN.urls)
                assert turn["username"] == f"{int(clock.now + 600)}:{client.id}"
                assert turn["credential"]
                assert client.joined["ice_servers_ttl"] == 600


@pytest.mark.parametrize(
    "config",
    [
        local(stun_urls=(f"stun:{'a' * 600}",)),
        local(stun_urls=("stun:stun.example",) * 17),
        local(turn=TurnConfig((f"turn:{'a' * 600}",), "north")),
        local(turn=TurnConfig(("turn:turn.example",) * 17, "north")),
        local(turn=replace(TURN, ttl=0)),
    ],
    ids=["a long STUN URL", "many STUN URLs", "a long TURN URL", "many TURN URLs", "no time"],
)
def test_what_no_client_would_take_is_refused_before_there_is_one(config: ServerConfig) -> None:
    with pytest.raises(InputError, match="ice_servers") as caught:
        Server(config)
    assert "north" not in str(caught.value)


async def test_a_client_that_asks_gets_newer_credentials() -> None:
    clock = FakeClock()
    async with Server(local(turn=TURN), clock=clock) as server, joined(server) as client:
        clock.now += 500
        await client.say({"type": "ice_servers", "data": {}})
        answer = await client.expect("ice_servers")
        turn = answer["ice_servers"][-1]
        assert turn["username"] == f"{int(clock.now + 600)}:{client.id}"
        assert answer["ice_servers_ttl"] == 600


async def test_a_client_that_says_what_the_servers_are_is_told_that_it_does_not() -> None:
    async with Server(local(turn=TURN)) as server, joined(server) as client:
        servers = [{"urls": ["turn:elsewhere.example"], "username": "a", "credential": "b"}]
        await client.say({"type": "ice_servers", "data": {"ice_servers": servers}})
        await client.expect_error("unexpected_type")


async def test_requests_for_credentials_count_like_any_message() -> None:
    config = local(turn=TURN, limits=replace(local().limits, message_rate=1.0, message_burst=5))
    async with Server(config) as server, joined(server) as client:
        for _ in range(6):
            await client.say({"type": "ice_servers", "data": {}})
        await client.drain()
        await client.expect_close(4429)


async def test_without_a_turn_server_there_are_no_credentials() -> None:
    async with Server(local()) as server, joined(server) as client:
        assert all("credential" not in entry for entry in client.joined["ice_servers"])
        assert "ice_servers_ttl" not in client.joined


@pytest.mark.parametrize(
    ("urls", "secret"),
    [
        (["turn:example.org"], None),
        (["turn:example.org"], ""),
        (None, "secret"),
        (["stun:example.org"], "secret"),
        (["turn:"], "secret"),
        (["example.org"], "secret"),
    ],
)
def test_half_a_turn_service_is_refused(urls: list[str] | None, secret: str | None) -> None:
    with pytest.raises(InputError) as caught:
        turn_of(urls, secret, 3600)
    assert caught.value.hint
