"""Servers that die and come back, and networks that break, while people wait for each other."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.processes import DEADLINE, LONG, Flyx, FlyxProcess, Server, sha256, write_random

BACK = "The server is there again."


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "rooms.state"


def serve(flyx: Flyx, *options: str | Path, port: int = 0) -> Server:
    server = Server(flyx.environment, flyx.directory, *options, port=port)
    flyx.adopt(server)
    return server


def send(flyx: Flyx, server: str, *arguments: str | Path) -> FlyxProcess:
    return flyx.start("send", "--server", server, "--json", *arguments)


def receive(flyx: Flyx, server: str, code: str, directory: Path) -> FlyxProcess:
    return flyx.start("receive", "--server", server, "--json", "--yes", "-o", directory, code)


def test_a_sender_that_waits_outlives_a_killed_server(flyx: Flyx, state: Path, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1_000_000)
    server = serve(flyx, "--state", state)
    sender = send(flyx, server.url, source)
    code = sender.code()
    server.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    serve(flyx, "--state", state, port=server.port)
    sender.event("notice", message=BACK)
    receive(flyx, server.url, code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_a_receiver_that_waits_for_a_place_keeps_it_when_the_server_is_killed(
    flyx: Flyx, state: Path, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", LONG)
    server = serve(flyx, "--state", state)
    sender = send(flyx, server.url, source)
    code = sender.code()
    first = receive(flyx, server.url, code, tmp_path / "first").mid_transfer().stop()
    second = receive(flyx, server.url, code, tmp_path / "second")
    second.event("room")
    sender.event("peer", peer=2, state="joined")
    server.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    serve(flyx, "--state", state, port=server.port)
    for process in (sender, second):
        process.event("notice", message=BACK)
    first.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    second.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "second" / "file") == sha256(source)
    assert [event["peer"] for event in sender.named("done")] == [2]


def test_a_server_that_is_restarted_takes_everybody_back(flyx: Flyx, state: Path, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1_000_000)
    server = serve(flyx, "--state", state, "--drain", "0")
    sender = send(flyx, server.url, source)
    code = sender.code()
    for _ in range(2):
        before = len(sender.named("notice"))
        server.send_signal(signal.SIGTERM).ends(0)
        server = serve(flyx, "--state", state, "--drain", "0", port=server.port)
        sender.event("notice", lambda _, seen=before: len(sender.named("notice")) >= seen + 2)  # type: ignore[misc]
    receive(flyx, server.url, code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


class Relay:
    """A TCP relay in front of a server, whose connections can be cut.

    Attributes:
        mute: Whatever clients say after the handshake is lost.
        swallowed: Set when something has been.
    """

    def __init__(self, port: int) -> None:
        self.mute = False
        self.swallowed = threading.Event()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            try:
                inner = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                # The server is down.
                outer.close()
                continue
            self._pairs.append((outer, inner))
            for ends in ((outer, inner, True), (inner, outer, False)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if self.mute and to_server and not data.startswith(b"GET "):
                    self.swallowed.set()
                else:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        """End all connections."""
        for pair in self._pairs:
            for end in pair:
                # Wakes the thread that reads from it, which close() would not.
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
        self._pairs.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


@pytest.fixture
def relay(own_server: Server) -> Iterator[Relay]:
    relay = Relay(own_server.port)
    yield relay
    relay.close()


def test_a_broken_network_costs_nobody_a_place(flyx: Flyx, relay: Relay, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = send(flyx, relay.url, source)
    code = sender.code()
    first = receive(flyx, relay.url, code, tmp_path / "first").mid_transfer().stop()
    second = receive(flyx, relay.url, code, tmp_path / "second")
    # The sender may hear of it before it has its own answer, without which it gives up.
    second.event("room")
    sender.event("peer", peer=2, state="joined")
    relay.cut()
    for process in (sender, second):
        process.event("notice", message=BACK)
    first.resume().ends(0)
    assert sha256(tmp_path / "first" / "file") == sha256(source)
    sender.ends(0)
    second.fails(3, "sender_left")


def test_a_server_killed_while_two_are_about_to_connect_is_done_without(
    flyx: Flyx, state: Path, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", 1_000_000)
    server = serve(flyx, "--state", state)
    relay = Relay(server.port)
    try:
        relay.mute = True
        sender = send(flyx, server.url, source)
        receiver = receive(flyx, relay.url, sender.code(), tmp_path / "in")
        # Its answer to the sender's offer is lost, and so is the server that could tell.
        assert relay.swallowed.wait(DEADLINE)
        server.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
        relay.mute = False
        serve(flyx, "--state", state, port=server.port)
        receiver.ends(0)
        sender.ends(0)
        assert sha256(tmp_path / "in" / "file") == sha256(source)
    finally:
        relay.close()
