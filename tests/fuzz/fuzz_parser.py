"""The SCTP parsers, with whole packets.

Parsers may raise RemoteProtocolError and nothing else; what they return keeps its promises, and what is
serialized again parses to the same.
"""

from __future__ import annotations

from flyx.errors import RemoteProtocolError
from flyx.sctp import chunks
from flyx.sctp.chunks import ChunkType, IncomingReset
from flyx.sctp.packet import CHUNK_HEADER_SIZE, padded, split_chunks_untrusted
from tests.fuzz.target import Target


def again(serialized: bytes) -> memoryview:
    """Return the value of the one chunk."""
    length = int.from_bytes(serialized[2:4], "big")
    assert len(serialized) == padded(length)
    return memoryview(serialized)[CHUNK_HEADER_SIZE:length]


def one_chunk(kind: int, value: memoryview) -> None:
    """Parse the value of a chunk as its type says."""
    match kind:
        case ChunkType.SACK:
            sack = chunks.parse_sack_untrusted(value)
            last = 0
            for start, end in sack.gap_ack_blocks:
                assert last < start <= end <= 0xFFFF
                last = end
            assert chunks.parse_sack_untrusted(again(chunks.serialize_sack(sack))) == sack
        case ChunkType.FORWARD_TSN:
            forward = chunks.parse_forward_tsn_untrusted(value)
            assert chunks.parse_forward_tsn_untrusted(again(chunks.serialize_forward_tsn(forward))) == forward
        case ChunkType.INIT | ChunkType.INIT_ACK:
            init = chunks.parse_init_untrusted(value)
            assert init.initiate_tag
            assert init.outbound_streams
            assert init.inbound_streams
            assert chunks.parse_init_untrusted(again(chunks.serialize_init(init))) == init
        case ChunkType.RE_CONFIG:
            reconfig = chunks.parse_reconfig_untrusted(value)
            ours = [told for told in reconfig.parameters if not isinstance(told, IncomingReset)]
            assert chunks.parse_reconfig_untrusted(again(chunks.serialize_reconfig(ours))).parameters == ours
        case _:
            pass


def one_input(data: bytes) -> None:
    """Parse one packet."""
    size = 0
    try:
        for kind, flags, value in split_chunks_untrusted(data):
            assert 0 <= flags <= 0xFF
            size += CHUNK_HEADER_SIZE + len(value)
            assert size <= len(data)
            try:
                one_chunk(kind, value)
            except RemoteProtocolError:
                pass
    except RemoteProtocolError:
        pass


TARGETS = {"sctp-parser": Target(one_input, base=500, per_byte=20)}
