"""Flights of the DTLS handshake (RFC 6347 §4.2.4), sent again long before OpenSSL does.

OpenSSL waits 1 s for the answer to a flight, and Python cannot set its timer; browsers wait 50 ms. What is
sent here once more is the same datagram: to the peer, one that the network has doubled. The peer drops the
records whose sequence numbers it has had (§4.1.2.6), so it does not answer a flight a second time. Hence
the last flight of all, a server's, is repeated unasked.

Only for peers that are a flyx: some other stacks take no datagram twice.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiortc import RTCDtlsTransport, RTCIceTransport, RTCPeerConnection

from flyx.rtc.seam.dtls import round_trip

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {RTCDtlsTransport: ("_role",), RTCIceTransport: ("_send",)}
"""Attributes that instances of these classes have and this module uses."""

SHORTEST_WAIT = 0.1
"""Seconds until a flight is sent again where the round trip is short: the peer may be slow to answer."""

OPENSSL_WAIT = 1.0
"""Seconds after which OpenSSL sends it itself."""


def repeat(pc: RTCPeerConnection) -> None:
    """Have the flights of a handshake that has not begun sent again if they stay without an answer."""
    assert pc.sctp is not None
    _Flights(pc.sctp.transport)


class _Flights:
    """What a DTLS transport sends until it is connected; each datagram is a flight."""

    def __init__(self, dtls: RTCDtlsTransport) -> None:
        self._dtls = dtls
        self._send_once = dtls.transport._send
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        dtls.transport._send = self._send
        dtls.on("statechange", self._state_changed)

    async def _send(self, data: bytes) -> None:
        await self._send_once(data)
        self._stop()
        if self._dtls.state == "connecting":
            self._wait(data, max(SHORTEST_WAIT, 2 * (round_trip(self._dtls) or 0.0)), 0.0)

    def _wait(self, flight: bytes, delay: float, waited: float) -> None:
        """Send a flight again after a delay; it was first sent `waited` seconds ago."""
        if waited + delay < OPENSSL_WAIT:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self._repeat, flight, delay, waited + delay)

    def _repeat(self, flight: bytes, delay: float, waited: float) -> None:
        self._sending = asyncio.create_task(self._try(flight))
        self._wait(flight, 2 * delay, waited)

    async def _try(self, flight: bytes) -> None:
        # There may be no path just now.
        with contextlib.suppress(ConnectionError):
            await self._send_once(flight)

    def _state_changed(self) -> None:
        is_last = self._dtls.state == "connected" and self._dtls._role == "server"
        if self._dtls.state != "connecting" and not is_last:
            self._stop()

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
