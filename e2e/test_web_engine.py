"""The page's engine (flyx/web) in Node, over the WebRTC of others, with `flyx send` and `flyx receive`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.network import Network, OnHost
from e2e.peers.stacks import node_stack
from e2e.processes import Event, Flyx, FlyxProcess, sha256, write_random

MB = 1_000_000
PROGRAM = "web_peer.mjs"


class Engine(FlyxProcess):
    """A run of the engine."""

    def __init__(self, flyx: Flyx, stack: str, options: dict[str, Any]) -> None:
        self._commands, self._writer = os.pipe()
        said = json.dumps({"stack": stack, "server": flyx.server, **options})
        super().__init__([said], flyx.environment, flyx.directory, stdin=self._commands)
        os.close(self._commands)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start([*node_stack(PROGRAM).command, command[-1]], environment, directory)

    @property
    def events(self) -> list[Event]:
        """Its events so far, which say less than those of the command line."""
        return [json.loads(line) for line in self._text("stdout").split("\n")[:-1]]

    def told(self) -> str:
        """The code of a sender, when it is ready."""
        return str(self.event("room")["code"])

    def command(self, line: str) -> None:
        os.write(self._writer, f"{line}\n".encode())

    def kill(self) -> None:
        super().kill()
        os.close(self._writer)


Make = Callable[..., Engine]


@pytest.fixture
def engine(flyx: Flyx) -> Make:
    """Starts the engine."""

    def start(stack: str = "wrtc", **options: Any) -> Engine:
        made = Engine(flyx, stack, options)
        flyx.adopt(made)
        return made

    return start


stacks = pytest.mark.parametrize("stack", ["wrtc", "libdatachannel"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of 0 bytes, 1 byte, more than a block, and a hole."""
    tree = tmp_path / "tree"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "none").touch()
    (tree / "deep" / "one").write_bytes(b"1")
    (tree / "deep" / "deeper" / "雨.txt").write_text("the rain")
    write_random(tree / "many", 5 * MB)
    with (tree / "hole").open("wb") as file:
        file.truncate(3 * MB)
    return tree


def content(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def paths_of(root: Path) -> list[list[str]]:
    return [
        [str(path.relative_to(root.parent)), str(path)] for path in sorted(root.rglob("*")) if path.is_file()
    ]


def digest_of(process: FlyxProcess) -> tuple[str, str]:
    done = process.event("done")
    return done["digest"], done["algorithm"]


@stacks
def test_a_tree_from_the_command_line_is_received_whole(
    flyx: Flyx, engine: Make, tree: Path, tmp_path: Path, stack: str
) -> None:
    sender = flyx.send(tree)
    receiver = engine(stack, do="receive", code=sender.code(), directory=str(tmp_path / "in"))
    receiver.ends(0)
    sender.ends(0)
    assert content(tmp_path / "in" / "tree") == content(tree)
    assert digest_of(receiver) == digest_of(sender)


@stacks
def test_files_are_delivered_to_the_command_line(
    flyx: Flyx, engine: Make, tree: Path, tmp_path: Path, stack: str
) -> None:
    sender = engine(stack, do="send", paths=paths_of(tree))
    receiver = flyx.receive(sender.told(), "in")
    receiver.ends(0)
    sender.ends(0)
    assert content(tmp_path / "in" / "tree") == content(tree)
    assert digest_of(receiver) == digest_of(sender)


def test_two_engines_understand_each_other(engine: Make, tree: Path, tmp_path: Path) -> None:
    sender = engine("wrtc", do="send", paths=paths_of(tree), words="nobody guesses this")
    receiver = engine("libdatachannel", do="receive", code=sender.told(), directory=str(tmp_path / "in"))
    receiver.ends(0)
    sender.ends(0)
    assert content(tmp_path / "in" / "tree") == content(tree)


@pytest.mark.parametrize("role", ["send", "receive"])
def test_wrong_words_are_told_on_both_sides(
    flyx: Flyx, engine: Make, tree: Path, tmp_path: Path, role: str
) -> None:
    if role == "send":
        ours = engine(do="send", paths=paths_of(tree))
        theirs = flyx.receive(f"{ours.told()[:6]}-abacus-zoom", "in")
        theirs.ends(5)
        assert ours.event("peer", lambda event: event["state"] == "failed")["code"] == "wrong_words"
    else:
        theirs = flyx.send(tree)
        ours = engine(do="receive", code=f"{theirs.code()[:6]}-abacus-zoom", directory=str(tmp_path))
        ours.ends(1)
        assert ours.event("error")["code"] == "wrong_words"
        assert theirs.event("peer", lambda event: event["state"] == "failed")["code"] == "wrong_words"


@stacks
def test_a_connection_that_breaks_while_receiving_is_made_anew(
    flyx: Flyx, engine: Make, tmp_path: Path, stack: str
) -> None:
    source = write_random(tmp_path / "file", 40 * MB)
    sender = flyx.send(source)
    receiver = engine(stack, do="receive", code=sender.code(), directory=str(tmp_path / "in"), pause=0.02)
    receiver.event("progress", lambda event: event["bytes"] > 5 * MB)
    receiver.command("break")
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert [event["state"] for event in receiver.named("peer")] == ["joined", "paired", "lost"]
    assert len(receiver.named("file")) == len(sender.named("file")) == 1
    verified = [event["bytes"] for event in receiver.named("progress")]
    assert verified == sorted(verified), "what had come is kept"


def test_a_person_who_thinks_while_a_connection_breaks_is_asked_once(
    flyx: Flyx, engine: Make, tree: Path, tmp_path: Path
) -> None:
    sender = flyx.send(tree)
    receiver = engine(do="receive", code=sender.code(), directory=str(tmp_path / "in"), thinks=8)
    receiver.event("manifest")
    receiver.command("break")
    receiver.ends(0)
    sender.ends(0)
    assert content(tmp_path / "in" / "tree") == content(tree)
    assert len(receiver.named("manifest")) == 1
    assert "lost" in [event["state"] for event in receiver.named("peer")]


@stacks
def test_a_connection_that_breaks_while_sending_is_made_anew(
    flyx: Flyx, engine: Make, tmp_path: Path, stack: str
) -> None:
    source = write_random(tmp_path / "file", 40 * MB)
    sender = engine(stack, do="send", paths=[["file", str(source)]], pause=0.02)
    receiver = flyx.receive(sender.told(), "in")
    sender.event("progress", lambda event: event["bytes"] > 5 * MB)
    sender.command("break")
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert [event["state"] for event in sender.named("peer")] == ["joined", "paired", "lost", "done"]


def test_a_file_that_changes_while_it_is_sent_is_not_delivered(
    flyx: Flyx, engine: Make, tmp_path: Path
) -> None:
    source, other = write_random(tmp_path / "file", 20 * MB), write_random(tmp_path / "other", 1000)
    sender = engine(do="send", paths=[["file", str(source)], ["other", str(other)]], pause=0.05)
    receiver = flyx.receive(sender.told(), "in")
    sender.event("progress", lambda event: event["bytes"] > 2 * MB)
    with source.open("ab") as file:
        file.write(b"more")
    receiver.ends(1)
    sender.ends(0)
    assert receiver.event("error")["code"] == "files_failed"
    assert sender.event("done")["missing"] == 1
    assert "changed" in sender.event("file", lambda event: event["path"] == "file")["error"]
    assert list((tmp_path / "in").glob("*")) == [tmp_path / "in" / "other"]


def test_texts_go_both_ways(flyx: Flyx, engine: Make, tmp_path: Path) -> None:
    text = "the rain, 雨, \u202e and a line\n"
    sender = flyx.send("--text", text)
    receiver = engine(do="receive", code=sender.code(), directory=str(tmp_path / "in"))
    receiver.ends(0)
    assert receiver.event("text")["text"] == text
    ours = engine(do="send", text=text)
    theirs = flyx.receive(ours.told(), "in")
    theirs.ends(0)
    ours.ends(0)
    assert theirs.event("text")["text"] == text


def test_a_stream_is_received_as_it_comes(flyx: Flyx, engine: Make, tmp_path: Path) -> None:
    source = write_random(tmp_path / "source", 4 * MB + 1)
    with source.open("rb") as file:
        sender = flyx.send("-", stdin=file.fileno())
    receiver = engine(do="receive", code=sender.code(), directory=str(tmp_path / "in"))
    receiver.ends(0)
    sender.ends(0)
    (received,) = (tmp_path / "in").iterdir()
    assert sha256(received) == sha256(source)


def test_receivers_of_both_kinds_are_served_at_once(
    flyx: Flyx, engine: Make, tree: Path, tmp_path: Path
) -> None:
    sender = engine(do="send", paths=paths_of(tree), receivers=2)
    code = sender.told()
    one, other = flyx.receive(code, "one"), engine(do="receive", code=code, directory=str(tmp_path / "other"))
    for process in (one, other, sender):
        process.ends(0)
    assert content(tmp_path / "one" / "tree") == content(tmp_path / "other" / "tree") == content(tree)


@pytest.mark.parametrize("role", ["send", "receive"])
def test_whoever_stops_tells_the_other_side(flyx: Flyx, engine: Make, tmp_path: Path, role: str) -> None:
    source = write_random(tmp_path / "file", 40 * MB)
    if role == "send":
        ours = engine(do="send", paths=[["file", str(source)]], pause=0.05)
        theirs = flyx.receive(ours.told(), "in")
    else:
        theirs = flyx.send(source)
        ours = engine(do="receive", code=theirs.code(), directory=str(tmp_path / "in"), pause=0.05)
    ours.event("progress", lambda event: event["bytes"] > 2 * MB)
    ours.command("stop")
    ours.ends(1)
    assert ours.event("error")["code"] == "interrupted"
    if role == "send":
        theirs.ends(6)
        assert "the sender stopped it" in theirs.event("error")["message"]
    else:
        failed = theirs.event("peer", lambda event: event["state"] == "failed")
        assert (failed["code"], failed["message"]) == (
            "interrupted",
            "The transfer was interrupted: the receiver stopped it",
        )


def test_a_rate_that_a_receiver_asks_for_is_kept_to(flyx: Flyx, engine: Make, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 3 * MB)
    sender = engine(do="send", paths=[["file", str(source)]])
    receiver = flyx.receive(sender.told(), "in", "--limit", "1MB")
    receiver.ends(0)
    assert receiver.event("done")["seconds"] > 2.5


class EngineOnHost(OnHost):
    """A run of the engine on a host of a network."""

    events = Engine.events

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start([*node_stack(PROGRAM).command, command[-1]], environment, directory)


OUTAGE = 40.0
"""Seconds without a cable: both sides lose patience after 20, and libwebrtc would wait for ever."""


@pytest.mark.parametrize("role", [pytest.param("send", marks=pytest.mark.soak), "receive"])
def test_a_network_that_is_gone_for_a_while_ends_nothing(flyx: Flyx, tmp_path: Path, role: str) -> None:
    source = write_random(tmp_path / "file", 30 * MB)
    with Network() as network:
        switch = network.switch()
        left = network.host("left").plug(switch, "10.92.0.1/24")
        right = network.host("right").plug(switch, "10.92.0.2/24")
        listen = ["--host", "10.92.0.1", "--port", "0", "--stun", "none", "--log-level", "warning"]
        server = flyx.adopt(left.start(["serve", *listen], flyx.environment, tmp_path))
        url = server.prints(r"ws://\S+(?=\n)")[0]

        def engine(**options: Any) -> EngineOnHost:
            said = json.dumps({"stack": "wrtc", "server": url, "pause": 0.1, **options})
            made = EngineOnHost(right, [said], flyx.environment, tmp_path)
            flyx.adopt(made)
            return made

        def command(*arguments: str | Path) -> FlyxProcess:
            verb, *rest = arguments
            return flyx.adopt(
                left.start([verb, "--server", url, "--json", *rest], flyx.environment, tmp_path)
            )

        if role == "send":
            ours = engine(do="send", paths=[["file", str(source)]])
            theirs = command("receive", "--yes", "-o", tmp_path / "in", str(ours.event("room")["code"]))
        else:
            theirs = command("send", source)
            ours = engine(do="receive", code=theirs.code(), directory=str(tmp_path / "in"))
        ours.event("progress", lambda event: event["bytes"] > 3 * MB)
        right.cable("down")
        # The time is the condition here.
        time.sleep(OUTAGE)
        right.cable("up")
        ours.ends(0)
        theirs.ends(0)
        assert sha256(tmp_path / "in" / "file") == sha256(source)
        assert "lost" in [event["state"] for event in ours.named("peer")]
        flyx.close()
