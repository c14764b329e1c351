"""The only user of private names of aiortc and aioice, and of pyOpenSSL below them.

aiortc gathers all candidates before it gives an SDP, and one STUN server that does not answer costs 5 s
there. Here the host candidates are gathered first; server-reflexive ones are asked for over the same sockets
and told as they are found (trickle ICE, RFC 8838).

For flyx.rtc.dtls there is what lies below an RTCDtlsTransport: OpenSSL's handles, the sockets of its ICE
connection and the path that ICE has chosen.

Each private name is in PRIVATE_NAMES, and a test makes sure that the pinned release still has it.
"""

from __future__ import annotations

import asyncio
import struct
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aioice import Candidate, Connection, stun
from aioice.ice import StunProtocol, server_reflexive_candidate
from aioice.ice import relayed_candidate as ice_relayed_candidate
from aioice.turn import TurnTransport
from aiortc import RTCConfiguration, RTCDataChannel, RTCDtlsTransport, RTCIceCandidate, RTCPeerConnection
from aiortc.rtcicetransport import RTCIceGatherer, candidate_from_aioice
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
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

from flyx.errors import RemoteProtocolError

PRIVATE_NAMES = {
    RTCIceGatherer: ("_connection",),
    RTCDtlsTransport: ("_ssl",),
    RTCDataChannel: ("_addBufferedAmount", "_setId"),
    RTCPeerConnection: ("_RTCPeerConnection__createSctpTransport", "_RTCPeerConnection__sctp"),
    RTCSctpTransport: (
        *("_association_state", "_bundled"),
        *("_data_channel_close", "_data_channel_flush", "_data_channel_id"),
        *("_data_channel_inbound_reset", "_data_channel_outbound_reset", "_data_channel_queue"),
        *("_data_channel_receive", "_data_channel_reset", "_data_channel_send", "_data_channels"),
        *("_inbound_streams_count", "_outbound_streams_count", "_reconfig_queue"),
        *("_remote_max_message_size", "_set_state", "_transmit_reconfig"),
    ),
    Connection: (
        *("_local_candidates", "_nominated", "_pair_remote_candidate", "_protocols", "_queue"),
        "_remote_candidates",
    ),
    Candidate: ("_network_host",),
    TurnTransport: (
        "_TurnTransport__close_task",
        "_TurnTransport__inner_protocol",
        "_TurnTransport__send_tasks",
    ),
    SSL.Connection: ("_ssl", "_into_ssl", "_from_ssl"),
}
"""Attributes that instances of these classes have and this module uses."""

PRIVATE_NAMES_OF_PYOPENSSL = ("_lib", "_ffi")
"""Attributes of the module OpenSSL.SSL: the functions of libssl and libcrypto, and cffi to call them."""

ALLOCATION_TIMEOUT = 10.0
"""Seconds for a TURN server to make an allocation."""

RELAY_FAREWELL = 1.0
"""Seconds for a TURN server to hear that an allocation is not needed any more; unheard, it ends it later."""

MAX_LEARNED_CANDIDATES = 16
"""Peer-reflexive candidates of one peer. Honest ones have one for each NAT between, and signal the others."""

COMPONENT = 1
"""The only component of a data channel's ICE stream."""

LOOPBACK_ADDRESSES = ["127.0.0.1"]

_OPEN = struct.Struct("!BBHLHH")
"""DATA_CHANNEL_OPEN (RFC 8832 §5.1) up to the label: message type, channel type, priority, reliability
parameter, lengths of label and protocol."""


def _gatherer(pc: RTCPeerConnection) -> RTCIceGatherer:
    assert pc.sctp is not None, "data channels are created or offered first"
    return pc.sctp.transport.transport.iceGatherer


def _ice(pc: RTCPeerConnection) -> Connection:
    return _gatherer(pc)._connection


async def gather_host_candidates(pc: RTCPeerConnection) -> list[RTCIceCandidate]:
    """Gather and return the host candidates; call before setLocalDescription, with no ICE servers configured.

    A machine without any network still has its loopback, which aioice leaves out: then that is used, so that
    two processes on one machine always find each other.
    """
    gatherer = _gatherer(pc)
    ice = gatherer._connection
    _limit_learned_candidates(ice)
    await gatherer.gather()
    if not ice.local_candidates:
        ice._local_candidates += await ice.get_component_candidates(COMPONENT, LOOPBACK_ADDRESSES)
    return gatherer.getLocalCandidates()


def _limit_learned_candidates(ice: Connection) -> None:
    """Have ICE learn MAX_LEARNED_CANDIDATES peer-reflexive candidates (RFC 8445 §7.3.1.3) and no more.

    A check that passes for the peer's teaches one, and we then check it in turn, whatever address it bears.
    """
    check = ice.check_incoming

    def check_if_known(message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        remote = ice._remote_candidates
        known = any((candidate._network_host, candidate.port) == addr[:2] for candidate in remote)
        learned = sum(candidate.type == "prflx" for candidate in remote)
        if known or learned < MAX_LEARNED_CANDIDATES:
            check(message, addr, protocol)

    ice.check_incoming = check_if_known  # type: ignore[method-assign]


def host_addresses(pc: RTCPeerConnection) -> list[str]:
    """Return the addresses of our host candidates, as far as they are gathered."""
    return [candidate.host for candidate in _ice(pc)._local_candidates if candidate.type == "host"]


async def server_reflexive_candidates(
    pc: RTCPeerConnection, server: tuple[str, int]
) -> list[RTCIceCandidate]:
    """Ask a STUN server (host, port) for our addresses as it sees them; none if it does not answer.

    RFC 8489; the host candidates' own sockets ask, so that the answers are their mappings.
    """
    ice = _ice(pc)
    asked = [
        asyncio.ensure_future(server_reflexive_candidate(protocol, server))
        for protocol in ice._protocols
        # The name of the server is looked up as IPv4 only.
        if ":" not in protocol.local_candidate.host
    ]
    found = []
    try:
        for answer in asked:
            try:
                candidate, _ = await answer
            except (stun.TransactionError, OSError, KeyError):
                continue
            ice._local_candidates.append(candidate)
            found.append(candidate_from_aioice(candidate))
    finally:
        for answer in asked:
            answer.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return found


def certificate_fingerprints(pc: RTCPeerConnection) -> tuple[bytes, bytes]:
    """Return the SHA-256 of our DTLS certificate and of the peer's, as OpenSSL has them: DTLS is connected.

    Not as the descriptions claim them, which went through a server.
    """
    assert pc.sctp is not None
    connection = pc.sctp.transport._ssl
    assert connection is not None, "not started"
    ours = connection.get_certificate(as_cryptography=True)
    theirs = connection.get_peer_certificate(as_cryptography=True)
    assert ours is not None
    assert theirs is not None, "aiortc connects to nobody without a certificate"
    return ours.fingerprint(SHA256()), theirs.fingerprint(SHA256())


@dataclass(frozen=True, slots=True)
class Relay:
    """A TURN server (host, port) and how to be let in.

    Attributes:
        transport: "udp" or "tcp", to the server.
        secure: TLS over that.
    """

    address: tuple[str, int]
    username: str
    password: str
    transport: str
    secure: bool


class _RelayedProtocol(StunProtocol):
    """Ends in time even when its TURN server is out of reach, which aioice would ask for up to a minute.

    That is when there is no time to lose: the path through it is lost, and another one is wanted.
    """

    async def close(self) -> None:
        closing = asyncio.ensure_future(super().close())
        await asyncio.wait((closing,), timeout=RELAY_FAREWELL)
        if not closing.done():
            transport: Any = self.transport
            for task in (transport._TurnTransport__close_task, *transport._TurnTransport__send_tasks):
                task.cancel()
        await closing


async def relayed_candidate(pc: RTCPeerConnection, relay: Relay) -> RTCIceCandidate | None:
    """Have a TURN server relay for us, and return the address there; None if it does not.

    RFC 8656. The allocation lives and ends with the connection.
    """
    ice = _ice(pc)
    try:
        async with asyncio.timeout(ALLOCATION_TIMEOUT):
            candidate, protocol = await ice_relayed_candidate(
                component=COMPONENT,
                hide_related_address=False,
                protocol_factory=lambda: _RelayedProtocol(ice),
                turn_server=relay.address,
                turn_username=relay.username,
                turn_password=relay.password,
                turn_ssl=relay.secure,
                turn_transport=relay.transport,
            )
    except (stun.TransactionError, OSError, TimeoutError, KeyError):
        return None
    ice._protocols.append(protocol)
    ice._local_candidates.append(candidate)
    # What the peer has told before is paired with our other candidates; the checks may have begun.
    for remote in list(ice._remote_candidates):
        ice._pair_remote_candidate(remote)
    ice.sort_check_list()
    return candidate_from_aioice(candidate)


def selected_pair(pc: RTCPeerConnection) -> tuple[RTCIceCandidate, RTCIceCandidate] | None:
    """Return the nominated candidate pair, local and remote; None before there is one."""
    pair = _ice(pc)._nominated.get(COMPONENT)
    if pair is None:
        return None
    return candidate_from_aioice(pair.local_candidate), candidate_from_aioice(pair.remote_candidate)


@dataclass(frozen=True, slots=True)
class RecordLayer:
    """A DTLS connection as OpenSSL has it: read and written through memory BIOs."""

    lib: Any
    ffi: Any
    connection: SSL.Connection
    ssl: Any
    incoming: Any
    """Where datagrams from the peer go."""
    outgoing: Any
    """Where records for the peer come from."""


def record_layer(dtls: RTCDtlsTransport) -> RecordLayer:
    """Return OpenSSL's handles; the handshake has been started."""
    connection = dtls._ssl
    assert connection is not None, "not started"
    return RecordLayer(
        lib=SSL._lib,  # type: ignore[attr-defined]  # private
        ffi=SSL._ffi,  # type: ignore[attr-defined]  # private
        connection=connection,
        ssl=connection._ssl,
        incoming=connection._into_ssl,
        outgoing=connection._from_ssl,
    )


@dataclass(frozen=True, slots=True)
class Path:
    """Where ICE sends: the protocol and the transport of the nominated pair, and the peer's address."""

    protocol: asyncio.DatagramProtocol
    transport: asyncio.DatagramTransport
    address: tuple[str, int]


def nominated_pair(dtls: RTCDtlsTransport) -> object | None:
    """Return something that stays the same as long as the path does; None while there is none."""
    return _ice_of(dtls)._nominated.get(COMPONENT)


def nominated_path(dtls: RTCDtlsTransport) -> Path:
    """Return the path in use; there is one."""
    pair = _ice_of(dtls)._nominated[COMPONENT]
    return Path(pair.protocol, pair.protocol.transport, pair.remote_addr)


def datagram_protocols(dtls: RTCDtlsTransport) -> list[asyncio.DatagramProtocol]:
    """Return what takes the datagrams of each local candidate: STUN is answered there, the rest queued."""
    return list(_ice_of(dtls)._protocols)


def redirect_datagrams(protocol: asyncio.DatagramProtocol, receiver: asyncio.DatagramProtocol) -> None:
    """Have the transport of an ICE protocol deliver to this receiver instead, and tell it of its end."""
    assert isinstance(protocol, StunProtocol)
    if isinstance(protocol.transport, TurnTransport):
        protocol.transport._TurnTransport__inner_protocol.receiver = receiver  # type: ignore[attr-defined]
    else:
        protocol.transport.set_protocol(receiver)


def take_queued_datagrams(dtls: RTCDtlsTransport) -> list[bytes]:
    """Return the datagrams that ICE has queued for aiortc, which will not see them."""
    queue = _ice_of(dtls)._queue
    entries = []
    while not queue.empty():
        entries.append(queue.get_nowait())
    if None in entries:
        # The connection is lost, which aiortc must see.
        queue.put_nowait(None)
    return [entry[0] for entry in entries if entry is not None]


def queue_datagram(dtls: RTCDtlsTransport, datagram: bytes) -> None:
    """Give aiortc a datagram as if ICE had received it."""
    _ice_of(dtls)._queue.put_nowait((datagram, COMPONENT))


def end_datagrams(dtls: RTCDtlsTransport) -> None:
    """Have aiortc's DTLS transport close as if the peer's close_notify had gone through it."""
    _ice_of(dtls)._queue.put_nowait(None)


def _ice_of(dtls: RTCDtlsTransport) -> Connection:
    return dtls.transport.iceGatherer._connection


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
    """An RTCPeerConnection whose SCTP transport somebody else makes."""

    def __init__(
        self, configuration: RTCConfiguration, make_sctp: Callable[[RTCDtlsTransport], RTCSctpTransport]
    ) -> None:
        self._make_sctp = make_sctp
        super().__init__(configuration)

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
