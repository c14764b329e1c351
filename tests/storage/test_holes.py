"""Blocks that are holes: they read as zeros, and take no room."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from flyx.errors import CorruptData, LocalProtocolError
from flyx.storage import partial
from flyx.storage.writer import Destination
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.disk import (
    BlocksKept,
    EntriesPlanned,
    FinishFile,
    FinishTree,
    Operation,
    PlanEntries,
    PlanTree,
    RestartFile,
    WriteBlock,
)
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import Offer, failure, file_entry, succeed

ZEROS = bytes(BLOCK_SIZE)
DATA = os.urandom(BLOCK_SIZE)


def sparse(content: bytes) -> Offer:
    return Offer({"f": content})


def writes(offer: Offer) -> list[Operation]:
    """What is written of the file: blocks of zeros are holes."""
    return [
        WriteBlock(0, write.offset, [], write.digest, hole=True)
        if isinstance(write, WriteBlock) and not any(map(any, write.parts))
        else write
        for write in offer.writes("f")
    ]


def received(out: Path, offer: Offer) -> Path:
    with Destination(out) as destination:
        succeed(destination, [*offer.plan(), *writes(offer), offer.finish("f"), FinishTree()])
    return out / "f"


@pytest.mark.parametrize("length", [1, BLOCK_SIZE - 1, BLOCK_SIZE])
def test_the_digest_of_a_hole_is_that_of_zeros(length: int) -> None:
    assert Algorithm.SHA256.hole_digest(length) == Algorithm.SHA256.digest(bytes(length))


@pytest.mark.parametrize(
    "content",
    [
        ZEROS,
        ZEROS * 3 + b"\0" * 100,
        ZEROS * 2 + DATA,
        DATA + ZEROS * 2,
        DATA + ZEROS + DATA + ZEROS + b"end",
        (DATA + ZEROS * 7) * 10,
    ],
    ids=["all", "all and a short one", "first", "last", "between", "large"],
)
def test_a_hole_reads_as_zeros_and_takes_no_room(tmp_path: Path, content: bytes) -> None:
    path = received(tmp_path, sparse(content))
    assert path.read_bytes() == content
    data = sum(any(content[at : at + BLOCK_SIZE]) for at in range(0, len(content), BLOCK_SIZE))
    # What a filesystem notes of where the data is may take a few blocks of its own.
    assert path.stat().st_blocks * 512 <= data * BLOCK_SIZE + (1 << 16)


def test_a_large_file_of_holes_takes_next_to_no_room(tmp_path: Path) -> None:
    size = 1 << 31
    plan: list[Operation] = [PlanTree(("f",), size), PlanEntries(0, [file_entry("f", size)])]
    holes = [
        WriteBlock(0, at, [], Algorithm.SHA256.hole_digest(BLOCK_SIZE), hole=True)
        for at in range(0, size, BLOCK_SIZE)
    ]
    with Destination(tmp_path) as destination:
        succeed(destination, [*plan, *holes, FinishFile(0), FinishTree()])
    status = (tmp_path / "f").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < BLOCK_SIZE


def test_a_hole_with_another_digest_than_that_of_zeros_is_refused(tmp_path: Path) -> None:
    offer = sparse(ZEROS)
    with Destination(tmp_path) as destination:
        succeed(destination, offer.plan())
        bad = WriteBlock(0, 0, [], Algorithm.SHA256.digest(DATA), hole=True)
        assert isinstance(failure(destination.apply([bad])), CorruptData)


@pytest.mark.parametrize("offset", [BLOCK_SIZE, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE])
def test_a_hole_out_of_sequence_is_refused(tmp_path: Path, offset: int) -> None:
    offer = sparse(ZEROS * 2)
    hole = WriteBlock(0, offset, [], Algorithm.SHA256.hole_digest(BLOCK_SIZE), hole=True)
    with Destination(tmp_path) as destination:
        succeed(destination, offer.plan())
        assert isinstance(failure(destination.apply([hole])), LocalProtocolError)


def test_a_hole_where_something_was_written_before_reads_as_zeros(tmp_path: Path) -> None:
    before, after = sparse(DATA * 3), sparse(ZEROS * 2 + DATA)
    with Destination(tmp_path) as destination:
        succeed(destination, [*after.plan(), *before.writes("f")[:2], RestartFile(0)])
        succeed(destination, [*writes(after), after.finish("f"), FinishTree()])
    assert (tmp_path / "f").read_bytes() == after.contents["f"]


def killed(out: Path, offer: Offer, blocks: int, recorded: int) -> None:
    """Have a process receive so many blocks, the last checkpoint being before the block `recorded`."""
    pid = os.fork()
    if pid == 0:
        try:
            partial.CHECKPOINT_INTERVAL = 0.0
            destination = Destination(out)
            succeed(destination, [*offer.plan(), *writes(offer)[:recorded]])
            # The next block has what was before it recorded, and is the last to do so.
            partial.CHECKPOINT_INTERVAL = math.inf
            succeed(destination, writes(offer)[recorded:blocks])
            os._exit(9)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("recorded", range(1, 8))
def test_a_receiver_that_is_killed_among_holes_goes_on_where_it_was(tmp_path: Path, recorded: int) -> None:
    offer = sparse(DATA + ZEROS * 3 + DATA + ZEROS * 2 + DATA + b"\0" * 5)
    killed(tmp_path, offer, 8, recorded)
    with Destination(tmp_path) as destination:
        planned = succeed(destination, offer.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        (held,) = planned.found
        assert isinstance(held, BlocksKept)
        blocks = len(held.digests) // DIGEST_SIZE
        assert blocks == recorded
        succeed(destination, [*writes(offer)[blocks:], offer.finish("f"), FinishTree()])
    assert (tmp_path / "f").read_bytes() == offer.contents["f"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_a_filesystem_that_lengthens_no_file_gets_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    truncate = os.ftruncate

    def ftruncate(handle: int, size: int) -> None:
        if size > os.fstat(handle).st_size:
            raise OSError(code, os.strerror(code))
        truncate(handle, size)

    monkeypatch.setattr(os, "ftruncate", ftruncate)
    offer = sparse(ZEROS + DATA + ZEROS + b"\0")
    assert received(tmp_path, offer).read_bytes() == offer.contents["f"]
