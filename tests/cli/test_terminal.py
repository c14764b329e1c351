"""What a person types and sees, on a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli.screen import screen
from flyx.cli.terminal import UNREADABLE, read_line, screen_size
from flyx.net.loop import new_event_loop
from tests.cli.screen import on_terminal


@contextmanager
def keyboard(encoding: str = "utf-8", *, raw: bool = False) -> Iterator[tuple[int, TextIO]]:
    """A terminal: what types on it, and the program's side."""
    outside, inside = pty.openpty()
    try:
        with os.fdopen(inside, "r", encoding=encoding, errors="strict") as file:
            if raw:
                # No byte is a key with a meaning, and each write can be read at once.
                tty.setraw(inside)
            yield outside, file
    finally:
        os.close(outside)


def wait_for_input(file: TextIO) -> None:
    """Wait until something that was typed can be read."""
    assert select.select([file], [], [], 60)[0]


async def let_it_be_read(file: TextIO) -> None:
    """Let the reader take all that can be read."""
    while select.select([file], [], [], 0)[0]:  # noqa: ASYNC110 - the kernel sets no event when it was read
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("typed", "encoding", "line"),
    [
        (b"y\n", "utf-8", "y\n"),
        ("é\n".encode(), "utf-8", "é\n"),
        ("é\n".encode("latin-1"), "latin-1", "é\n"),
        (b"\xff\n", "utf-8", f"{UNREADABLE}\n"),
        (b"y\xff\n", "utf-8", f"y{UNREADABLE}\n"),
        ("é\n".encode(), "ascii", f"{2 * UNREADABLE}\n"),
        (b"\x04", "utf-8", ""),
        (b"y\x04\x04", "utf-8", "y"),
    ],
)
async def test_a_line_is_read_as_it_was_typed(typed: bytes, encoding: str, line: str) -> None:
    with keyboard(encoding) as (outside, file):
        os.write(outside, typed)
        assert await read_line(file) == line


async def test_each_line_is_an_answer_of_its_own() -> None:
    with keyboard() as (outside, file):
        os.write(outside, b"a\n\xff\ny\n")
        assert [await read_line(file) for _ in range(3)] == ["a\n", f"{UNREADABLE}\n", "y\n"]


@pytest.mark.parametrize("early", [False, True])
async def test_what_follows_a_question_has_a_line_of_its_own_whenever_that_was_answered(early: bool) -> None:
    with on_terminal() as terminal, keyboard() as (outside, file):
        if early:
            os.write(outside, b"y\n")
            wait_for_input(file)
        screen.question("Save? [y/N] ")
        reading = asyncio.create_task(read_line(file))
        await asyncio.sleep(0)
        if not early:
            os.write(outside, b"y\n")
        assert await reading == "y\n"
        screen.line("Received")
    # This terminal shows what is typed nowhere; that of a person shows the end of the line there and then.
    assert terminal.raw.decode() == ("Save? [y/N] \r\nReceived\r\n" if early else "Save? [y/N] Received\r\n")


async def test_half_a_line_does_not_hold_up_the_loop() -> None:
    with keyboard() as (outside, file):
        # Ctrl-D hands over what has been typed, in the middle of a line.
        os.write(outside, b"ye\x04")
        wait_for_input(file)
        reading = asyncio.create_task(read_line(file))
        await asyncio.sleep(0)
        await let_it_be_read(file)
        assert not reading.done()
        os.write(outside, b"s\n")
        assert await reading == "yes\n"


async def test_a_terminal_that_is_closed_is_the_end() -> None:
    outside, inside = pty.openpty()
    with os.fdopen(inside, "r", encoding="utf-8") as file:
        # Half a line that was typed before is lost with it.
        os.write(outside, b"y")
        os.close(outside)
        assert await read_line(file) == ""


@pytest.mark.parametrize("nonblocking", [False, True])
@pytest.mark.parametrize("answered", [False, True])
def test_reading_leaves_the_mode_of_the_terminal_as_it_was(nonblocking: bool, answered: bool) -> None:
    # It is shared with the shell, which cannot read from a terminal that does not wait.
    with keyboard() as (outside, file), asyncio.Runner(loop_factory=new_event_loop) as runner:
        os.set_blocking(file.fileno(), not nonblocking)
        before = fcntl.fcntl(file.fileno(), fcntl.F_GETFL), termios.tcgetattr(file.fileno())

        async def read() -> None:
            reading = asyncio.create_task(read_line(file))
            await asyncio.sleep(0)
            assert (fcntl.fcntl(file.fileno(), fcntl.F_GETFL), termios.tcgetattr(file.fileno())) == before
            if answered:
                os.write(outside, b"y\n")
                assert await reading == "y\n"
            else:
                reading.cancel()
                await asyncio.wait([reading])

        runner.run(read())
        assert (fcntl.fcntl(file.fileno(), fcntl.F_GETFL), termios.tcgetattr(file.fileno())) == before


def test_what_is_typed_after_an_answer_or_instead_of_one_is_left_to_the_next_program() -> None:
    with keyboard() as (outside, file):

        async def read() -> None:
            reading = asyncio.create_task(read_line(file))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])

        asyncio.run(read())
        os.write(outside, b"ls\n")
        assert os.read(file.fileno(), 100) == b"ls\n"


def test_the_screen_is_that_of_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with keyboard() as (outside, file):
        termios.tcsetwinsize(outside, (30, 90))
        monkeypatch.setattr("sys.stderr", file)
        assert screen_size() == (90, 30)
        # As a serial line has it, which does not know.
        termios.tcsetwinsize(outside, (0, 0))
        assert screen_size() == (80, 24)


def test_what_is_no_screen_has_the_size_of_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr("sys.stderr", file)
        assert screen_size() == (80, 24)


PIECES = st.lists(st.binary(min_size=1).map(lambda typed: typed.replace(b"\n", b"\r")), max_size=5)


@given(PIECES)
def test_any_bytes_in_any_pieces_are_a_line(pieces: list[bytes]) -> None:
    async def typing() -> None:
        with keyboard(raw=True) as (outside, file):
            reading = asyncio.create_task(read_line(file))
            await asyncio.sleep(0)
            for piece in pieces:
                os.write(outside, piece)
                await let_it_be_read(file)
            os.write(outside, b"\n")
            assert await reading == (b"".join(pieces) + b"\n").decode("utf-8", "replace")

    asyncio.run(typing())
