"""How much may be in flight before anything is known of a path but how long it is."""

from __future__ import annotations

INITIAL_WINDOW_PACKETS = 10
"""Packets. RFC 9260 §7.2.1 has min(4 * MTU, max(2 * MTU, 4404 bytes)), less than half; every current
transport, TCP (RFC 6928) and QUIC (RFC 9002 §7.2) alike, starts with 10."""

MAX_INITIAL_WINDOW_PACKETS = 100
"""Packets, however long the path is."""

INITIAL_RATE = 500_000
"""Bytes a second, 4 Mbit/s. Where a round trip is longer than the 24 ms that 10 packets take at this rate,
as many bytes a second may leave. They are paced; what is saved are the first doublings, a round trip each.
Measured: over 100 Mbit/s and 200 ms, 1 MB is there 0.18 s earlier than at 1.6 Mbit/s; over 2 Mbit/s with a
buffer of 50 KB, less than these packets, no later. At 6 Mbit/s and 128 packets it is 0.1 s later there."""


def paced_initial_window(max_packet_size: int, rtt: float) -> int:
    """Return how many bytes may be in flight of packets of this size, paced, on a path of this round trip."""
    packets = (INITIAL_WINDOW_PACKETS * max_packet_size, MAX_INITIAL_WINDOW_PACKETS * max_packet_size)
    return int(min(max(packets[0], INITIAL_RATE * rtt), packets[1]))
