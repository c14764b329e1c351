"""What `flyx serve` refuses before it listens, and how signals end it: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyx.cli.app import app
from flyx.cli.signals import ONE_SIGNAL

REDIS = ["--redis", "redis://127.0.0.1:1/0"]


def refusal(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What is said to whoever starts a server like that, which must not start."""
    with pytest.raises(SystemExit) as caught:
        app(["serve", "--port", "0", *arguments])
    assert caught.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert "\nhint: " in err
    assert "Traceback" not in err
    return err


def test_several_workers_need_a_redis(capfd: pytest.CaptureFixture[str]) -> None:
    err = refusal(["--workers", "2"], capfd)
    assert "share their rooms through Redis" in err
    assert "--redis" in err


def test_rooms_are_in_one_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "rooms.db"
    err = refusal(["--state", str(state), *REDIS], capfd)
    assert "--state and --redis exclude each other" in err
    assert not state.exists()


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://:hunter2@localhost", "redis://:hunter2@localhost:port/0", "", "redis"]
)
def test_a_url_that_can_be_no_redis_is_refused_unread(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    err = refusal(["--redis", url], capfd)
    assert "--redis needs the URL of a Redis" in err
    assert "redis://localhost:6379/0" in err
    # It may be in a log, or on a screen that others see.
    assert "hunter2" not in err


SERVER = """
import asyncio, signal, sys
# nohup, under which all of this may run, has it ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
import flyx.server.app
from flyx.cli.app import app

class Stuck(flyx.server.app.Server):
    async def {where}(self, *_):
        print("stuck", flush=True)
        {stuck}

flyx.server.app.Server = Stuck
app(["serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none", "--log-level", "error", *sys.argv[1:]])
"""

# The loop never turns again, or a task does not end.
A_LOOP = "while True: pass"
A_TASK = """
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass
"""


@contextmanager
def stuck_server(where: str, stuck: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`flyx serve`, ready, that gets stuck in a method of its server."""
    program = [sys.executable, "-c", SERVER.format(where=where, stuck=stuck), *options]
    environment = {**os.environ, "FLYX_CONFIG": os.devnull}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("flyx serve: listening on ")
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal as a person does who sees that nothing happens; those closer together count as one."""
    time.sleep(2 * ONE_SIGNAL)
    process.send_signal(number)


@pytest.mark.parametrize("stuck", [A_LOOP, A_TASK], ids=["a loop", "a task"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_server_that_does_not_stop(stuck: str, number: signal.Signals) -> None:
    # With nobody there, a drain is over at once.
    with stuck_server("stop", stuck, "--drain", "600") as process:
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        interrupt(process, number)
        assert process.wait(timeout=20) == -number


@pytest.mark.parametrize("stuck", [A_LOOP, A_TASK], ids=["a loop", "a task"])
def test_a_third_signal_ends_a_server_whose_drain_does_not_end(stuck: str) -> None:
    with stuck_server("drain", stuck) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        interrupt(process, signal.SIGTERM)
        interrupt(process, signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT


def test_a_server_whose_terminal_is_closed_stops_in_order() -> None:
    with stuck_server("stop", "raise SystemExit(42)") as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        assert process.wait(timeout=20) == 42


def test_a_signal_that_comes_twice_at_once_does_not_end_the_drain_and_a_second_one_does() -> None:
    with stuck_server("drain", "await asyncio.sleep(1000)") as process:
        for _ in range(5):
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        time.sleep(2 * ONE_SIGNAL)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
