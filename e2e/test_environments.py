"""Where flyx is started: without standard streams or a home, in a directory that is gone, in any locale."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from e2e.processes import DEADLINE, Flyx, need, sha256, write_random

CLOSED = [closed for count in (1, 2, 3) for closed in combinations((0, 1, 2), count)]
"""Each choice of standard streams that a process is started without."""

NOWHERE = ("--server", "ws://127.0.0.1:1")


def run(
    flyx: Flyx,
    *arguments: str | Path,
    closed: tuple[int, ...] = (),
    prepare: Callable[[], None] | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run flyx to its end, without some of its standard streams."""

    def begin() -> None:
        if prepare:
            prepare()
        for descriptor in closed:
            os.close(descriptor)

    return subprocess.run(
        [sys.executable, "-m", "flyx", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=flyx.directory,
        env=flyx.environment | environment,
        text=True,
        timeout=DEADLINE,
        # In the child, of which no thread but this one is left.
        preexec_fn=begin,
    )


def test_without_standard_streams_everything_arrives_and_nothing_else_is_in_it(
    flyx: Flyx, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", 3_000_000)
    sender = flyx.send("--receivers", str(len(CLOSED)), source)
    code = sender.code()

    def receive(closed: tuple[int, ...]) -> None:
        into = tmp_path / "".join(map(str, closed))
        ended = run(flyx, "receive", "--server", flyx.server, "-y", "-o", into, code, closed=closed)
        assert ended.returncode == 0, (closed, ended)
        assert "Traceback" not in ended.stderr
        assert sha256(into / "file") == sha256(source)
        assert ended.stdout == ("" if 1 in closed else f"{into}/file\n")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(receive, CLOSED))
    sender.ends(0)


def test_who_reads_no_names_of_saved_files_is_told_that_the_rest_can_be_had(
    flyx: Flyx, tmp_path: Path
) -> None:
    """As `flyx receive CODE | head` does."""

    def leave() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)

    write_random(tmp_path / "tree" / "a", 1000)
    write_random(tmp_path / "tree" / "b", 100_000_000)
    code = flyx.send(tmp_path / "tree").code()
    ended = run(flyx, "receive", "--server", flyx.server, "-y", "-o", "in", code, prepare=leave)
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        "Nobody reads the names of saved files any more. "
        "What has arrived is kept: receive into the same directory again to go on from there.\n"
    )


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_without_standard_streams_every_command_ends_as_with_them(
    flyx: Flyx, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    source = write_random(tmp_path / "file", 10)
    for status, arguments in (
        (0, ["--version"]),
        (0, ["send", "--help"]),
        (2, ["send", "--bogus"]),
        (2, ["send", tmp_path / "nothing"]),
        (3, ["send", *NOWHERE, source]),
        (2, ["receive", *NOWHERE, "-"]),
        (7, ["receive", *NOWHERE, "K7M2QX-lemon-otter"]),
    ):
        ended = run(flyx, *arguments, closed=closed)
        assert ended.returncode == status, (arguments, ended)
        assert "Traceback" not in ended.stderr, ended
        if status == 3 and 2 not in closed:
            assert ended.stderr.splitlines()[-2].startswith("error: Cannot reach the signaling server")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["send", "--help"]], ids=" ".join)
def test_help_that_cannot_be_written_is_an_error(flyx: Flyx, arguments: list[str]) -> None:
    need("/dev/full", Path("/dev/full").exists())
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "flyx", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env=flyx.environment,
            text=True,
            timeout=DEADLINE,
        )
    assert ended.returncode == 1
    assert re.fullmatch("error: .*: No space left on device\n", ended.stderr), ended


def test_a_server_runs_without_standard_streams(flyx: Flyx) -> None:
    # A port that is no port of this user's ends it after everything is loaded, and before anything listens.
    command = ["serve", "--host", "192.0.2.1", "--port", "0", "--stun", "none"]
    expected = run(flyx, *command)
    for closed in ((0,), (1,), (0, 1, 2)):
        ended = run(flyx, *command, closed=closed)
        assert ended.returncode == expected.returncode, ended
        assert ended.stderr.splitlines()[-1:] == ([] if 2 in closed else expected.stderr.splitlines()[-1:])


# With fewer Python itself complains: it opens what is in its environment to begin with.
@pytest.mark.parametrize("files", [8, 12])
@pytest.mark.parametrize(
    "arguments",
    [["send", __file__], ["receive", "-y", "K7M2QX-lemon-otter"], ["serve", "--port", "0"], ["doctor"]],
    ids=lambda arguments: arguments[0],
)
def test_where_too_few_files_may_be_open_that_is_the_error(
    flyx: Flyx, arguments: list[str], files: int
) -> None:
    ended = run(flyx, *arguments, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
    assert ended.returncode == 1, ended
    assert ended.stderr == (
        "error: This computer cannot go on: Too many open files\n"
        "hint: raise the limit of open files (`ulimit -n`)\n"
    )


def leave_no_directory() -> None:
    """Stand in a directory that is gone."""
    os.chdir(gone := tempfile.mkdtemp())
    os.rmdir(gone)


@pytest.mark.parametrize(
    ("prepare", "environment"),
    [
        (leave_no_directory, {}),
        (None, {"HOME": "/nonexistent/home"}),
        (None, {"LC_ALL": "xx_YY.ISO-8859-1"}),
        (None, {"LC_ALL": "POSIX"}),
        (None, {"PYTHONIOENCODING": "ascii:strict"}),
        (None, {"TERM": ""}),
    ],
    ids=["directory is gone", "home is missing", "unknown locale", "POSIX", "ascii", "no TERM"],
)
def test_wherever_it_is_started_the_tree_arrives(
    flyx: Flyx, tmp_path: Path, prepare: Callable[[], None] | None, environment: dict[str, str]
) -> None:
    source = write_random(tmp_path / "Grüße-\u65e5\u672c.bin", 10_000)
    sender = flyx.send(source)
    into = tmp_path / "in"
    arguments = ["receive", "--server", flyx.server, "-y", "-o", into, sender.code()]
    ended = run(flyx, *arguments, prepare=prepare, **environment)
    assert ended.returncode == 0, ended
    assert "Traceback" not in ended.stderr
    assert "Received 1 file" in ended.stderr
    assert sha256(into / source.name) == sha256(source)
    sender.ends(0)


def test_names_are_bytes_whatever_encoding_a_locale_has(flyx: Flyx, tmp_path: Path) -> None:
    made = subprocess.run(
        ["sh", "-c", "localedef -i en_US -f ISO-8859-1 ./en_US.ISO-8859-1"], cwd=tmp_path, capture_output=True
    )
    need("a locale of ISO-8859-1", made.returncode == 0, in_ci=False)
    locale = {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1"}
    source = write_random(tmp_path / "Gr\u00fc\u00dfe-\u65e5\u672c.bin", 10_000)
    sender = flyx.start("send", "--json", "--server", flyx.server, source, **locale)
    into = tmp_path / "in"
    ended = run(flyx, "receive", "--server", flyx.server, "-y", "-o", into, sender.code(), **locale)
    assert ended.returncode == 0, ended
    assert sha256(into / source.name) == sha256(source)
    sender.ends(0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_user_that_the_system_does_not_know_and_that_has_no_home_needs_none(flyx: Flyx) -> None:
    script = (
        # All that is loaded later, which may stand where only root can read.
        "import os, sys; import flyx.cli.app, flyx.client.send, flyx.cli.progress, platformdirs;"
        "import flyx.server.app, flyx.cli.runtime, flyx.client.receive, platformdirs.unix, flyx.client.local;"
        "import flyx.cli.receive, flyx.rtc.peer, encodings.idna;"
        "os.environ.pop('HOME', None); os.setgid(54321); os.setuid(54321);"
        "from flyx.__main__ import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "receive", *NOWHERE, "--yes", "K7M2QX-lemon-otter"],
        env=flyx.environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ended.returncode == 3, ended
    assert "Cannot reach the signaling server" in ended.stderr, ended


def test_a_server_whose_logs_nobody_reads_goes_on_answering(flyx: Flyx) -> None:
    reading, writing = os.pipe()
    command = ["serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none", "--create-rate", "none"]
    with subprocess.Popen(
        [sys.executable, "-m", "flyx", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writing,
        env=flyx.environment,
        text=True,
    ) as server:
        try:
            os.close(writing)
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1].replace("ws:", "http:")
            room = Request(f"{url}/room", method="POST")
            filled = False
            while not filled:
                for _ in range(100):
                    urlopen(room, timeout=DEADLINE).close()
                filled = unread(reading) >= PIPE_SIZE - 4096
            for _ in range(100):
                urlopen(room, timeout=DEADLINE).close()
            with urlopen(f"{url}/healthz", timeout=DEADLINE) as answer:
                assert answer.status == 200
        finally:
            server.kill()
            os.close(reading)


PIPE_SIZE = 1 << 16
"""Bytes that a pipe of Linux takes."""


def unread(descriptor: int) -> int:
    """Return the bytes that can be read from a pipe."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
