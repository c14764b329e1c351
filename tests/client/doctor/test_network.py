"""What STUN servers show of the network, against a server on the loopback that pretends to see NATs."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from flyx.client.doctor.finding import Finding, FindingState
from flyx.client.doctor.nat import Filtering, Mapping
from flyx.client.doctor.network import check_network
from flyx.net.names import Address
from flyx.rtc.seam.stun import StunSocket, request_size
from flyx.rtc.servers import StunAddress
from tests.client.doctor.stun_server import MAIN, OTHER, Endpoint, StunServer, stun_server

PATIENCE = 0.6
"""Seconds; the loopback needs none, a busy machine may."""


@pytest.fixture
async def server() -> AsyncIterator[StunServer]:
    async with stun_server() as running:
        yield running


async def examine(*servers: StunServer) -> dict[str, Finding]:
    found = await check_network(
        [StunAddress(MAIN, s.ports[0], f"stun:{MAIN}:{s.ports[0]}") for s in servers],
        has_relay=False,
        patience=PATIENCE,
    )
    return {finding.name: finding for finding in found}


def natted(by: Callable[[Endpoint], object]) -> Callable[[Endpoint, Endpoint], Endpoint]:
    """Map each source to one address of the NAT, and to a port for each kind of destination."""
    return lambda source, asked: ("203.0.113.1", random.Random(repr((source, by(asked)))).randrange(1, 65536))


async def test_without_a_nat_the_server_sees_our_own_address(server: StunServer) -> None:
    found = await examine(server)
    assert found["stun"].state is FindingState.OK
    assert found["stun"].figures["servers"][0]["rtt"] < 1  # type: ignore[index]
    assert found["mapping"].figures == {"mapping": Mapping.NONE.value}
    assert found["mtu"].figures == {"mtu": 1500}


@pytest.mark.parametrize(
    ("by", "mapping"),
    [
        (lambda _: None, Mapping.INDEPENDENT),
        (lambda asked: asked[0], Mapping.ADDRESS),
        (lambda asked: asked, Mapping.ADDRESS_AND_PORT),
    ],
)
async def test_mapping_behaviour_is_found_by_a_server_with_two_addresses(
    server: StunServer, by: Callable[[Endpoint], object], mapping: Mapping
) -> None:
    server.maps = natted(by)
    assert (await examine(server))["mapping"].figures == {"mapping": mapping.value}


@pytest.mark.parametrize(
    ("lets_in", "filtering"),
    [
        (lambda source, asked: True, Filtering.INDEPENDENT),
        (lambda source, asked: source[0] == asked[0], Filtering.ADDRESS),
        (lambda source, asked: source == asked, Filtering.ADDRESS_AND_PORT),
        # Its other address answers nobody.
        (lambda source, asked: source[0] == MAIN and source == asked, Filtering.UNKNOWN),
    ],
)
async def test_filtering_behaviour_is_found_by_whose_answers_come_in(
    server: StunServer, lets_in: Callable[[Endpoint, Endpoint], bool], filtering: Filtering
) -> None:
    server.maps = natted(lambda _: None)
    server.lets_in = lets_in
    assert (await examine(server))["filtering"].figures == {"filtering": filtering.value}


@pytest.mark.parametrize(("by", "mapping"), [(0, Mapping.INDEPENDENT), (1, Mapping.DEPENDENT)])
async def test_two_servers_with_one_address_each_tell_the_mapping_at_least(
    server: StunServer, by: int, mapping: Mapping
) -> None:
    async with stun_server() as second:
        for one in (server, second):
            one.has_other = False
            one.maps = natted(lambda asked: asked if by else None)
        found = await examine(server, second)
    assert found["mapping"].figures == {"mapping": mapping.value}
    assert found["filtering"].figures == {"filtering": Filtering.UNKNOWN.value}


@pytest.mark.parametrize(("path", "mtu"), [(1500, 1500), (1420, 1400), (1280, 1280), (1000, None)])
async def test_the_largest_packet_that_passes_is_found(
    server: StunServer, path: int, mtu: int | None
) -> None:
    server.largest = path - 28
    found = (await examine(server))["mtu"]
    assert found.figures == {"mtu": mtu}
    assert found.state is (FindingState.OK if mtu else FindingState.WARNING)


async def test_silence_is_named_and_other_servers_count() -> None:
    async with stun_server() as silent, stun_server() as good:
        silent.lets_in = lambda source, asked: False
        found = (await examine(silent, good))["stun"]
        assert found.state is FindingState.OK
        assert "127.0.0.1 does not answer" in found.words
        found = (await examine(silent))["stun"]
    assert found.state is FindingState.FAILING
    assert found.words == "127.0.0.1 does not answer"
    assert "UDP" in found.meaning
    assert silent.requests > 2


async def test_a_name_that_has_no_address_is_not_taken_for_a_blocked_network() -> None:
    (found, *_) = await check_network(
        [StunAddress("stun.invalid", 3478, "stun:stun.invalid")], has_relay=False
    )
    assert found.state is FindingState.FAILING
    assert found.words.startswith("stun.invalid was not found")
    assert "UDP" not in found.meaning


async def test_without_a_stun_server_there_is_a_warning_and_nothing_to_ask() -> None:
    (found,) = await check_network([], has_relay=True)
    assert (found.name, found.state) == ("stun", FindingState.WARNING)


async def test_what_is_no_answer_is_dropped(server: StunServer) -> None:
    """Anybody may send to our port: garbage, requests, answers to what nobody asked."""
    address = Address(socket.AF_INET, (MAIN, server.ports[0]))
    server.lets_in = lambda source, asked: False
    async with StunSocket(socket.AF_INET, patience=PATIENCE) as asking:
        question = asyncio.create_task(asking.ask(address))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((OTHER, 0))
            for datagram in (b"", b"\x01", b"\x01\x01\x00\x00" + bytes(16), bytes(range(256))):
                stranger.sendto(datagram, (MAIN, asking.port))
        assert await question is None


@pytest.mark.parametrize("padding", [4, 1000])
async def test_a_request_has_the_size_that_was_asked_for(server: StunServer, padding: int) -> None:
    server.largest = request_size(padding) - 1
    address = Address(socket.AF_INET, (MAIN, server.ports[0]))
    async with StunSocket(socket.AF_INET, patience=PATIENCE) as asking:
        assert await asking.ask(address, padding=padding) is None
        server.largest += 1
        assert await asking.ask(address, padding=padding) is not None
