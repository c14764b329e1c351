"""Two computers that cannot reach each other, and a real TURN server (coturn) that both can reach.

Three network namespaces: one for the sender, one for the receiver, and between them one that forwards nothing
and has the signaling server and coturn. Credentials come from `flyx serve --turn-secret`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.network import Host, Network, State
from e2e.processes import FlyxProcess, clean_environment, sha256, write_random
from e2e.services import SECRET, Coturn

PATIENCE = 20.0
# Documentation addresses (RFC 5737): these networks have nothing else.
MIDDLE, SENDER_SIDE, RECEIVER_SIDE = "192.0.2.1", "198.51.100", "203.0.113"
TURN_PORT, SIGNALING_PORT = 3478, 8000


@pytest.fixture
def hosts() -> Iterator[dict[str, Host]]:
    """A sender, a receiver, and one between them that forwards nothing."""
    with Network() as network:
        middle = network.host("middle")
        hosts = {"middle": middle}
        middle.plug(network.switch(), f"{MIDDLE}/32", device="itself")
        for part, network_address in (("sender", SENDER_SIDE), ("receiver", RECEIVER_SIDE)):
            switch = network.switch()
            middle.plug(switch, f"{network_address}.1/24", device=part)
            host = network.host(part).plug(switch, f"{network_address}.2/24", via=f"{network_address}.1")
            hosts[part] = host
        yield hosts


class Edge:
    """A sender and a receiver behind networks that only meet in the middle, and what runs there."""

    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        self.hosts = hosts
        self._directory = directory
        self.processes: list[FlyxProcess] = []
        self._url = ["--server", f"ws://{MIDDLE}:{SIGNALING_PORT}", "--json"]

    def serve(self, *options: str) -> FlyxProcess:
        """A signaling server that listens, and tells of the relay unless options name another way."""
        server = self._start(
            *("middle", "serve", "--host", MIDDLE, "--port", str(SIGNALING_PORT), "--stun", "none"),
            *(options or ("--turn", f"turn:{MIDDLE}:{TURN_PORT}", "--turn-secret", SECRET)),
        )
        server.prints("listening on")
        return server

    def relay(self) -> Coturn:
        """A coturn that listens."""
        coturn = Coturn(self.hosts["middle"], self._directory, MIDDLE, port=TURN_PORT)
        self.processes.append(coturn)
        return coturn

    def send(self, source: Path) -> FlyxProcess:
        return self._start("sender", "send", *self._url, source)

    def receive(self, code: str, directory: Path) -> FlyxProcess:
        return self._start("receiver", "receive", *self._url, "--yes", "-o", directory, code)

    def limit(self, megabits: int) -> None:
        """Let the sender's network carry no more than this, from now on."""
        self.hosts["sender"].limit(megabits)

    def cable(self, part: str, state: State) -> None:
        """Pull the cable between the middle and the others ("down"), or put it in ("up")."""
        self.hosts[part].cable(state)

    def metrics(self) -> str:
        """What the signaling server counts."""
        return self.fetch("/metrics")

    def fetch(self, path: str) -> str:
        """What the signaling server answers."""
        url = f"http://{MIDDLE}:{SIGNALING_PORT}{path}"
        fetch = f"import urllib.request as r; print(r.urlopen('{url}').read().decode())"
        return self.hosts["middle"].run(sys.executable, "-c", fetch)

    def coturns(self) -> list[int]:
        """The processes of coturn in the middle."""
        middle = self.hosts["middle"]
        ids = map(int, middle.run("ip", "netns", "pids", middle.namespace).split())
        return [number for number in ids if _program(number) == "turnserver"]

    def close(self) -> None:
        for process in self.processes:
            process.kill()

    def _start(self, part: str, *arguments: str | Path) -> FlyxProcess:
        process = self.hosts[part].start(arguments, clean_environment(self._directory), self._directory)
        self.processes.append(process)
        return process


def _program(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text().strip()
    except OSError:
        return ""


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def edge(hosts: dict[str, Host], tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(hosts, tmp_path)
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


def test_a_server_with_turn_relays_where_there_is_no_other_way(edge: Edge, tmp_path: Path) -> None:
    server = edge.serve("--with-turn")
    [first] = edge.coturns()
    source = write_random(tmp_path / "sent.bin", 5 * 10**6)
    for number in range(2):
        sender = edge.send(source)
        receiver = edge.receive(sender.code(), tmp_path / f"in{number}")
        receiver.ends(0)
        sender.ends(0)
        assert sha256(tmp_path / f"in{number}" / "sent.bin") == sha256(source)
        assert ["relay" in path for path in paths(receiver)] == [True]
        if number == 0:
            # One that dies comes back, and relays again.
            os.kill(first, signal.SIGKILL)
            until(lambda: edge.coturns() not in ([], [first]) and '"turn":"ok"' in edge.fetch("/readyz"))
    server.kill()
    until(lambda: not edge.coturns())


def test_a_server_with_relay_passes_on_what_has_no_other_way(edge: Edge, tmp_path: Path) -> None:
    edge.serve("--relay", "2MB")
    source = write_random(tmp_path / "sent.bin", 10 * 10**6)
    sender = edge.send(source)
    began = time.monotonic()
    receiver = edge.receive(sender.code(), tmp_path / "in")
    receiver.ends(0)
    sender.ends(0)
    seconds = time.monotonic() - began
    assert sha256(tmp_path / "in" / "sent.bin") == sha256(source)
    for side in (sender, receiver):
        [path] = side.named("path")
        assert (path["local"], path["remote"], path["tunnelled"]) == ("relay", "relay", True)
    metrics = edge.metrics()
    assert "flyx_tunnels_opened_total 1.0" in metrics
    assert 'flyx_transfers_total{outcome="relayed"} 1.0' in metrics
    # All of it, at the rate that was allowed.
    passed = float(metrics.partition("\nflyx_tunnel_bytes_total ")[2].split()[0])
    assert 10 * 10**6 < passed < 2 * 2 * 10**6 * seconds
    assert seconds > 5


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
