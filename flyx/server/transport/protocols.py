"""uvicorn's protocols, with an end for every connection whose other side does not do its part.

uvicorn waits for ever for the rest of a request, for a peer to read what was written, and for the end of a
message in as many fragments as it likes. Here each connection is counted before its first byte
(`ConnectionSlot`), each request has a deadline up to its last byte, and what a peer may make us keep is
bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, ClassVar, cast
from urllib.parse import unquote

import h11
from websockets.frames import CloseCode as StandardCloseCode
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from flyx.server.admission import SLOT, Admission
from flyx.server.config import ServerConfig
from flyx.server.limits import ConnectionSlot, Limit, TokenBucket
from flyx.server.transport.coalescing import CoalescingTransport, WriteBatch
from flyx.server.transport.connection import WIRE, Connection
from flyx.server.transport.frames import (
    WHOLE_BINARY,
    is_control,
    size_of_text,
    text_frame,
    text_in,
    whole_frame,
)
from flyx.server.transport.handshake import Handshake, handshake_in
from flyx.server.transport.seam import ClientDisconnected, H11Protocol, WebSocketsSansIOProtocol
from flyx.signaling.messages import CloseCode

_MAX_FRAGMENTS = 64
"""Of one message. Ours come in one; nothing that a client has to say needs more."""

_CONTROL_RATE, _CONTROL_BURST = 10.0, 100
"""WebSocket pings and pongs of a peer: per second in the long run, and at once."""

_MAX_UNREAD = 64 * 1024
"""Bytes that may wait for a peer which makes us answer and does not read."""

_PIECE = 8 * 1024
"""Bytes read before others have their turn: one read of a socket can bring thousands of small messages."""

_PROMPT = 5.0
"""Seconds after which a peer that has not answered a ping is silent."""

_FAREWELL = 1.0
"""Seconds for a peer that broke the protocol to read that it did."""

_REQUEST_TIMEOUT = (
    f"HTTP/1.1 {HTTPStatus.REQUEST_TIMEOUT.value} {HTTPStatus.REQUEST_TIMEOUT.phrase}\r\n"
    "connection: close\r\ncontent-length: 0\r\n\r\n"
).encode()


class CloseTimeout:
    """Mixin for a protocol: cuts its transport off if closing it does not end it within `linger` seconds.

    A transport that is closed still waits until what was written is sent. A peer that keeps its TCP window
    shut would hold the socket and its buffers for ever.
    """

    settings: ClassVar[ServerConfig]
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _abort_timer: asyncio.TimerHandle | None = None

    def start_close_timeout(self) -> None:
        """The transport is being closed."""
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(self.settings.linger, self.transport.abort)

    def cancel_close_timeout(self) -> None:
        """The connection has ended."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()


class HttpProtocol(CloseTimeout, H11Protocol):
    """uvicorn's HTTP/1.1, up to a WebSocket handshake. Listener makes a subclass that has the attributes."""

    admission: ClassVar[Admission]
    _deadline: asyncio.TimerHandle | None = None
    # Set before the connection is made if it was counted then.
    slot: ConnectionSlot | None = None
    # Nothing has been read yet.
    _fresh = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        slot = self.slot or self.admission.admit(_host_of(transport))
        if slot is None:
            transport.abort()
            return
        self.slot = slot
        self.app_state = {**self.app_state, SLOT: slot}
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.cancel_close_timeout()
        super().connection_lost(exc)
        if self.slot is not None:
            self.slot.release()

    def data_received(self, data: bytes) -> None:
        handshake = handshake_in(data) if self._fresh else None
        self._fresh = False
        if handshake is not None:
            self._open_websocket(handshake)
            return
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._arm()
        else:
            self._disarm()
        if self.transport.is_closing():
            self.start_close_timeout()

    def _open_websocket(self, handshake: Handshake) -> None:
        """The fast twin of handle_websocket_upgrade(): neither h11 nor `websockets` has seen the request."""
        self._disarm()
        self.connections.discard(self)
        protocol = self.ws_protocol_class(  # type: ignore[call-arg, misc]
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        assert isinstance(protocol, WebSocketProtocol)
        protocol.connection_made(self.transport)
        protocol.begin(handshake)
        self.transport.set_protocol(protocol)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._disarm()
        super().handle_websocket_upgrade(event)
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketProtocol):
            protocol.expect_handshake()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.start_close_timeout()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.start_close_timeout()

    def _arm(self) -> None:
        if self._deadline is None and self.settings.limits.handshake_timeout:
            self._deadline = self.loop.call_later(self.settings.limits.handshake_timeout, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        self.admission.rejected(Limit.HANDSHAKE)
        # A body that does not come keeps the application waiting; the end of the connection ends that.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_REQUEST_TIMEOUT)
        self.transport.close()
        self.start_close_timeout()


class _NullQueue:
    """Takes what uvicorn puts and sets when the application has returned."""

    def put_nowait(self, event: object) -> None:
        """An event that would be received."""

    def set(self) -> None:
        """A client that waits could send."""

    def clear(self) -> None:
        """It would have to wait."""


_NULL_QUEUE = _NullQueue()


class WebSocketProtocol(CloseTimeout, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket. Listener makes a subclass that has the attributes.

    The handshake goes through the ASGI application, like every request. The application then calls
    take_over() on what it finds as WIRE in the extensions of the scope, and returns: what follows needs
    neither a task nor a queue nor a dictionary for each message. The methods are those of
    flyx.server.transport.connection.Wire.
    """

    admission: ClassVar[Admission]
    batch: ClassVar[WriteBatch]
    _control: TokenBucket | None = None
    # What the application is asked, if it is a plain handshake, until it has answered.
    _handshake: Handshake | None = None
    # Set by take_over().
    _connection: Connection | None = None
    # What was read and waits for its turn; whether it waits for resume_reading().
    _unread = b""
    _reading_paused = False
    # All that was read so far were whole frames, and then perhaps the beginning of a text frame, which is in
    # _torn: with it, or with what is read next, the next frame begins.
    _whole_frames = True
    _torn: bytes | bytearray = b""
    # How many bytes that frame has, or at least.
    _torn_size = 0
    # The peer has broken the protocol and been told so.
    _failed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(CoalescingTransport(cast(asyncio.Transport, transport), self.batch))

    def begin(self, handshake: Handshake) -> None:
        """Ask the application what to do about a handshake: the fast twin of handle_connect()."""
        self._handshake = handshake
        self.handshake_initiated = True
        # It waits for frames from the beginning, as it does after a handshake.
        self.conn = ServerProtocol(
            state=State.OPEN, max_size=self.config.ws_max_size, logger=logging.getLogger("uvicorn.error")
        )
        self.scope = {
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + unquote(handshake.path.decode()),
            "raw_path": self.root_path.encode() + handshake.path,
            "query_string": handshake.query,
            "headers": handshake.headers,
            "subprotocols": handshake.subprotocols,
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}, WIRE: cast(Any, self)},
        }
        self.queue.put_nowait({"type": "websocket.connect"})
        task = self.loop.create_task(self.run_asgi())
        task.add_done_callback(self.on_task_complete)
        self.tasks.add(task)

    def expect_handshake(self) -> None:
        """The request for a handshake has been passed on: if it is not one, the answer to it is the end."""
        if self.handshake_initiated:
            return
        # What h11 takes for a request need not be one for `websockets`, which has an answer ready.
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()
        self.start_close_timeout()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:
            self.scope["extensions"][WIRE] = cast(Any, self)

    async def run_asgi(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            self.logger.exception("the application failed")
            self.send_500_response()
        else:
            if self._connection is not None:
                # An idle client costs as little as it can: these are some kilobytes.
                for name in ("scope", "request", "response"):
                    self.__dict__.pop(name, None)
                self.queue = self.writable = cast(Any, _NULL_QUEUE)
                return
        if self.close_timer is None:
            self.transport.close()
        if not self.disconnected:
            self.start_close_timeout()

    # What a Connection asks for.

    @property
    def unsent(self) -> int:
        """Bytes that the network has not taken."""
        return self.transport.get_write_buffer_size()

    def take_over(self, connection: Connection) -> None:
        """Hand frames, and the news of the end, to connection from now on."""
        self._connection = connection
        while not self.queue.empty():
            early = cast(dict[str, Any], self.queue.get_nowait())
            if early["type"] == "websocket.receive":
                text = early.get("text")
                connection.frame_received(early["bytes"] if text is None else text)
        if self.read_paused:
            self.read_paused = False
            if not self._reading_paused:
                self.transport.resume_reading()
        if self.disconnected or self._failed:
            connection.lost(None)

    def send_text(self, payload: bytes) -> None:
        """Send a text frame of valid UTF-8."""
        if self.conn.state is State.OPEN:
            self.transport.write(text_frame(payload))

    def send_binary(self, payload: bytes) -> None:
        """Send a binary frame."""
        if self.conn.state is State.OPEN:
            self.transport.write(whole_frame(WHOLE_BINARY, payload))

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame, the last thing that is sent, and see to it that the connection ends."""
        self.resume_reading()
        if self.conn.state is not State.OPEN or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        # The peer's own close frame ends it sooner.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self.start_close_timeout()

    def pause_reading(self) -> None:
        """Read no further until resume_reading()."""
        self._reading_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._reading_paused:
            self._reading_paused = False
            self._read_on()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Run job in a task of its own."""
        task = self.loop.create_task(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # What uvicorn asks for.

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.start_close_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        self.cancel_close_timeout()
        # Of a client that sleeps the kernel says nothing, and what is in between waits for longer.
        silent = self.pong_timer is not None and self.loop.time() - self.ping_sent_at > _PROMPT
        closing = self.close_sent or self.conn.close_rcvd is not None
        died = not silent and not closing and (exc is None or isinstance(exc, ConnectionResetError))
        super().connection_lost(exc)
        slot: ConnectionSlot | None = self.app_state.get(SLOT)
        if slot is not None:
            slot.release()
        self._report_lost(None, died=died)
        self._connection = None

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        if self._connection is None:
            # Whatever comes so early was not looked at.
            self._whole_frames = not self.handshake_initiated
            super().data_received(data)
            return
        if self._reading_paused or self._unread:
            self._unread += data
            return
        if len(data) > _PIECE:
            self._unread = data[_PIECE:]
            data = data[:_PIECE]
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)
        if self._whole_frames:
            data = self._receive_texts(data)
        if data:
            super().data_received(data)

    def _receive_texts(self, data: bytes) -> bytes:
        """Hand on the text frames with which data begins; return the rest.

        The fast twin of what uvicorn and `websockets` do with such frames, which are nearly all there are. A
        text frame of which only the beginning is there is kept until its rest has been read.
        """
        if self._torn:
            self._torn += data
            if len(self._torn) < self._torn_size:
                return b""
            data, self._torn = bytes(self._torn), b""
        at, end, most = 0, len(data), self.settings.limits.max_frame_size
        while at < end and self.conn.state is State.OPEN:
            found = text_in(data, at)
            if found is None or len(found[0]) > most:
                break
            payload, at = found
            self._receive_text(payload)
        rest = data[at:] if at else data
        if not rest:
            return rest
        if 0 < (size := size_of_text(rest, 0)) <= most and size > len(rest):
            self._torn, self._torn_size = bytearray(rest), size
            return b""
        # A fragment, or the beginning of another frame: nobody here knows where the next one begins.
        self._whole_frames = is_control(rest)
        return rest

    def _read_on(self) -> None:
        if self._reading_paused or self.disconnected:
            return
        if self._unread:
            data, self._unread = self._unread, b""
            self.data_received(data)
        if self._is_idle() and not self.transport.is_closing():
            self.transport.resume_reading()

    def _is_idle(self) -> bool:
        return not self._reading_paused and not self._unread

    def send_receive_event_to_app(self) -> None:
        if self._connection is None:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "bytes":
            self._connection.frame_received(bytes(data))
        else:
            self._receive_text(data)

    def _receive_text(self, payload: bytes) -> None:
        assert self._connection is not None
        try:
            text = str(payload, "utf-8")
        except UnicodeDecodeError:
            self.conn.fail(StandardCloseCode.INVALID_DATA)
            self.handle_parser_exception()
        else:
            self._connection.frame_received(text)

    def handle_close(self, event: Frame) -> None:
        if self.conn.close_rcvd is not None:
            self._report_lost(self.conn.close_rcvd.code)
        super().handle_close(event)

    def _report_lost(self, code: int | None, *, died: bool = False) -> None:
        if self._connection is not None:
            self._connection.lost(code, died=died)

    def handle_parser_exception(self) -> None:
        """Say why the connection ends, and go on reading for a moment.

        uvicorn closes at once. What the peer still sends then makes the kernel reset the connection, and the
        peer may lose the reason before it reads it.
        """
        if self._failed:
            return
        self._failed = True
        closing = self.conn.close_sent
        self._report_lost(None)
        if closing is not None:
            disconnect = {"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason}
            self.queue.put_nowait(cast(Any, disconnect))
        self.close_sent = True
        self.stop_keepalive()
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Also keeps uvicorn from closing when the application is done.
        self.close_timer = self.loop.call_later(_FAREWELL, self.transport.close)
        self.start_close_timeout()

    async def send(self, message: Any) -> None:
        if self._failed:
            raise ClientDisconnected
        handshake, self._handshake = self._handshake, None
        if handshake is not None and message["type"] == "websocket.accept":
            self._accept(handshake, message)
        else:
            await super().send(message)

    def _accept(self, handshake: Handshake, message: dict[str, Any]) -> None:
        if self.disconnected:
            raise ClientDisconnected
        if not self.transport.is_closing():
            self.handshake_complete = True
            headers = (*self.default_headers, *message.get("headers", ()))
            self.transport.write(handshake.response(headers, message.get("subprotocol")))
            self.start_keepalive()

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        # `websockets` bounds the bytes of a message, but fragments may be empty.
        if len(self.frames) >= _MAX_FRAGMENTS:
            self._end(Limit.FRAGMENTS, StandardCloseCode.MESSAGE_TOO_BIG, "too many fragments")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if not self._may_control():
            return
        if self.transport.get_write_buffer_size() > _MAX_UNREAD:
            # It makes us answer and does not read the answers.
            self.admission.rejected(Limit.CONTROL_FRAMES)
            self.transport.abort()
            return
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._may_control():
            super().handle_pong(event)

    def _may_control(self) -> bool:
        if self.close_sent:
            return False
        now = self.loop.time()
        if self._control is None:
            self._control = TokenBucket(_CONTROL_RATE, _CONTROL_BURST, now)
        if self._control.take(now):
            return True
        self._end(Limit.CONTROL_FRAMES, CloseCode.TOO_MANY_REQUESTS, "too many pings and pongs")
        return False

    def _end(self, limit: Limit, code: int, reason: str) -> None:
        self.admission.rejected(limit)
        # Pongs that were due would come after the close frame.
        self.conn.fail(code, reason)
        self.handle_parser_exception()


def _host_of(transport: asyncio.BaseTransport) -> str:
    """Return the address of the other side; empty if it has none, or is gone already."""
    peer: Any = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
