from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from flyx.server.transport.frames import size_of_text, text_frame, text_in
from tests.server.raw_websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

# At the edges of the three ways to write a length.
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 70_000)


def texts_heard(data: bytes) -> list[bytes]:
    """Return what `websockets` takes for text in whole frames."""
    protocol = Protocol(SERVER, state=OPEN)
    protocol.receive_data(data)
    frames = protocol.events_received()
    assert protocol.parser_exc is None
    return [bytes(event.data) for event in frames if isinstance(event, Frame) and event.opcode is Opcode.TEXT]


def texts_found(data: bytes) -> tuple[list[bytes], int]:
    """Return what the fast way finds, and where it ends."""
    found, at = [], 0
    while (text := text_in(data, at)) is not None:
        payload, at = text
        found.append(payload)
    return found, at


@pytest.mark.parametrize("size", SIZES)
def test_a_text_frame_is_that_of_websockets(size: int) -> None:
    payload = b"x" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@pytest.mark.parametrize("size", [size for size in SIZES if size < 65536])
def test_a_text_is_found_where_websockets_finds_it(size: int) -> None:
    data = frame(TEXT, b"x" * size)
    assert texts_found(data) == (texts_heard(data), len(data))


@given(st.lists(st.binary(max_size=300), max_size=5), st.binary(max_size=300), st.data())
def test_texts_in_a_row_are_those_of_websockets(texts: list[bytes], last: bytes, data: st.DataObject) -> None:
    whole = b"".join(frame(TEXT, text) for text in texts)
    torn = frame(TEXT, last)
    torn = torn[: data.draw(st.integers(0, len(torn) - 1))]
    assert texts_found(whole + torn) == (texts_heard(whole), len(whole))


@pytest.mark.parametrize("size", [size for size in SIZES if size < 65536])
def test_the_beginning_of_a_text_tells_how_much_is_missing(size: int) -> None:
    whole = frame(TEXT, b"x" * size)
    for there in (*range(1, min(len(whole), 10)), len(whole) - 1):
        told = size_of_text(whole[:there], 0)
        assert there < told <= len(whole)
        # From the length on it is exact.
        assert told == len(whole) or there < 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(BINARY, b"text"),
        frame(PING, b""),
        frame(PONG, b""),
        frame(CLOSE, b"\x03\xe8"),
        frame(TEXT, b"text", fin=False),
        frame(CONT, b"text"),
        frame(TEXT, b"text", rsv=4),
        frame(TEXT, b"as no client may", mask=None),
        frame(TEXT, b"x" * 65536),
    ],
)
def test_what_is_not_a_whole_masked_text_is_left_alone(data: bytes) -> None:
    assert text_in(data, 0) is None
    assert size_of_text(data, 0) in (0, len(data))


@pytest.mark.parametrize(
    "data", [frame(TEXT, b"x" * 65536)[:20], frame(TEXT, b"x" * 20, mask=None)[:9], frame(PING)[:3]]
)
def test_the_beginning_of_another_frame_is_left_alone(data: bytes) -> None:
    assert size_of_text(data, 0) == 0
