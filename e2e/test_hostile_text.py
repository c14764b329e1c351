"""Servers and peers that write what could steer a terminal, and real processes in every mode of output.

What each field may do to each renderer is tried in tests/cli/test_hostile_text.py; here it travels.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from e2e.peers.hostile_peer import SAYS
from e2e.processes import Flyx, FlyxProcess, HostilePeer, Terminal, write_random
from flyx.signaling import messages as signaling
from flyx.transfer import messages as transfer
from flyx.transfer.manifest import Entry, EntryKind, Manifest
from tests.cli.screen import OF_BARS
from tests.hostile_text import HOSTILE, Place, assert_tame, changed, example, text_places

HOSTILE_TEXT = "".join(text for kind, text in HOSTILE.items() if kind != "surrogates")
"""What JSON can carry: half of a surrogate pair is refused as it arrives."""

Mode = tuple[str, ...]
MODES: list[Mode] = [("--json",), ("--quiet",), ("terminal", "--debug")]


def start(flyx: Flyx, mode: Mode, command: str, *arguments: str | Path) -> FlyxProcess:
    run: Callable[..., FlyxProcess] = flyx.terminal if "terminal" in mode else flyx.start
    before = ["--debug"] if "--debug" in mode else []
    options = [option for option in mode if option not in ("--debug", "terminal")]
    return run(*before, command, *options, *arguments)


def assert_all_tame(process: FlyxProcess, mode: Mode) -> None:
    """Assert that all it wrote is text, and JSON if that was asked for."""
    shown = OF_BARS.sub("", process.err) if isinstance(process, Terminal) else process.err
    assert_tame(shown)
    assert_tame(process.out)
    lines = shown.splitlines()
    assert not [line for line in lines if line.startswith("error: faked")], process
    if "--json" in mode:
        assert process.events
        assert not lines, process
    else:
        assert len([line for line in lines if line.startswith("error: ")]) <= 1, process
    if "--quiet" in mode:
        assert {line.partition(": ")[0] for line in lines} <= {"error", "hint"}, process


# Servers.


@contextmanager
def lying_server(answer: Callable[[ServerConnection], None], refusal: str | None = None) -> Iterator[str]:
    """A server that answers so every client that comes; or refuses with this body of HTTP."""

    def handle(socket: ServerConnection) -> None:
        try:
            answer(socket)
            for _ in socket:
                pass
        except ConnectionClosed:
            pass

    def refuse(socket: ServerConnection, _: Request) -> Response | None:
        return None if refusal is None else socket.respond(HTTPStatus.FORBIDDEN, refusal)

    with serve(handle, "127.0.0.1", 0, compression=None, process_request=refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def joined(role: str) -> dict[str, Any]:
    """A `joined` that is right, with every field."""
    made = example(signaling.Joined)
    made["data"] |= {"room_id": "K7M2QX", "role": role, "received": 0, "expires_at": 2e9}
    made["data"]["limits"]["max_clients"] = 16
    made["data"]["peers"][0] |= {"client_id": "b", "role": "receiver" if role == "sender" else "sender"}
    made["data"]["ice_servers"][0]["urls"] = ["stun:127.0.0.1:9"]
    return made


OF_JOINED = [place for place in text_places(joined("sender")) if "credential" not in place[-1:]]
TOLD = [pytest.param(place, id=".".join(map(str, place))) for place in OF_JOINED if place[-1] != "username"]


def both_ends_against(flyx: Flyx, source: Path, url: str, status: int = 3) -> None:
    for command in (["send", source], ["receive", "--yes", "K7M2QX-lemon-otter"]):
        running = [(start(flyx, mode, *command, "--server", url), mode) for mode in MODES]
        for process, mode in running:
            process.ends(status)
            assert_all_tame(process, mode)
            assert "flyx receive " not in process.out


@pytest.mark.parametrize("place", TOLD)
def test_no_field_of_a_lying_servers_joined_is_shown(flyx: Flyx, tmp_path: Path, place: Place) -> None:
    def answer(socket: ServerConnection) -> None:
        assert socket.request is not None
        role = "sender" if "role=sender" in socket.request.path else "receiver"
        socket.send(json.dumps(changed(joined(role), place, HOSTILE_TEXT)))

    with lying_server(answer) as url:
        both_ends_against(flyx, write_random(tmp_path / "file", 10), url)


def say_and_close(socket: ServerConnection) -> None:
    error = {"code": HOSTILE["CSI"], "message": HOSTILE_TEXT, "fatal": True}
    socket.send(json.dumps({"type": "error", "data": error}))
    socket.close(signaling.CloseCode.NOT_ALLOWED)


def close_with_a_reason(socket: ServerConnection) -> None:
    socket.close(signaling.CloseCode.BAD_MESSAGE, HOSTILE["CSI"] + HOSTILE["lines"] + HOSTILE["bidi"])


@pytest.mark.parametrize("answer", [say_and_close, close_with_a_reason])
def test_the_errors_and_close_reasons_of_a_lying_server_are_text(
    flyx: Flyx, tmp_path: Path, answer: Callable[[ServerConnection], None]
) -> None:
    with lying_server(answer) as url:
        both_ends_against(flyx, write_random(tmp_path / "file", 10), url)


def test_the_http_errors_of_a_lying_server_are_text(flyx: Flyx, tmp_path: Path) -> None:
    refusal = json.dumps({"code": HOSTILE_TEXT, "message": HOSTILE_TEXT})
    with lying_server(lambda _: None, refusal) as url:
        both_ends_against(flyx, write_random(tmp_path / "file", 10), url)


# Peers.


_FILE = Entry("name", EntryKind.FILE, 10, 0o644, 0)
_LINK = Entry("link", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="name")
HONEST = [
    transfer.serialize_control(message) for message in transfer.manifest_messages(Manifest([_FILE, _LINK]))
]
"""What an honest sender says first, and what each of it is."""


def literally(model: type[Any], place: Place) -> list[str]:
    """What a hostile peer says: a message with hostile text in this place, after what belongs before it."""
    message = example(model)
    kind = message["type"]
    told = [json.loads(text) for text in HONEST]
    before = [each["type"] for each in told]
    if kind in before:
        at = before.index(kind)
        return [*HONEST[:at], json.dumps(changed(told[at], place, HOSTILE_TEXT)), *HONEST[at + 1 :]]
    return [json.dumps(changed(message, place, HOSTILE_TEXT))]


PEER_TEXT = [
    pytest.param(model, place, id=".".join(map(str, [model.__name__, *place])))
    for model in get_args(transfer.ControlMessage)
    for place in text_places(example(model))
    if place != ("type",) or model is transfer.Cancel
]


# Text whose form the grammar leaves to the sender.
FREE = [
    (transfer.Cancel, ("message",)),
    (transfer.Roots, ("names", 0)),
    (transfer.ManifestPiece, ("entries", 0, 0)),
    (transfer.ManifestPiece, ("targets", 0)),
]


@pytest.mark.parametrize(("model", "place"), PEER_TEXT)
def test_no_field_of_a_lying_senders_messages_steers_a_receiver(
    flyx: Flyx, tmp_path: Path, hostile_peer: Callable[..., HostilePeer], model: type[Any], place: Place
) -> None:
    lie = SAYS + json.dumps(literally(model, place))
    running = []
    # What the grammar refuses is told in our words: one mode shows that.
    for mode in MODES if (model, place) in FREE else MODES[-1:]:
        sender = hostile_peer("sender", lie)
        code = str(sender.says()["code"])
        process = start(
            flyx, mode, "receive", "--server", flyx.server, "--reconnect", "0", "--yes", "-o", "in", code
        )
        running.append((process, mode))
    for process, mode in running:
        process.process.wait(60)
        assert process.process.returncode in (1, 6, 7), process
        process.ends(process.process.returncode)
        assert_all_tame(process, mode)
    assert not (tmp_path / "in").exists() or not list((tmp_path / "in").glob("[!.]*"))


@pytest.mark.parametrize("mode", [("--json",), ("terminal", "--debug")], ids=repr)
def test_no_field_of_a_lying_receivers_messages_steers_a_sender(
    flyx: Flyx, tmp_path: Path, hostile_peer: Callable[..., HostilePeer], mode: Mode
) -> None:
    sender = start(flyx, mode, "send", "--server", flyx.server, write_random(tmp_path / "file", 10))
    code = sender.code()
    for n, case in enumerate(PEER_TEXT):
        model, place = case.values
        assert isinstance(model, type)
        assert isinstance(place, tuple)
        hostile = hostile_peer(
            "receiver", SAYS + json.dumps([json.dumps(changed(example(model), place, HOSTILE_TEXT))]), code
        )
        hostile.says()
        if "--json" in mode:
            sender.event("peer", peer=n + 1, state="failed")
        else:
            sender.says(f"Receiver {n + 1}: ")
        hostile.kill()
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert_all_tame(sender, mode)
