"""What strangers say to a real server, and what its operator and the others in a room get to see of it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from e2e.processes import Flyx, FlyxProcess

PATIENCE = 30.0

# All that steers a terminal or fakes its layout: C0, DEL, C1, bidi, separators, invisible ones; and markup.
STEERING = (
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\U000e0041",
)
HOSTILE = "evil\x1b[2J\x1b]0;owned\x07[bold red]:smiley:" + "".join(STEERING)
# What a reason may have: 200 characters, and in a close frame 123 bytes.
BRIEF = "evil\x1b[2J\x1b]0;owned\x07\r\n\x7f\x9b31m\u202e\u2066\u2028[bold red]:smiley:"
# What nobody would put into quotes.
TIGHT = "".join(character for character in BRIEF if character not in " \r\n")
# The escapes of the terminal by which its lines are coloured.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def messages() -> Iterator[dict[str, Any]]:
    """Each message that a client may send, with hostile text in each of its fields, and beside them."""
    candidate = {"candidate": BRIEF, "sdpMid": BRIEF[:60], "usernameFragment": BRIEF, BRIEF: BRIEF}
    yield {"type": "offer", "data": {"client_id": BRIEF, "sdp": HOSTILE, BRIEF: BRIEF}}
    yield {"type": "offer", "data": {"sdp": HOSTILE, "target_id": BRIEF}}
    yield {"type": "answer", "data": {"client_id": BRIEF, "sdp": HOSTILE}}
    yield {"type": "ice_candidate", "data": {"client_id": BRIEF, "candidate": candidate}}
    yield {"type": "ice_candidate", "data": {"candidate": candidate, "target_id": BRIEF}}
    yield {"type": "paired", "data": {"target_id": BRIEF, BRIEF: BRIEF}}
    yield {"type": "join", "data": {"client_id": BRIEF, "resume_token": BRIEF, "role": BRIEF}}
    yield {"type": "error", "data": {"code": BRIEF, "message": BRIEF, "fatal": BRIEF}}
    yield {"type": "joined", "data": {"room_id": BRIEF, "client_id": BRIEF}}
    yield {"type": "ping", "data": {BRIEF: BRIEF}}
    yield {"type": BRIEF, "data": BRIEF, BRIEF: BRIEF}
    yield {BRIEF: BRIEF}


def hear(client: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(client.recv(timeout=PATIENCE)))


def everything_from(client: ClientConnection) -> str:
    """All that comes before the close."""
    heard = ""
    with contextlib.suppress(ConnectionClosed):
        while True:
            heard += str(client.recv(timeout=PATIENCE))
    return heard


def ask(url: str, request: bytes) -> bytes:
    """Send these bytes as a request; return all that comes back."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def requests() -> Iterator[bytes]:
    """HTTP requests with hostile text in each place."""
    encoded, raw = quote(HOSTILE), BRIEF.encode()
    # What may be in a header at all: no C0, but C1 and whatever UTF-8 makes of the rest.
    field = "evil\x9b31m[bold red]".encode("latin-1") + "\u202e\u2066\u2028".encode()
    end = b"Connection: close\r\n\r\n"
    for method in (b"GET", b"PUT", b"DELETE"):
        for path in (f"/room/{encoded}", f"/{encoded}", f"/rooms?limit={encoded}&after={encoded}"):
            yield method + b" " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + end
    for name in (b"Host", b"Origin", b"User-Agent", b"Authorization", b"X-Forwarded-For", b"Cookie", field):
        host = b"" if name == b"Host" else b"Host: localhost\r\n"
        yield b"GET /room/ZZZZZZ HTTP/1.1\r\n" + host + name + b": " + field + b"\r\n" + end
        yield b"GET /room/ZZZZZZ HTTP/1.1\r\n" + host + name + b": " + raw + b"\r\n" + end
    for text in (BRIEF, json.dumps(BRIEF), json.dumps({BRIEF: BRIEF, "ttl": BRIEF, "persistent": BRIEF})):
        body = text.encode()
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        yield b"POST /room HTTP/1.1\r\n" + head.encode() + end + body
    yield raw + b" " + raw + b" " + raw + b"\r\n\r\n"


def assault(url: str) -> list[str]:
    """Say all of it to a server; return what clients were told, but for what was meant for their peers."""
    told = [ask(url, request).decode("utf-8", "surrogateescape") for request in requests()]
    with connect(f"{url}/ws?role={quote(BRIEF)}") as client:
        told.append(everything_from(client))
    with connect(f"{url}/ws/{quote(HOSTILE)}?resume={quote(BRIEF)}") as client:
        told.append(everything_from(client))
    with connect(f"{url}/ws/{quote(HOSTILE)}?resume=1") as client:
        client.send(json.dumps({"type": "join", "data": {"client_id": BRIEF, "resume_token": BRIEF}}))
        told.append(everything_from(client))
    for role in ("sender", "receiver"):
        with connect(f"{url}/ws") as first, connect(f"{url}/ws/{hear(first)['data']['room_id']}") as second:
            speaker, listener = (first, second) if role == "sender" else (second, first)
            assert hear(second)["data"]["role"] == "receiver"
            assert hear(first)["type"] == "join"
            for message in messages():
                speaker.send(json.dumps(message))
            speaker.send(json.dumps({"type": "ping"}))
            # One of the messages was a ping as well.
            for _ in range(2):
                while (answer := hear(speaker))["type"] != "pong":
                    told.append(json.dumps(answer, ensure_ascii=False))
            reason = BRIEF if role == "sender" else TIGHT
            speaker.send(json.dumps({"type": "disconnect", "data": {"client_id": BRIEF, "reason": reason}}))
            told.append(everything_from(speaker))
            check_relayed(listener, role)
    for code in (1000, 3000, 4999):
        with connect(f"{url}/ws") as client:
            hear(client)
            client.close(code, BRIEF)
    return told


def check_relayed(listener: ClientConnection, role: str) -> None:
    """A peer gets the fields of the grammar as they were sent, and nothing that was beside them."""
    while True:
        message = hear(listener)
        data = message["data"]
        assert data.pop("client_id") not in (BRIEF, "")
        match message["type"]:
            case "offer" | "answer":
                assert data == {"sdp": HOSTILE}
                assert message["type"] == ("offer" if role == "sender" else "answer")
            case "ice_candidate":
                assert set(data) == {"candidate"}
                assert set(data["candidate"]) <= {
                    *("candidate", "sdpMid", "sdpMLineIndex", "usernameFragment")
                }
                assert data["candidate"]["candidate"] == BRIEF
            case "disconnect":
                assert data == {"reason": BRIEF if role == "sender" else TIGHT}
                return
            case kind:
                raise AssertionError(kind)


def serve(flyx: Flyx, *options: str, terminal: bool) -> tuple[FlyxProcess, str]:
    arguments: tuple[str, ...] = ("serve", "--host", "127.0.0.1", "--port", "0", "--stun", "none")
    arguments += ("--log-level", "debug")
    arguments = (*arguments, "--miss-rate", "none", "--admin-token", "operator", *options)
    server = flyx.terminal(*arguments, pipe_stdout=True) if terminal else flyx.start(*arguments)
    return server, server.prints(r"listening on (ws://\S+)\n")[1]


def check_no_steering(text: str, *, lines: bool = True) -> None:
    for character in STEERING:
        if not (lines and character in "\r\n"):
            assert character not in text, (character, text)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_nothing_that_a_client_says_steers_the_operators_terminal(flyx: Flyx, terminal: bool) -> None:
    server, url = serve(flyx, terminal=terminal)
    told = assault(url)
    server.says(r"evil\x1b[2J")
    server.send_signal(2).ends(0)
    check_no_steering(COLOURS.sub("", server.err))
    # Every event is one line, which begins with its time.
    brief = r"evil\x1b[2J\x1b]0;owned\x07\r\n\x7f\x9b31m\u202e\u2066\u2028[bold red]:smiley:"
    tight = brief.replace(r"\r\n", "").replace(" ", "")
    for reason in (f"reason='{brief}'", f"reason={tight}"):
        [line] = [line for line in COLOURS.sub("", server.err).splitlines() if reason in line]
        assert re.match(r"\d{4}-\d\d-\d\dT\S+Z \[info", line)
    for answer in told:
        check_no_steering(answer)
        assert "[bold red]" not in answer


def test_nothing_that_a_client_says_breaks_the_log_in_json(flyx: Flyx) -> None:
    server, url = serve(flyx, "--log-json", terminal=False)
    assault(url)
    server.says(r"evil\u001b[2J")
    server.send_signal(2).ends(0)
    check_no_steering(server.err)
    events = [json.loads(line) for line in server.err.splitlines()]
    assert {BRIEF, TIGHT} <= {event.get("reason") for event in events}
