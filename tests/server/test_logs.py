from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

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
