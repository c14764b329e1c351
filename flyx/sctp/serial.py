"""Serial numbers (RFC 1982) as ordinary integers.

TSNs and request numbers have 32 bits on the wire, SSNs 16, and wrap around. Inside, a TSN is an integer that
never wraps: it is widened once, when it is parsed, against one that is known to be near. Then `<` means what
it says.
"""

from __future__ import annotations

from typing import Final

TSN_MODULUS: Final = 1 << 32

_HALF: Final = 1 << 31


def widen(wire: int, near: int) -> int:
    """Return the integer that is `wire` modulo 2^32 and nearest to `near`; it may be negative."""
    return near + ((wire - near + _HALF) % TSN_MODULUS) - _HALF
