"""A stream between the two machines: of unknown size, in blocks of any length; and texts."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import CorruptData, RemoteProtocolError, StreamBegun
from flyx.transfer import messages, receiver
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.frames import FrameKind
from flyx.transfer.left_out import UNREADABLE
from flyx.transfer.manifest import BLOCK_SIZE, MAX_TEXT_SIZE, Content, Entry, EntryKind, Manifest
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import Received
from flyx.transfer.sender import Sender
from flyx.transfer.sender_events import Delivered
from flyx.transfer.session import EntryLeftOut
from tests.simulator import (
    Conditions,
    MemoryStream,
    Simulation,
    StreamDestination,
    manifest_of_stream,
)
from tests.thoroughness import share
from tests.transfer.test_hostile_peers import (
    NOW,
    control,
    error_of,
    frame,
    offering_sender,
    said,
    work,
)


def blocks_of(chance: random.Random, count: int, longest: int = BLOCK_SIZE) -> list[bytes]:
    """Blocks of any length, none across a multiple of BLOCK_SIZE."""
    blocks: list[bytes] = []
    size = 0
    for _ in range(count):
        length = chance.choice([1, 30, chance.randint(1, longest)])
        blocks.append(chance.randbytes(min(length, BLOCK_SIZE - size % BLOCK_SIZE)))
        size += len(blocks[-1])
    return blocks


def digest_of(blocks: Sequence[bytes]) -> bytes:
    digest = RunningDigest(Algorithm.SHA256)
    for block in blocks:
        digest.add(Algorithm.SHA256.digest(block))
    return digest.value()


def test_a_manifest_of_a_stream_is_no_manifest_of_files() -> None:
    stream = manifest_of_stream()
    assert stream.id != Manifest(stream.entries).id
    assert stream.id != Manifest(stream.entries, content=Content.TEXT).id


# Whole transfers.


@pytest.mark.parametrize("seed", range(share(20)))
def test_a_stream_arrives_whatever_the_length_of_its_blocks(seed: int) -> None:
    chance = random.Random(seed)
    stream = MemoryStream(blocks_of(chance, chance.choice([0, 1, 2, 40])))
    conditions = Conditions(
        disk_delay=chance.choice([0.001, 0.3]), max_message_size=chance.choice([16_384, 1 << 20])
    )
    simulation = Simulation(
        {}, seed=seed, stream=stream, destination=StreamDestination(), conditions=conditions
    )
    simulation.run()
    assert simulation.destination.files["stream"] == stream.content
    delivered, received = simulation.sender_events[-1], simulation.receiver_events[-1]
    assert isinstance(delivered, Delivered)
    assert isinstance(received, Received)
    assert delivered.bytes == received.bytes == len(stream.content)
    assert delivered.digest == received.digest
    assert simulation.sender.expected_bytes is simulation.receiver.expected_bytes is None


@given(seed=st.integers(0, 1 << 30), early=st.booleans())
@settings(max_examples=share(25))
def test_a_stream_whose_connections_are_lost_goes_on_where_it_was(seed: int, early: bool) -> None:
    chance = random.Random(seed)
    stream = MemoryStream(blocks_of(chance, 30, BLOCK_SIZE // 4))
    destination = StreamDestination()
    accepted = None
    for connection in range(60):
        closed_at = chance.uniform(0, 0.4 if early else 1.5) if connection < 59 else None
        conditions = Conditions(closed_at=closed_at, disk_delay=chance.choice([0.001, 0.05]))
        simulation = Simulation(
            {},
            seed=seed + connection,
            stream=stream,
            destination=destination,
            conditions=conditions,
            accepted=accepted,
        )
        simulation.run()
        accepted = simulation.receiver.accepted or accepted
        if isinstance(simulation.receiver_events[-1], Received):
            break
    received = simulation.receiver_events[-1]
    assert isinstance(received, Received), seed
    assert destination.files["stream"] == stream.content
    assert received.bytes == len(stream.content)
    # Nothing was written twice.
    assert destination.written == len(stream.content)


def test_a_stream_that_breaks_off_is_left_out_at_both_ends() -> None:
    stream = MemoryStream([b"a" * 5000, b"b"], fails=True)
    simulation = Simulation({}, seed=1, stream=stream, destination=StreamDestination())
    simulation.run()
    assert EntryLeftOut(0, UNREADABLE) in simulation.sender_events
    assert EntryLeftOut(0, UNREADABLE) in simulation.receiver_events
    assert "stream" not in simulation.destination.files
    received = simulation.receiver_events[-1]
    assert isinstance(received, Received)
    assert received.files == 0


def test_a_sender_reads_a_stream_no_further_ahead_than_a_file() -> None:
    stream = MemoryStream([bytes(BLOCK_SIZE)] * 40)
    simulation = Simulation(
        {}, seed=2, stream=stream, destination=StreamDestination(), conditions=Conditions(disk_delay=0.5)
    )
    simulation.run()
    assert simulation.most_data_in_flight <= receiver.WINDOW


# One receiver, one sender.


def streaming_receiver() -> tuple[Receiver, StreamDestination]:
    machine, destination = Receiver(ask=False, now=NOW), StreamDestination()
    control(machine, *messages.manifest_messages(manifest_of_stream()))
    work(machine, destination)
    return machine, destination


def block_frames(offset: int, block: bytes) -> bytes:
    data = frame(FrameKind.DATA, 0, offset, block)
    return data + frame(FrameKind.BLOCK_END, 0, offset, Algorithm.SHA256.digest(block))


def test_a_receiver_tells_soon_what_it_has_of_a_stream_that_comes_in_lines() -> None:
    """The sender keeps what is not verified, and of short blocks no more than some thousands."""
    machine, destination = streaming_receiver()
    written = 0
    for line in range(50):
        machine.receive_data(block_frames(2 * line, b"x\n"), NOW)
        work(machine, destination)
        credits = [one for one in said(machine) if isinstance(one, messages.Credit)]
        written = credits[-1].written
        assert written == 2 * line + 2


def test_credit_for_a_stream_never_takes_back_what_was_given() -> None:
    machine, destination = streaming_receiver()
    given = 0
    for line in range(300):
        machine.receive_data(block_frames(line, b"x"), NOW)
        if line % 100 == 99:
            # As many wait meanwhile.
            machine.operations_done(destination.apply(machine.next_operations()), NOW)
        for one in said(machine):
            if isinstance(one, messages.Credit):
                assert one.bytes >= given
                given = one.bytes


LINES = b"x" * 2000


@pytest.mark.parametrize(
    "data",
    {
        "a block that is too long": frame(FrameKind.DATA, 0, 0, bytes(BLOCK_SIZE + 1)),
        "splinters": frame(FrameKind.DATA, 0, 0, b"a") + frame(FrameKind.DATA, 0, 1, b"a"),
        "an empty block": frame(FrameKind.BLOCK_END, 0, 0, Algorithm.SHA256.digest(b"")),
        "a hole": frame(FrameKind.HOLE, 0, 0, b""),
        "a block across a multiple of the longest": block_frames(0, LINES)
        + frame(FrameKind.DATA, 0, len(LINES), bytes(BLOCK_SIZE - len(LINES) + 1)),
        "a hole after a block": block_frames(0, LINES) + frame(FrameKind.HOLE, 0, 2000, b""),
        "a gap": frame(FrameKind.DATA, 0, 1, LINES),
        "a block twice": block_frames(0, LINES) * 2,
        "an end at another offset": block_frames(0, LINES)
        + frame(FrameKind.FILE_END, 0, 1999, digest_of([LINES])),
        "an end in a block": frame(FrameKind.DATA, 0, 0, LINES)
        + frame(FrameKind.FILE_END, 0, 2000, digest_of([LINES])),
        "an end twice": frame(FrameKind.FILE_END, 0, 0, digest_of([])) * 2,
        "data after the end": frame(FrameKind.FILE_END, 0, 0, digest_of([])) + block_frames(0, LINES),
        "another file": frame(FrameKind.DATA, 1, 0, LINES),
    }.items(),
    ids=lambda item: item[0],
)
def test_frames_that_no_stream_has_end_the_transfer(data: tuple[str, bytes]) -> None:
    machine, destination = streaming_receiver()
    machine.receive_data(data[1], NOW)
    work(machine, destination)
    assert isinstance(error_of(machine), RemoteProtocolError)


def test_a_stream_whose_digest_is_another_is_corrupt() -> None:
    machine, destination = streaming_receiver()
    machine.receive_data(block_frames(0, LINES) + frame(FrameKind.FILE_END, 0, 2000, bytes(32)), NOW)
    work(machine, destination)
    assert isinstance(error_of(machine), CorruptData)
    assert not destination.files


def row(path: str, size: int = 0, kind: str = "file") -> messages.ManifestPiece:
    return messages.ManifestPiece(first=0, entries=[(path, kind, size, 0o644, 0)])  # type: ignore[list-item]


def start(content: str, **changed: int) -> messages.ManifestStart:
    counts = {"entries": 1, "files": 1, "bytes": 0, "roots": 1} | changed
    return messages.ManifestStart(manifest_id="0" * 64, content=content, **counts)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["stream", "text"])
@pytest.mark.parametrize(
    ("changed", "root", "entry"),
    [
        ({"entries": 2, "files": 2}, "a", row("a")),
        ({"entries": 2}, "a", row("a")),
        ({"files": 0}, "a", row("a", kind="directory")),
        ({"roots": 2}, "a", row("a")),
        ({"failures": 1}, "a", row("a")),
        ({"others": 1}, "a", row("a")),
        ({}, "a", row("a", size=MAX_TEXT_SIZE + 1)),
        ({"bytes": MAX_TEXT_SIZE + 1}, "a", row("a", size=MAX_TEXT_SIZE + 1)),
        ({}, "a", row("a/b")),
        ({}, "a", row("b")),
        ({}, "a", row("a", kind="directory")),
    ],
)
def test_a_stream_or_a_text_is_one_file_with_one_name(
    content: str, changed: dict[str, int], root: str, entry: messages.ManifestPiece
) -> None:
    machine = Receiver(ask=True, now=NOW)
    control(machine, start(content, **changed), messages.Roots(names=[root]), entry, messages.ManifestEnd())
    assert isinstance(error_of(machine), RemoteProtocolError)


@pytest.mark.parametrize("content", ["stream", "text"])
def test_a_manifest_without_its_only_entry_ends_the_transfer(content: str) -> None:
    machine = Receiver(ask=True, now=NOW)
    control(machine, start(content), messages.Roots(names=["a"]), messages.ManifestEnd())
    assert isinstance(error_of(machine), RemoteProtocolError)


def test_a_stream_or_a_text_is_in_no_directory() -> None:
    for content in (Content.STREAM, Content.TEXT):
        manifest = Manifest([Entry("a/b", EntryKind.FILE, 0, 0o644, 0)], content=content)
        machine = Receiver(ask=True, now=NOW)
        control(machine, *messages.manifest_messages(manifest))
        assert "in a directory" in str(error_of(machine))


def test_a_stream_that_says_how_long_it_is_ends_the_transfer() -> None:
    machine = Receiver(ask=True, now=NOW)
    control(machine, start("stream", bytes=1))
    assert isinstance(error_of(machine), RemoteProtocolError)


def offering() -> tuple[Sender, MemoryStream]:
    stream = MemoryStream([b"a" * 5000, b"b" * 10])
    machine = Sender(stream.manifest, max_message_size=16_384, now=NOW)
    machine.release()
    return machine, stream


def answer(machine: Sender, stream: MemoryStream) -> None:
    while reads := machine.next_reads():
        assert len(reads) == 1
        machine.blocks_read(stream.read(reads), NOW)


ACCEPT = (messages.Accept(below=1), messages.Credit(bytes=1 << 20, written=0))


@pytest.mark.parametrize(
    "lies",
    {
        "compares it": [messages.Compare(files=[0])],
        "has kept it": [messages.Kept(files=[(0, "0" * 64)])],
        "has blocks of it": [messages.Have(file=0, first=0, sha256=["0" * 64])],
        "goes on twice": [messages.GoOn(offset=5000), messages.GoOn(offset=5000)],
        "goes on when it has accepted": [*ACCEPT, messages.GoOn(offset=5000)],
        "has verified more than was sent": [
            messages.GoOn(offset=5000),
            ACCEPT[0],
            messages.Credit(bytes=1, written=5001),
        ],
        "has saved it before its end": [*ACCEPT, messages.Saved(files=[0])],
        "leaves it out in the middle": [*ACCEPT, messages.LeftOut(entries=[(0, "name_taken")])],
        "is complete before its end": [*ACCEPT, messages.Complete(files=1, bytes=0, sha256="0" * 64)],
    }.items(),
    ids=lambda item: item[0],
)
def test_a_receiver_that_says_what_no_receiver_of_a_stream_says_ends_the_transfer(
    lies: tuple[str, list[messages.ControlMessage]],
) -> None:
    machine, _ = offering()
    control(machine, *lies[1])
    assert isinstance(error_of(machine), RemoteProtocolError)


def test_only_a_stream_goes_on() -> None:
    machine, _ = offering_sender()
    control(machine, messages.GoOn(offset=5000))
    assert isinstance(error_of(machine), RemoteProtocolError)


@pytest.mark.parametrize("offset", [1, 5001, 5011, 1 << 50])
def test_a_stream_does_not_go_on_where_no_block_begins(offset: int) -> None:
    machine, stream = offering()
    control(machine, messages.GoOn(offset=offset), *ACCEPT)
    answer(machine, stream)
    events = list(iter(machine.next_event, None))
    assert [event for event in events if isinstance(event, EntryLeftOut)]
    assert not [event for event in events if isinstance(event, Delivered)]


def test_a_receiver_that_confirms_another_length_is_not_served() -> None:
    machine, stream = offering()
    control(machine, *ACCEPT)
    answer(machine, stream)
    while machine.next_data() is not None:
        pass
    digest = RunningDigest(Algorithm.SHA256)
    digest.add(digest_of([b"a" * 5000, b"b" * 10]))
    sha256 = digest.value().hex()
    control(machine, messages.Saved(files=[0]), messages.Complete(files=1, bytes=5009, sha256=sha256))
    assert isinstance(error_of(machine), RemoteProtocolError)


def test_each_block_of_a_stream_leaves_at_once() -> None:
    machine, _ = offering()
    control(machine, *ACCEPT)
    (request,) = machine.next_reads()
    stream = MemoryStream([b"line\n"])
    machine.blocks_read(stream.read([request]), NOW)
    assert b"line\n" in (machine.next_data() or b"")


def test_whoever_comes_too_late_for_a_stream_is_told_so() -> None:
    machine = Receiver(ask=True, now=NOW)
    control(machine, messages.Cancel(code=StreamBegun.code, message="whatever"))
    assert isinstance(error_of(machine), StreamBegun)
