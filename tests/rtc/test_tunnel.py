"""The last resort: a tunnel where no candidate of the two reaches the other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from flyx.errors import PeerUnreachable
from flyx.rtc import peer
from flyx.rtc.path import CandidatePair
from flyx.rtc.peer import IceCandidateInit, PeerConnection
from flyx.rtc.policy import ANY_PATH, IcePolicy
from flyx.rtc.seam import ice, tunnel
from flyx.rtc.tunnel import (
    MAX_QUEUE_SIZE,
    RECEIVER_ADDRESS,
    SENDER_ADDRESS,
    DatagramSocket,
    TunnelTransport,
)
from tests.rtc.test_peer import LABELS, listen


class End:
    """One end of a tunnel in memory; a DatagramSocket."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.other: End
        # Cleared while it takes nothing.
        self.room = asyncio.Event()
        self.room.set()
        self.over = False
        self.sent = self.largest = 0
        self.addresses = ("192.0.2.1", 1234), ("192.0.2.2", 443)
        self.max_datagram_size = 10_000

    async def receive(self) -> bytes:
        datagram = await self.received.get()
        if datagram is None:
            raise ConnectionError("over")
        return datagram

    async def send(self, datagram: bytes) -> None:
        await self.room.wait()
        if self.over:
            raise ConnectionError("over")
        self.sent += 1
        self.largest = max(self.largest, len(datagram))
        self.other.received.put_nowait(datagram)

    async def close(self) -> None:
        for end in (self, self.other):
            end.over = True
            end.received.put_nowait(None)


def ends() -> tuple[End, End]:
    one, other = End(), End()
    one.other, other.other = other, one
    return one, other


Opener = Callable[[], Awaitable[DatagramSocket | None]]


def opening(end: End | None, calls: list[End | None]) -> Opener:
    async def open_tunnel() -> End | None:
        calls.append(end)
        return end

    return open_tunnel


@asynccontextmanager
async def pair(
    sender: Opener, receiver: Opener, *, reachable: bool = False, policy: IcePolicy = ANY_PATH
) -> AsyncIterator[tuple[PeerConnection, PeerConnection, list[str]]]:
    """Two connections that are being made, without candidates of each other unless they are reachable.

    The third is all that they have told each other.
    """
    told: list[str] = []

    def note(candidate: IceCandidateInit | None) -> None:
        told.append(str(candidate))

    def passed_on(sdp: str) -> str:
        told.append(sdp)
        return sdp if reachable else re.sub(r"a=candidate:.*\r\n", "", sdp)

    left = PeerConnection(LABELS, [], note, open_tunnel=sender, policy=policy)
    right = PeerConnection(LABELS, [], note, open_tunnel=receiver, policy=policy)
    try:
        answer = await right.answer(passed_on(await left.offer()))
        await left.accept_answer(passed_on(answer))
        yield left, right, told
    finally:
        await asyncio.gather(left.close(), right.close())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "TUNNEL_PATIENCE", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_two_that_cannot_reach_each_other_talk_through_a_tunnel() -> None:
    one, other = ends()
    async with pair(opening(one, []), opening(other, [])) as (left, right, told):
        ours, theirs = await left.connected(), await right.connected()
        ear = listen(theirs.data)
        for message in (b"first", bytes(100_000)):
            ours.data.send(message)
            assert await ear.messages.get() == message
        for side in (left, right):
            assert side.path() == CandidatePair("relay", "relay", tunnelled=True)
            # Not those of the candidates: no computer has these, and so any change would end the path.
            assert side.ends() == one.addresses
        # Nothing that a peer, new or old, could send to.
        assert not any("100::" in text or "tunnel" in text for text in told)
    # It ends with the connection.
    assert one.over
    assert other.over


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("size", [2048, 5000, 16_384])
async def test_datagrams_of_a_tunnel_are_as_large_as_it_lets_them_be(size: int) -> None:
    one, other = ends()
    one.max_datagram_size = other.max_datagram_size = size
    async with pair(opening(one, []), opening(other, [])) as (left, right, _):
        ours, theirs = await left.connected(), await right.connected()
        ear = listen(theirs.data)
        async with asyncio.timeout(10):
            while one.largest < size - 64:
                ours.data.send(bytes(60_000))
                assert await ear.messages.get() == bytes(60_000)
    assert max(one.largest, other.largest) <= size


@pytest.mark.usefixtures("impatient")
async def test_without_relays_no_tunnel_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT", 10 * peer.TUNNEL_PATIENCE)
    calls: list[End | None] = []
    openers = opening(None, calls), opening(None, calls)
    async with pair(*openers, policy=IcePolicy(no_relay=True)) as (left, right, _):
        with pytest.raises(PeerUnreachable):
            await asyncio.gather(left.connected(), right.connected())
        assert calls == []


@pytest.mark.usefixtures("impatient")
async def test_no_other_candidate_pairs_with_the_ends_of_a_tunnel() -> None:
    one, _ = ends()
    left = PeerConnection(LABELS, [], lambda _: None, addresses=["::1", "127.0.0.1"])
    try:
        await left.offer()
        tunnel.add_tunnel(left._pc, one, offering=True)
        # Of the same family, it would be sent to from there.
        assert "::1" in ice.host_addresses(left._pc)
        [only] = ice.attempted_pairs(left._pc)
        ours, theirs = (f"[{host}]:{port}" for host, port in (SENDER_ADDRESS, RECEIVER_ADDRESS))
        assert (only.local_address, only.remote_address) == (ours, theirs)
    finally:
        await left.close()


async def test_with_a_direct_path_no_tunnel_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a busy machine takes to connect two ends in one process.
    monkeypatch.setattr(peer, "TUNNEL_PATIENCE", 1.0)
    calls: list[End | None] = []
    async with pair(opening(None, calls), opening(None, calls), reachable=True) as (left, right, _):
        await asyncio.gather(left.connected(), right.connected())
        path = left.path()
        assert path is not None
        assert not path.tunnelled
        # The time is the condition here.
        await asyncio.sleep(1.2 * peer.TUNNEL_PATIENCE)
        assert calls == []


@pytest.mark.usefixtures("impatient")
async def test_a_tunnel_that_ends_ends_the_connection_that_uses_it() -> None:
    one, other = ends()
    async with pair(opening(one, []), opening(other, [])) as (left, right, _):
        ours, theirs = await left.connected(), await right.connected()
        ears = [listen(ours.control), listen(theirs.control)]
        await one.close()
        for ear in ears:
            async with asyncio.timeout(10):
                await ear.closed.wait()


class Recorder(asyncio.DatagramProtocol):
    """Hears what a transport delivers."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.lost = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def transport(end: End) -> AsyncIterator[tuple[TunnelTransport, Recorder]]:
    recorder = Recorder()
    made = TunnelTransport(end, recorder, SENDER_ADDRESS, RECEIVER_ADDRESS)
    try:
        yield made, recorder
    finally:
        made.abort()
        async with asyncio.timeout(5):
            await recorder.lost.wait()


async def test_what_is_queued_is_sent_before_the_end() -> None:
    one, other = ends()
    async with transport(one) as (made, recorder):
        for number in range(10):
            made.sendto(bytes([number]), RECEIVER_ADDRESS)
        made.close()
        assert made.is_closing()
        await recorder.lost.wait()
    assert [other.received.get_nowait() for _ in range(10)] == [bytes([number]) for number in range(10)]


class Hurried(End):
    """An end whose goodbye is cut short, as at the end of the program."""

    async def close(self) -> None:
        await super().close()
        raise asyncio.CancelledError


async def test_the_end_is_told_also_when_the_goodbye_is_cut_short() -> None:
    one, other = Hurried(), End()
    one.other, other.other = other, one
    async with transport(one) as (made, recorder):
        made.close()
        async with asyncio.timeout(5):
            await recorder.lost.wait()


async def test_what_does_not_fit_or_is_for_elsewhere_is_dropped() -> None:
    one, other = ends()
    one.room.clear()
    async with transport(one) as (made, _):
        size = 1000
        for _ in range(2 * MAX_QUEUE_SIZE // size):
            made.sendto(bytes(size))
        assert made.get_write_buffer_size() <= MAX_QUEUE_SIZE
        dropped = made.datagrams_dropped
        assert dropped >= MAX_QUEUE_SIZE // size
        one.room.set()
        while made.get_write_buffer_size():
            await other.received.get()
        made.sendto(bytes(one.max_datagram_size + 1), RECEIVER_ADDRESS)
        made.sendto(b"astray", ("192.0.2.1", 9))
        made.sendto(b"", RECEIVER_ADDRESS)
        assert made.datagrams_dropped == dropped + 3


async def test_a_tunnel_that_takes_nothing_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyx.rtc.tunnel.FAREWELL", 0.05)
    one, _ = ends()
    async with transport(one) as (made, recorder):
        one.room.clear()
        made.sendto(b"never sent", RECEIVER_ADDRESS)
        while made.get_write_buffer_size():  # noqa: ASYNC110 (until it waits for room)
            await asyncio.sleep(0)
        made.close()
        async with asyncio.timeout(5):
            await recorder.lost.wait()


async def test_what_comes_is_from_the_other_end() -> None:
    one, other = ends()
    async with transport(one) as (_, recorder):
        await other.send(b"datagram")
        await other.close()
        await recorder.lost.wait()
        assert recorder.heard == [(b"datagram", RECEIVER_ADDRESS)]
