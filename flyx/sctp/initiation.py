"""What either side tells of itself when an association begins: INIT (RFC 9260 §3.3.2).

It goes through the association, or beforehand in the session descriptions: SNAP, draft-hancke-tsvwg-snap-00.
Then nothing is left to agree on when DTLS is connected, and four one-way trips are saved.
"""

from __future__ import annotations

from collections.abc import Callable

from flyx.errors import RemoteProtocolError
from flyx.sctp.chunks import ChunkType, Init, parse_init_untrusted
from flyx.sctp.config import Config
from flyx.sctp.packet import COMMON_HEADER_SIZE, split_chunks_untrusted

_EXTENSIONS = frozenset({ChunkType.RE_CONFIG, ChunkType.FORWARD_TSN, ChunkType.PAD})


def draw_init(config: Config, draw: Callable[[int], int]) -> Init:
    """Return the INIT of a new association.

    Args:
        config: of the association.
        draw: returns an unpredictable integer with so many bits.
    """
    return Init(
        initiate_tag=draw(32) or 1,
        initial_tsn=draw(32),
        a_rwnd=config.receive_window,
        outbound_streams=config.streams,
        inbound_streams=config.streams,
        forward_tsn=True,
        zero_checksum=config.zero_checksum,
        extensions=_EXTENSIONS,
    )


def parse_init_chunk_untrusted(chunk: bytes) -> Init:
    """Parse a whole INIT chunk, its header included, that came by another way than the association.

    Raises:
        RemoteProtocolError: it is none.
    """
    # As if it stood in a packet, which the parser of chunks expects.
    chunks = list(split_chunks_untrusted(bytes(COMMON_HEADER_SIZE) + chunk))
    if len(chunks) != 1 or chunks[0][0] != ChunkType.INIT:
        raise RemoteProtocolError(reason="an INIT chunk that is none")
    return parse_init_untrusted(chunks[0][2])
