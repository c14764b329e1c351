"""Packets of control chunks: built, bundled, and those that answer a peer that has missed the end."""

from __future__ import annotations

from flyx.sctp import chunks
from flyx.sctp.chunks import CauseCode, ChunkType
from flyx.sctp.packet import (
    COMMON_HEADER,
    COMMON_HEADER_SIZE,
    Checksum,
    serialize_chunk,
    serialize_packet,
)

_ANSWERLESS = (ChunkType.ABORT, ChunkType.SHUTDOWN_COMPLETE, ChunkType.COOKIE_ACK, ChunkType.ERROR)


class ControlPackets:
    """Control chunks on their way out; their packets always bear a checksum, since it costs nothing here."""

    def __init__(self, local_port: int, remote_port: int, checksum: Checksum, max_packet_size: int) -> None:
        self._local_port = local_port
        self._remote_port = remote_port
        self._checksum = checksum
        self._max_packet_size = max_packet_size
        # The peer's verification tag: set once its INIT or INIT ACK has told it.
        self.tag: int | None = None
        # Packets that are whole, and chunks to bundle into further ones.
        self.packets: list[bytes] = []
        self.chunks: list[bytes] = []

    def packet(self, bundled: list[bytes], tag: int | None = None) -> bytes:
        """Return one packet; with the peer's tag if no other is given."""
        if tag is None:
            assert self.tag is not None
            tag = self.tag
        return serialize_packet(self._local_port, self._remote_port, tag, bundled, self._checksum)

    def add_packet(self, *bundled: bytes, tag: int | None = None) -> bytes:
        """Let these chunks leave in a packet of their own, and return it; with this tag, or the peer's."""
        packet = self.packet(list(bundled), tag)
        self.packets.append(packet)
        return packet

    def take(self) -> list[bytes]:
        """Return the packets that are whole."""
        packets, self.packets = self.packets, []
        return packets

    def take_bundled(self) -> list[bytes]:
        """Return the waiting chunks in as few packets as they fit into."""
        packets: list[bytes] = []
        bundle: list[bytes] = []
        size = COMMON_HEADER_SIZE
        for chunk in self.chunks:
            if bundle and size + len(chunk) > self._max_packet_size:
                packets.append(self.packet(bundle))
                bundle, size = [], COMMON_HEADER_SIZE
            bundle.append(chunk)
            size += len(chunk)
        self.chunks.clear()
        if bundle:
            packets.append(self.packet(bundle))
        return packets

    def answer_late(self, packet: bytes, local_tag: int, *, agreed: bool) -> None:
        """A packet has come after the end: the peer has missed it (RFC 9260 §8.4).

        Args:
            packet: what came.
            local_tag: our verification tag.
            agreed: the end was a shutdown. Then packets that were overtaken must not make it an abort.
        """
        if self.tag is None or len(packet) < COMMON_HEADER_SIZE + 4:
            return
        kind = packet[COMMON_HEADER_SIZE]
        if COMMON_HEADER.unpack_from(packet)[2] != local_tag or kind in _ANSWERLESS:
            return
        if kind == ChunkType.SHUTDOWN_ACK:
            self.add_packet(serialize_chunk(ChunkType.SHUTDOWN_COMPLETE, 0, b""))
        elif not agreed:
            self.add_packet(chunks.serialize_abort(CauseCode.USER_INITIATED_ABORT))
