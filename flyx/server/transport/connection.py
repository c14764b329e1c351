"""One WebSocket client: what it is sent, what it sends, and how the connection ends.

The server never waits for a client. What is sent goes to the transport, which keeps what the network does not
take yet; a client that lets more than a limit pile up there is closed. What it sends is acted on as it comes,
in the callback that received it. Only an action that has to wait, for a disk or another node, gets a task:
meanwhile the client's socket is not read, so that the client is slowed down and not the server filled.

    room effects --send()--> transport buffer --> socket
         session <--frame_received()-- socket

An idle client costs no task and no queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any, Protocol

from flyx.server.logs import get_logger
from flyx.signaling.announcements import CLIENT_LEFT, CONNECTION_LOST
from flyx.signaling.messages import CLOSE_CODES, CloseCode, ErrorCode, error_message, serialize

log = get_logger("flyx.server.transport.connection")

_MAX_CLOSE_REASON = 123
"""RFC 6455 §5.5: a control frame carries at most 125 bytes, two of them the code."""

Frame = str | bytes
Job = Coroutine[Any, Any, None]

WIRE = "flyx.wire"
"""Key of the Wire in the extensions of a WebSocket's scope."""


class Wire(Protocol):
    """The WebSocket below: flyx.server.transport.protocols.WebSocketProtocol."""

    @property
    def unsent(self) -> int:
        """Bytes that the network has not taken."""

    def take_over(self, connection: Connection) -> None:
        """Hand frames, and the news of the end, to connection from now on."""

    def send_text(self, payload: bytes) -> None:
        """Send a text frame of valid UTF-8."""

    def send_binary(self, payload: bytes) -> None:
        """Send a binary frame."""

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame, the last thing that is sent, and see to it that the connection ends."""

    def pause_reading(self) -> None:
        """Read no further until resume_reading()."""

    def resume_reading(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """End the connection at once."""

    def spawn(self, job: Job) -> None:
        """Run job in a task of its own."""


class Session(Protocol):
    """What a client does here."""

    def handle(self, frame: Frame) -> Job | None:
        """Act on a frame; text comes as str, binary as bytes.

        Returns:
            What is left to do before the next frame, if that could not be done at once.
        """

    async def end(self) -> None:
        """Nothing more comes from the client or goes to it. Called once."""

    def gone(self) -> None:
        """The client has taken its last message, or had its time for it. Called once."""


class _Link(Enum):
    """What has become of the WebSocket: the first member in the beginning, one of the last two in the end."""

    OPEN = auto()
    # We have sent a close frame; nothing more is sent or acted on.
    CLOSING = auto()
    # And the client has not taken it in its time.
    OVERDUE = auto()
    # The client has closed, or the connection was lost, before we did.
    LOST = auto()
    # After we did.
    CLOSED = auto()


class _Departure(Enum):
    """Whether the session is told of the end."""

    NOT_YET = auto()
    UNDER_WAY = auto()
    DONE = auto()


class Connection:
    """The server's end of a client's WebSocket.

    Attributes:
        farewell: why the client is no longer here, for its peers; grows better while the connection ends.
        final: it said goodbye, or was told not to come back.
        closed_for: the code of the fatal error that it was told, if it was told one.
    """

    __slots__ = (
        "_busy",
        "_close_timeout",
        "_countdown",
        "_departure",
        "_link",
        "_max_queue_size",
        "_session",
        "_waiting",
        "_wire",
        "closed_for",
        "died",
        "farewell",
        "final",
    )

    def __init__(self, wire: Wire, *, max_queue_size: int, close_timeout: float) -> None:
        """Args:
        wire: its handshake is done.
        max_queue_size: bytes that may wait for the client.
        close_timeout: seconds that the client has to take what is on its way once it is being closed.
        """
        self.farewell = CONNECTION_LOST
        self.final = False
        # TCP has ended without a goodbye, and not for want of a sign of life: so does a program that dies.
        self.died = False
        self.closed_for: ErrorCode | None = None
        self._wire = wire
        self._max_queue_size = max_queue_size
        self._close_timeout = close_timeout
        # Set by run(), forgotten when it has been told that the client is gone.
        self._session: Session | None = None
        self._link = _Link.OPEN
        self._departure = _Departure.NOT_YET
        # While a job runs; frames that come meanwhile.
        self._busy = True
        self._waiting: deque[Frame] | None = None
        # After we have closed: the time of the client to take it.
        self._countdown: asyncio.TimerHandle | None = None

    @property
    def queued_size(self) -> int:
        """Bytes that wait for the client."""
        return self._wire.unsent

    @property
    def gone(self) -> bool:
        """It has ended, or is being closed."""
        return self._link is not _Link.OPEN

    async def run(self, session: Session, first: Job) -> None:
        """Hand frames to session from now on, once first is done. Returns then: no task stays behind."""
        self._session = session
        self._wire.take_over(self)
        await self._work(first)

    def send(self, text: str) -> None:
        """Send one message. A client that does not keep up is closed instead."""
        if self.gone:
            return
        payload = text.encode()
        if self._wire.unsent + len(payload) > self._max_queue_size:
            self.close(CloseCode.TIMED_OUT, ErrorCode.TOO_SLOW, "messages pile up faster than they are read")
        else:
            self._wire.send_text(payload)

    def send_datagram(self, payload: bytes) -> None:
        """Send bytes that may be lost; the caller looks at queued_size before."""
        if not self.gone:
            self._wire.send_binary(payload)

    def pause_reading(self) -> None:
        """Read no further until resume_reading()."""
        self._wire.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._wire.resume_reading()

    def close(
        self, code: CloseCode, error_code: ErrorCode, reason: str, retry_after: float | None = None
    ) -> None:
        """Send a fatal `error`, then close. Only the first call counts."""
        if self.gone:
            return
        # A browser shows the close code and little else: the reason must come before, as a message.
        message = error_message(error_code, reason, fatal=True, retry_after=retry_after)
        self._wire.send_text(serialize(message).encode())
        self.farewell = reason
        self.final = not CLOSE_CODES[code].retry
        self.closed_for = error_code
        self._close(code, reason)

    def leave(self, reason: str) -> None:
        """Close because the client asked for it, with its own reason."""
        if not self.gone:
            self.farewell = reason
            self.final = True
            self._close(CloseCode.NORMAL, "")

    def _close(self, code: CloseCode, reason: str) -> None:
        self._link = _Link.CLOSING
        self._wire.send_close(code, reason.encode()[:_MAX_CLOSE_REASON].decode(errors="ignore"))
        self._countdown = asyncio.get_running_loop().call_later(self._close_timeout, self._too_late)
        self._leave_once()

    # What the wire calls.

    def frame_received(self, frame: Frame) -> None:
        """The client has sent a frame."""
        if self.gone or self._session is None:
            return
        if self._busy:
            if self._waiting is None:
                self._waiting = deque()
                self._wire.pause_reading()
            self._waiting.append(frame)
            return
        job = self._session.handle(frame)
        if job is not None:
            self._busy = True
            self._wire.spawn(self._work(job))

    def lost(self, code: int | None, *, died: bool = False) -> None:
        """The client has closed, with this code, or the connection is lost. Only the first call counts."""
        if self._link in (_Link.LOST, _Link.CLOSED):
            return
        is_first = self._link is _Link.OPEN
        self._link = _Link.LOST if is_first else _Link.CLOSED
        self.died = died and is_first
        if code == CloseCode.NORMAL and is_first:
            self.farewell = CLIENT_LEFT
            self.final = True
        if self._countdown is not None:
            self._countdown.cancel()
            self._countdown = None
        self._leave_once()
        self._tell_gone()

    # The end.

    async def _work(self, job: Job) -> None:
        try:
            await job
            # What came before the client has left is acted on as well.
            while self._waiting and self._session is not None and self._link in (_Link.OPEN, _Link.LOST):
                following = self._session.handle(self._waiting.popleft())
                if following is not None:
                    await following
        except Exception:
            log.exception("a client's message failed")
            self._wire.abort()
        finally:
            self._busy = False
            held, self._waiting = self._waiting is not None, None
            self._leave_once()
        if held and self._departure is _Departure.NOT_YET:
            self._wire.resume_reading()

    def _leave_once(self) -> None:
        # Whatever has begun is finished first: it may be half-way through a change of its room.
        if self.gone and not self._busy and self._departure is _Departure.NOT_YET:
            self._departure = _Departure.UNDER_WAY
            self._wire.spawn(self._leave())

    async def _leave(self) -> None:
        assert self._session is not None
        try:
            await self._session.end()
        finally:
            self._departure = _Departure.DONE
            self._tell_gone()

    def _too_late(self) -> None:
        self._link = _Link.OVERDUE
        self._tell_gone()

    def _tell_gone(self) -> None:
        is_over = self._link not in (_Link.OPEN, _Link.CLOSING)
        if is_over and self._departure is _Departure.DONE and self._session is not None:
            self._session.gone()
            # The two know each other: without this, only the garbage collector would free them.
            self._session = None
