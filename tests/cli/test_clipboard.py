"""What `flyx send --copy` puts on the clipboard, and what it says about that."""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode

import pytest

from flyx.cli.clipboard import COPIED, NOT_COPIED, copying
from flyx.cli.output import JsonReporter, QuietReporter
from flyx.cli.progress import HumanReporter
from flyx.cli.screen import Screen
from flyx.cli.streams import flush
from flyx.client import events
from tests.cli.screen import on_terminal

CODE = "K7M2QX-lemon-otter"
ROOM = events.RoomOpened("K7M2QX", CODE, "wss://flyx.example.org", local=False)
NAMED = events.RoomOpened("K7M2QX", CODE, "wss://flyx.example.org", local=False, pass_on=True)


def copied(raw: bytes) -> list[str]:
    """What a terminal was told to put on its clipboard."""
    sequences = raw.split(b"\x1b]52;c;")[1:]
    return [b64decode(sequence.partition(b"\x07")[0], validate=True).decode() for sequence in sequences]


@pytest.mark.parametrize(
    ("room", "command"),
    [(ROOM, f"flyx receive {CODE}"), (NAMED, f"flyx receive --server wss://flyx.example.org {CODE}")],
)
def test_the_line_that_is_printed_is_copied_without_its_end(room: events.RoomOpened, command: str) -> None:
    with on_terminal() as terminal, HumanReporter(sending=True, bars=True) as reporter:
        tell = copying(reporter)
        for event in (room, events.PeerJoined(1), events.Notice("hello")):
            tell(event)
    assert copied(terminal.raw) == [command]
    # Pasted into a shell, it waits for a person to begin it.
    assert terminal.text.count(f"{command}\n") == 1
    assert terminal.text.endswith(f"{COPIED}\nhello\n")


def test_the_command_is_copied_with_quiet_and_json_as_well(capfd: pytest.CaptureFixture[str]) -> None:
    with on_terminal() as terminal:
        copying(QuietReporter())(ROOM)
    assert copied(terminal.raw) == [f"flyx receive {CODE}"]
    assert COPIED.encode() not in terminal.raw
    with on_terminal() as terminal:
        copying(JsonReporter())(ROOM)
    assert copied(terminal.raw) == [f"flyx receive {CODE}"]
    assert f'"message": "{COPIED}"'.encode() in terminal.raw


def test_without_a_terminal_it_is_said_that_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    copying(HumanReporter(sending=True, bars=True))(ROOM)
    out, err = capfd.readouterr()
    assert out == f"flyx receive {CODE}\n"
    assert err.splitlines()[-1] == NOT_COPIED
    assert "\x1b" not in out + err


@pytest.mark.parametrize("term", ["dumb", "DUMB", "unknown", ""])
def test_a_terminal_that_would_show_the_sequence_gets_none(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_terminal() as terminal:
        monkeypatch.setenv("TERM", term)
        copying(HumanReporter(sending=True, bars=False))(ROOM)
    assert b"\x1b]" not in terminal.raw
    assert NOT_COPIED.encode() in terminal.raw


@pytest.mark.parametrize("piped", ["stdout", "stderr"])
def test_one_stream_that_is_a_terminal_is_enough(piped: str) -> None:
    with on_terminal() as terminal, pytest.MonkeyPatch.context() as patch, open(os.devnull, "w") as pipe:
        patch.setattr(sys, piped, pipe)
        assert Screen().copy("text")
    assert copied(terminal.raw) == ["text"]


def test_bars_stand_as_before_after_a_copy() -> None:
    sequence = f"\x1b]52;c;{b64encode('é'.encode()).decode()}\x07"
    with on_terminal() as terminal:
        screen = Screen()
        screen.show([("one", 3), ("two", 3)])
        flush()
        screen.copy("é")
        flush()
        screen.hide()
    shown = terminal.raw.decode()
    # What takes the bars off is what it is without a copy.
    assert shown == f"one\x1b[K\r\ntwo\x1b[K\x1b[J\r{sequence}\r\x1b[1A\x1b[J"
