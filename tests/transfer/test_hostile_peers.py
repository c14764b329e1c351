"""A receiver against a sender that lies, and a sender against a receiver that lies."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from flyx.errors import CorruptData, FlyxError, LocalProtocolError, RemoteProtocolError, TransferInterrupted
from flyx.storage.packing import BlockPacker
from flyx.transfer import left_out, messages
from flyx.transfer import receiver as receiver_module
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import (
    BlockRead,
    BlockWritten,
    DiscardFile,
    FileDiscarded,
    FileSaved,
    FinishFile,
    FinishTree,
    Operation,
    OperationResult,
    PlanEntries,
    WriteBlock,
)
from flyx.transfer.frames import FRAME_HEADER, FrameKind
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind, Manifest
from flyx.transfer.receiver import WINDOW, Receiver
from flyx.transfer.sender import Sender
from flyx.transfer.session import SILENCE_LIMIT, EntryLeftOut, Failed
from tests.simulator import MemoryDestination, MemorySource, manifest_of
from tests.thoroughness import share

FILES: dict[str, bytes | None] = {"d": None, "d/a": b"a" * 5000, "d/b": b"b" * 10}
NOW = 50.0


def frame(kind: int, file: int, offset: int, payload: bytes) -> bytes:
    return FRAME_HEADER.pack(kind, file, len(payload), offset) + payload


def file_frames(index: int, content: bytes) -> list[bytes]:
    digest = RunningDigest(Algorithm.SHA256)
    digest.add(Algorithm.SHA256.digest(content))
    return [
        frame(FrameKind.DATA, index, 0, content),
        frame(FrameKind.BLOCK_END, index, 0, Algorithm.SHA256.digest(content)),
        frame(FrameKind.FILE_END, index, len(content), digest.value()),
    ]


A, B = file_frames(1, b"a" * 5000), file_frames(2, b"b" * 10)
PACKED_A = BlockPacker().pack(b"a" * 5000)


def control(machine: Receiver | Sender, *told: messages.ControlMessage) -> None:
    for message in told:
        machine.receive_control(messages.serialize_control(message), NOW)


def accepting_receiver(manifest: Manifest | None = None) -> tuple[Receiver, MemoryDestination]:
    """A receiver that has accepted FILES and waits for data."""
    receiver = Receiver(ask=False, now=NOW)
    destination = MemoryDestination(set())
    control(receiver, *messages.manifest_messages(manifest or manifest_of(FILES)))
    work(receiver, destination)
    return receiver, destination


def work(receiver: Receiver, destination: MemoryDestination) -> None:
    while operations := receiver.next_operations():
        receiver.operations_done(destination.apply(operations), NOW)


def error_of(machine: Receiver | Sender) -> FlyxError:
    found = None
    while (event := machine.next_event()) is not None:
        if isinstance(event, Failed):
            found = event.error
    assert found is not None
    assert machine.ended
    return found


def last_word(machine: Receiver | Sender) -> messages.ControlMessage:
    text = None
    while (following := machine.next_control()) is not None:
        text = following
    assert text is not None
    return messages.parse_control_untrusted(text)


def test_the_honest_sender_of_these_tests_succeeds() -> None:
    receiver, destination = accepting_receiver()
    receiver.receive_data(b"".join(A + B), NOW)
    work(receiver, destination)
    control(receiver, messages.Done())
    assert receiver.ended
    assert destination.files == FILES


@pytest.mark.parametrize(
    "data",
    {
        "a directory with bytes": [frame(FrameKind.DATA, 0, 0, b"x")],
        "an entry out of range": [frame(FrameKind.DATA, 3, 0, b"x")],
        "files out of order": B,
        "a file twice": A + A,
        "an offset beyond": [frame(FrameKind.DATA, 1, 1, b"a" * 4999)],
        "more bytes than announced": [frame(FrameKind.DATA, 1, 0, b"a" * 5001)],
        "splinters": [frame(FrameKind.DATA, 1, 0, b"a"), frame(FrameKind.DATA, 1, 1, b"a")],
        "a block that ends early": [frame(FrameKind.DATA, 1, 0, b"a" * 2000), A[1]],
        "a block end without bytes": [A[1]],
        "a block end elsewhere": [A[0], frame(FrameKind.BLOCK_END, 1, 1, bytes(32))],
        "a file end before its block": [A[0], A[2]],
        "a file end of another size": [*A[:2], frame(FrameKind.FILE_END, 1, 4999, bytes(32))],
        "the end of a file not begun": [A[2]],
        "a compressed block that is no smaller": [frame(FrameKind.PACKED, 1, 0, b"a" * 5000)],
        "one that is no smaller in parts": [frame(FrameKind.PACKED, 1, 0, b"a" * 2500)] * 2,
        "one in splinters": [frame(FrameKind.PACKED, 1, 0, b"a" * 9)] * 2,
        "one elsewhere": [frame(FrameKind.PACKED, 1, 1, PACKED_A)],
        "one that goes on elsewhere": [
            frame(FrameKind.PACKED, 1, 0, b"a" * 2000),
            frame(FrameKind.PACKED, 1, 2000, b"a"),
        ],
        "one behind the last": [*A[:2], frame(FrameKind.PACKED, 1, 5000, PACKED_A)],
        "one that begins as data": [
            frame(FrameKind.DATA, 1, 0, b"a" * 2000),
            frame(FrameKind.PACKED, 1, 0, PACKED_A),
        ],
        "one that goes on as data": [frame(FrameKind.PACKED, 1, 0, PACKED_A), *A],
        "one that goes on as a hole": [
            frame(FrameKind.PACKED, 1, 0, PACKED_A),
            frame(FrameKind.HOLE, 1, 0, b""),
        ],
        "one that ends with its file": [frame(FrameKind.PACKED, 1, 0, PACKED_A), A[2]],
        "one of a file that is given up": [
            frame(FrameKind.PACKED, 1, 0, PACKED_A),
            frame(FrameKind.FILE_FAILED, 1, 0, b"file_changed"),
            A[1],
        ],
        "a frame of unknown kind": [struct.pack("!B3xIIQ", 77, 1, 1, 0) + b"x"],
    }.items(),
    ids=lambda item: item[0],
)
def test_data_that_does_not_fit_the_manifest_ends_the_transfer(data: tuple[str, list[bytes]]) -> None:
    receiver, destination = accepting_receiver()
    receiver.receive_data(b"".join(data[1]), NOW)
    work(receiver, destination)
    assert isinstance(error_of(receiver), RemoteProtocolError)
    told = last_word(receiver)
    assert isinstance(told, messages.Cancel)
    assert told.code == "protocol_error"
    assert set(destination.files) <= {"d/a"}


def test_a_wrong_block_digest_is_corruption_and_nothing_is_saved() -> None:
    receiver, destination = accepting_receiver()
    receiver.receive_data(A[0] + frame(FrameKind.BLOCK_END, 1, 0, bytes(32)), NOW)
    work(receiver, destination)
    assert isinstance(error_of(receiver), CorruptData)
    assert not destination.files


@pytest.mark.parametrize("content", [b"a" * 4999, b"a" * 5001, bytes(1 << 28), b"b" * 5000])
def test_a_compressed_block_that_is_another_is_corruption_and_nothing_is_saved(content: bytes) -> None:
    receiver, destination = accepting_receiver()
    packed = frame(FrameKind.PACKED, 1, 0, zstandard.compress(content)[:4999])
    receiver.receive_data(packed + A[1] + A[2], NOW)
    work(receiver, destination)
    assert isinstance(error_of(receiver), CorruptData)
    assert not destination.files


def test_compressed_blocks_wait_as_they_came_and_the_disk_gets_few_at_once() -> None:
    """A thousand of them are a GiB, of 100 kB: it would take seconds before anybody heard of one."""
    count = 1_000
    block = bytes(BLOCK_SIZE)
    packed = BlockPacker().pack(block)
    manifest = Manifest([Entry("f", EntryKind.FILE, count * BLOCK_SIZE, 0o644, 0)])
    receiver, _ = accepting_receiver(manifest)
    for n in range(count):
        told = frame(FrameKind.PACKED, 0, n * BLOCK_SIZE, packed)
        receiver.receive_data(
            told + frame(FrameKind.BLOCK_END, 0, n * BLOCK_SIZE, Algorithm.SHA256.digest(block)), NOW
        )
    assert receiver.bytes_buffered == count * len(packed)
    done = 0
    while operations := receiver.next_operations():
        assert len(operations) * BLOCK_SIZE <= WINDOW
        done += len(operations)
        receiver.operations_done([outcome_of(operation) for operation in operations], NOW)
        assert receiver.bytes_buffered == (count - done) * len(packed)
        assert receiver.bytes_written == done * BLOCK_SIZE
    assert done == count


def test_a_sender_hears_what_is_verified_however_few_bytes_that_took() -> None:
    count = 100
    block = bytes(BLOCK_SIZE)
    packed = BlockPacker().pack(block)
    receiver, _ = accepting_receiver(Manifest([Entry("f", EntryKind.FILE, count * BLOCK_SIZE, 0o644, 0)]))
    list(said(receiver))
    for n in range(count):
        told = frame(FrameKind.PACKED, 0, n * BLOCK_SIZE, packed)
        receiver.receive_data(
            told + frame(FrameKind.BLOCK_END, 0, n * BLOCK_SIZE, Algorithm.SHA256.digest(block)), NOW
        )
    heard = []
    while operations := receiver.next_operations():
        receiver.operations_done([outcome_of(operation) for operation in operations], NOW)
        heard += [one.written for one in said(receiver) if isinstance(one, messages.Credit)]
    assert heard == [min(n * WINDOW, count * BLOCK_SIZE) for n in range(1, 8)]


def test_a_wrong_file_digest_is_corruption_and_nothing_is_saved() -> None:
    receiver, destination = accepting_receiver()
    receiver.receive_data(A[0] + A[1] + frame(FrameKind.FILE_END, 1, 5000, bytes(32)), NOW)
    work(receiver, destination)
    assert isinstance(error_of(receiver), CorruptData)
    assert not destination.files


def test_data_beyond_the_credit_ends_the_transfer() -> None:
    size = WINDOW + 3 * BLOCK_SIZE
    receiver, _ = accepting_receiver(manifest_of({"big": bytes(size)}))
    piece = BLOCK_SIZE // 2
    block = Algorithm.SHA256.digest(bytes(BLOCK_SIZE))
    for offset in range(0, size, piece):
        receiver.receive_data(frame(FrameKind.DATA, 0, offset, bytes(piece)), NOW)
        if offset % BLOCK_SIZE:
            receiver.receive_data(frame(FrameKind.BLOCK_END, 0, offset - piece, block), NOW)
    assert isinstance(error_of(receiver), RemoteProtocolError)


def test_data_before_acceptance_ends_the_transfer() -> None:
    receiver = Receiver(ask=True, now=NOW)
    control(receiver, *messages.manifest_messages(manifest_of(FILES)))
    receiver.receive_data(A[0], NOW)
    assert isinstance(error_of(receiver), RemoteProtocolError)


def lying_manifests() -> dict[str, list[messages.ControlMessage]]:
    honest = list(messages.manifest_messages(manifest_of(FILES)))
    start, roots, piece, end = honest
    assert isinstance(start, messages.ManifestStart)
    assert isinstance(piece, messages.ManifestPiece)
    fat = structs.replace(piece, entries=[("d", "directory", 9, 0o755, 0), *piece.entries[1:]])
    return {
        "entries before the start": [piece],
        "an end before the start": [end],
        "roots before the start": [roots],
        "entries before the roots": [start, piece],
        "a start twice": [start, start],
        "more roots than announced": [start, roots, roots],
        "the same piece twice": [start, roots, piece, piece],
        "an end too early": [start, roots, end],
        "another id": [structs.replace(start, manifest_id="f" * 64), roots, piece, end],
        "fewer bytes than announced": [structs.replace(start, bytes=1), roots, piece, end],
        "other roots than the entries have": [start, messages.Roots(names=["e"]), piece, end],
        "a directory with a size": [start, roots, fat],
        "an end twice": [start, roots, piece, end, end],
        "a receiver's message": [messages.Accept(below=0)],
        "done before the end": [messages.Done()],
        "a digest that nobody wants": [*honest[:3], messages.Digests(files=[(1, "0" * 64)])],
        "a digest after the manifest": [*honest, messages.Digests(files=[(1, "0" * 64)])],
    }


@pytest.mark.parametrize("lie", lying_manifests())
def test_a_manifest_that_contradicts_itself_ends_the_transfer(lie: str) -> None:
    receiver = Receiver(ask=False, now=NOW)
    control(receiver, *lying_manifests()[lie])
    assert isinstance(error_of(receiver), RemoteProtocolError)


@pytest.mark.parametrize("what", ["roots", "paths"])
def test_paths_that_fill_the_memory_end_the_transfer(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"flyx.transfer.manifest_inbox.MAX_{what.upper()}_SIZE", 100_000)
    receiver = Receiver(ask=False, now=NOW)
    many = 10_000
    roots = many if what == "roots" else 1
    start = messages.ManifestStart(manifest_id="0" * 64, entries=many, files=many, bytes=0, roots=roots)
    control(receiver, start)
    if what == "paths":
        control(receiver, messages.Roots(names=["d"]))
    for n in range(many // 10):
        above, long = "d/" if what == "paths" else "", "\U0001f600" * 225
        names = [f"{above}{n}-{i}-{long}" for i in range(10)]
        if what == "roots":
            control(receiver, messages.Roots(names=names))
        else:
            rows: list[messages.Row] = [(name, "file", 0, 0o644, 0) for name in names]
            control(receiver, messages.ManifestPiece(first=10 * n, entries=rows))
        if receiver.ended:
            break
    assert isinstance(error_of(receiver), RemoteProtocolError)
    assert 80_000 < n * 9_000 < 110_000


def test_what_a_manifest_says_beyond_its_start_is_found_out_at_once() -> None:
    start = messages.ManifestStart(manifest_id="0" * 64, entries=1000, files=1000, bytes=5, roots=2)
    roots = messages.Roots(names=["d", "e"])
    receiver = Receiver(ask=True, now=NOW)
    rows: list[messages.Row] = [(f"d/{n}", "file", 1, 0o644, 0) for n in range(6)]
    control(receiver, start, roots, messages.ManifestPiece(first=0, entries=rows))
    assert "more bytes" in str(error_of(receiver))
    for path in ("x/0", "e/0"):
        # In the order of the roots, so that one look at each new one is enough.
        receiver = Receiver(ask=True, now=NOW)
        control(receiver, start, roots, messages.ManifestPiece(first=0, entries=[(path, "file", 0, 0, 0)]))
        assert "not announced" in str(error_of(receiver))


def test_few_operations_wait_however_small_the_pieces_of_a_manifest_are() -> None:
    receiver = Receiver(ask=True, now=NOW)
    start = messages.ManifestStart(manifest_id="0" * 64, entries=12_000, files=12_000, bytes=0, roots=1)
    control(receiver, start, messages.Roots(names=["d"]))
    for n in range(12_000):
        control(receiver, messages.ManifestPiece(first=n, entries=[(f"d/{n}", "file", 0, 0, 0)]))
    planned = [one for one in receiver.next_operations() if isinstance(one, PlanEntries)]
    assert len(planned) == 3
    assert [entry.path for one in planned for entry in one.entries] == [f"d/{n}" for n in range(12_000)]
    assert [one.first for one in planned] == [0, 5000, 10_000]


@pytest.mark.parametrize("what", ["empty files", "holes"])
def test_the_disk_gets_few_operations_at_once_however_small_they_are(what: str) -> None:
    count = 5_000
    if what == "holes":
        entries = [Entry("f", EntryKind.FILE, count * BLOCK_SIZE, 0o644, 0)]
        told = [frame(5, 0, at * BLOCK_SIZE, b"") for at in range(count)]
    else:
        entries = [Entry(f"f{n}", EntryKind.FILE, 0, 0o644, 0) for n in range(count)]
        told = [frame(3, n, 0, RunningDigest(Algorithm.SHA256).value()) for n in range(count)]
    receiver, _ = accepting_receiver(Manifest(entries))
    receiver.receive_data(b"".join(told), NOW)
    done = 0
    while (operations := receiver.next_operations()) and not isinstance(operations[0], FinishTree):
        assert len(operations) < count / 4
        done += len(operations)
        receiver.operations_done([outcome_of(operation) for operation in operations], NOW)
    assert done == count


@pytest.mark.parametrize("what", ["empty files", "lost files", "holes"])
def test_what_has_no_bytes_gets_credit_anew(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "WINDOW", 8_192)
    monkeypatch.setattr(receiver_module, "CREDIT_STEP", 1_024)
    count = 2_000
    if what == "holes":
        entries = [Entry("f", EntryKind.FILE, count * BLOCK_SIZE, 0o644, 0)]
        told = [frame(5, 0, at * BLOCK_SIZE, b"") for at in range(count)]
    elif what == "lost files":
        entries = [Entry(f"f{n}", EntryKind.FILE, 9, 0o644, 0) for n in range(count)]
        told = [frame(4, n, 0, b"file_vanished") for n in range(count)]
    else:
        entries = [Entry(f"f{n}", EntryKind.FILE, 0, 0o644, 0) for n in range(count)]
        told = [frame(3, n, 0, RunningDigest(Algorithm.SHA256).value()) for n in range(count)]
    receiver, _ = accepting_receiver(Manifest(entries))
    credit, sent = 0, 0
    for message in told:
        while sent + len(message) > credit:
            credit = next(one.bytes for one in said(receiver) if isinstance(one, messages.Credit))
        receiver.receive_data(message, NOW)
        sent += len(message)
        if (operations := receiver.next_operations()) and not isinstance(operations[0], FinishTree):
            receiver.operations_done([outcome_of(operation) for operation in operations], NOW)
    assert not receiver.ended


def test_what_has_no_bytes_waits_for_the_disk_no_longer_than_a_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver_module, "WINDOW", 8_192)
    monkeypatch.setattr(receiver_module, "CREDIT_STEP", 256)
    monkeypatch.setattr(receiver_module, "OPERATIONS_AT_ONCE", 4)
    count = 1_000_000
    manifest = Manifest([Entry("f", EntryKind.FILE, count * BLOCK_SIZE, 0o644, 0)])
    receiver, _ = accepting_receiver(manifest)
    hole = frame(5, 0, 0, b"")
    credit = sent = done = 0
    while done < 1_000:
        credit = max([credit, *(one.bytes for one in said(receiver) if isinstance(one, messages.Credit))])
        while (sent + 1) * len(hole) <= credit:
            receiver.receive_data(frame(5, 0, sent * BLOCK_SIZE, b""), NOW)
            sent += 1
        assert (sent - done) * len(hole) <= 8_192
        operations = receiver.next_operations()
        done += len(operations)
        receiver.operations_done([outcome_of(operation) for operation in operations], NOW)


def said(receiver: Receiver) -> Iterator[messages.ControlMessage]:
    while (text := receiver.next_control()) is not None:
        yield messages.parse_control_untrusted(text)


def outcome_of(operation: Operation) -> OperationResult:
    if isinstance(operation, WriteBlock):
        held = sum(map(len, operation.parts))
        return BlockWritten(operation.file, operation.offset, BLOCK_SIZE, held)
    if isinstance(operation, DiscardFile):
        return FileDiscarded(operation.file)
    assert isinstance(operation, FinishFile)
    return FileSaved(operation.file, "")


@pytest.mark.parametrize(
    "row",
    [
        ("d/a", "file", -1, 0, 0),
        ("d/a", "file", (1 << 53) + 1, 0, 0),
        ("d/a", "file", 0, 0, (1 << 53) + 1),
        ("d/a", "file", 0, 0, -(1 << 53) - 1),
        ("d/a", "file", 0, 0o1000, 0),
        ("d/a", "file", 1 << 70, 0, 0),
        ("d/a", "file", 0, 0, 10**30),
        ("d/a", "link", 0, 0, 0),
        ("d/" + "a" * 4096, "file", 0, 0, 0),
    ],
)
def test_a_row_beyond_the_grammar_ends_the_transfer(row: tuple[object, ...]) -> None:
    receiver = Receiver(ask=True, now=NOW)
    start = messages.ManifestStart(manifest_id="0" * 64, entries=1, files=1, bytes=1 << 62, roots=1)
    control(receiver, start, messages.Roots(names=["d"]))
    receiver.receive_control(json.dumps({"type": "manifest", "first": 0, "entries": [row]}), NOW)
    assert isinstance(error_of(receiver), RemoteProtocolError)


@pytest.mark.parametrize("end", ["receiver", "sender"])
def test_pings_without_end_leave_one_answer_waiting(end: str) -> None:
    machine = accepting_receiver()[0] if end == "receiver" else offering_sender()[0]
    while machine.next_control() is not None:
        pass
    for token in range(10_000):
        control(machine, messages.Ping(token=token))
    answers = [messages.parse_control_untrusted(text) for text in iter(machine.next_control, None)]
    assert answers == [messages.Pong(token=0)]
    control(machine, messages.Ping(token=5))
    assert machine.next_control() == messages.serialize_control(messages.Pong(token=5))


def offering_sender() -> tuple[Sender, MemorySource]:
    manifest = manifest_of(FILES)
    sender = Sender(manifest, max_message_size=16384, now=NOW)
    sender.release()
    return sender, MemorySource(manifest, FILES)


def send_all(sender: Sender, source: MemorySource) -> None:
    control(sender, messages.Accept(below=3), messages.Credit(bytes=1 << 20, written=0))
    while reads := sender.next_reads():
        sender.blocks_read(source.read(reads), NOW)
    while sender.next_data() is not None:
        pass


COMPLETE = messages.Complete(files=2, bytes=5010, sha256="0" * 64)


@pytest.mark.parametrize(
    ("lie", "before"),
    [
        (messages.Accept(below=4), offering_sender),
        (COMPLETE, offering_sender),
        (messages.Saved(files=[1]), offering_sender),
        (messages.Credit(bytes=5, written=1), offering_sender),
        (messages.Done(), offering_sender),
        (messages.Compare(files=[0]), offering_sender),
        (messages.Compare(files=[3]), offering_sender),
        (messages.Compare(files=[1, 1]), offering_sender),
    ],
    ids=[
        "accepts too much",
        "completes at once",
        "saves what was not sent",
        "verifies what was not sent",
        "done",
        "compares a directory",
        "compares the unknown",
        "compares a file twice",
    ],
)
def test_a_receiver_that_claims_too_much_ends_the_transfer(
    lie: messages.ControlMessage, before: Callable[[], tuple[Sender, MemorySource]]
) -> None:
    sender, _ = before()
    control(sender, lie)
    assert isinstance(error_of(sender), RemoteProtocolError)


@pytest.mark.parametrize(
    "lies",
    [
        [COMPLETE],
        [messages.Accept(below=2)],
        [messages.Credit(bytes=1, written=0)],
        [messages.Saved(files=[1]), messages.Saved(files=[1])],
        [messages.Saved(files=[9])],
        [messages.Compare(files=[1])],
    ],
    ids=["another digest", "unaccepts", "takes credit back", "saves twice", "saves the unknown", "compares"],
)
def test_a_receiver_that_contradicts_itself_is_never_done(lies: list[messages.ControlMessage]) -> None:
    sender, source = offering_sender()
    send_all(sender, source)
    control(sender, *lies)
    assert isinstance(error_of(sender), RemoteProtocolError)


def test_what_is_still_compared_cannot_be_accepted() -> None:
    sender, _ = offering_sender()
    control(sender, messages.Compare(files=[1, 2]), messages.Accept(below=3))
    assert isinstance(error_of(sender), RemoteProtocolError)


def test_each_file_is_hashed_once_for_a_receiver_however_often_it_asks() -> None:
    sender, source = offering_sender()
    control(sender, messages.Compare(files=[2]), messages.Compare(files=[1]))
    assert read_all(sender, source) == [2, 1]
    control(sender, messages.Compare(files=[2]))
    assert isinstance(error_of(sender), RemoteProtocolError)
    assert not sender.next_reads()


def test_a_receiver_that_takes_no_answers_makes_a_sender_hash_no_more() -> None:
    files: dict[str, bytes | None] = {f"{n}": b"x" for n in range(5_000)}
    manifest = manifest_of(files)
    sender, source = Sender(manifest, max_message_size=16384, now=NOW), MemorySource(manifest, files)
    sender.release()
    asked = range(5_000)
    control(sender, *messages.compare_messages(asked))
    assert len(read_all(sender, source)) < 500
    hashed = 0
    while said := [messages.parse_control_untrusted(text) for text in iter(sender.next_control, None)]:
        hashed += sum(len(message.files) for message in said if isinstance(message, messages.Digests))
        read_all(sender, source)
    assert hashed == 5_000


def read_all(sender: Sender, source: MemorySource) -> list[int]:
    """Read as long as the sender asks; return the files of which it read something."""
    files = []
    while reads := sender.next_reads():
        files += [request.file for request in reads]
        sender.blocks_read(source.read(reads), NOW)
    return files


def test_a_receiver_cannot_compare_before_anything_is_offered() -> None:
    sender = Sender(manifest_of(FILES), max_message_size=16384, now=NOW)
    control(sender, messages.Compare(files=[1]))
    assert isinstance(error_of(sender), RemoteProtocolError)


@pytest.mark.parametrize(
    "rows",
    [[(2, None), (1, None)], [(1, None), (1, None)], [(1, None), (2, None), (3, None)], [(0, None)]],
    ids=["out of order", "twice", "more than were asked for", "of a directory"],
)
def test_digests_that_were_not_asked_for_end_the_transfer(rows: list[tuple[int, str | None]]) -> None:
    receiver = Receiver(ask=False, now=NOW)
    destination = MemoryDestination(set())
    destination.here = {"d/a": b"x" * 5000, "d/b": b"b" * 10}
    control(receiver, *messages.manifest_messages(manifest_of(FILES)))
    work(receiver, destination)
    control(receiver, messages.Digests(files=rows))
    assert isinstance(error_of(receiver), RemoteProtocolError)
    assert not receiver.next_operations()


def test_a_comparison_tells_the_sender_nothing_of_what_the_receiver_has_in_its_files() -> None:
    receiver = Receiver(ask=True, now=NOW)
    destination = MemoryDestination(set())
    destination.here = {"d/a": b"x" * 5000, "d/b": b"b" * 10}
    control(receiver, *messages.manifest_messages(manifest_of(FILES)))
    work(receiver, destination)
    assert list(said(receiver)) == [messages.Compare(files=[1, 2])]


def test_without_credit_nothing_is_sent() -> None:
    sender, source = offering_sender()
    control(sender, messages.Accept(below=3))
    while reads := sender.next_reads():
        sender.blocks_read(source.read(reads), NOW)
    assert sender.next_data() is None


def test_blocks_that_were_not_asked_for_are_our_own_mistake() -> None:
    sender, source = offering_sender()
    control(sender, messages.Accept(below=3))
    reads = sender.next_reads()
    answers = source.read(reads)
    with pytest.raises(LocalProtocolError):
        sender.blocks_read(list(reversed(answers)), NOW)
    assert isinstance(answers[0], BlockRead)


def machines() -> list[Receiver | Sender]:
    return [
        Receiver(ask=False, now=NOW),
        Sender(manifest_of(FILES), max_message_size=16384, now=NOW),
    ]


@pytest.mark.parametrize("machine", machines(), ids=["receiver", "sender"])
def test_a_peer_that_never_speaks_is_given_up(machine: Receiver | Sender) -> None:
    while (due := machine.next_timeout()) is not None and due < NOW + SILENCE_LIMIT:
        machine.handle_timeout(due)
    assert due == NOW + SILENCE_LIMIT
    machine.handle_timeout(due)
    assert isinstance(error_of(machine), TransferInterrupted)


def test_a_sender_that_is_held_tells_nothing_until_it_is_released() -> None:
    sender = Sender(manifest_of(FILES), max_message_size=16384, now=NOW)
    sender.handle_timeout(NOW)
    told = [messages.parse_control_untrusted(text) for text in iter(sender.next_control, None)]
    assert told == [messages.Ping(token=1)]
    sender.release()
    told = [messages.parse_control_untrusted(text) for text in iter(sender.next_control, None)]
    assert told == list(messages.manifest_messages(manifest_of(FILES)))
    with pytest.raises(LocalProtocolError):
        sender.release()


def test_a_receiver_that_answers_before_anything_is_offered_ends_the_transfer() -> None:
    sender = Sender(manifest_of(FILES), max_message_size=16384, now=NOW)
    control(sender, messages.Accept(below=0))
    assert isinstance(error_of(sender), RemoteProtocolError)


@pytest.mark.parametrize("machine", machines(), ids=["receiver", "sender"])
def test_text_of_a_cancel_cannot_steer_a_terminal(machine: Receiver | Sender) -> None:
    control(machine, messages.Cancel(code="refused", message="\x1b[2J\u202egone"))
    assert str(error_of(machine)).isprintable()


any_control = st.one_of(
    st.sampled_from([m for lie in lying_manifests().values() for m in lie]),
    st.builds(messages.Accept, below=st.integers(0, 5)),
    st.builds(messages.Credit, bytes=st.integers(0, 100_000), written=st.integers(0, 9_000)),
    st.builds(messages.Saved, files=st.lists(st.integers(0, 4), max_size=3)),
    st.builds(messages.Compare, files=st.lists(st.integers(0, 4), min_size=1, max_size=3)),
    st.builds(
        messages.Digests,
        files=st.lists(st.tuples(st.integers(0, 4), st.just(None)), min_size=1, max_size=3),
    ),
    st.just(COMPLETE),
    st.builds(messages.Pong, token=st.integers(0, 3)),
)
any_frame = st.builds(
    frame,
    st.sampled_from(list(FrameKind)),
    st.integers(0, 4),
    st.sampled_from([0, 10, 5000]),
    st.sampled_from([b"a" * 5000, b"b" * 10, bytes(32), b"file_changed", PACKED_A]),
)
honest_frame = st.sampled_from([*A, *B, frame(FrameKind.PACKED, 1, 0, PACKED_A)])
inputs = st.lists(st.one_of(any_control, any_frame, honest_frame), max_size=25)


@given(inputs)
@settings(max_examples=share(300))
def test_no_sequence_of_messages_makes_a_receiver_save_other_bytes(
    sequence: list[messages.ControlMessage | bytes],
) -> None:
    receiver, destination = accepting_receiver()
    for item in sequence:
        if isinstance(item, bytes):
            receiver.receive_data(item, NOW)
        else:
            control(receiver, item)
        work(receiver, destination)
    for path, content in destination.files.items():
        assert FILES[path] == content


@given(inputs)
@settings(max_examples=share(300))
def test_no_sequence_of_messages_breaks_a_sender(sequence: list[messages.ControlMessage | bytes]) -> None:
    sender, source = offering_sender()
    for item in sequence:
        if isinstance(item, bytes):
            sender.receive_control(item, NOW)
        else:
            control(sender, item)
        if reads := sender.next_reads():
            sender.blocks_read(source.read(reads), NOW)
        while sender.next_data() is not None:
            pass
        while sender.next_event() is not None:
            pass


def test_a_sender_cannot_say_that_a_file_it_lost_is_not_wanted() -> None:
    receiver, destination = accepting_receiver()
    receiver.receive_data(frame(FrameKind.FILE_FAILED, 1, 0, left_out.NOT_WANTED.encode()), NOW)
    work(receiver, destination)
    told = []
    while (event := receiver.next_event()) is not None:
        told += [event.code] if isinstance(event, EntryLeftOut) else []
    assert told == [left_out.UNREADABLE]
