"""The sender's disk for a stream: a descriptor that is read block by block, such as standard input.

Blocking, for a thread; POSIX only.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from flyx.storage.pipe_size import enlarge_pipe
from flyx.transfer.manifest import BLOCK_SIZE

LINGER = 0.02
"""Seconds that a block waits for more once something is in it: a pipe is filled piece by piece, and 50 small
blocks a second cost nothing."""


class StreamSource:
    """Reads blocks from a descriptor, whose mode it leaves as it is: it is shared with other programs.

    One call at a time; stop() may come from another thread.
    """

    def __init__(self, descriptor: int) -> None:
        """Args:
        descriptor: open as long as this is used, and not closed.
        """
        self._descriptor = descriptor
        # How much was read.
        self._size = 0
        # Blocks are put together here: pieces of their own would scatter over the memory.
        self._buffer = memoryview(bytearray(BLOCK_SIZE))
        # A terminal tells its end (Ctrl-D) once.
        self._has_ended = False
        # Written to by stop(): reading must end, whoever does not write.
        self._woken, self._waker = os.pipe()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        enlarge_pipe(descriptor)

    def read_block(self) -> bytes:
        """Return what there is up to a multiple of BLOCK_SIZE: a block; nothing at the end, or once stopped.

        So after short ones, whole blocks are again where a disk likes them.

        Raises:
            OSError: it cannot be read.
        """
        size, deadline = 0, None
        length = BLOCK_SIZE - self._size % BLOCK_SIZE
        while size < length and not self._has_ended and self._wait(deadline):
            try:
                count = os.readv(self._descriptor, [self._buffer[size:length]])
            except BlockingIOError:
                # Somebody has made it non-blocking, and another reader was faster.
                continue
            self._has_ended = not count
            size += count
            self._size += count
            deadline = deadline or time.monotonic() + LINGER
        return bytes(self._buffer[:size])

    def stop(self) -> None:
        """End a read_block() that waits, and all that follow; any number of times."""
        with suppress(OSError):
            os.write(self._waker, b"\0")

    def close(self) -> None:
        """Close what was opened here; nothing is read any more."""
        os.close(self._woken)
        os.close(self._waker)

    def _wait(self, deadline: float | None) -> bool:
        """Wait until there is something to read, or the end; return False if not by then, or when stopped."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = [descriptor for descriptor, _ in self._poll.poll(timeout)]
        return self._descriptor in ready and self._woken not in ready
