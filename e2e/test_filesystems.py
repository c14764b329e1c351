"""Filesystems that people mount: what they keep of names, modes, times and inode numbers differs, and a
transfer comes through on each, also one that is interrupted.

Most are served by programs (FUSE). Those that are small and quick to install are tried in CI, the others by
`pytest e2e/test_filesystems.py -m soak`, as far as they are installed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from e2e.mounts import FILESYSTEMS, Filesystem
from e2e.processes import Flyx, FlyxProcess, names_in, sha256, write_random
from flyx.storage.probe import NameProbe

# CryFS takes five minutes for a tree and a second try.
pytestmark = pytest.mark.timeout(600)

MB = 1_000_000

LARGE = 200 * MB
"""Bytes that take long enough to act while they are under way, and little enough to be written often."""

# Those that take a minute, or a hundred megabytes to install, and those that other tests are run on, too.
SLOW = {"CryFS", "rclone", "rclone, with a cache", "xfs", "btrfs"}
# Those that upload whole files, some time after they were closed.
LATE = {"rclone", "rclone, with a cache"}

each_filesystem = pytest.mark.parametrize(
    "disk",
    [pytest.param(name, marks=pytest.mark.soak if name in SLOW else []) for name in FILESYSTEMS],
    indirect=True,
)


@dataclass
class Disk:
    """A filesystem in use; received into `directory`, a directory on it."""

    name: str
    kind: Filesystem
    directory: Path
    stack: ExitStack

    def mount_anew(self) -> None:
        """Take it out and put it in again: nothing that it only had in memory is left."""
        self.stack.close()
        self.stack.enter_context(self.kind.at(self.directory.parent))


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with ExitStack() as stack:
        kind = FILESYSTEMS[request.param]
        stack.enter_context(kind.at(tmp_path / "disk"))
        yield Disk(request.param, kind, tmp_path / "disk" / "in", stack)


def make_tree(root: Path, large: int = 20 * MB) -> Path:
    """Many small files, a large one at the end, an empty directory; modes that differ, times long ago."""
    for number in range(200):
        write_random(root / "many" / f"file {number}", number * 10)
    write_random(root / "z-large", large)
    write_random(root / "Übergröße" / "漢字.txt", 10)
    (root / "empty").mkdir()
    (root / "many" / "file 1").chmod(0o444)
    (root / "many" / "file 2").chmod(0o750)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(0, 1_400_000_001_123_456_000 + number * 1_000_000_000))
    return root


def contents(root: Path) -> dict[str, str | None]:
    """What is below a directory, by its path there: digests of files, None for directories."""
    return {str(path.relative_to(root)): sha256(path) if path.is_file() else None for path in root.rglob("*")}


def times(root: Path) -> dict[str, int]:
    """When the files below a directory were changed, in seconds of FAT's."""
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns // 2_000_000_000
        for path in root.rglob("*")
        if path.is_file()
    }


def complete(flyx: Flyx, sender: FlyxProcess, directory: Path, *options: str) -> FlyxProcess:
    receiver = flyx.receive(sender.code(), directory, *options).ends(0, within=300)
    sender.ends(0)
    return receiver


@each_filesystem
def test_a_tree_arrives_and_arrives_again(flyx: Flyx, tmp_path: Path, disk: Disk) -> None:
    tree = make_tree(tmp_path / "tree")
    complete(flyx, flyx.send(tree), disk.directory)
    assert names_in(disk.directory) == ["tree"]
    disk.mount_anew()
    assert contents(disk.directory / "tree") == contents(tree)
    assert times(disk.directory / "tree") == times(tree)
    # What is there now is the person's.
    refusing = flyx.send(tree)
    flyx.receive(refusing.code(), disk.directory).fails(7, "destination_exists")
    refusing.send_signal(signal.SIGINT).ends(130)
    complete(flyx, flyx.send(tree), disk.directory, "--overwrite")
    assert names_in(disk.directory) == ["tree"]
    assert contents(disk.directory / "tree") == contents(tree)
    complete(flyx, flyx.send(tree), disk.directory, "--rename")
    assert names_in(disk.directory) == ["tree", "tree (1)"]


@pytest.mark.parametrize(
    ("number", "anew"),
    [
        pytest.param(signal.SIGINT, True, id="interrupted and mounted anew"),
        pytest.param(signal.SIGKILL, False, id="killed", marks=pytest.mark.soak),
    ],
)
@each_filesystem
def test_a_second_try_goes_on_with_what_the_first_has_saved(
    flyx: Flyx, tmp_path: Path, disk: Disk, number: signal.Signals, anew: bool
) -> None:
    tree = make_tree(tmp_path / "tree", LARGE)
    sender = flyx.send(tree)
    # However fast the disk is, it is not over before we act.
    first = flyx.receive(sender.code(), disk.directory, "--limit", "100MB")
    first.event("progress", lambda event: event["bytes"] >= LARGE // 3)
    first.send_signal(number).ends(-number if number == signal.SIGKILL else 130, within=120)
    if anew:
        disk.mount_anew()
    again = complete(flyx, sender, disk.directory)
    # All before the large file; of that, what had been recorded.
    assert again.event("resume")["files"] == 200
    if disk.name not in LATE and number == signal.SIGINT:
        assert again.event("done")["resumed"] > LARGE // 4
    # What rclone was still to upload when it was renamed can stay there under its old name.
    assert names_in(disk.directory) == ["tree"] or disk.name in LATE
    disk.mount_anew()
    assert contents(disk.directory / "tree") == contents(tree)
    assert times(disk.directory / "tree") == times(tree)


ODD = ["plain", "a:b", "a|b", "what?", "a\\b", "aux.c", "R.E.M.", "blank ", "\u00e9", "e\u0301", "\u6f22"]
ODD += ["\U0001f600", "\udce9t\udce9", "tab\t", "x" * 200, "x" * 255]


@each_filesystem
def test_the_probe_knows_which_names_a_filesystem_has(disk: Disk) -> None:
    disk.directory.mkdir()
    handle = os.open(disk.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with NameProbe(handle) as probe:
            held = {name for name in ODD if probe.holds(name)}
            case = probe.distinguishes_case
        assert os.listdir(disk.directory) == []
    finally:
        os.close(handle)
    kept = set()
    for name in ODD:
        path = disk.directory / name
        try:
            path.touch()
        except OSError:
            continue
        if name in os.listdir(disk.directory):
            kept.add(name)
        path.unlink()
    assert held == kept
    (disk.directory / "a").touch()
    assert case == (not (disk.directory / "A").exists()) == (not disk.kind.folds_case)


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_a_receiver_that_may_open_few_files_receives_many(flyx: Flyx, tmp_path: Path, count: int) -> None:
    for number in range(count):
        write_random(tmp_path / "tree" / str(number % 50) / str(number), 10)
    sender = flyx.send(tmp_path / "tree")
    receiver = flyx.receive(sender.code(), tmp_path / "in")
    psutil.Process(receiver.process.pid).rlimit(psutil.RLIMIT_NOFILE, (64, 64))
    receiver.ends(0, within=300)
    sender.ends(0)
    assert contents(tmp_path / "in" / "tree") == contents(tmp_path / "tree")
