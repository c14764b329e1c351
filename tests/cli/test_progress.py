"""What a person sees of a transfer, on a real terminal and by a clock that is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyx.cli.progress import NAMED, HumanReporter, _FilesByOffset, clock_text, duration_text, route_text
from flyx.client import events
from flyx.client.limits import Limit
from flyx.errors import ConnectionLost, FilesFailed
from flyx.rtc.path import CandidatePair
from flyx.transfer import left_out
from flyx.transfer.manifest import Content, Entry, EntryKind, Manifest
from tests.cli.screen import Screen, on_terminal

MB = 1_000_000
LOST = ConnectionLost(reason="nothing was heard from the sender for 20 s")
INTO = Path("in").resolve()
DIRECT = CandidatePair("host", "host", is_local=True)


class Clock:
    """Monotonic seconds, as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A reporter on a terminal, and what is drawn on it."""

    def __init__(self, terminal: Screen, clock: Clock, reporter: HumanReporter) -> None:
        self.terminal = terminal
        self.clock = clock
        self.report = reporter

    def after(self, seconds: float, *told: events.Event) -> list[str]:
        """Tell these, and draw five times a second; return the lines of the last drawing."""
        for event in told:
            self.report(event)
        for _ in range(round(seconds * 5)):
            self.clock.now += 0.2
            self.report.draw()
        return self.drawn()

    def drawn(self) -> list[str]:
        """Draw; return the lines."""
        self.terminal.settle()
        before = len(self.terminal.text)
        self.report.draw()
        self.terminal.settle()
        return self.terminal.text[before:].splitlines()


def files(*names: str, size: int = 10 * MB) -> Manifest:
    return Manifest([Entry(name, EntryKind.FILE, size, 0o644, 0) for name in names])


@contextmanager
def watched(*, sending: bool = False, bars: bool = True) -> Iterator[Watched]:
    clock = Clock()
    with (
        on_terminal() as terminal,
        HumanReporter(
            sending=sending, bars=bars, directory=None if sending else Path("in"), clock=clock
        ) as r,
    ):
        yield Watched(terminal, clock, r)


def progress(done: int, total: int = 100 * MB, peer: int = 1, arrived: int = 0) -> events.Progress:
    return events.Progress(peer, done, total, arrived)


def test_speed_and_time_left_are_told_and_then_that_it_has_stalled_for_how_long() -> None:
    with watched() as screen:
        screen.after(1, events.PeerConnected(1, DIRECT, 0.001), progress(0))
        for second in range(1, 5):
            (row,) = screen.after(1, progress(second * MB))
        assert "Received" in row
        assert "4%" in row
        assert "0.8 MB/s" in row or "800 kB/s" in row
        assert "2:00 left" in row
        assert row.endswith("direct")
        (row,) = screen.after(7)
        assert "stalled for 8 s" in row
        assert "B/s" not in row
        assert "left" not in row
        # What has come and is not verified moves, too.
        (row,) = screen.after(1, progress(4 * MB, arrived=500_000))
        assert "stalled" not in row


def test_a_sender_tells_of_no_stall_while_the_receiver_acknowledges() -> None:
    with watched(sending=True) as screen:
        screen.after(1, progress(0))
        for second in range(1, 15):
            # A block is verified when all of it is there, which takes a minute.
            (row,) = screen.after(1, events.Condition(1, None, 0.02, second * 20_000, 0))
        assert "stalled" not in row
        for second in range(1, 5):
            # What the two say to each other all the time is no progress.
            (row,) = screen.after(1, events.Condition(1, None, 0.02, 280_000 + second * 100, 0))
        assert "stalled for 5 s" in row


def test_a_lost_connection_is_told_for_how_long_in_the_place_of_a_speed() -> None:
    with watched() as screen:
        screen.after(2, progress(0))
        screen.after(2, progress(20 * MB))
        screen.report(events.PeerLost(1, LOST))
        (row,) = screen.after(9)
        assert "no connection for 9 s" in row
        assert "B/s" not in row
        screen.report(events.PeerConnected(1, DIRECT, 0.001))
        # The other end counts from the beginning, with what is there.
        screen.after(0.4, progress(0))
        (row,) = screen.after(0.6, progress(20 * MB))
        assert "no connection" not in row
        assert "B/s" not in row
    assert "20 s. Trying to connect again.\n" in screen.terminal.text


def test_time_for_which_the_program_was_stopped_is_no_stall() -> None:
    with watched() as screen:
        screen.after(1, progress(0))
        for second in range(1, 5):
            screen.after(1, progress(second * MB))
        screen.clock.now += 3600
        (row,) = screen.drawn()
        assert "stalled" not in row
        assert "kB/s" in row


def test_a_sender_sees_each_receiver_by_its_number_and_no_more_than_fit() -> None:
    with watched(sending=True) as screen:
        for peer in range(1, 101):
            path = CandidatePair("relay", "host") if peer == 2 else DIRECT
            screen.report(events.PeerConnected(peer, path, 0.001))
            screen.report(progress(peer * MB // 10, peer=peer))
        rows = screen.after(1)
        assert len(rows) == 12
        assert rows[0].startswith("Receiver 1 ")
        assert rows[0].endswith("direct")
        assert rows[1].endswith("relayed")
        assert rows[11].startswith("89 more")


def test_a_receiver_sees_how_many_files_are_complete_and_which_one_comes() -> None:
    with watched() as screen:
        screen.report(events.ManifestKnown(files("a/one.bin", "a/two.bin")))
        screen.report(progress(0, 20 * MB))
        screen.report(events.FileFinished(1, "a/one.bin", "in/a/one.bin", "00" * 32))
        rows = screen.after(1, progress(15 * MB, 20 * MB))
        assert rows[0].startswith("Received ")
        assert rows[1] == "1 of 2 files  a/two.bin (50%)"


def test_a_terminal_that_is_made_narrower_shows_less_and_breaks_no_line() -> None:
    with watched() as screen:
        screen.report(events.ManifestKnown(files("one", "two")))
        screen.report(events.PeerConnected(1, DIRECT, 0.001))
        screen.after(1, progress(0, 20 * MB))
        for columns in (80, 40, 20, 8, 80):
            screen.terminal.resize(columns, 24)
            rows = screen.after(1, progress(columns * 10_000, 20 * MB))
            assert all(0 < len(row) < columns for row in rows), rows


def test_files_that_are_saved_before_it_is_known_how_many_there_are_are_named_if_they_are_few() -> None:
    for count in (NAMED, NAMED + 1):
        names = [f"file-{n}" for n in range(count)]
        with watched() as screen:
            for name in names[:5]:
                screen.report(events.FileFinished(1, name, f"in/{name}", "00" * 32))
            screen.report(events.ManifestKnown(files(*names)))
            for name in names[5:]:
                screen.report(events.FileFinished(1, name, f"in/{name}", "00" * 32))
        named = [line for line in screen.terminal.text.splitlines() if line.startswith("in/")]
        assert named == ([f"in/{name}" for name in names] if count == NAMED else [])


@pytest.mark.parametrize("bars", [True, False])
def test_few_saved_files_are_named_on_a_terminal_and_of_many_none(bars: bool) -> None:
    for count in (NAMED, NAMED + 1):
        names = [f"file-{n}" for n in range(count)]
        with watched(bars=bars) as screen:
            screen.report(events.ManifestKnown(files(*names)))
            for name in names:
                screen.report(events.FileFinished(1, name, f"in/{name}", "00" * 32))
            screen.report(events.TransferDone(1, count, count * MB, 2.0, "00" * 32))
        shown = screen.terminal.text
        assert shown.count("in/file-") == (count if count == NAMED else 0)
        assert f"Received {count} files, {count}.0 MB into {INTO} in 2.0 s, " in shown


def test_a_pipe_gets_each_path(capfd: pytest.CaptureFixture[str]) -> None:
    names = [f"file-{n}" for n in range(3 * NAMED)]
    with HumanReporter(sending=False, bars=True, directory=Path("in")) as report:
        report(events.ManifestKnown(files(*names)))
        for name in names:
            report(events.FileFinished(1, name, f"in/{name}", "00" * 32))
    assert capfd.readouterr().out.splitlines() == [f"in/{name}" for name in names]


@pytest.mark.parametrize(
    ("sending", "expected"),
    [
        (False, f"Received 1 file, 30.0 MB into {INTO} in 2.0 s, 10.0 MB/s, through a relay"),
        (True, "Receiver 1 has everything: 1 file, 30.0 MB in 2.0 s, 10.0 MB/s, through a relay"),
    ],
)
def test_the_last_line_sums_it_up(sending: bool, expected: str, capfd: pytest.CaptureFixture[str]) -> None:
    directory = None if sending else Path("in/.")
    with HumanReporter(sending=sending, bars=True, directory=directory) as report:
        report(events.PeerConnected(1, CandidatePair("relay", "srflx"), 0.020))
        report(events.Condition(1, Limit.NETWORK, 0.02, 900, 100))
        report(events.TransferDone(1, 1, 30 * MB, 2.0, "00" * 32, resumed=10 * MB))
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"{expected} (limited by the network, 20.0 ms there and back, 10.00% sent again)"
    )


@pytest.mark.parametrize(("spared", "said"), [(24 * MB, True), (MB // 10, False)])
def test_the_sender_tells_what_compression_has_spared_if_that_is_a_hundredth(
    spared: int, said: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with HumanReporter(sending=True, bars=False) as report:
        report(events.TransferDone(1, 1, 30 * MB, 2.0, "00" * 32, spared=spared))
    last = capfd.readouterr().err.splitlines()[-1]
    more = ", 24.0 MB spared by compression" if said else ""
    assert last == f"Receiver 1 has everything: 1 file, 30.0 MB in 2.0 s, 15.0 MB/s{more}"


@pytest.mark.parametrize("sending", [False, True])
def test_what_was_left_out_is_named_at_the_end_ten_and_the_number_of_the_others(
    sending: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with HumanReporter(
        sending=sending, bars=True, directory=None if sending else Path("in"), clock=clock
    ) as report:
        report(progress(0, 5 * MB))
        for n in range(1244):
            report(events.FileLost(1, f"gone\x1b-{n}", "it vanished while it was sent"))
        assert not capfd.readouterr().err
        for name in ("one", "two"):
            report(events.FileFinished(1, name, None if sending else f"in/{name}", None))
        clock.now += 2.0
        report(progress(5 * MB, 5 * MB))
        if sending:
            report(events.PeerEnded(1, FilesFailed(failed=1244, total=1246, path="x", reason="y")))
    lines = capfd.readouterr().err.splitlines()
    who = "Receiver 1 has" if sending else "Received"
    where = "" if sending else f" into {INTO}"
    assert lines[0] == f"{who} 2 of 1,246 files, 5.00 MB{where} in 2.0 s, 2.50 MB/s"
    assert lines[1] == "Left out:"
    assert lines[2] == r"  gone\x1b-0: it vanished while it was sent"
    assert len(lines) == 2 + NAMED + 1
    assert lines[-1] == "  and 1,234 more"


@pytest.mark.parametrize("sending", [True, False])
@pytest.mark.parametrize("count", [1, 12])
def test_what_the_sender_could_not_list_is_named_once_at_the_end_as_well(
    count: int, sending: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    failures = tuple((f"locked\x1b-{n}", left_out.UNREADABLE) for n in range(count))
    named = (*failures, ("a link", left_out.LINK_SKIPPED))
    entries = files("one").entries
    offered = Manifest(entries, left_out=left_out.LeftOut(named, failures=count, others=1))
    directory = None if sending else Path("in")
    with HumanReporter(sending=sending, bars=True, directory=directory) as report:
        report(events.ManifestKnown(offered))
        if not sending:
            # A receiver hears of each as of one that was lost later.
            for path, code in failures:
                report(events.FileLost(1, path, left_out.reason(code)))
        report(events.FileFinished(1, "one", "in/one", None))
        report(events.TransferDone(1, 1, MB, 2.0, "00" * 32, missing=count))
    lines = capfd.readouterr().err.splitlines()
    del lines[: lines.index("Left out:") - 1]
    amount = f"1 of {count + 1} files, 1.00 MB "
    assert lines[0].startswith(f"Receiver 1 has {amount}" if sending else f"Received {amount}")
    assert lines[2:] == [
        *(rf"  locked\x1b-{n}: it could not be read" for n in range(min(count, NAMED))),
        *([] if count == 1 else ["  and 2 more"]),
    ]


def test_a_million_files_are_passed_over_bit_by_bit() -> None:
    found = _FilesByOffset(files(*(f"file-{n:05}" for n in range(30_000)), size=2))
    # It is not gone to at once.
    assert found.at(50_000) == ("", 0, 0)
    assert found.at(50_000) == ("", 0, 0)
    assert found.at(50_001) == ("file-25000", 1, 2)
    assert found.at(59_999) == ("file-29999", 1, 2)
    assert found.at(60_000) == ("file-29999", 2, 2)
    # Something was begun anew.
    assert found.at(3) == ("file-00001", 1, 2)


@pytest.mark.parametrize(
    ("seconds", "passed", "left"),
    [
        (0.26, "0 s", "0:00"),
        (7.2, "7 s", "0:07"),
        (125, "2 min 5 s", "2:05"),
        (12_000, "3 h 20 min", "3:20:00"),
        (10**6, "277 h 46 min", "11 days"),
    ],
)
def test_times_are_written_for_people(seconds: float, passed: str, left: str) -> None:
    assert duration_text(seconds) == passed
    assert clock_text(seconds) == left


def test_a_list_that_takes_its_time_is_one_line_that_changes_and_goes() -> None:
    with watched(sending=True) as screen:
        for entries in (1_000, 123_456):
            screen.report(events.Listing(entries))
            screen.terminal.settle()
        assert screen.terminal.text.endswith("123,456 files and directories found")
        before = len(screen.terminal.raw)
        screen.report(events.Notice("tree/fifo is left out"))
        screen.terminal.settle()
        # It is cleared before anything else is written.
        after = screen.terminal.raw[before:]
        assert b"\x1b[J" in after.partition(b"tree")[0]
        assert after.endswith(b"tree/fifo is left out\r\n")


def test_nothing_is_written_of_a_list_where_lines_are_to_stay() -> None:
    with watched(sending=True, bars=False) as screen:
        screen.report(events.Listing(1_000))
        screen.terminal.settle()
        assert screen.terminal.text == ""


def test_the_way_is_told_in_a_word() -> None:
    assert route_text(DIRECT) == "direct"
    assert route_text(CandidatePair("srflx", "relay")) == "relayed"
    assert route_text(CandidatePair("host", "host", True)) == "through the server"


def test_a_text_is_saved_nowhere_and_a_stream_has_no_end_that_is_known() -> None:
    with watched() as shown:
        text = Manifest([Entry("text", EntryKind.FILE, 5, 0o644, 0)], content=Content.TEXT)
        shown.after(0.2, events.ManifestKnown(text), events.TransferDone(1, 1, 5, 0.1, "", 0, 0))
        assert "Received a text, 5 bytes in 0.1 s" in shown.terminal.text
        assert str(INTO) not in shown.terminal.text
    with watched() as shown:
        shown.report(events.Progress(1, 0, None))
        (line,) = shown.after(2.0, events.Progress(1, 20 * MB, None))
        assert line.startswith("Received  20.0 MB  ")
        assert "%" not in line
        assert "left" not in line
        (line,) = shown.after(60.0)
        assert "stalled" not in line
