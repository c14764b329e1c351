"""What a sender tells others to reach a server by that it knows as its own computer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flyx.client import reach
from flyx.client.reach import Reach, reach_of
from flyx.client.signaling import Signaling
from flyx.server.app import Server
from flyx.server.config import ServerConfig
from flyx.signaling.messages import Role

# Of the loopback, where they stand for addresses of a network.
THERE, ELSEWHERE = "127.0.0.9", "127.0.0.8"


def addresses(monkeypatch: pytest.MonkeyPatch, found: Sequence[str]) -> None:
    monkeypatch.setattr(reach, "offered_addresses", lambda: list(found))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_server_of_this_computer_is_named_by_an_address_that_leads_there(
    host: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses(monkeypatch, [ELSEWHERE, THERE])
    # A proxy would not lead there.
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with Server(ServerConfig(host=THERE, port=0, stun_urls=())) as server:
        async with Signaling(f"ws://{THERE}:{server.port}", None, Role.SENDER) as signaling:
            told = await reach_of(f"{scheme}://{host}:{server.port}/", signaling.joined.room_id)
            assert told == Reach(f"{scheme}://{THERE}:{server.port}", True)
            # Something else may listen there on the same port.
            told = await reach_of(f"{scheme}://{host}:{server.port}/", "000000")
            assert told == Reach(None, False)


async def test_a_server_that_only_this_computer_reaches_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(ServerConfig(host="127.0.0.1", port=0, stun_urls=())) as server:
        async with Signaling(f"ws://127.0.0.1:{server.port}", None, Role.SENDER) as signaling:
            for found in ([], [ELSEWHERE]):
                addresses(monkeypatch, found)
                told = await reach_of(f"ws://localhost:{server.port}", signaling.joined.room_id)
                assert told == Reach(None, False)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("wss://flyx.example.org", "wss://flyx.example.org"),
        ("https://flyx.example.org/flyx/", "https://flyx.example.org/flyx"),
        ("flyx.example.org:8000", "ws://flyx.example.org:8000"),
        ("https://me:s3cret@flyx.example.org/#K7M2QX", "https://flyx.example.org"),
        ("ws://192.0.2.7:8000", "ws://192.0.2.7:8000"),
    ],
)
async def test_another_server_is_named_as_it_was_without_credentials(server: str, told: str) -> None:
    assert await reach_of(server, "K7M2QX") == Reach(told, True)


def test_addresses_that_nobody_has_given_out_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, ["fd00::2", "169.254.1.1", "fe80::1%eth0", "192.0.2.7"])
    assert reach.network_addresses() == ["192.0.2.7", "fd00::2", "169.254.1.1", "fe80::1%eth0"]
