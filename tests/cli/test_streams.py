from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from flyx.cli.streams import MAX_TALK, PatientFile, write_talk, write_text

PATIENCE = 10.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)
    # A test may have closed it.
    with suppress(OSError):
        os.close(reading)


def lines(count: int) -> list[bytes]:
    return [b"%d %s\n" % (number, b"x" * (number % 5_000)) for number in range(count)]


def read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(descriptor, 1 << 16)
    return data


def test_a_reader_that_is_slow_is_not_waited_for_and_misses_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    file = PatientFile()
    written = lines(1_000)

    def write() -> None:
        for line in written:
            file.write(writing, line)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(PATIENCE)
    assert not writer.is_alive()
    whole = b"".join(written)
    assert read(reading, len(whole)) == whole
    file.flush()
    # And now it is read at once again.
    file.write(writing, b"last")
    assert read(reading, 4) == b"last"


def test_a_reader_that_reads_is_written_to_at_once_and_missed_at_once(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    file = PatientFile()
    file.write(writing, b"a line\n")
    assert os.read(reading, 100) == b"a line\n"
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        file.write(writing, b"another\n")


def test_a_reader_that_goes_while_something_waits_is_missed_by_the_next_write(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    file = PatientFile()
    for line in lines(1_000):
        file.write(writing, line)
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        file.flush()
    with pytest.raises(BrokenPipeError):
        file.write(writing, b"another\n")


def test_a_file_is_written_at_once(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        whole = b"".join(lines(100))
        PatientFile().write(descriptor, whole)
        with open(path, "rb") as file:
            assert file.read() == whole
    finally:
        os.close(descriptor)


def test_where_nobody_can_be_asked_whether_it_takes_something_a_thread_writes(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on Windows.
    monkeypatch.delattr("select.poll")
    reading, writing = pipe
    file = PatientFile()
    file.write(writing, b"a line\n")
    file.flush()
    assert os.read(reading, 100) == b"a line\n"


def test_talk_that_nobody_reads_is_left_out_in_the_end_and_that_is_told(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    file = PatientFile()
    line = b"x" * 999 + b"\n"
    for _ in range(2 * MAX_TALK // len(line)):
        file.talk(writing, line)
    assert file.is_behind
    shown = b""
    while file.is_behind or select.select([reading], [], [], 0)[0]:
        shown += os.read(reading, 1 << 16)
    assert MAX_TALK - len(line) < len(shown) < MAX_TALK + (1 << 17)
    file.talk(writing, b"read again\n")
    assert re.fullmatch(rb"\(\d+ lines were left out here: .*\)\nread again\n", os.read(reading, 1000))


def test_a_pipe_that_does_not_wait_loses_nothing_and_stays_like_that(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    file = PatientFile()
    written = lines(500)
    for line in written:
        file.write(writing, line)
    whole = b"".join(written)
    assert read(reading, len(whole)) == whole
    file.flush()
    assert not os.get_blocking(writing)


def test_talk_that_cannot_be_written_is_no_error_and_data_is(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with os.fdopen(os.dup(writing), "w", encoding="ascii", errors="strict") as file:
        write_talk(file, "Gr\u00fc\u00dfe\n")
        assert os.read(reading, 100) == b"Gr\\xfc\\xdfe\n"
        os.close(reading)
        write_talk(file, "nobody\n")
        with pytest.raises(BrokenPipeError):
            write_text(file, "nobody\n")
