"""TURN: an allocation on a server that relays for us (RFC 8656).

aioice speaks the protocol: its messages, its long-term credentials (RFC 8489 §9.2). What is ours is how data
goes through the server, and what becomes of an allocation; flyx.rtc.relays decides which servers are asked.

    StunProtocol --sendto()--> RelayTransport --> TurnClient --ChannelData--> UDP, or a stream (TCP, TLS)
                 <---run_received()-----------        <-------
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, ClassVar

from aioice import stun
from aioice.turn import CHANNEL_NUMBER_MAX, UDP_TRANSPORT, TurnClientMixin

from flyx.net.tls import client_context
from flyx.net.udp import LINUX, Address, RunProtocol, UdpTransport

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {TurnClientMixin: ("_TurnClientMixin__add_authentication",)}
"""Attributes that instances of these classes have and this module relies on."""

LIFETIME = 600
"""Seconds that we ask an allocation to live (RFC 8656 §3.2); the server decides."""

MIN_LIFETIME = 1.0
"""Seconds that one lives at least for us, whatever the server says: it decides how often we ask, too."""

REFRESH_PART = 2 / 3
"""Of its lifetime, when an allocation is refreshed: the rest is time to try again."""

REFRESH_TIMEOUT, REFRESH_PAUSE = 20.0, 5.0
"""Seconds for the answer to one refresh, and until the next try."""

CHANNEL_TIME = 600.0
"""Seconds for which a server keeps a channel (RFC 8656 §12)."""

REBIND_TIME = 240.0
"""Seconds after which a channel is bound again: before the permission that came with it ends, which is after
300 (RFC 8656 §9)."""

REBIND_PAUSE = 10.0
"""Seconds between two tries to bind a channel again."""

SILENT_TICKS = 3
"""Seconds of sending and hearing nothing after which the server is asked whether it still knows us."""

MAX_WAITING = 1 << 16
"""Bytes for a peer that wait for its channel. What would be more is dropped, as the network would drop it."""

STREAM_BACKLOG = 1 << 20
"""The same for a stream that is full."""

NOT_SENT = 1 << 17
"""Bytes that the kernel takes for a stream and cannot send yet; the rest waits where backlog counts it."""

FAREWELL = 1.0
"""Seconds for a server to hear that an allocation is not needed any more. Nobody waits for that; unheard, it
ends it later."""

ALLOCATION_MISMATCH = 437
"""RFC 8656 §19: there is no such allocation (any more)."""

IPV4, IPV6 = 0x01000000, 0x02000000
"""Values of REQUESTED-ADDRESS-FAMILY (RFC 8656 §18.6)."""

_HEADER = struct.Struct("!HH")

# Tasks that give allocations back; close() does not wait for them.
_farewells: set[asyncio.Task[None]] = set()


class Refused(Exception):
    """A server has answered that it does not do what it is asked.

    Attributes:
        code: of RFC 8656 §19.
        reason: its own words: not to be shown as they are.
        alternate: where it says that another one is (300, Try Alternate).
    """

    def __init__(self, response: stun.Message) -> None:
        code, reason = response.attributes.get("ERROR-CODE", (0, ""))
        super().__init__(f"{code} {reason}")
        self.code = int(code)
        self.reason = str(reason)
        self.alternate: tuple[str, int] | None = response.attributes.get("ALTERNATE-SERVER")


class NoAnswer(Exception):
    """A server does not answer."""


@dataclass(slots=True, eq=False)
class _Channel:
    """The channel of a peer (RFC 8656 §12); times are those of the event loop."""

    number: int
    bound_until: float = 0.0
    rebind_at: float = 0.0
    binding: asyncio.Task[None] | None = None
    # The server will not have this peer.
    refused: bool = False
    waiting: list[bytes] = field(default_factory=list)
    waiting_size: int = 0


class TurnClient(TurnClientMixin):
    """The client of one allocation, over one of the ways to a server that the subclasses are."""

    def __init__(self, username: str, credential: str) -> None:
        super().__init__(("", 0), username, credential, LIFETIME, int(REBIND_TIME))
        self._loop = asyncio.get_running_loop()
        self._channels: dict[Address, _Channel] = {}
        self._peers: dict[int, Address] = {}
        # Done when the way to the server, or the allocation, is lost.
        self._lost: asyncio.Future[Exception] = self._loop.create_future()
        self._keeping: asyncio.Task[None] | None = None
        self.closing = False
        # Messages: to tell silence by.
        self._sent = self._received = 0
        # The network says that nothing listens at the server, since we last heard of it.
        self._is_refused = False

    # Of the subclasses, as is _send() of aioice's class.
    transport: Any

    @property
    def server_version(self) -> int | None:
        """The IP version that we reach the server by, or the proxy before it; None if that is not known."""
        remote = self.addresses[1]
        # Through a proxy that is spoken to by TLS it is one end of a socket pair.
        return version_of(remote) if isinstance(remote, tuple) else None

    @property
    def addresses(self) -> tuple[Any, Any]:
        """Return the addresses of our socket and of what it sends to."""
        return self.transport.get_extra_info("sockname"), self.transport.get_extra_info("peername")

    @property
    def backlog(self) -> int:
        """Bytes that wait for room on the way to the server."""
        size: int = self.transport.get_write_buffer_size()
        return size

    # The allocation.

    async def allocate(self, family: int | None) -> None:
        """Have the server relay for us.

        Args:
            family: IPV4 or IPV6; None is the server's default.

        Raises:
            Refused: it will not.
            NoAnswer: it does not answer, for a minute.
            OSError: it cannot be reached.
        """
        request = stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST)
        request.attributes["LIFETIME"] = LIFETIME
        request.attributes["REQUESTED-TRANSPORT"] = UDP_TRANSPORT
        if family is not None:
            request.attributes["REQUESTED-ADDRESS-FAMILY"] = family
        attributes = (await self._ask(request)).attributes
        for name in ("LIFETIME", "XOR-MAPPED-ADDRESS", "XOR-RELAYED-ADDRESS"):
            if name not in attributes:
                raise ConnectionError(f"its answer lacks {name}")
        self.relayed_address = attributes["XOR-RELAYED-ADDRESS"]
        self.mapped_address = attributes["XOR-MAPPED-ADDRESS"]
        self._keeping = asyncio.create_task(self._keep(float(attributes["LIFETIME"])))

    async def _ask(self, request: stun.Message) -> stun.Message:
        """Return the answer to a request."""
        asking = asyncio.ensure_future(self.request_with_retry(request))
        try:
            await asyncio.wait((asking, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise self._lost.result()
            response, _ = asking.result()
            return response
        except stun.TransactionFailed as failed:
            raise Refused(failed.response) from failed
        except stun.TransactionError as failed:
            raise NoAnswer from failed
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _refresh(self) -> float:
        """Return for how many seconds the allocation lives from now on."""
        request = stun.Message(stun.Method.REFRESH, stun.Class.REQUEST)
        request.attributes["LIFETIME"] = LIFETIME
        attributes = (await self._ask(request)).attributes
        if "LIFETIME" not in attributes:
            raise ConnectionError("its answer to a refresh lacks LIFETIME")
        return float(attributes["LIFETIME"])

    async def _keep(self, lifetime: float) -> None:
        """Refresh the allocation until it is lost."""
        while not self._lost.done():
            lifetime = max(lifetime, MIN_LIFETIME)
            over_at = self._loop.time() + lifetime
            await self._rest(lifetime * REFRESH_PART)
            if self._is_refused:
                self._lose(ConnectionError("nothing listens at the TURN server any more"))
                return
            while True:
                try:
                    async with asyncio.timeout(REFRESH_TIMEOUT):
                        lifetime = await self._refresh()
                except (TimeoutError, NoAnswer) as error:
                    # The network may be out for a while.
                    if self._loop.time() >= over_at:
                        self._lose(ConnectionError("the allocation could not be refreshed"), error)
                        return
                    await asyncio.sleep(REFRESH_PAUSE)
                except (Refused, OSError) as error:
                    self._lose(ConnectionError("the allocation is gone"), error)
                    return
                else:
                    break

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until the server is silent: one that was restarted knows nothing of us."""
        end = self._loop.time() + seconds
        silent = 0
        while silent < SILENT_TICKS and (left := end - self._loop.time()) > 0:
            sent, received = self._sent, self._received
            await asyncio.sleep(min(1.0, left))
            if self._received != received:
                self._is_refused = False
            silent = silent + 1 if self._sent != sent and self._received == received else 0

    def _lose(self, error: Exception, cause: Exception | None = None) -> None:
        """Tell that the way to the server or the allocation is no more."""
        error.__cause__ = cause
        if not self._lost.done():
            self._lost.set_result(error)
        if not self.closing:
            self._end()
            self.transport.abort()
            self._tell_lost(error)

    def close(self) -> None:
        """Give the allocation back. What was sent before still leaves."""
        if self.closing:
            return
        self._end()
        asked = self.relayed_address is not None or self.integrity_key is not None
        if not asked or self._lost.done():
            self.transport.close()
        else:
            task = asyncio.create_task(self._say_farewell())
            _farewells.add(task)
            task.add_done_callback(_farewells.discard)
        self._loop.call_soon(self._tell_lost, None)

    def _end(self) -> None:
        self.closing = True
        tasks = [self._keeping, *(channel.binding for channel in self._channels.values())]
        for task in tasks:
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _tell_lost(self, error: Exception | None) -> None:
        if self.receiver is not None:
            self.receiver.connection_lost(error)
            self.receiver = None

    async def _say_farewell(self) -> None:
        request = stun.Message(stun.Method.REFRESH, stun.Class.REQUEST)
        request.attributes["LIFETIME"] = 0
        try:
            with contextlib.suppress(TimeoutError, Refused, NoAnswer, OSError):
                async with asyncio.timeout(FAREWELL):
                    await self._ask(request)
        finally:
            self.transport.close()

    # Data for peers.

    def send_to_peer(self, data: bytes, address: Address) -> None:
        """Send a datagram to a peer, if need be once there is a channel for it."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._new_channel(address)
            if channel is None:
                return
        now = self._loop.time()
        if now >= channel.rebind_at and channel.binding is None and not channel.refused:
            # One request; what has a channel does not wait for its answer.
            channel.binding = asyncio.create_task(self._bind(channel, address))
        if now < channel.bound_until:
            self._send(_HEADER.pack(channel.number, len(data)) + data)
            self._sent += 1
        elif channel.binding is not None and channel.waiting_size + len(data) <= MAX_WAITING:
            channel.waiting.append(data)
            channel.waiting_size += len(data)

    def _new_channel(self, address: Address) -> _Channel | None:
        if self.channel_number > CHANNEL_NUMBER_MAX:
            return None
        channel = self._channels[address] = _Channel(self.channel_number)
        self._peers[channel.number] = address
        self.channel_number += 1
        return channel

    async def _bind(self, channel: _Channel, address: Address) -> None:
        """Bind a channel, or bind it again, which renews it and the permission."""
        request = stun.Message(stun.Method.CHANNEL_BIND, stun.Class.REQUEST)
        request.attributes["CHANNEL-NUMBER"] = channel.number
        request.attributes["XOR-PEER-ADDRESS"] = address
        begun = self._loop.time()
        try:
            await self._ask(request)
        except Refused as error:
            if error.code == ALLOCATION_MISMATCH:
                self._lose(ConnectionError("the allocation is gone"), error)
            # What was bound stays so until its time is over.
            channel.refused = channel.bound_until <= self._loop.time()
            channel.rebind_at = self._loop.time() + REBIND_PAUSE
        except (NoAnswer, OSError):
            channel.rebind_at = self._loop.time() + REBIND_PAUSE
        else:
            # aioice tells by this whose datagrams a Data indication may bring.
            self.peer_to_channel[address[0], address[1]] = channel.number
            channel.bound_until, channel.rebind_at = begun + CHANNEL_TIME, begun + REBIND_TIME
            for data in channel.waiting:
                self._send(_HEADER.pack(channel.number, len(data)) + data)
        finally:
            channel.binding = None
            channel.waiting.clear()
            channel.waiting_size = 0

    # What comes from the server.

    def message_received(self, message: memoryview) -> None:
        """Take one message, of at least 4 bytes, without what pads it; then call received()."""
        self._received += 1
        if message[0] & 0xC0 != 0x40:
            super().datagram_received(bytes(message), self.server)
            return
        number, length = _HEADER.unpack_from(message)
        peer = self._peers.get(number)
        receiver: Any = self.receiver
        if peer is None or receiver is None or not 0 < length <= len(message) - _HEADER.size:
            return
        data = message[_HEADER.size : _HEADER.size + length]
        if isinstance(receiver, RunProtocol):
            receiver.run_received(data, length, peer)
        else:
            receiver.datagram_received(bytes(data), peer)

    def received(self) -> None:
        """Nothing more has come for now."""
        receiver: Any = self.receiver
        if isinstance(receiver, RunProtocol):
            receiver.receive_finished()

    def connection_lost(self, exc: Exception | None) -> None:
        """The way to the server is closed."""
        self._lose(exc or ConnectionError("the server closed the connection"))


class UdpTurnClient(TurnClient, asyncio.DatagramProtocol):
    """A client over UDP."""

    def __init__(self, username: str, credential: str, server: Address) -> None:
        """Args:
        server: as the socket module has it. Datagrams from elsewhere are dropped.
        """
        super().__init__(username, credential)
        self._server = server

    @property
    def addresses(self) -> tuple[Any, Any]:
        """See TurnClient."""
        return self.transport.get_extra_info("sockname"), self._server

    def _send(self, data: bytes) -> None:
        self.transport.sendto(data, self._server)

    def run_received(self, run: memoryview, segment_size: int, address: Address) -> None:
        """Take datagrams of one size, back to back; see flyx.net.udp."""
        if address[:2] != self._server[:2]:
            return
        for at in range(0, len(run), segment_size):
            datagram = run[at : at + segment_size]
            if len(datagram) >= _HEADER.size:
                self.message_received(datagram)

    def receive_finished(self) -> None:
        """See flyx.net.udp."""
        self.received()

    def error_received(self, exc: Exception) -> None:
        """The network says that nothing gets through, or nothing listens there."""
        self._is_refused = isinstance(exc, ConnectionRefusedError)
        if self.relayed_address is None and not self._lost.done():
            self._lost.set_result(exc)


class StreamTurnClient(TurnClient, asyncio.Protocol):
    """A client over TCP, or TLS over that: RFC 8656 §3.1, §12.5."""

    def __init__(self, username: str, credential: str) -> None:
        super().__init__(username, credential)
        self._incoming = bytearray()
        self._outgoing = bytearray()
        # Requests that were sent: a stream loses none.
        self._asked: set[bytes] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):
                # Not with a proxy that is spoken to by TLS, before which there is a pair of sockets.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)

    @property
    def backlog(self) -> int:
        """See TurnClient."""
        return super().backlog + len(self._outgoing)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Send a request once, however often aioice would."""
        if message.transaction_id not in self._asked:
            self._asked.add(message.transaction_id)
            super().send_stun(message, addr)

    async def request(self, request: stun.Message) -> tuple[stun.Message, tuple[str, int]]:
        """Return the answer to a request."""
        try:
            return await super().request(request)
        finally:
            self._asked.discard(request.transaction_id)

    def _send(self, data: bytes) -> None:
        if self.backlog + len(data) > STREAM_BACKLOG:
            return
        if not self._outgoing:
            # With what is sent in the same turn of the loop: one write, one TLS record.
            self._loop.call_soon(self._flush)
        self._outgoing += data
        self._outgoing += bytes(-len(data) % 4)

    def _flush(self) -> None:
        data, self._outgoing = self._outgoing, bytearray()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Cut the stream into messages."""
        self._incoming += data
        view = memoryview(self._incoming)
        at = 0
        while len(view) - at >= _HEADER.size:
            first, length = _HEADER.unpack_from(view, at)
            # Channel data has 4 bytes of header, STUN 20; STUN's length is a multiple of 4 by itself.
            size = length + (4 if first & 0xC000 == 0x4000 else 20)
            padded = size + -size % 4
            if len(view) - at < padded:
                break
            self.message_received(view[at : at + size])
            at += padded
        view.release()
        del self._incoming[:at]
        if at:
            self.received()


class TlsNames:
    """Server certificates are verified as those of signaling servers (flyx.net.tls)."""

    _context: ClassVar[ssl.SSLContext | None] = None

    @classmethod
    def context(cls) -> ssl.SSLContext:
        """Return how certificates of TURN servers are verified."""
        if cls._context is None:
            cls._context = client_context()
        return cls._context


def open_udp(username: str, credential: str, server: Address, sock: socket.socket) -> TurnClient:
    """Return a client of a server over a UDP socket, which it owns from now on.

    Raises:
        OSError: there is no way to that address.
    """
    try:
        if LINUX:
            # The kernel then tells when nothing listens there. Elsewhere a connected socket takes no address.
            sock.connect(server)
        client = UdpTurnClient(username, credential, server)
        UdpTransport(asyncio.get_running_loop(), sock, client)
    except BaseException:
        sock.close()
        raise
    return client


async def open_stream(
    username: str, credential: str, sock: socket.socket, verified_name: str | None
) -> TurnClient:
    """Return a client of a server over a connected TCP socket, which it owns from now on.

    Args:
        verified_name: name or address that the server's certificate must be for; None: no TLS.

    Raises:
        OSError: the connection, or TLS, fails; ssl.SSLCertVerificationError: the certificate is refused.
    """
    loop = asyncio.get_running_loop()
    try:
        _, client = await loop.create_connection(
            lambda: StreamTurnClient(username, credential),
            sock=sock,
            ssl=TlsNames.context() if verified_name else None,
            server_hostname=verified_name,
        )
    except BaseException:
        sock.close()
        raise
    return client


def version_of(address: Address | None) -> int:
    """Return the IP version of an address that is there."""
    assert address is not None
    return ip_address(address[0].partition("%")[0]).version
