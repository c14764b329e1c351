"""Peers of aiortc that open channels nobody wants, over real sockets on this machine.

Both with our association and with aiortc's own (FLYX_SCTP=aiortc).
"""

from __future__ import annotations

import asyncio
import gc
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from flyx.errors import RemoteProtocolError
from flyx.rtc.channel import Channel
from flyx.rtc.peer import PeerConnection
from flyx.rtc.sctp_transport import STOCK, STOCK_VARIABLE
from tests.rtc.test_peer import LABELS, listen

DCEP, TEXT, BINARY = 50, 51, 53


@pytest.fixture(params=["ours", STOCK], autouse=True)
def association(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(STOCK_VARIABLE, request.param)
    return str(request.param)


def open_message(label: str, protocol: str = "", cut: int | None = None) -> bytes:
    """DATA_CHANNEL_OPEN (RFC 8832 §5.1)."""
    names = label.encode() + protocol.encode()
    return (struct.pack("!BBHLHH", 3, 0, 0, 0, len(label), len(protocol)) + names)[:cut]


class Attacker:
    """A peer connection of aiortc, and all that it can send on a stream."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.closed = asyncio.Event()
        self.channels: list[RTCDataChannel] = []

    def _add(self, channel: RTCDataChannel) -> None:
        self.channels.append(channel)
        channel.on("close", self.closed.set)

    @property
    def control(self) -> int:
        """The stream of the control channel."""
        stream_id = self.channels[0].id
        assert stream_id is not None
        return stream_id

    async def offer(self, labels: tuple[str, ...] = LABELS) -> str:
        for label in labels:
            self._add(self.connection.createDataChannel(label))
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def take(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def answer(self, offer: str) -> str:
        self.connection.on("datachannel", self._add)
        await self.connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return str(self.connection.localDescription.sdp)

    async def send(self, stream_id: int, ppid: int, data: bytes) -> None:
        assert self.connection.sctp is not None
        await self.connection.sctp._send(stream_id, ppid, data)


@asynccontextmanager
async def attacked(*, offering: bool = True) -> AsyncIterator[tuple[Attacker, PeerConnection]]:
    """A peer of aiortc that is connected to one of ours: offering its channels, or offered ours."""
    attacker, victim = Attacker(), PeerConnection(LABELS, [], lambda _: None)
    try:
        if offering:
            await attacker.take(await victim.answer(await attacker.offer()))
        else:
            await victim.accept_answer(await attacker.answer(await victim.offer()))
        await victim.connected()
        yield attacker, victim
    finally:
        await attacker.connection.close()
        await victim.close()


async def ended(channel: Channel) -> RemoteProtocolError | None:
    await listen(channel).closed.wait()
    return channel.violation


VIOLATIONS = {
    "a third channel": (6, open_message("other")),
    "another of the same label": (6, open_message("data")),
    "a long label": (6, open_message("x" * 60_000)),
    "a label that is longer than the message": (6, open_message("data", cut=14)),
    "a protocol": (6, open_message("data", "chat")),
    "no label": (6, open_message("")),
    "on a stream that is taken": (None, open_message("other")),
    "an ACK of no channel": (6, b"\2"),
    "no known kind": (None, b"\7"),
    "cut short": (6, b"\3"),
}


@pytest.mark.parametrize("case", VIOLATIONS)
@pytest.mark.parametrize("offering", [True, False], ids=["offering", "answering"])
async def test_what_opens_no_agreed_channel_ends_the_connection(case: str, offering: bool) -> None:
    async with attacked(offering=offering) as (attacker, victim):
        channels = await victim.connected()
        stream_id, message = VIOLATIONS[case]
        await attacker.send(attacker.control if stream_id is None else stream_id, DCEP, message)
        for channel in (channels.control, channels.data):
            assert isinstance(await ended(channel), RemoteProtocolError)
        # The association was aborted, and not only dropped.
        await attacker.closed.wait()


async def test_text_that_is_no_utf_8_ends_it_too() -> None:
    async with attacked() as (attacker, victim):
        channels = await victim.connected()
        await attacker.send(attacker.control, TEXT, b"\xff\xff")
        assert "UTF-8" in str(await ended(channels.control))


async def test_before_the_channels_are_there_connecting_fails_with_the_reason() -> None:
    attacker, victim = Attacker(), PeerConnection(LABELS, [], lambda _: None)
    try:
        await attacker.take(await victim.answer(await attacker.offer(("control", "other"))))
        with pytest.raises(RemoteProtocolError, match="beyond those agreed on"):
            await victim.connected()
    finally:
        await attacker.connection.close()
        await victim.close()


async def test_thousands_of_channels_with_long_labels_leave_nothing_behind() -> None:
    async with attacked() as (attacker, victim):
        channels = await victim.connected()
        before = open_channels()
        for number in range(2_000):
            if attacker.closed.is_set():
                break
            await attacker.send(6 + 2 * number, DCEP, open_message("x" * 30_000))
        assert await ended(channels.control)
        assert open_channels() <= before


def open_channels() -> int:
    gc.collect()
    return sum(isinstance(thing, RTCDataChannel) for thing in gc.get_objects())


async def test_what_belongs_to_no_channel_is_dropped_and_nothing_is_kept_of_it() -> None:
    """Unknown payload protocols, streams never opened, empty messages, and acknowledgements once more."""
    async with attacked() as (attacker, victim):
        channels = await victim.connected()
        control, data = listen(channels.control), listen(channels.data)
        before = open_channels()
        for number in range(300):
            await attacker.send(1000 + number, BINARY, b"x")
            await attacker.send(attacker.control, 1000 + number, b"x")
            await attacker.send(attacker.control, DCEP, b"\2")
            await attacker.send(attacker.control, 56, b"\0")
        await attacker.send(attacker.control, TEXT, b"last")
        for _ in range(300):
            assert await control.messages.get() == ""
        assert await control.messages.get() == "last"
        assert data.messages.empty()
        assert open_channels() == before
