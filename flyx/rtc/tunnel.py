"""A datagram transport over what carries messages in order: the tunnel through the signaling server.

It gives ICE one more way between the two, where nothing else passes (flyx.signaling.tunnel). What it carries
is lost rather than late: it holds little, and drops what does not fit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Protocol

Address = tuple[str, int]

SENDER_ADDRESS: Address = ("100::1", 9)
RECEIVER_ADDRESS: Address = ("100::2", 9)
"""Where the two ends are for ICE: of the block that leads nowhere (RFC 6666). They are told to nobody, and no
socket ever sends to them."""

MAX_QUEUE_SIZE = 128 * 1024
"""Bytes that wait at most for the connection to the server: one of 1 MB/s is busy with them for 0.13 s."""

FAREWELL = 1.0
"""Seconds that the goodbye to the server, and what is queued before it, may take."""


class DatagramSocket(Protocol):
    """A tunnel that is open."""

    @property
    def max_datagram_size(self) -> int:
        """Bytes that a datagram may have; the server ends a tunnel that brings larger ones."""

    @property
    def addresses(self) -> tuple[Any, Any]:
        """The addresses of our socket and of what it sends to: the server, or a proxy."""

    async def receive(self) -> bytes:
        """Return the next datagram.

        Raises:
            ConnectionError: the tunnel is over.
        """

    async def send(self, datagram: bytes) -> None:
        """Send a datagram, and wait until there is room for another.

        Raises:
            ConnectionError: the tunnel is over.
        """

    async def close(self) -> None:
        """End the tunnel."""


class TunnelTransport(asyncio.DatagramTransport):
    """A datagram transport that leads to one address."""

    def __init__(
        self, socket: DatagramSocket, protocol: asyncio.DatagramProtocol, local: Address, remote: Address
    ) -> None:
        """Take over a socket, and call protocol.connection_made().

        Args:
            socket: to the other end.
            protocol: what datagrams are for.
            local: where we are.
            remote: where all datagrams come from and go to.
        """
        super().__init__({"sockname": local})
        self._socket = socket
        self._remote = remote
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._closing = False
        # Set by close().
        self._end = asyncio.Event()
        self.datagrams_dropped = 0
        self._protocol = protocol
        protocol.connection_made(self)
        self._running = asyncio.create_task(self._run())

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to this protocol from now on."""
        assert isinstance(protocol, asyncio.DatagramProtocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is delivered to."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether close() or abort() was called, or the tunnel is over."""
        return self._closing

    @property
    def max_datagram_size(self) -> int:
        """Return the bytes that a datagram may have; a larger one is dropped."""
        return self._socket.max_datagram_size

    @property
    def addresses(self) -> tuple[Any, Any]:
        """Return the addresses of our socket and of what it sends to: the server, or a proxy."""
        return self._socket.addresses

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait."""
        return self._queued

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a datagram soon; one for another address, or without room for it, is dropped."""
        size = len(data)
        fits = size <= self.max_datagram_size and self._queued + size <= MAX_QUEUE_SIZE
        if self._closing or not fits or not size or (addr is not None and tuple(addr[:2]) != self._remote):
            self.datagrams_dropped += 1
            return
        self._queue.append(bytes(data))
        self._queued += size
        self._wake.set()

    def close(self) -> None:
        """Send what is queued, if there is room in time, end the tunnel, call protocol.connection_lost()."""
        self._closing = True
        self._wake.set()
        self._end.set()

    def abort(self) -> None:
        """The same without sending what is queued."""
        self._queue.clear()
        self._queued = 0
        self.close()

    async def _run(self) -> None:
        """Read and write until either ends, or we close."""
        reading, writing = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        ending = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait((reading, writing, ending), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await asyncio.wait((writing,), timeout=FAREWELL)
        finally:
            self._closing = True
            for task in (reading, writing, ending):
                task.cancel()
            await asyncio.gather(reading, writing, ending, return_exceptions=True)
            try:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(FAREWELL):
                        await self._socket.close()
            finally:
                # Whatever has become of that: ICE waits for this.
                self._protocol.connection_lost(None)

    async def _write(self) -> None:
        while True:
            while self._queue:
                datagram = self._queue.popleft()
                self._queued -= len(datagram)
                await self._socket.send(datagram)
            if self._closing:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _read(self) -> None:
        while True:
            datagram = await self._socket.receive()
            try:
                self._protocol.datagram_received(datagram, self._remote)
            except Exception as error:
                # As with a loop's own transport, one bad datagram does not take others along.
                context = {"message": "datagram_received() failed", "exception": error, "transport": self}
                asyncio.get_running_loop().call_exception_handler(context)
