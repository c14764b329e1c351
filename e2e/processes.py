"""Real `flyx` processes: started, listened to, signalled and waited for.

Whatever is awaited is awaited as output or as the end of a process, never as time. Deadlines only fail, and a
failure shows all that the process has said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import random
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from tests.schema import check_event

DEADLINE = 60.0
"""Seconds for anything at all, on a slow and busy machine."""

LONG = 400 * 10**6
"""Bytes that take long enough to act while they are under way, however fast the machine is."""

CODE = re.compile(r"flyx receive (?:--server \S+ )?([0-9A-Z]{6}(?:-\w+)*)\r?\n")
"""What `flyx send` prints when it is ready: with the server, if that was named."""

Event = dict[str, Any]
Found = TypeVar("Found")


class FlyxProcess:
    """A running `python -m flyx …`, its output collected by threads."""

    # Where its data appears.
    _data = "stdout"

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        directory: Path,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
    ) -> None:
        """Args:
        arguments: what comes after `flyx`.
        environment: all of it.
        directory: where it runs.
        stdin: a descriptor, of which it gets its own.
        stdout: the same; what is written there is then not collected.
        """
        self.name = " ".join(["flyx", *arguments])
        self._stdin, self._stdout = stdin, stdout
        # Where a file goes to standard output, events do not.
        self._events_at = "stderr" if "-o -" in self.name else "stdout"
        # Notified whenever there is something new; guards what the threads write.
        self._news = threading.Condition()
        self._raw = {"stdout": b"", "stderr": b""}
        # Streams that have not ended, and the threads that read them.
        self._open: set[str] = set()
        self._threads: list[threading.Thread] = []
        # Events of the complete lines of standard output that were parsed so far.
        self._events: list[Event] = []
        self._parsed = 0
        self.process = self._start([sys.executable, "-m", "flyx", *arguments], environment, directory)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            stdin=self._stdin,
            stdout=self._stdout,
            stderr=subprocess.PIPE,
            cwd=directory,
            env=environment,
            # A process group that kill() ends as a whole.
            start_new_session=True,
        )
        assert process.stderr is not None
        if process.stdout is not None:
            self._collect("stdout", process.stdout.fileno())
        self._collect("stderr", process.stderr.fileno())
        return process

    # What it has said.

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._text("stdout")

    @property
    def data(self) -> bytes:
        """The bytes of standard output so far."""
        with self._news:
            return self._raw["stdout"]

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._text("stderr")

    @property
    def crashed(self) -> bool:
        """Whether it has shown a traceback that --debug had not asked for: those are marked."""
        return re.search("^Traceback", self.err, re.MULTILINE) is not None

    @property
    def events(self) -> list[Event]:
        """The events of --json so far: every complete line where they go must be one of the schema."""
        lines = self._text(self._events_at).split("\n")[:-1]
        for line in lines[self._parsed :]:
            event = json.loads(line)
            check_event(event)
            self._events.append(event)
        self._parsed = len(lines)
        return list(self._events)

    def named(self, name: str) -> list[Event]:
        """The events of this name so far."""
        return [event for event in self.events if event["event"] == name]

    # Waiting.

    def event(self, name: str, matches: Callable[[Event], bool] = lambda _: True, **fields: Any) -> Event:
        """Wait for an event of this name with these fields; return the first."""

        def find() -> Event | None:
            for event in self.named(name):
                if fields.items() <= event.items() and matches(event):
                    return event
            return None

        return self._await(find, f"an event {name} {fields or ''}")

    def mid_transfer(self, peer: int = 1) -> Self:
        """Wait until some bytes are at the receiver, but not all."""
        progress = self.event("progress", lambda e: 0 < e["bytes"], peer=peer)
        assert progress["bytes"] < progress["total"], "too small a file to act while it is under way"
        return self

    def code(self) -> str:
        """Wait until a sender is ready, in whatever mode; return the code it tells."""
        if "--json" in self.name.split():
            return str(self.event("room")["code"])
        return str(self._await(lambda: CODE.search(self._text(self._data)), "the code")[1])

    def complains(self, status: int, message: str, hint: str = "", within: float = DEADLINE) -> Self:
        """Wait for the end without --json: its last words are an `error:` and a `hint:` with these texts."""
        lines = self.ends(status, within).err.splitlines()
        expected = [f"error: {message}", *([f"hint: {hint}"] if hint else [])]
        assert len(lines) >= len(expected), self
        for line, start in zip(lines[-len(expected) :], expected, strict=True):
            assert line.startswith(start), self
        return self

    def prints(self, pattern: str) -> re.Match[str]:
        """Wait for this pattern on standard output; return its first match."""
        match: re.Match[str] = self._await(lambda: re.search(pattern, self.out), f"{pattern!r}")
        return match

    def writes(self, data: bytes) -> Self:
        """Wait until standard output is these bytes, or begins with them."""
        self._await(lambda: self.data.startswith(data) or None, f"{data[:100]!r}")
        return self

    def says(self, text: str) -> Self:
        """Wait for this text on standard error."""
        self._await(lambda: (text in self.err) or None, f"{text!r} on standard error")
        return self

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait for this pattern on standard error; return its first match."""
        what = f"{pattern!r} on standard error"
        match: re.Match[str] = self._await(lambda: re.search(pattern, self.err), what)
        return match

    def ends(self, status: int, within: float = DEADLINE) -> Self:
        """Wait for the end, with this exit status and without a traceback."""
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self}") from None
        self._join()
        assert self.process.returncode == status, self
        assert not self.crashed, self
        return self

    def fails(self, status: int, code: str, within: float = DEADLINE) -> Self:
        """Wait for the end with --json, with this exit status and one event `error` with this code."""
        self.ends(status, within)
        assert [error["code"] for error in self.named("error")] == [code], self
        assert self.events[-1]["event"] == "error", self
        assert self._events_at == "stderr" or self.err == "", self
        return self

    # Signals.

    def send_signal(self, number: int) -> Self:
        """Send a signal to the process alone, not to its children."""
        self.process.send_signal(number)
        return self

    def stop(self) -> Self:
        """Make it stand still, all its threads, until resume()."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return self

    @property
    def peak_memory(self) -> int:
        """Bytes of memory that it had at the most until now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert match
        return int(match[1]) * 1024

    def resume(self) -> Self:
        """Let it go on after stop()."""
        return self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and its children if they run, and let go of everything."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE)
        self._join()

    def __repr__(self) -> str:
        status = self.process.poll()
        return f"{self.name}\nstatus {status}\n--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-4000:]}"

    # Collecting.

    def _collect(self, stream: str, handle: int) -> None:
        handle = os.dup(handle)
        self._open.add(stream)
        thread = threading.Thread(target=self._read, args=(stream, handle), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, stream: str, handle: int) -> None:
        while chunk := _read_chunk(handle):
            with self._news:
                self._raw[stream] += chunk
                self._news.notify_all()
        os.close(handle)
        with self._news:
            self._open.discard(stream)
            self._news.notify_all()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

    def _text(self, stream: str) -> str:
        with self._news:
            return self._raw[stream].decode("utf-8", "surrogateescape")

    def _await(self, find: Callable[[], Found | None], what: str) -> Found:
        """Wait until find() returns something, and return it."""
        with self._news:
            self._news.wait_for(lambda: find() is not None or not self._open, DEADLINE)
        found = find()
        assert found is not None, f"waited for {what} in vain: {self}"
        return found


def lasting_port() -> int:
    """Return a port of the loopback that is free, and stays so while a server that has it is down.

    One that the system hands out it hands to others meanwhile, also to who tries to reach that server.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Server(FlyxProcess):
    """A running `flyx serve` on the loopback."""

    def __init__(
        self, environment: dict[str, str], directory: Path, *options: str | Path, port: int | None = None
    ) -> None:
        """Args:
        environment: all of it.
        directory: where it runs.
        options: more of them.
        port: None is one that nobody has.
        """
        arguments = ["serve", "--host", "127.0.0.1", "--port", str(port or lasting_port()), "--stun", "none"]
        # All tests come from one address.
        for rate in ("create", "join", "miss", "total-miss"):
            arguments += [f"--{rate}-rate", "none"]
        arguments += ["--log-level", "warning", *(str(option) for option in options)]
        super().__init__(arguments, environment, directory)
        self.url: str = self.prints(r"^flyx serve: listening on (ws://\S+)\n")[1]
        self.port = int(self.url.rpartition(":")[2])


class Terminal(FlyxProcess):
    """A process with a terminal of its own: what is on its screen counts as standard error."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        directory: Path,
        *,
        pipe_stdout: bool,
    ) -> None:
        """Args:
        pipe_stdout: give it a pipe as standard output, as `flyx … | cat` does, and the terminal for the rest.
        """
        self._pipe_stdout = pipe_stdout
        if not pipe_stdout:
            self._data = "stderr"
        # The keyboard and the screen.
        self._terminal = -1
        super().__init__(arguments, environment, directory)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        self._terminal, inside = pty.openpty()
        termios.tcsetwinsize(inside, (24, 100))
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            stdin=inside,
            stdout=subprocess.PIPE if self._pipe_stdout else inside,
            stderr=inside,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        os.close(inside)
        if process.stdout:
            self._collect("stdout", process.stdout.fileno())
        self._collect("stderr", self._terminal)
        return process

    def type(self, keys: str) -> Self:
        """Type on the keyboard; a byte that is no UTF-8 is written as `surrogateescape` has it."""
        os.write(self._terminal, keys.encode("utf-8", "surrogateescape"))
        return self

    def kill(self) -> None:
        super().kill()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1


TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
# The tests themselves may run under nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs in the new session: Ctrl-C reaches those whose controlling terminal it is. Then it becomes flyx."""


class HostilePeer:
    """A process of e2e.peers.hostile_peer."""

    def __init__(self, flyx: Flyx, *arguments: str) -> None:
        role, lie, *rest = arguments
        self.process = subprocess.Popen(
            [sys.executable, "-m", "e2e.peers.hostile_peer", role, lie, flyx.server, *rest],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            env=flyx.environment,
            text=True,
        )

    def says(self) -> dict[str, Any]:
        """Wait for its next line."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Flyx:
    """Starts processes in one directory, against one server; ends them all with the test."""

    def __init__(self, server: str, directory: Path, environment: dict[str, str]) -> None:
        """Args:
        server: URL of the signaling server.
        directory: where processes run; theirs alone.
        environment: of every process.
        """
        self.server = server
        self.directory = directory
        self.environment = environment
        self._processes: list[FlyxProcess] = []

    def start(
        self,
        *arguments: str | Path,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        **environment: str,
    ) -> FlyxProcess:
        """Run flyx with exactly these arguments, and these variables besides."""
        words = [str(a) for a in arguments]
        variables = self.environment | environment
        return self.adopt(FlyxProcess(words, variables, self.directory, stdin=stdin, stdout=stdout))

    def terminal(self, *arguments: str | Path, pipe_stdout: bool = False, **environment: str) -> Terminal:
        """Run flyx on a terminal of its own, with these variables besides."""
        started = Terminal(
            [str(a) for a in arguments],
            self.environment | environment,
            self.directory,
            pipe_stdout=pipe_stdout,
        )
        self.adopt(started)
        return started

    def send(self, *arguments: str | Path, stdin: int = subprocess.DEVNULL) -> FlyxProcess:
        """Run `flyx send --json` against the server."""
        return self.start("send", "--server", self.server, "--json", *arguments, stdin=stdin)

    def receive(
        self, code: str, directory: str | Path, *arguments: str | Path, stdout: int = subprocess.PIPE
    ) -> FlyxProcess:
        """Run `flyx receive --json --yes -o directory` against the server."""
        options = ("--server", self.server, "--json", "--yes", "-o", directory, *arguments)
        return self.start("receive", *options, code, stdout=stdout)

    def adopt(self, process: FlyxProcess) -> FlyxProcess:
        """End this process with the test, too."""
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End whatever still runs; none may have shown a traceback."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            assert not process.crashed, process


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment for processes that nothing on this machine configures."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLYX_", "XDG_"))}
    kept = {key: value for key, value in kept.items() if not key.lower().endswith("_proxy")}
    for key in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        kept.pop(key, None)
    return kept | {"HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


def need(what: str, there: bool, *, in_ci: bool = True) -> None:
    """Skip for want of something, but not in CI where that has it."""
    if there:
        return
    if in_ci and os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and this is CI")
    pytest.skip(f"{what} is missing")


# Files and trees.


def write_random(path: Path, size: int) -> Path:
    """Make a file of random bytes, and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))
    return path


def write_text(path: Path, size: int) -> Path:
    """Write so many bytes of words in any order, of which compression leaves a half; return the path."""
    chance = random.Random(size)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(100)]
    text = b" ".join(chance.choices(words, k=200_000))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, len(text)):
            file.write(text[: size - start])
    return path


def write_sparse(path: Path, size: int) -> Path:
    """Make a file that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


def write_thin(path: Path, size: int) -> Path:
    """Make a file that takes little room on the disk, and yet has data in each of its blocks."""
    write_sparse(path, size)
    with path.open("r+b") as file:
        for at in range(0, size, 1 << 20):
            os.pwrite(file.fileno(), b"x", at)
    return path


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def snapshot(path: Path) -> dict[str, tuple[str, int, int]]:
    """Return all there is at and below a path: content, mode and mtime in microseconds, by relative path."""
    found = {}
    for item in (path, *path.rglob("*")):
        status = item.lstat()
        content = "directory" if item.is_dir() else sha256(item)
        name = str(item.relative_to(path))
        found[name] = content, stat.S_IMODE(status.st_mode), status.st_mtime_ns // 1000
    return found


def names_in(directory: Path) -> list[str]:
    """Return what a directory holds, hidden things included; nothing if there is none."""
    return sorted(os.listdir(directory)) if directory.exists() else []


def _read_chunk(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:
        # The end of a pseudo-terminal, once nobody has its other side.
        return b""
