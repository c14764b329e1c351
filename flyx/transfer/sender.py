"""The sending end of a transfer, for one receiver.

Offers the manifest, asks for blocks as the receiver accepts them, and sends them as far as its credit goes.
It is done only when the receiver has confirmed the digest of everything.

A receiver may have files and blocks from an earlier try. The sender reads only the last of these blocks of
each file, and believes the receiver's digests of the others: a receiver that lies spoils nothing but its own
copy. A file is the same if the manifest's size and time are; content that was changed while size and time (to
the microsecond) were put back goes unseen in blocks that are not sent again, as with rsync.

Before it accepts anything, a receiver may ask what files hash to (comparison.py). One that takes whatever is
offered has the first blocks before it accepts, as far as EAGER_CREDIT goes. They count when it does, unless
it has them begun anew.

Inputs besides those of TransferSession: blocks_read. Drains besides next_control: next_reads, next_data,
next_event.
Memory is bounded: at most READ_AHEAD bytes are read before the wire takes them.

A stream (manifest.Content) has no size before its end: blocks are asked for until there is none any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from flyx.errors import LocalProtocolError, RemoteProtocolError
from flyx.transfer import messages
from flyx.transfer.comparison import Hashing
from flyx.transfer.digests import DIGEST_SIZE, Algorithm, DigestQueue, RunningDigest, TransferDigest
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest, StreamEnded
from flyx.transfer.frames import FrameKind, FramePacker
from flyx.transfer.manifest import (
    BLOCK_SIZE,
    Content,
    Entry,
    EntryKind,
    Manifest,
    block_count,
)
from flyx.transfer.messages import (
    Accept,
    Compare,
    Complete,
    ControlMessage,
    Credit,
    Done,
    GoOn,
    HashWith,
    Have,
    Kept,
    LeftOut,
    ManifestPiece,
    Saved,
)
from flyx.transfer.rate_limit import portion_of
from flyx.transfer.sender_events import (
    Accepted,
    Comparing,
    Delivered,
    FileConfirmed,
    Resumed,
    SenderEvent,
)
from flyx.transfer.session import EntryLeftOut, TransferSession

READ_AHEAD = 4 * BLOCK_SIZE
"""Bytes that may be read and packed before they are sent: the disk stays ahead of the wire."""

READ_BATCH = BLOCK_SIZE
"""Bytes asked for in one batch; small files are read many at a time."""

READ_BATCH_FILES = 256
"""Requests in one batch: thousands of empty files must not make one endless read."""


class _State(Enum):
    QUEUED = auto()
    OFFERING = auto()
    SENDING = auto()
    DELIVERED = auto()


# What has become of an entry at the receiver.
_HAS = 1
_GOES_WITHOUT = 2


class Sender(TransferSession):
    """The state machine of the sending end."""

    _peer = "receiver"

    def __init__(
        self,
        manifest: Manifest,
        *,
        max_message_size: int,
        now: float,
        rate: int | None = None,
        eager: Algorithm | None = None,
    ) -> None:
        """Args:
        manifest: what is offered.
        max_message_size: bytes in one data message; no more than the peer's max-message-size (RFC 8841 §6),
            and at least MIN_MESSAGE_SIZE: LocalProtocolError if not.
        now: monotonic seconds.
        rate: data bytes a second that all receivers get together, to be told; None: as many as can be.
            Whoever calls next_data() keeps to it.
        eager: the receiver takes whatever is offered, and knows digests by this; None: it says later.

        Nothing is told before release(): it may not be this receiver's turn.
        """
        super().__init__(now)
        self.manifest = manifest
        self._is_stream = manifest.content is Content.STREAM
        self._state = _State.QUEUED
        self._events: deque[SenderEvent] = deque()
        # The messages of the manifest that are still to be told; made one by one.
        self._telling: Iterator[ControlMessage] = iter(())
        # Entries below this index may be sent.
        self._accepted = 0
        self._eager = eager
        # The receiver has accepted nothing yet, and data leaves all the same.
        self._is_early = False
        # What is asked before anything is accepted; None if nothing is.
        self._hashing: Hashing | None = None
        # Where reading stands: the next block to ask for.
        self._reading_file = 0
        self._reading_offset = 0
        # Blocks asked for and not answered.
        self._requested: deque[BlockRequest] = deque()
        # What comes of them is of no use any more.
        self._is_stale = False
        self._packer = FramePacker(max_message_size)
        self._told_rate = rate
        # Data bytes a second that this receiver wants at most, once it has accepted; as `rate`.
        self.rate: int | None = None
        self._keep_to(rate)
        # The digest of the file being packed, and what the receiver must confirm in the end.
        self._hash_with(eager or self.algorithm)
        self._delivered_files = 0
        self._delivered_bytes = 0
        # Files that are packed, and their digests, until all before them have been saved or left out.
        self._packed = DigestQueue()
        # Digests of the blocks that the receiver has of a file, until the last of them has been compared.
        self._have: dict[int, bytearray] = {}
        # The last file of which it has told something, and how much it has told since the last accept.
        self._told = -1
        self._resumed_files = 0
        self._resumed_bytes = 0
        # File bytes that it can have at most: those told and those packed, of lost files as well.
        self._packed_bytes = 0
        # Files that could not be read as they were offered.
        self._lost: set[int] = set()
        # By entry: whether the receiver has it, or goes without it.
        self._ends = bytearray(len(manifest.entries))
        # The last entry that it goes without from the start, and the bytes of all.
        self._gone_without = -1
        self._unwanted_bytes = 0
        # Data bytes sent, and how many may be.
        self._data_sent = 0
        self._credit = messages.EAGER_CREDIT if eager else 0
        # How many fewer bytes were packed than the blocks have, as they were compressed.
        self.spared_bytes = 0
        # File bytes that the receiver has verified, by its last word.
        self.bytes_confirmed = 0

    def release(self) -> None:
        """Offer the manifest: the receiver's turn has come."""
        if self._state is not _State.QUEUED:
            raise LocalProtocolError(reason="released twice")
        self._state = _State.OFFERING
        self._telling = messages.manifest_messages(self.manifest, self._told_rate)

    def blocks_read(self, results: Sequence[BlockRead | StreamEnded | BlockFailed], now: float) -> None:
        """Take the answers to next_reads(), in the order of the requests, all of them at once."""
        if self._ended:
            return
        if [r.request for r in results] != list(self._requested):
            raise LocalProtocolError(reason="blocks were read that were not asked for")
        self._requested.clear()
        if self._is_stale:
            self._is_stale = False
            return
        if self._hashing and self._state is _State.OFFERING:
            self._outgoing.extend(messages.digest_messages(self._hashing.take(results)))
            return
        for result in results:
            if isinstance(result, BlockRead):
                if result.request.file not in self._lost:
                    self._pack(result)
            elif isinstance(result, StreamEnded):
                self._end_stream(result)
            elif self._state is _State.OFFERING:
                # The receiver may not want that file: it is tried again when it has accepted it.
                self._is_early = False
                self._reading_file, self._reading_offset = result.request.file, result.request.offset
                break
            else:
                self._lose(result)
        if self._next_request() is None or self._packer.size < READ_BATCH:
            # Nothing follows at once: a partly filled message must not wait for company.
            self._packer.flush()

    def next_control(self) -> str | None:
        """Return the next message for the control channel; a manifest comes piece by piece."""
        if not self._outgoing and not self._ended:
            message = next(self._telling, None)
            if message is not None:
                if isinstance(message, ManifestPiece) and not self._is_stream:
                    # If there are more, the receiver plans, and accepts, one by one.
                    is_whole = len(message.entries) == len(self._ends)
                    self._is_early = is_whole and self._eager is not None
                return messages.serialize_control(message)
        return super().next_control()

    def next_reads(self) -> list[BlockRequest]:
        """Return the next blocks to read; empty while an earlier batch is unanswered or enough is ready."""
        if self._requested or self._ended or self._packer.size >= READ_AHEAD:
            return []
        if self._hashing and self._state is _State.OFFERING:
            # As fast as the receiver takes what we have to say.
            if not self._outgoing:
                self._requested.extend(self._hashing.next_reads(READ_BATCH, READ_BATCH_FILES))
            return list(self._requested)
        if self._is_early and self._data_sent + self._packer.size >= self._credit:
            # It may all be in vain.
            return []
        size = 0
        while size < READ_BATCH and len(self._requested) < READ_BATCH_FILES:
            request = self._next_request()
            if request is None:
                break
            self._requested.append(request)
            if self._is_stream:
                # What follows is known when it has been read.
                break
            self._advance(request)
            size += request.length
            if request.file in self._have:
                # The same, when it has been compared.
                break
        return list(self._requested)

    def next_data(self) -> bytes | None:
        """Return the next message for the data channel, if credit allows one."""
        if self.next_data_size is None:
            return None
        message = self._packer.pop()
        self._data_sent += len(message)
        return message

    @property
    def next_data_size(self) -> int | None:
        """Bytes of what next_data() returns; None if that is nothing."""
        waiting = self._packer.messages
        may_leave = self._is_early or self._state is _State.SENDING
        if self._ended or not waiting or self.awaits_credit or not may_leave:
            return None
        return len(waiting[0])

    @property
    def awaits_credit(self) -> bool:
        """Whether there is data to send, and the receiver does not let us send it yet."""
        waiting = self._packer.messages
        return bool(waiting) and self._data_sent + len(waiting[0]) > self._credit

    @property
    def ready_bytes(self) -> int:
        """Data bytes that are packed and not sent."""
        return self._packer.size

    def next_event(self) -> SenderEvent | None:
        """Return what has happened, oldest first."""
        return self._events.popleft() if self._events else None

    @property
    def expected_bytes(self) -> int | None:
        """File bytes that the receiver will have in the end, as far as is known; None of a stream."""
        return None if self._is_stream else self.manifest.total_bytes - self._unwanted_bytes

    @property
    def lost(self) -> frozenset[int]:
        """Files that could not be read as they were offered."""
        return frozenset(self._lost)

    def _emit(self, event: SenderEvent) -> None:
        self._events.append(event)

    def _receive(self, message: ControlMessage, now: float) -> None:
        # The receiver has planned: what follows is by that.
        self._is_early = False
        match message:
            case _ if self._state is _State.QUEUED:
                raise RemoteProtocolError(reason=f"{message.type} before anything was offered")
            case HashWith(algorithm=algorithm) if self._has_told_nothing:
                self._hash_with(algorithm)
            case Compare(files=files) if self._state is _State.OFFERING and not self._is_stream:
                self._compare(files)
            case Kept(files=files) if not self._is_stream:
                for file, digest in files:
                    self._keep(file, bytes.fromhex(digest))
            case Have():
                self._hold(message)
            case GoOn(offset=offset):
                self._go_on(offset)
            case LeftOut(entries=entries):
                for index, code in entries:
                    self._go_without(index, code)
            case Accept():
                self._accept(message)
            case Credit(bytes=credit, written=written) if self._state is _State.SENDING:
                if credit < self._credit or written > self._packed_bytes:
                    raise RemoteProtocolError(reason="credit that takes back what was given")
                self._credit = credit
                self.bytes_confirmed = written
            case Saved(files=saved):
                self._confirm(saved)
            case Complete():
                self._complete(message)
            case _:
                raise RemoteProtocolError(reason=f"{message.type} from a receiver")

    def _hash_with(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self._file_digest = RunningDigest(algorithm)
        self._transfer_digest = TransferDigest(algorithm)

    @property
    def _has_told_nothing(self) -> bool:
        """Whether the receiver may still say what all digests are by."""
        has_told = self._hashing or self._told >= 0 or self._gone_without >= 0
        return self._state is _State.OFFERING and not has_told

    def _compare(self, files: list[int]) -> None:
        if self._hashing is None:
            self._is_stale = bool(self._requested)
            self._hashing = Hashing(self.manifest.entries, self.algorithm)
            self._emit(Comparing())
        self._hashing.ask(files)

    def _keep(self, file: int, digest: bytes) -> None:
        size = self._tell(file, after=self._told).size
        self._transfer_digest.keep(file, digest)
        self._ends[file] = _HAS
        self._delivered_files += 1
        self._delivered_bytes += size
        self._packed_bytes += size
        self._resumed_files += 1
        self._resumed_bytes += size

    def _hold(self, message: Have) -> None:
        file = message.file
        more = file == self._told and file in self._have
        entry = self._tell(file, after=file - 1 if more else self._told)
        digests = self._have.setdefault(file, bytearray())
        known = len(digests) // DIGEST_SIZE
        if message.first != known or known + len(message.sha256) > block_count(entry.size):
            raise RemoteProtocolError(reason="it has blocks that the file does not")
        digests += bytes.fromhex("".join(message.sha256))
        end = min((known + len(message.sha256)) * BLOCK_SIZE, entry.size)
        self._packed_bytes += end - known * BLOCK_SIZE
        self._resumed_bytes += end - known * BLOCK_SIZE

    def _go_on(self, offset: int) -> None:
        if not self._is_stream or self._state is not _State.OFFERING or self._reading_offset:
            raise RemoteProtocolError(reason="a stream that goes on out of place")
        self._reading_offset = offset
        self._packed_bytes += offset

    def _tell(self, file: int, after: int) -> Entry:
        """The receiver has something of this file: check that it can, return its entry."""
        entries = self.manifest.entries
        if not max(self._accepted, after + 1) <= file < len(entries):
            raise RemoteProtocolError(reason="it has something of a file out of place")
        if entries.kind(file) is not EntryKind.FILE or self._ends[file]:
            raise RemoteProtocolError(reason="it has something of a file that is none, or that it leaves out")
        self._told = file
        return entries[file]

    def _accept(self, accept: Accept) -> None:
        below = accept.below
        if not max(self._accepted, self._told + 1, self._gone_without + 1) <= below <= len(self._ends):
            raise RemoteProtocolError(reason="entries accepted that were not offered")
        if self._hashing and self._hashing.is_busy:
            raise RemoteProtocolError(reason="entries accepted that it still compares")
        if self._state is _State.OFFERING:
            self._take_first(accept)
        elif accept.anew:
            raise RemoteProtocolError(reason="a transfer begun anew that is under way")
        if self._resumed_bytes or self._resumed_files:
            self._emit(Resumed(self._resumed_files, self._resumed_bytes))
            self._resumed_bytes = self._resumed_files = 0
            for file in range(self._accepted, below):
                if self._ends[file] == _HAS:
                    self._emit(FileConfirmed(file))
        self._accepted = below

    def _take_first(self, accept: Accept) -> None:
        """It begins to accept: with what has left already, or anew."""
        is_as_expected = self._has_told_nothing and self.algorithm is self._eager
        if self._eager is None and accept.anew:
            raise RemoteProtocolError(reason="a transfer begun anew that has not begun")
        if self._eager and (accept.rate is not None or not (is_as_expected or accept.anew)):
            raise RemoteProtocolError(reason="it does not take whatever is offered, as it said")
        self._state = _State.SENDING
        if accept.anew:
            self._begin_anew()
        self.rate = accept.rate
        self._keep_to(accept.rate)
        self._emit(Accepted())

    def _begin_anew(self) -> None:
        """What was sent before anything was accepted counts for nothing."""
        self._packer.clear()
        self._packer.add(FrameKind.ANEW, 0, 0, b"")
        self._packer.flush()
        if self._is_stream:
            # Nothing was; and it may go on, not begin.
            return
        self._is_stale = bool(self._requested)
        self._reading_file = self._reading_offset = 0
        self._file_digest = RunningDigest(self.algorithm)
        self._packed = DigestQueue()
        self._packed_bytes = self._resumed_bytes
        self.spared_bytes = 0

    def _keep_to(self, rate: int | None) -> None:
        """Have messages leave in small pieces if the rate is low."""
        if rate is not None:
            self._packer.keep_to(portion_of(rate))

    def _go_without(self, index: int, code: str) -> None:
        """The receiver leaves an entry out: from the start, or because it cannot be saved after all."""
        entries = self.manifest.entries
        if index >= len(entries) or self._ends[index]:
            raise RemoteProtocolError(reason="it leaves out what is not there")
        if index >= self._accepted:
            if index <= self._gone_without:
                raise RemoteProtocolError(reason="it leaves out entries out of order")
            self._gone_without = index
            self._unwanted_bytes += entries[index].size
        elif entries.kind(index) is EntryKind.FILE and not self._is_sent(index):
            raise RemoteProtocolError(reason="it leaves out a file that was not sent")
        self._ends[index] = _GOES_WITHOUT
        self._emit(EntryLeftOut(index, code))
        self._settle_digests()

    def _confirm(self, files: list[int]) -> None:
        entries = self.manifest.entries
        for file in files:
            if not self._is_sent(file) or self._ends[file]:
                raise RemoteProtocolError(reason="a file confirmed that was not sent")
            self._ends[file] = _HAS
            self._delivered_files += 1
            self._delivered_bytes += self._reading_offset if self._is_stream else entries.size(file)
            self._emit(FileConfirmed(file))
        self._settle_digests()

    def _is_sent(self, file: int) -> bool:
        """Whether a file has been packed whole."""
        is_file = file < self._accepted and self.manifest.entries.kind(file) is EntryKind.FILE
        return is_file and file < self._packed_below() and file not in self._lost

    def _settle_digests(self) -> None:
        """Count the digests of the files that were saved, in order, up to the first of unknown fate."""
        while self._packed and (end := self._ends[self._packed.first]):
            file, digest = self._packed.pop()
            if end == _HAS:
                self._transfer_digest.add(file, digest)

    def _packed_below(self) -> int:
        """Files below this index have been packed whole."""
        return self._requested[0].file if self._requested and not self._is_stale else self._reading_file

    def _complete(self, message: Complete) -> None:
        if self._state is not _State.SENDING or self._accepted < len(self.manifest.entries):
            raise RemoteProtocolError(reason="complete before the end")
        if self._requested or self._packer.size or self._next_request() is not None:
            raise RemoteProtocolError(reason="complete before everything was sent")
        if self._packed:
            raise RemoteProtocolError(reason="complete before it has said what became of everything")
        ours = (self._delivered_files, self._delivered_bytes, self._transfer_digest.value().hex())
        if (message.files, message.bytes, message.sha256) != ours:
            raise RemoteProtocolError(reason="it confirmed other bytes than those sent")
        self._state = _State.DELIVERED
        self._outgoing.append(Done())
        self.has_last_word = True
        self._ended = True
        self._emit(Delivered(*ours))

    def _next_request(self) -> BlockRequest | None:
        """The block after the last one asked for, if it may be sent; steps over what has none to send.

        Of a file that the receiver has blocks of, the first is the last of those.
        """
        entries = self.manifest.entries
        below = len(entries) if self._is_early else self._accepted
        while self._reading_file < below:
            file = self._reading_file
            if self._is_stream and not (self._lost or self._ends[file]):
                return BlockRequest(file, self._reading_offset, BLOCK_SIZE, self.algorithm)
            if entries.kind(file) is EntryKind.FILE and file not in self._lost and not self._ends[file]:
                offset = self._reading_offset
                if offset == 0 and (digests := self._have.get(file)):
                    offset = (len(digests) // DIGEST_SIZE - 1) * BLOCK_SIZE
                length = min(BLOCK_SIZE, entries.size(file) - offset)
                return BlockRequest(file, offset, length, self.algorithm)
            self._reading_file += 1
            self._reading_offset = 0
        return None

    def _advance(self, request: BlockRequest) -> None:
        self._reading_offset = request.offset + request.length
        if self._reading_offset >= self.manifest.entries.size(request.file):
            self._reading_file += 1
            self._reading_offset = 0

    def _pack(self, block: BlockRead) -> None:
        file, offset = block.request.file, block.request.offset
        if self._pack_whole(block):
            return
        if digests := self._have.pop(file, None):
            if digests[-DIGEST_SIZE:] != block.digest:
                # It is not the same file after all.
                self._reading_file, self._reading_offset = file, 0
                return
            self._file_digest.add(digests)
        elif block.hole:
            self._packer.add(FrameKind.HOLE, file, offset, b"")
            self._file_digest.add(block.digest)
            self._packed_bytes += block.request.length
        elif block.data:
            is_short = self._is_stream and (offset + len(block.data)) % BLOCK_SIZE
            packed = b"" if is_short else block.packed
            kind = FrameKind.PACKED if packed else FrameKind.DATA
            self._packer.add(kind, file, offset, packed or block.data)
            self.spared_bytes += len(block.data) - len(packed or block.data)
            self._packer.add(FrameKind.BLOCK_END, file, offset, block.digest)
            self._file_digest.add(block.digest)
            self._packed_bytes += len(block.data)
        if self._is_stream:
            self._reading_offset += len(block.data)
            return
        end = offset + block.request.length
        if end == self.manifest.entries.size(file):
            self._end_file(file, end, self._file_digest.value())

    def _pack_whole(self, block: BlockRead) -> bool:
        """Pack a file that is this block at once, as most of very many files are; return whether it is."""
        request, data = block.request, block.data
        if (
            request.offset
            or not data
            or block.packed
            or self._is_stream
            or request.length != self.manifest.entries.size(request.file)
            or request.file in self._have
        ):
            return False
        digest = self.algorithm.hasher(block.digest).digest()
        if not self._packer.add_whole(request.file, data, block.digest, digest):
            return False
        self._packed_bytes += len(data)
        self._packed.append(request.file, digest)
        return True

    def _end_stream(self, ended: StreamEnded) -> None:
        self._end_file(ended.request.file, self._reading_offset, ended.digest)
        self._reading_file += 1

    def _end_file(self, file: int, size: int, digest: bytes) -> None:
        """All blocks of a file are packed."""
        self._packer.add(FrameKind.FILE_END, file, size, digest)
        self._packed.append(file, digest)
        self._file_digest = RunningDigest(self.algorithm)

    def _lose(self, result: BlockFailed) -> None:
        file = result.request.file
        if file in self._lost:
            return
        self._lost.add(file)
        self._have.pop(file, None)
        self._file_digest = RunningDigest(self.algorithm)
        self._packer.add(FrameKind.FILE_FAILED, file, result.request.offset, result.code.encode())
        self._emit(EntryLeftOut(file, result.code))
