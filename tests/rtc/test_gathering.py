"""Candidates are told as they are found, whatever else does not answer; and when there will be no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aioice import stun

from flyx.errors import LocalProtocolError
from flyx.rtc import peer, relays
from flyx.rtc.attempts import NO_ANSWER, OK, PairState
from flyx.rtc.peer import IceCandidateInit, PeerConnection
from flyx.rtc.seam import connection as seam_connection
from flyx.rtc.seam import ice
from flyx.rtc.servers import TurnServer
from tests.rtc.relay import Relay
from tests.rtc.test_peer import Ear

Told = asyncio.Queue[IceCandidateInit | None]

LABELS = ("control", "data")
ANSWERED, IGNORED = "127.0.0.2", "127.0.0.3"


class StunServer(asyncio.DatagramProtocol):
    """A STUN server (RFC 8489) that answers requests from ANSWERED only, as if it came from a NAT."""

    def __init__(self) -> None:
        self.ignored = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr[0] != ANSWERED:
            self.ignored += 1
            return
        request = stun.parse_message(data)
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.7", addr[1])
        self.transport.sendto(bytes(response), addr)


@asynccontextmanager
async def stun_server() -> AsyncIterator[tuple[str, StunServer]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
    try:
        yield f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}", server
    finally:
        transport.close()


@asynccontextmanager
async def connection(
    told: Told,
    stun_urls: Sequence[str] = (),
    turn_servers: Sequence[TurnServer] = (),
    addresses: Sequence[str] = (IGNORED, ANSWERED),
) -> AsyncIterator[PeerConnection]:
    made = PeerConnection(LABELS, stun_urls, told.put_nowait, turn_servers=turn_servers, addresses=addresses)
    try:
        yield made
    finally:
        await made.close()


def bare(sdp: str) -> str:
    return "".join(f"{line}\r\n" for line in sdp.splitlines() if not line.startswith("a=candidate"))


def types(connection: PeerConnection) -> tuple[str, str] | None:
    path = connection.path()
    return (path.local, path.remote) if path else None


async def until_told(told: Told, kind: str) -> str:
    while candidate := await told.get():
        if f"typ {kind}" in candidate["candidate"]:
            return candidate["candidate"]
    raise AssertionError(f"the last candidate has been told, and none was {kind}")


async def test_an_interface_without_a_way_out_holds_back_no_candidate() -> None:
    told: Told = asyncio.Queue()
    async with stun_server() as (url, server), connection(told, [url]) as left:
        await left.offer()
        async with asyncio.timeout(ice.STUN_TIMEOUT / 2):
            line = await until_told(told, "srflx")
        assert "203.0.113.7" in line
        assert ANSWERED in line
        assert server.ignored


async def test_the_end_of_candidates_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "STUN_TIMEOUT", 0.2)
    told: Told = asyncio.Queue()
    async with stun_server() as (url, _), connection(told, [url]) as left:
        await left.offer()
        async with asyncio.timeout(3.0):
            assert "203.0.113.7" in await until_told(told, "srflx")
            assert await told.get() is None


async def test_an_address_that_two_servers_tell_is_one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "STUN_TIMEOUT", 0.2)
    told: Told = asyncio.Queue()
    async with stun_server() as (one, _), stun_server() as (two, _), connection(told, [one, two]) as left:
        await left.offer()
        await until_told(told, "srflx")
        with pytest.raises(AssertionError):
            await until_told(told, "srflx")


class Broken(Exception):
    """A mistake of ours, in one of the ways to the peer."""


async def broken(*_: object) -> None:
    raise Broken("mistaken")


@pytest.mark.parametrize("way", ["a relay", "a tunnel"])
async def test_a_way_that_fails_by_a_mistake_of_ours_ends_no_other_and_is_told(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ice, "STUN_TIMEOUT", 0.2)
    monkeypatch.setattr(peer, "TUNNEL_PATIENCE", 0.05)
    if way == "a relay":
        monkeypatch.setattr(peer, "gather_relayed_candidates", broken)
    told: Told = asyncio.Queue()
    open_tunnel = broken if way == "a tunnel" else None
    async with stun_server() as (url, _), connection(asyncio.Queue()) as right:
        left = PeerConnection(LABELS, [url], told.put_nowait, addresses=[ANSWERED], open_tunnel=open_tunnel)
        try:
            await left.accept_answer(bare(await right.answer(bare(await left.offer()))))
            await left.add_candidate(None)
            async with asyncio.timeout(5.0):
                await until_told(told, "srflx")
                # The peer would wait for more.
                assert await told.get() is None
                with pytest.raises(LocalProtocolError, match="Broken: mistaken"):
                    await left.connected()
        finally:
            await left.close()
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {Broken}


async def test_a_relay_that_comes_after_the_peer_s_last_candidate_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Between an IPv6 address and an IPv4 address there is no other way than the relay.
    resolve, ended = relays.resolve, asyncio.Event()

    async def late(*arguments: Any, **options: Any) -> Any:
        await ended.wait()
        return await resolve(*arguments, **options)

    monkeypatch.setattr(relays, "resolve", late)
    of_left: Told = asyncio.Queue()
    of_right: Told = asyncio.Queue()
    relay = Relay()
    server = TurnServer(f"turn:127.0.0.1:{await relay.listen()}", "anyone", "secret")
    try:
        async with (
            connection(of_left, turn_servers=[server], addresses=["::1"]) as left,
            connection(of_right, addresses=[ANSWERED]) as right,
        ):
            await left.accept_answer(await right.answer(bare(await left.offer())))
            await left.add_candidate(None)
            ended.set()
            while candidate := await of_left.get():
                await right.add_candidate(candidate)
            async with asyncio.timeout(10.0):
                await asyncio.gather(left.connected(), right.connected())
            assert types(left) == ("relay", "host")
    finally:
        relay.close()


class Shut:
    """A transport out of which nothing comes."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self.inner = transport

    def sendto(self, data: Any, addr: Any = None) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


async def test_a_transfer_leaves_its_relay_for_a_direct_path_that_opens_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seam_connection, "RECHECK_INTERVAL", 0.05)
    monkeypatch.setattr(seam_connection, "CHECK_SCHEDULE", (0.1, 0.1))
    of_left: Told = asyncio.Queue()
    of_right: Told = asyncio.Queue()
    relay = Relay()
    server = TurnServer(f"turn:127.0.0.1:{await relay.listen()}", "anyone", "secret")
    try:
        async with (
            connection(of_left, turn_servers=[server], addresses=[IGNORED]) as left,
            connection(of_right, addresses=[ANSWERED]) as right,
        ):
            answer = await right.answer(bare(await left.offer()))
            protocols = ice.connection_of(left._pc)._protocols
            (host,) = [each for each in protocols if each.local_candidate.type == "host"]
            open_transport, host.transport = host.transport, Shut(host.transport)  # type: ignore[assignment]
            await left.accept_answer(answer)
            while candidate := await of_left.get():
                if "typ relay" in candidate["candidate"]:
                    await right.add_candidate(candidate)
            async with asyncio.timeout(20.0):
                ours, theirs = await asyncio.gather(left.connected(), right.connected())
                assert types(left) == ("relay", "host")
                ear = Ear()
                theirs.data.listen(ear)
                host.transport = open_transport
                sent = received = 0
                while types(left) != ("host", "host") or right.path() is None or sent < 200:
                    ours.data.send(sent.to_bytes(4, "big") * 4000)
                    sent += 1
                    await asyncio.sleep(0.005)
                relayed = relay.relayed
                ours.data.send(b"last")
                while (message := await ear.messages.get()) != b"last":
                    assert message == received.to_bytes(4, "big") * 4000
                    received += 1
                assert received == sent
                assert relay.relayed - relayed < 100
    finally:
        relay.close()


async def test_what_was_tried_is_told_pair_by_pair_and_server_by_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ice, "STUN_TIMEOUT", 0.3)
    told: Told = asyncio.Queue()
    async with stun_server() as (url, _), stun_server() as (silent, server):
        server.datagram_received = lambda data, addr: None  # type: ignore[method-assign]
        urls = [url, silent, "stun:no.such.host.invalid:3478"]
        async with connection(told, urls) as left, connection(asyncio.Queue(), addresses=[ANSWERED]) as right:
            await left.accept_answer(await right.answer(bare(await left.offer())))
            while await told.get():
                pass
            await left.connected()
            await left.close()
            attempts = left.attempts()
            assert [attempt.outcome for attempt in attempts.servers][:2] == [OK, NO_ANSWER]
            assert attempts.servers[2].outcome not in (OK, None)
            assert attempts.remote_candidates == 1
            assert {(each.local_type, each.remote_type, each.family) for each in attempts.pairs} == {
                ("host", "host", 4)
            }
            assert PairState.SUCCEEDED in [each.state for each in attempts.pairs]
            assert any(each.local_address.startswith(ANSWERED) for each in attempts.pairs)
