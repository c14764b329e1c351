"""The WebSocket layer of the running server against RFC 6455, with the cases of the Autobahn test-suite.

The suite itself runs on Python 2 only and wants an echo server.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter

import pytest

from flyx.server.app import Server
from flyx.server.config import DEFAULT_MAX_FRAME_SIZE
from flyx.signaling.config import MAX_MESSAGE_SIZE
from tests.server.raw_websocket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PING_MESSAGE,
    PONG,
    TEXT,
    Raw,
    closing,
    frame,
    raw,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def padded(size: int) -> bytes:
    """A ping message of so many bytes."""
    return PING_MESSAGE[:-1] + b" " * (size - len(PING_MESSAGE)) + b"}"


def split(message: bytes, *places: int) -> bytes:
    """A text message in fragments that begin at these places."""
    parts = [message[a:b] for a, b in zip((0, *places), (*places, len(message)), strict=True)]
    frames = [frame(TEXT if n == 0 else CONT, part, fin=False) for n, part in enumerate(parts[:-1])]
    return b"".join(frames) + frame(CONT if frames else TEXT, parts[-1])


def offer(text: str) -> bytes:
    """A message that holds this text and has nobody to go to."""
    return b'{"type":"offer","data":{"sdp":"' + text.encode() + b'"}}'


async def converse(server: Server, sent: bytes, expected: list[str], *, bytewise: bool = False) -> None:
    """Send, and hear exactly what is expected; then nothing more after a close, or all is well."""
    async with raw(server) as client:
        if bytewise:
            for n in range(len(sent)):
                await client.send(sent[n : n + 1])
        else:
            await client.send(sent)
        await expect(client, expected)


async def expect(client: Raw, expected: list[str]) -> None:
    for heard in expected:
        assert await client.hear() == heard
    if expected and expected[-1].startswith("close"):
        await client.end()
    else:
        await client.send(frame(TEXT, PING_MESSAGE))
        assert await client.hear() == "pong"


# §5.2: lengths, at the edges of the three ways to write them.

LENGTHS = [
    *((size, ["pong"]) for size in (len(PING_MESSAGE), 125, 126, 127, 128, 65535, MAX_MESSAGE_SIZE)),
    *((size, ["message_too_big"]) for size in (MAX_MESSAGE_SIZE + 1, DEFAULT_MAX_FRAME_SIZE)),
    (DEFAULT_MAX_FRAME_SIZE + 1, ["close 1009"]),
]


@pytest.mark.parametrize(("size", "expected"), LENGTHS)
async def test_a_message_of_each_length(server: Server, size: int, expected: list[str]) -> None:
    await converse(server, frame(TEXT, padded(size)), expected)


@pytest.mark.parametrize("seed", range(10))
async def test_messages_in_a_row_are_heard_wherever_the_network_cuts_them(server: Server, seed: int) -> None:
    rng = random.Random(seed)
    sent, expected = b"", Counter[str]()
    for _ in range(60):
        message = padded(rng.choice((len(PING_MESSAGE), 100, 126, 3000, 20_000)))
        kind = rng.choice(("whole", "whole", "whole", "whole", "ping frame", "fragments"))
        if kind == "ping frame":
            sent += frame(PING, b"x")
            expected["pong frame x"] += 1
        else:
            sent += split(message, 10) if kind == "fragments" else frame(TEXT, message)
            expected["pong"] += 1
    cuts = sorted(rng.sample(range(len(sent)), 40))
    async with raw(server) as client:
        await client.send(*(sent[a:b] for a, b in zip((0, *cuts), (*cuts, len(sent)), strict=True)))
        # A pong frame may overtake what waits to be written.
        assert Counter([await client.hear() for _ in range(expected.total())]) == expected
        await expect(client, [])


@pytest.mark.parametrize("claim", [DEFAULT_MAX_FRAME_SIZE + 1, 2**31, 2**32, 2**62])
async def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come(server: Server, claim: int) -> None:
    await converse(server, frame(TEXT, b"", claim=claim), ["close 1009"])


async def test_a_large_message_in_fragments_is_refused_as_soon_as_it_is_too_large(server: Server) -> None:
    sent = frame(TEXT, b"x" * 65_000, fin=False) + frame(CONT, b"x" * 65_000, fin=False)
    await converse(server, sent + frame(CONT, b"x" * 65_000, fin=False), ["close 1009"])


async def test_a_length_with_the_highest_bit_is_refused(server: Server) -> None:
    sent = bytes([0x81, 0xFF]) + struct.pack("!Q", 1 << 63) + b"\0\0\0\0"
    async with raw(server) as client:
        await client.send(sent)
        assert await client.hear() in ("close 1002", "close 1009")
        await client.end()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536])
async def test_binary_messages_are_understood_and_not_wanted(server: Server, size: int) -> None:
    await converse(server, frame(BINARY, b"\xfe" * size), ["binary_message"])


async def test_an_empty_message_is_not_json(server: Server) -> None:
    await converse(server, frame(TEXT), ["bad_json"])


async def test_frames_may_come_byte_by_byte(server: Server) -> None:
    await converse(server, split(PING_MESSAGE, 3), ["pong"], bytewise=True)
    await converse(server, frame(PING, b"xyz"), ["pong frame xyz"], bytewise=True)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 30, 31, 32, 60, 64, 100, 1000])
async def test_frames_may_come_in_pieces_of_any_size(server: Server, size: int) -> None:
    text = frame(TEXT, PING_MESSAGE)
    sent = text + frame(PING, b"a") + text + split(PING_MESSAGE, 9) + text + frame(PONG, b"b") + text
    async with raw(server) as client:
        for start in range(0, len(sent), size):
            await client.send(sent[start : start + size])
            # The server is in this loop: it reads what there is.
            await asyncio.sleep(0)
        await expect(client, ["pong", "pong frame a", *4 * ["pong"]])


async def test_many_frames_may_come_at_once(server: Server) -> None:
    await converse(server, frame(TEXT, PING_MESSAGE) * 50, ["pong"] * 50)


# §5.1: masks.


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
async def test_a_frame_without_a_mask_is_refused(server: Server, opcode: int) -> None:
    await converse(server, frame(opcode, b"", mask=None), ["close 1002"])


async def test_a_mask_of_zeros_is_a_mask(server: Server) -> None:
    await converse(server, frame(TEXT, PING_MESSAGE, mask=b"\0\0\0\0"), ["pong"])


# §5.2: reserved bits and opcodes.


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
async def test_reserved_bits_are_refused(server: Server, rsv: int, opcode: int) -> None:
    sent = frame(TEXT, PING_MESSAGE) + frame(opcode, b"", rsv=rsv)
    async with raw(server) as client:
        await client.send(sent)
        # What came in the same segment before the mistake may be answered or not.
        if (heard := await client.hear()) == "pong":
            heard = await client.hear()
        assert heard == "close 1002"
        await client.end()


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"payload"])
async def test_reserved_opcodes_are_refused(server: Server, opcode: int, payload: bytes) -> None:
    await converse(server, frame(opcode, payload), ["close 1002"])


# §5.4: fragments.

FRAGMENTS = {
    "two": (split(PING_MESSAGE, 10), ["pong"]),
    "three, one of them empty": (split(PING_MESSAGE, 10, 10), ["pong"]),
    "an empty first": (split(PING_MESSAGE, 0), ["pong"]),
    "an empty last": (split(PING_MESSAGE, len(PING_MESSAGE)), ["pong"]),
    "one for each byte": (split(PING_MESSAGE, *range(1, len(PING_MESSAGE))), ["pong"]),
    "all empty": (split(b"", 0, 0), ["bad_json"]),
    "a ping between": (
        frame(TEXT, PING_MESSAGE[:9], fin=False) + frame(PING, b"now") + frame(CONT, PING_MESSAGE[9:]),
        ["pong frame now", "pong"],
    ),
    "a pong between": (
        frame(TEXT, PING_MESSAGE[:9], fin=False) + frame(PONG, b"now") + frame(CONT, PING_MESSAGE[9:]),
        ["pong"],
    ),
    # `websockets` takes it for a mistake to leave in the middle of a message. It is the end either way.
    "a close between": (frame(TEXT, PING_MESSAGE[:9], fin=False) + closing(1000), ["close 1002"]),
    "two messages": (split(PING_MESSAGE, 5) + split(PING_MESSAGE, 7), ["pong", "pong"]),
    "none to continue": (frame(CONT, PING_MESSAGE), ["close 1002"]),
    "none to continue, more to come": (frame(CONT, PING_MESSAGE, fin=False), ["close 1002"]),
    "a new message within": (frame(TEXT, b"{", fin=False) + frame(TEXT, PING_MESSAGE), ["close 1002"]),
    "a binary one within": (frame(TEXT, b"{", fin=False) + frame(BINARY, b"}"), ["close 1002"]),
    "of binary": (frame(BINARY, b"a", fin=False) + frame(CONT, b"b"), ["binary_message"]),
    "of a ping": (frame(PING, b"a", fin=False) + frame(CONT, b"b"), ["close 1002"]),
    "of a pong": (frame(PONG, b"a", fin=False), ["close 1002"]),
    "of a close": (frame(CLOSE, struct.pack("!H", 1000), fin=False), ["close 1002"]),
    "too many": (frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 100, ["close 1009"]),
}


@pytest.mark.parametrize(("sent", "expected"), FRAGMENTS.values(), ids=FRAGMENTS.keys())
async def test_fragments(server: Server, sent: bytes, expected: list[str]) -> None:
    await converse(server, sent, expected)


# §5.5: control frames.

CONTROLS = {
    "ping": (frame(PING), ["pong frame "]),
    "ping with data": (frame(PING, b"hello"), ["pong frame hello"]),
    "ping of 125 bytes": (frame(PING, b"x" * 125), ["pong frame " + "x" * 125]),
    "ping of 126 bytes": (frame(PING, b"x" * 126), ["close 1002"]),
    "ten pings": (frame(PING, b"a") * 10, ["pong frame a"] * 10),
    "ping that is not UTF-8": (frame(PING, b"\xff\x00"), ["pong frame \xff\x00"]),
    "pong that nobody asked for": (frame(PONG, b"?"), []),
    "pong of 126 bytes": (frame(PONG, b"x" * 126), ["close 1002"]),
    "pong, then ping": (frame(PONG, b"a") + frame(PING, b"b"), ["pong frame b"]),
}


@pytest.mark.parametrize(("sent", "expected"), CONTROLS.values(), ids=CONTROLS.keys())
async def test_control_frames(server: Server, sent: bytes, expected: list[str]) -> None:
    await converse(server, sent, expected)


# §5.5.1, §7.4: closing.

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", GOOD_CODES)
async def test_a_close_is_answered_with_its_own_code(server: Server, code: int) -> None:
    await converse(server, closing(code, b"bye"), [f"close {code}"])


@pytest.mark.parametrize("code", BAD_CODES)
async def test_codes_that_may_not_be_sent_are_refused(server: Server, code: int) -> None:
    await converse(server, closing(code), ["close 1002"])


CLOSES = {
    "without a code": (frame(CLOSE), ["close"]),
    "of one byte": (frame(CLOSE, b"\x03"), ["close 1002"]),
    "with the longest reason": (closing(1000, b"x" * 123), ["close 1000"]),
    "with too long a reason": (closing(1000, b"x" * 124), ["close 1002"]),
    "with a reason that is not UTF-8": (closing(1000, b"\xff"), ["close 1007"]),
    "twice": (closing(1000) * 2, ["close 1000"]),
    "before a message": (closing(1000) + frame(TEXT, PING_MESSAGE), ["close 1000"]),
    "before a ping": (closing(1000) + frame(PING), ["close 1000"]),
    "before garbage": (closing(1000) + b"\xff" * 100, ["close 1000"]),
    "after a message": (frame(TEXT, PING_MESSAGE) + closing(1000), ["close 1000"]),
}


@pytest.mark.parametrize(("sent", "expected"), CLOSES.values(), ids=CLOSES.keys())
async def test_closes(server: Server, sent: bytes, expected: list[str]) -> None:
    async with raw(server) as client:
        await client.send(sent)
        heard = await client.hear()
        # A close in the same segment may overtake the answer to what came before it.
        if heard == "pong":
            heard = await client.hear()
        assert [heard] == expected
        await client.end()


# §8.1: UTF-8.

# One character for each way of encoding, at the edges.
CHARACTERS = "\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff"


@pytest.mark.parametrize("character", CHARACTERS, ids=lambda c: f"U+{ord(c):04X}")
async def test_characters_may_be_cut_anywhere_by_fragments(server: Server, character: str) -> None:
    message = offer(f"a{character}b")
    start = message.index(character.encode())
    sent = b"".join(split(message, start + n) for n in range(len(character.encode()) + 1))
    await converse(server, sent, ["no_such_peer"] * (len(character.encode()) + 1))


NOT_UTF8 = {
    "a lone continuation": b"\x80",
    "two": b"\x80\xbf",
    "a start without its rest": b"\xc3",
    "of three, cut": b"\xe2\x82",
    "of four, cut": b"\xf0\x9f\xa6",
    "overlong slash": b"\xc0\xaf",
    "overlong in three": b"\xe0\x80\xaf",
    "overlong in four": b"\xf0\x80\x80\xaf",
    "overlong null": b"\xc0\x80",
    "a surrogate": b"\xed\xa0\x80",
    "the last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "of five": b"\xf8\x88\x80\x80\x80",
    "of six": b"\xfc\x84\x80\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
}


@pytest.mark.parametrize("wrong", NOT_UTF8.values(), ids=NOT_UTF8.keys())
async def test_what_is_not_utf8_ends_the_connection(server: Server, wrong: bytes) -> None:
    message = b'{"type":"ping","x":"' + wrong + b'"}'
    await converse(server, frame(TEXT, message), ["close 1007"])
    await converse(server, split(message, 21), ["close 1007"])
    await converse(server, frame(TEXT, wrong), ["close 1007"])
