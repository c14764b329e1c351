"""One SCTP association (RFC 9260) over DTLS, as a sans-I/O state machine.

1. mutate: connect, send, reset_streams, shutdown, abort, receive_packets or handle_timeout;
2. then drain: packets_to_send (again while it returns MAX_BURST_PACKETS or more), take_messages, next_event;
3. ask next_timeout when to call handle_timeout.

`now` is monotonic seconds, never earlier than in the last call. This file has the life of the association:
set-up with collision (§5), its end (§9, §8.5) and which chunk goes where. What moves data is in
transmission.py and reception.py.

Deviations: a state cookie is a random number that we remember instead of a signed state (§5.1.3), since DTLS
has already shown who is there; data from the peer stands for a lost COOKIE ACK; a restart of the peer
(§5.2.2 A) is ignored, since over DTLS it has a new handshake first (RFC 8261 §6.1); one address each, so no
failover; an idle path is not tested (§8.3), since ICE does that (RFC 7675).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from flyx.errors import LocalProtocolError, RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.chunks import CauseCode, ChunkType, Init
from flyx.sctp.config import Config
from flyx.sctp.congestion.base import CongestionController
from flyx.sctp.control import ControlPackets
from flyx.sctp.events import Closed, Established, Event, State, StreamsReset
from flyx.sctp.initiation import draw_init
from flyx.sctp.packet import (
    COMMON_HEADER,
    COMMON_HEADER_SIZE,
    Checksum,
    checksum_ok,
    has_zero_checksum,
    serialize_chunk,
    split_chunks_untrusted,
    split_parameters_untrusted,
)
from flyx.sctp.path_mtu import PathMtu
from flyx.sctp.reassembly import Message
from flyx.sctp.reception import Reception
from flyx.sctp.reconfig import StreamResets
from flyx.sctp.rto import RTO_INITIAL, RTO_MAX
from flyx.sctp.send_queue import OutgoingMessage, SendQueue
from flyx.sctp.serial import TSN_MODULUS
from flyx.sctp.timers import Timer, Timers
from flyx.sctp.transmission import MAX_BURST_PACKETS, Peer, Transmission

__all__ = [
    "MAX_BURST_PACKETS",
    "Association",
    "Closed",
    "Established",
    "Event",
    "Message",
    "State",
    "StreamsReset",
]

_COOKIE_BITS, _MAX_OFFERED = 128, 4

_MOVES_DATA = {State.ESTABLISHED, State.SHUTDOWN_PENDING, State.SHUTDOWN_RECEIVED}
_TAKES_DATA = {State.ESTABLISHED, State.SHUTDOWN_PENDING, State.SHUTDOWN_SENT}


class Association:
    """One end of an association."""

    def __init__(
        self,
        *,
        config: Config,
        local_port: int,
        remote_port: int,
        controller: CongestionController,
        checksum: Checksum,
        draw: Callable[[int], int],
        exchanged: tuple[Init, Init] | None = None,
    ) -> None:
        """Args:
        config: everything tunable.
        local_port: ours; 5000 for data channels.
        remote_port: the peer's.
        controller: congestion control, made for config.initial_packet_size.
        checksum: CRC32c (RFC 9260 appendix A).
        draw: returns an unpredictable integer with so many bits, such as `secrets.randbits`.
        exchanged: our INIT (draw_init()) and the peer's, if each side has the other's beforehand (SNAP).
        """
        self._config = config
        self._local_port = local_port
        self._remote_port = remote_port
        self._controller = controller
        self._checksum = checksum
        self.state = State.CLOSED
        # CLOSED for good, not only not yet open.
        self._over = False
        # It ended by a shutdown.
        self._agreed = False
        self._our_init = exchanged[0] if exchanged else draw_init(config, draw)
        self._told_init = exchanged[1] if exchanged else None
        self._local_tag, self._initial_tsn = self._our_init.initiate_tag, self._our_init.initial_tsn
        self._cookie = draw(_COOKIE_BITS).to_bytes(_COOKIE_BITS // 8, "big")
        # The INIT that each cookie given out has answered.
        self._offered: dict[bytes, Init] = {}
        self._path_mtu = PathMtu(
            config.packet_overhead, config.initial_packet_size, config.max_packet_size, draw(32)
        )
        self._timers = Timers()
        self._queue = SendQueue()
        self._events: deque[Event] = deque()
        self._control = ControlPackets(local_port, remote_port, checksum, config.initial_packet_size)
        # What T1 or T2 sends again, and how often it has.
        self._resend: bytes | None = None
        self._resends = 0
        # The peer as its INIT or INIT ACK told: set from then on.
        self._peer_init: Init | None = None
        # Set from ESTABLISHED on.
        self.transmission: Transmission | None = None
        self._reception: Reception | None = None
        self._resets: StreamResets | None = None
        # Packets without a checksum are taken, from the start: the peer's COOKIE ACK may be the first
        # (RFC 9653 §5.3).
        self._zero_checksum_in = config.zero_checksum
        # Streams whose reset was wished for before ESTABLISHED.
        self._early_resets: list[int] = []
        # Some message was only partially reliable.
        self._partial_reliability = False

    # Commands.

    def connect(self, now: float) -> None:
        """Send INIT, unless both are exchanged. Both ends may, at the same time (RFC 8841 §9.3)."""
        if self.state is not State.CLOSED or self._over:
            raise LocalProtocolError(reason="an association was connected twice")
        if self._told_init is not None:
            self._know_peer(self._told_init)
            self._establish(now)
            return
        self.state = State.COOKIE_WAIT
        self._control.packets.append(self._control.packet([chunks.serialize_init(self._our_init)], tag=0))
        self._start_t1(self._control.packets[-1], now)

    def send(
        self,
        stream_id: int,
        ppid: int,
        data: bytes,
        *,
        unordered: bool = False,
        max_retransmits: int | None = None,
        expires_at: float | None = None,
    ) -> None:
        """Queue a message; before ESTABLISHED it waits. `data` must not change afterwards, nor be empty.

        Once the association is over, nothing happens.
        """
        if not data:
            raise LocalProtocolError(reason="an empty SCTP message")
        if self._over:
            return
        message = OutgoingMessage(
            stream_id, ppid, data, unordered=unordered, max_retransmits=max_retransmits, expires_at=expires_at
        )
        self._queue.push(message)
        if max_retransmits is not None or expires_at is not None:
            self._partial_reliability = True
            self._use_partial_reliability()

    def reset_streams(self, streams: Sequence[int]) -> None:
        """Close our direction of these streams once all that was sent on them has left."""
        if self._resets:
            self._resets.want(streams)
        else:
            self._early_resets += streams

    def shutdown(self, now: float) -> None:
        """Deliver what is queued, then end the association with the peer's consent (§9.2)."""
        if self.state is State.ESTABLISHED:
            self.state = State.SHUTDOWN_PENDING
            self._go_on_shutting_down(now)
        elif self.transmission is None:
            self.abort()

    def abort(self) -> None:
        """End the association at once (§9.1); what is queued is lost."""
        self._abort(None, CauseCode.USER_INITIATED_ABORT)

    def violated(self, error: RemoteProtocolError) -> None:
        """The peer has broken the protocol, or that of its messages, beyond repair."""
        self._abort(error, CauseCode.PROTOCOL_VIOLATION)

    @property
    def max_packet_size(self) -> int:
        """The largest packet that is known to pass."""
        return self._path_mtu.size

    @property
    def needs_fragments(self) -> bool:
        """Packets to send may be larger than that: the path took them once. IP is to fragment them."""
        return self.transmission is not None and self.transmission.oversized

    # Drains.

    def packets_to_send(self, now: float) -> list[bytes]:
        """Return packets, in order; call again while there are at least MAX_BURST_PACKETS."""
        packets = self._control.take()
        if self._over:
            return packets
        reception, transmission = self._reception, self.transmission
        if reception:
            self._control.chunks[:0] = reception.sacks(now)
        if transmission and self.state in _MOVES_DATA:
            if forward := transmission.forward_tsn(now):
                self._control.chunks.append(forward)
            if self._resets:
                last_tsn = transmission.outstanding.next_tsn - 1
                self._control.chunks += self._resets.chunks_to_send(now, last_tsn, transmission.rtt.rto)
                self._tell_resets()
        if self._control.chunks:
            packets += self._control.take_bundled()
        if transmission and self.state in _MOVES_DATA:
            packets += transmission.packets(now)
            self._go_on_shutting_down(now)
            packets += self._control.take()
        return packets

    def take_messages(self) -> list[Message]:
        """Return the messages that have arrived."""
        return self._reception.take_messages() if self._reception else []

    def take_departed(self) -> list[tuple[int, int]]:
        """Return (stream id, bytes) of the messages that have left whole since the last call."""
        if not self.transmission:
            return []
        departed, self.transmission.departed = self.transmission.departed, []
        return departed

    def next_event(self) -> Event | None:
        """Return what has happened, oldest first."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When handle_timeout() is due."""
        return self._timers.next_deadline()

    # Inputs.

    def receive_packets(self, packets: list[bytes], now: float) -> None:
        """Take packets that came together, in order. Bad ones are dropped; a peer gone mad is aborted."""
        index = 0
        reception = self._reception
        while index < len(packets) and not self._over:
            if reception and self._zero_checksum_in:
                try:
                    index = reception.take_packets(packets, index, self._local_tag)
                except RemoteProtocolError as error:
                    self.violated(error)
                    return
                if index == len(packets):
                    break
            if not chunks.is_told_again(packets, index):
                self._receive_packet(packets[index], now)
                reception = self._reception
            index += 1
        if self._over:
            if index < len(packets):
                self._control.answer_late(packets[index], self._local_tag, agreed=self._agreed)
        elif reception:
            reception.schedule_sack(now)
            if self._resets:
                self._resets.data_arrived(reception.cumulative)
                self._tell_resets()

    def handle_timeout(self, now: float) -> None:
        """Do what is due at next_timeout()."""
        for timer in self._timers.due(now):
            if not self._over:
                self._expire(timer, now)

    # Packets.

    def _receive_packet(self, packet: bytes, now: float) -> None:
        if len(packet) < COMMON_HEADER_SIZE + 4:
            return
        _, _, tag, _ = COMMON_HEADER.unpack_from(packet)
        unchecked = self._zero_checksum_in and has_zero_checksum(packet)
        if not unchecked and not checksum_ok(packet, self._checksum):
            return
        has_data = False
        last_sack: memoryview | None = None
        try:
            for position, (kind, flags, value) in enumerate(split_chunks_untrusted(packet)):
                if position == 0 and not self._tag_fits(kind, flags, tag):
                    return
                has_data |= kind == ChunkType.DATA
                if kind == ChunkType.SACK:
                    # Of several (Reception.sacks) the last one tells all.
                    last_sack = value
                elif not self._receive_chunk(kind, flags, value, now) or self._over:
                    break
            if last_sack is not None and not self._over:
                self._receive_chunk(ChunkType.SACK, 0, last_sack, now)
        except RemoteProtocolError as error:
            if self._peer_init is not None:
                self.violated(error)
        if has_data and self._reception and not self._over:
            self._reception.packet_done()
            if self.state is State.SHUTDOWN_SENT:
                # The peer goes on sending before it agrees: it lives (§9.2).
                self._resends = 0

    def _tag_fits(self, kind: int, flags: int, tag: int) -> bool:
        """RFC 9260 §8.5, §8.5.1."""
        if kind == ChunkType.INIT:
            return tag == 0
        if kind in (ChunkType.ABORT, ChunkType.SHUTDOWN_COMPLETE) and flags & chunks.T_BIT:
            return self._peer_init is not None and tag == self._peer_init.initiate_tag
        return tag == self._local_tag

    def _receive_chunk(self, kind: int, flags: int, value: memoryview, now: float) -> bool:
        """Handle one chunk; return False if the rest of the packet is not to be looked at."""
        if self.state is State.COOKIE_ECHOED and kind in (ChunkType.DATA, ChunkType.SACK):
            # Our cookie was taken, only the COOKIE ACK is lost. RFC 9260 §5.1 has us wait for another, a T1
            # later; but the peer's T3 is shorter, and it would give us up before.
            self._establish(now)
        match kind:
            case ChunkType.DATA:
                if self._reception and self.state in _TAKES_DATA:
                    self._reception.receive_data(flags, value)
            case ChunkType.SACK:
                if self.transmission and self.state in _MOVES_DATA:
                    self.transmission.receive_sack(chunks.parse_sack_untrusted(value), now)
            case ChunkType.HEARTBEAT:
                if self._peer_init is not None:
                    self._control.chunks.append(serialize_chunk(ChunkType.HEARTBEAT_ACK, 0, bytes(value)))
            case ChunkType.HEARTBEAT_ACK:
                self._receive_heartbeat_ack(value)
            case ChunkType.FORWARD_TSN:
                if self._reception and self.state in _TAKES_DATA:
                    self._reception.receive_forward_tsn(chunks.parse_forward_tsn_untrusted(value))
            case ChunkType.RE_CONFIG:
                if self._resets and self._reception:
                    self._resets.receive(chunks.parse_reconfig_untrusted(value), self._reception.cumulative)
                    self._tell_resets()
            case ChunkType.INIT:
                self._receive_init(chunks.parse_init_untrusted(value), now)
                return False
            case ChunkType.INIT_ACK:
                self._receive_init_ack(chunks.parse_init_untrusted(value), now)
            case ChunkType.COOKIE_ECHO:
                return self._receive_cookie_echo(bytes(value), now)
            case ChunkType.COOKIE_ACK:
                if self.state is State.COOKIE_ECHOED:
                    self._establish(now)
            case ChunkType.ABORT:
                self._close(RemoteProtocolError(reason="the peer aborted the SCTP association"))
                return False
            case ChunkType.SHUTDOWN | ChunkType.SHUTDOWN_ACK | ChunkType.SHUTDOWN_COMPLETE:
                self._receive_shutdown(ChunkType(kind), value, now)
            case ChunkType.ERROR | ChunkType.PAD:
                pass
            case _:
                return self._receive_unknown(kind, flags, value)
        return True

    def _receive_unknown(self, kind: int, flags: int, value: memoryview) -> bool:
        """RFC 9260 §3.2: the highest bit says go on, the next one says report."""
        if kind & 0x40 and self._peer_init is not None:
            chunk = serialize_chunk(kind, flags, bytes(value))
            self._control.chunks.append(chunks.serialize_error(CauseCode.UNRECOGNIZED_CHUNK_TYPE, chunk))
        return bool(kind & 0x80)

    # Set-up (§5).

    def _receive_init(self, init: Init, now: float) -> None:
        """§5.1 B, §5.2.1: also when ours is under way, with the tag and TSN of ours.

        A peer that answered our INIT before it sent its own may bear another tag in the latter (usrsctp).
        """
        cookie = self._cookie + init.initiate_tag.to_bytes(4, "big")
        if cookie not in self._offered:
            if self.transmission is not None or len(self._offered) == _MAX_OFFERED:
                # A restart, see the module's deviations; or a flood.
                return
            self._offered[cookie] = init
        # Old releases of pion drop an INIT ACK with a parameter that it does not know.
        zero_checksum = self._our_init.zero_checksum and init.zero_checksum
        answer = replace(self._our_init, cookie=cookie, zero_checksum=zero_checksum)
        self._control.add_packet(chunks.serialize_init(answer), tag=init.initiate_tag)

    def _know_peer(self, init: Init) -> None:
        self._peer_init = init
        self._control.tag = init.initiate_tag

    def _receive_init_ack(self, init: Init, now: float) -> None:
        if self.state is not State.COOKIE_WAIT or init.cookie is None:
            return
        self._know_peer(init)
        self.state = State.COOKIE_ECHOED
        echo = serialize_chunk(ChunkType.COOKIE_ECHO, 0, init.cookie)
        self._start_t1(self._control.add_packet(echo), now)

    def _receive_cookie_echo(self, cookie: bytes, now: float) -> bool:
        init = self._offered.get(cookie)
        known = self._peer_init
        if init is None or (self.transmission and known and known.initiate_tag != init.initiate_tag):
            return False
        self._know_peer(init)
        cookie_ack = serialize_chunk(ChunkType.COOKIE_ACK, 0, b"")
        if self.transmission is None:
            # First in its packet: the peer may send data as soon as it has read this.
            self._control.add_packet(cookie_ack)
            self._establish(now)
        else:
            self._control.chunks.append(cookie_ack)
        return True

    def _establish(self, now: float) -> None:
        init = self._peer_init
        assert init is not None
        self.state = State.ESTABLISHED
        self._timers.stop(Timer.T1)
        self._resend = None
        if ChunkType.PAD not in init.extensions:
            self._path_mtu.cap_for_unknown_peer()
        checksum = None if init.zero_checksum and self._config.zero_checksum else self._checksum
        ports = self._local_port, self._remote_port
        peer = Peer(*ports, init.initiate_tag, init.a_rwnd, checksum)
        self.transmission = Transmission(
            peer, self._queue, self._initial_tsn, self._controller, self._timers, self._path_mtu
        )
        self._use_partial_reliability()
        self._reception = Reception(init.initial_tsn, self._config, self._timers)
        self._resets = StreamResets(
            self._initial_tsn,
            init.initial_tsn,
            queue=self._queue,
            timers=self._timers,
            incoming_streams=self._reception.stream_ids,
            supported=ChunkType.RE_CONFIG in init.extensions,
            max_retries=self._config.max_retries,
        )
        self._resets.want(self._early_resets)
        streams = self._config.streams
        outbound, inbound = min(streams, init.inbound_streams), min(streams, init.outbound_streams)
        self._events.append(Established(outbound, inbound))
        self._timers.start(Timer.HEARTBEAT, now)

    def _use_partial_reliability(self) -> None:
        """Messages may be abandoned from now on, if the peer understands FORWARD TSN."""
        if self.transmission and self._peer_init and self._partial_reliability:
            self.transmission.partial_reliability = self._peer_init.takes_forward_tsn

    def _start_t1(self, packet: bytes, now: float) -> None:
        self._resend, self._resends = packet, 0
        self._timers.start(Timer.T1, now + RTO_INITIAL)

    # Timers.

    def _expire(self, timer: Timer, now: float) -> None:
        transmission = self.transmission
        match timer:
            case Timer.T1:
                self._send_again(timer, self._config.init_retries, now)
            case Timer.T2:
                self._send_again(timer, self._config.max_retries, now)
            case Timer.SACK:
                if self._reception:
                    self._reception.sack_due()
            case Timer.HEARTBEAT:
                self._probe_path(now)
            case Timer.RECONFIG:
                self._repeat_reset_request(now)
            case Timer.T3 if transmission:
                transmission.handle_t3(now)
                if transmission.failures > self._config.max_retries:
                    error = RemoteProtocolError(reason="the peer no longer acknowledges")
                    self._abort(error, CauseCode.USER_INITIATED_ABORT)
            case Timer.TAIL_PROBE if transmission:
                transmission.handle_tail_probe(now)
            case Timer.RACK if transmission:
                transmission.handle_rack(now)
            case _:
                # PACING: packets_to_send() is all there is to do.
                pass

    def _send_again(self, timer: Timer, retries: int, now: float) -> None:
        """T1 or T2 has expired (§5.1, §9.2)."""
        if self._resend is None:
            return
        self._resends += 1
        if self._resends > retries:
            self._close(RemoteProtocolError(reason="the peer does not answer"))
            return
        self._control.packets.append(self._resend)
        self._timers.start(timer, now + min(RTO_INITIAL * 2**self._resends, RTO_MAX))

    # The path.

    def path_changed(self, controller: CongestionController, max_packet_size: int, now: float) -> None:
        """Packets take another path from now on; the arguments are as for a new association."""
        self._controller = controller
        self._path_mtu.begin_again(max_packet_size, now)
        if self.transmission:
            self.transmission.path_changed(controller, now)

    def _probe_path(self, now: float) -> None:
        if self.state is not State.ESTABLISHED:
            return
        probes, again = self._path_mtu.probes(now)
        self._control.packets += [self._control.packet(probe) for probe in probes]
        self._timers.start(Timer.HEARTBEAT, again)

    def _receive_heartbeat_ack(self, value: memoryview) -> None:
        for _, info in split_parameters_untrusted(value):
            if self._path_mtu.acknowledged(bytes(info)) and self.transmission:
                self.transmission.path_mtu_changed()

    # Stream reset (RFC 6525).

    def _repeat_reset_request(self, now: float) -> None:
        if self._resets and self.transmission:
            try:
                self._control.chunks += self._resets.handle_timeout(now, self.transmission.rtt.rto)
            except RemoteProtocolError as error:
                self._abort(error, CauseCode.USER_INITIATED_ABORT)

    def _tell_resets(self) -> None:
        resets = self._resets
        assert resets is not None
        if not resets.incoming_done and not resets.outgoing_done:
            return
        incoming, resets.incoming_done = tuple(resets.incoming_done), []
        outgoing, resets.outgoing_done = tuple(resets.outgoing_done), []
        if incoming and self._reception:
            self._reception.reset_streams(incoming)
        self._events.append(StreamsReset(incoming, outgoing))

    # The end (§9).

    def _go_on_shutting_down(self, now: float) -> None:
        """Take the next step of a shutdown once nothing is queued or unacknowledged."""
        if self.transmission is None or not self.transmission.idle or self._reception is None:
            return
        if self.state is State.SHUTDOWN_PENDING:
            self.state = State.SHUTDOWN_SENT
            value = (self._reception.cumulative % TSN_MODULUS).to_bytes(4, "big")
            self._shut(serialize_chunk(ChunkType.SHUTDOWN, 0, value), now)
        elif self.state is State.SHUTDOWN_RECEIVED:
            self.state = State.SHUTDOWN_ACK_SENT
            self._shut(serialize_chunk(ChunkType.SHUTDOWN_ACK, 0, b""), now)

    def _shut(self, chunk: bytes, now: float) -> None:
        self._resend, self._resends = self._control.add_packet(chunk), 0
        self._timers.start(Timer.T2, now + RTO_INITIAL)

    def _receive_shutdown(self, kind: ChunkType, value: memoryview, now: float) -> None:
        transmission = self.transmission
        if transmission is None:
            return
        match kind:
            case ChunkType.SHUTDOWN:
                if len(value) != 4:
                    raise RemoteProtocolError(reason="a malformed SHUTDOWN")
                if self.state in _MOVES_DATA:
                    transmission.receive_shutdown(int.from_bytes(value, "big"), now)
                    self.state = State.SHUTDOWN_RECEIVED
                    self._go_on_shutting_down(now)
                elif self.state is State.SHUTDOWN_SENT:
                    # Both at once (§9.2).
                    self.state = State.SHUTDOWN_ACK_SENT
                    self._shut(serialize_chunk(ChunkType.SHUTDOWN_ACK, 0, b""), now)
            case ChunkType.SHUTDOWN_ACK if self.state in (State.SHUTDOWN_SENT, State.SHUTDOWN_ACK_SENT):
                self._control.add_packet(serialize_chunk(ChunkType.SHUTDOWN_COMPLETE, 0, b""))
                self._agreed = True
                self._close(None)
            case ChunkType.SHUTDOWN_COMPLETE if self.state is State.SHUTDOWN_ACK_SENT:
                self._agreed = True
                self._close(None)
            case _:
                pass

    def _abort(self, error: RemoteProtocolError | None, cause: CauseCode) -> None:
        """The peer broke the protocol, does not answer any more (§8.1), or is not wanted."""
        if self._over:
            return
        if self._peer_init is not None:
            self._control.add_packet(chunks.serialize_abort(cause, str(error or "").encode()[:200]))
        self._close(error, violated=cause is CauseCode.PROTOCOL_VIOLATION)

    def _close(self, error: RemoteProtocolError | None, *, violated: bool = False) -> None:
        if not self._over:
            self._over = True
            self.state = State.CLOSED
            self._timers.stop_all()
            self._resend = None
            self._control.chunks.clear()
            self._events.append(Closed(error, violated))
