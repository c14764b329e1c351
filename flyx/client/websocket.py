"""The way to a signaling server: its URL, its addresses, a proxy, TLS, and the WebSocket's handshake.

Names, addresses and proxies are flyx.net's; flyx.client.signaling reads from and writes to what is opened
here.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin, urlsplit, urlunsplit

from websockets.asyncio import client
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.typing import Subprotocol

from flyx.errors import InputError, ServerUnreachable, printable, without_credentials
from flyx.net.connect import ConnectError, ProxyError, connect
from flyx.net.proxy import proxy_for
from flyx.net.tls import client_context, why_not_trusted
from flyx.signaling import messages
from flyx.signaling.config import MAX_MESSAGE_SIZE
from flyx.signaling.messages import ErrorCode

OPEN_TIMEOUT = 10.0
"""Seconds for the TLS and WebSocket handshakes, when there is a TCP connection."""

PING_INTERVAL, PING_TIMEOUT = 15.0, 10.0
"""Seconds between our WebSocket pings, and for their answer: a dead connection is noticed well within the
time for which the server, which pings by itself, holds our place."""

CLOSE_TIMEOUT = 2.0
"""Seconds for the answer to our close frame."""

MAX_SEGMENT_SIZE = 1220
"""Bytes of a TCP segment in either direction: such a packet passes every link that IPv6 passes (RFC 8200 §5).

Where a link takes less than the interfaces at both ends and nobody is told (ICMP is dropped), larger ones are
lost for ever, and the connection stalls at the first long message, an offer for one. What is said here is too
little for larger segments to matter."""

MAX_REDIRECTS = 5

MAX_WANTED_PAUSE = 60.0
"""Seconds that we wait at most because a server asks for it."""

DEFAULT_PORTS = {"ws": 80, "wss": 443}

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def websocket_url(server: str) -> str:
    """Return the ws:// or wss:// URL of a server as a person may write it, without a path's trailing slash.

    The literal of an IPv6 address may have a scope, `[fe80::1%eth0]`, also in the form of RFC 6874.

    Raises:
        InputError: it is not a URL of a server.
    """
    try:
        parts = urlsplit(server if "://" in server else f"ws://{server}")
        scheme, host, _ = _SCHEMES[parts.scheme], parts.hostname, parts.port
        # A name that cannot be asked for raises UnicodeError.
        (host or "").encode("idna")
    except (KeyError, ValueError):
        host = None
    if not host:
        hint = "write it like ws://example.org:8000 or https://example.org"
        shown = without_credentials(server).partition("#")[0] or "an empty text"
        raise InputError(reason=f"{shown} is not the URL of a signaling server", hint=hint)
    netloc = parts.netloc.replace("%25", "%") if ":" in host else parts.netloc
    return urlunsplit((scheme, netloc, parts.path.rstrip("/"), "", ""))


class _RedirectedError(WebSocketException):
    """Where a server has redirected us, there is no connection."""

    def __init__(self, url: str, error: Exception) -> None:
        """Args:
        url: of the other server, with path and query.
        error: why there is none.
        """
        super().__init__(str(error))
        self.url = url
        self.error = error


async def open_websocket(url: str, headers: Mapping[str, str], *, direct: bool = False) -> ClientConnection:
    """Connect to a signaling server, wherever it redirects us.

    Its name is looked up anew each time, and each of its addresses is tried. May be cancelled at any time.

    Args:
        url: as websocket_url() returns it, with the path and query of what is asked for.
        headers: further ones of our request; they go to no other host.
        direct: through no proxy, whatever the environment says.

    Raises:
        InputError: the environment names a proxy that is none.
        OSError, WebSocketException: there is no connection; unreachable() says why.
    """
    asked = url
    for _ in range(MAX_REDIRECTS):
        try:
            return await _open(url, headers, direct=direct)
        except (OSError, WebSocketException) as error:
            target = _redirected(url, error) if isinstance(error, InvalidStatus) else None
            if target is None and url != asked:
                raise _RedirectedError(url, error) from error
            if target is None:
                raise
            if urlsplit(target).hostname != urlsplit(url).hostname:
                headers, direct = {}, False
            url = target
    raise WebSocketException("it redirects without end")


class _Connect(client.connect):
    """Leaves redirections to us: websockets follows none with a socket of ours, nor any to http://."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def _open(url: str, headers: Mapping[str, str], *, direct: bool) -> ClientConnection:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    proxy = None if direct else proxy_for(parts.scheme, host, port)
    sock = await connect(proxy, host, port, max_segment_size=MAX_SEGMENT_SIZE)
    # A scope means something on this machine alone (RFC 6874 §4).
    bare = host.partition("%")[0]
    netloc = parts.netloc.replace(f"[{host}]", f"[{bare}]")
    return await _Connect(
        urlunsplit(parts._replace(netloc=netloc)),
        sock=sock,
        additional_headers=headers,
        subprotocols=[Subprotocol(messages.SUBPROTOCOL)],
        compression=None,
        max_size=MAX_MESSAGE_SIZE,
        open_timeout=OPEN_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        ssl=client_context() if parts.scheme == "wss" else None,
    )


def _redirected(url: str, refusal: InvalidStatus) -> str | None:
    """Return where a server sends us; None if it does not, or gives up TLS."""
    location = refusal.response.headers.get("Location")
    if refusal.response.status_code not in (301, 302, 303, 307, 308) or location is None:
        return None
    try:
        parts = urlsplit(urljoin(url.replace("ws", "http", 1), location))
        scheme, host, _ = _SCHEMES[parts.scheme], parts.hostname, parts.port
    except (KeyError, ValueError):
        return None
    if not host or (url.startswith("wss:") and scheme != "wss"):
        return None
    ours = urlsplit(url)
    # What opens a host opens it by TLS as well.
    credentials = ours.netloc.rpartition("@")[0] if host == ours.hostname and "@" not in parts.netloc else ""
    netloc = f"{credentials}@{parts.netloc}" if credentials else parts.netloc
    return urlunsplit((scheme, netloc, parts.path, parts.query, ""))


def unreachable(url: str, error: Exception) -> ServerUnreachable:
    """Return what a person is told of why open_websocket() has failed.

    Args:
        url: of the server.
        error: what it has raised.
    """
    hint = None
    match error:
        case _RedirectedError():
            place = urlunsplit(urlsplit(error.url)._replace(path="", query=""))
            there = unreachable(place, error.error)
            reason, hint = f"it sends us on to {place}: {there.fields['reason']}", there.hint
        case ProxyError():
            reason, hint = str(error), error.hint
        case ConnectError():
            reason = str(error.strerror)
        case TimeoutError():
            reason = "it does not answer"
        case InvalidStatus(response=response):
            reason, hint = _refusal(url, response)
        case InvalidURI():
            reason = "the URL cannot be used"
        case ConnectionRefusedError():
            reason = "nothing listens there"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            reason = "no name server answers for its name"
            hint = "check that this computer is connected to a network, or name the server by its address"
        case socket.gaierror():
            reason = "its name does not exist"
            hint = "check how it is written; names of the own network may be known there alone"
        case ssl.SSLCertVerificationError():
            fault, hint = why_not_trusted(error)
            reason = f"its certificate {fault}"
        case ssl.SSLError():
            reason = "it does not speak TLS; with ws:// or http:// it may answer"
        case InvalidMessage() if "HTTP/1.0" in str(error.__cause__):
            reason, hint = f"{_NOT_FLYX} (it answers with HTTP/1.0)", _UPGRADE_HINT
        case InvalidMessage() if url.startswith("wss:"):
            reason = "it does not answer as a web server"
        case InvalidMessage():
            reason = "it does not answer as a web server; with wss:// or https:// it may"
        case InvalidHandshake():
            reason, hint = f"{_NOT_FLYX} ({error})", _UPGRADE_HINT
        case OSError(strerror=str(text)):
            reason = text
        case _:
            reason = str(error)
    told = ServerUnreachable(url=url, reason=reason, hint=hint)
    told.retry_after, told.may_pass = _wanted_pause(error), _may_pass(error)
    return told


_NOT_FLYX = "it is no flyx server, or a proxy in between does not pass WebSockets"
# What proxies say whose server does not answer.
_NOT_REACHED = (502, 503, 504)
_UPGRADE_HINT = "the proxy has to pass the headers Upgrade and Connection on: see `flyx help serving`"


def _refusal(url: str, response: Response) -> tuple[str, str | None]:
    """Return what a server means that begins no WebSocket, as a clause, and what can be done about it."""
    code, told = _told_by(response.body)
    status = response.status_code
    if code == ErrorCode.WEBSOCKET_NEEDED:
        return "a proxy in between does not pass WebSockets", _UPGRADE_HINT
    if "ws" in urlsplit(url).path.split("/"):
        hint = "give the server without /ws and what follows it"
        return f"there is nothing at this path (HTTP status {status})", hint
    # Older servers know no such path but for WebSockets.
    if told is not None and code != ErrorCode.NOT_FOUND:
        return f"it says that {told}", None
    if 300 <= status < 400 and "Location" in response.headers:
        target = without_credentials(response.headers["Location"])
        return f"it sends us to {printable(target)[:200]}, which is no server to go on with", None
    if status == 401:
        return "it wants a name and a password (401)", "write them into its URL: https://NAME:PASSWORD@HOST"
    if status in _NOT_REACHED:
        hint = "is `flyx serve` running, and does the proxy know its port?"
        return f"a proxy answers for it and does not reach it (HTTP status {status})", hint
    return f"{_NOT_FLYX} (HTTP status {status})", _UPGRADE_HINT


def _wanted_pause(error: Exception) -> float:
    """Return the seconds that a server which refuses connections asks us to wait."""
    if isinstance(error, _RedirectedError):
        return _wanted_pause(error.error)
    if isinstance(error, InvalidStatus):
        text = error.response.headers.get("Retry-After", "")
        if text.isascii() and text.isdigit():
            return min(float(text), MAX_WANTED_PAUSE)
    return 0.0


def _may_pass(error: Exception) -> bool:
    """Whether the same server may let us in later: it is out of reach, busy or about to start."""
    match error:
        case _RedirectedError():
            return _may_pass(error.error)
        case InvalidStatus(response=response):
            return response.status_code in (429, *_NOT_REACHED)
        case InvalidMessage():
            # It was ended in the middle, or there is nothing yet behind what accepts connections for it.
            return isinstance(error.__cause__, EOFError | OSError)
        case socket.gaierror():
            return error.errno == socket.EAI_AGAIN
        case ssl.SSLError():
            return isinstance(error, ssl.SSLEOFError)
        case _:
            return isinstance(error, OSError)


def _told_by(body: bytes | bytearray | None) -> tuple[str | None, str | None]:
    """Return the code and the sentence of an HTTP error of a flyx server, if it is one."""
    try:
        told = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(told, dict) or not isinstance(message := told.get("message"), str):
        return None, None
    code = told.get("code")
    return code if isinstance(code, str) else None, message[: messages.MAX_REASON_LENGTH]


def reset(websocket: ClientConnection) -> None:
    """End a connection by a single packet (RST), whether it arrives or not."""
    tcp = websocket.transport.get_extra_info("socket")
    with suppress(AttributeError, OSError):
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    websocket.transport.abort()
