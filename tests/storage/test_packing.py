"""Blocks that are compressed, and what a peer may say that they are."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.errors import CorruptData
from flyx.storage.packing import BlockPacker, BlockUnpacker
from flyx.storage.writer import Destination
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import FinishTree, WriteBlock
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import Offer, failure, saved_in, succeed
from tests.thoroughness import share

TEXT = b"".join(b"%d bottles of beer on the wall\n" % n for n in range(40_000))[:BLOCK_SIZE]
RANDOM = random.Random(1).randbytes(BLOCK_SIZE)
PACKED = BlockPacker().pack(TEXT)


def unpack(packed: bytes, size: int = BLOCK_SIZE) -> bytes:
    return BlockUnpacker().unpack([packed], size)


@given(
    st.one_of(
        st.binary(max_size=3000),
        st.builds(lambda part, count: part * count, st.binary(max_size=300), st.integers(0, 3000)),
    ).map(lambda block: block[:BLOCK_SIZE])
)
@settings(max_examples=share(200))
def test_what_is_compressed_is_smaller_and_comes_back(block: bytes) -> None:
    if packed := BlockPacker().pack(block):
        assert len(packed) < len(block)
        cut = len(packed) // 2
        assert BlockUnpacker().unpack([packed[:cut], memoryview(packed)[cut:]], len(block)) == block


def test_what_would_be_no_smaller_is_not_compressed() -> None:
    for size in (0, 1, 10, 5000, BLOCK_SIZE):
        assert BlockPacker().pack(RANDOM[:size]) == b""
    assert len(PACKED) < len(TEXT) / 5


def test_one_packer_and_one_unpacker_do_for_all_blocks() -> None:
    packer, unpacker = BlockPacker(), BlockUnpacker()
    for size in (BLOCK_SIZE, 1000, 77_777):
        assert unpacker.unpack([packer.pack(TEXT[:size])], size) == TEXT[:size]
        with pytest.raises(ValueError):
            unpacker.unpack([b"nonsense"], size)


def compressed(content: bytes, **parameters: bool) -> bytes:
    return zstandard.ZstdCompressor(**parameters).compress(content)  # type: ignore[arg-type]


def with_told_size(size: int, *, window: int | None = None) -> bytes:
    """A bomb of 256 MiB of zeros that says another size of itself, and of its window (log2)."""
    bomb = compressed(bytes(256 << 20))
    descriptor = 0b1100_0000 | (0 if window else 0b0010_0000)
    windows = bytes([(window - 10) << 3]) if window else b""
    header = b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + windows + struct.pack("<Q", size)
    return header + bomb[zstandard.frame_header_size(bomb) :]


def with_dictionary() -> bytes:
    dictionary = zstandard.train_dictionary(5000, [TEXT[at : at + 500] for at in range(0, 500_000, 500)])
    return zstandard.ZstdCompressor(dict_data=dictionary).compress(TEXT)


def skipped(size: int) -> bytes:
    return struct.pack("<II", 0x184D2A50, size) + bytes(min(size, 1000))


LIES = {
    "an honest bomb": compressed(bytes(256 << 20)),
    "a bomb that says the size of a block": with_told_size(BLOCK_SIZE),
    "a bomb that says the largest size": with_told_size((1 << 64) - 2),
    "a bomb with a large window": with_told_size(BLOCK_SIZE, window=30),
    "a bomb that says no size": compressed(bytes(256 << 20), write_content_size=False),
    "a block that says no size": compressed(TEXT, write_content_size=False),
    "a smaller block": compressed(TEXT[:-1]),
    "a larger block": compressed(TEXT + b"x"),
    "two frames": compressed(TEXT[: BLOCK_SIZE // 2]) + compressed(TEXT[BLOCK_SIZE // 2 :]),
    "the block twice": PACKED * 2,
    "something behind it": PACKED + b"x",
    "an empty frame behind it": PACKED + compressed(b""),
    "a frame to skip behind it": PACKED + skipped(4),
    "a frame to skip before it": skipped(4) + PACKED,
    "a frame to skip alone": skipped(BLOCK_SIZE),
    "a dictionary": with_dictionary(),
    "the end is missing": PACKED[:-1],
    "the header alone": PACKED[:6],
    "a part of the header": PACKED[:3],
    "nothing": b"",
    "the block as it is": TEXT,
    "damage": PACKED[:5000] + b"\xff" * 100 + PACKED[5100:],
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_block_is_refused_and_takes_no_more_memory_than_one(lie: str) -> None:
    unpack(PACKED)
    packed = LIES[lie]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            unpack(packed)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What came, as one, and what was set aside.
    assert most < len(packed) + BLOCK_SIZE + 100_000
    assert unpack(PACKED) == TEXT


@given(st.integers(0, len(PACKED) - 1), st.integers(0, 255), st.integers(1, 2 * BLOCK_SIZE))
@settings(max_examples=share(200))
def test_damage_is_an_error_or_another_block_of_the_same_size(at: int, value: int, size: int) -> None:
    damaged = PACKED[:at] + bytes([value]) + PACKED[at + 1 :]
    try:
        assert len(unpack(damaged, size)) == size
    except ValueError:
        pass


@given(st.binary(max_size=200), st.integers(1, BLOCK_SIZE))
@settings(max_examples=share(300))
def test_any_bytes_are_an_error_or_a_block_of_the_size_asked_for(packed: bytes, size: int) -> None:
    for start in (b"", b"\x28\xb5\x2f\xfd"):
        try:
            assert len(unpack(start + packed, size)) == size
        except ValueError:
            pass


def test_a_compressed_block_is_written_as_what_it_was(tmp_path: Path) -> None:
    content = TEXT + TEXT[:5000]
    offer = Offer({"f": content})
    parts = [PACKED[:3000], PACKED[3000:]]
    blocks = [
        WriteBlock(0, 0, parts, Algorithm.SHA256.digest(TEXT), unpacked=BLOCK_SIZE),
        WriteBlock(0, BLOCK_SIZE, [TEXT[:5000]], Algorithm.SHA256.digest(TEXT[:5000])),
    ]
    with Destination(tmp_path) as destination:
        outcomes = succeed(destination, [*offer.plan(), *blocks, offer.finish("f"), FinishTree()])
    # What waited for the disk are the bytes that came.
    assert [getattr(outcome, "buffered", None) for outcome in outcomes[2:4]] == [len(PACKED), 5000]
    assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize("packed", [LIES["a bomb that says the size of a block"], compressed(RANDOM)])
def test_a_compressed_block_that_is_another_is_corrupt_and_not_kept(tmp_path: Path, packed: bytes) -> None:
    offer = Offer({"f": TEXT})
    block = WriteBlock(0, 0, [packed], Algorithm.SHA256.digest(TEXT), unpacked=BLOCK_SIZE)
    with Destination(tmp_path) as destination:
        assert isinstance(failure(destination.apply([*offer.plan(), block])), CorruptData)
    assert not destination.keeps
    assert saved_in(tmp_path) == set()
