"""What a peer says of itself, through a server: descriptions (SDP) and candidates.

The input changes the lines of a description of a real stack: it is judged, or refused by name. What passes is
parsed by aiortc, and no more candidates are tried than may be.
"""

from __future__ import annotations

from aiortc.sdp import SessionDescription

from flyx.errors import RemoteProtocolError
from flyx.rtc.description import MAX_MESSAGE_SIZE, MAX_REMOTE_CANDIDATES, RemoteCandidates, judge
from tests.fuzz.source import Source
from tests.fuzz.target import Target
from tests.rtc.test_description import CHROMIUM, FIREFOX, LAN, SMALLEST

LINES = sorted({*CHROMIUM.splitlines(), *FIREFOX.splitlines()})
CANDIDATES = [
    "1467250027 1 udp 2122260223 192.0.2.7 46243 typ host generation 0",
    "1 1 UDP 1 8.8.8.8 1 typ srflx raddr 0.0.0.0 rport 9",
    "1 1 udp 1 6c6d5bf0-7fa1-4a4b-b6b7-a4e3a3c6f3a1.local 1 typ host",
    "1 1 udp 1 fe80::1 1 typ host",
    "1 1 udp 1 ::ffff:127.0.0.1 1 typ host",
    "1 1 tcp 1 10.0.0.3 9 typ host tcptype active",
]


def changed(source: Source, text: str) -> str:
    """Return a text with a part of it replaced."""
    at = source.integer(0, len(text))
    return text[:at] + source.text(20) + text[at + source.integer(0, 20) :]


def one_description(data: bytes) -> None:
    """Judge a description."""
    source = Source(data)
    lines = source.pick([CHROMIUM, FIREFOX]).splitlines()
    while source.left:
        at = source.integer(0, len(lines) - 1)
        match source.integer(0, 3):
            case 0:
                lines[at] = changed(source, lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines[at:at] = [source.pick(LINES)] * source.integer(1, 8)
            case _:
                lines.insert(at, source.text(60))
    try:
        judged = judge("\r\n".join(lines), "offer", min_message_size=SMALLEST)
    except RemoteProtocolError:
        return
    assert SMALLEST <= judged.max_message_size <= MAX_MESSAGE_SIZE
    assert "\na=candidate:" not in judged.sdp
    try:
        parsed = SessionDescription.parse(judged.sdp)
    except Exception:
        # aiortc meets what it does not expect with any exception; flyx.rtc.peer makes it a refusal by name.
        return
    assert len(parsed.media) == 1


def some_candidates(data: bytes) -> None:
    """Judge candidates in a row."""
    source, candidates = Source(data), RemoteCandidates()
    taken = 0
    while source.left:
        value = source.pick(CANDIDATES)
        for _ in range(source.integer(0, 2)):
            value = changed(source, value)
        candidate = candidates.judge(value, LAN)
        if candidate is not None:
            taken += 1
            assert 0 < candidate.port < 65536
            assert not candidate.ip.startswith(("127.", "fe80"))
    assert taken <= MAX_REMOTE_CANDIDATES


TARGETS = {
    "description": Target(one_description, base=3_000, per_byte=300),
    "candidates": Target(some_candidates, base=1_000, per_byte=100),
}
