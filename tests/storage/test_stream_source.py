"""A descriptor that is read block by block."""

from __future__ import annotations

import fcntl
import os
import pty
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flyx.storage import stream_source
from flyx.storage.stream_source import StreamSource
from flyx.transfer.manifest import BLOCK_SIZE

PATIENCE = 10.0


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """Both ends; what a test closes, it takes out."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def end_of(pipe: list[int]) -> None:
    os.close(pipe.pop())


def all_of(source: StreamSource) -> bytes:
    return b"".join(iter(source.read_block, b""))


def test_a_pipe_is_read_to_its_end_in_whole_blocks(pipe: list[int], thread: ThreadPoolExecutor) -> None:
    data = os.urandom(3 * BLOCK_SIZE + 100)

    def write() -> None:
        with os.fdopen(os.dup(pipe[1]), "wb") as file:
            file.write(data)
        end_of(pipe)

    source = StreamSource(pipe[0])
    writing = thread.submit(write)
    blocks = list(iter(source.read_block, b""))
    writing.result(PATIENCE)
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= BLOCK_SIZE
    assert source.read_block() == b""
    source.close()


def test_what_comes_slowly_is_a_block_of_its_own(pipe: list[int]) -> None:
    source = StreamSource(pipe[0])
    for line in (b"a\n", b"bb\n"):
        os.write(pipe[1], line)
        # Without anything after it.
        assert source.read_block() == line
    end_of(pipe)
    assert source.read_block() == b""
    source.close()


def test_pieces_that_follow_each_other_soon_are_one_block(
    pipe: list[int], thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_source, "LINGER", PATIENCE)
    source = StreamSource(pipe[0])
    os.write(pipe[1], b"a")
    reading = thread.submit(source.read_block)
    os.write(pipe[1], b"b")
    end_of(pipe)
    assert reading.result(PATIENCE / 2) == b"ab"
    source.close()


def test_a_regular_file_is_read_from_its_place(tmp_path: Path) -> None:
    data = os.urandom(BLOCK_SIZE + 10)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        file.seek(4)
        source = StreamSource(file.fileno())
        assert source.read_block() == data[4 : 4 + BLOCK_SIZE]
        assert all_of(source) == data[4 + BLOCK_SIZE :]
        source.close()


def test_on_a_terminal_ctrl_d_is_the_end() -> None:
    keyboard, terminal = pty.openpty()
    try:
        source = StreamSource(terminal)
        os.write(keyboard, b"typed\n\x04")
        assert source.read_block() == b"typed\n"
        assert source.read_block() == b""
        source.close()
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    source = StreamSource(directory)
    with pytest.raises(IsADirectoryError):
        source.read_block()
    source.close()
    os.close(directory)


def test_stop_ends_the_wait_for_whoever_does_not_write(pipe: list[int], thread: ThreadPoolExecutor) -> None:
    source = StreamSource(pipe[0])
    reading = thread.submit(source.read_block)
    source.stop()
    assert reading.result(PATIENCE) == b""
    os.write(pipe[1], b"too late")
    assert source.read_block() == b""
    source.stop()
    source.close()


def test_the_mode_of_the_descriptor_is_left_as_it_is(pipe: list[int]) -> None:
    before = fcntl.fcntl(pipe[0], fcntl.F_GETFL), fcntl.fcntl(pipe[0], fcntl.F_GETFD)
    source = StreamSource(pipe[0])
    os.write(pipe[1], b"x")
    assert source.read_block() == b"x"
    source.close()
    assert (fcntl.fcntl(pipe[0], fcntl.F_GETFL), fcntl.fcntl(pipe[0], fcntl.F_GETFD)) == before


def test_a_pipe_that_others_read_as_well_is_no_error(
    pipe: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has made it non-blocking, and was faster."""
    os.set_blocking(pipe[0], False)
    os.write(pipe[1], b"theirs")
    source = StreamSource(pipe[0])
    readv = os.readv

    def be_late(descriptor: int, buffers: Sequence[memoryview]) -> int:
        monkeypatch.setattr(os, "readv", readv)
        assert os.read(descriptor, 100) == b"theirs"
        os.write(pipe[1], b"ours")
        raise BlockingIOError

    monkeypatch.setattr(os, "readv", be_late)
    assert source.read_block() == b"ours"
    source.close()
