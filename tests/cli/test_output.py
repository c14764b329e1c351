"""What people and scripts read."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli import output
from flyx.cli.demo import parse_size
from flyx.cli.offer import summarize
from flyx.cli.output import (
    JsonReporter,
    QuietReporter,
    Reporter,
    directory_text,
    event_fields,
    files_text,
    path_text,
    report_error,
    write_data,
)
from flyx.cli.progress import HumanReporter, _FilesByOffset
from flyx.client import events
from flyx.client.limits import Limit
from flyx.errors import ConnectionLost, Declined, FlyxError, InputError, NoSpace, NoSuchRoom, TooManyTries
from flyx.rtc.attempts import Attempts, PairAttempt, PairState, ServerAttempt
from flyx.rtc.path import CandidatePair
from tests.cli.screen import on_terminal
from tests.hostile_text import assert_tame
from tests.schema import EVENTS, check_event, fields_of
from tests.simulator import manifest_of

MANIFEST = manifest_of({"d": None, "d/one": b"1" * 10, "d/empty": b"", "d/two": b"2" * 5})

ATTEMPTS = Attempts(
    (PairAttempt("host", "srflx", 4, PairState.IN_PROGRESS, "192.0.2.7:1", "198.51.100.9:2"),),
    (ServerAttempt("turn:turn.example.org", "turn"), ServerAttempt("turn:\x1b[2J", "turn", "did not answer")),
    3,
)

EVERY_EVENT: list[events.Event] = [
    events.RoomOpened("K7M2QX", "K7M2QX-lemon-otter", "ws://flyx.example.org\x1b[2J", local=False),
    events.RoomJoined("K7M2QX", "ws://flyx.example.org\x1b[2J", local=False),
    events.PeerJoined(1),
    events.Connecting(1, ATTEMPTS),
    events.PeerPaired(1),
    events.PeerConnected(1, CandidatePair("host", "srflx"), 0.0123456789),
    events.Condition(1, Limit.NETWORK, 0.02, 900, 100),
    events.Condition(1, None, None, 0, 0),
    events.PeerLost(1, ConnectionLost(reason="nothing was heard")),
    events.PeerEnded(1, None),
    events.PeerEnded(1, Declined()),
    events.Listing(123_456),
    events.ManifestKnown(MANIFEST),
    events.Resuming(1, 2, 10),
    events.Progress(1, 5, 15),
    events.FileFinished(1, "d/one", "out/d/one", "00" * 32, "blake3"),
    events.FileFinished(1, "d/one", None, None),
    events.TextReceived(1, "two\nlines\n"),
    events.FileLost(1, "d/\x1b[2Jtwo", "it vanished"),
    events.TransferDone(1, 3, 15, 1.5, "00" * 32),
    events.Notice("skipped \x1b[2J: a symbolic link"),
]


def test_while_connecting_scripts_and_people_hear_what_is_tried_without_addresses(
    capfd: pytest.CaptureFixture[str],
) -> None:
    name, fields = event_fields(events.Connecting(1, ATTEMPTS))
    assert name == "connecting"
    assert fields["pairs"] == [{"local": "host", "remote": "srflx", "family": 4, "state": "in_progress"}]
    assert fields["servers"][0] == {"url": "turn:turn.example.org", "outcome": None, "code": None}
    with HumanReporter(sending=False, bars=False) as reporter:
        reporter(events.Connecting(1, ATTEMPTS))
    text = capfd.readouterr().err
    assert text.startswith(
        "Sender: not connected yet. Trying 3 addresses of the other side; "
        "the relay turn.example.org has not answered yet; "
    )
    assert "192.0.2.7" not in f"{text}{fields}"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (CandidatePair("host", "host", is_local=True), "directly over the local network"),
        (CandidatePair("host", "host", family=6), "directly over IPv6"),
        (CandidatePair("host", "srflx"), "directly over IPv4, through a NAT"),
        (CandidatePair("prflx", "host"), "directly over IPv4, through a NAT"),
        (CandidatePair("relay", "host", relay="turn.example.org"), "through the relay turn.example.org"),
        (CandidatePair("relay", "relay"), "through a relay"),
        (
            CandidatePair("host", "host", True),
            "through the signaling server, the last resort: no other way was found",
        ),
        (CandidatePair("host", "relay"), "through a relay of the other side"),
    ],
)
def test_the_way_is_told_in_words(path: CandidatePair, words: str) -> None:
    assert path_text(path) == words


def test_the_summary_tells_what_has_limited_most_of_the_transfer(capfd: pytest.CaptureFixture[str]) -> None:
    with HumanReporter(sending=True, bars=False) as reporter:
        for limit in (Limit.SENDERS_DISK, Limit.NETWORK, Limit.NETWORK, None):
            reporter(events.Condition(1, limit, 0.02, 900, 100))
        reporter(events.TransferDone(1, 1, 1000, 1.0, "00" * 32))
        reporter(events.TransferDone(2, 1, 1000, 1.0, "00" * 32))
    first, second = capfd.readouterr().err.splitlines()
    assert first.endswith("(limited by the network, 20.0 ms there and back, 10.00% sent again)")
    assert second.endswith("1.00 kB/s")


def test_a_rate_limit_is_told_as_what_it_is_to_people_and_scripts(capfd: pytest.CaptureFixture[str]) -> None:
    condition = events.Condition(1, Limit.RATE, 0.02, 900, 0)
    assert event_fields(condition)[1]["limit"] == "rate limit"
    with HumanReporter(sending=False, bars=False) as reporter:
        reporter(condition)
        reporter(events.TransferDone(1, 1, 1000, 1.0, "00" * 32))
    assert capfd.readouterr().err.endswith("1.00 kB/s (at the rate limit, 20.0 ms there and back)\n")


def test_the_list_above_has_every_event() -> None:
    assert {type(event) for event in EVERY_EVENT} == set(get_args(events.Event))


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_each_event_is_one_line_of_json_as_the_schema_has_it(
    event: events.Event, capfd: pytest.CaptureFixture[str]
) -> None:
    with JsonReporter() as reporter:
        reporter(event)
    out, err = capfd.readouterr()
    assert not err
    assert "\x1b" not in out
    told, *more = [json.loads(line) for line in out.splitlines()]
    assert told["event"] == event_fields(event)[0]
    assert [each["event"] for each in more] == ["entries"] * isinstance(event, events.ManifestKnown)
    for each in (told, *more):
        check_event(each)


def test_the_schema_has_no_event_and_no_field_that_is_never_written() -> None:
    written: dict[str, set[str]] = {}
    for event in EVERY_EVENT:
        name, fields = event_fields(event)
        written.setdefault(name, set()).update(fields)
    elsewhere = {"entries", "finding", "examined", "measured", "benched", "setting", "mistake", "error"}
    assert set(EVENTS) == set(written) | elsewhere
    assert {name: fields_of(EVENTS[name]) for name in written} == written


@pytest.mark.parametrize("sending", [True, False])
def test_lines_for_people_cannot_be_steered_by_the_other_side(
    sending: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with HumanReporter(sending=sending, bars=True) as reporter:
        for event in EVERY_EVENT:
            reporter(event)
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err
    assert all(line for line in err.splitlines())


def test_the_sender_prints_the_command_alone_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    code, named, here = "K7M2QX-lemon-otter", "wss://flyx.example.org", "ws://127.0.0.1:8000"
    for room, option, note in (
        (
            events.RoomOpened("K7M2QX", code, named, False, pass_on=True),
            f"--server {named} ",
            "the other computer",
        ),
        (
            events.RoomOpened("K7M2QX", code, "ws://192.0.2.7:13599", True),
            "",
            "another computer on this network",
        ),
        (events.RoomOpened("K7M2QX", code, here, False, here_only=True), "", "On this computer, as no other"),
        (
            events.RoomOpened("K7M2QX", code, here, False, pass_on=True, here_only=True),
            f"--server {here} ",
            "On this computer, as no other",
        ),
    ):
        for reporter in (HumanReporter(sending=True, bars=True), QuietReporter()):
            with reporter:
                reporter(room)
            out, err = capfd.readouterr()
            assert out == f"flyx receive {option}{code}\n"
            assert note in err or isinstance(reporter, QuietReporter)


def test_quiet_prints_data_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with QuietReporter() as reporter:
        for event in EVERY_EVENT:
            reporter(event)
    out, err = capfd.readouterr()
    assert out == "flyx receive K7M2QX-lemon-otter\nout/d/one\ntwo\nlines\n"
    assert not err


def test_a_text_into_a_pipe_is_exact(capfd: pytest.CaptureFixture[str]) -> None:
    every_control = "".join(map(chr, range(0x20))) + "\x7f\x85\u202e without an end"
    with HumanReporter(sending=False, bars=True) as reporter:
        reporter(events.TextReceived(1, every_control))
    assert capfd.readouterr().out == every_control


def test_a_text_on_a_terminal_keeps_its_lines_and_steers_nothing() -> None:
    every_control = "".join(map(chr, range(0x20))) + "\x7f\x85\u202e"
    with on_terminal() as screen, HumanReporter(sending=False, bars=True) as reporter:
        reporter(events.TextReceived(1, f"{every_control}\r\n\tsecond\n"))
    assert_tame(screen.text.replace("\r\n", "\n"))
    last = screen.text.replace("\r\n", "\n").splitlines()[-2:]
    assert last[0].endswith("\\x1f\\x7f\\x85\\u202e")
    assert last[1] == "        second"


def test_errors_and_hints_are_two_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyx.cli.output._json_errors", False)
    report_error(NoSuchRoom(room_id="ABC123"))
    out, err = capfd.readouterr()
    assert not out
    error, hint = err.splitlines()
    assert error == "error: No sender is waiting under the code ABC123."
    assert hint.startswith("hint: ")


def test_with_json_errors_are_events(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyx.cli.output._json_errors", True)
    report_error(NoSuchRoom(room_id="ABC123"))
    told = json.loads(capfd.readouterr().out)
    check_event(told)
    assert told["event"] == "error"
    assert told["code"] == "no_such_room"


def test_an_offer_is_listed_with_names_escaped_and_the_rest_counted() -> None:
    lines = summarize(manifest_of({"\x1b[2J": b"x"})).lines
    assert lines == ["The sender offers 1 file, 1 byte:", r"  \x1b[2J  (1 byte)"]
    many = summarize(manifest_of({f"d/{i:04}": b"" for i in range(1234)})).lines
    assert many[-1] == "  and 1,214 more; type a to see all"


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((1, 0, 5), "1 file, 5 bytes"),
        ((3, 2, 12_345_678), "3 files, 12.3 MB"),
        ((0, 1, 0), "1 directory, 0 bytes"),
        ((0, 2, 0), "2 directories, 0 bytes"),
    ],
)
def test_amounts_are_written_for_people(counts: tuple[int, int, int], text: str) -> None:
    assert files_text(*counts) == text


def test_the_file_under_way_follows_from_the_bytes_done() -> None:
    files = _FilesByOffset(MANIFEST)
    assert files.at(0) == ("d/one", 0, 10)
    assert files.at(9) == ("d/one", 9, 10)
    assert files.at(10) == ("d/two", 0, 5)
    assert files.at(15) == ("d/two", 5, 5)


def test_bars_show_the_whole_and_the_file() -> None:
    with (
        on_terminal() as screen,
        HumanReporter(sending=False, bars=True) as reporter,
    ):
        reporter(events.ManifestKnown(MANIFEST))
        reporter(events.Progress(1, 12, 15))
        reporter.draw()
    shown = screen.text
    assert "1 of 3 files" not in shown
    assert "0 of 3 files" in shown
    assert "d/two" in shown


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("12", 12),
        ("500KB", 500_000),
        ("100MB", 10**8),
        ("1GiB", 1 << 30),
        ("1.5 kb", 1500),
        ("2g", 2 * 10**9),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1XB", "MB", "1e9", "9999999999TB", "nan", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (
            events.PeerEnded(1, Declined(), True),
            "Receiver 1 declined. The code is still good for another try.",
        ),
        (events.PeerEnded(2, Declined()), "Receiver 2 declined."),
        (
            events.PeerEnded(3, NoSpace(directory="d", shortage="2 B needed, 1 B free")),
            "Receiver 3: Not enough space in d: 2 B needed, 1 B free.",
        ),
        # The program ends with these very words.
        (events.PeerEnded(4, TooManyTries(tries=3)), ""),
    ],
)
def test_a_receiver_that_fails_is_told_of_and_a_code_called_good_if_it_is(
    ended: events.PeerEnded, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with HumanReporter(sending=True, bars=False) as reporter:
        reporter(ended)
    assert capfd.readouterr().err == (f"{told}\n" if told else "")


def test_a_directory_is_shown_as_it_was_written_where_it_is_relative_to_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    assert directory_text(Path("in")) == str(here / "in")
    here.rmdir()
    assert directory_text(Path("in\n")) == r"in\n"


def finished(number: int) -> events.FileFinished:
    return events.FileFinished(1, f"d/{number}", f"out/d/{number}", "00" * 32, "blake3")


def make_reporter(kind: str) -> Reporter:
    if kind == "people":
        return HumanReporter(sending=False, bars=False)
    return JsonReporter() if kind == "json" else QuietReporter()


@pytest.mark.parametrize("kind", ["json", "quiet", "people"])
async def test_files_that_end_together_are_told_together_and_before_what_follows(
    kind: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = os.write, []
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(fd) or write(fd, data))
    with make_reporter(kind) as reporter:
        for number in range(20):
            reporter(finished(number))
        assert not written
        await asyncio.sleep(0)
        assert len(written) == -(-len(capfd.readouterr().out) // 4096)
        reporter(finished(20))
        write_data("next")
        reporter(finished(21))
        reporter(events.Notice("after it"))
        reporter(finished(22))
    lines = capfd.readouterr().out.splitlines()
    places = [n for n, line in enumerate(lines) for name in ("d/20", "next", "d/21", "d/22") if name in line]
    assert places == sorted(places)
    assert len(places) == 4


def test_without_an_event_loop_a_file_is_told_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    JsonReporter()(finished(0))
    assert json.loads(capfd.readouterr().out)["path"] == "d/0"


@pytest.mark.parametrize("kind", ["json", "quiet"])
@pytest.mark.parametrize("ends", [False, True])
async def test_a_reader_that_has_gone_is_told_with_the_next_event_or_at_the_end(
    kind: str, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stream: object, data: bytes) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(output, "write_bytes", fail)
    monkeypatch.setattr(output, "abandon_output", lambda: None)

    def go_on(reporter: Reporter, error: FlyxError | None = None) -> None:
        with reporter:
            if error:
                reporter(finished(0))
                raise error
            if not ends:
                reporter(finished(1))
                raise AssertionError("it was told nothing")

    reporter = make_reporter(kind)
    reporter(finished(0))
    await asyncio.sleep(0)
    with pytest.raises(BrokenPipeError):
        go_on(reporter)
    # What went wrong otherwise counts more.
    with pytest.raises(InputError):
        go_on(reporter, InputError(reason="it failed"))


@given(path=st.text() | st.text(st.sampled_from('ab/"\\\x7f\x00\x1f\u00e9\udcff\U0001f600')))
def test_a_file_is_told_in_the_same_words_as_any_other_event(path: str) -> None:
    name, fields = event_fields(events.FileFinished(1, path, f"out/{path}", "00" * 32, "blake3"))
    assert name == "file"
    with patch.object(output.time, "time", lambda: 1796073889.6734):
        assert output._file_line(name, fields) == output._event_line(name, fields)
