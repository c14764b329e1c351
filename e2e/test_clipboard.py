"""`flyx send --copy` on real terminals, and without one."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest

from e2e.processes import Flyx, FlyxProcess, sha256, write_random
from flyx.cli.clipboard import COPIED, NOT_COPIED

MB = 1_000_000

COPY = re.compile(r"\x1b\]52;c;([^\x07]*)\x07")
"""OSC 52 of xterm."""


def copied(process: FlyxProcess) -> list[str]:
    """What it has told its terminal to put on the clipboard."""
    return [b64decode(text, validate=True).decode() for text in COPY.findall(process.err)]


@pytest.mark.parametrize("pipe_stdout", [False, True], ids=["terminal", "stdout is a pipe"])
def test_what_is_on_the_clipboard_receives_the_files(flyx: Flyx, tmp_path: Path, pipe_stdout: bool) -> None:
    source = write_random(tmp_path / "file", 20 * MB)
    arguments = ["send", "--server", flyx.server, "--copy", source]
    sender = flyx.terminal(*arguments, pipe_stdout=pipe_stdout)
    sender.says(COPIED)
    (command,) = copied(sender)
    program, verb, *pasted = command.split()
    assert (program, verb) == ("flyx", "receive")
    (sender.prints if pipe_stdout else sender.shows)(re.escape(command))
    flyx.start("receive", "--yes", "-o", "in", *pasted).ends(0)
    sender.ends(0)
    assert len(copied(sender)) == 1
    # At the beginning of a line, whether a bar was there to be drawn over or not.
    assert re.search(r"[\r\n]Receiver 1 has everything: 1 file, 20\.0 MB", sender.err)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


@pytest.mark.parametrize("mode", ["--quiet", "--json"])
def test_the_command_is_copied_without_a_line_that_says_so_with_quiet_or_json(
    flyx: Flyx, tmp_path: Path, mode: str
) -> None:
    source = write_random(tmp_path / "file", 1)
    sender = flyx.terminal("send", "--server", flyx.server, mode, source, pipe_stdout=True, FLYX_COPY="1")
    code = sender.code() if mode == "--json" else sender.prints(r"flyx receive --server \S+ (\S+)\n")[1]
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert copied(sender) == [f"flyx receive --server {flyx.server} {code}"]
    assert COPY.sub("", sender.err) == ""
    if mode == "--json":
        assert COPIED in [event["message"] for event in sender.named("notice")]


@pytest.mark.parametrize("term", [None, "dumb"], ids=["no terminal", "TERM=dumb"])
def test_without_a_terminal_it_is_said_in_a_line_and_the_files_are_sent(
    flyx: Flyx, tmp_path: Path, term: str | None
) -> None:
    source = write_random(tmp_path / "file", 1)
    arguments = ["send", "--server", flyx.server, "--copy", source]
    sender = flyx.terminal(*arguments, TERM=term) if term else flyx.start(*arguments)
    sender.says(NOT_COPIED)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert "\x1b]" not in sender.err + sender.out


def test_a_terminal_that_is_stopped_holds_up_nothing(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1)
    sender = flyx.terminal("send", "--server", flyx.server, "--copy", source, pipe_stdout=True)
    # Ctrl-S, before anything is said.
    sender.type("\x13")
    code = sender.prints(r"flyx receive --server \S+ (\S+)\n")[1]
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.type("\x11").ends(0)
    assert len(copied(sender)) == 1
