"""flyx at a terminal: the question before anything is received, progress bars, Ctrl-C, colours."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from e2e.processes import Flyx, names_in, sha256, write_random, write_sparse, write_thin

MB = 1_000_000

ENDLESS = 1000 * MB
"""Never to arrive."""

QUESTION = "? [y/N] "
BAR = "━"
EMPTY = "─"
"""The part of a bar that is not done: all of it, at first."""
ESCAPE = "\x1b"
STOP, START = "\x13", "\x11"
"""Ctrl-S and Ctrl-Q."""

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
"""A sequence that sets a colour (ECMA-48 SGR)."""


def test_the_question_lists_what_is_offered_and_only_yes_is_consent(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1_500_000)
    sender = flyx.send(source)
    code = sender.code()

    for keys in ("n\r", "\r", "\x04", "yeah\r", "no y\r"):
        receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", code)
        receiver.says(f"Save into {tmp_path}/in{QUESTION}").type(keys).ends(7)
        assert "error: The transfer was declined." in receiver.err, receiver
        assert not (tmp_path / "in").exists()

    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", code)
    receiver.says(QUESTION)
    assert "The sender offers 1 file, 1.50 MB:" in receiver.err
    assert "  file  (1.50 MB)" in receiver.err
    receiver.type("y\r").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    told = [event["message"] for event in sender.named("peer") if event["state"] == "failed"]
    assert told == ["The transfer was declined."] * 5


def test_a_yes_from_before_the_question_is_none(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 1000))
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code()).type("y\r")
    receiver.says(QUESTION).type("n\r").ends(7)
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape", "ascii:strict"])
def test_an_answer_that_is_no_text_is_no_consent(flyx: Flyx, tmp_path: Path, encoding: str) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 10))
    code = sender.code()
    for keys in ("\udcff\r", "y\udcff\r"):
        receiver = flyx.terminal(
            "receive", "--server", flyx.server, "-o", "in", code, PYTHONIOENCODING=encoding
        )
        receiver.says(QUESTION).type(keys).ends(7)
    assert not (tmp_path / "in").exists()


def test_words_that_are_no_text_are_asked_for_again(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 10)
    own = tmp_path / "words"
    own.write_text("lemon otter violin\n")
    sender = flyx.send("--code", f"@{own}", source)
    room, _, words = sender.code().partition("-")
    receiver = flyx.terminal(
        "receive", "--server", flyx.server, "-y", "-o", "in", room, PYTHONIOENCODING="utf-8:strict"
    )
    receiver.says(f"Words of the code after {room}: ")
    receiver.type(f"{words}\udcff\r").says("no text").type(f"{words}\r").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_names_in_the_question_cannot_steer_the_terminal(flyx: Flyx, tmp_path: Path) -> None:
    # Private use, zero width and unassigned characters: safe as file names, not as output.
    name = "[red]\ue000 \u200b \u0378 end.txt"
    shown = "[red]\\ue000 \\u200b \\u0378 end.txt"
    source = write_random(tmp_path / "tree" / name, 10)
    write_random(tmp_path / "tree" / "large", 2 * MB)
    sender = flyx.send(tmp_path / "tree")
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says(QUESTION)
    assert f"  tree/{shown}  (10 bytes)\r\n" in receiver.err
    assert "  tree/\r\n" in receiver.err
    assert ESCAPE not in receiver.err
    receiver.type("YES\r").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "tree" / name) == sha256(source)


def test_a_long_list_is_cut_and_counted(flyx: Flyx, tmp_path: Path) -> None:
    for n in range(30):
        write_random(tmp_path / "tree" / f"file-{n:02}", 1)
    sender = flyx.send(tmp_path / "tree")
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says("? [y/N/a] ")
    assert "tree/file-18  (1 byte" in receiver.err
    assert "tree/file-19" not in receiver.err
    assert "  and 11 more; type a to see all\r\n" in receiver.err
    receiver.type("y\r").ends(0)
    sender.ends(0)
    assert len(names_in(tmp_path / "in" / "tree")) == 30


def test_names_that_could_matter_are_shown_wherever_they_are_and_all_can_be_read(
    flyx: Flyx, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for n in range(40):
        write_random(tree / f"file-{n:02}", 1)
    write_random(tree / "z" / ".ssh" / "authorized_keys", 400)
    write_random(tree / "z" / "run", 10).chmod(0o755)
    sender = flyx.send(tree)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says("? [y/N/a] ")
    assert "  and 25 more; type a to see all\r\n" in receiver.err
    assert "  tree/z/.ssh/authorized_keys  (400 bytes)\r\n" in receiver.err
    assert "  tree/z/run  (10 bytes)\r\n" in receiver.err
    # A screen has 24 rows.
    receiver.type("a\r").says("22 more: Enter shows them, q ends the list ")
    assert "tree/file-21" in receiver.err
    assert "tree/file-22" not in receiver.err
    receiver.type("\r").says("tree/file-39").type("n\r").ends(7)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says("? [y/N/a] ").type("?\r").says("22 more: ").type("q\r").type("n\r").ends(7)
    assert "tree/file-22" not in receiver.err
    assert not (tmp_path / "in").exists()


def test_the_list_of_all_fills_the_screen_also_when_standard_output_is_elsewhere(
    flyx: Flyx, tmp_path: Path
) -> None:
    for n in range(60):
        write_random(tmp_path / "tree" / f"{n:02}{'x' * 76}", 1)
    sender = flyx.send(tmp_path / "tree")
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code(), pipe_stdout=True)
    # Each takes 95 columns of the 100 that the screen has, and with the directory there are 61.
    receiver.says("? [y/N/a] ").type("a\r").says("38 more: Enter shows them").type("q\r")
    receiver.type("n\r").ends(7)


def test_when_names_that_could_matter_are_too_many_yes_is_not_taken_before_all_were_shown(
    flyx: Flyx, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for n in range(20):
        write_random(tree / f"{n:03}", 1)
    for n in range(120):
        write_random(tree / "e" / f".{n:03}", 1)
    write_random(tree / "z" / ".ssh" / "authorized_keys", 1)
    write_random(tree / "z" / ".unknown", 1)
    sender = flyx.send("--receivers", "2", tree)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says("? [N/a] ")
    assert "  tree/z/.ssh/authorized_keys  (1 byte)\r\n" in receiver.err
    assert "  tree/z/.unknown" not in receiver.err
    receiver.type("y\r").says("More names could matter than are shown").type("YES\r").type("n\r").ends(7)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says("? [N/a] ").type("a\r").says("more: Enter shows them").type("q\r").says("? [y/N/a] ")
    receiver.type("y\r").ends(0)
    assert "tree" in names_in(tmp_path / "in")


def test_a_sender_is_told_when_the_question_is_interrupted(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 10))
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.says(QUESTION).type("\x03").ends(130)
    assert sender.event("peer", state="failed")["code"] == "interrupted"
    assert not (tmp_path / "in").exists()


def test_nothing_is_said_to_be_kept_where_nothing_has_arrived(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send(write_random(tmp_path / "file", 1000))
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", "in", sender.code()).says(QUESTION)
    sender.send_signal(signal.SIGINT).ends(130)
    assert "The transfer was interrupted: the sender stopped it" in receiver.ends(6).err
    assert "is kept" not in receiver.err


def test_bars_on_a_terminal_leave_the_code_and_the_paths_readable(flyx: Flyx, tmp_path: Path) -> None:
    # More than one drawing.
    one = write_random(tmp_path / "one.bin", 50 * MB)
    two = write_random(tmp_path / "two.bin", 50 * MB)
    sender = flyx.terminal("send", "--server", flyx.server, one, two)
    code = sender.code()
    receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", code).ends(0)
    sender.ends(0)
    for process, bar in ((sender, "Receiver 1"), (receiver, "Received")):
        assert re.search(rf"{bar} .*({BAR}|{EMPTY})", process.err), process
        assert COLOUR.search(process.err), process
        # The cursor was never hidden, and the bars are gone.
        assert "\x1b[?25l" not in process.err, process
        assert process.err.rfind(EMPTY) < process.err.rfind("\x1b[J"), process
    assert f"flyx receive --server {flyx.server} {code}\r\n" in sender.err
    assert "one.bin" in receiver.err
    for source in (one, two):
        assert f"in/{source.name}\r\n" in receiver.err, receiver
        assert sha256(tmp_path / "in" / source.name) == sha256(source)


def test_bars_do_not_touch_a_standard_output_that_is_elsewhere(flyx: Flyx, tmp_path: Path) -> None:
    # More than one drawing.
    source = write_thin(tmp_path / "file", 300 * MB)
    sender = flyx.terminal("send", "--server", flyx.server, source, pipe_stdout=True)
    code = sender.code()
    receiver = flyx.terminal(
        "receive", "--server", flyx.server, "--yes", "-o", "in", code, pipe_stdout=True
    ).ends(0)
    sender.ends(0)
    assert sender.out == f"flyx receive --server {flyx.server} {code}\n"
    assert receiver.out == "in/file\n"
    for process in (sender, receiver):
        assert EMPTY in process.err, process
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_no_color_means_no_colour(flyx: Flyx, tmp_path: Path) -> None:
    source = write_thin(tmp_path / "file", ENDLESS)
    sender = flyx.terminal("send", "--server", flyx.server, source, NO_COLOR="1")
    code = sender.code()
    receiver = flyx.terminal("receive", "--server", flyx.server, "-y", "-o", "in", code, NO_COLOR="1")
    for process in (receiver, sender):
        # Without colours an empty bar is blank: this one has grown.
        process.says(BAR)
    for process in (receiver, sender):
        process.type("\x03").ends(130)
        assert not COLOUR.search(process.err), process


@pytest.mark.parametrize("how", ["--no-progress", "--quiet", "TERM=dumb"])
def test_bars_can_be_done_without(flyx: Flyx, tmp_path: Path, how: str) -> None:
    source = write_random(tmp_path / "file", 4 * MB)
    options = [how] if how.startswith("--") else []
    term = "xterm-256color" if options else "dumb"
    common = [*options, "--server", flyx.server]
    sender = flyx.terminal("send", *common, source, TERM=term)
    receiver = flyx.terminal("receive", *common, "-y", "-o", "in", sender.code(), TERM=term).ends(0)
    sender.ends(0)
    for process in (sender, receiver):
        assert ESCAPE not in process.err, process
        assert EMPTY not in process.err, process
    assert "in/file\r\n" in receiver.err
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_ctrl_c_typed_at_a_sender_that_waits_ends_it(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.terminal("send", "--server", flyx.server, write_random(tmp_path / "file", 1))
    sender.code()
    sender.type("\x03").ends(130)
    assert "interrupted" in sender.err


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_ctrl_c_typed_in_the_middle_ends_one_and_tells_the_other(
    flyx: Flyx, tmp_path: Path, who: str
) -> None:
    source = write_thin(tmp_path / "file", ENDLESS)
    sender = flyx.terminal("send", "--server", flyx.server, source)
    receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", sender.code())
    for process in (sender, receiver):
        process.says(EMPTY)
    typed, other = (sender, receiver) if who == "sender" else (receiver, sender)
    typed.type("\x03").ends(130)
    other.says(f"the {who} stopped it")
    if other is receiver:
        receiver.ends(6)
    else:
        sender.says("The code is still good").type("\x03").ends(130)
    for process in (sender, receiver):
        assert process.err.rfind(EMPTY) < process.err.rfind("\x1b[J"), process
    # What has arrived may be kept for another try.
    assert set(names_in(tmp_path / "in")) <= {".flyx"}


def test_a_terminal_that_is_stopped_holds_up_nothing(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 20 * MB)
    sender = flyx.send(source)
    receiver = flyx.terminal("receive", "--server", flyx.server, "--yes", "-o", "in", sender.code())
    receiver.says("Joined").type(STOP)
    sender.ends(0)
    assert not [event for event in sender.named("peer") if event["state"] == "lost"]
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert "Received" not in receiver.err
    receiver.type(START).says("Received 1 file").ends(0)


def test_of_many_files_a_terminal_is_shown_how_many_and_a_pipe_gets_each(flyx: Flyx, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for n in range(1000):
        write_sparse(tree / f"{n // 100}" / f"{n:04}", 10)
    sender = flyx.send("--receivers", "2", tree)
    code = sender.code()
    common = ["receive", "--server", flyx.server, "--yes", "-o"]
    piped = flyx.terminal(*common, "piped", code, pipe_stdout=True)
    shown = flyx.terminal(*common, "shown", code)
    for receiver, into in ((piped, "piped"), (shown, "shown")):
        receiver.ends(0)
        assert f"Received 1,000 files, 10.0 kB into {tmp_path}/{into} in " in receiver.err
        # A few drawings a second, however many files there are.
        assert len(receiver.err) < 30_000
        assert f"\n{into}/" not in receiver.err
    sender.ends(0)
    saved = [str(path.relative_to(tmp_path)) for path in (tmp_path / "piped").rglob("*") if path.is_file()]
    assert sorted(piped.out.splitlines()) == sorted(saved)
    assert len(saved) == 1000
