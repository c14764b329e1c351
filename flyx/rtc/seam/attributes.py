"""STUN attributes, as aioice's table of them is to have them from the start (RFC 8489 §14, RFC 8656 §18).

It lacks two. And a number of another size than it has raises struct.error, which aioice does not expect of
a datagram: any computer that sends one would end the turn of the event loop, or the stream of a relay.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from aioice import stun

_ADDED = (
    (0x0017, "REQUESTED-ADDRESS-FAMILY", stun.pack_unsigned, stun.unpack_unsigned),
    (0x8023, "ALTERNATE-SERVER", stun.pack_address, stun.unpack_address),
)

_NUMBERS = (stun.unpack_unsigned, stun.unpack_unsigned_short, stun.unpack_unsigned_64)


def _of_its_size(unpack: Callable[[bytes], int]) -> Callable[[bytes], int]:
    """Return a function that raises ValueError for a number of another size, as aioice expects."""

    def checked(data: bytes) -> int:
        try:
            return unpack(data)
        except struct.error as error:
            raise ValueError("a STUN attribute of a wrong size") from error

    return checked


_table: list[stun.AttributeEntry] = [*stun.ATTRIBUTES, *_ADDED]
for _kind, _name, _pack, _unpack in _table:
    _read = _of_its_size(_unpack) if _unpack in _NUMBERS else _unpack
    stun.ATTRIBUTES_BY_TYPE[_kind] = stun.ATTRIBUTES_BY_NAME[_name] = (_kind, _name, _pack, _read)
