"""The wire format of a DATA chunk (RFC 9260 §3.3.1), which both halves of an association know.

     0                   1                   2                   3
    |   type = 0    |  res  |I|U|B|E|            length             |
    |                              TSN                              |
    |           stream id           |              SSN              |
    |                             PPID                              |

Most packets are the common header and one such chunk: both are built and read in one go.
"""

from __future__ import annotations

import struct
from typing import Final

from flyx.sctp.packet import COMMON_HEADER_SIZE

BEGINNING: Final = 0x02
ENDING: Final = 0x01
UNORDERED: Final = 0x04
IMMEDIATE: Final = 0x08
"""Flags: the first fragment of a message, its last one, outside the order of its stream, and with a SACK that
the sender asks for without delay (RFC 7053)."""

DATA_CHUNK_HEADER: Final = struct.Struct("!BBHIHHI")
"""Type, flags, length, TSN, stream id, SSN, PPID: 16 bytes."""

DATA_PACKET_HEADER: Final = struct.Struct("!HHIIBBHIHHI")
"""The common header and that of one DATA chunk: 28 bytes."""

DATA_CHUNK_HEADER_SIZE: Final = DATA_CHUNK_HEADER.size
PACKET_OVERHEAD: Final = DATA_PACKET_HEADER.size

TSN_AT: Final = COMMON_HEADER_SIZE + 4
"""Where its TSN is in a packet that begins with DATA."""

put_tsn: Final = struct.Struct("!I").pack_into
