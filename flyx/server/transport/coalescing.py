"""Write coalescing: what one turn of the event loop writes is sent at its end, in one piece a connection.

A write costs the kernel more than a message costs us, above all if it wakes the receiver. So the answer to a
handshake is sent with the first message, messages that came together are sent together, and a receiver on
this machine is woken once.
"""

from __future__ import annotations

import asyncio
from typing import Any

_MOST = 64 * 1024
"""Bytes of one connection that do not wait: what the kernel does not take is bounded by the caller."""


class WriteBatch:
    """The connections of one event loop that have something to write when its turn ends."""

    def __init__(self) -> None:
        self._waiting: list[CoalescingTransport] = []

    def wait(self, transport: CoalescingTransport) -> None:
        """Have transport.flush() called at the end of this turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._end)
        self._waiting.append(transport)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.flush()


class CoalescingTransport(asyncio.Transport):
    """A transport that writes once a turn; all else is the business of the one below."""

    __slots__ = ("_batch", "_below", "_pending", "_size")

    def __init__(self, below: asyncio.Transport, batch: WriteBatch) -> None:
        super().__init__()
        self._below = below
        self._batch = batch
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        """Write data at the end of the turn; nothing if the connection is being closed by then."""
        if not self._pending:
            self._batch.wait(self)
        self._pending.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        pending = self._pending
        if pending:
            self._pending, self._size = [], 0
            if not self._below.is_closing():
                self._below.write(pending[0] if len(pending) == 1 else b"".join(pending))

    def get_write_buffer_size(self) -> int:
        return self._size + self._below.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return self._below.can_write_eof()

    def write_eof(self) -> None:
        self.flush()
        self._below.write_eof()

    def close(self) -> None:
        self.flush()
        self._below.close()

    def abort(self) -> None:
        self._pending, self._size = [], 0
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)
