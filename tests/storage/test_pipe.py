"""One file, or a stream, to a descriptor."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from flyx.errors import CorruptData, LocalProtocolError, NotOneFile, StorageError
from flyx.storage.pipe import PipeDestination
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import (
    BlocksKept,
    EntriesPlanned,
    FileDiscarded,
    FileSaved,
    FinishFile,
    FinishTree,
    GoesOn,
    Operation,
    PlanEntries,
    PlanTree,
    RestartFile,
    WriteBlock,
)
from flyx.transfer.disk import DiscardFile as Discard
from flyx.transfer.left_out import NOT_WANTED
from flyx.transfer.manifest import BLOCK_SIZE, Content, Entry, EntryKind
from flyx.transfer.selection import Selection
from tests.storage.support import directory_entry, failure, file_entry, write_block

PATIENCE = 10.0


class Pipe:
    """A pipe, whose reader the test is."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._thread = ThreadPoolExecutor(1)

    def read(self) -> bytes:
        """Return all until every writer has closed it."""
        os.close(self.writer)
        parts = []
        while part := os.read(self.reader, 1 << 16):
            parts.append(part)
        return b"".join(parts)

    def read_meanwhile(self, size: int, piece: int = 1 << 16) -> Future[bytes]:
        """Read so many bytes on a thread, in small pieces."""
        return self._thread.submit(self._read, size, piece)

    def _read(self, size: int, piece: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.reader, min(piece, size - len(data)))
        return data

    def leave(self) -> None:
        os.close(self.reader)

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            try:
                os.close(descriptor)
            except OSError:
                pass
        self._thread.shutdown()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def plan(*entries: Entry, content: Content = Content.FILES) -> list[Operation]:
    total = sum(entry.size for entry in entries)
    roots = tuple(dict.fromkeys(entry.root for entry in entries))
    return [PlanTree(roots, total, "id", content=content), PlanEntries(0, entries)]


STREAM = plan(file_entry("stream"), content=Content.STREAM)


def digest_of(*blocks: bytes) -> bytes:
    digest = RunningDigest(Algorithm.SHA256)
    for block in blocks:
        digest.add(Algorithm.SHA256.digest(block))
    return digest.value()


def blocks_of(data: bytes, file: int = 0) -> list[Operation]:
    offsets = range(0, len(data), BLOCK_SIZE)
    return [write_block(file, offset, data[offset : offset + BLOCK_SIZE]) for offset in offsets]


def test_a_file_goes_out_as_it_is_and_has_no_name(pipe: Pipe) -> None:
    data = os.urandom(3 * BLOCK_SIZE + 5)
    destination = PipeDestination(pipe.writer)
    reading = pipe.read_meanwhile(len(data), 1000)
    outcomes = destination.apply(
        [*plan(file_entry("f", len(data))), *blocks_of(data), FinishFile(0), FinishTree()]
    )
    assert outcomes[-2] == FileSaved(0, None)
    assert reading.result(PATIENCE) == data
    destination.abandon()
    assert pipe.read() == b""


def test_a_hole_is_zeros(pipe: Pipe) -> None:
    destination = PipeDestination(pipe.writer)
    reading = pipe.read_meanwhile(BLOCK_SIZE + 7)
    holes: list[Operation] = [
        WriteBlock(0, 0, (), Algorithm.SHA256.hole_digest(BLOCK_SIZE), hole=True),
        WriteBlock(0, BLOCK_SIZE, (), Algorithm.SHA256.hole_digest(7), hole=True),
    ]
    destination.apply([*plan(file_entry("f", BLOCK_SIZE + 7)), *holes])
    assert reading.result(PATIENCE) == bytes(BLOCK_SIZE + 7)
    destination.abandon()


def test_the_mode_of_the_descriptor_is_left_as_it_is(pipe: Pipe) -> None:
    before = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    destination = PipeDestination(pipe.writer)
    destination.apply([*STREAM, write_block(0, 0, b"x")])
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before
    destination.abandon()
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_abandon_ends_a_write_that_nobody_reads(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    destination = PipeDestination(writer)
    data = bytes(BLOCK_SIZE)
    many = [write_block(0, at * BLOCK_SIZE, data) for at in range(8)]
    with ThreadPoolExecutor(1) as thread:
        try:
            writing = thread.submit(destination.apply, [*STREAM, *many])
            # It has begun: the first bytes are there.
            assert os.read(reader, 1)
            destination.abandon()
            assert isinstance(failure(writing.result(PATIENCE)), LocalProtocolError)
            assert isinstance(failure(destination.apply(STREAM)), LocalProtocolError)
        finally:
            os.close(reader)
            os.close(writer)


def test_a_reader_that_has_gone_is_told(pipe: Pipe) -> None:
    destination = PipeDestination(pipe.writer)
    destination.apply(STREAM)
    pipe.leave()
    error = failure(destination.apply([write_block(0, 0, b"x")]))
    assert isinstance(error, StorageError)
    assert "the program that reads it has gone" in str(error)
    destination.abandon()


def test_a_reader_that_goes_in_the_middle_is_told(pipe: Pipe) -> None:
    destination = PipeDestination(pipe.writer)
    many = [write_block(0, at * BLOCK_SIZE, bytes(BLOCK_SIZE)) for at in range(8)]
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(destination.apply, [*STREAM, *many])
        assert os.read(pipe.reader, 1)
        pipe.leave()
        assert "has gone" in str(failure(writing.result(PATIENCE)))
    destination.abandon()


def test_a_regular_file_is_written_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with path.open("r+b", buffering=0) as file:
        file.seek(6)
        destination = PipeDestination(file.fileno())
        destination.apply([*STREAM, write_block(0, 0, b"a" * 10), write_block(0, 10, b"b")])
        destination.abandon()
    assert path.read_bytes() == b"before" + b"a" * 10 + b"b"


def test_a_full_disk_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        destination = PipeDestination(full)
        error = failure(destination.apply([*STREAM, write_block(0, 0, b"x")]))
        assert str(error) == "Cannot write to standard output: No space left on device"
        destination.abandon()
    finally:
        os.close(full)


def test_a_stream_goes_on_over_another_connection_where_it_was(pipe: Pipe) -> None:
    destination = PipeDestination(pipe.writer)
    destination.apply([*STREAM, write_block(0, 0, b"abc"), write_block(0, 3, b"de")])
    planned = destination.apply(STREAM)[-1]
    assert isinstance(planned, EntriesPlanned)
    (found,) = planned.found
    assert isinstance(found, GoesOn)
    assert found.offset == 5
    assert found.digest.value() == digest_of(b"abc", b"de")
    # What is added to it there is not added here.
    found.digest.add(bytes(32))
    destination.apply([write_block(0, 5, b"f"), FinishFile(0), FinishTree()])
    again = destination.apply(STREAM)[-1]
    assert isinstance(again, EntriesPlanned)
    assert isinstance(again.found[0], GoesOn)
    assert again.found[0].digest.value() == digest_of(b"abc", b"de", b"f")
    destination.abandon()
    assert pipe.read() == b"abcdef"


def test_a_file_goes_on_over_another_connection_where_it_was(pipe: Pipe) -> None:
    data = os.urandom(BLOCK_SIZE + 10)
    offered = plan(directory_entry("d"), file_entry("d/f", len(data)))
    destination = PipeDestination(pipe.writer)
    reading = pipe.read_meanwhile(len(data))
    destination.apply([*offered, *blocks_of(data, 1)[:1]])
    planned = destination.apply(offered)[-1]
    assert planned == EntriesPlanned(2, (BlocksKept(1, Algorithm.SHA256.digest(data[:BLOCK_SIZE])),))
    destination.apply([*blocks_of(data, 1)[1:], FinishFile(1), FinishTree()])
    assert reading.result(PATIENCE) == data
    destination.abandon()


def test_a_file_of_which_a_part_is_out_cannot_begin_anew(pipe: Pipe) -> None:
    offered = plan(file_entry("f", 3))
    destination = PipeDestination(pipe.writer)
    destination.apply([*offered, write_block(0, 0, b"abc")])
    error = failure(destination.apply([*offered, RestartFile(0)]))
    assert "has changed at the sender" in str(error)
    destination.abandon()


@pytest.mark.parametrize(
    "entries",
    [[file_entry("a"), file_entry("b")], [directory_entry("d"), file_entry("d/a"), file_entry("d/b")]],
)
def test_two_files_are_refused(pipe: Pipe, entries: Sequence[Entry]) -> None:
    destination = PipeDestination(pipe.writer)
    assert isinstance(failure(destination.apply(plan(*entries))), NotOneFile)


def test_no_file_at_all_is_refused(pipe: Pipe) -> None:
    destination = PipeDestination(pipe.writer)
    assert isinstance(failure(destination.apply([*plan(directory_entry("d")), FinishTree()])), NotOneFile)


def test_one_of_several_files_is_chosen_by_its_path(pipe: Pipe) -> None:
    entries = [
        directory_entry("d"),
        file_entry("d/a", 1),
        file_entry("d/b", 1),
        Entry("d/l", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="a"),
    ]
    destination = PipeDestination(pipe.writer, Selection(["d/b"]))
    planned = destination.apply(plan(*entries))[-1]
    assert planned == EntriesPlanned(4, (), ((1, NOT_WANTED), (3, NOT_WANTED)))
    destination.apply([write_block(2, 0, b"b"), FinishFile(2), FinishTree()])
    destination.abandon()
    assert pipe.read() == b"b"


def test_nothing_that_is_not_verified_goes_out(pipe: Pipe) -> None:
    destination = PipeDestination(pipe.writer)
    outcomes = destination.apply([*STREAM, WriteBlock(0, 0, [b"x"], bytes(32))])
    assert isinstance(failure(outcomes), CorruptData)
    assert destination.apply([Discard(0)]) == [FileDiscarded(0)]
    destination.abandon()
    assert pipe.read() == b""


@pytest.mark.parametrize("block", [write_block(0, 1, b"x"), write_block(1, 0, b"x")])
def test_a_block_out_of_sequence_is_a_mistake(pipe: Pipe, block: WriteBlock) -> None:
    destination = PipeDestination(pipe.writer)
    assert isinstance(failure(destination.apply([*STREAM, block])), LocalProtocolError)
    destination.abandon()
