"""The wire grammar of pairing: what is written can be read, and what cannot be read is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import RemoteProtocolError
from flyx.pairing import messages
from flyx.pairing.messages import VERSION, Confirm, Hello, OtherHello, Pake, Reject
from flyx.pairing.words import MAX_WORDS

hexes = st.sampled_from("0123456789abcdef")
features = st.lists(st.text("abcdefgh-0123", min_size=1, max_size=32), max_size=32).map(tuple)
pairing_messages = st.one_of(
    st.builds(
        Hello,
        version=st.just(VERSION),
        agent=st.text(max_size=64),
        nonce=st.text(hexes, min_size=32, max_size=32),
        features=features,
        needs=features,
        code=st.sampled_from(["words", "own", "open", None]),
        words=st.integers(0, MAX_WORDS),
        session=st.one_of(st.none(), st.text(hexes, min_size=32, max_size=32)),
    ),
    st.builds(OtherHello, version=st.integers(1, 1 << 31).filter(lambda version: version != VERSION)),
    st.builds(Pake, share=st.text(hexes, min_size=64, max_size=64)),
    st.builds(
        Confirm,
        words=st.text(hexes, min_size=64, max_size=64),
        connection=st.text(hexes, min_size=64, max_size=64),
    ),
    st.builds(Reject, reason=st.text("abc_", min_size=1, max_size=64)),
)


@given(pairing_messages)
def test_messages_survive_the_wire(message: messages.PairingMessage) -> None:
    text = messages.serialize(message)
    assert len(text) <= messages.MAX_SIZE
    assert messages.parse_untrusted(text) == message


@given(pairing_messages, st.data())
def test_truncated_messages_are_refused(message: messages.PairingMessage, data: st.DataObject) -> None:
    text = messages.serialize(message)
    with pytest.raises(RemoteProtocolError):
        messages.parse_untrusted(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.one_of(st.text(), st.binary()))
def test_garbage_is_refused(garbage: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_untrusted(garbage)


def hello(**fields: object) -> str:
    """A hello with other fields than a good one has; None leaves one out."""
    good = {"type": "hello", "version": VERSION, "agent": "x", "nonce": "a" * 32}
    return json.dumps({name: value for name, value in {**good, **fields}.items() if value is not None})


def test_the_hello_that_the_hostile_ones_are_made_of_is_good() -> None:
    assert isinstance(messages.parse_untrusted(hello()), Hello)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"hello"}',
        '{"type":"hello","version":0}',
        '{"type":"hello","version":"1"}',
        '{"type":"hello","version":1,"agent":"\ud800"}',
        '{"type":"hello","version":2}',
        hello(nonce=None),
        hello(nonce="a" * 31),
        hello(version="2"),
        hello(agent="\ud800"),
        hello().replace('"x"', '"\ud800"'),
        hello(words=9),
        hello(code="none"),
        hello(needs=["\x1b[2J"]),
        hello(features=["a"] * 33),
        '{"type":"pake","share":"' + "A" * 64 + '"}',
        '{"type":"pake","share":"' + "a" * 66 + '"}',
        '{"type":"pake","element":"' + "a" * 66 + '"}',
        '{"type":"confirm","words":"' + "a" * 64 + '"}',
        '{"type":"reject","reason":"\\u001b[2J"}',
        '{"type":"accept","below":0}',
        '{"type":"reject","reason":"x"}' + " " * messages.MAX_SIZE,
        "[" * 3_000,
    ],
)
def test_hostile_messages_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_untrusted(text)


def test_unknown_fields_are_ignored() -> None:
    assert messages.parse_untrusted('{"type":"reject","reason":"x","colour":"red"}') == Reject(reason="x")
