"""How large packets may be: packetization-layer path-MTU discovery (RFC 8899) with HEARTBEAT and padding.

Instead of searching size by size, one probe of each size that networks are made of leaves at once: a round
trip later the largest that came back is known. What is lost to chance gets two more tries.
"""

from __future__ import annotations

import struct
from math import inf

from flyx.sctp.chunks import ChunkType, ParameterType, serialize_pad
from flyx.sctp.packet import COMMON_HEADER_SIZE, serialize_chunk, serialize_parameters

DATAGRAM_SIZES = (1232, 1352, 1452, 1472, 8952, 8972, 65507)
"""UDP payloads that fit IP packets of 1280, 1400, 1500 and 9000 bytes (IPv6, IPv4), and the largest."""

LARGEST_FOR_UNKNOWN_PEERS = 1472
"""No larger datagrams are tried with a peer that does not know PAD, and so does not probe like this itself.

libwebrtc's DTLS transport fails for good over a record of more than 2,048 bytes (kMaxDtlsPacketLen).
"""

TRIES = 3
"""MAX_PROBES (RFC 8899 §5.1.2)."""

PROBE_TIMEOUT = 1.0
"""Seconds from one try to the next; RFC 8899 §5.1.1 wants more than a round trip, 15 s by default."""

RAISE_INTERVAL = 600.0
"""PMTU_RAISE_TIMER (RFC 8899 §5.1.1): the path may have changed."""

_INFO = struct.Struct("!IHd")

_COOKIE_ACK = serialize_chunk(ChunkType.COOKIE_ACK, 0, b"")
"""What a probe for an unknown peer is filled with: every stack discards this chunk (RFC 9260 §5.2.5).

PAD is to be skipped by those that do not know it (§3.2), but werift's process ends. A HEARTBEAT with as much
information is answered by werift, not by libwebrtc and usrsctp.
"""


class PathMtu:
    """The sizes that may be probed, and the largest that is known to pass."""

    def __init__(self, packet_overhead: int, initial: int, largest: int, magic: int) -> None:
        """Args:
        packet_overhead: bytes of a datagram that are not SCTP packet.
        initial: packets of this size are known to pass.
        largest: packets may not be larger.
        magic: recognises our own probes among heartbeats; 32 bits.
        """
        self.size = self._initial = initial
        self._packet_overhead = packet_overhead
        self._knows_pad = True
        self._sizes = self._sizes_up_to(largest)
        self._magic = magic
        self._tries = 0
        # Answers to probes that left before this are of no use.
        self._since = -inf

    def cap_for_unknown_peer(self) -> None:
        """The peer may survive neither PAD nor packets above the Internet's; before the first probes."""
        self._knows_pad = False
        self._sizes = self._sizes_up_to(max(self._sizes, default=self._initial))

    def begin_again(self, largest: int, now: float) -> None:
        """The path is another one, on which packets may not be larger than this: nothing is known of it."""
        self._sizes = self._sizes_up_to(largest)
        self.fall_back(now)

    def _sizes_up_to(self, largest: int) -> list[int]:
        if not self._knows_pad:
            largest = min(largest, LARGEST_FOR_UNKNOWN_PEERS - self._packet_overhead)
        sizes = {min(size - self._packet_overhead, largest) & ~3 for size in DATAGRAM_SIZES}
        return sorted(size for size in sizes if size > self._initial)

    def probes(self, now: float) -> tuple[list[list[bytes]], float]:
        """Return the chunks of each probe packet to send, smallest first, and when to ask again."""
        if self._tries == TRIES:
            self._tries = 0
        self._tries += 1
        untried = [size for size in self._sizes if size > self.size]
        last = self._tries == TRIES or not untried
        if last:
            self._tries = TRIES
        return [self._probe(size, now) for size in untried], now + (RAISE_INTERVAL if last else PROBE_TIMEOUT)

    def _probe(self, size: int, now: float) -> list[bytes]:
        heartbeat = serialize_heartbeat(_INFO.pack(self._magic, size, now))
        room = size - COMMON_HEADER_SIZE - len(heartbeat)
        if self._knows_pad:
            return [heartbeat, serialize_pad(room)]
        return [heartbeat, *[_COOKIE_ACK] * (room // len(_COOKIE_ACK))]

    def acknowledged(self, info: bytes) -> bool:
        """A heartbeat has come back; return whether larger packets may be sent now."""
        if len(info) != _INFO.size:
            return False
        magic, size, sent_at = _INFO.unpack(info)
        if magic != self._magic or size <= self.size or size not in self._sizes or not sent_at >= self._since:
            return False
        self.size = size
        return True

    def fall_back(self, now: float) -> None:
        """Packets of the size in use no longer pass: begin again with the smallest (RFC 8899 §4.3)."""
        self.size = self._initial
        self._tries = 0
        self._since = now


def serialize_heartbeat(info: bytes) -> bytes:
    """Return HEARTBEAT (RFC 9260 §3.3.5)."""
    parameters = serialize_parameters([(ParameterType.HEARTBEAT_INFO, info)])
    return serialize_chunk(ChunkType.HEARTBEAT, 0, parameters)
