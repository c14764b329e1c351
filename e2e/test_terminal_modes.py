"""What the terminal is left like: Ctrl-Z and fg, a terminal that is closed, its mode in every way out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.processes import DEADLINE, TAKE_TERMINAL, Flyx, need, sha256, write_random, write_thin

MB = 1_000_000
EMPTY = "─"
QUESTION = "? [y/N] "


class OwnTerminal:
    """A terminal, and what runs on it as in a session of its own."""

    def __init__(self, flyx: Flyx, command: list[str]) -> None:
        self.outside, self.inside = pty.openpty()
        termios.tcsetwinsize(self.inside, (24, 100))
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            stdin=self.inside,
            stdout=self.inside,
            stderr=self.inside,
            cwd=flyx.directory,
            env=flyx.environment,
            start_new_session=True,
        )

    def says(self, pattern: str) -> str:
        """Wait for this pattern on the screen; return all that stands there."""
        deadline = time.monotonic() + DEADLINE
        while not re.search(pattern, self.shown):
            left = deadline - time.monotonic()
            assert select.select([self.outside], [], [], max(0, left))[0], self.shown[-2000:]
            self.shown += os.read(self.outside, 1 << 16).decode("utf-8", "replace")
        return self.shown

    def type(self, keys: str) -> None:
        """Type on the keyboard."""
        os.write(self.outside, keys.encode())

    def mode(self) -> tuple[int, list[object]]:
        """What programs share that have this terminal open."""
        return fcntl.fcntl(self.inside, fcntl.F_GETFL), termios.tcgetattr(self.inside)

    def close(self) -> None:
        """Close its window."""
        for descriptor in {self.outside, self.inside} - {-1}:
            os.close(descriptor)
        self.outside = self.inside = -1


@contextmanager
def terminal(flyx: Flyx, *command: str) -> Iterator[OwnTerminal]:
    opened = OwnTerminal(flyx, list(command))
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            os.killpg(opened.process.pid, signal.SIGKILL)
            opened.process.wait(DEADLINE)
        opened.close()


def receiver(flyx: Flyx, code: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "flyx", "receive", "--server", flyx.server, "-o", "in", *options, code]


def test_the_terminal_keeps_its_mode_whatever_ends_flyx(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 3 * MB)
    sender = flyx.send(source)
    code = sender.code()
    for end, status in (("\x03", 130), ("\x04", 7), (signal.SIGTERM, 130), (signal.SIGHUP, 130), ("y\r", 0)):
        with terminal(flyx, *receiver(flyx, code)) as screen:
            before = screen.mode()
            screen.says(re.escape(QUESTION))
            assert screen.mode() == before
            if isinstance(end, str):
                screen.type(end)
            else:
                screen.process.send_signal(end)
            shown = screen.says("interrupted|error: |Received ")
            assert screen.process.wait(DEADLINE) == status, shown
            assert screen.mode() == before
            if status:
                # What it says has a line of its own, below the question.
                assert re.search(r"\[y/N\] (\^C)?\r\n\r?(interrupted|error: The transfer was decl)", shown), (
                    shown
                )
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_closing_the_terminal_says_goodbye_to_the_other_side(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send(write_thin(tmp_path / "file", 1000 * MB))
    with terminal(flyx, *receiver(flyx, sender.code(), "--yes")) as screen:
        screen.says(EMPTY)
        screen.close()
        assert screen.process.wait(DEADLINE) == 130
    told = sender.event("peer", state="failed")
    assert told["message"] == "The transfer was interrupted: the receiver stopped it"


def test_a_process_that_the_end_of_a_session_does_not_concern_outlives_it(flyx: Flyx, tmp_path: Path) -> None:
    need("nohup", shutil.which("nohup") is not None)
    source = write_random(tmp_path / "file", 3 * MB)
    sender = flyx.send(source)
    nohup = shutil.which("nohup") or ""
    with terminal(flyx, nohup, *receiver(flyx, sender.code(), "--yes")) as screen:
        sender.event("peer", state="joined")
        screen.process.send_signal(signal.SIGHUP)
        sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_ctrl_z_takes_the_bars_off_and_fg_brings_them_back(flyx: Flyx, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    need("bash", bash is not None)
    sender = flyx.send(write_thin(tmp_path / "file", 1000 * MB))
    with terminal(flyx, str(bash), "--norc", "--noprofile", "-i") as shell:
        shell.type(f"PS1='ready> '; {' '.join(receiver(flyx, sender.code(), '--yes'))}\r")
        shell.says(EMPTY)
        shell.type("\x1a")
        shown = shell.says("Stopped[^>]*ready> ")
        # Nothing is drawn below what the shell says; above it the bar has gone.
        assert re.search("\r\x1b\\[J(?!.*─).*Stopped", shown, re.DOTALL), shown
        before = len(shown)
        shell.type("fg\r")
        shown = shell.says(f"(?s).{{{before}}}.*{EMPTY}")
        assert "stalled" not in shown[before:]
        shell.type("\x03")
        shell.says("interrupted\r\n")
        shell.type("exit\r")
        shell.process.wait(DEADLINE)
    assert not [event for event in sender.named("peer") if event["state"] == "lost"]
