"""aiortc's SCTP transport: what its data channels may carry, and the place of our own association in it."""

from __future__ import annotations

import asyncio
import struct
from abc import abstractmethod
from collections.abc import Callable, Sequence

from aiortc import RTCConfiguration, RTCDataChannel, RTCDtlsTransport, RTCPeerConnection
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    RTCSctpCapabilities,
    RTCSctpTransport,
)

from flyx.errors import RemoteProtocolError
from flyx.rtc.seam import connection, dtls

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    RTCDataChannel: ("_addBufferedAmount", "_setId", "_setReadyState"),
    RTCPeerConnection: (
        *("_RTCPeerConnection__createDtlsTransport", "_RTCPeerConnection__createSctpTransport"),
        "_RTCPeerConnection__sctp",
    ),
    RTCSctpTransport: (
        *("_association_state", "_bundled"),
        *("_data_channel_close", "_data_channel_flush", "_data_channel_id"),
        *("_data_channel_inbound_reset", "_data_channel_outbound_reset", "_data_channel_queue"),
        *("_data_channel_receive", "_data_channel_reset", "_data_channel_send", "_data_channels"),
        *("_inbound_streams_count", "_outbound_streams_count", "_reconfig_queue"),
        *("_remote_max_message_size", "_set_state", "_transmit_reconfig"),
    ),
}
"""Attributes that instances of these classes have and this module uses."""

_OPEN = struct.Struct("!BBHLHH")
"""DATA_CHANNEL_OPEN (RFC 8832 §5.1) up to the label: message type, channel type, priority, reliability
parameter, lengths of label and protocol."""


class ChannelGuard(RTCSctpTransport):
    """Judges what the peer says on its streams before aiortc makes anything of it."""

    def __init__(self, transport: RTCDtlsTransport, expected: set[str] | None) -> None:
        """Args:
        transport: below.
        expected: labels of the channels that the peer may open, each once; None lets it open any.
        """
        super().__init__(transport)
        self._expected = expected

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        """Take a message.

        Raises:
            RemoteProtocolError: it is not what a peer of ours sends.
        """
        if pp_id == WEBRTC_DCEP:
            self._judge_dcep(stream_id, data)
        try:
            await super()._data_channel_receive(stream_id, pp_id, data)
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(reason="a text on a data channel that is no UTF-8") from error

    def _judge_dcep(self, stream_id: int, data: bytes) -> None:
        """Judge a DATA_CHANNEL_OPEN or DATA_CHANNEL_ACK (RFC 8832 §5)."""
        kind = data[0] if data else None
        if kind == DATA_CHANNEL_ACK and stream_id in self._data_channels:
            return
        if kind != DATA_CHANNEL_OPEN or len(data) < _OPEN.size or stream_id in self._data_channels:
            raise RemoteProtocolError(reason="a message out of place about a data channel")
        label_length, protocol_length = _OPEN.unpack_from(data)[-2:]
        if len(data) != _OPEN.size + label_length + protocol_length:
            raise RemoteProtocolError(reason="a malformed DATA_CHANNEL_OPEN")
        if self._expected is None:
            return
        for label in self._expected:
            if data[_OPEN.size :] == label.encode():
                self._expected.remove(label)
                return
        raise RemoteProtocolError(reason="a data channel beyond those agreed on")


class StockSctp(ChannelGuard):
    """aiortc's SCTP transport with its own association."""

    def __init__(
        self,
        transport: RTCDtlsTransport,
        expected: set[str] | None,
        on_violation: Callable[[RemoteProtocolError], None],
    ) -> None:
        """Args:
        transport: below.
        expected: see ChannelGuard.
        on_violation: called when the peer broke the protocol, before the channels close.
        """
        super().__init__(transport, expected)
        self._on_violation = on_violation

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if self._association_state is not self.State.ESTABLISHED:
            # The rest of what came with a violation.
            return
        try:
            await super()._data_channel_receive(stream_id, pp_id, data)
        except RemoteProtocolError as error:
            self._on_violation(error)
            await self.stop()


class SctpSeam(ChannelGuard):
    """aiortc's SCTP transport without its association: DCEP, channel ids and channel states stay aiortc's.

    A subclass brings the association: it implements the methods that are abstract here, and calls those whose
    names begin with `association_`.
    """

    def __init__(self, transport: RTCDtlsTransport, expected: set[str] | None) -> None:
        super().__init__(transport, expected)
        self._begun = False
        # Channels that both sides know of without DATA_CHANNEL_OPEN.
        self._agreed: list[RTCDataChannel] = []

    def agree_on(self, channels: Sequence[RTCDataChannel]) -> None:
        """Take channels of ours that are not open as negotiated (RFC 8831 §6.5), with stream ids from 0 on.

        As if they had been made so: when they were, that was not known.
        """
        # All that waits are their DATA_CHANNEL_OPENs.
        self._data_channel_queue.clear()
        for stream_id, channel in enumerate(channels):
            channel._setId(stream_id)
            self._data_channels[stream_id] = channel
        self._agreed += channels

    # To be implemented. None of them may wait.

    @abstractmethod
    def begin(self, remote_port: int) -> None:
        """DTLS is connected: set the association up."""

    @abstractmethod
    def end(self) -> None:
        """Abort the association, if it lives."""

    @abstractmethod
    def send_message(
        self,
        stream_id: int,
        ppid: int,
        data: bytes,
        *,
        unordered: bool,
        max_retransmits: int | None,
        max_life_time_ms: int | None,
    ) -> None:
        """Send a message on an established association."""

    @abstractmethod
    def reset_streams(self, stream_ids: list[int]) -> None:
        """Close our direction of these streams."""

    # Told by the association.

    def association_established(self, outbound_streams: int, inbound_streams: int) -> None:
        """Messages can be sent."""
        self._outbound_streams_count = outbound_streams
        self._inbound_streams_count = inbound_streams
        self._set_state(self.State.ESTABLISHED)
        for channel in self._agreed:
            if channel.readyState == "connecting":
                channel._setReadyState("open")

    def association_closed(self) -> None:
        """Nothing more will come or go; all channels close."""
        self._set_state(self.State.CLOSED)

    def association_message(self, stream_id: int, ppid: int, data: bytes) -> None:
        """A message has arrived.

        Raises:
            RemoteProtocolError: it is not what a peer of ours sends.
        """
        channel = self._data_channels.get(stream_id)
        if ppid == WEBRTC_BINARY and channel is not None:
            channel.emit("message", data)
            return
        # A coroutine that never waits, since sending does not.
        receiving = self._data_channel_receive(stream_id, ppid, data)
        try:
            receiving.send(None)
        except StopIteration:
            return
        raise AssertionError("aiortc waits while it receives")

    def association_departed(self, stream_id: int, size: int) -> None:
        """A message of so many bytes has left."""
        channel = self._data_channels.get(stream_id)
        if channel is not None and channel.bufferedAmount >= size:
            channel._addBufferedAmount(-size)

    def association_reset(self, incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> None:
        """Streams have been reset: a channel is closed when both of its directions are (RFC 8831 §6.7)."""
        for stream_id in incoming:
            if stream_id in self._data_channels:
                self._data_channel_inbound_reset.add(stream_id)
                self._data_channel_close(self._data_channels[stream_id])
                self._data_channel_reset(stream_id)
        for stream_id in outgoing:
            if stream_id in self._data_channels:
                self._data_channel_outbound_reset.add(stream_id)
                self._data_channel_reset(stream_id)

    # What aiortc calls.

    async def start(self, remoteCaps: RTCSctpCapabilities | None, remotePort: int) -> None:
        """Start the association once."""
        if self._begun:
            return
        self._begun = True
        if remoteCaps is not None:
            self._remote_max_message_size = remoteCaps.maxMessageSize
        # RFC 8832 §6: the DTLS client uses even stream ids, the server odd ones.
        self._data_channel_id = 1 if self.is_server else 0
        self.begin(remotePort)

    async def stop(self) -> None:
        """End the association and close the channels."""
        self.end()
        self._set_state(self.State.CLOSED)

    async def _data_channel_flush(self) -> None:
        """Send what was queued; see RTCSctpTransport."""
        self._flush()

    async def _transmit_reconfig(self) -> None:
        """Ask for the stream resets that closing channels have queued."""
        streams, self._reconfig_queue = self._reconfig_queue, []
        self.reset_streams(streams)

    def _data_channel_send(self, channel: RTCDataChannel, data: bytes | str) -> None:
        """Queue a message of the application and send it; aiortc makes a task of each."""
        if isinstance(data, str):
            ppid, payload = (WEBRTC_STRING, data.encode()) if data else (WEBRTC_STRING_EMPTY, b"\0")
        else:
            ppid, payload = (WEBRTC_BINARY, data) if data else (WEBRTC_BINARY_EMPTY, b"\0")
        limit = self._remote_max_message_size
        if limit and len(payload) > limit:
            raise ValueError(f"a message of {len(payload)} bytes, where the peer takes {limit}")
        channel._addBufferedAmount(len(payload))
        self._data_channel_queue.append((channel, ppid, payload))
        self._flush()

    def _flush(self) -> None:
        if self._association_state is not self.State.ESTABLISHED:
            return
        queue = self._data_channel_queue
        while queue:
            channel, ppid, data = queue.popleft()
            stream_id = channel.id
            if stream_id is None:
                stream_id = self._data_channel_id or 0
                while stream_id in self._data_channels:
                    stream_id += 2
                self._data_channels[stream_id] = channel
                channel._setId(stream_id)
            announcing = ppid == WEBRTC_DCEP
            self.send_message(
                stream_id,
                ppid,
                data,
                # RFC 8832 §6: DATA_CHANNEL_OPEN and ACK are ordered and reliable, whatever the channel is.
                unordered=not announcing and not channel.ordered,
                max_retransmits=None if announcing else channel.maxRetransmits,
                max_life_time_ms=None if announcing else channel.maxPacketLifeTime,
            )


class SeamPeerConnection(RTCPeerConnection):
    """An RTCPeerConnection over our ICE connection, whose SCTP transport somebody else makes."""

    def __init__(
        self, configuration: RTCConfiguration, make_sctp: Callable[[RTCDtlsTransport], RTCSctpTransport]
    ) -> None:
        self._make_sctp = make_sctp
        self._closing: asyncio.Task[None] | None = None
        super().__init__(configuration)

    async def close(self) -> None:
        """Close once; every caller waits until that is done.

        In aiortc all wait for a future of the first one, which is never set if that is cancelled. So it is
        where asyncio.run() cancels all tasks, also those that it waits for itself.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(super().close())
        await asyncio.wait({self._closing})
        if not self._closing.cancelled():
            self._closing.result()

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:
        original: Callable[[RTCPeerConnection], RTCDtlsTransport]
        original = RTCPeerConnection._RTCPeerConnection__createDtlsTransport  # type: ignore[attr-defined]
        transport = original(self)
        connection.install(transport)
        dtls.tell_one_fingerprint(transport)
        return transport

    def _RTCPeerConnection__createSctpTransport(self) -> None:
        original: Callable[[RTCPeerConnection], None]
        original = RTCPeerConnection._RTCPeerConnection__createSctpTransport  # type: ignore[attr-defined]
        original(self)
        stock = self.sctp
        assert stock is not None
        ours = self._make_sctp(stock.transport)
        ours._bundled, ours.mid = stock._bundled, stock.mid
        ours.on("datachannel", lambda channel: self.emit("datachannel", channel))
        self._RTCPeerConnection__sctp = ours
