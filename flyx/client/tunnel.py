"""The client's end of a tunnel: a second WebSocket to the signaling server (flyx.signaling.tunnel)."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from flyx.client.signaling import Signaling
from flyx.errors import FlyxError
from flyx.signaling.tunnel import LARGEST_DATAGRAMS, OPENED, PATH, TunnelClaim, serialize_claim

logger = logging.getLogger("flyx.client")

OPEN_TIMEOUT = 12.0
"""Seconds for the WebSocket, and for the other side to open its own."""

UNSENT_SIZE = 32 * 1024
"""Bytes that the kernel takes before it has sent them: what waits there would be late and never lost."""


class TunnelSocket:
    """An open tunnel; a flyx.rtc.tunnel.DatagramSocket."""

    def __init__(self, websocket: ClientConnection, max_datagram_size: int) -> None:
        self._websocket = websocket
        self._max_datagram_size = max_datagram_size

    @property
    def max_datagram_size(self) -> int:
        """Bytes that a datagram may have."""
        return self._max_datagram_size

    @property
    def addresses(self) -> tuple[Any, Any]:
        """The addresses of our socket and of what it sends to: the server, or a proxy."""
        return self._websocket.local_address, self._websocket.remote_address

    async def receive(self) -> bytes:
        """Return the next datagram.

        Raises:
            ConnectionError: the tunnel is over.
        """
        try:
            while not isinstance(message := await self._websocket.recv(), bytes):
                # An `error`; the close that follows says enough.
                pass
        except ConnectionClosed as error:
            raise ConnectionError("the tunnel is over") from error
        return message

    async def send(self, datagram: bytes) -> None:
        """Send a datagram, and wait until there is room for another.

        Raises:
            ConnectionError: the tunnel is over.
        """
        try:
            await self._websocket.send(datagram)
        except ConnectionClosed as error:
            raise ConnectionError("the tunnel is over") from error

    async def close(self) -> None:
        """End the tunnel."""
        await self._websocket.close()


async def open_tunnel(signaling: Signaling, peer_id: str) -> TunnelSocket | None:
    """Open a tunnel to a peer, which opens its end; None if the server has none for us, or the peer not come.

    Args:
        signaling: the room both are in.
        peer_id: who it is to lead to.
    """
    tunnel = signaling.joined.tunnel
    if tunnel is None:
        return None
    claim = TunnelClaim(client_id=signaling.joined.client_id, peer_id=peer_id, token=tunnel.token)
    opened = None
    websocket: ClientConnection | None = None
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            websocket = await signaling.open(f"{PATH}/{signaling.joined.room_id}")
            _keep_little(websocket)
            await websocket.send(serialize_claim(claim))
            opened = await websocket.recv()
    except (FlyxError, ConnectionClosed, TimeoutError) as error:
        logger.debug("no tunnel: %s", error)
    finally:
        if websocket is not None and opened != OPENED:
            websocket.transport.abort()
    if websocket is None or opened != OPENED:
        return None
    return TunnelSocket(websocket, min(tunnel.max_datagram_size, max(LARGEST_DATAGRAMS)))


def _keep_little(websocket: ClientConnection) -> None:
    connection = websocket.transport.get_extra_info("socket")
    # Not on each system, and not with a proxy that is spoken to by TLS: more waits there.
    with suppress(AttributeError, OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_SIZE)
