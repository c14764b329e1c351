"""The client's connection to the signaling server."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from flyx.errors import (
    FlyxError,
    InputError,
    NoSuchRoom,
    RemoteProtocolError,
    RoomFull,
    ServerClosed,
    ServerRefused,
    ServerUnreachable,
    SignalingError,
)
from flyx.signaling import messages
from flyx.signaling.messages import (
    CloseCode,
    Disconnect,
    DisconnectData,
    JoinedData,
    Message,
    Outcome,
    Ping,
    Pong,
    Role,
)

OPEN_TIMEOUT = 10.0
"""Seconds for the TCP, TLS and WebSocket handshakes, and as many for `joined`."""

FAREWELL_TIMEOUT = 1.0
"""Seconds that our goodbye may take when we leave."""

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def websocket_url(server: str) -> str:
    """Return the ws:// or wss:// URL of a server as a person may write it, without a path's trailing slash.

    Raises:
        InputError: it is not a URL of a server.
    """
    try:
        parts = urlsplit(server if "://" in server else f"ws://{server}")
        scheme, host, _ = _SCHEMES[parts.scheme], parts.hostname, parts.port
    except (KeyError, ValueError):
        host = None
    if not host:
        hint = "write it like ws://example.org:8000 or https://example.org"
        raise InputError(reason=f"{server} is not the URL of a signaling server", hint=hint)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


class Signaling:
    """A room joined on a server. Use as an async context manager; leaving it says goodbye to the server."""

    def __init__(self, server: str, room_id: str | None, role: Role, *, api_token: str | None = None) -> None:
        """Args:
        server: URL of the server.
        room_id: the room to join; None to create one.
        role: what we are there; the server refuses rather than give us the other role.
        api_token: what the server wants of those who create rooms; None if it wants nothing.
        """
        self._url = websocket_url(server)
        self._room_id = room_id
        self._role = role
        self._headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
        # Set by __aenter__.
        self.joined: JoinedData
        self._socket: ClientConnection
        self._writer: asyncio.Task[None]
        # None ends the writer.
        self._outgoing: asyncio.Queue[Message | None] = asyncio.Queue()
        # The last error that the server told: it explains the close that follows a fatal one.
        self._told: str | None = None
        # Why we leave, for the peers; set before the end.
        self.farewell = ""
        # How our transfer went, for the server's statistics; set before the end by who received.
        self.outcome: Outcome | None = None

    async def __aenter__(self) -> Self:
        path = f"/ws/{self._room_id}" if self._room_id else "/ws"
        url = f"{self._url}{path}?role={self._role}"
        try:
            self._socket = await connect(
                url,
                additional_headers=self._headers,
                subprotocols=[Subprotocol(messages.SUBPROTOCOL)],
                compression=None,
                max_size=messages.MAX_MESSAGE_SIZE,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=2,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServerUnreachable(url=self._url, reason=_why(error)) from error
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                first = await self.receive()
        except TimeoutError:
            await self._socket.close()
            raise ServerUnreachable(url=self._url, reason="it accepts connections but says nothing") from None
        if not isinstance(first, messages.Joined):
            await self._socket.close()
            raise ServerRefused(reason="it did not let us join", hint="is this a flyx server?")
        self.joined = first.data
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.post(Disconnect(data=DisconnectData(reason=self.farewell, outcome=self.outcome)))
        self._outgoing.put_nowait(None)
        try:
            async with asyncio.timeout(FAREWELL_TIMEOUT):
                await self._writer
        except TimeoutError:
            pass
        await self._socket.close()

    async def receive(self) -> Message:
        """Return the next message that is about peers; pings are answered, errors kept for the end.

        Raises:
            SignalingError: the server closed the connection, or the network did.
        """
        while True:
            try:
                message = messages.parse_untrusted(await self._socket.recv())
            except RemoteProtocolError as error:
                raise SignalingError(reason=f"it broke the protocol: {error.fields['reason']}") from error
            except ConnectionClosed as closed:
                raise self._error_of_close(closed) from closed
            match message:
                case Ping():
                    self.post(Pong())
                case messages.Error(data=data):
                    self._told = data.message
                case Pong():
                    pass
                case _:
                    return message

    def post(self, message: Message) -> None:
        """Send a message soon, in order. What a lost connection did not take is dropped with it."""
        self._outgoing.put_nowait(message)

    async def _write(self) -> None:
        try:
            while (message := await self._outgoing.get()) is not None:
                await self._socket.send(messages.serialize(message))
        except ConnectionClosed:
            # receive() tells why.
            pass

    def _error_of_close(self, closed: ConnectionClosed) -> FlyxError:
        code = closed.rcvd.code if closed.rcvd else None
        if code == CloseCode.NO_SUCH_ROOM:
            return NoSuchRoom(room_id=self._room_id)
        if code == CloseCode.ROOM_FULL:
            return RoomFull(room_id=self._room_id)
        meaning = messages.CLOSE_CODES.get(code) if code is not None else None
        reason = self._told or (meaning.meaning if meaning else "the connection was lost")
        if meaning and not meaning.retry and code != CloseCode.ROOM_CLOSED:
            return ServerRefused(reason=reason)
        return ServerClosed(reason=reason)


def _why(error: Exception) -> str:
    """Say in words why no connection was made."""
    match error:
        case TimeoutError():
            return "it does not answer"
        case InvalidStatus(response=response):
            return f"it answers with HTTP status {response.status_code}, not as a flyx server"
        case InvalidURI():
            return "the URL cannot be used"
        case ConnectionRefusedError():
            return "nothing listens there"
        case OSError(strerror=str(reason)):
            return reason
        case _:
            return str(error)
