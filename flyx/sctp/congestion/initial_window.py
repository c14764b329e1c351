"""How much may be in flight before anything is known of a path but how long it is."""

from __future__ import annotations

# Packets. RFC 9260 §7.2.1 has min(4 * MTU, max(2 * MTU, 4404 bytes)), less than half; every current
# transport, TCP (RFC 6928) and QUIC (RFC 9002 §7.2) alike, starts with 10.
INITIAL_WINDOW_PACKETS = 10
# Packets, however long the path is: as many as the six connections of a browser to one host start with.
MAX_INITIAL_WINDOW_PACKETS = 64
# Bytes a second, 1.6 Mbit/s, which is what those 10 packets are in a round trip of 60 ms. On a longer path as
# many a second may leave: paced, they want no more of its buffers than the 10 do there, and each doubling
# that need not be waited for saves a round trip where these are long.
INITIAL_RATE = 200_000


def paced_initial_window(max_packet_size: int, rtt: float) -> int:
    """Return how many bytes may be in flight of packets of this size, paced, on a path of this round trip."""
    packets = (INITIAL_WINDOW_PACKETS * max_packet_size, MAX_INITIAL_WINDOW_PACKETS * max_packet_size)
    return int(min(max(packets[0], INITIAL_RATE * rtt), packets[1]))
