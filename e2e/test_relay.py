"""Two computers that cannot reach each other, and a real TURN server (coturn) that both can reach.

Three network namespaces: one for the sender, one for the receiver, and between them one that forwards nothing
and has the signaling server and coturn. Credentials come from `flyx serve --turn-secret`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


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


class Edge:
    """A sender and a receiver behind networks that only meet in the middle, and what runs there."""

    def __init__(self, namespaces: dict[str, str], directory: Path) -> None:
        self._namespaces = namespaces
        self._directory = directory
        self._processes: list[FlyxProcess] = []
        self._url = ["--server", f"ws://{MIDDLE}:{SIGNALING_PORT}", "--json"]

    def serve(self) -> FlyxProcess:
        """A signaling server that listens, and tells of the relay."""
        server = self._start(
            *("middle", "serve", "--host", MIDDLE, "--port", str(SIGNALING_PORT), "--stun", "none"),
            *("--turn", f"turn:{MIDDLE}:{TURN_PORT}", "--turn-secret", SECRET),
        )
        server.prints("listening on")
        return server

    def relay(self) -> Coturn:
        """A coturn that listens."""
        coturn = Coturn(self._namespaces["middle"], self._directory)
        self._processes.append(coturn)
        coturn.prints(rf"UDP listener opened on: {MIDDLE}:{TURN_PORT}")
        return coturn

    def send(self, source: Path) -> FlyxProcess:
        return self._start("sender", "send", *self._url, source)

    def receive(self, code: str, directory: Path) -> FlyxProcess:
        return self._start("receiver", "receive", *self._url, "--yes", "-o", directory, code)

    def limit(self, megabits: int) -> None:
        """Let the sender's network carry no more than this, from now on."""
        rate = ["tbf", "rate", f"{megabits}mbit", "burst", "256k", "latency", "50ms"]
        self._inside("sender", "tc", "qdisc", "replace", "dev", "up0", "root", *rate)

    def cable(self, part: str, state: str) -> None:
        """Pull the cable between the middle and the others ("down"), or put it in ("up")."""
        self._inside("middle", "ip", "link", "set", part, state)

    def metrics(self) -> str:
        """What the signaling server counts."""
        fetch = (
            f"import urllib.request as r; print(r.urlopen('http://{MIDDLE}:{SIGNALING_PORT}/metrics').read())"
        )
        return self._inside("middle", sys.executable, "-c", fetch)

    def close(self) -> None:
        for process in self._processes:
            process.kill()

    def _start(self, part: str, *arguments: str | Path) -> FlyxProcess:
        process = Inside(self._namespaces[part], [str(argument) for argument in arguments], self._directory)
        self._processes.append(process)
        return process

    def _inside(self, part: str, *command: str) -> str:
        return run("ip", "netns", "exec", self._namespaces[part], *command)


@pytest.fixture
def edge(networks: dict[str, str], tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(networks, tmp_path)
    try:
        yield edge
    finally:
        edge.close()


def paths(process: FlyxProcess) -> list[tuple[str, str]]:
    return [(path["local"], path["remote"]) for path in process.named("path")]


def test_a_file_goes_through_the_turn_server_where_there_is_no_other_way(edge: Edge, tmp_path: Path) -> None:
    server = edge.serve()
    edge.relay()
    source = write_random(tmp_path / "sent.bin", 20 * 10**6)
    sender = edge.send(source)
    receiver = edge.receive(sender.code(), tmp_path / "in")
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        assert ["relay" in path for path in paths(side)] == [True]
    assert 'flyx_transfers_total{outcome="relayed"} 1.0' in edge.metrics()
    # Neither the secret nor anybody's credentials are in the log.
    assert SECRET not in server.err


def turn_server_dies(edge: Edge, relay: Coturn) -> Callable[[], object]:
    """It forgets all that went through it."""
    relay.kill()
    return edge.relay


def cable_is_out(edge: Edge, relay: Coturn) -> Callable[[], object]:
    edge.cable("receiver", "down")
    return lambda: edge.cable("receiver", "up")


@pytest.mark.parametrize("cut", [turn_server_dies, pytest.param(cable_is_out, marks=pytest.mark.soak)])
def test_a_transfer_whose_relayed_path_is_lost_goes_on_through_a_new_one(
    edge: Edge, tmp_path: Path, cut: Callable[[Edge, Coturn], Callable[[], object]]
) -> None:
    edge.serve()
    relay = edge.relay()
    source = write_random(tmp_path / "sent.bin", 40 * 10**6)
    edge.limit(20)
    sender = edge.send(source)
    receiver = edge.receive(sender.code(), tmp_path / "in")
    receiver.event("progress", lambda event: event["bytes"] > 10**6)
    mend = cut(edge, relay)
    for side in (sender, receiver):
        side.event("peer", state="lost")
    mend()
    edge.limit(1000)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        assert ["relay" in path for path in paths(side)] == [True, True]
        # It is one transfer, told of once.
        assert len(side.named("done")) == 1
    assert receiver.event("done")["resumed"] == 0
