"""STUN Binding requests from a socket of their own (RFC 8489), with what RFC 5780 adds to them.

A peer connection asks from the sockets of its candidates. This one is for `flyx doctor`, which asks a server
also to answer from its other address, and how large a datagram may be.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from aioice import stun
from msgspec import Struct

from flyx.net.names import Address
from flyx.net.udp import IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, LINUX, PMTUDISC_PROBE

CHANGE_IP, CHANGE_PORT = 0x04, 0x02
"""Flags of CHANGE-REQUEST (RFC 5780 §7.2)."""

RETRANSMISSIONS = (0.2, 0.5)
"""Seconds after the first request at which it is sent again (RFC 8489 §6.2.1 begins with 0.5)."""

PATIENCE = 1.5
"""Seconds from the first request until there is no answer: few networks delay so long."""

_PADDING = 0x0026
"""RFC 5780 §7.6. A server that does not know it answers 420, which is an answer as well."""

_ATTRIBUTE = struct.Struct("!HH")
_LENGTH_AT, _HEADER_SIZE = 2, 20


class Answer(Struct, frozen=True):
    """What a STUN server has answered.

    Attributes:
        mapped: where the request came from as the server sees it, (host, port); None in an error response.
        other: the server's other address, if it has one (OTHER-ADDRESS, RFC 5780 §7.4).
        source: where the answer came from.
        seconds: from the first request to the answer.
    """

    mapped: tuple[str, int] | None
    other: tuple[str, int] | None
    source: tuple[str, int]
    seconds: float


class StunSocket(asyncio.DatagramProtocol):
    """A UDP socket that asks; an async context manager, or open() and close()."""

    def __init__(
        self, family: socket.AddressFamily, *, fragments: bool = True, patience: float = PATIENCE
    ) -> None:
        """Args:
        family: AF_INET or AF_INET6.
        fragments: whether IP may fragment what is asked; if not, the path's MTU shows (Linux).
        patience: seconds from the first request until there is no answer.
        """
        self._family = family
        self._fragments = fragments
        self._patience = patience
        self._waiting: dict[bytes, asyncio.Future[tuple[stun.Message, Any]]] = {}
        self._transport: asyncio.DatagramTransport

    async def open(self) -> None:
        """Take a port.

        Raises:
            OSError: there is none, or nothing of this family.
        """
        sock = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            if LINUX and not self._fragments:
                if self._family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
                else:
                    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
            sock.bind(("::" if self._family == socket.AF_INET6 else "0.0.0.0", 0))  # noqa: S104  # to ask from
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Give the port back."""
        self._transport.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Our own."""
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    async def ask(self, server: Address, *, change: int = 0, padding: int = 0) -> Answer | None:
        """Ask a server for our address as it sees it; None if there is no answer.

        May be called while another question is open.

        Args:
            server: to ask.
            change: CHANGE_IP, CHANGE_PORT or both: where the answer is to come from instead.
            padding: bytes to fill the request with, a multiple of 4.
        """
        loop = asyncio.get_running_loop()
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        if change:
            request.attributes["CHANGE-REQUEST"] = change
        datagram = _padded(bytes(request), padding)
        answered: asyncio.Future[tuple[stun.Message, Any]] = loop.create_future()
        self._waiting[request.transaction_id] = answered
        begun = loop.time()
        try:
            for at in (*RETRANSMISSIONS, self._patience):
                self._transport.sendto(datagram, server.sockaddr)
                done, _ = await asyncio.wait((answered,), timeout=max(0.0, begun + at - loop.time()))
                if done:
                    message, source = answered.result()
                    return _answer(message, source, loop.time() - begun)
        finally:
            del self._waiting[request.transaction_id]
        return None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take an answer; whatever else comes is dropped."""
        try:
            message = stun.parse_message(data)
        except ValueError:
            return
        answered = self._waiting.get(message.transaction_id)
        is_answer = message.message_class in (stun.Class.RESPONSE, stun.Class.ERROR)
        if answered is not None and is_answer and not answered.done():
            answered.set_result((message, addr))

    def error_received(self, exc: Exception) -> None:
        """A datagram could not be sent, or nothing listens there: there is no answer."""


def request_size(padding: int) -> int:
    """Return the bytes of a request with so much padding, without UDP's and IP's headers."""
    return _HEADER_SIZE + (_ATTRIBUTE.size + padding if padding else 0)


def _padded(request: bytes, padding: int) -> bytes:
    if not padding:
        return request
    request += _ATTRIBUTE.pack(_PADDING, padding) + bytes(padding)
    length = len(request) - _HEADER_SIZE
    return request[:_LENGTH_AT] + length.to_bytes(2, "big") + request[_LENGTH_AT + 2 :]


def _answer(message: stun.Message, source: Any, seconds: float) -> Answer:
    attributes = message.attributes
    mapped = attributes.get("XOR-MAPPED-ADDRESS") or attributes.get("MAPPED-ADDRESS")
    other = attributes.get("OTHER-ADDRESS") or attributes.get("CHANGED-ADDRESS")
    if other is not None and (ip_address(other[0]).is_unspecified or not other[1]):
        other = None
    return Answer(mapped, other, (source[0], source[1]), seconds)
