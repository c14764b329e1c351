"""`flyx serve` as a process of its own: what it prints, how it starts, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

# Seconds within which whatever is awaited must have happened, on a slow machine too.
PATIENCE = 60.0
READY = re.compile(r"flyx serve: listening on (ws://\S+:(\d+))\n")


class Serving:
    """A running `flyx serve`.

    Attributes:
        ready_line: All that it has printed on standard output so far.
        url: From the ready line, on the loopback.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.ready_line = process.stdout.readline()
        match = READY.fullmatch(self.ready_line)
        assert match, (self.ready_line, process.stderr and process.stderr.read())
        self.url = f"ws://127.0.0.1:{match[2]}"

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return the status, the rest of standard output, and standard error."""
        self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, stdout, stderr


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLYX_")}
    return subprocess.Popen(
        [sys.executable, "-m", "flyx", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **environment},
    )


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Serving]:
    process = start(*arguments, **environment)
    try:
        yield Serving(process)
    finally:
        process.kill()
        process.communicate()


def hear(client: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(client.recv(timeout=PATIENCE)))


def test_a_port_is_found_and_announced_on_stdout_alone() -> None:
    with serving("--port", "0") as server:
        with connect(f"{server.url}/ws", subprotocols=["flyx.v1"]) as client:  # type: ignore[list-item]
            joined = hear(client)
            assert joined["type"] == "joined"
            assert joined["data"]["ice_servers"] == [{"urls": ["stun:stun.l.google.com:19302"]}]
        status, stdout, stderr = server.end()
        assert status == 0
        assert stdout == ""
        assert "0.0.0.0" in server.ready_line
        assert "Traceback" not in stderr


def test_options_come_from_the_environment() -> None:
    with serving(FLYX_HOST="127.0.0.1", FLYX_PORT="0", FLYX_STUN="none", FLYX_LOG_LEVEL="error") as server:
        assert "ws://127.0.0.1:" in server.ready_line
        with connect(f"{server.url}/ws") as client:
            assert hear(client)["data"]["ice_servers"] == []
        assert server.end() == (0, "", "")


def test_stun_servers_can_be_chosen() -> None:
    urls = ["stun:one.example", "stun:two.example:3479"]
    with serving("--port", "0", "--stun", urls[0], "--stun", urls[1]) as server:
        with connect(f"{server.url}/ws") as client:
            assert hear(client)["data"]["ice_servers"] == [{"urls": [url]} for url in urls]


def test_the_test_room_is_logged_and_open() -> None:
    with serving("--host", "127.0.0.1", "--port", "0") as server:
        assert server.process.stderr is not None
        line = next(line for line in server.process.stderr if "test room ready" in line)
        room_id = re.search(r"room_id=([0-9A-Z]{6})\b", line)
        assert room_id
        with connect(f"{server.url}/ws/{room_id[1]}") as client:
            assert hear(client)["data"]["role"] == "sender"


def test_json_logs_are_json_and_hold_no_room_id() -> None:
    with serving("--host", "127.0.0.1", "--port", "0", "--log-json", "--log-level", "debug") as server:
        with connect(f"{server.url}/ws") as client:
            room_id = hear(client)["data"]["room_id"]
        _, _, stderr = server.end()
        lines = [json.loads(line) for line in stderr.splitlines()]
        assert {"test room ready", "listening", "client connected", "stopped"} <= {
            line["event"] for line in lines
        }
        assert room_id not in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_tells_the_clients_and_ends_with_status_0(number: int) -> None:
    with serving("--port", "0", "--drain", "1") as server:
        with connect(f"{server.url}/ws") as sender:
            room_id = hear(sender)["data"]["room_id"]
            with connect(f"{server.url}/ws/{room_id}") as receiver:
                hear(receiver)
                assert hear(sender)["type"] == "join"
                started = time.monotonic()
                server.process.send_signal(number)
                for client in (sender, receiver):
                    # Told one after the other, the second may hear first that the first is away.
                    while (last := hear(client))["type"] == "disconnect":
                        assert last["data"]["away"]
                    assert (last["type"], last["data"]["code"]) == ("error", "server_stopping")
                    with pytest.raises(ConnectionClosed):
                        client.recv(timeout=PATIENCE)
                    assert client.protocol.close_code == 1012
                stdout, stderr = server.process.communicate(timeout=PATIENCE)
        assert server.process.returncode == 0
        assert time.monotonic() - started < 4
        assert stdout == ""
        assert "Traceback" not in stderr


def test_a_client_that_does_not_read_cannot_hold_up_the_end() -> None:
    with serving("--port", "0") as server:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
            raw.sendall(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert raw.recv(12) == b"HTTP/1.1 101"
            started = time.monotonic()
            status, _, _ = server.end()
            assert status == 0
            assert time.monotonic() - started < 5


def run_to_its_end(*arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(*arguments)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_refusal(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert "hint: " in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_port_in_use_is_explained() -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = str(other.getsockname()[1])
        check_refusal(run_to_its_end("--port", port), port, "--port")


def test_a_host_that_is_elsewhere_is_explained() -> None:
    check_refusal(run_to_its_end("--host", "192.0.2.77", "--port", "0"), "192.0.2.77", "--host")


def test_a_state_file_that_is_in_use_is_explained(tmp_path: Path) -> None:
    state = str(tmp_path / "rooms.state")
    with serving("--port", "0", "--state", state):
        check_refusal(run_to_its_end("--port", "0", "--state", state), "--state", "in use by another server")


def test_a_stun_url_that_is_none_is_explained() -> None:
    check_refusal(run_to_its_end("--stun", "http://example.org"), "--stun http://example.org")


def test_a_port_is_free_again_as_soon_as_a_server_has_ended() -> None:
    with serving("--port", "0") as server:
        port = server.url.rpartition(":")[2]
        with connect(f"{server.url}/ws") as client:
            hear(client)
            server.end()
    with serving("--port", port) as again, connect(f"{again.url}/ws") as client:
        assert hear(client)["type"] == "joined"
