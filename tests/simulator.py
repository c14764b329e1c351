"""Two transfer machines, a virtual clock, a seeded network and disks in memory.

Data channels are reliable and ordered, so messages are never lost while a channel lives; what varies is when
each arrives, how the two channels interleave, how long the disks take, and when the path is cut. Nothing
sleeps: the clock jumps to the next thing that is due. A failing run prints its seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flyx.errors import CorruptData, DestinationExists
from flyx.storage.packing import BlockPacker, BlockUnpacker
from flyx.transfer import disk
from flyx.transfer import manifest as manifests
from flyx.transfer.comparison import Comparison
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import (
    BlockFailed,
    BlockRead,
    BlockRequest,
    BlocksKept,
    Changed,
    GoesOn,
    Kept,
    Operation,
    OperationResult,
    StreamEnded,
)
from flyx.transfer.left_out import ALREADY_HERE, NO_FILE, UNREADABLE, VANISHED
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind, Manifest
from flyx.transfer.messages import MIN_MESSAGE_SIZE
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import Received, ReceiverEvent
from flyx.transfer.sender import READ_AHEAD, READ_BATCH, Sender
from flyx.transfer.sender_events import Delivered, SenderEvent
from flyx.transfer.session import TransferSession

MAX_EVENTS = 200_000
"""More steps than any of these transfers needs: a machine that goes in circles is caught."""


@dataclass(frozen=True)
class Link:
    """A symbolic link to a target, or a hard link: another name of a file before it."""

    target: str
    hard: bool = False


Content = bytes | Link | None
"""What a path is: a file, a link, or a directory."""


def manifest_of(files: Mapping[str, Content]) -> Manifest:
    """Return the manifest of what is at these paths."""
    paths = list(files)
    return Manifest(_entry(path, content, paths) for path, content in files.items())


def _entry(path: str, content: Content, paths: list[str]) -> Entry:
    match content:
        case None:
            return Entry(path, EntryKind.DIRECTORY, 0, 0o755, 0)
        case Link(target=target, hard=True):
            return Entry(path, EntryKind.HARD_LINK, 0, 0, 0, same_as=paths.index(target))
        case Link(target=target):
            return Entry(path, EntryKind.SYMBOLIC_LINK, 0, 0, 0, target=target)
    return Entry(path, EntryKind.FILE, len(content), 0o644, 1_700_000_000_000_000)


FASTEST = (Algorithm.BLAKE3, Algorithm.SHA256)
"""What two new ends can hash with."""


def digests_of(content: bytes | bytearray, algorithm: Algorithm = Algorithm.SHA256) -> bytes:
    """Return the digest of each block of a file, in one string."""
    blocks = range(0, len(content), BLOCK_SIZE)
    return b"".join(algorithm.digest(bytes(content[at : at + BLOCK_SIZE])) for at in blocks)


@dataclass
class MemorySource:
    """Serves blocks from memory. `faults` maps a path to the offset at which it fails, and how.

    With `holes`, blocks of zeros are holes; with `packs`, what compression makes smaller is compressed.
    """

    manifest: Manifest
    files: Mapping[str, Content]
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    holes: bool = False
    packs: bool = False

    def __post_init__(self) -> None:
        self._packer = BlockPacker()
        # What digests were asked for.
        self.algorithms: set[Algorithm] = set()

    def read(self, requests: Sequence[BlockRequest]) -> list[BlockRead | BlockFailed]:
        self.algorithms |= {request.algorithm for request in requests}
        return [self._read(request) for request in requests]

    def _read(self, request: BlockRequest) -> BlockRead | BlockFailed:
        path = self.manifest.entries[request.file].path
        at, code = self.faults.get(path, (1 << 60, ""))
        if request.offset + request.length > at or (request.length == 0 and at == 0):
            return BlockFailed(request, code)
        content = self.files[path]
        assert isinstance(content, bytes)
        data = content[request.offset : request.offset + request.length]
        hole = self.holes and data != b"" and not any(data)
        packed = self._packer.pack(data) if self.packs and not hole else b""
        digest = request.algorithm.digest(data)
        return BlockRead(request, b"" if hole else data, digest, hole=hole, packed=packed)


def manifest_of_stream(name: str = "stream") -> Manifest:
    """Return the manifest of a stream."""
    entry = Entry(name, EntryKind.FILE, 0, 0o644, 1_700_000_000_000_000)
    return Manifest([entry], content=manifests.Content.STREAM)


class MemoryStream:
    """Serves the blocks of a stream, of any length each; `fails`: it breaks off after them."""

    # How far it is read ahead, the requests do not tell: each may get any number of bytes.
    holes = True

    def __init__(self, blocks: Sequence[bytes], *, fails: bool = False) -> None:
        self.manifest = manifest_of_stream()
        self.content = b"".join(blocks)
        self._fails = fails
        ends = itertools.accumulate(map(len, blocks), initial=0)
        self._blocks = dict(zip(ends, blocks, strict=False))
        self.algorithms: set[Algorithm] = set()

    def digest(self, algorithm: Algorithm) -> bytes:
        """That of all of it."""
        running = RunningDigest(algorithm)
        for block in self._blocks.values():
            running.add(algorithm.digest(block))
        return running.value()

    def read(self, requests: Sequence[BlockRequest]) -> list[BlockRead | StreamEnded | BlockFailed]:
        self.algorithms |= {request.algorithm for request in requests}
        return [self._read(request) for request in requests]

    def _read(self, request: BlockRequest) -> BlockRead | StreamEnded | BlockFailed:
        assert request.length == BLOCK_SIZE
        if request.offset in self._blocks:
            block = self._blocks[request.offset]
            return BlockRead(request, block, request.algorithm.digest(block))
        if request.offset != len(self.content):
            return BlockFailed(request, VANISHED)
        if self._fails:
            return BlockFailed(request, UNREADABLE)
        return StreamEnded(request, self.digest(request.algorithm))


class MemoryDestination:
    """Takes operations as storage.writer.Destination does; `again()` is that of a later run.

    Attributes:
        unwanted: paths that are left out from the start, and why.
        refused: paths that cannot be saved in the end, and why.
        here: files whose content is compared with those of the same path and size; they may be replaced.
        unreadable: paths of those that cannot be read.
        algorithm: what digests are by: of an earlier run, those that it had, if the sender knows that.
    """

    def __init__(self, existing: set[str]) -> None:
        self.existing = existing
        self.unwanted: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.here: dict[str, bytes] = {}
        self.unreadable: set[str] = set()
        self.algorithm = Algorithm.SHA256
        # How many were hashed.
        self.hashed = 0
        self.files: dict[str, Content] = {}
        self.finished = False
        self._entries: list[Entry] = []
        self._partial: dict[int, bytearray] = {}
        self._unpacker = BlockUnpacker()
        # What an earlier run has left: files that were saved, and parts of others, with their entries.
        self._saved: dict[str, Entry] = {}
        self._parts: dict[str, tuple[Entry, bytearray]] = {}
        # File bytes that were written here.
        self.written = 0

    def again(self) -> MemoryDestination:
        """Return what a new run finds."""
        later = MemoryDestination(self.existing)
        later.files, later.algorithm = self.files, self.algorithm
        later.here, later.unreadable = self.here, self.unreadable
        later._saved = dict(self._saved)
        later._parts = self._parts | {
            self._entries[file].path: (self._entries[file], part) for file, part in self._partial.items()
        }
        return later

    def _find(self, file: int, entry: Entry) -> Kept | BlocksKept | Changed | None:
        if self._saved.get(entry.path) == entry:
            content = self.files[entry.path]
            assert isinstance(content, bytes)
            return Kept(file, entry.path, self._digest(content))
        if entry.path not in self._parts:
            return None
        earlier, part = self._parts.pop(entry.path)
        if earlier != entry:
            return Changed(file)
        self._partial[file] = part
        return BlocksKept(file, digests_of(part, self.algorithm)) if part else None

    def _digest_here(self, path: str) -> bytes | None:
        return None if path in self.unreadable else self._digest(self.here[path])

    def _digest(self, content: bytes) -> bytes:
        return self.algorithm.digest(digests_of(content, self.algorithm))

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        outcomes: list[OperationResult] = []
        for operation in operations:
            outcome = self._apply(operation)
            outcomes.append(outcome)
            if isinstance(outcome, disk.OperationFailed):
                break
        return outcomes

    def _apply(self, operation: Operation) -> OperationResult:
        match operation:
            case disk.PlanTree(roots=roots, algorithms=algorithms):
                self._entries.clear()
                has_digests = self._saved or self._parts or self._partial
                if not has_digests or self.algorithm not in algorithms:
                    self.algorithm = algorithms[0]
                there = {path.split("/")[0] for path in self.here}
                fresh = not (self.existing | self._saved.keys() | there) & set(roots)
                return disk.TreePlanned(fresh, algorithm=self.algorithm)
            case disk.PlanEntries(first=first, entries=entries):
                assert first == len(self._entries)
                self._entries += entries
                if conflicts := [e.path for e in entries if e.path in self.existing]:
                    return disk.OperationFailed(DestinationExists(path=conflicts[0], others=""))
                new = list(enumerate(entries, first))
                left_out = tuple(
                    (index, self.unwanted[entry.path]) for index, entry in new if entry.path in self.unwanted
                )
                found = [self._find(index, entry) for index, entry in new if entry.path not in self.unwanted]
                kept = {one.file for one in found if isinstance(one, Kept)}
                in_doubt = tuple(
                    index
                    for index, entry in new
                    if len(self.here.get(entry.path, b"")) == entry.size > 0
                    and index not in kept
                    and entry.path not in self.unwanted
                )
                return disk.EntriesPlanned(
                    len(self._entries), tuple(one for one in found if one), left_out, in_doubt
                )
            case disk.HashFiles(files=files):
                self.hashed += len(files)
                return disk.FilesHashed(tuple(self._digest_here(self._entries[file].path) for file in files))
            case disk.SettleFiles(same=same):
                for file in same:
                    self._partial.pop(file, None)
                return disk.FilesSettled(tuple((file, ALREADY_HERE) for file in sorted(same)))
            case disk.WriteBlock(file=file, offset=offset, parts=parts, digest=digest):
                held = sum(map(len, parts))
                if operation.hole:
                    parts = [bytes(min(BLOCK_SIZE, self._entries[file].size - offset))]
                if operation.unpacked:
                    try:
                        parts = [self._unpacker.unpack(parts, operation.unpacked)]
                    except ValueError:
                        return disk.OperationFailed(CorruptData(path=self._entries[file].path))
                if self.algorithm.digest(b"".join(parts)) != digest:
                    return disk.OperationFailed(CorruptData(path=self._entries[file].path))
                partial = self._partial.setdefault(file, bytearray())
                assert len(partial) == offset
                for part in parts:
                    partial += part
                self.written += sum(map(len, parts))
                return disk.BlockWritten(file, offset, sum(map(len, parts)), buffered=held)
            case disk.FinishFile(file=file):
                path = self._entries[file].path
                if path in self.refused:
                    self._partial.pop(file, None)
                    return disk.FileRefused(file, self.refused[path])
                self.files[path] = bytes(self._partial.pop(file, b""))
                self._saved[path] = self._entries[file]
                return disk.FileSaved(file, path)
            case disk.DiscardFile(file=file):
                self._partial.pop(file, None)
                return disk.FileDiscarded(file)
            case disk.RestartFile(file=file):
                self._partial.pop(file, None)
                return disk.FileRestarted(file)
            case disk.FinishTree():
                self.finished = True
                return disk.TreeFinished(tuple(self._make_others()))

    def _make_others(self) -> Iterator[tuple[int, str]]:
        """Make what is no file; yield what cannot be, and why."""
        for index, entry in enumerate(self._entries):
            if entry.kind is EntryKind.FILE or entry.path in self.unwanted:
                continue
            if entry.path in self.refused:
                yield index, self.refused[entry.path]
            elif entry.kind is EntryKind.DIRECTORY:
                self.files[entry.path] = None
            elif entry.kind is EntryKind.SYMBOLIC_LINK:
                self.files[entry.path] = Link(entry.target)
            elif (target := self._entries[entry.same_as].path) in self.files:
                self.files[entry.path] = Link(target, hard=True)
            else:
                yield index, NO_FILE


class StreamDestination(MemoryDestination):
    """Takes a stream over one connection after another."""

    def __init__(self) -> None:
        super().__init__(set())
        self._running: RunningDigest | None = None

    def _find(self, file: int, entry: Entry) -> GoesOn | None:  # type: ignore[override]
        size = len(self._partial.get(file, b""))
        return GoesOn(file, size, self._running.copy()) if size and self._running else None

    def _apply(self, operation: Operation) -> OperationResult:
        if isinstance(operation, disk.WriteBlock):
            self._running = self._running or RunningDigest(self.algorithm)
            self._running.add(operation.digest)
        if isinstance(operation, disk.FinishFile):
            # It may be finished over another connection once more.
            self.files["stream"] = bytes(self._partial.setdefault(operation.file, bytearray()))
            return disk.FileSaved(operation.file, "stream")
        return super()._apply(operation)


@dataclass(frozen=True)
class Conditions:
    """How the simulated world behaves; times in seconds."""

    network_delay: float = 0.05
    # Bytes a second of each channel.
    rate: float = 50e6
    disk_delay: float = 0.01
    # When the path is cut without a word, and when both ends are told that the channels are closed.
    cut_at: float | None = None
    closed_at: float | None = None
    # Which end stands still ("sender", "receiver"), from when and for how long: its program is stopped.
    still: tuple[str, float, float] | None = None
    # What the person at the receiver answers, after how long; None: nobody is asked.
    answer: bool | None = None
    answer_delay: float = 1.0
    max_message_size: int = 16_384


class Simulation:
    """One transfer from beginning to end."""

    def __init__(
        self,
        files: Mapping[str, Content],
        *,
        seed: int,
        conditions: Conditions | None = None,
        existing: set[str] | None = None,
        faults: dict[str, tuple[int, str]] | None = None,
        destination: MemoryDestination | None = None,
        accepted: str | None = None,
        holes: bool = False,
        compared: Comparison | None = None,
        packs: bool = False,
        stream: MemoryStream | None = None,
        algorithms: tuple[Algorithm, ...] = FASTEST,
        eager: bool | None = None,
    ) -> None:
        """Args:
        files: what is sent.
        stream: sent in their place.
        seed: of everything that is left to chance.
        conditions: how the world is.
        existing: names that are there before.
        faults: see MemorySource.
        destination: what an earlier run has left.
        accepted: id of the manifest that the person accepted in an earlier connection.
        holes: blocks of zeros are holes.
        compared: what an earlier connection found out of files that are there.
        packs: blocks that compression makes smaller are compressed.
        algorithms: what both ends can hash with, the fastest first.
        eager: the receiver has said that it takes whatever is offered; None: half of those that ask nobody.
        """
        self.seed = seed
        self.conditions = conditions or Conditions()
        self.manifest = stream.manifest if stream else manifest_of(files)
        self.source = stream or MemorySource(self.manifest, files, faults or {}, holes, packs)
        self.destination = destination or MemoryDestination(existing or set())
        self.now = 1000.0
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        # When the last message of each direction and channel arrives: order is kept within a channel.
        self._last_arrival: dict[str, float] = {}
        size = self.conditions.max_message_size
        ask = self.conditions.answer is not None
        self.eager = eager = (seed % 2 == 0 and not ask) if eager is None else eager
        self.sender = Sender(
            self.manifest, max_message_size=size, now=self.now, eager=algorithms[0] if eager else None
        )
        self.sender.release()
        self.receiver = Receiver(
            ask=ask, now=self.now, accepted=accepted, compared=compared, algorithms=algorithms, eager=eager
        )
        self.sender_events: list[SenderEvent] = []
        self.receiver_events: list[ReceiverEvent] = []
        # Bytes of data messages: sent in all, on their way now, and the most that ever were.
        self.data_sent = 0
        self.data_in_flight = 0
        self.most_data_in_flight = 0
        # Messages that have arrived, and where the run is cut short.
        self.arrived = 0
        self.cut_after: int | None = None
        # File bytes read, to see how far ahead of the wire the sender reads.
        self.bytes_read = 0
        # Those read before anything was accepted, to compare files, or to be early.
        self.bytes_compared = 0
        self.accepted = False

    def run(self) -> None:
        """Go on until both machines have ended."""
        if self.conditions.closed_at is not None:
            self._at(self.conditions.closed_at, self._close)
        for _ in range(MAX_EVENTS):
            self._drain()
            if self.sender.ended and self.receiver.ended:
                self._drain()
                # Nothing is hashed twice for one receiver, but what was sent before it said by what.
                assert len(self.source.algorithms) <= 1 + self.eager, self.seed
                return
            self._step()
        raise AssertionError(f"seed {self.seed}: no end in sight")

    def _step(self) -> None:
        timeouts = [
            (deadline, machine)
            for machine in (self.sender, self.receiver)
            if (deadline := machine.next_timeout()) is not None
        ]
        timeouts = [(max(deadline, self._thaw(machine, deadline)), machine) for deadline, machine in timeouts]
        deadline, machine = min(timeouts, key=lambda pair: pair[0])
        if self._due and self._due[0][0] <= deadline:
            self.now, _, action = heapq.heappop(self._due)
            action()
        else:
            self.now = max(self.now, deadline)
            machine.handle_timeout(self.now)

    def _thaw(self, machine: TransferSession, now: float) -> float:
        """Return when a machine does something that is due now."""
        if self.conditions.still is not None:
            name, since, seconds = self.conditions.still
            frozen = machine is (self.sender if name == "sender" else self.receiver)
            if frozen and 1000.0 + since <= now < 1000.0 + since + seconds:
                return 1000.0 + since + seconds
        return now

    def _drain(self) -> None:
        for machine, peer, name in ((self.sender, self.receiver, "s"), (self.receiver, self.sender, "r")):
            while (text := machine.next_control()) is not None:
                assert len(text.encode()) <= MIN_MESSAGE_SIZE
                self._deliver(f"{name} control", text, lambda text=text, peer=peer: self._control(peer, text))
        if reads := self.sender.next_reads():
            size = sum(request.length for request in reads)
            if self.accepted:
                self.bytes_read += size
            else:
                self.bytes_compared += size
            self._after_disk(lambda: self.sender.blocks_read(self.source.read(reads), self.now))
        while (data := self.sender.next_data()) is not None:
            assert len(data) <= self.conditions.max_message_size
            self.data_sent += len(data)
            self.data_in_flight += len(data)
            self._deliver("s data", data, lambda data=data: self._data(data))
        ahead = self.bytes_read - self.sender.spared_bytes - self.data_sent
        assert self.source.holes or ahead <= READ_AHEAD + 2 * READ_BATCH
        if operations := self.receiver.next_operations():
            self._after_disk(
                lambda: self.receiver.operations_done(self.destination.apply(operations), self.now)
            )
        while (sent := self.sender.next_event()) is not None:
            self.sender_events.append(sent)
        while (received := self.receiver.next_event()) is not None:
            self._take(received)
        self.most_data_in_flight = max(self.most_data_in_flight, self.data_in_flight)

    def _take(self, event: ReceiverEvent) -> None:
        self.receiver_events.append(event)
        if getattr(event, "question", False):
            answer = bool(self.conditions.answer)
            self._at(self.now - 1000.0 + self.conditions.answer_delay, lambda: self.receiver.answer(answer))

    def _control(self, peer: TransferSession, text: str) -> None:
        if (thaw := self._thaw(peer, self.now)) > self.now:
            self._push(thaw, lambda: self._control(peer, text))
        elif self._arrives():
            self.accepted = self.accepted or '"accept"' in text
            peer.receive_control(text, self.now)

    def _data(self, data: bytes) -> None:
        if (thaw := self._thaw(self.receiver, self.now)) > self.now:
            self._push(thaw, lambda: self._data(data))
            return
        self.data_in_flight -= len(data)
        if self._arrives():
            self.receiver.receive_data(data, self.now)

    def _arrives(self) -> bool:
        """Count a message, and close the channels after as many as the test wants."""
        self.arrived += 1
        if self.cut_after is not None and self.arrived > self.cut_after:
            self._close()
        return self.cut_after is None or self.arrived <= self.cut_after

    def _close(self) -> None:
        self.sender.channel_closed(self.now)
        self.receiver.channel_closed(self.now)

    def _deliver(self, channel: str, message: str | bytes, action: Callable[[], None]) -> None:
        if self.conditions.cut_at is not None and self.now >= 1000.0 + self.conditions.cut_at:
            return
        delay = self._random.expovariate(1 / self.conditions.network_delay)
        sent = self._last_arrival.get(channel, 0.0) + len(message) / self.conditions.rate
        arrival = max(self.now + delay, sent)
        self._last_arrival[channel] = arrival
        self._push(arrival, action)

    def _after_disk(self, action: Callable[[], None]) -> None:
        self._push(self.now + self._random.expovariate(1 / self.conditions.disk_delay), action)

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        self._push(1000.0 + seconds, action)

    def _push(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), action))


def deliver(simulation: Simulation) -> tuple[Delivered, Received]:
    """Run it, and return how both ends say that all has arrived."""
    simulation.run()
    delivered, received = simulation.sender_events[-1], simulation.receiver_events[-1]
    assert isinstance(delivered, Delivered), (simulation.seed, delivered)
    assert isinstance(received, Received), (simulation.seed, received)
    assert delivered.digest == received.digest
    return delivered, received
