"""The opening handshake of a WebSocket, RFC 6455 §4, as nearly all clients write it.

h11 reads a request, uvicorn writes it down again, and `websockets` reads that: a third of the work of a join.
What is as plain as most handshakes is read here at once, and answered; whatever else is asked goes their way.
So no request is refused here: it is taken, with the meaning that it has for them, or left to them.
tests/server/transport/test_handshake.py holds the one against the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from websockets.utils import accept_key

Headers = list[tuple[bytes, bytes]]

_MAX_SIZE, _MAX_HEADERS = 4096, 64
"""Bytes, and headers: those of the others are larger."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINE = rb"(?:" + _TOKEN + rb": (?! )[ -~]++(?<! )\r\n)"
_REQUEST = re.compile(rb"GET (/[!-~]*+) HTTP/1\.1\r\n(" + _LINE + rb"++)\r\n")
_HEADER = re.compile(rb"([^:]++): ([^\r]++)\r\n")
_KEY = re.compile(rb"[+/0-9A-Za-z]{22}==")
_SUBPROTOCOLS = re.compile(_TOKEN + rb"(?:, ?" + _TOKEN + rb")*+")

_CONNECTIONS = (b"upgrade", b"keep-alive, upgrade")
"""What `Connection` says, in lower case, also of a browser."""

_OF_BODIES = {b"content-length", b"transfer-encoding", b"expect"}
"""Announce a body, or have the client wait to send it."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request to open a WebSocket, good as far as HTTP and RFC 6455 are concerned.

    Attributes:
        path: as it was sent, without the query.
        query: without the question mark.
        headers: in their order, names in lower case; each at most once.
        key: Sec-WebSocket-Key.
        subprotocols: what the client speaks; empty if it does not say.
    """

    path: bytes
    query: bytes
    headers: Headers
    key: str
    subprotocols: list[str]

    def response(self, headers: Iterable[tuple[bytes, bytes]], subprotocol: str | None) -> bytes:
        """Return the answer that opens the WebSocket, with these headers besides."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept_key(self.key).encode(),
            *(name + b": " + value for name, value in headers),
        ]
        if subprotocol is not None:
            lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode())
        return b"\r\n".join((*lines, b"", b""))


def handshake_in(data: bytes) -> Handshake | None:
    """Return the handshake that data is, from first byte to last; None if it is none, or not plain."""
    found = _REQUEST.fullmatch(data) if len(data) <= _MAX_SIZE else None
    if found is None:
        return None
    target, lines = found.groups()
    headers: Headers = [(name.lower(), value) for name, value in _HEADER.findall(lines)]
    named = dict(headers)
    offered = named.get(b"sec-websocket-protocol")
    plain = (
        len(named) == len(headers) <= _MAX_HEADERS
        and b"host" in named
        and named.get(b"upgrade", b"").lower() == b"websocket"
        and named.get(b"connection", b"").lower() in _CONNECTIONS
        and named.get(b"sec-websocket-version") == b"13"
        and _KEY.fullmatch(named.get(b"sec-websocket-key", b""))
        and (offered is None or _SUBPROTOCOLS.fullmatch(offered))
        and named.keys().isdisjoint(_OF_BODIES)
    )
    if not plain:
        return None
    path, _, query = target.partition(b"?")
    subprotocols = [] if offered is None else [name.strip() for name in offered.decode().split(",")]
    return Handshake(path, query, headers, named[b"sec-websocket-key"].decode(), subprotocols)
