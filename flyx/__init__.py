"""flyx: files straight from one computer to others over WebRTC data channels.

The packages import one way only (tests/test_architecture.py holds it):

    cli -> client, server -> rtc, net, storage -> cores -> errors

The cores (signaling, pairing, transfer, sctp) do no I/O: no sockets, no disk, no clock and no randomness of
their own.
"""

__version__ = "0.1.0"

AGENT = f"flyx/{__version__}"
"""Who we say we are, to servers and peers."""
