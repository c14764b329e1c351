"""The receiver's disk of a measurement."""

from __future__ import annotations

import pytest

from flyx.errors import CorruptData
from flyx.storage.discard import DiscardingDestination
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import FileSaved, OperationFailed, PlanEntries, PlanTree, WriteBlock
from flyx.transfer.manifest import BLOCK_SIZE, Content
from tests.storage.support import file_entry, succeed
from tests.storage.test_stream import END, blocks_of

PLAN = [PlanTree(("noise",), 0, "id", content=Content.STREAM), PlanEntries(0, [file_entry("noise")])]


@pytest.mark.parametrize(("end", "kept"), [(b"report", b"report"), (b"x" * 101, b"")])
def test_the_last_block_is_kept_if_it_is_short(end: bytes, kept: bytes) -> None:
    sink = DiscardingDestination(100)
    outcomes = succeed(sink, [*PLAN, *blocks_of(bytes(BLOCK_SIZE), end), *END])
    assert [each.path for each in outcomes if isinstance(each, FileSaved)] == [None]
    assert sink.last == kept
    sink.abandon()
    assert not sink.keeps


def test_a_block_that_is_not_what_was_sent_is_an_error() -> None:
    sink = DiscardingDestination(100)
    succeed(sink, list(PLAN))
    (outcome,) = sink.apply([WriteBlock(0, 0, [b"other"], Algorithm.SHA256.digest(b"noise"))])
    assert isinstance(outcome, OperationFailed)
    assert isinstance(outcome.error, CorruptData)
    assert sink.last == b""
