"""Storage that fails below the filesystem: what is delivered afterwards is what was sent.

A filesystem on a loop device, whose image lies on a tmpfs without room for all of it, as on thin storage: a
write is accepted, writing it back fails, and fsync says so once. Then the storage is enlarged.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.mounts import mounted
from e2e.processes import DEADLINE, Flyx, need, sha256, write_random, write_sparse

MB = 1_000_000
SIZE = 400 * MB
"""Bytes that the filesystem believes to have: the least that mkfs.xfs makes is 300 MB."""

EXT4 = ["-q", "-N", "999", "-J", "size=8", "-E", "nodiscard,packed_meta_blocks=1"]
COMMANDS = {
    "ext4": ("mkfs.ext4", "e2fsprogs", EXT4),
    "xfs": ("mkfs.xfs", "xfsprogs", ["-q", "-K"]),
    "btrfs": ("mkfs.btrfs", "btrfs-progs", ["-q", "-K"]),
}


@dataclass
class ThinStorage:
    """A filesystem, mounted at `mount`, and the tmpfs below it."""

    mount: Path
    below: Path

    def leave(self, size: int) -> None:
        """Let the storage take so many bytes more, and then fail."""
        subprocess.run(["sync", "--file-system", self.mount], check=True)
        used = (self.below / "image").stat().st_blocks * 512
        self._resize(used + size)

    def enlarge(self) -> None:
        """Make it as large as it seemed to be."""
        self._resize(2 * SIZE)
        try:
            (self.mount / "probe").touch()
        except OSError:
            # btrfs that cannot write its own trees stops until it is mounted anew.
            self.mount_anew()
        (self.mount / "probe").unlink(missing_ok=True)
        # Linux tells the next one who syncs of a failure that nobody was told of: of what flyx did not sync.
        subprocess.run(["sync", "--file-system", self.mount], check=False, capture_output=True)

    def mount_anew(self) -> None:
        """Forget what the page cache has."""
        subprocess.run(["umount", self.mount], check=True)
        subprocess.run(["mount", "-o", "loop", self.below / "image", self.mount], check=True)

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.below], check=True)


@pytest.fixture(params=COMMANDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThinStorage]:
    command, package, options = COMMANDS[request.param]
    need(f"{command}, of the package {package}", shutil.which(command) is not None)
    below, mount = tmp_path / "below", tmp_path / "disk"
    with mounted(["-t", "tmpfs", "-o", f"size={2 * SIZE}", "tmpfs"], below):
        image = write_sparse(below / "image", SIZE)
        subprocess.run([command, *options, image], check=True, capture_output=True)
        with image.open("r+b") as file:
            # Where ext4 then has its journal and its tables: they can be written to the end.
            os.posix_fallocate(file.fileno(), 0, 14 * MB)
        with mounted(["-o", "loop", image], mount):
            _write_page_by_page(mount)
            yield ThinStorage(mount, below)


def _write_page_by_page(mount: Path) -> None:
    """Have the loop device below a filesystem ask for one page at a time of what is below it.

    Of a larger request, Linux 6.18 takes for written all if the tmpfs has taken a part: storage that lies.
    """
    device = subprocess.check_output(["findmnt", "-n", "-o", "SOURCE", mount], text=True).strip()
    limit = Path("/sys/block", Path(device).name, "queue/max_sectors_kb")
    limit.write_text(str(os.sysconf("SC_PAGESIZE") // 1024))


TRIES = 4
"""The kernel may tell once more of what failed before. However many tries it takes, 0 means what was sent."""


def deliver(flyx: Flyx, source: Path, storage: ThinStorage, room: int) -> None:
    """Send to storage with so much room, enlarge it, and send again."""
    target = storage.mount / "in"
    sender = flyx.send(source)
    storage.leave(room)
    first = flyx.receive(sender.code(), target)
    assert first.event("error")["code"] in {"no_space", "storage_error"}, first
    first.ends(first.process.wait(DEADLINE))
    assert first.process.returncode in {1, 7}
    assert first.named("done") == []
    storage.enlarge()
    overwrite: list[str] = []
    for _ in range(TRIES):
        again = flyx.receive(sender.code(), target, *overwrite)
        again.ends(again.process.wait(DEADLINE))
        if again.process.returncode == 0:
            break
        told = again.event("error")["code"]
        assert told in {"no_space", "storage_error", "destination_exists"}, again
        if told == "destination_exists":
            # A filesystem that has shut itself down, as XFS does, lets no name be taken back: the file is
            # there, and nothing vouches for it.
            overwrite = ["--overwrite"]
    sender.ends(0)
    storage.mount_anew()


@pytest.mark.parametrize("size", [20 * MB, 60 * MB])
def test_a_file_whose_sync_failed_is_delivered_as_it_was_sent(
    flyx: Flyx, tmp_path: Path, storage: ThinStorage, size: int
) -> None:
    source = write_random(tmp_path / "file", size)
    deliver(flyx, source, storage, size // 2)
    assert sha256(storage.mount / "in" / "file") == sha256(source)


def test_files_whose_common_sync_failed_are_delivered_as_they_were_sent(
    flyx: Flyx, tmp_path: Path, storage: ThinStorage
) -> None:
    tree = tmp_path / "tree"
    for number in range(40):
        write_random(tree / f"{number:02}", 500_000)
    deliver(flyx, tree, storage, 8 * MB)
    for path in tree.iterdir():
        assert sha256(storage.mount / "in" / "tree" / path.name) == sha256(path)
