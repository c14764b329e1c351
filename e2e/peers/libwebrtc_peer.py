"""A peer on libwebrtc, by way of PyPI's wrtc."""

from __future__ import annotations

import asyncio
from typing import Any

import webrtc

from e2e.peers.agent import BUFFERED_LOW, Agent, emit


class LibwebrtcAgent(Agent):
    """A peer connection of libwebrtc."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = webrtc.RTCPeerConnection()
        self.connection.on("datachannel", lambda event: self._channel_came(event.channel))
        self.gathered = asyncio.Event()
        self.connection.on("icegatheringstatechange", self._gathering_changed)

    def _gathering_changed(self, _: object) -> None:
        if self.connection.ice_gathering_state == "complete":
            self.gathered.set()

    async def offer(self) -> str:
        return await self._describe(await self.connection.create_offer())

    async def answer(self, sdp: str) -> str:
        await self.connection.set_remote_description(webrtc.RTCSessionDescriptionInit("offer", sdp))
        return await self._describe(await self.connection.create_answer())

    async def _describe(self, description: Any) -> str:
        await self.connection.set_local_description(description)
        await self.gathered.wait()
        local = self.connection.local_description
        assert local is not None
        return local.sdp

    async def accept(self, sdp: str) -> None:
        await self.connection.set_remote_description(webrtc.RTCSessionDescriptionInit("answer", sdp))

    def create(self, label: str, init: dict[str, Any]) -> None:
        names = {"maxRetransmits": "max_retransmits", "maxPacketLifeTime": "max_packet_life_time"}
        options = webrtc.RTCDataChannelInit(**{names.get(name, name): value for name, value in init.items()})
        channel = self.connection.create_data_channel(label, options)
        self._add(channel)
        channel.on("open", lambda _: _tell_open(channel))

    def _channel_came(self, channel: Any) -> None:
        self._add(channel)
        if channel.ready_state == "open":
            _tell_open(channel)
        else:
            channel.on("open", lambda _: _tell_open(channel))

    def _add(self, channel: Any) -> None:
        label = channel.label
        self.added(label, channel)
        channel.binary_type = "arraybuffer"
        channel.buffered_amount_low_threshold = BUFFERED_LOW
        channel.on("message", lambda event: self.message(label, event.data))
        channel.on("bufferedamountlow", lambda _: self.low(label))
        channel.on("close", lambda _: emit("closed", label=label))
        channel.on("error", lambda event: emit("channel-error", label=label, text=str(event.error)))

    def buffered(self, label: str) -> int:
        return int(self.channels[label].buffered_amount)

    async def end(self) -> None:
        self.connection.close()


def _tell_open(channel: Any) -> None:
    emit(
        "open",
        label=channel.label,
        ordered=channel.ordered,
        maxRetransmits=channel.max_retransmits,
        maxPacketLifeTime=channel.max_packet_life_time,
        protocol=channel.protocol,
    )


async def main() -> None:
    await LibwebrtcAgent().run()


if __name__ == "__main__":
    asyncio.run(main())
