"""One WebSocket: a reader, a writer and a bounded queue between the writer and everybody else.

Nobody ever waits for this client. `send` and `close` only queue, the writer alone waits for the socket, and a
client that lets its queue grow past the limit is closed.

           room effects --send()--> queue --writer--> socket
    handler <--------------------------------reader--'
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from flyx.signaling.messages import (
    CLOSE_CODES,
    CloseCode,
    ErrorCode,
    encoded_size,
    error_message,
    serialize,
)

# RFC 6455 §5.5: a control frame carries at most 125 bytes, two of them the code.
_MAX_CLOSE_REASON = 123
# Messages read in a row before the event loop gets its turn: one TCP read can hold thousands of small ones.
_READ_BURST = 32

Frame = str | bytes
LOST = "the connection was lost"
LEFT = "it left"


class Connection:
    """A client's end of the line.

    Attributes:
        farewell: Why the client is no longer here, for its peers; grows better while the connection ends.
        final: It said goodbye, or was told not to come back.
        closed_for: The code of the fatal error that it was told, if it was told one.
    """

    def __init__(self, websocket: WebSocket, *, max_queue_size: int, close_timeout: float) -> None:
        """Args:
        websocket: Accepted.
        max_queue_size: Bytes that may wait for the client.
        close_timeout: Seconds that the client has to take what is queued once it is being closed.
        """
        self.farewell = LOST
        self.final = False
        self.closed_for: ErrorCode | None = None
        self._websocket = websocket
        self._max_queue_size = max_queue_size
        self._close_timeout = close_timeout
        self._queue: deque[str] = deque()
        # Includes the message that the writer is busy with.
        self._queued_size = 0
        self._wake_writer = asyncio.Event()
        # Set when no more may be queued: what goes into the close frame.
        self._ending: tuple[CloseCode, str] | None = None
        # Set when the reader has met the end of the stream.
        self._gone = False
        # While a frame is being acted on, which nothing interrupts.
        self._handling = False
        # Bounds the writer once there is an end; set while `run` runs.
        self._deadline: asyncio.Timeout | None = None

    @property
    def queued_size(self) -> int:
        """Bytes that wait for the client."""
        return self._queued_size

    def send(self, text: str) -> None:
        """Queue one message. A client that does not keep up is closed instead."""
        if self._ending is not None or self._gone:
            return
        size = encoded_size(text)
        if self._queued_size + size > self._max_queue_size:
            # It does not read, so the rest is for nobody; the memory is better used.
            self._queue.clear()
            self.close(CloseCode.TIMED_OUT, ErrorCode.TOO_SLOW, "messages pile up faster than they are read")
            return
        self._queue.append(text)
        self._queued_size += size
        self._wake_writer.set()

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        """Send what is queued and a fatal `error`, then close. Only the first call counts."""
        if self._ending is not None:
            return
        # A browser shows the close code and little else: the reason must come before, as a message.
        self._queue.append(serialize(error_message(error_code, reason, fatal=True)))
        self.farewell = reason
        self.final = not CLOSE_CODES[code].retry
        self.closed_for = error_code
        self._end(code, reason)

    def leave(self, reason: str) -> None:
        """Close because the client asked for it, with its own reason."""
        if self._ending is None:
            self.farewell = reason
            self.final = True
            self._end(CloseCode.NORMAL, "")

    def _end(self, code: CloseCode, reason: str) -> None:
        self._ending = (code, reason.encode()[:_MAX_CLOSE_REASON].decode(errors="ignore"))
        self._wake_writer.set()
        self._start_countdown()

    def _start_countdown(self) -> None:
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._close_timeout)

    async def run(self, handle: Callable[[Frame], Awaitable[None]]) -> None:
        """Read and write until either side is done with the other.

        Args:
            handle: Awaited for each frame, in order; the next one is read when it returns. Text frames come
                as str, binary ones as bytes.
        """
        reader = asyncio.create_task(self._read(handle))
        reader.add_done_callback(lambda _: self._wake_writer.set())
        try:
            async with asyncio.timeout(None) as self._deadline:
                if self._ending is not None:
                    self._start_countdown()
                await self._write(reader)
        except TimeoutError:
            # Not even the close frame could be written. The listener cuts such connections off.
            pass
        finally:
            self._deadline = None
            self._gone = True
            if not self._handling:
                reader.cancel()
            # Whatever the reader has begun it finishes: it may be half-way through a change of its room.
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self, handle: Callable[[Frame], Awaitable[None]]) -> None:
        count = 0
        while self._ending is None and not self._gone:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                self._heard_end(event.get("code"))
                return
            text = event.get("text")
            self._handling = True
            try:
                await handle(event["bytes"] if text is None else text)
            finally:
                self._handling = False
            count += 1
            if count % _READ_BURST == 0:
                await asyncio.sleep(0)

    def _heard_end(self, code: int | None) -> None:
        if code == CloseCode.NORMAL and self._ending is None:
            self.farewell = LEFT
            self.final = True

    async def _write(self, reader: asyncio.Task[None]) -> None:
        try:
            while True:
                while self._queue:
                    text = self._queue.popleft()
                    await self._websocket.send_text(text)
                    self._queued_size -= encoded_size(text)
                if self._ending is not None:
                    await self._websocket.close(*self._ending)
                    return
                if reader.done():
                    return
                self._wake_writer.clear()
                await self._wake_writer.wait()
        except WebSocketDisconnect:
            # The socket went away under the writer; the reader sees the same.
            return
