"""The receiving end of a transfer.

Takes the manifest piece by piece and has the disk plan for each; asks its person, unless told to accept;
grants credit by what the disk has taken; verifies every block and file; confirms the digest of everything.
Of a sender that it has told that it takes whatever is offered, it keeps what comes before all is planned.

Inputs besides those of TransferSession: receive_data, operations_done, answer. Drains besides next_control:
next_operations, next_event. Memory is bounded: the sender may have at most WINDOW bytes under way, in the
network, here or before the disk.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto

from msgspec.structs import replace

from flyx.errors import CorruptData, Declined, FlyxError, LocalProtocolError, RemoteProtocolError
from flyx.transfer import messages
from flyx.transfer.ahead import DataAhead
from flyx.transfer.comparison import Comparison
from flyx.transfer.digests import Algorithm, TransferDigest
from flyx.transfer.disk import (
    BlocksKept,
    BlockWritten,
    DiscardFile,
    EntriesPlanned,
    FileDiscarded,
    FileRefused,
    FileRestarted,
    FileSaved,
    FilesHashed,
    FilesSettled,
    FinishFile,
    FinishTree,
    GoesOn,
    HashFiles,
    Kept,
    Operation,
    OperationFailed,
    OperationResult,
    PlanDropped,
    PlanEntries,
    PlanTree,
    RestartFile,
    SettleFiles,
    TreeFinished,
    TreePlanned,
    Unfinished,
    WriteBlock,
)
from flyx.transfer.frames import Frame, FrameKind, parse_frames_untrusted
from flyx.transfer.inbox import FileInbox
from flyx.transfer.left_out import NOT_NEEDED, REASONS, UNREADABLE
from flyx.transfer.manifest import (
    BLOCK_SIZE,
    Content,
    EntryKind,
    Manifest,
)
from flyx.transfer.manifest_inbox import ManifestInbox
from flyx.transfer.messages import (
    Absent,
    Complete,
    ControlMessage,
    Credit,
    Digests,
    Done,
    HashWith,
    ManifestEnd,
    ManifestPiece,
    ManifestStart,
    Roots,
    Saved,
)
from flyx.transfer.planned import Planned, size_of
from flyx.transfer.rate_limit import lower
from flyx.transfer.receiver_events import (
    Comparing,
    FileReceived,
    ManifestReceived,
    Offered,
    Received,
    ReceiverEvent,
    UnfinishedFound,
)
from flyx.transfer.session import EntryLeftOut, TransferSession

WINDOW = 16 * BLOCK_SIZE
"""Data bytes that the sender may have under way: 1 Gbit/s over 130 ms, and a few blocks for the disk."""

CREDIT_STEP = WINDOW // 8
"""Credit is granted anew when it, or what is verified, has grown by this much: a small message for many large
ones."""

OPERATION_COST = 256
"""Bytes of credit that an operation takes while it waits for the disk, besides the data in it: a hole, or the
end of a file, is of few bytes on the wire, and more in memory."""

PLANNED_AT_ONCE = 5_000
"""Entries from which on a PlanEntries grows no more while it waits for the disk."""

HASHED_AT_ONCE = 256
"""Files in a HashFiles."""

OPERATIONS_AT_ONCE = 1_024
"""Most operations that the disk gets at once. WINDOW has 300,000 of empty files, and 800,000 of holes: their
results would take as much memory again, and nobody would hear of one before all are done."""

UNPACKED_AT_ONCE = WINDOW
"""Bytes that compressed blocks may come to, from which on the disk gets no more at once: for the same reason,
as WINDOW has a thousand times as many bytes, compressed."""


class _State(Enum):
    # The manifest is arriving; with everything accepted unseen, files already are as well.
    LISTING = auto()
    # The manifest is complete; the disk is still planning.
    PLANNING = auto()
    # All is planned but for files that may be here; both sides hash them.
    COMPARING = auto()
    # The disk plans by what came of that.
    SETTLING = auto()
    # The person has been asked.
    ASKING = auto()
    RECEIVING = auto()
    # All files are saved; the disk finishes the directories.
    FINISHING = auto()
    # `complete` is sent; `done` is awaited.
    CONFIRMING = auto()


class Receiver(TransferSession):
    """The state machine of the receiving end."""

    _peer = "sender"

    def __init__(
        self,
        *,
        ask: bool,
        now: float,
        accepted: str | None = None,
        rate: int | None = None,
        compared: Comparison | None = None,
        algorithms: tuple[Algorithm, ...] = (Algorithm.SHA256,),
        eager: bool = False,
    ) -> None:
        """Args:
        ask: whether the person is asked before anything is accepted.
        now: monotonic seconds.
        accepted: id of the manifest that was accepted over an earlier connection: the person is not asked
            again about that one, and no other is accepted.
        rate: data bytes a second that the sender is asked to keep to; None: as many as it can.
        compared: what was found out about files over an earlier connection.
        algorithms: what both sides can hash with, the fastest first.
        eager: the sender has been told that we take whatever it offers: data may come before we accept.
        """
        super().__init__(now)
        if eager:
            self.algorithm = algorithms[0]
        self._ask = ask and accepted is None
        self._expected = accepted
        self._wanted_rate = rate
        # The lower of that and what the sender keeps to by itself.
        self.rate = rate
        self._state = _State.LISTING
        self._events: deque[ReceiverEvent] = deque()
        self._operations: deque[Operation] = deque()
        # Operations handed out and not answered.
        self._running = 0
        self._offer = ManifestInbox()
        self._algorithms = algorithms
        # Set when all roots have come.
        self._plan_tree: PlanTree | None = None
        # Unfinished transfers that were told.
        self._unfinished: tuple[Unfinished, ...] = ()
        self._entries = self._offer.entries
        # Set when the last entry has come.
        self.manifest: Manifest | None = None
        self._planned = Planned(self._entries)
        # Entries below this index are accepted.
        self._accepted = 0
        # What is known of files that may be here; of this manifest once that has begun.
        self.compared = compared
        # Messages that accept entries, made one by one.
        self._telling: Iterator[ControlMessage] = iter(())
        # Nothing existed under any root, so entries can be accepted before all are known.
        self._early = False
        self._inbox = FileInbox(self._entries)
        self._inbox.hash_with(self.algorithm)
        self._ahead = DataAhead(eager=eager)
        # Data bytes received, those of them that the disk has not taken yet, and what was granted.
        self.data_received = 0
        self.bytes_buffered = 0
        self._granted = self._ahead.credit
        self.bytes_written = 0
        # How many of those the sender has been told.
        self._written_told = 0
        self._transfer_digest = TransferDigest(self.algorithm)
        # Digests of files that the disk is finishing, oldest first; files are finished in order.
        self._finishing: deque[tuple[int, bytes]] = deque()
        self._saved_files = 0
        self._saved_bytes = 0
        # Files that will not come, or could not be saved; bytes of those left out from the start.
        self._missing_files = 0
        self._unwanted_bytes = 0

    @property
    def expected_bytes(self) -> int | None:
        """File bytes that we will have in the end, as far as is known; None if nobody knows: of a stream."""
        if self._inbox.is_stream:
            return None
        return self._offer.start.bytes - self._unwanted_bytes if self._offer.start else 0

    @property
    def accepted(self) -> str | None:
        """Id of the manifest that was accepted, once all of it is known and that is decided."""
        decided = self._state in (_State.RECEIVING, _State.FINISHING, _State.CONFIRMING)
        return self.manifest.id if self.manifest and decided else None

    def path_of(self, file: int) -> str:
        """The path of an entry that has been told, as the sender wrote it."""
        return self._entries.path(file)

    def receive_data(self, message: bytes | str, now: float) -> None:
        """Take one message of the data channel. The transfer keeps views of it until the disk has it."""
        if self._ended:
            return
        self._heard(now)
        with self._judging():
            self.data_received += len(message)
            if self.data_received > self._granted:
                raise RemoteProtocolError(reason="more data than there was credit for")
            frames = parse_frames_untrusted(message)
            self._take_all(self._ahead.pass_on(frames, self.data_received))

    def operations_done(self, results: Sequence[OperationResult], now: float) -> None:
        """Take the answers to next_operations(), in order, all of them or up to the first failure."""
        failed = bool(results) and isinstance(results[-1], OperationFailed | PlanDropped)
        if len(results) != self._running and not failed:
            raise LocalProtocolError(reason="operations are missing their results")
        self._running = 0
        if self._ended:
            return
        saved: list[int] = []
        refused: list[tuple[int, str]] = []
        for result in results:
            self._settle(result, saved, refused)
        if self._accepted:
            # Whatever the disk has done: what has no bytes, such as empty files, has used up credit as well.
            self._grant_credit()
        self._outgoing.extend(messages.left_out_messages(refused))
        for first in range(0, len(saved), messages.SAVED_PER_MESSAGE):
            self._outgoing.append(Saved(files=saved[first : first + messages.SAVED_PER_MESSAGE]))
        if self._state is _State.CONFIRMING:
            digest = self._transfer_digest.value().hex()
            self._outgoing.append(Complete(files=self._saved_files, bytes=self._saved_bytes, sha256=digest))
        self._proceed()

    def answer(self, accepted: bool) -> None:
        """The person's answer to ManifestReceived with a question."""
        if self._ended:
            return
        if self._state is not _State.ASKING:
            raise LocalProtocolError(reason="an answer without a question")
        if accepted:
            self._accept()
        else:
            self.cancel(Declined())

    def next_operations(self) -> list[Operation]:
        """Return what the disk is to do next, a batch at a time; empty while an earlier one is unanswered."""
        if self._running or self._ended or not self._operations:
            return []
        operations: list[Operation] = []
        unpacked = 0
        while self._operations and len(operations) < OPERATIONS_AT_ONCE and unpacked < UNPACKED_AT_ONCE:
            operation = self._operations.popleft()
            operations.append(operation)
            unpacked += operation.unpacked if isinstance(operation, WriteBlock) else 0
        self._running = len(operations)
        return operations

    def next_control(self) -> str | None:
        """Return the next message for the control channel; what is here already comes piece by piece."""
        if not self._ended:
            message = next(self._telling, None)
            if message is not None:
                return messages.serialize_control(message)
        return super().next_control()

    def next_event(self) -> ReceiverEvent | None:
        """Return what has happened, oldest first."""
        return self._events.popleft() if self._events else None

    def _emit(self, event: ReceiverEvent) -> None:
        self._events.append(event)

    def _lose_path(self, error: FlyxError) -> None:
        if self._state is _State.CONFIRMING and not self._ended:
            # Everything is verified and in place: that the sender's last word is lost changes nothing.
            self._succeed()
        else:
            super()._lose_path(error)

    def _succeed(self) -> None:
        self._ended = True
        digest = self._transfer_digest.value().hex()
        self._emit(Received(self._saved_files, self._saved_bytes, digest))

    # The manifest.

    def _receive(self, message: ControlMessage, now: float) -> None:
        match message:
            case Done() if self._state is _State.CONFIRMING:
                self._succeed()
            case Digests(files=files) if self._state is _State.COMPARING:
                self._comparison.take_theirs(files)
                self._proceed()
            case _ if self._state is not _State.LISTING:
                raise RemoteProtocolError(reason=f"{message.type} out of place")
            case ManifestStart():
                if self._expected not in (None, message.manifest_id):
                    raise RemoteProtocolError(reason="it offers other files than before")
                self._offer.begin(message)
                self._inbox.is_stream = message.content == Content.STREAM.value
                self.rate = lower(self._wanted_rate, message.rate)
                self.compared = Comparison(message.manifest_id, self.compared)
                self._emit(Offered(message.files, message.bytes))
            case Roots():
                if plan := self._offer.take_roots(message):
                    self._plan_tree = replace(plan, algorithms=self._algorithms)
                    self._operations.append(self._plan_tree)
            case ManifestPiece():
                self._offer.take_piece(message)
                self._plan_entries(message.first)
            case Absent():
                self._offer.take_absent(message)
            case ManifestEnd():
                self.manifest = self._offer.end()
                self._state = _State.PLANNING
                self._proceed()
            case _:
                raise RemoteProtocolError(reason=f"{message.type} out of place")

    def _plan_entries(self, first: int) -> None:
        """Have the disk plan all entries from `first` on, with those that it has not begun to."""
        last = self._operations[-1] if self._operations else None
        # However small the pieces are that a sender tells, few operations wait.
        if isinstance(last, PlanEntries) and len(last.entries) < PLANNED_AT_ONCE:
            self._operations.pop()
            first = last.first
        self._operations.append(PlanEntries(first, self._entries[first:]))

    def _plan_anew(self) -> None:
        """Have the disk plan all that has come of the manifest as if it had planned nothing."""
        assert self._plan_tree is not None
        self._planned = Planned(self._entries)
        self._operations.clear()
        self._operations.append(self._plan_tree)
        for first in range(0, len(self._entries), PLANNED_AT_ONCE):
            self._operations.append(PlanEntries(first, self._entries[first : first + PLANNED_AT_ONCE]))
        if self._state is _State.SETTLING:
            self._state = _State.PLANNING

    # Decisions that follow from what is planned, accepted and saved.

    def _proceed(self) -> None:
        """Take the next step if all that it waits for has come."""
        manifest = self.manifest
        if manifest is None:
            # What was accepted is what the id stands for: it is known when the manifest is complete.
            if self._early and not self._ask and self._expected is None:
                self._grant_entries()
            return
        planned = self._planned
        is_planned = self._state is _State.PLANNING and planned.below == len(manifest.entries)
        if is_planned and planned.in_doubt:
            self._compare()
        elif is_planned:
            changed = tuple(planned.changed)
            found = planned.kept_files, planned.found_bytes
            here = planned.here_files, planned.here_bytes
            self._emit(ManifestReceived(manifest, self._ask, *found, changed, *here))
            if self._ask:
                self._state = _State.ASKING
            else:
                self._accept()
        if self._state is _State.COMPARING and self._comparison.is_complete:
            self._state = _State.SETTLING
            self._operations.append(SettleFiles(self._comparison.same(planned.in_doubt)))
        if self._state is _State.RECEIVING and self._saved_files + self._missing_files == manifest.file_count:
            self._state = _State.FINISHING
            self._operations.append(FinishTree())

    @property
    def _comparison(self) -> Comparison:
        assert self.compared is not None
        return self.compared

    def _compare(self) -> None:
        """Have both sides hash the files in doubt of which nothing is known."""
        self._state = _State.COMPARING
        files = self._comparison.undecided(self._planned.in_doubt)
        if not files:
            return
        self._ahead.make_void()
        self._emit(Comparing(len(files), sum(self._entries[file].size for file in files)))
        self._comparison.ask(files)
        self._telling = itertools.chain(self._telling, messages.compare_messages(files))
        for first in range(0, len(files), HASHED_AT_ONCE):
            self._operations.append(HashFiles(files[first : first + HASHED_AT_ONCE]))

    def _accept(self) -> None:
        self._state = _State.RECEIVING
        self._grant_entries()
        self._proceed()

    def _grant_entries(self) -> None:
        if self._planned.below > self._accepted:
            is_first = not self._accepted
            self._accepted = self._planned.below
            found, left_out = self._planned.take()
            for index, code in left_out:
                self._go_without(index, code)
            for one in found:
                self._resume(one)
            is_all = self._offer.start is not None and self._accepted == self._offer.start.entries
            anew = is_first and self._ahead.settle(is_as_offered=is_all and not found and not left_out)
            told = messages.accept_messages(self._accepted, found, left_out, self._wanted_rate, anew=anew)
            self._telling = itertools.chain(self._telling, told)
            with self._judging():
                self._take_all(self._ahead.take())
                self._grant_credit()

    def _go_without(self, index: int, code: str) -> None:
        """An entry is left out from the start."""
        if self._entries.kind(index) is EntryKind.FILE:
            self._inbox.absent.add(index)
            self._missing_files += 1
            self._unwanted_bytes += self._entries[index].size
        self._emit(EntryLeftOut(index, code))

    def _resume(self, found: Kept | BlocksKept | GoesOn) -> None:
        """Count what is here from an earlier try."""
        file = found.file
        if isinstance(found, GoesOn):
            self.bytes_written = found.offset
            self._inbox.go_on(found)
            return
        size = size_of(found, self._entries[file])
        self.bytes_written += size
        if isinstance(found, BlocksKept):
            self._inbox.keep(found)
            return
        self._inbox.absent.add(file)
        self._transfer_digest.keep(file, found.digest)
        self._saved_files += 1
        self._saved_bytes += size
        self._emit(FileReceived(file, found.path, found.digest.hex()))

    def _grant_credit(self) -> None:
        waiting = self.bytes_buffered + (len(self._operations) + self._running) * OPERATION_COST
        granted = max(self._granted, self.data_received - waiting + WINDOW)
        # What comes compressed takes little credit, and the sender wants to hear of it all the same. It keeps
        # all of a stream that it does not know to be verified.
        news = abs(self.bytes_written - self._written_told)
        is_news = news >= CREDIT_STEP or (news and self._inbox.is_stream)
        if granted >= self._granted + CREDIT_STEP or is_news:
            self._granted, self._written_told = granted, self.bytes_written
            self._outgoing.append(Credit(bytes=granted, written=self.bytes_written))

    # Frames.

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Have data that is none end the transfer."""
        try:
            yield
        except (RemoteProtocolError, CorruptData) as error:
            self.cancel(error)

    def _take_all(self, frames: Sequence[Frame]) -> None:
        at = 0
        while at < len(frames):
            frame = frames[at]
            if frame.kind is FrameKind.DATA and frame.file < self._accepted:
                if whole := self._inbox.whole_file(frames, at):
                    write, digest = whole
                    self.bytes_buffered += len(frame.payload)
                    self._finishing.append((frame.file, digest))
                    self._operations += write, FinishFile(frame.file)
                    at += 3
                    continue
            self._take(frame)
            at += 1

    def _take(self, frame: Frame) -> None:
        if frame.file >= self._accepted:
            raise RemoteProtocolError(reason="data of an entry that was not accepted")
        inbox = self._inbox
        match frame.kind:
            case FrameKind.DATA | FrameKind.PACKED:
                if dropped := inbox.data(frame):
                    self.bytes_written -= dropped
                    self._operations.append(RestartFile(frame.file))
                self.bytes_buffered += len(frame.payload)
            case FrameKind.BLOCK_END:
                self._operations.append(inbox.block_end(frame))
            case FrameKind.HOLE:
                dropped, write = inbox.hole(frame)
                if dropped:
                    self.bytes_written -= dropped
                    self._operations.append(RestartFile(frame.file))
                self._operations.append(write)
            case FrameKind.FILE_END:
                self._finishing.append((frame.file, inbox.file_end(frame)))
                self._operations.append(FinishFile(frame.file))
            case FrameKind.FILE_FAILED:
                self.bytes_buffered -= inbox.abandon(frame)
                code = bytes(frame.payload).decode("ascii", "replace")
                # What we do not need is for us to say, and no failure.
                known = code in REASONS and code not in NOT_NEEDED
                self._emit(EntryLeftOut(frame.file, code if known else UNREADABLE))
                self._operations.append(DiscardFile(frame.file))
            case FrameKind.ANEW:
                raise RemoteProtocolError(reason="data that begins anew unasked")

    def _settle(self, result: OperationResult, saved: list[int], refused: list[tuple[int, str]]) -> None:
        # First what there are thousands of.
        match result:
            case BlockWritten(length=length, buffered=buffered):
                self.bytes_buffered -= buffered
                self.bytes_written += length
            case FileSaved(file=file, path=path):
                self._save(file, path)
                saved.append(file)
            case TreePlanned(fresh=fresh, unfinished=unfinished, algorithm=algorithm):
                self._early = fresh
                self._hash_with(algorithm)
                if unfinished != self._unfinished:
                    self._unfinished = unfinished
                    self._emit(UnfinishedFound(unfinished))
            case EntriesPlanned():
                self._planned.extend(result)
            case FilesHashed(digests=digests):
                self._comparison.take_ours(digests)
            case FilesSettled(left_out=left_out):
                self._state = _State.PLANNING
                self._planned.settle(left_out)
            case FileRestarted():
                pass
            case FileRefused(file=file, code=code):
                self._next_finished(file)
                self._missing_files += 1
                self._emit(EntryLeftOut(file, code))
                refused.append((file, code))
            case FileDiscarded():
                self._missing_files += 1
            case TreeFinished(left_out=left_out):
                self._state = _State.CONFIRMING
                refused += left_out
                for index, code in left_out:
                    self._emit(EntryLeftOut(index, code))
            case PlanDropped():
                self._plan_anew()
            case OperationFailed(error=error):
                self.cancel(error)

    def _hash_with(self, algorithm: Algorithm) -> None:
        """Have all digests be by what the disk has chosen; nothing has been told of entries yet."""
        assert self._plan_tree is not None
        # That is final, also if it is planned anew.
        self._plan_tree = replace(self._plan_tree, algorithms=(algorithm,))
        if algorithm is not self.algorithm:
            self._ahead.make_void()
            self.algorithm = algorithm
            self._inbox.hash_with(algorithm)
            self._transfer_digest = TransferDigest(algorithm)
            self._telling = itertools.chain(self._telling, [HashWith(algorithm=algorithm)])

    def _next_finished(self, file: int) -> bytes:
        """Return the digest of the file that the disk has finished next."""
        expected, digest = self._finishing.popleft()
        if expected != file:
            raise LocalProtocolError(reason="files finished out of order")
        return digest

    def _save(self, file: int, path: str | None) -> None:
        digest = self._next_finished(file)
        self._transfer_digest.add(file, digest)
        self._saved_files += 1
        self._saved_bytes += self.bytes_written if self._inbox.is_stream else self._entries.size(file)
        self._emit(FileReceived(file, path, digest.hex()))
