"""One GET request to the signaling server, by the way that its WebSocket would take (RFC 9112)."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import h11

from flyx.client.websocket import DEFAULT_PORTS, websocket_url
from flyx.errors import ServerProtocolError
from flyx.net.connect import connect
from flyx.net.proxy import Proxy, proxy_for
from flyx.net.tls import client_context

MAX_BODY = 1 << 16
"""Bytes of an answer that are read: those of a flyx server are far shorter."""

READ_SIZE = 1 << 14


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server has answered.

    Attributes:
        status: of HTTP.
        headers: by name in lower case.
        body: MAX_BODY bytes at most.
        seconds: from the first byte of the request to the end of the answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a signaling server is, as its URL says; credentials as "name:password"."""

    host: str
    port: int
    secure: bool
    authority: str
    path: str
    credentials: str | None = field(default=None, repr=False)

    @property
    def proxy(self) -> Proxy | None:
        """The proxy on the way there, if the environment names one.

        Raises:
            InputError: what it names is no proxy.
        """
        return proxy_for("wss" if self.secure else "ws", self.host, self.port)


def origin_of(server: str) -> Origin:
    """Return where a server is.

    Raises:
        InputError: it is not the URL of a signaling server.
    """
    parts = urlsplit(websocket_url(server))
    host = parts.hostname or ""
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    # A scope means something on this machine alone (RFC 6874 §4); other letters than ASCII's go as IDNA's.
    authority = parts.netloc.rpartition("@")[2].replace(f"[{host}]", f"[{host.partition('%')[0]}]")
    if not authority.isascii():
        authority = authority.encode("idna").decode()
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Origin(host, port, parts.scheme == "wss", authority, parts.path, credentials)


async def get(origin: Origin, path: str, *, direct: bool = False) -> Reply:
    """Ask a server for a path below that of its URL; direct: through no proxy, whatever the environment says.

    Raises:
        OSError: it cannot be reached; ssl.SSLError of it: nor trusted.
        ServerProtocolError: what answers speaks no HTTP, or at too great length.
    """
    sock = await connect(None if direct else origin.proxy, origin.host, origin.port)
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=client_context() if origin.secure else None,
            server_hostname=origin.host if origin.secure else None,
        )
    except BaseException:
        sock.close()
        raise
    try:
        return await _exchange(reader, writer, origin, origin.path + path)
    except h11.RemoteProtocolError as error:
        raise ServerProtocolError(reason="it does not speak HTTP") from error
    finally:
        writer.transport.abort()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin, path: str
) -> Reply:
    loop = asyncio.get_running_loop()
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", origin.authority), ("Accept", "application/json"), ("Connection", "close")]
    if origin.credentials is not None:
        headers.append(("Authorization", f"Basic {b64encode(origin.credentials.encode()).decode()}"))
    request = connection.send(h11.Request(method="GET", target=path, headers=headers))
    end = connection.send(h11.EndOfMessage())
    begun = loop.time()
    writer.write((request or b"") + (end or b""))
    response: h11.Response | None = None
    body = bytearray()
    while True:
        match event := connection.next_event():
            case h11.NEED_DATA:
                data = await reader.read(READ_SIZE)
                if not data and response is None:
                    raise ServerProtocolError(reason="it closes the connection without an answer")
                connection.receive_data(data)
            case h11.Response():
                response = event
            case h11.Data():
                body += event.data
                if len(body) > MAX_BODY:
                    raise ServerProtocolError(reason="its answer does not end")
            case h11.EndOfMessage():
                assert response is not None
                told = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
                return Reply(response.status_code, told, bytes(body), loop.time() - begun)
            case h11.InformationalResponse():
                pass
            case _:
                raise ServerProtocolError(reason="its answer is none")
