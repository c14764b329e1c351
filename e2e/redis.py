"""A real redis-server for tests: started, stopped, frozen, wiped."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from e2e.processes import lasting_port

DEADLINE = 20.0


def find_redis_server() -> str:
    """Return the program, or skip the test where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    return program


class RedisServer:
    """A redis-server on the loopback that keeps nothing on disk.

    Attributes:
        url: For `flyx serve --redis`.
    """

    def __init__(self, directory: Path) -> None:
        self._program = find_redis_server()
        self._directory = directory
        self._port = lasting_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[str]
        self.start()

    def start(self) -> None:
        """Start it, with nothing in it, and return when it answers."""
        self._process = subprocess.Popen(
            [
                self._program,
                "--port",
                str(self._port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--daemonize",
                "no",
            ],
            cwd=self._directory,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        raise AssertionError("".join(said))

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def stop(self) -> None:
        """End it; what was in it is gone."""
        self._process.kill()
        self._process.communicate(timeout=DEADLINE)

    def freeze(self) -> None:
        """Have it stand still: connections stay, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str) -> Any:
        """Return the answer to one command."""
        with redis.Redis(port=self._port, decode_responses=True) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def keys(self) -> dict[str, int]:
        """Return every key with its time to live in milliseconds; -1 is for ever."""
        return {key: self.ask("PTTL", key) for key in sorted(self.ask("KEYS", "*"))}
