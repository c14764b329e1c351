"""Standard input, texts and standard output: what flows through flyx without being a file."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from e2e.network import Network
from e2e.processes import DEADLINE, Flyx, FlyxProcess, names_in, write_random

MB = 1_000_000
PIECE = 1 << 16

BEYOND = 60 * MB
"""Bytes of memory that a stream of any length may take beyond a tiny one: what is under way, at the most."""


class Pipe:
    """A pipe between a process and the test, which writes to it or reads from it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        # What the test has read.
        self.size = 0
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.writer, view) :]

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        data = b""
        while len(data) < size:
            part = os.read(self.reader, min(PIECE, size - len(data)))
            assert part, f"the end after {self.size} bytes"
            self._note(part)
            data += part
        return data

    def skip(self, size: int) -> None:
        """Read so many bytes, and forget them."""
        for left in range(size, 0, -PIECE):
            self.read(min(PIECE, left))

    def read_all(self) -> str:
        """Read to the end; return the digest of all that was read."""
        while part := os.read(self.reader, PIECE):
            self._note(part)
        return self.digest

    @property
    def digest(self) -> str:
        """Of all that was read."""
        return self._digest.hexdigest()

    def _note(self, part: bytes) -> None:
        self.size += len(part)
        self._digest.update(part)

    def end(self) -> None:
        """Write no more."""
        os.close(self.writer)
        self.writer = -1

    def leave(self) -> None:
        """Read no more."""
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Callable[[], Pipe]]:
    """Makes pipes, and closes them after the test."""
    made: list[Pipe] = []

    def make() -> Pipe:
        made.append(Pipe())
        return made[-1]

    yield make
    for each in made:
        for descriptor in (each.reader, each.writer):
            if descriptor >= 0:
                os.close(descriptor)


def feed(
    pipe: Pipe, size: int, before: bytes = b"", last_after: threading.Event | None = None
) -> hashlib._Hash:
    """Write so many bytes from a thread, no two blocks of which are the same, and end.

    Args:
        pipe: what they are written to.
        size: how many bytes.
        before: what was written before.
        last_after: what the last block waits for.

    Returns:
        The hash of what was written before, and of these as far as they are written.
    """
    blocks = [os.urandom(MB) for _ in range(8)]
    digest = hashlib.sha256(before)

    def write() -> None:
        # Whoever reads may have ended with the test.
        with suppress(OSError):
            for count in range(size // MB):
                if last_after is not None and count == size // MB - 1:
                    last_after.wait()
                piece = count.to_bytes(8, "big") + blocks[count % 8][8:]
                digest.update(piece)
                pipe.write(piece)
            pipe.end()

    threading.Thread(target=write, daemon=True).start()
    return digest


def give(pipe: Pipe, start: Callable[[int], FlyxProcess]) -> FlyxProcess:
    """Start a process that has the writing end of a pipe for itself."""
    process = start(pipe.writer)
    pipe.end()
    return process


@pytest.mark.parametrize(
    "size", [150 * MB, pytest.param(10_000 * MB, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_a_live_stream_of_any_length_takes_little_memory_at_both_ends(
    flyx: Flyx, pipe: Callable[[], Pipe], size: int
) -> None:
    source, drain = pipe(), pipe()
    sender = flyx.send("--name", "log", "-", stdin=source.reader)
    receiver = give(drain, lambda stdout: flyx.receive(sender.code(), "-", stdout=stdout))
    lines = [b"a line\n", b"and the next one\n"]
    for line in lines:
        source.write(line)
        # It is there before anything follows.
        assert drain.read(len(line)) == line
    before = {process: process.peak_memory for process in (sender, receiver)}
    digest = feed(source, size, b"".join(lines))
    # Nobody reads: as much is under way as may be.
    receiver.event("condition", limit="receiver's disk")
    drain.skip(size)
    for process, least in before.items():
        assert process.peak_memory - least < BEYOND, process
    assert drain.read_all() == digest.hexdigest()
    receiver.ends(0)
    sender.ends(0)
    for process in (sender, receiver):
        assert process.event("done")["bytes"] == drain.size
        assert all(e["total"] is None for e in process.named("progress") if e["bytes"] < drain.size)
    assert sender.event("done")["digest"] == receiver.event("done")["digest"]
    assert receiver.event("file") | {"time": 0} == {
        **{"event": "file", "time": 0, "peer": 1, "path": "log", "saved_as": None},
        "digest": receiver.event("file")["digest"],
        "algorithm": receiver.event("done")["algorithm"],
    }


def test_of_three_receivers_the_slow_one_sets_the_pace_and_one_that_leaves_holds_up_nobody(
    flyx: Flyx, pipe: Callable[[], Pipe]
) -> None:
    size = 100 * MB
    source, fast, slow, leaving = (pipe() for _ in range(4))
    sender = flyx.send("--receivers", "3", "-", stdin=source.reader)
    code = sender.code()
    receivers = [
        give(drain, lambda stdout: flyx.receive(code, "-", stdout=stdout)) for drain in (leaving, fast, slow)
    ]
    digest = feed(source, size)
    leaving.skip(5 * MB)
    for peer in (1, 2, 3):
        # Before all have begun, another could take a place.
        sender.event("condition", peer=peer)
    receivers[0].send_signal(signal.SIGINT).ends(130)
    assert sender.event("peer", state="failed")["code"] == "interrupted"
    # What one may be ahead of the other: what the sender keeps, and what is under way to the slow one.
    reading = threading.Thread(target=fast.read_all, daemon=True)
    reading.start()
    for _ in range(20):
        slow.skip(MB)
        assert fast.size < slow.size + 32 * (1 << 20) + 25 * MB
    assert slow.read_all() == digest.hexdigest()
    reading.join(DEADLINE)
    assert fast.digest == digest.hexdigest()
    for receiver in receivers[1:]:
        receiver.ends(0)
    sender.fails(6, "interrupted")
    assert len(sender.named("done")) == 2
    assert "cannot be sent again" in sender.event("error")["hint"]


def test_a_program_that_reads_no_more_ends_both_ends_with_a_reason(
    flyx: Flyx, pipe: Callable[[], Pipe]
) -> None:
    source, drain = pipe(), pipe()
    sender = flyx.start("send", "--server", flyx.server, "-", stdin=source.reader)
    options = ("--server", flyx.server, "--yes", "-o", "-")
    receiver = give(drain, lambda out: flyx.start("receive", *options, sender.code(), stdout=out))
    feed(source, 20 * MB)
    drain.read(1)
    drain.leave()
    reason = "Cannot write to standard output: the program that reads it has gone"
    receiver.complains(1, reason)
    sender.complains(
        6,
        "The transfer was interrupted: the receiver could not write where it wanted to",
        "a stream that has begun cannot be sent again",
    )


def test_standard_input_that_cannot_be_read_is_told_at_both_ends(flyx: Flyx, tmp_path: Path) -> None:
    # Its beginning is nowhere.
    broken = os.open("/proc/self/mem", os.O_RDONLY)
    sender = flyx.send("-", stdin=broken)
    os.close(broken)
    receiver = flyx.receive(sender.code(), tmp_path / "in")
    for process in (receiver, sender):
        process.fails(1, "files_failed")
        assert process.event("file")["error"]
    assert names_in(tmp_path / "in") == []


@pytest.mark.parametrize("is_closed", [False, True])
def test_nothing_at_all_is_an_empty_file(flyx: Flyx, tmp_path: Path, is_closed: bool) -> None:
    options = ["--server", flyx.server, "--json"]
    command = [sys.executable, "-m", "flyx", "send", *options, "--name", "empty", "-"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=flyx.environment,
        # As <&- does.
        preexec_fn=(lambda: os.close(0)) if is_closed else None,
        text=True,
    ) as sender:
        assert sender.stdout is not None
        code = next(match[1] for line in sender.stdout if (match := re.search('"code": "(.*?)"', line)))
        flyx.receive(code, tmp_path / "in").ends(0)
        assert sender.wait(DEADLINE) == 0
    assert names_in(tmp_path / "in") == ["empty"]
    assert (tmp_path / "in" / "empty").read_bytes() == b""


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_ctrl_c_ends_either_end_while_nobody_writes(
    flyx: Flyx, tmp_path: Path, pipe: Callable[[], Pipe], end: str
) -> None:
    source = pipe()
    sender = flyx.send("-", stdin=source.reader)
    receiver = flyx.receive(sender.code(), tmp_path / "in")
    source.write(b"a line\n")
    sender.event("progress", lambda event: event["bytes"] == 7)
    first, other = (sender, receiver) if end == "sender" else (receiver, sender)
    first.send_signal(signal.SIGINT).ends(130, within=10.0)
    other.fails(6, "interrupted", within=10.0)
    assert names_in(tmp_path / "in") == []


def test_whoever_comes_too_late_is_told_so_at_once(
    flyx: Flyx, tmp_path: Path, pipe: Callable[[], Pipe]
) -> None:
    source = pipe()
    sender = flyx.send("-", stdin=source.reader)
    receiver = flyx.receive(sender.code(), tmp_path / "in")
    source.write(b"a line\n")
    sender.event("progress", lambda event: event["bytes"] == 7)
    flyx.receive(sender.code(), tmp_path / "late").fails(1, "stream_begun")
    refused = sender.event("peer", state="failed")
    assert (refused["peer"], refused["code"]) == (2, "stream_begun")
    source.end()
    for process in (receiver, sender):
        process.ends(0)
    assert (tmp_path / "in" / "stdin").read_bytes() == b"a line\n"


def test_standard_output_takes_one_file(flyx: Flyx, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_random(tree / "a", 2 * MB)
    write_random(tree / "b", 10)
    sender = flyx.send(tree)
    flyx.receive(sender.code(), "-").fails(7, "not_one_file")
    receiver = flyx.receive(sender.code(), "-", "--only", "a").ends(0)
    assert receiver.data == (tree / "a").read_bytes()
    sender.ends(0)


def test_a_file_and_a_directory_may_be_called_by_a_dash(flyx: Flyx, tmp_path: Path) -> None:
    (tmp_path / "-").write_text("a file")
    sender = flyx.send("./-")
    flyx.receive(sender.code(), "./in").ends(0)
    sender.ends(0)
    assert (tmp_path / "in" / "-").read_text() == "a file"


def test_standard_output_that_is_a_terminal_is_refused(flyx: Flyx) -> None:
    terminal = flyx.terminal("receive", "--yes", "-o", "-", "K7M2QX-lemon-otter")
    terminal.says("error: -o - writes to standard output, which is this terminal").ends(2)


CONTROLS = "".join(map(chr, (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x202E, 0x2028))) + "\u00e4 end"


def test_a_text_is_shown_on_a_terminal_and_exact_everywhere_else(
    flyx: Flyx, pipe: Callable[[], Pipe]
) -> None:
    source = pipe()
    sender = flyx.send("--receivers", "3", "--text", "-", stdin=source.reader)
    source.write(CONTROLS.encode())
    source.end()
    code = sender.code()
    where = ("receive", "--server", flyx.server, "--yes")
    piped, asking = flyx.start(*where, code), flyx.terminal(*where[:-1], code)
    program = flyx.receive(code, "in")
    piped.ends(0)
    # Another's locale is ours: UTF-8.
    assert piped.data == CONTROLS.encode()
    assert program.event("text")["text"] == CONTROLS
    # Nobody has to say yes to a text, and no control character is one there.
    asking.says("\u00e4 end").ends(0)
    shown = asking.err[asking.err.index("\\x00") :]
    assert shown.startswith(r"\x00\x01\x02\x03\x04\x05\x06\x07\x08")
    assert r"\x1b\x1c" in shown
    assert r"\x9b" in shown
    assert r"\u202e\u2028" in shown
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202e\u2028]", shown)
    sender.ends(0)
    assert sender.event("manifest")["content"] == "text"
    assert not Path(flyx.directory, "in").exists()


# A network of their own, in which a connection can be lost.


def test_a_stream_whose_connection_is_lost_goes_on(
    flyx: Flyx, tmp_path: Path, pipe: Callable[[], Pipe]
) -> None:
    source, size = pipe(), 12 * MB
    with Network() as network:
        switch = network.switch()
        left = network.host("left").plug(switch, "10.91.0.1/24")
        right = network.host("right").plug(switch, "10.91.0.2/24")
        left.limit(40)

        def start(host: str, *arguments: str | Path, stdin: int = subprocess.DEVNULL) -> FlyxProcess:
            on = {"left": left, "right": right}[host]
            return flyx.adopt(on.start(arguments, flyx.environment, tmp_path, stdin))

        server = start("left", "serve", "--host", "10.91.0.1", "--port", "0", "--stun", "none")
        where = ["--server", server.prints(r"ws://\S+(?=\n)")[0], "--json"]
        sender = start("left", "send", *where, "--receivers", "2", "-", stdin=source.reader)
        lost = threading.Event()
        digest = feed(source, size, last_after=lost)
        options = [*where, "--yes", "-o"]
        receivers = [start("right", "receive", *options, place, sender.code()) for place in ("-", "in")]
        for receiver in receivers:
            receiver.event("progress", lambda event: event["bytes"] > size // 6)
        right.address("10.91.0.77/24")
        for receiver in receivers:
            receiver.event("peer", state="lost")
        lost.set()
        left.limit(1000)
        for process in (*receivers, sender):
            process.ends(0)
            assert process.event("done")["bytes"] == size
        flyx.close()
    assert hashlib.sha256(receivers[0].data).hexdigest() == digest.hexdigest()
    assert hashlib.sha256((tmp_path / "in" / "stdin").read_bytes()).hexdigest() == digest.hexdigest()
    assert names_in(tmp_path / "in") == ["stdin"]
