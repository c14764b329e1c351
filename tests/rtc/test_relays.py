"""Which servers are asked to relay, by which ways, and what comes of their answers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aioice.stun import Method
from aiortc import RTCConfiguration, RTCIceCandidate, RTCPeerConnection

from flyx.net import names
from flyx.rtc import relays
from flyx.rtc.attempts import NO_ANSWER, OK, ServerAttempt
from flyx.rtc.policy import ANY_PATH, IcePolicy
from flyx.rtc.sctp_transport import make_peer_connection
from flyx.rtc.seam import ice, turn
from flyx.rtc.seam.turn import IPV6
from flyx.rtc.servers import Transport, TurnAddress
from tests.net.proxies import http_proxy
from tests.rtc.relay import Relay, StreamRelay
from tests.server.transport.test_tls import issue

UDP, TCP = Transport.UDP, Transport.TCP


class Asked:
    """What came of asking servers."""

    def __init__(self) -> None:
        self.candidates: list[RTCIceCandidate] = []
        self.attempts: dict[str, ServerAttempt] = {}
        self.begun = asyncio.Event()

    async def ask(self, pc: RTCPeerConnection, *urls: TurnAddress, policy: IcePolicy = ANY_PATH) -> None:
        await relays.gather_relayed_candidates(pc, urls, policy, self.candidates.append, self._note)

    def _note(self, attempt: ServerAttempt) -> None:
        self.attempts[attempt.url] = attempt
        self.begun.set()

    @property
    def outcomes(self) -> list[str | None]:
        return [attempt.outcome for attempt in self.attempts.values()]

    @property
    def ports(self) -> list[int]:
        return [candidate.port for candidate in self.candidates]


@pytest.fixture
async def pc(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RTCPeerConnection]:
    # The servers here are gone by then.
    monkeypatch.setattr(turn, "FAREWELL", 0.01)
    made = make_peer_connection(RTCConfiguration(iceServers=[]))
    made.createDataChannel("any")
    await ice.gather_host_candidates(made, ["127.0.0.1"])
    yield made
    await made.close()
    await asyncio.gather(*turn._farewells)


@asynccontextmanager
async def running(*servers: Relay) -> AsyncIterator[list[int]]:
    try:
        yield [await server.listen() for server in servers]
    finally:
        await asyncio.gather(*turn._farewells)
        for server in servers:
            server.close()


def at(port: int, transport: Transport = UDP, host: str = "127.0.0.1") -> TurnAddress:
    return TurnAddress(host, port, transport, "anyone", "secret", f"turn:{host}:{port}")


def outside(server: Relay) -> int:
    """The port that a server relays from."""
    return int(server.outside.get_extra_info("sockname")[1])


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Have every name stand for these addresses."""

    async def resolve(host: str, port: int, *, socktype: socket.SocketKind) -> list[names.Address]:
        found = []
        for address in addresses:
            found += await names.resolve(*address, socktype=socktype)
        return found

    monkeypatch.setattr(relays, "resolve", resolve)


async def test_every_server_is_asked(pc: RTCPeerConnection) -> None:
    servers = [Relay() for _ in range(4)]
    asked = Asked()
    async with running(*servers) as ports:
        # As if each had a name of its own.
        urls = [at(port) for port in ports]
        hosts = [TurnAddress(u.host, u.port, UDP, f"user{n}", "secret", u.url) for n, u in enumerate(urls)]
        await asked.ask(pc, *hosts)
        assert sorted(asked.ports) == sorted(map(outside, servers))
    assert asked.outcomes == [OK] * 4


async def test_udp_that_answers_leaves_tcp_alone(pc: RTCPeerConnection) -> None:
    udp, tcp, asked = Relay(), StreamRelay(), Asked()
    async with running(udp, tcp) as (one, other):
        await asked.ask(pc, at(other, TCP), at(one))
        assert asked.ports == [outside(udp)]
        assert tcp.requests == []


async def test_where_udp_is_silent_tcp_relays_soon_and_udp_is_given_up(pc: RTCPeerConnection) -> None:
    udp, tcp, asked = Relay(), StreamRelay(), Asked()
    udp.refusals[Method.ALLOCATE] = None
    async with running(udp, tcp) as (one, other):
        async with asyncio.timeout(3.0):
            await asked.ask(pc, at(one), at(other, TCP))
        assert asked.ports == [outside(tcp)]
    assert asked.outcomes == ["was not needed", OK]


async def test_where_udp_is_refused_tcp_is_tried_at_once(
    pc: RTCPeerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "PAUSE", 5.0)
    udp, tcp, asked = Relay(), StreamRelay(), Asked()
    udp.refusals[Method.ALLOCATE] = 486, "Allocation Quota Reached"
    async with running(udp, tcp) as (one, other):
        async with asyncio.timeout(3.0):
            await asked.ask(pc, at(one), at(other, TCP))
        assert asked.ports == [outside(tcp)]


async def test_candidates_over_tcp_are_less_preferred(pc: RTCPeerConnection) -> None:
    udp, tcp, asked = Relay(), StreamRelay(), Asked()
    async with running(udp, tcp) as (one, other):
        await asked.ask(pc, at(one), at(other, TCP, host="localhost"))
        by_port = {candidate.port: candidate.priority for candidate in asked.candidates}
        assert by_port[outside(udp)] > by_port[outside(tcp)]


async def test_a_dead_address_of_a_server_is_passed_over(
    pc: RTCPeerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive, asked = Relay(), Relay(), Asked()
    dead.refusals[Method.ALLOCATE] = None
    async with running(dead, alive) as (one, other):
        resolved(monkeypatch, ("127.0.0.1", one), ("127.0.0.1", other))
        async with asyncio.timeout(3.0):
            await asked.ask(pc, at(1, host="turn.example"))
        assert asked.ports == [outside(alive)]


async def test_what_every_way_failed_with_is_told(
    pc: RTCPeerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "ALLOCATION_TIMEOUT", 0.5)
    silent, refusing, asked = Relay(), Relay(), Asked()
    silent.refusals[Method.ALLOCATE] = None
    refusing.refusals[Method.ALLOCATE] = 401, "Unauthorized"
    async with running(silent, refusing) as (one, other):
        urls = [at(one), at(other), at(1, TCP)]
        await asked.ask(pc, *urls)
    assert [asked.attempts[url.url] for url in urls] == [
        ServerAttempt(urls[0].url, "turn", NO_ANSWER),
        ServerAttempt(urls[1].url, "turn", "refused: wrong credentials", 401),
        ServerAttempt(urls[2].url, "turn", "is not there: connection refused"),
    ]
    assert asked.candidates == []


@pytest.mark.parametrize("kind", [Relay, StreamRelay])
async def test_a_server_that_sends_us_to_another_is_followed(
    pc: RTCPeerConnection, kind: type[Relay]
) -> None:
    first, second, asked = kind(), kind(), Asked()
    first.refusals[Method.ALLOCATE] = 300, "Try Alternate"
    async with running(first, second) as (one, other):
        first.alternate = "127.0.0.1", other
        await asked.ask(pc, at(one, UDP if kind is Relay else TCP))
        assert asked.ports == [outside(second)]


async def test_servers_that_send_us_in_a_circle_are_asked_few_times(pc: RTCPeerConnection) -> None:
    server, asked = Relay(), Asked()
    server.refusals[Method.ALLOCATE] = 300, "Try Alternate"
    async with running(server) as (port,):
        server.alternate = "127.0.0.1", port
        await asked.ask(pc, at(port))
    assert server.count[Method.ALLOCATE] == relays.MAX_REDIRECTS + 1
    assert asked.outcomes == ["refused: it names another server"]


class Ipv6Only(Relay):
    """A server that has IPv6 addresses alone."""

    def answer(self, request: Any, addr: Any) -> Any:
        self.refusals.clear()
        if request.attributes.get("REQUESTED-ADDRESS-FAMILY") != IPV6:
            self.refusals[Method.ALLOCATE] = 440, "Address Family not Supported"
        return super().answer(request, addr)


async def test_a_server_without_ipv4_is_asked_for_ipv6(pc: RTCPeerConnection) -> None:
    server, asked = Ipv6Only("::1"), Asked()
    async with running(server) as (port,):
        await asked.ask(pc, at(port, host="::1"))
        assert [candidate.ip for candidate in asked.candidates] == ["::1"]


class DualStack(Relay):
    """A server that relays from IPv4, and from IPv6 if asked to."""

    def answer(self, request: Any, addr: Any) -> Any:
        response = super().answer(request, addr)
        if request.message_method == Method.ALLOCATE:
            wants = request.attributes.get("REQUESTED-ADDRESS-FAMILY") == IPV6
            response.attributes["XOR-RELAYED-ADDRESS"] = ("::1" if wants else "192.0.2.1", 5000)
        return response


@pytest.mark.parametrize(("host", "expected"), [("::1", ["192.0.2.1", "::1"]), ("127.0.0.1", ["192.0.2.1"])])
async def test_a_server_reached_over_ipv6_is_asked_for_both(
    pc: RTCPeerConnection, host: str, expected: list[str]
) -> None:
    server, asked = DualStack(host), Asked()
    async with running(server) as (port,):
        await asked.ask(pc, at(port, host=host))
        assert [candidate.ip for candidate in asked.candidates] == expected


async def test_what_is_given_up_is_given_back(pc: RTCPeerConnection) -> None:
    server = Relay()
    async with running(server) as (port,):
        client = turn.open_udp("anyone", "secret", ("127.0.0.1", port), socket.socket(type=socket.SOCK_DGRAM))
        await client.allocate(None)

        async def made() -> turn.TurnClient:
            return client

        async def late() -> turn.TurnClient:
            await asyncio.sleep(0)
            return client

        # Both end in the same turn of the loop.
        assert await relays._first([made, made], turn.TurnClient.close) is client
        client.close()


async def test_no_address_of_ours_is_told_where_only_relays_may_be_used(pc: RTCPeerConnection) -> None:
    server, asked = Relay(), Asked()
    async with running(server) as (port,):
        await asked.ask(pc, at(port), policy=IcePolicy(relay_only=True))
        (candidate,) = asked.candidates
    assert (candidate.relatedAddress, candidate.relatedPort) == ("0.0.0.0", 9)


async def test_a_server_is_reached_from_the_addresses_that_may_be_used(
    pc: RTCPeerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, asked = Relay(), Asked()
    async with running(server) as (port,):
        await asked.ask(pc, at(port), policy=IcePolicy(bind="127.0.0.2"))
        assert server.client[0] == "127.0.0.2"
        monkeypatch.setattr(relays, "ALLOCATION_TIMEOUT", 0.1)
        await asked.ask(pc, at(port), policy=IcePolicy(bind="::1"))
    assert len(asked.candidates) == 1
    (outcome,) = asked.outcomes
    assert "IPv4" in (outcome or "")


async def test_a_server_is_reached_over_tcp_from_the_address_that_is_bound(pc: RTCPeerConnection) -> None:
    server, asked = StreamRelay(), Asked()
    async with running(server) as (port,):
        await asked.ask(pc, at(port, TCP), policy=IcePolicy(bind="127.0.0.2"))
        assert server.client.get_extra_info("peername")[0] == "127.0.0.2"
    assert len(asked.candidates) == 1


async def test_a_server_that_was_away_is_asked_again_soon(
    pc: RTCPeerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "RETRY_PAUSE", 0.05)
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server, asked = Relay(), Asked()
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(asked.ask(pc, at(port)))
    await asyncio.wait_for(asked.begun.wait(), 5.0)
    async with running(server):
        server.inside.close()
        server.inside, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", port))
        async with asyncio.timeout(5.0):
            await asking
        assert asked.outcomes == [OK]


async def test_a_server_behind_a_proxy_spoken_to_by_tls_relays(
    pc: RTCPeerConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = issue(tmp_path, "proxy")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server, asked = StreamRelay(), Asked()
    ways = {"hidden.invalid": "127.0.0.1"}
    async with running(server) as [port], http_proxy(ways=ways, tls=context) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"https://127.0.0.1:{proxy.port}")
        await asked.ask(pc, at(port, TCP, "hidden.invalid"))
        assert asked.outcomes == [OK]
        assert asked.ports == [outside(server)]


@pytest.mark.parametrize("late", [False, True])
async def test_no_result_is_lost_when_the_race_is_called_off(late: bool) -> None:
    """Neither that of the winner nor of one that comes in while it is given up."""
    stopping, stop = asyncio.Event(), asyncio.Event()
    results: asyncio.Queue[int] = asyncio.Queue()

    async def quick() -> int:
        await asyncio.sleep(0)
        return 1

    async def slow() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopping.set()
            await stop.wait()
            if not late:
                raise
        return 2

    async def failing() -> int:
        raise OSError

    # The second begins when the first has failed, the third when the pause is over.
    racing = asyncio.create_task(relays._first([failing, slow, quick], results.put_nowait))
    await stopping.wait()
    racing.cancel()
    stop.set()
    with suppress(asyncio.CancelledError):
        results.put_nowait(await racing)
    async with asyncio.timeout(5):
        assert {await results.get() for _ in range(1 + late)} == ({1, 2} if late else {1})
