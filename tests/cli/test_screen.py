"""Lines that stay, questions and lines that change, on a real terminal of 100 columns."""

from __future__ import annotations

import pytest

from flyx.cli.screen import Screen
from flyx.cli.streams import flush
from tests.cli.screen import on_terminal


def test_lines_that_stay_go_above_those_that_change() -> None:
    with on_terminal() as terminal:
        screen = Screen()
        screen.show([("one", 3), ("two", 3)])
        flush()
        screen.line("stays")
        flush()
        screen.show([("three", 5)])
        flush()
        screen.hide()
    assert terminal.raw.decode().split("\x1b[J") == [
        "one\x1b[K\r\ntwo\x1b[K",
        "\r\r\x1b[1Astays\x1b[K\r\none\x1b[K\r\ntwo\x1b[K",
        "\r\r\x1b[1Athree\x1b[K",
        "\r\r",
        "",
    ]


def test_an_error_has_a_line_of_its_own_also_after_a_question() -> None:
    with on_terminal() as terminal:
        screen = Screen()
        screen.question("Save? [y/N] ")
        screen.line("error: lost", last=True)
        screen.line("hint: try again")
    assert terminal.raw.decode().splitlines() == ["Save? [y/N] ", "error: lost", "hint: try again"]


def test_an_error_takes_the_lines_that_change_off_the_screen() -> None:
    with on_terminal() as terminal:
        screen = Screen()
        screen.show([("a bar", 5)])
        flush()
        screen.line("error: lost", last=True)
    assert terminal.raw.decode() == "a bar\x1b[K\x1b[J\r\r\x1b[J\rerror: lost\r\n"


def test_a_question_is_asked_again_below_what_is_told_meanwhile() -> None:
    with on_terminal() as terminal:
        screen = Screen()
        screen.question("Save? [y/N] ")
        screen.show([("a bar", 5)])
        screen.line("The server is out of reach")
        screen.answered(ended=True)
        screen.line("Received")
    # The person has ended the last of the questions' lines.
    assert terminal.raw.decode() == ("Save? [y/N] \r\nThe server is out of reach\r\nSave? [y/N] Received\r\n")


@pytest.mark.parametrize(("columns", "rows"), [(100, 1), (50, 2), (30, 4), (200, 1)])
def test_lines_that_a_narrower_terminal_has_broken_are_taken_off_as_a_whole(columns: int, rows: int) -> None:
    with on_terminal() as terminal:
        screen = Screen()
        screen.show([("x" * 99, 99), ("y" * 99, 99)])
        flush()
        before = len(terminal.raw)
        terminal.resize(columns, 24)
        screen.hide()
    assert terminal.raw[-20:].decode().endswith(f"\r\x1b[{rows}A\x1b[J"), before
