"""The common header (RFC 9260 §3.1), its checksum, and how chunks are bundled and taken apart.

     0                   1                   2                   3
    |      source port number       |    destination port number    |
    |                       verification tag                        |
    |             checksum: CRC32c, least significant byte first    |

With zero checksum acceptable (RFC 9653) negotiated, the checksum of every packet but those with INIT or
COOKIE ECHO may be zero.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from flyx.errors import RemoteProtocolError

COMMON_HEADER = struct.Struct("!HHII")
COMMON_HEADER_SIZE: Final = COMMON_HEADER.size
CHUNK_HEADER = struct.Struct("!BBH")
CHUNK_HEADER_SIZE = CHUNK_HEADER.size

_CHECKSUM_AT = 8
_LITTLE = struct.Struct("<I")

Checksum = Callable[[bytes], int]
"""CRC32c of RFC 3309: given to the association, since the standard library has none."""


def padded(length: int) -> int:
    """Return length rounded up to a multiple of four, as chunks and parameters are padded."""
    return (length + 3) & ~3


def serialize_packet(
    source_port: int,
    destination_port: int,
    verification_tag: int,
    chunks: Iterable[bytes],
    checksum: Checksum | None,
) -> bytes:
    """Return one packet of whole, padded chunks; None leaves the checksum zero."""
    header = COMMON_HEADER.pack(source_port, destination_port, verification_tag, 0)
    packet = b"".join((header, *chunks))
    return packet if checksum is None else with_checksum(packet, checksum)


def with_checksum(packet: bytes, checksum: Checksum) -> bytes:
    """Return a packet that has zero for a checksum with the true one."""
    return packet[:_CHECKSUM_AT] + _LITTLE.pack(checksum(packet)) + packet[_CHECKSUM_AT + 4 :]


def checksum_ok(packet: bytes, checksum: Checksum) -> bool:
    """Whether a packet of at least COMMON_HEADER_SIZE bytes bears its true checksum."""
    told = _LITTLE.unpack_from(packet, _CHECKSUM_AT)[0]
    zeroed = packet[:_CHECKSUM_AT] + b"\0\0\0\0" + packet[_CHECKSUM_AT + 4 :]
    return bool(told == checksum(zeroed))


def has_zero_checksum(packet: bytes) -> bool:
    """Whether the sender left the checksum out."""
    return packet[_CHECKSUM_AT : _CHECKSUM_AT + 4] == b"\0\0\0\0"


def split_chunks_untrusted(packet: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """Yield type, flags and value of each chunk of a packet.

    The values are views into the packet.

    Raises:
        RemoteProtocolError: a chunk is cut short or shorter than its header. Chunks before it were yielded.
    """
    view = memoryview(packet)
    position = COMMON_HEADER_SIZE
    while position < len(packet):
        if position + CHUNK_HEADER_SIZE > len(packet):
            raise RemoteProtocolError(reason="an SCTP packet ends inside a chunk header")
        kind, flags, length = CHUNK_HEADER.unpack_from(packet, position)
        if length < CHUNK_HEADER_SIZE or position + length > len(packet):
            raise RemoteProtocolError(reason="an SCTP chunk of impossible length")
        yield kind, flags, view[position + CHUNK_HEADER_SIZE : position + length]
        position += padded(length)


def serialize_chunk(kind: int, flags: int, value: bytes) -> bytes:
    """Return a chunk with its header and padding."""
    length = CHUNK_HEADER_SIZE + len(value)
    return CHUNK_HEADER.pack(kind, flags, length) + value + b"\0" * (padded(length) - length)


def split_parameters_untrusted(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and value of each parameter or error cause (RFC 9260 §3.2.1, §3.3.10).

    Raises:
        RemoteProtocolError: one is cut short. Those before it were yielded.
    """
    position = 0
    while position < len(view):
        if position + 4 > len(view):
            raise RemoteProtocolError(reason="an SCTP parameter is cut short")
        kind, length = struct.unpack_from("!HH", view, position)
        if length < 4 or position + length > len(view):
            raise RemoteProtocolError(reason="an SCTP parameter of impossible length")
        yield kind, view[position + 4 : position + length]
        position += padded(length)


def serialize_parameters(parameters: Iterable[tuple[int, bytes]]) -> bytes:
    """Return parameters or error causes with their headers, each padded but for the last.

    The padding of the last belongs to the chunk, whose length does not count it (RFC 9260 §3.2).
    """
    serialized = b""
    for kind, value in parameters:
        serialized += bytes(padded(len(serialized)) - len(serialized))
        serialized += struct.pack("!HH", kind, 4 + len(value)) + value
    return serialized
