"""Bars, on a terminal that is none: FORCE_COLOR has rich take standard error for one."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest

from flyx.cli.progress import HumanReporter
from flyx.client import events
from flyx.errors import ConnectionLost
from flyx.transfer.manifest import Entry, EntryKind, Manifest

BAR = "\u2501"
NAME = "a-file-with-a-name-that-is-long-enough-to-be-cut.bin"
LOST = ConnectionLost(reason="nothing was heard from the sender for 20 s")


@pytest.fixture(params=[100, 40])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@contextmanager
def receiving() -> Iterator[tuple[HumanReporter, io.StringIO]]:
    """A reporter in the middle of a transfer of two files, and what it writes."""
    written = io.StringIO()
    with redirect_stderr(written), HumanReporter(sending=False, bars=True) as reporter:
        entries = [Entry(name, EntryKind.FILE, 10**12, 0o644, 0) for name in (NAME, "other")]
        reporter(events.ManifestKnown(Manifest(entries)))
        reporter(events.Progress(1, 123 * 10**9, 2 * 10**12))
        reporter(events.Progress(1, 456 * 10**9, 2 * 10**12))
        yield reporter, written


def test_what_does_not_fit_a_narrow_terminal_is_left_out(columns: int) -> None:
    with receiving() as (_, written):
        pass
    shown = written.getvalue()
    assert (BAR in shown) == (columns == 100)
    # The last frame has a line for each bar, neither of them broken.
    frame = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.split("\x1b[1A\x1b[2K")[1]).splitlines()
    assert [0 < len(line.rstrip()) <= columns for line in frame] == [True, True, False]
    assert frame[0].startswith("All files")
    assert "be-cut.bin" in frame[1]
    assert ["23%" in frame[0], "46%" in frame[1]] == [True, True]


def test_a_lost_connection_has_no_bar(columns: int) -> None:
    with receiving() as (reporter, written):
        before = len(written.getvalue())
        reporter(events.PeerLost(1, LOST))
        shown = written.getvalue()[before:]
        assert shown.endswith("for 20 s. Trying to connect again.\n")
        assert "All files" not in shown
        reporter(events.Progress(1, 500 * 10**9, 2 * 10**12))
    assert "25%" in written.getvalue()


def listed(*, bars: bool) -> str:
    """What is written while a sender lists, and of the next event."""
    written = io.StringIO()
    with redirect_stderr(written), HumanReporter(sending=True, bars=bars) as reporter:
        reporter(events.Listing(1_000))
        reporter(events.Listing(123_456))
        reporter(events.Notice("tree/fifo is left out"))
        return written.getvalue()


@pytest.mark.usefixtures("columns")
def test_a_list_that_takes_its_time_is_one_line_that_changes_and_goes() -> None:
    shown, _, after = listed(bars=True).partition("123,456 files and directories found")
    assert shown
    # The line is cleared before anything else is written.
    cleared, _, line = after.rpartition("\x1b[2K")
    assert cleared
    assert line.endswith("tree/fifo is left out\n")


@pytest.mark.usefixtures("columns")
def test_nothing_is_written_of_a_list_where_lines_are_to_stay() -> None:
    assert listed(bars=False) == "tree/fifo is left out\n"
