"""A code agreed beforehand: sender, receiver and server are started in any order, as by cron."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from e2e.processes import (
    DEADLINE,
    LONG,
    Flyx,
    FlyxProcess,
    Server,
    lasting_port,
    need,
    sha256,
    write_random,
    write_thin,
)

CODES = Path(__file__).parents[1] / "flyx" / "docs" / "codes.md"

ROOM, WORDS = "K7M2QX", "nobody guesses this"
AGREED = f"{ROOM}-nobody-guesses-this"
WAITS = f"Waiting for a sender under the code {ROOM}"


def send(flyx: Flyx, server: str, source: Path, *options: str) -> FlyxProcess:
    agreed = ("--room", ROOM.lower(), "--code", WORDS)
    return flyx.start("send", "--server", server, "--json", *agreed, *options, source)


def receive(flyx: Flyx, server: str, directory: Path) -> FlyxProcess:
    options = ("--server", server, "--json", "--wait", "--yes")
    return flyx.start("receive", *options, "-o", directory, AGREED)


def test_a_receiver_that_is_first_waits_for_its_sender(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", 1_000_000)
    receiver = receive(flyx, own_server.url, tmp_path / "in")
    receiver.event("notice", message=WAITS)
    sender = send(flyx, own_server.url, source)
    assert sender.code() == AGREED
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert len(receiver.named("notice")) == 1


def test_a_sender_that_is_first_waits_for_its_receiver(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", 1_000_000)
    sender = send(flyx, own_server.url, source, "--wait", "60")
    assert sender.code() == AGREED
    receive(flyx, own_server.url, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_a_server_may_be_the_last_to_come(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1_000_000)
    port = lasting_port()
    url = f"ws://127.0.0.1:{port}"
    receiver = receive(flyx, url, tmp_path / "in")
    receiver.event("notice", message=WAITS)
    receiver.event("notice", lambda event: "out of reach (nothing listens there)" in event["message"])
    flyx.adopt(Server(flyx.environment, flyx.directory, port=port))
    receiver.event("notice", message="The server is there again.")
    sender = send(flyx, url, source)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_a_server_that_forgets_its_rooms_has_both_meet_again(flyx: Flyx, tmp_path: Path) -> None:
    """The sender makes the room anew; the receiver was in it, and waits for its turn."""
    source = write_thin(tmp_path / "file", LONG)
    port = lasting_port()
    server = Server(flyx.environment, flyx.directory, port=port)
    flyx.adopt(server)
    sender = send(flyx, server.url, source, "--receivers", "2")
    first = flyx.receive(sender.code(), tmp_path / "first", "--server", server.url).mid_transfer()
    sender.stop()
    second = receive(flyx, server.url, tmp_path / "second")
    second.event("room")
    server.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    sender.resume()
    flyx.adopt(Server(flyx.environment, flyx.directory, port=port))
    for process in (first, second, sender):
        process.ends(0)
    assert sha256(tmp_path / "second" / "file") == sha256(source)


def test_a_receiver_too_late_for_one_sender_waits_for_the_next(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    source = write_thin(tmp_path / "large", LONG)
    sender = send(flyx, own_server.url, source)
    sender.code()
    first = receive(flyx, own_server.url, tmp_path / "first").mid_transfer().stop()
    second = receive(flyx, own_server.url, tmp_path / "second")
    sender.event("peer", peer=2, state="joined")
    first.resume().ends(0)
    sender.ends(0)
    second.event("notice", lambda event: "Waiting for another sender" in event["message"])
    small = write_random(tmp_path / "small", 1000)
    send(flyx, own_server.url, small).ends(0)
    second.ends(0)
    assert sha256(tmp_path / "second" / "small") == sha256(small)


def test_a_room_that_somebody_has_is_told_as_taken_and_is_free_when_it_is_left(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", 1000)
    first = send(flyx, own_server.url, source)
    first.code()
    second = send(flyx, own_server.url, source).fails(3, "room_taken")
    error = second.event("error")
    assert error["message"] == "The room K7M2QX is taken."
    assert "30 s (--grace" in error["hint"]
    first.send_signal(signal.SIGTERM).ends(130)
    third = send(flyx, own_server.url, source)
    assert third.code() == AGREED


def test_a_room_that_there_cannot_be_is_wrong_usage(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    message = "--room cannot be used: the room code has 5 characters instead of 6"
    flyx.start("send", "--room", "lemon", source).complains(2, message, "a room code has")


def test_ctrl_c_ends_a_receiver_that_waits_at_once(flyx: Flyx, own_server: Server, tmp_path: Path) -> None:
    receiver = flyx.start("receive", "--server", own_server.url, "--wait", "--yes", AGREED)
    receiver.says(f"{WAITS}\n").send_signal(signal.SIGINT).ends(130, within=5)


def test_what_is_no_flyx_server_is_not_waited_for(flyx: Flyx, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{web.server_port}"
        receive(flyx, url, tmp_path / "in").fails(3, "server_unreachable")
        web.shutdown()


class Cron:
    """Runs the job of a crontab in the document about codes, but for the hour and the server."""

    def __init__(self, flyx: Flyx, crontab: str, server: str) -> None:
        *settings, job = crontab.splitlines()
        variables = dict(setting.split("=", 1) for setting in settings)
        assert "FLYX_SERVER" in variables
        command = re.sub(r"^(\S+ ){5}", "", job)
        self._process = subprocess.Popen(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=flyx.directory,
            env=flyx.environment | variables | {"FLYX_SERVER": server},
            text=True,
        )

    def says(self, text: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if text in line:
                return
        raise AssertionError(f"it never said {text}")

    def ends(self) -> None:
        out, _ = self._process.communicate(timeout=DEADLINE)
        assert self._process.returncode == 0, out

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_the_crontabs_of_the_document_meet_in_any_order(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    need("flock", shutil.which("flock") is not None)
    sends, receives = re.findall(r"```crontab\n(.*?)\n```", CODES.read_text(), re.DOTALL)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "flyx").write_text(f'#!/bin/sh\nexec {sys.executable} -m flyx "$@"\n')
    (programs / "flyx").chmod(0o755)
    flyx.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    for night, order in enumerate(((receives, sends), (sends, receives))):
        photo = write_random(tmp_path / "photos" / f"{night}.jpg", 1000)
        with contextlib.ExitStack() as stack:
            jobs = []
            for crontab in order:
                jobs.append(Cron(flyx, crontab, own_server.url))
                stack.callback(jobs[-1].kill)
                if len(jobs) == 1:
                    jobs[0].says("flyx receive --server" if crontab is sends else WAITS)
            for job in jobs:
                job.ends()
        assert sha256(tmp_path / "backup" / "photos" / photo.name) == sha256(photo)
