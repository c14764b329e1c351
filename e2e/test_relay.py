"""Two computers that cannot reach each other, and a real TURN server (coturn) that both can reach.

Three network namespaces: one for the sender, one for the receiver, and between them one that forwards nothing
and has the signaling server and coturn. Credentials come from `flyx serve --turn-secret`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.processes import FlyxProcess, clean_environment, need, sha256, write_random

SECRET = "a secret that coturn and flyx serve share"
# Documentation addresses (RFC 5737): these networks have nothing else.
MIDDLE, SENDER_SIDE, RECEIVER_SIDE = "192.0.2.1", "198.51.100", "203.0.113"
TURN_PORT, SIGNALING_PORT = 3478, 8000


class Inside(FlyxProcess):
    """A process in a network namespace."""

    def __init__(self, namespace: str, arguments: list[str], home: Path) -> None:
        self._namespace = namespace
        super().__init__(arguments, clean_environment(home), home)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(["ip", "netns", "exec", self._namespace, *command], environment, directory)


class Coturn(Inside):
    """coturn, listening on one address and saying what it does on standard output."""

    def __init__(self, namespace: str, home: Path) -> None:
        super().__init__(namespace, [], home)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        options = [
            *("--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log", "--verbose"),
            *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=flyx.example"),
            *(f"--listening-ip={MIDDLE}", f"--relay-ip={MIDDLE}", f"--listening-port={TURN_PORT}"),
            *("--pidfile", str(directory / "turn.pid"), "--userdb", str(directory / "turn.db")),
        ]
        # Without stdbuf it would say nothing until it has said much.
        command = ["ip", "netns", "exec", self._namespace, "stdbuf", "-oL", "turnserver", *options]
        return FlyxProcess._start(self, command, environment, directory)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


@pytest.fixture
def networks() -> Iterator[dict[str, str]]:
    """The namespaces by what is in them. Between sender and receiver no packet is forwarded."""
    need("the right to make network namespaces", os.geteuid() == 0)
    need("ip, of the package iproute2", shutil.which("ip") is not None)
    need("turnserver, of the package coturn", shutil.which("turnserver") is not None)
    names = {part: f"fxedge{os.getpid()}{part[0]}" for part in ("middle", "sender", "receiver")}
    probe = subprocess.run(
        ["ip", "netns", "add", names["middle"]], capture_output=True, text=True, check=False
    )
    need(f"the right to make network namespaces ({probe.stderr.strip()})", probe.returncode == 0)
    try:
        middle = names["middle"]
        run("ip", "-n", middle, "link", "set", "lo", "up")
        run("ip", "-n", middle, "address", "add", f"{MIDDLE}/32", "dev", "lo")
        run("ip", "netns", "exec", middle, "sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
        for part, network in (("sender", SENDER_SIDE), ("receiver", RECEIVER_SIDE)):
            name = names[part]
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "add", "up0", "type", "veth", "peer", "name", part, "netns", middle)
            run("ip", "-n", middle, "address", "add", f"{network}.1/24", "dev", part)
            run("ip", "-n", middle, "link", "set", part, "up")
            run("ip", "-n", name, "address", "add", f"{network}.2/24", "dev", "up0")
            run("ip", "-n", name, "link", "set", "up0", "up")
            run("ip", "-n", name, "route", "add", "default", "via", f"{network}.1")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_a_file_goes_through_the_turn_server_where_there_is_no_other_way(
    networks: dict[str, str], tmp_path: Path
) -> None:
    processes: list[FlyxProcess] = []

    def start(part: str, *arguments: str | Path) -> FlyxProcess:
        process = Inside(networks[part], [str(argument) for argument in arguments], tmp_path)
        processes.append(process)
        return process

    try:
        coturn = Coturn(networks["middle"], tmp_path)
        processes.append(coturn)
        coturn.prints(rf"UDP listener opened on: {MIDDLE}:{TURN_PORT}")
        server = start(
            *("middle", "serve", "--host", MIDDLE, "--port", str(SIGNALING_PORT), "--stun", "none"),
            *("--turn", f"turn:{MIDDLE}:{TURN_PORT}", "--turn-secret", SECRET),
        )
        server.prints("listening on")
        url = f"ws://{MIDDLE}:{SIGNALING_PORT}"
        source = write_random(tmp_path / "sent.bin", 20 * 10**6)
        sender = start("sender", "send", "--server", url, "--json", source)
        receiver = start(
            *("receiver", "receive", "--server", url, "--json", "--yes", "-o", tmp_path / "in", sender.code())
        )
        receiver.ends(0)
        sender.ends(0)
        assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
        for side in (sender, receiver):
            path = side.event("path")
            assert "relay" in (path["local"], path["remote"]), path
        fetch = (
            f"import urllib.request as r; print(r.urlopen('http://{MIDDLE}:{SIGNALING_PORT}/metrics').read())"
        )
        inside = ["ip", "netns", "exec", networks["middle"], sys.executable, "-c", fetch]
        metrics = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
        assert 'flyx_transfers_total{outcome="relayed"} 1.0' in metrics
        # Neither the secret nor anybody's credentials are in the log.
        assert SECRET not in server.err
    finally:
        for process in processes:
            process.kill()
