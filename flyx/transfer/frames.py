"""The frames of the data channel, as messages.py describes them."""

from __future__ import annotations

import struct
from collections import deque
from enum import IntEnum

from msgspec import Struct

from flyx.errors import LocalProtocolError, RemoteProtocolError
from flyx.transfer.digests import DIGEST_SIZE
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.messages import MIN_MESSAGE_SIZE

MAX_DATA_SIZE = 262_144
"""Bytes of a message of the data channel, even if the peer accepts more: longer ones are no faster, and one
as long as all that may be read ahead would never be complete."""

SHORTEST_DATA = 1024
"""Bytes in a DATA or PACKED frame that is not the last of its block: shorter ones would cost more memory than
they fill."""

FRAME_HEADER = struct.Struct("!B3xIIQ")
"""Kind, three reserved bytes (zero), file index, payload length, offset: 20 bytes."""


class FrameKind(IntEnum):
    """What a frame of the data channel carries."""

    DATA = 1
    BLOCK_END = 2
    FILE_END = 3
    FILE_FAILED = 4
    HOLE = 5
    PACKED = 6
    ANEW = 7


class Frame(Struct, frozen=True):
    """One frame; the payload is a view into the message it came in."""

    kind: FrameKind
    file: int
    offset: int
    payload: memoryview


_KINDS: dict[int, tuple[FrameKind, int, int]] = {
    kind.value: (kind, shortest, longest)
    for kind, shortest, longest in (
        (FrameKind.DATA, 1, 1 << 30),
        (FrameKind.BLOCK_END, DIGEST_SIZE, DIGEST_SIZE),
        (FrameKind.FILE_END, DIGEST_SIZE, DIGEST_SIZE),
        (FrameKind.FILE_FAILED, 1, 64),
        (FrameKind.HOLE, 0, 0),
        (FrameKind.PACKED, 1, BLOCK_SIZE - 1),
        (FrameKind.ANEW, 0, 0),
    )
}
"""By the number of a kind: the kind, and the least and the most bytes of its payload."""


def parse_frames_untrusted(message: bytes | str) -> list[Frame]:
    """Split one message of the data channel into its frames.

    Raises:
        RemoteProtocolError: it is text or empty, or a frame is cut short, unknown or of impossible length.
    """
    if isinstance(message, str) or not message:
        raise RemoteProtocolError(reason="a data message without frames")
    frames = []
    view = memoryview(message)
    position, end = 0, len(view)
    while position < end:
        start = position + FRAME_HEADER.size
        if start > end:
            raise RemoteProtocolError(reason="a frame is cut short")
        kind_value, file, length, offset = FRAME_HEADER.unpack_from(view, position)
        position = start + length
        if (known := _KINDS.get(kind_value)) is None:
            raise RemoteProtocolError(reason=f"unknown frame kind {kind_value}")
        kind, shortest, longest = known
        if position > end or not shortest <= length <= longest:
            raise RemoteProtocolError(reason=f"a frame of impossible length {length}")
        frames.append(Frame(kind, file, offset, view[start:position]))
    return frames


class FramePacker:
    """Packs frames into messages, so that many small files share one and large blocks fill each.

    Call add() for each frame, flush() when nothing follows soon, and take from `messages`.
    """

    def __init__(self, max_message_size: int) -> None:
        """Args:
        max_message_size: bytes in a message that the peer accepts, headers included; MAX_DATA_SIZE is enough.

        Raises:
            LocalProtocolError: it is less than MIN_MESSAGE_SIZE, so that not all that we say would fit.
        """
        if max_message_size < MIN_MESSAGE_SIZE:
            raise LocalProtocolError(reason=f"a peer was taken on that accepts {max_message_size} bytes only")
        self._limit = min(max_message_size, MAX_DATA_SIZE)
        self._pending: list[bytes | memoryview] = []
        self._pending_size = 0
        self.messages: deque[bytes] = deque()
        # Bytes in `messages` and pending, headers included.
        self.size = 0

    def keep_to(self, size: int) -> None:
        """Make no message longer than this from now on: at least SHORTEST_DATA with its header."""
        self._limit = min(self._limit, size)

    def add(self, kind: FrameKind, file: int, offset: int, payload: bytes | memoryview) -> None:
        """Append one frame; DATA and PACKED of any length are spread over as many frames as they need."""
        view = memoryview(payload)
        if kind in (FrameKind.DATA, FrameKind.PACKED):
            while len(view) > (room := self._room()):
                if room < SHORTEST_DATA:
                    self.flush()
                    continue
                self._append(kind, file, offset, view[:room])
                view = view[room:]
                if kind is FrameKind.DATA:
                    offset += room
            if not view:
                return
        elif len(view) > self._room():
            self.flush()
        self._append(kind, file, offset, view)

    def add_whole(self, file: int, data: bytes, block_digest: bytes, digest: bytes) -> bool:
        """Append all frames of a file of one block, if there is room; return whether there was."""
        size = 3 * FRAME_HEADER.size + len(data) + 2 * DIGEST_SIZE
        if size > self._limit - self._pending_size:
            return False
        pack = FRAME_HEADER.pack
        self._pending += (
            pack(FrameKind.DATA, file, len(data), 0),
            data,
            pack(FrameKind.BLOCK_END, file, DIGEST_SIZE, 0),
            block_digest,
            pack(FrameKind.FILE_END, file, DIGEST_SIZE, len(data)),
            digest,
        )
        self._pending_size += size
        self.size += size
        return True

    def flush(self) -> None:
        """Make what is pending a message."""
        if self._pending:
            self.messages.append(b"".join(self._pending))
            self._pending.clear()
            self._pending_size = 0

    def clear(self) -> None:
        """Drop all that was added and not taken."""
        self.messages.clear()
        self._pending.clear()
        self._pending_size = self.size = 0

    def pop(self) -> bytes:
        """Take the oldest message."""
        message = self.messages.popleft()
        self.size -= len(message)
        return message

    def _room(self) -> int:
        return self._limit - self._pending_size - FRAME_HEADER.size

    def _append(self, kind: FrameKind, file: int, offset: int, view: memoryview) -> None:
        self._pending.append(FRAME_HEADER.pack(kind, file, len(view), offset))
        self._pending.append(view)
        size = FRAME_HEADER.size + len(view)
        self._pending_size += size
        self.size += size
