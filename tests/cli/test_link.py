"""The link that a sender shows for a browser: where, and to whom."""

from __future__ import annotations

import pytest

from flyx.cli.output import JsonReporter, QuietReporter
from flyx.cli.progress import HumanReporter
from flyx.client import events
from tests.cli.screen import on_terminal

CODE = "K7M2QX-lemon-otter"
LINK = "https://flyx.example.org/K7M2QX#lemon-otter"
ROOM = events.RoomOpened("K7M2QX", CODE, "wss://flyx.example.org", local=False, pass_on=True)


def shown(room: events.RoomOpened = ROOM) -> str:
    """What a terminal shows when a room is open."""
    with on_terminal() as terminal, HumanReporter(sending=True, bars=True) as reporter:
        reporter(room)
    return terminal.text


def test_a_terminal_is_shown_the_link() -> None:
    assert f"or open this in a browser:\n{LINK}\n" in shown()


@pytest.mark.parametrize(
    "room",
    [
        events.RoomOpened("K7M2QX", CODE, "ws://192.0.2.7:8000", local=False, pass_on=True),
        events.RoomOpened("K7M2QX", CODE, "wss://localhost", local=False, here_only=True),
        events.RoomOpened("K7M2QX", CODE, "wss://192.0.2.7", local=True),
    ],
    ids=["no TLS", "here only", "local"],
)
def test_where_others_could_not_use_it_there_is_no_link(room: events.RoomOpened) -> None:
    assert room.link is None
    assert "browser" not in shown(room)


def test_it_is_not_shown_to_programs(capfd: pytest.CaptureFixture[str]) -> None:
    with HumanReporter(sending=True, bars=True) as reporter:
        reporter(ROOM)
    for other in (QuietReporter(), JsonReporter()):
        with on_terminal() as terminal, other as reporter:
            reporter(ROOM)
        assert "open this" not in terminal.text
    out, err = capfd.readouterr()
    assert "browser" not in out + err


def test_programs_are_told_the_link(capfd: pytest.CaptureFixture[str]) -> None:
    with JsonReporter() as reporter:
        reporter(ROOM)
    assert f'"link": "{LINK}"' in capfd.readouterr().out


def drawn(terminal_lines: int, qr_code: bool | None, columns: int = 80) -> bool:
    """Whether a terminal of so many lines is shown a QR code."""
    with (
        on_terminal(lines=terminal_lines, columns=columns) as terminal,
        HumanReporter(sending=True, bars=True, qr_code=qr_code) as reporter,
    ):
        reporter(ROOM)
    assert LINK in terminal.text
    return "▀" in terminal.text


@pytest.mark.parametrize(
    ("lines", "columns", "wish", "expected"),
    [
        (24, 80, None, True),
        (20, 80, None, False),
        (20, 80, True, True),
        (50, 80, False, False),
        (50, 30, None, False),
        (50, 30, True, False),
    ],
)
def test_a_code_is_drawn_where_there_is_room_or_it_is_wanted(
    lines: int, columns: int, wish: bool | None, expected: bool
) -> None:
    assert drawn(lines, wish, columns) is expected
