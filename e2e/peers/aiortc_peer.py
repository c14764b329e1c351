"""A peer on aiortc: with our association, or with its own if FLYX_SCTP=aiortc."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import uvloop
from aiortc import RTCConfiguration, RTCDataChannel, RTCSessionDescription

from e2e.peers.agent import BUFFERED_LOW, Agent, emit
from e2e.peers.lossy import LOSS_VARIABLE, lose
from flyx.net.interfaces import offered_addresses
from flyx.net.loop import new_event_loop
from flyx.rtc.sctp_transport import STOCK, STOCK_VARIABLE, SctpTransport, make_peer_connection
from flyx.rtc.seam import ice


class AiortcAgent(Agent):
    """A peer connection of aiortc."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = make_peer_connection(RTCConfiguration(iceServers=[]))
        self.connection.on("datachannel", self._channel_came)
        self.connection.on(
            "connectionstatechange", lambda: emit("state", state=self.connection.connectionState)
        )

    async def offer(self) -> str:
        return await self._describe(await self.connection.createOffer())

    async def answer(self, sdp: str) -> str:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        return await self._describe(await self.connection.createAnswer())

    async def _describe(self, description: RTCSessionDescription) -> str:
        await ice.gather_host_candidates(self.connection, offered_addresses())
        await self.connection.setLocalDescription(description)
        return str(self.connection.localDescription.sdp)

    async def accept(self, sdp: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    def create(self, label: str, init: dict[str, Any]) -> None:
        channel = self.connection.createDataChannel(label, **init)
        self._add(channel)
        channel.on("open", lambda: _tell_open(channel))

    def _channel_came(self, channel: RTCDataChannel) -> None:
        self._add(channel)
        _tell_open(channel)

    def _add(self, channel: RTCDataChannel) -> None:
        label = channel.label
        self.added(label, channel)
        channel.bufferedAmountLowThreshold = BUFFERED_LOW
        channel.on("message", lambda message: self.message(label, message))
        channel.on("bufferedamountlow", lambda: self.low(label))
        channel.on("close", lambda: emit("closed", label=label))

    def buffered(self, label: str) -> int:
        return int(self.channels[label].bufferedAmount)

    def measured(self) -> dict[str, Any]:
        sctp = self.connection.sctp
        return {"max_packet_size": sctp.max_packet_size} if isinstance(sctp, SctpTransport) else {}

    async def end(self) -> None:
        await self.connection.close()


def _tell_open(channel: RTCDataChannel) -> None:
    emit(
        "open",
        label=channel.label,
        ordered=channel.ordered,
        maxRetransmits=channel.maxRetransmits,
        maxPacketLifeTime=channel.maxPacketLifeTime,
        protocol=channel.protocol,
    )


async def main() -> None:
    await AiortcAgent().run()


if __name__ == "__main__":
    if os.environ.get("FLYX_PEER_LOG"):
        logging.basicConfig(level=os.environ["FLYX_PEER_LOG"])
    if os.environ.get(LOSS_VARIABLE):
        lose()
    stock = os.environ.get(STOCK_VARIABLE) == STOCK
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if stock else new_event_loop) as runner:
        runner.run(main())
