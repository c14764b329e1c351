"""Transfers that end too early and go on later, in new processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.mounts import mounted
from e2e.processes import (
    LONG,
    Flyx,
    FlyxProcess,
    names_in,
    need,
    sha256,
    snapshot,
    write_random,
    write_sparse,
)
from e2e.unfinished import under_way

MB = 1_000_000


def sent_again(receiver: FlyxProcess) -> int:
    """Bytes that a receiver that is done got in its own run."""
    done = receiver.event("done")
    return int(done["bytes"]) - int(done["resumed"])


def test_a_receiver_that_was_killed_goes_on_where_it_was(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send(source)
    killed = under_way(flyx, sender, tmp_path / "in", LONG // 4)
    killed.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    assert names_in(tmp_path / "in") == [".flyx"]
    again = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert names_in(tmp_path / "in") == ["file"]
    # At most what came after the last checkpoint comes again.
    resumed = again.event("resume")
    assert 0 < resumed["bytes"] == again.event("done")["resumed"]
    assert sender.event("resume", bytes=resumed["bytes"])
    assert sent_again(again) == LONG - resumed["bytes"]


def test_a_sender_that_was_killed_is_started_again_and_sends_the_rest(flyx: Flyx, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_random(tree / "a" / "first", 3 * MB)
    write_random(tree / "b" / "big", LONG)
    write_random(tree / "c", 10)
    sender = flyx.send(tree)
    receiver = flyx.receive(sender.code(), tmp_path / "in")
    receiver.event("progress", lambda event: event["bytes"] > LONG // 4)
    sender.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    receiver.ends(6)
    assert names_in(tmp_path / "in") == [".flyx", "tree"]

    restarted = flyx.send(tree)
    again = flyx.receive(restarted.code(), tmp_path / "in").ends(0)
    restarted.ends(0)
    assert snapshot(tmp_path / "in" / "tree") == snapshot(tree)
    assert names_in(tmp_path / "in") == ["tree"]
    resumed = again.event("resume")
    assert resumed["files"] == 1
    assert resumed["bytes"] > 3 * MB
    assert sent_again(again) == LONG + 3 * MB + 10 - resumed["bytes"]
    # All files are told, those that were there as well.
    assert len(again.named("file")) == 3


def test_a_file_that_changed_meanwhile_starts_anew_and_the_output_says_so(flyx: Flyx, tmp_path: Path) -> None:
    changing = write_random(tmp_path / "tree" / "changing", LONG)
    first = write_random(tmp_path / "tree" / "all right", 2 * MB)
    sender = flyx.send(tmp_path / "tree")
    under_way(flyx, sender, tmp_path / "in", LONG // 4).send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    sender.send_signal(signal.SIGINT).ends(130)
    with changing.open("r+b") as file:
        file.write(b"changed")
    sender = flyx.send(tmp_path / "tree")
    again = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    notice = again.event("notice", lambda event: "changing" in event["message"])
    assert notice["message"] == "tree/changing has changed since the last try: it starts anew."
    assert again.event("done")["resumed"] == first.stat().st_size
    assert snapshot(tmp_path / "in" / "tree") == snapshot(tmp_path / "tree")


def test_an_unfinished_transfer_is_named_and_left_alone_by_others(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send(write_random(tmp_path / "first", LONG))
    under_way(flyx, sender, tmp_path / "in", LONG // 4).send_signal(signal.SIGINT).resume().ends(130)
    sender.send_signal(signal.SIGINT).ends(130)
    (part,) = (tmp_path / "in").glob(".flyx/*/*.part")
    other = flyx.send(write_random(tmp_path / "other", MB))
    receiver = flyx.receive(other.code(), tmp_path / "in").ends(0)
    notice = receiver.event("notice", lambda event: "unfinished" in event["message"])["message"]
    assert notice.startswith("An unfinished transfer of first from ")
    assert notice.endswith(f" is kept in {tmp_path / 'in' / '.flyx'}.")
    assert part.exists()
    assert names_in(tmp_path / "in") == [".flyx", "other"]


def test_a_second_receiver_into_the_same_directory_does_not_touch_the_first(
    flyx: Flyx, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send("--receivers", "2", source)
    first = under_way(flyx, sender, tmp_path / "in", LONG // 4)
    second = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    assert second.named("resume") == []
    first.resume().fails(1, "files_failed")
    assert first.event("file")["error"] == "the receiver has something else under its name"
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    sender.send_signal(signal.SIGINT).ends(130)


# Disks.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of LONG bytes and a little more."""
    with mounted(["-t", "tmpfs", "-o", f"size={LONG + 8 * MB}", "tmpfs"], tmp_path / "disk"):
        yield tmp_path / "disk"


def test_a_full_disk_keeps_what_arrived_and_disturbs_no_other_receiver(
    flyx: Flyx, tmp_path: Path, small_disk: Path
) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send("--receivers", "2", source)
    filling = under_way(flyx, sender, small_disk / "in", LONG // 4)
    other = flyx.receive(sender.code(), tmp_path / "other").mid_transfer()
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free)
    filling.resume().fails(7, "no_space")
    other.ends(0)
    assert "not enough space" in sender.event("peer", state="failed")["message"]
    assert names_in(small_disk / "in") == [".flyx"]
    # Not even the rest fits: found out before it is sent, and what is there stays.
    flyx.receive(sender.code(), small_disk / "in").fails(7, "no_space")
    filler.unlink()
    again = flyx.receive(sender.code(), small_disk / "in").ends(0)
    sender.ends(0)
    assert sha256(small_disk / "in" / "file") == sha256(source) == sha256(tmp_path / "other" / "file")
    assert again.event("done")["resumed"] >= LONG // 8


@pytest.mark.parametrize(
    ("make", "package", "kind"),
    [
        ("mkfs.vfat", "dosfstools", ["-t", "vfat", "-o", "loop,umask=000,uid=1234"]),
        ("mkfs.exfat", "exfatprogs and exfat-fuse", ["-t", "exfat-fuse", "-o", "loop,umask=000,uid=1234"]),
    ],
    ids=["vfat", "exfat"],
)
def test_a_receiver_goes_on_on_a_disk_without_owners_modes_and_lasting_inode_numbers(
    flyx: Flyx, tmp_path: Path, make: str, package: str, kind: list[str | Path]
) -> None:
    need(f"{make}, of {package}", shutil.which(make) is not None)
    disk, image = tmp_path / "disk", write_sparse(tmp_path / "image", 2 * LONG)
    subprocess.run([make, image], check=True, capture_output=True)
    tree = tmp_path / "tree"
    write_random(tree / "a", 3 * MB)
    write_random(tree / "b", LONG)
    sender = flyx.send(tree)
    with mounted([*kind, image], disk):
        killed = under_way(flyx, sender, disk / "in", LONG // 4)
        killed.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    # Taken out and put in again: files are numbered as they are looked at.
    with mounted([*kind, image], disk):
        sha256(next(disk.glob("in/.flyx/*/*.part")))
        again = flyx.receive(sender.code(), disk / "in").ends(0)
        assert again.event("resume")["files"] == 1
        assert again.event("done")["resumed"] > LONG // 8
        assert {path: sha256(disk / "in" / "tree" / path) for path in "ab"} == {
            path: sha256(tree / path) for path in "ab"
        }
        assert names_in(disk / "in") == ["tree"]
    sender.ends(0)


@pytest.mark.parametrize(
    ("make", "package"),
    [("mkfs.btrfs", "btrfs-progs"), ("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs")],
    ids=["btrfs", "ext4", "xfs"],
)
def test_of_a_transfer_that_is_complete_nothing_stays_beside_it(
    flyx: Flyx, tmp_path: Path, make: str, package: str
) -> None:
    need(f"{make}, of the package {package}", shutil.which(make) is not None)
    disk, image = tmp_path / "disk", write_sparse(tmp_path / "image", 400 * MB)
    subprocess.run([make, "-q", image], check=True, capture_output=True)
    source = write_random(tmp_path / "tree" / "a", MB).parent
    with mounted(["-o", "loop", image], disk):
        sender = flyx.send(source)
        flyx.receive(sender.code(), disk / "in").ends(0)
        sender.ends(0)
        assert names_in(disk / "in") == ["tree"]


def test_an_offer_that_is_declined_costs_an_unfinished_transfer_nothing(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    before = source.read_bytes()
    modified = source.stat().st_mtime_ns
    target = tmp_path / "in"
    sender = flyx.send(source)
    under_way(flyx, sender, target, LONG // 4).kill()
    sender.send_signal(signal.SIGINT).ends(130)
    kept = snapshot(target)

    write_sparse(source, LONG + 1)
    other = flyx.send(source)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", target, other.code())
    receiver.says("[y/N] ").type("n\r").ends(7)
    other.send_signal(signal.SIGINT).ends(130)
    assert snapshot(target) == kept

    source.write_bytes(before)
    os.utime(source, ns=(modified, modified))
    sender = flyx.send(source)
    again = flyx.receive(sender.code(), target).ends(0)
    sender.ends(0)
    assert again.event("done")["resumed"] > LONG // 8
    assert sha256(target / "file") == sha256(source)
