"""One end of a data channel on each of the stacks that are compared, behind one small interface.

As a script it is the receiving end: `python -m e2e.bench.stacks STACK SIZE` answers the offer on standard
input, takes SIZE bytes, says so on the channel, and prints its CPU seconds and peak memory when the channel
closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

import flyx.rtc.dtls
from flyx.cli.process import tune_malloc
from flyx.net.loop import new_event_loop
from flyx.rtc.channel import Channel
from flyx.rtc.peer import PeerConnection

MESSAGE_SIZE = 256 * 1024
BUFFERED_HIGH = 4 << 20
BUFFERED_LOW = 1 << 20


class End(ABC):
    """One end: a connection with one channel, counting what comes."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.writable = asyncio.Event()
        self.closed = asyncio.Event()
        # Set when `wanted` bytes have come, or any text.
        self.complete = asyncio.Event()
        self.received = 0
        self.wanted = 1 << 62
        # Told the size of each binary message.
        self.on_bytes: Callable[[int], None] = lambda _: None

    def message(self, data: bytes | str) -> None:
        """Count a message."""
        if isinstance(data, bytes):
            self.on_bytes(len(data))
        self.received += len(data)
        if self.received >= self.wanted or isinstance(data, str):
            self.complete.set()

    @abstractmethod
    async def offer(self) -> str: ...

    @abstractmethod
    async def answer(self, sdp: str) -> str: ...

    @abstractmethod
    async def accept(self, sdp: str) -> None: ...

    @abstractmethod
    def send(self, data: bytes | str) -> None: ...

    @abstractmethod
    def buffered(self) -> int: ...

    @abstractmethod
    async def close(self) -> None: ...


class AiortcEnd(End):
    """Stock aiortc."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.on("datachannel", self._use)
        self.channel: Any = None

    def _use(self, channel: Any) -> None:
        self.channel = channel
        channel.bufferedAmountLowThreshold = BUFFERED_LOW
        channel.on("message", self.message)
        channel.on("bufferedamountlow", self.writable.set)
        channel.on("close", self.closed.set)
        if channel.readyState == "open":
            self.opened.set()
        channel.on("open", self.opened.set)

    async def offer(self) -> str:
        self._use(self.connection.createDataChannel("data"))
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def answer(self, sdp: str) -> str:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return str(self.connection.localDescription.sdp)

    async def accept(self, sdp: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    def send(self, data: bytes | str) -> None:
        self.channel.send(data)

    def buffered(self) -> int:
        return int(self.channel.bufferedAmount)

    async def close(self) -> None:
        await self.connection.close()


class FlyxEnd(End):
    """flyx.rtc: our association over batched DTLS and UDP."""

    def __init__(self, congestion: str | None = None) -> None:
        super().__init__()
        # As any program of ours does.
        tune_malloc()
        self.connection = PeerConnection(("control", "data"), [], lambda _: None, congestion=congestion)
        self.channel: Channel | None = None
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        self.channel = (await self.connection.connected()).data
        self.channel.listen(self)
        self.opened.set()

    def message_received(self, message: bytes | str) -> None:
        self.message(message)

    def channel_writable(self) -> None:
        self.writable.set()

    def channel_closed(self) -> None:
        self.closed.set()

    async def offer(self) -> str:
        return await self.connection.offer()

    async def answer(self, sdp: str) -> str:
        return await self.connection.answer(sdp)

    async def accept(self, sdp: str) -> None:
        await self.connection.accept_answer(sdp)

    def send(self, data: bytes | str) -> None:
        assert self.channel is not None
        self.channel.send(data)

    def buffered(self) -> int:
        assert self.channel is not None
        return 0 if self.channel.writable else 1 << 62

    async def close(self) -> None:
        await self.connection.close()


class LibwebrtcEnd(End):
    """libwebrtc, by way of PyPI's wrtc."""

    def __init__(self) -> None:
        super().__init__()
        import webrtc

        self._webrtc = webrtc
        self.connection: Any = webrtc.RTCPeerConnection()
        self.connection.on("datachannel", lambda event: self._use(event.channel))
        self.channel: Any = None

    def _use(self, channel: Any) -> None:
        self.channel = channel
        channel.binary_type = "arraybuffer"
        channel.buffered_amount_low_threshold = BUFFERED_LOW
        channel.on("message", lambda event: self.message(event.data))
        channel.on("bufferedamountlow", lambda _: self.writable.set())
        channel.on("close", lambda _: self.closed.set())
        if channel.ready_state == "open":
            self.opened.set()
        channel.on("open", lambda _: self.opened.set())

    async def _describe(self, description: Any) -> str:
        gathered = asyncio.Event()
        self.connection.on("icegatheringstatechange", lambda _: gathered.set())
        await self.connection.set_local_description(description)
        while self.connection.ice_gathering_state != "complete":
            gathered.clear()
            await gathered.wait()
        return str(self.connection.local_description.sdp)

    async def offer(self) -> str:
        self._use(self.connection.create_data_channel("data", self._webrtc.RTCDataChannelInit()))
        return await self._describe(await self.connection.create_offer())

    async def answer(self, sdp: str) -> str:
        description = self._webrtc.RTCSessionDescriptionInit("offer", sdp)
        await self.connection.set_remote_description(description)
        return await self._describe(await self.connection.create_answer())

    async def accept(self, sdp: str) -> None:
        description = self._webrtc.RTCSessionDescriptionInit("answer", sdp)
        await self.connection.set_remote_description(description)

    def send(self, data: bytes | str) -> None:
        self.channel.send(data)

    def buffered(self) -> int:
        return int(self.channel.buffered_amount)

    async def close(self) -> None:
        self.connection.close()


def make_end(stack: str) -> End:
    """Make an end.

    Args:
        stack: "aiortc", "libwebrtc", "flyx", "flyx-cubic", or "flyx-1200", whose packets keep to 1,200 bytes.
    """
    match stack:
        case "aiortc":
            return AiortcEnd()
        case "libwebrtc":
            return LibwebrtcEnd()
        case "flyx-cubic":
            return FlyxEnd(congestion="cubic")
        case "flyx-1200":
            flyx.rtc.dtls.MAX_PACKET_SIZE = 1160
    return FlyxEnd()


def cost() -> dict[str, float]:
    """Return the CPU seconds of this process so far and its peak memory in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"cpu": time.process_time(), "rss": peak}


async def receive(stack: str, size: int) -> None:
    """Be the receiving end."""
    end = make_end(stack)
    end.wanted = size
    offer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    sys.stdout.write(json.dumps(await end.answer(offer)) + "\n")
    sys.stdout.flush()
    await end.opened.wait()
    await end.complete.wait()
    end.send("all here")
    # The sender kills us when it has read the figures.
    sys.stdout.write(json.dumps(cost()) + "\n")
    sys.stdout.flush()
    await end.closed.wait()
    with contextlib.suppress(ConnectionError):
        await end.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(receive(sys.argv[1], int(sys.argv[2])))
