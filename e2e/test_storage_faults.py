"""Storage that fails below the filesystem: what is delivered afterwards is what was sent.

A write is accepted, writing it back fails, and one sync says so. From then on the pages pass for clean: reads
find the bytes, the next sync returns 0, and the storage has never had them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.failing_storage import PAGE_SIZE, write_marked
from e2e.mounts import mounted
from e2e.processes import DEADLINE, Flyx, need, sha256, write_sparse

MB = 1_000_000
SIZE = 400 * MB
"""Bytes of the filesystem: the least that mkfs.xfs makes is 300 MB."""

COMMANDS = {
    "ext4": ("mkfs.ext4", "e2fsprogs"),
    "xfs": ("mkfs.xfs", "xfsprogs"),
    "btrfs": ("mkfs.btrfs", "btrfs-progs"),
}


@dataclass
class Storage:
    """A filesystem, mounted at `mount`, on an image that e2e.failing_storage serves out of `backing`."""

    mount: Path
    image: Path
    backing: Path

    def fail(self, stored: int, lost: int) -> None:
        """Have it store marked pages of so many bytes, then refuse some of so many, then store all again."""
        (self.backing / "faults").write_text(f"{stored // PAGE_SIZE} {lost // PAGE_SIZE}")

    @property
    def has_failed(self) -> bool:
        """Whether it has refused all of them."""
        return not (self.backing / "faults").exists()

    def mount_anew(self) -> None:
        """Forget what the page cache has."""
        subprocess.run(["umount", self.mount], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    command, package = COMMANDS[request.param]
    need(f"{command}, of the package {package}", shutil.which(command) is not None)
    backing, served, mount = (tmp_path / name for name in ("backing", "served", "disk"))
    for directory in (backing, served):
        directory.mkdir()
    image = write_sparse(backing / "image", SIZE)
    subprocess.run([command, "-q", image], check=True, capture_output=True)
    with serving(backing, served), mounted(["-o", "loop", served / "image"], mount):
        _write_page_by_page(mount)
        yield Storage(mount, served / "image", backing)


@contextmanager
def serving(backing: Path, directory: Path) -> Iterator[None]:
    """Serve the image out of backing in directory, as long as it takes; or skip the test."""
    need("libfuse, of the package libfuse2", find_library("fuse") is not None)
    allowed = os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)
    need("the right to mount FUSE filesystems", allowed, in_ci=False)
    server = subprocess.Popen([sys.executable, "-m", "e2e.failing_storage", backing, directory])
    try:
        end = time.monotonic() + DEADLINE
        while not (directory / "image").exists():
            assert server.poll() is None, "the filesystem has ended"
            assert time.monotonic() < end, "the filesystem does not come up"
            time.sleep(0.01)
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        server.wait(DEADLINE)


def _write_page_by_page(mount: Path) -> None:
    """Have the loop device below a filesystem ask for one page at a time of what is below it.

    Of a larger request, Linux 6.18 takes for written all if a part was: storage that lies.
    """
    device = subprocess.check_output(["findmnt", "-n", "-o", "SOURCE", mount], text=True).strip()
    limit = Path("/sys/block", Path(device).name, "queue/max_sectors_kb")
    limit.write_text(str(PAGE_SIZE // 1024))


LOST = 80_000
"""Bytes: less than any sync below writes, so that all are lost at one sync, and the next is told nothing."""

TRIES = 3
"""Linux tells the next caller of syncfs, too, of what a descriptor was told already: however many tries it
takes, status 0 means what was sent."""


def deliver(flyx: Flyx, source: Path, storage: Storage, stored: int) -> None:
    """Send to storage that loses some pages once, after it has stored so many bytes, and send again."""
    target = storage.mount / "in"
    sender = flyx.send(source)
    storage.fail(stored, LOST)
    first = flyx.receive(sender.code(), target)
    assert first.event("error")["code"] == "storage_error", first
    first.ends(1)
    assert storage.has_failed
    assert first.named("done") == []
    for _ in range(TRIES):
        again = flyx.receive(sender.code(), target)
        if again.process.wait(DEADLINE) == 0:
            break
        assert again.event("error")["code"] == "storage_error", again
    again.ends(0)
    sender.ends(0)
    storage.mount_anew()


# Each time, each filesystem once, and one in the middle of a file.
@pytest.mark.parametrize(
    ("storage", "stored"),
    [
        ("ext4", 0),
        ("xfs", 0),
        ("btrfs", 0),
        pytest.param("ext4", 15 * MB, marks=pytest.mark.soak),
        pytest.param("xfs", 15 * MB, marks=pytest.mark.soak),
        ("btrfs", 15 * MB),
    ],
    indirect=["storage"],
)
def test_a_file_whose_sync_failed_is_delivered_as_it_was_sent(
    flyx: Flyx, tmp_path: Path, storage: Storage, stored: int
) -> None:
    source = write_marked(tmp_path / "file", 20 * MB)
    deliver(flyx, source, storage, stored)
    assert sha256(storage.mount / "in" / "file") == sha256(source)


@pytest.mark.parametrize(
    "storage",
    ["ext4", *(pytest.param(each, marks=pytest.mark.soak) for each in ("xfs", "btrfs"))],
    indirect=True,
)
def test_files_whose_common_sync_failed_are_delivered_as_they_were_sent(
    flyx: Flyx, tmp_path: Path, storage: Storage
) -> None:
    tree = tmp_path / "tree"
    for number in range(40):
        write_marked(tree / f"{number:02}", 500_000)
    # In the middle of the seventeenth file: all the pages lost are in one sync.
    deliver(flyx, tree, storage, 8_200_000)
    for path in tree.iterdir():
        assert sha256(storage.mount / "in" / "tree" / path.name) == sha256(path)
