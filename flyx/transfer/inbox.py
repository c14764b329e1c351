"""The files that arrive, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

from flyx.errors import CorruptData, RemoteProtocolError
from flyx.transfer.digests import DIGEST_SIZE, Algorithm, RunningDigest
from flyx.transfer.disk import BlocksKept, GoesOn, WriteBlock
from flyx.transfer.frames import SHORTEST_DATA, Frame, FrameKind
from flyx.transfer.manifest import (
    BLOCK_SIZE,
    MAX_FILE_SIZE,
    Entries,
    EntryKind,
)


class FileInbox:
    """Puts the frames of one file after another together into whole blocks, and judges their order."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        # Set before the first frame: the only entry is a stream, whose blocks end where the sender says.
        self.is_stream = False
        # Files that do not come, and digests of the blocks that do not.
        self.absent: set[int] = set()
        self._have: dict[int, bytes] = {}
        # Whether the first file that has not ended has begun; its bytes that are here and may yet be dropped.
        self._begun = False
        self._droppable = 0
        # The first file that has not ended.
        self._file = 0
        # Where its next DATA frame must be, and where the open block began.
        self._offset = 0
        self._block_start = 0
        self._parts: list[memoryview] = []
        # Bytes of the parts, if the open block comes compressed; else 0.
        self._packed = 0
        self.hash_with(Algorithm.SHA256)

    def hash_with(self, algorithm: Algorithm) -> None:
        """Digests are by this algorithm; nothing has come yet."""
        self._algorithm = algorithm
        self._digest = RunningDigest(algorithm)

    def keep(self, kept: BlocksKept) -> None:
        """The first blocks of a file that is to come are here."""
        self._have[kept.file] = kept.digests

    def go_on(self, stream: GoesOn) -> None:
        """The beginning of the stream is here."""
        self._begun = True
        self._offset = self._block_start = stream.offset
        self._digest = stream.digest

    def data(self, frame: Frame) -> int:
        """Take a part of a block, compressed or not.

        Return the bytes that are to be dropped, as the sender begins anew.
        """
        size = self._enter(frame.file)
        dropped = self._restart(frame)
        end = frame.offset + len(frame.payload)
        block_end = self._longest(size)
        if frame.kind is FrameKind.PACKED:
            self._take_packed(frame, block_end - self._block_start)
            return dropped
        if frame.offset != self._offset or end > block_end or self._packed:
            raise RemoteProtocolError(reason="data out of place")
        self._add_part(frame.payload)
        self._offset = end
        return dropped

    def whole_file(self, frames: Sequence[Frame], at: int) -> tuple[WriteBlock, bytes] | None:
        """Take a file of one block that comes whole in three frames, from the one at this place on.

        Small files come so, and this is what data(), block_end() and file_end() together do with one.

        Returns:
            What is to be written, and the digest of the file; None, and nothing is taken, if it is another
            file, or there is something wrong with it.
        """
        if at + 2 >= len(frames) or self._begun or self.is_stream:
            return None
        data, block_end, end = frames[at : at + 3]
        file, digest = data.file, block_end.payload
        while self._file < file and not self._comes(self._file):
            self._next_file()
        if not (
            (data.kind, block_end.kind, end.kind) == _WHOLE
            and file == block_end.file == end.file == self._file
            and data.offset == block_end.offset == 0
            and file not in self._have
            and self._comes(file)
            and len(data.payload) == end.offset == self._entries.size(file) <= BLOCK_SIZE
            and self._algorithm.hasher(digest).digest() == end.payload
        ):
            return None
        self._file = file + 1
        return WriteBlock(file, 0, [data.payload], bytes(digest)), bytes(end.payload)

    def block_end(self, frame: Frame) -> WriteBlock:
        """Return what is to be written."""
        size = self._enter(frame.file)
        end = self._offset
        if self._packed or not self.is_stream:
            end = self._longest(size)
        # How much of a compressed block has come is known when it is decompressed.
        is_whole = bool(self._packed) or self._offset == end
        if frame.offset != self._block_start or not is_whole or not self._parts:
            raise RemoteProtocolError(reason="a block that ends out of place")
        digest = bytes(frame.payload)
        unpacked = end - self._block_start if self._packed else 0
        write = WriteBlock(frame.file, self._block_start, self._parts, digest, unpacked=unpacked)
        self._digest.add(digest)
        self._parts = []
        self._packed = 0
        self._block_start = self._offset = end
        return write

    def hole(self, frame: Frame) -> tuple[int, WriteBlock]:
        """Take a hole. Return the bytes that are to be dropped, as data() does, and what is to be written."""
        size = self._enter(frame.file)
        dropped = self._restart(frame)
        end = self._longest(size)
        is_next = frame.offset == self._offset == self._block_start < end
        if self.is_stream or self._packed or not is_next:
            raise RemoteProtocolError(reason="a hole out of place")
        length = end - frame.offset
        digest = self._algorithm.hole_digest(length)
        self._digest.add(digest)
        self._offset = self._block_start = end
        return dropped, WriteBlock(frame.file, frame.offset, (), digest, hole=True)

    def file_end(self, frame: Frame) -> bytes:
        """Return the digest of the file."""
        listed = self._enter(frame.file)
        size = self._offset if self.is_stream else listed
        if not frame.offset == self._offset == self._block_start == size:
            raise RemoteProtocolError(reason="a file that ends out of place")
        digest = self._digest.value()
        if digest != frame.payload:
            raise CorruptData(path=self._entries.path(frame.file))
        self._next_file()
        return digest

    def abandon(self, frame: Frame) -> int:
        """The sender gives this file up. Return the bytes of its open block, which nobody will write."""
        self._enter(frame.file)
        dropped = self._packed or self._offset - self._block_start
        self._next_file()
        return dropped

    def _longest(self, size: int) -> int:
        """Where the open block of a file of this size ends at the latest; one of a stream may end before."""
        boundary = (self._block_start // BLOCK_SIZE + 1) * BLOCK_SIZE
        return min(boundary, MAX_FILE_SIZE if self.is_stream else size)

    def _add_part(self, payload: memoryview) -> None:
        """Only the last part of a block may be short."""
        if self._parts and len(self._parts[-1]) < SHORTEST_DATA:
            raise RemoteProtocolError(reason="data in splinters")
        self._parts.append(payload)

    def _take_packed(self, frame: Frame, length: int) -> None:
        """Take a part of a compressed block that has so many bytes."""
        if not frame.offset == self._offset == self._block_start:
            raise RemoteProtocolError(reason="data out of place")
        self._add_part(frame.payload)
        self._packed += len(frame.payload)
        if self._packed >= length:
            raise RemoteProtocolError(reason="a compressed block that is no smaller")

    def _restart(self, frame: Frame) -> int:
        """What of the file was here is known to be good, or, if the sender begins anew, is to be dropped."""
        dropped, self._droppable = self._droppable, 0
        if not dropped or frame.offset:
            return 0
        self._offset = self._block_start = 0
        self._digest = RunningDigest(self._algorithm)
        return dropped

    def _enter(self, file: int) -> int:
        """Go on to this file, if nothing that is to come lies between; return its size."""
        while self._file < file and not self._comes(self._file):
            self._next_file()
        if self._file != file or not self._comes(file):
            raise RemoteProtocolError(reason="files out of order")
        size = self._entries.size(file)
        if not self._begun:
            self._begun = True
            if digests := self._have.pop(file, None):
                self._droppable = min(len(digests) // DIGEST_SIZE * BLOCK_SIZE, size)
                self._offset = self._block_start = self._droppable
                self._digest.add(digests)
        return size

    def _comes(self, file: int) -> bool:
        return self._entries.kind(file) is EntryKind.FILE and file not in self.absent

    def _next_file(self) -> None:
        self._file += 1
        self._begun = False
        self._offset = self._block_start = self._droppable = 0
        self._parts = []
        self._packed = 0
        self._digest = RunningDigest(self._algorithm)


_WHOLE = (FrameKind.DATA, FrameKind.BLOCK_END, FrameKind.FILE_END)
