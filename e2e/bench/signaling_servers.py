"""The servers that e2e/bench/signaling.py measures: how each is started, joined and spoken to."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil

from e2e.bench.load import Client, frame
from e2e.redis import RedisServer

MESSAGE_SIZE = 768
"""Bytes of each relayed message as it is sent, about those of an SDP without media."""

PEERJS = Path(__file__).parents[1] / "peers/node_modules/peer/dist/bin/peerjs.js"

# What the server writes into a message, or takes out of it, changes its size by a few bytes; an SDP has many
# lines, whose ends JSON escapes.
_SDP_LINE = "a=candidate:1 1 udp 2130706431 192.0.2.17 54321 typ host\r\n"


def padded(message: dict[str, object], fields: dict[str, object]) -> bytes:
    """Return message with an `sdp` in fields that makes it MESSAGE_SIZE bytes long."""
    fields["sdp"] = ""
    missing = MESSAGE_SIZE - len(json.dumps(message))
    line = len(json.dumps(_SDP_LINE)) - 2
    fields["sdp"] = _SDP_LINE * (missing // line) + "x" * (missing % line)
    encoded = json.dumps(message).encode()
    assert len(encoded) == MESSAGE_SIZE
    return encoded


class Member:
    """A client in a room.

    Attributes:
        client: Its connection.
        first: The first message that it got.
        room: What leads others to it.
        request: The frame that it sends to its peer.
    """

    __slots__ = ("client", "first", "request", "room")

    def __init__(self, client: Client, first: bytes, room: str) -> None:
        self.client = client
        self.first = first
        self.room = room
        self.request = b""


class SignalingServer(ABC):
    """One server in processes of its own."""

    name: ClassVar[str]
    subprotocol: ClassVar[str] = ""
    tells_of_peers: ClassVar[bool] = False
    """Whether who is in a room hears of those who come after."""

    def __init__(self, pids: list[int], urls: list[str]) -> None:
        self._watched = [psutil.Process(pid) for pid in pids]
        self._addresses = [
            (url.rpartition("/")[2].rpartition(":")[0], int(url.rpartition(":")[2])) for url in urls
        ]

    @classmethod
    @abstractmethod
    def commands(cls, clients: int) -> list[list[str]]:
        """Return how to start its processes; each prints a line that ends with its URL or port."""

    @classmethod
    @contextlib.contextmanager
    def running(cls, clients: int) -> Iterator[SignalingServer]:
        """Run it, ready for so many clients."""
        with cls.started(cls.commands(clients)) as (pids, urls):
            yield cls(pids, urls)

    @classmethod
    @contextlib.contextmanager
    def started(cls, commands: list[list[str]]) -> Iterator[tuple[list[int], list[str]]]:
        """Start processes; give their ids and their URLs."""
        with contextlib.ExitStack() as stack:
            pids, urls = [], []
            for command in commands:
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                stack.callback(_end, process)
                assert process.stdout is not None
                urls.append(cls.url_in(process.stdout.readline()))
                pids.append(process.pid)
            yield pids, urls

    @classmethod
    def url_in(cls, line: str) -> str:
        """Return the URL that a process tells when it is ready."""
        return line.split()[-1]

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system."""
        times = [process.cpu_times() for process in self._watched]
        return sum(t.user + t.system for t in times)

    def memory(self) -> int:
        """Resident bytes."""
        return sum(int(process.memory_info().rss) for process in self._watched)

    def address(self, node: int) -> tuple[str, int]:
        """Return the host and the port of one of its nodes."""
        return self._addresses[node % len(self._addresses)]

    @abstractmethod
    def path(self, number: int, room: str | None) -> str:
        """Return what the client of this number asks for: to enter a room, or to make one."""

    @abstractmethod
    def room_of(self, number: int, first: bytes) -> str:
        """Return the room of a client from its number and the first message that it got."""

    def way_back(self, number: int, member: Member) -> tuple[str, bytes]:
        """Return what a client that lost its connection asks for, and a frame to send first, if any."""
        return self.path(number, member.room), b""

    @abstractmethod
    def messages(self, sender: int, receiver: int) -> tuple[bytes, bytes]:
        """Return what the clients of these numbers say to each other, as long as each likes."""


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class Flyx(SignalingServer):
    """`flyx serve`, with every limit but those of memory out of the way."""

    name = "flyx"
    subprotocol = "flyx.v1"
    tells_of_peers = True

    @classmethod
    def commands(cls, clients: int) -> list[list[str]]:
        flyx = [sys.executable, "-m", "flyx", "serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none"]
        unlimited = ["--max-connections", "0", "--max-connections-per-ip", "0", "--max-rooms", str(clients)]
        unlimited += ["--grace", "120", "--create-rate", "none", "--join-rate", "none", "--miss-rate", "none"]
        unlimited += ["--message-rate", "0", "--max-offers", "0", "--max-candidates", "0"]
        return [[*flyx, *unlimited, "--log-level", "warning"]]

    def path(self, number: int, room: str | None) -> str:
        return "/ws" if room is None else f"/ws/{room}?role=receiver"

    def room_of(self, number: int, first: bytes) -> str:
        return str(json.loads(first)["data"]["room_id"])

    def way_back(self, number: int, member: Member) -> tuple[str, bytes]:
        data = json.loads(member.first)["data"]
        claim = {"client_id": data["client_id"], "resume_token": data["resume_token"]}
        greeting = {"type": "join", "data": {**claim, "received": member.client.heard}}
        return f"/ws/{member.room}?resume=1", frame(json.dumps(greeting).encode())

    def messages(self, sender: int, receiver: int) -> tuple[bytes, bytes]:
        spoken = []
        for kind in ("offer", "answer"):
            fields: dict[str, object] = {}
            spoken.append(frame(padded({"type": kind, "data": fields}, fields)))
        return spoken[0], spoken[1]


class FlyxNodes(Flyx):
    """Two nodes on one Redis, and the two clients of each room on different ones; Redis counts as well."""

    name = "nodes"

    @classmethod
    @contextlib.contextmanager
    def running(cls, clients: int) -> Iterator[SignalingServer]:
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
            redis = RedisServer(Path(directory))
            stack.callback(redis.stop)
            (command,) = cls.commands(clients)
            pids, urls = stack.enter_context(cls.started(2 * [[*command, "--redis", redis.url]]))
            yield cls([*pids, redis.pid], urls)


class Relay(SignalingServer):
    """e2e/bench/relay.py."""

    name = "relay"

    @classmethod
    def commands(cls, clients: int) -> list[list[str]]:
        return [[sys.executable, "-m", "e2e.bench.relay", "0"]]

    def path(self, number: int, room: str | None) -> str:
        return f"/{number}" if room is None else room

    def room_of(self, number: int, first: bytes) -> str:
        return f"/{number}"

    def messages(self, sender: int, receiver: int) -> tuple[bytes, bytes]:
        fields: dict[str, object] = {}
        spoken = frame(padded({"type": "offer", "data": fields}, fields))
        return spoken, spoken


class PeerJs(SignalingServer):
    """The package `peer` of npm, PeerServer."""

    name = "peer"

    @classmethod
    def commands(cls, clients: int) -> list[list[str]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        options = ["--port", port, "--host", "127.0.0.1", "--concurrent_limit", str(2 * clients)]
        # Clients must say something once in so many milliseconds.
        return [["node", str(PEERJS), *options, "--alive_timeout", "600000"]]

    @classmethod
    def url_in(cls, line: str) -> str:
        port = line.partition("port: ")[2].partition(",")[0]
        return f"ws://127.0.0.1:{port}"

    def path(self, number: int, room: str | None) -> str:
        return f"/peerjs?key=peerjs&id=client-{number}&token=token-{number}"

    def room_of(self, number: int, first: bytes) -> str:
        return str(number)

    def messages(self, sender: int, receiver: int) -> tuple[bytes, bytes]:
        spoken = []
        for kind, target in (("OFFER", receiver), ("ANSWER", sender)):
            fields: dict[str, object] = {}
            message = {"type": kind, "dst": f"client-{target}", "payload": fields}
            spoken.append(frame(padded(message, fields)))
        return spoken[0], spoken[1]


SERVERS: dict[str, type[SignalingServer]] = {
    server.name: server for server in (Flyx, FlyxNodes, Relay, PeerJs)
}
