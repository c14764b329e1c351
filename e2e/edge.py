"""Two computers that cannot reach each other, and one between them that both can reach: three namespaces.

The one in the middle forwards nothing; signaling servers and relays run there. For test_relay.py and bench/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from e2e.network import Network, State
from e2e.processes import FlyxProcess, clean_environment
from e2e.services import SECRET, Coturn

# Documentation addresses (RFC 5737): these networks have nothing else.
MIDDLE, SENDER_SIDE, RECEIVER_SIDE = "192.0.2.1", "198.51.100", "203.0.113"
TURN_PORT, SIGNALING_PORT = 3478, 8000


class Edge:
    """A sender and a receiver behind networks that only meet in the middle, and what runs there."""

    def __init__(self, network: Network, directory: Path) -> None:
        """Args:
        network: ends the three.
        directory: where processes run, and keep what they do.
        """
        middle = network.host("middle")
        self.hosts = {"middle": middle}
        middle.plug(network.switch(), f"{MIDDLE}/32", device="itself")
        for part, address in (("sender", SENDER_SIDE), ("receiver", RECEIVER_SIDE)):
            switch = network.switch()
            middle.plug(switch, f"{address}.1/24", device=part)
            host = network.host(part).plug(switch, f"{address}.2/24", via=f"{address}.1")
            self.hosts[part] = host
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


def paths(process: FlyxProcess) -> list[tuple[str, str]]:
    """The types of candidates, ours and theirs, of each path that a process has told of."""
    return [(path["local"], path["remote"]) for path in process.named("path")]
