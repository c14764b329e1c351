"""Trees of every kind arrive as they are, entry by entry."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.storage.scan import Scan, scan
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.left_out import CONTROLS
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind, Manifest
from flyx.transfer.names import NameJudge, NamePolicy
from tests.storage.support import names_in, transfer
from tests.storage.zoo import TREES, Tree
from tests.thoroughness import share
from tests.transfer.disk_names import LINUX

# The times that every filesystem of Linux keeps.
KEPT_TIMES = range(0, 2**31 * 10**6)


@given(TREES, st.sampled_from([NamePolicy.SKIP, NamePolicy.KEEP]))
@settings(max_examples=share(120), deadline=None)
def test_each_entry_of_a_tree_arrives_as_it_was_or_is_left_out(tree: Tree, names: NamePolicy) -> None:
    with TemporaryDirectory() as name:
        around = Path(name)
        tree.build(around / "tree")
        found = scan([around / "tree"])
        with Destination(around / "out", names=names) as destination:
            transfer(found, destination)
        expected = [entry for entry in found.manifest.entries if is_wanted(entry, found.manifest, names)]
        assert names_in(around / "out") == {entry.path for entry in expected}
        for entry in expected:
            assert_arrived(entry, found, around / "out")


@given(TREES)
@settings(max_examples=share(40), deadline=None)
def test_a_tree_that_is_received_again_in_place_of_itself_is_the_same(tree: Tree) -> None:
    with TemporaryDirectory() as name:
        around = Path(name)
        tree.build(around / "tree")
        found = scan([around / "tree"])
        for _ in range(2):
            with Destination(around / "out", ExistingPolicy.OVERWRITE, NamePolicy.KEEP) as destination:
                transfer(found, destination)
        assert names_in(around / "out") == {entry.path for entry in found.manifest.entries}
        for entry in found.manifest.entries:
            # Of directories that were there, the time is of what was put into them.
            assert_arrived(entry, found, around / "out", time=entry.kind is not EntryKind.DIRECTORY)


def is_wanted(entry: Entry, manifest: Manifest, names: NamePolicy) -> bool:
    """Whether a receiver on Linux has it, by its name, and those of the directories above and of its file."""
    judge = NameJudge(LINUX, names)
    if any(judge.fault(part) == CONTROLS for part in entry.path.split("/")):
        return False
    if entry.kind is not EntryKind.HARD_LINK:
        return True
    return is_wanted(manifest.entries[entry.same_as], manifest, names)


def assert_arrived(entry: Entry, found: Scan, out: Path, *, time: bool = True) -> None:
    source, target = Path(found.sources.path(entry)), out / entry.path
    there, here = source.lstat(), target.lstat()
    assert stat.S_IFMT(here.st_mode) == stat.S_IFMT(there.st_mode)
    if stat.S_ISLNK(there.st_mode):
        assert os.readlink(target) == os.readlink(source)
    else:
        assert stat.S_IMODE(here.st_mode) == stat.S_IMODE(there.st_mode) & 0o755
    if entry.kind is EntryKind.HARD_LINK:
        assert os.path.samestat(here, (out / found.manifest.entries[entry.same_as].path).lstat())
    if stat.S_ISREG(there.st_mode):
        assert target.read_bytes() == source.read_bytes()
        # Blocks of which a part is data are stored whole.
        assert here.st_blocks * 512 <= there.st_blocks * 512 + 3 * BLOCK_SIZE
    mtime_us = there.st_mtime_ns // 1000
    if time and mtime_us in KEPT_TIMES and entry.kind is not EntryKind.HARD_LINK:
        assert here.st_mtime_ns // 1000 == mtime_us
