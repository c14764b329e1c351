"""Files larger than a filesystem can have, as those of 4 GiB and more on FAT: they alone are left out."""

from __future__ import annotations

import os
from pathlib import Path

from flyx.storage.writer import Destination
from flyx.transfer import left_out
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import (
    BlockWritten,
    DiscardFile,
    FileRefused,
    FinishTree,
    Operation,
    RestartFile,
    WriteBlock,
)
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import Offer, files_no_longer_than, names_in, saved_paths, succeed

LARGE = os.urandom(2 * BLOCK_SIZE + 100)
OFFER = Offer({"d": None, "d/a": b"a", "d/large": LARGE, "d/z": b"z"})


def receive(out: Path, operations: list[Operation]) -> list[FileRefused]:
    with files_no_longer_than(BLOCK_SIZE + 1000), Destination(out) as destination:
        outcomes = succeed(destination, [*OFFER.plan(), *operations, FinishTree()])
    assert len([one for one in outcomes if isinstance(one, BlockWritten)]) == len(
        [one for one in operations if isinstance(one, WriteBlock)]
    )
    assert [Path(path).name for path in saved_paths(outcomes)] == ["a", "z"]
    assert names_in(out) == {"d", "d/a", "d/z"}
    return [one for one in outcomes if isinstance(one, FileRefused)]


def test_a_file_that_becomes_too_large_is_left_out_and_the_rest_is_saved(tmp_path: Path) -> None:
    refused = receive(tmp_path, OFFER.files())
    assert refused == [FileRefused(OFFER.index("d/large"), left_out.TOO_LARGE_HERE)]


def test_a_file_of_holes_that_becomes_too_large_is_left_out_as_well(tmp_path: Path) -> None:
    file = OFFER.index("d/large")
    lengths = [BLOCK_SIZE, BLOCK_SIZE, 100]
    holes: list[Operation] = [
        WriteBlock(file, at * BLOCK_SIZE, (), Algorithm.SHA256.hole_digest(length), hole=True)
        for at, length in enumerate(lengths)
    ]
    operations: list[Operation] = [
        *(*OFFER.writes("d/a"), OFFER.finish("d/a")),
        *(*holes, OFFER.finish("d/large")),
        *(*OFFER.writes("d/z"), OFFER.finish("d/z")),
    ]
    assert receive(tmp_path, operations) == [FileRefused(file, left_out.TOO_LARGE_HERE)]


def test_a_file_that_is_too_large_can_be_given_up_and_begun_anew(tmp_path: Path) -> None:
    file, writes = OFFER.index("d/large"), OFFER.writes("d/large")
    operations: list[Operation] = [
        *(*OFFER.writes("d/a"), OFFER.finish("d/a")),
        *(*writes[:2], RestartFile(file), *writes, DiscardFile(file)),
        *(*OFFER.writes("d/z"), OFFER.finish("d/z")),
    ]
    assert receive(tmp_path, operations) == []
