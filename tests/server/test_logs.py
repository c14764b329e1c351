from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.server.logs import Throttle, configure_logging, get_logger, room_tag


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_hold_the_event_and_its_fields() -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=True, stream=stream)
    get_logger("flyx.server.test").info("client connected", room="ab12", count=3)
    line = json.loads(stream.getvalue())
    assert line["event"] == "client connected"
    assert (line["room"], line["count"], line["level"]) == ("ab12", 3, "info")
    assert line["logger"] == "flyx.server.test"
    assert line["timestamp"].endswith("Z")


def test_other_libraries_log_in_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=True, stream=stream)
    logging.getLogger("uvicorn.error").warning("too bad: %s", "this")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("somebody").exception("it broke")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["logger"], first["level"]) == ("too bad: this", "uvicorn.error", "warning")
    assert second["exception"][0]["exc_type"] == "RuntimeError"


def test_lines_for_people_are_plain_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=False, stream=stream)
    get_logger("flyx.server.test").info("listening", url="ws://127.0.0.1:1")
    assert "\x1b" not in stream.getvalue()
    assert "listening" in stream.getvalue()
    assert "url=ws://127.0.0.1:1" in stream.getvalue()


def test_what_is_below_the_level_is_left_out() -> None:
    stream = io.StringIO()
    configure_logging("warning", as_json=True, stream=stream)
    get_logger("flyx.server.test").info("not this")
    get_logger("flyx.server.test").warning("this")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["this"]


def test_a_room_tag_stands_for_its_room_without_naming_it() -> None:
    assert room_tag("K7M2QX") == room_tag("K7M2QX") != room_tag("K7M2QY")
    assert "K7M2QX" not in room_tag("K7M2QX")


def test_what_happens_often_is_logged_now_and_then_with_how_often_it_was_not() -> None:
    now = 100.0
    throttle = Throttle(10.0, clock=lambda: now)
    assert [throttle.count("a") for _ in range(3)] == [0, None, None]
    # Another kind has its own time.
    assert throttle.count("b") == 0
    now = 110.0
    assert [throttle.count("a"), throttle.count("a")] == [2, None]
    now = 120.0
    assert throttle.count("a") == 1


def steering(text: str) -> set[str]:
    """The characters of a text that could steer a terminal or fake its layout."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.parametrize("as_json", [False, True])
@given(
    text=st.text(st.characters(codec=None) | st.sampled_from("\x1b\x7f\x9b\r\n\u202e\u2028 ='\"\\")),
    name=st.sampled_from(["reason", "error"]),
)
@example(text="\x1b[2J\x7f\x9b31m\u202e\u2028\n", name="reason")
def test_whatever_is_logged_is_one_line_that_steers_nothing(text: str, name: str, as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=as_json, stream=stream)
    get_logger("flyx.server.test").info("client gone", **{name: text})
    get_logger("flyx.server.test").info(text, nested=[text, {text: text}])
    logging.getLogger("somebody").warning("bad: %s", text)
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3
    assert steering("".join(lines)) == set()
    if as_json:
        assert json.loads(lines[0])[name] == text


FIELD = re.compile(r" (\w+)=('(?:[^'\\]|\\.)*'|[^ ='\"]+)")


def fields_of(line: str) -> dict[str, str]:
    """Read a line for people back."""
    prefix = re.match(r"\S+ \[info +\] client gone +\[flyx\.server\.test\]", line)
    assert prefix is not None, line
    fields = {}
    place = prefix.end()
    while field := FIELD.match(line, place):
        value = field[2][1:-1] if field[2].startswith("'") else field[2]
        fields[field[1]] = re.sub(
            r"\\(?:x(..)|u(....)|U(.{8})|(['\\]|[nrt]))",
            lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[4], m[4]) or chr(int(m[1] or m[2] or m[3], 16)),
            value,
        )
        place = field.end()
    assert line[place:] == "", line
    return fields


any_text = st.text(st.characters(codec=None) | st.sampled_from("\x1b\x7f\n\u202e ='\"\\"))


any_value = any_text | st.integers() | st.none() | st.lists(any_text)


@given(st.dictionaries(st.sampled_from(["reason", "error", "file"]), any_value))
@example({"reason": "bye' client=1b3f room='2a"})
@example({"reason": "\\' client=1b3f"})
@example({"error": ["it's", 'a "b']})
def test_a_line_is_read_back_as_the_fields_that_were_logged(fields: dict[str, object]) -> None:
    """Whatever a client says is the value of its own field, and makes no other."""
    stream = io.StringIO()
    configure_logging("info", as_json=False, stream=stream)
    get_logger("flyx.server.test").info("client gone", **fields)
    assert fields_of(stream.getvalue().rstrip("\n")) == {name: str(value) for name, value in fields.items()}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_traceback_shows_no_variables_and_steers_nothing(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=as_json, stream=stream)
    token = "s3cret"
    try:
        raise RuntimeError(f"boom\x1b[2J\x7f\x9b\u202e\n{len(token)}")
    except RuntimeError:
        get_logger("flyx.server.test").exception("it broke", path="\x1b[2J")
    assert "boom" in stream.getvalue()
    assert "RuntimeError" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()
    assert steering(stream.getvalue()) == {"\n"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it left", "'it left'"),
        ("bye", "bye"),
        ("", "''"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a b\u202e", "'a b\\u202e'"),
        ("it's", "'it\\'s'"),
        ("a\\' b", "'a\\\\\\' b'"),
        ("[bold]:smiley:", "[bold]:smiley:"),
    ],
)
def test_a_value_is_shown_as_what_it_is(text: str, shown: str) -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=False, stream=stream)
    get_logger("flyx.server.test").info("client gone", reason=text)
    assert stream.getvalue().rstrip("\n").endswith(f" reason={shown}")
