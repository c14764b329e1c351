"""What a sender gives a person to pass on, and what a receiver makes of what was passed on."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from e2e.processes import Flyx, FlyxProcess, need, write_random
from e2e.services import Certificate
from flyx.errors import EXIT_DONE, EXIT_USAGE
from flyx.net.interfaces import outgoing_address


def test_the_line_that_a_sender_prints_is_all_that_a_receiver_needs(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    # Credentials open what is in front of a server, and are nobody else's.
    server = flyx.server.replace("://", "://me:s3cret@")
    sender = flyx.start("send", "--server", server, source)
    sender.code()
    sender.says("not shown").says("the other side puts its own into the URL")
    for number, line in enumerate([shlex.split(sender.out)[1:], ["rx", sender.out]]):
        if number:
            sender = flyx.start("send", "--server", flyx.server, source)
            sender.code()
            line = ["rx", sender.out]
        receiver = flyx.start(*line, "--yes", "-o", f"in-{number}", FLYX_SERVER="ws://127.0.0.1:9").ends(0)
        sender.ends(EXIT_DONE)
        assert (tmp_path / f"in-{number}" / "file").read_bytes() == source.read_bytes()
        assert "s3cret" not in sender.out + sender.err + receiver.out + receiver.err


def test_credentials_of_a_server_are_in_no_event(flyx: Flyx, tmp_path: Path) -> None:
    server = ("--json", "--server", flyx.server.replace("://", "://me:s3cret@"))
    sender = flyx.start("send", *server, write_random(tmp_path / "file", 1000))
    receiver = flyx.start("--debug", "receive", *server, "--yes", "-o", "in", sender.code()).ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    doctor = flyx.start("doctor", *server)
    assert doctor.event("finding", lambda each: each["name"] == "server")["state"] == "ok"
    for process in (sender, receiver, doctor):
        assert "s3cret" not in process.out + process.err, process


def test_a_terminal_is_asked_for_the_code_until_it_is_one(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.send(source)
    receiver = flyx.terminal("recv", "--yes", "-o", "in").says("Code that the sender shows: ")
    receiver.type("lemon-otter\r").says("before the words are missing")
    receiver.type(f"{flyx.server.upper().replace('WS:', 'HTTP:')}/#{sender.code()}\r").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert (tmp_path / "in" / "file").read_bytes() == source.read_bytes()


def test_without_a_terminal_a_code_is_needed(flyx: Flyx) -> None:
    flyx.start("receive", FLYX_CODE="").complains(EXIT_USAGE, "there is no code", "flyx receive CODE")


def test_a_sender_shows_a_link_for_browsers_by_which_a_receiver_finds_it(flyx: Flyx, tmp_path: Path) -> None:
    address = outgoing_address(socket.AF_INET)
    need("an address besides the loopback's", address is not None, in_ci=False)
    assert address is not None
    certificate = Certificate(tmp_path / "certificate", "localhost", address)
    options = ("--host", address, "--tls-cert", certificate.chain, "--tls-key", certificate.key)
    server = FlyxProcess(
        ["serve", "--port", "0", "--stun", "none", *map(str, options)], flyx.environment, flyx.directory
    )
    flyx.adopt(server)
    url = server.prints(r"listening on (wss://\S+)\n")[1]
    source = write_random(tmp_path / "file", 1000)
    trusted = {"FLYX_TLS_CA": str(certificate.authority)}
    sender = flyx.terminal("send", "--server", url, source, **trusted)
    link = sender.shows(r"or open this in a browser:\s+(https://\S+/[0-9A-Z]{6}#[a-z]+-[a-z]+)\s")[1]
    assert link.startswith(url.replace("wss:", "https:"))
    flyx.start("receive", "--yes", "-o", "in", link, **trusted).ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert (tmp_path / "in" / "file").read_bytes() == source.read_bytes()
