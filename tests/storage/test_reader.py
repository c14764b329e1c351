"""Reading what is sent while it may change."""

from __future__ import annotations

import errno
import os
import socket
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from flyx.errors import LocalProtocolError
from flyx.storage.reader import BlockDigests, SourceReader
from flyx.storage.scan import Scan, scan
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import MTIME_US, block_requests, descriptors_used_up
from tests.thoroughness import share


def test_blocks_come_with_their_digests(tmp_path: Path) -> None:
    content = os.urandom(2 * BLOCK_SIZE + 5)
    (tmp_path / "f").write_bytes(content)
    found = scan([tmp_path / "f"])
    requests = block_requests(found.manifest)
    blocks = SourceReader(found).read(requests)
    assert [block.request for block in blocks] == requests
    assert b"".join(block.data for block in blocks if isinstance(block, BlockRead)) == content
    assert all(isinstance(b, BlockRead) and b.digest == Algorithm.SHA256.digest(b.data) for b in blocks)


def test_each_of_many_blocks_has_its_own_digest_for_all_readers_of_a_scan(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    numbers = (0, 1, 1022, 1023, 1024, 1025)
    for name in "ab":
        with (tmp_path / "many" / name).open("wb") as sparse:
            sparse.truncate(1026 * BLOCK_SIZE + 1)
            for number in numbers:
                sparse.seek(number * BLOCK_SIZE)
                sparse.write(os.urandom(8))
    found = scan([tmp_path / "many"])
    digests = BlockDigests(found)
    requests = [BlockRequest(file, n * BLOCK_SIZE, BLOCK_SIZE) for file in (1, 2) for n in numbers]
    for _ in range(2):
        blocks = SourceReader(found, digests).read(requests)
        assert all(isinstance(b, BlockRead) and b.digest == Algorithm.SHA256.digest(b.data) for b in blocks)


def test_a_block_is_hashed_once_for_all_readers_of_a_scan(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(2 * BLOCK_SIZE + 1))
    found = scan([path])
    digests = BlockDigests(found)
    requests = block_requests(found.manifest)
    before = SourceReader(found, digests).read(requests)
    # Seen by the digest alone, as this change keeps size and time. A receiver refuses what does not match.
    times = path.stat()
    path.write_bytes(b"x" * (2 * BLOCK_SIZE + 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = SourceReader(found, digests).read(requests)
    for old, new in zip(before, after, strict=True):
        assert isinstance(old, BlockRead)
        assert isinstance(new, BlockRead)
        assert new.data != old.data
        assert (new.digest == old.digest) == (new.request.length == BLOCK_SIZE)


def test_receivers_of_one_scan_get_digests_by_the_algorithm_that_each_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(BLOCK_SIZE) + bytes(BLOCK_SIZE) + b"end")
    with path.open("ab") as sparse:
        sparse.truncate(5 * BLOCK_SIZE)
    found = scan([path])
    digests = BlockDigests(found)
    for algorithm in [*Algorithm, *Algorithm]:
        requests = [replace(one, algorithm=algorithm) for one in block_requests(found.manifest)]
        blocks = SourceReader(found, digests).read(requests)
        for request, block in zip(requests, blocks, strict=True):
            assert isinstance(block, BlockRead)
            assert block.digest == algorithm.digest(block.data or bytes(request.length))


def test_advice_that_a_filesystem_does_not_take_is_no_failure(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    # No filesystem here refuses, so the system's answer is played.
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    (tree / "b.txt").write_bytes(bytes(BLOCK_SIZE))
    found = scan([tree / "b.txt"])
    (block,) = SourceReader(found).read(block_requests(found.manifest))
    assert isinstance(block, BlockRead)


def write_at(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    """Make a file of this size that has data in these places, and holes elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)


def holes_of(found: Scan) -> list[bool]:
    """Of each block that is read, whether it is a hole; all are what is in the file."""
    holes = []
    contents: defaultdict[int, bytes] = defaultdict(bytes)
    for block in SourceReader(found).read(block_requests(found.manifest)):
        assert isinstance(block, BlockRead)
        assert not (block.hole and block.data)
        data = bytes(block.request.length) if block.hole else block.data
        assert block.digest == Algorithm.SHA256.digest(data)
        contents[block.request.file] += data
        holes.append(block.hole)
    for file, content in contents.items():
        assert Path(found.sources.path(found.manifest.entries[file])).read_bytes() == content
    return holes


def test_blocks_that_are_holes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    # Data at the start, at the end of a block, around the border of two; the short last block is a hole.
    write_at(path, 12 * BLOCK_SIZE + 5, {0: b"a", 4 * BLOCK_SIZE - 1: b"b", 7 * BLOCK_SIZE - 1: b"cc"})
    found = scan([path])
    assert holes_of(found) == [n not in {0, 3, 6, 7} for n in range(13)]
    assert found.manifest.hole_bytes == 8 * BLOCK_SIZE + 5
    assert found.manifest.total_bytes == 12 * BLOCK_SIZE + 5


def test_a_file_that_is_all_hole_and_one_that_ends_with_data_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write_at(tmp_path / "d" / "all", BLOCK_SIZE + 7, {})
    write_at(tmp_path / "d" / "end", 2 * BLOCK_SIZE + 7, {2 * BLOCK_SIZE + 6: b"x"})
    found = scan([tmp_path / "d"])
    assert holes_of(found) == [True, True, True, True, False]
    assert found.manifest.hole_bytes == 3 * BLOCK_SIZE + 7


def test_zeros_that_are_stored_are_data(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(2 * BLOCK_SIZE))
    found = scan([tmp_path / "f"])
    assert holes_of(found) == [False, False]
    assert found.manifest.hole_bytes == 0


@given(st.integers(0, 5 * BLOCK_SIZE), st.lists(st.integers(0, 5 * BLOCK_SIZE), max_size=4))
@settings(max_examples=share(60))
def test_as_many_bytes_are_counted_in_holes_as_are_read_of_them(size: int, offsets: list[int]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        write_at(path, size, {offset: b"x" for offset in offsets if offset < size})
        found = scan([path])
        blocks = block_requests(found.manifest)
        in_holes = sum(b.length for b, hole in zip(blocks, holes_of(found), strict=True) if hole)
        assert found.manifest.hole_bytes == in_holes


def test_a_filesystem_that_knows_no_holes_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    write_at(tmp_path / "f", 2 * BLOCK_SIZE, {})
    # No filesystem here refuses, so the system's answer is played.
    monkeypatch.setattr(os, "lseek", refuse)
    found = scan([tmp_path / "f"])
    assert found.manifest.hole_bytes == 0
    assert holes_of(found) == [False, False]


@pytest.mark.parametrize("length", [0, BLOCK_SIZE + 1])
def test_a_hole_of_a_file_that_changes_fails_at_its_last_block_at_the_latest(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "f"
    write_at(path, 2 * BLOCK_SIZE, {})
    found = scan([path])
    source = SourceReader(found)
    first, last = block_requests(found.manifest)
    assert isinstance(source.read([first])[0], BlockRead)
    os.truncate(path, length)
    assert source.read([last]) == [BlockFailed(last, "file_changed")]


def test_an_empty_file_is_read_to_see_that_it_is_there(tree: Path) -> None:
    found = scan([tree / "sub" / "deep" / "zero"])
    request = BlockRequest(0, 0, 0)
    assert SourceReader(found).read([request]) == [BlockRead(request, b"", Algorithm.SHA256.digest(b""))]
    Path(found.sources.path(found.manifest.entries[0])).unlink()
    assert SourceReader(found).read([request]) == [BlockFailed(request, "file_vanished")]


def test_one_file_is_open_at_a_time_and_none_after_its_last_block(tree: Path) -> None:
    found = scan([tree])
    source = SourceReader(found)
    before = open_descriptors()
    source.read(block_requests(found.manifest))
    assert open_descriptors() == before
    source.read([BlockRequest(1, 0, 1)])
    source.read([BlockRequest(2, 0, 0)])
    assert open_descriptors() == before + 1
    source.close()
    source.close()
    assert open_descriptors() == before
    with pytest.raises(LocalProtocolError):
        source.read([])


def test_a_block_beyond_the_file_or_of_a_directory_is_our_own_mistake(tree: Path) -> None:
    source = SourceReader(scan([tree]))
    for request in (BlockRequest(0, 0, 0), BlockRequest(1, 1, 2)):
        with pytest.raises(LocalProtocolError):
            source.read([request])


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, BLOCK_SIZE + 1)


def touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def rewrite_in_place(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))
    os.utime(path, ns=(0, MTIME_US))


def remove_parent(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()


CHANGES: dict[Callable[[Path], None], str] = {
    Path.unlink: "file_vanished",
    remove_parent: "file_vanished",
    replace_by_fifo: "file_changed",
    replace_by_link: "file_changed",
    replace_by_directory: "file_changed",
    replace_by_socket: "file_changed",
    grow: "file_changed",
    truncate: "file_changed",
    touch: "file_changed",
    rewrite_in_place: "file_changed",
}


@pytest.fixture
def three_blocks(tmp_path: Path) -> Path:
    path = tmp_path / "directory" / "file"
    path.parent.mkdir()
    path.write_bytes(os.urandom(3 * BLOCK_SIZE))
    return path


@pytest.mark.parametrize(("change", "code"), CHANGES.items())
def test_a_file_that_changed_before_it_is_read_fails(
    three_blocks: Path, change: Callable[[Path], None], code: str
) -> None:
    found = scan([three_blocks])
    change(three_blocks)
    requests = block_requests(found.manifest)
    assert SourceReader(found).read(requests) == [BlockFailed(request, code) for request in requests]


@pytest.mark.parametrize("change", [grow, truncate, touch, rewrite_in_place])
def test_a_file_that_changes_while_it_is_read_fails_at_its_last_block_at_the_latest(
    three_blocks: Path, change: Callable[[Path], None]
) -> None:
    found = scan([three_blocks])
    source = SourceReader(found)
    first, second, third = block_requests(found.manifest)
    assert isinstance(source.read([first])[0], BlockRead)
    change(three_blocks)
    assert source.read([second, third])[-1] == BlockFailed(third, "file_changed")
    source.close()


def test_a_file_that_failed_stays_failed_and_the_next_is_read(three_blocks: Path) -> None:
    (three_blocks.parent / "next").write_bytes(b"next")
    found = scan([three_blocks.parent])
    source = SourceReader(found)
    requests = block_requests(found.manifest)
    original = three_blocks.rename(three_blocks.with_name("away"))
    assert source.read(requests[:1]) == [BlockFailed(requests[0], "file_vanished")]
    original.rename(three_blocks)
    *failed, following = source.read(requests[1:])
    assert failed == [BlockFailed(request, "file_vanished") for request in requests[1:3]]
    assert isinstance(following, BlockRead)


def test_a_file_removed_while_it_is_read_is_still_read_to_its_end(three_blocks: Path) -> None:
    found = scan([three_blocks])
    source = SourceReader(found)
    requests = block_requests(found.manifest)
    source.read(requests[:1])
    three_blocks.unlink()
    assert all(isinstance(block, BlockRead) for block in source.read(requests[1:]))


def test_what_cannot_be_opened_is_unreadable(three_blocks: Path) -> None:
    found = scan([three_blocks])
    request = BlockRequest(0, 0, BLOCK_SIZE)
    with descriptors_used_up():
        assert SourceReader(found).read([request]) == [BlockFailed(request, "file_unreadable")]


def test_what_comes_in_small_reads_is_put_together(
    three_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 400_000), offset))
    found = scan([three_blocks])
    blocks = SourceReader(found).read(block_requests(found.manifest))
    assert b"".join(b.data for b in blocks if isinstance(b, BlockRead)) == three_blocks.read_bytes()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else len(os.listdir("/dev/fd"))
