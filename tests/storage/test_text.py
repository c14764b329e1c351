"""A text that arrives."""

from __future__ import annotations

import pytest

from flyx.errors import CorruptData, LocalProtocolError, RemoteProtocolError
from flyx.storage.text import TextDestination
from flyx.transfer.disk import (
    FileRestarted,
    FileSaved,
    FinishFile,
    FinishTree,
    Operation,
    PlanEntries,
    PlanTree,
    RestartFile,
    WriteBlock,
)
from flyx.transfer.manifest import Content
from tests.storage.support import failure, file_entry, write_block

CONTROLS = "".join(map(chr, range(0x20))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))) + "\u202e\u2028"


def plan(size: int) -> list[Operation]:
    return [PlanTree(("text",), size, "id", content=Content.TEXT), PlanEntries(0, [file_entry("text", size)])]


@pytest.mark.parametrize("text", ["", "x", CONTROLS])
def test_a_text_is_there_when_all_of_it_is(text: str) -> None:
    destination = TextDestination()
    blocks = [write_block(0, 0, text.encode())] if text else []
    destination.apply([*plan(len(text.encode())), *blocks])
    assert destination.text is None
    assert destination.apply([FinishFile(0), FinishTree()])[0] == FileSaved(0, None)
    assert destination.text == text
    destination.abandon()
    assert not destination.keeps


def test_what_is_no_utf8_is_no_text() -> None:
    destination = TextDestination()
    error = failure(destination.apply([*plan(2), write_block(0, 0, b"\xff\xfe"), FinishFile(0)]))
    assert isinstance(error, RemoteProtocolError)
    assert destination.text is None


def test_a_text_that_was_damaged_is_none() -> None:
    destination = TextDestination()
    assert isinstance(
        failure(destination.apply([*plan(1), WriteBlock(0, 0, [b"x"], bytes(32))])), CorruptData
    )


def test_a_text_of_two_blocks_is_a_mistake() -> None:
    destination = TextDestination()
    outcomes = destination.apply([*plan(2), write_block(0, 0, b"x"), write_block(0, 1, b"y")])
    assert isinstance(failure(outcomes), LocalProtocolError)


def test_a_text_can_begin_anew() -> None:
    destination = TextDestination()
    outcomes = destination.apply([*plan(1), write_block(0, 0, b"x"), RestartFile(0), write_block(0, 0, b"y")])
    assert outcomes[-2] == FileRestarted(0)
    destination.apply([FinishFile(0)])
    assert destination.text == "y"
