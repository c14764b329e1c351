"""Filesystems of one's own, for as long as a test takes: those that people mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.processes import DEADLINE, need, write_sparse

IMAGE_SIZE = 900_000_000
"""Bytes of a filesystem on an image: the least that mkfs.xfs makes is 300 MB."""


@contextmanager
def mounted(arguments: list[str | Path], directory: Path) -> Iterator[None]:
    """Mount something at a directory, made if missing, by these arguments of mount(8); or skip the test."""
    directory.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *arguments, directory], capture_output=True, text=True, check=False)
    if made.returncode:
        # No package brings the right to do so, nor a kernel's filesystem: in CI, too, this is nothing to fail
        # for.
        pytest.skip(f"needs the right to mount a filesystem: {made.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily, because after a failure flyx may still use it.
        subprocess.run(["umount", "-l", directory], check=True)


@contextmanager
def served(command: list[str | Path], directory: Path, password: str = "") -> Iterator[None]:
    """Have a program serve a filesystem (FUSE) at a directory, made if missing, from the foreground.

    What it was given is stored when this ends.
    """
    directory.mkdir(exist_ok=True)
    environment = os.environ | {"CRYFS_FRONTEND": "noninteractive", "HOME": str(directory.parent)}
    # Not a pipe, which a program that has much to say would wait for.
    said = directory.with_name(f"{directory.name}.log")
    with said.open("wb") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    assert server.stdin is not None
    try:
        server.stdin.write(password.encode())
        server.stdin.close()
        deadline = time.monotonic() + DEADLINE
        while not os.path.ismount(directory):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"needs the right to mount a filesystem: {said.read_text()}")
            time.sleep(0.01)
        yield
    finally:
        _unmount(directory)
        try:
            server.wait(DEADLINE)
        finally:
            server.kill()


def _unmount(directory: Path) -> None:
    """Unmount a filesystem when nobody uses it any more; in the end, although somebody does."""
    deadline = time.monotonic() + DEADLINE
    while subprocess.run(["umount", directory], capture_output=True, check=False).returncode:
        if not os.path.ismount(directory):
            return
        if time.monotonic() > deadline:
            subprocess.run(["umount", "-l", directory], check=False)
            return
        time.sleep(0.05)


@dataclass(frozen=True)
class Filesystem:
    """One that people mount.

    Attributes:
        needs: the commands that it takes, each with the Debian package that has it.
        mount: mounts it at the second of two directories; keeps what it stores in the first.
        folds_case: whether `a` and `A` are one name there.
        in_ci: whether CI has what it needs.
    """

    needs: dict[str, str]
    mount: Callable[[Path, Path], AbstractContextManager[None]]
    folds_case: bool = False
    in_ci: bool = True

    @contextmanager
    def at(self, directory: Path) -> Iterator[None]:
        """Mount it at a directory, with what it had when it was last mounted there; or skip the test."""
        for command, package in self.needs.items():
            need(f"{command}, of the package {package}", shutil.which(command) is not None, in_ci=self.in_ci)
        backing = directory.with_name(f"{directory.name}.backing")
        backing.mkdir(exist_ok=True)
        with self.mount(backing, directory):
            yield


def _on_image(
    make: list[str], kind: str, *options: str
) -> Callable[[Path, Path], AbstractContextManager[None]]:
    """A filesystem on an image, made by a command, of a kind that mount(8) knows."""

    @contextmanager
    def mount(backing: Path, directory: Path) -> Iterator[None]:
        image = backing / "image"
        if not image.exists():
            write_sparse(image, IMAGE_SIZE)
            subprocess.run([*make, image], check=True, capture_output=True)
        with mounted(["-t", kind, "-o", ",".join(["loop", *options]), image], directory):
            yield

    return mount


def _by(*command: str, password: str = "") -> Callable[[Path, Path], AbstractContextManager[None]]:
    """A filesystem that a command serves, in which BACKING and MOUNT stand for the two directories."""

    def mount(backing: Path, directory: Path) -> AbstractContextManager[None]:
        places = {"BACKING": str(backing), "MOUNT": str(directory)}
        words: list[str | Path] = []
        for word in command:
            for place, path in places.items():
                word = word.replace(place, path)
            words.append(word)
        return served(words, directory, password)

    return mount


@contextmanager
def _folding_ext4(backing: Path, directory: Path) -> Iterator[None]:
    """An ext4 whose top directory folds case, as those below it then do."""
    with _on_image(["mkfs.ext4", "-q", "-O", "casefold"], "ext4")(backing, directory):
        subprocess.run(["rmdir", directory / "lost+found"], check=False)
        subprocess.run(["chattr", "+F", directory], check=True)
        yield


@contextmanager
def _sshfs(backing: Path, directory: Path) -> Iterator[None]:
    """Without a server: what an SSH server would start answers at once."""
    ssh = backing.with_name("ssh")
    ssh.write_text("#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n")
    ssh.chmod(0o755)
    with _by("sshfs", "-f", "-o", f"ssh_command={ssh}", "localhost:BACKING", "MOUNT")(backing, directory):
        yield


FILESYSTEMS = {
    "ext4": Filesystem({"mkfs.ext4": "e2fsprogs"}, _on_image(["mkfs.ext4", "-q"], "ext4")),
    "ext4, casefold": Filesystem({"mkfs.ext4": "e2fsprogs"}, _folding_ext4, folds_case=True),
    "xfs": Filesystem({"mkfs.xfs": "xfsprogs"}, _on_image(["mkfs.xfs", "-q"], "xfs")),
    "btrfs": Filesystem({"mkfs.btrfs": "btrfs-progs"}, _on_image(["mkfs.btrfs", "-q"], "btrfs")),
    "vfat": Filesystem(
        {"mkfs.vfat": "dosfstools"},
        _on_image(["mkfs.vfat"], "vfat", "umask=000"),
        folds_case=True,
    ),
    "exfat": Filesystem(
        {"mkfs.exfat": "exfatprogs"},
        _on_image(["mkfs.exfat"], "exfat"),
        folds_case=True,
    ),
    "exfat-fuse": Filesystem(
        {"mkfs.exfat": "exfatprogs", "mount.exfat-fuse": "exfat-fuse"},
        _on_image(["mkfs.exfat"], "exfat-fuse"),
        folds_case=True,
    ),
    "ntfs-3g": Filesystem({"mkfs.ntfs": "ntfs-3g"}, _on_image(["mkfs.ntfs", "-q", "-F", "-f"], "ntfs-3g")),
    "sshfs": Filesystem({"sshfs": "sshfs", "/usr/lib/openssh/sftp-server": "openssh-sftp-server"}, _sshfs),
    "encfs": Filesystem(
        {"encfs": "encfs"},
        _by("encfs", "-f", "-S", "--standard", "BACKING", "MOUNT", password="secret\n"),
    ),
    "CryFS": Filesystem(
        {"cryfs": "cryfs"}, _by("cryfs", "-f", "BACKING", "MOUNT", password="secret\n"), in_ci=False
    ),
    "rclone": Filesystem(
        {"rclone": "rclone"},
        _by("rclone", "--config", "", "mount", ":local:BACKING", "MOUNT"),
        in_ci=False,
    ),
    "rclone, with a cache": Filesystem(
        {"rclone": "rclone"},
        _by(
            *("rclone", "--config", "", "mount", "--vfs-cache-mode", "full"),
            *("--cache-dir", "BACKING.cache", ":local:BACKING", "MOUNT"),
        ),
        in_ci=False,
    ),
    "bindfs": Filesystem(
        {"bindfs": "bindfs"}, _by("bindfs", "-f", "--chmod-deny", "--chown-deny", "BACKING", "MOUNT")
    ),
}
"""By the name that people have for it."""
