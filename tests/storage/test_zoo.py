"""Trees of every kind, listed and read: each entry is what is on the disk, and the rest is left out."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.storage.links import Links
from flyx.storage.reader import SourceReader
from flyx.storage.scan import Scan, scan
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import BlockRead
from flyx.transfer.left_out import LINK_OUTSIDE, LINK_SKIPPED, SPECIAL, STATE, UNREADABLE
from flyx.transfer.manifest import MAX_MTIME_US, EntryKind
from flyx.transfer.names import is_state_directory, link_stays_inside
from tests.storage.support import ENVIRONMENT_OF_OTHERS, block_requests
from tests.storage.zoo import TREES, Tree
from tests.thoroughness import share

NOBODY = 65534

# What an entry is: kind, mode, time, and its content, its target or the path of its first name.
Row = tuple[EntryKind, int, int, object]


def rows_of(found: Scan) -> dict[str, Row]:
    contents: defaultdict[int, bytes] = defaultdict(bytes)
    in_holes = 0
    for block in SourceReader(found).read(block_requests(found.manifest)):
        assert isinstance(block, BlockRead)
        data = bytes(block.request.length) if block.hole else block.data
        assert block.digest == Algorithm.SHA256.digest(data)
        contents[block.request.file] += data
        in_holes += len(data) if block.hole else 0
    assert found.manifest.hole_bytes == in_holes
    rows: dict[str, Row] = {}
    for index, entry in enumerate(found.manifest.entries):
        what: object = None
        match entry.kind:
            case EntryKind.FILE:
                what = contents[index]
                assert entry.size == len(contents[index])
            case EntryKind.SYMBOLIC_LINK:
                what = entry.target
            case EntryKind.HARD_LINK:
                what = found.manifest.entries[entry.same_as].path
                assert entry.same_as < index
        rows[entry.path] = entry.kind, entry.mode, entry.mtime_us, what
    return rows


class OnDisk:
    """What is there, found in another way than scan() does."""

    def __init__(self, root: Path, links: Links) -> None:
        self._above = root.parent
        self._root = root.name
        self._links = links
        self._first_names: dict[tuple[int, int], str] = {}
        self.rows: dict[str, Row] = {}
        self.left_out: dict[str, str] = {}
        self._visit(self._root)

    def _visit(self, path: str) -> None:
        if is_state_directory(os.path.basename(path)):
            self.left_out[path] = STATE
            return
        place = os.path.join(self._above, path)
        try:
            status = os.lstat(place)
        except PermissionError:
            # The directory can be listed, and no more.
            self.left_out[path] = UNREADABLE
            return
        readable = os.access(place, os.R_OK) if not stat.S_ISLNK(status.st_mode) else True
        mtime_us = max(-MAX_MTIME_US, min(status.st_mtime_ns // 1000, MAX_MTIME_US))
        mode = stat.S_IMODE(status.st_mode)
        target = os.readlink(place) if stat.S_ISLNK(status.st_mode) else ""
        if stat.S_ISFIFO(status.st_mode):
            self.left_out[path] = SPECIAL
        elif target and self._links is Links.SKIP:
            self.left_out[path] = LINK_SKIPPED
        elif target and not link_stays_inside(path, target, [self._root]):
            self.left_out[path] = LINK_OUTSIDE
        elif target:
            self.rows[path] = EntryKind.SYMBOLIC_LINK, 0, mtime_us, target
        elif (first := self._first_names.get((status.st_dev, status.st_ino))) is not None:
            self.rows[path] = EntryKind.HARD_LINK, 0, mtime_us, first
        elif not readable:
            self.left_out[path] = UNREADABLE
        elif stat.S_ISREG(status.st_mode):
            self._first_names[status.st_dev, status.st_ino] = path
            self.rows[path] = EntryKind.FILE, mode, mtime_us, Path(place).read_bytes()
        else:
            self.rows[path] = EntryKind.DIRECTORY, mode, mtime_us, None
            for name in sorted(os.listdir(os.fsencode(place))):
                self._visit(f"{path}/{os.fsdecode(name)}")


@given(TREES, st.sampled_from([Links.KEEP, Links.SKIP]))
@settings(max_examples=share(200))
def test_every_entry_of_a_tree_is_listed_and_read_as_it_is(tree: Tree, links: Links) -> None:
    with tree.built() as root:
        found = scan([root], links)
        there = OnDisk(root, links)
        assert rows_of(found) == there.rows
        assert list(rows_of(found)) == list(there.rows)
        assert dict(found.manifest.left_out.named) == there.left_out
        assert found.is_same_as(scan([root], links))


@given(TREES)
@settings(max_examples=share(200))
def test_what_links_lead_to_is_read_through_them_and_loops_end(tree: Tree) -> None:
    # Those that are absolute could lead to all there is on this machine.
    with Tree([thing for thing in tree.things if not thing.target.startswith(b"/")]).built() as root:
        for path, (kind, _, _, content) in rows_of(scan([root], Links.FOLLOW)).items():
            assert kind is not EntryKind.SYMBOLIC_LINK
            if kind is EntryKind.FILE:
                assert content == Path(root.parent, path).read_bytes()
            elif kind is EntryKind.HARD_LINK:
                assert os.path.samefile(Path(root.parent, path), Path(root.parent, str(content)))


@pytest.mark.skipif(os.geteuid() != 0, reason="is what the others are, but for root")
def test_every_tree_is_read_alike_by_an_ordinary_user_whom_permissions_bind() -> None:
    with TemporaryDirectory() as home:
        os.chown(home, NOBODY, NOBODY)
        ran = subprocess.run(
            [sys.executable, "-m", "tests.storage.test_zoo"],
            cwd=Path(__file__).parents[2],
            env={**ENVIRONMENT_OF_OTHERS, "HYPOTHESIS_STORAGE_DIRECTORY": home},
            capture_output=True,
            text=True,
        )
    assert (ran.returncode, ran.stderr) == (0, "")


def _as_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    test_every_entry_of_a_tree_is_listed_and_read_as_it_is()
    test_what_links_lead_to_is_read_through_them_and_loops_end()


if __name__ == "__main__":
    _as_nobody()
