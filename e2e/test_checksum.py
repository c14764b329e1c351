"""`flyx receive --checksum`: what is there with the same content is not sent, whatever its time."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from e2e.processes import Flyx, FlyxProcess, sha256, write_random, write_thin
from flyx.errors import EXIT_CTRL_C, EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_USAGE

SIZE = 3 * (1 << 20) + 17
LONG = 16 << 30
"""Bytes that take many seconds to hash, and no room."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A directory, of which `in` has the same content with other times."""
    photos = tmp_path / "photos"
    for name in ["a.jpg", "2024/b.jpg", "2024/c.jpg"]:
        write_random(photos / name, SIZE)
    (photos / "empty").touch()
    shutil.copytree(photos, tmp_path / "in" / "photos")
    for path in (tmp_path / "in" / "photos").rglob("*"):
        os.utime(path, (0, 1_000_000_000))
    return photos


def change(path: Path) -> None:
    """Change one byte, at the end, and not the time."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def notices(process: FlyxProcess) -> list[str]:
    return [event["message"] for event in process.named("notice")]


def digests_in(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): sha256(path) for path in paths}


def saved_by(process: FlyxProcess) -> list[str]:
    return [event["path"] for event in process.named("file")]


def test_what_has_the_same_content_is_not_sent_whatever_its_time(
    flyx: Flyx, tmp_path: Path, photos: Path
) -> None:
    write_random(photos / "new.jpg", SIZE)
    times = (tmp_path / "in" / "photos" / "a.jpg").stat().st_mtime
    sender = flyx.send(photos, "-n", "2")
    code = sender.code()
    # By its time, everything differs.
    refused = flyx.receive(code, tmp_path / "in", "--skip-existing").ends(EXIT_REFUSED)
    assert refused.event("error")["code"] == "destination_exists"
    receiver = flyx.receive(code, tmp_path / "in", "-c").ends(EXIT_DONE)
    again = flyx.receive(code, tmp_path / "in", "--checksum").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert saved_by(receiver) == ["photos/new.jpg"]
    assert notices(receiver) == [
        "Comparing 3 files that are here already (9.44 MB)",
        "4 files are here already (9.44 MB)",
    ]
    assert "Receiver 2 compares files that it has with these" in notices(sender)
    assert "Receiver 2 had 4 of the files and links already" in notices(sender)
    for process, peer in [(receiver, 1), (sender, 2)]:
        done = process.event("done", peer=peer)
        assert (done["files"], done["bytes"], done["missing"]) == (1, SIZE, 0)
    assert again.event("done")["files"] == 0
    # What is the same stays as it is.
    assert (tmp_path / "in" / "photos" / "a.jpg").stat().st_mtime == times


def test_what_has_the_same_size_and_time_and_another_content_is_found_out(
    flyx: Flyx, tmp_path: Path, photos: Path
) -> None:
    shutil.rmtree(tmp_path / "in")
    shutil.copytree(photos, tmp_path / "in" / "photos")
    change(tmp_path / "in" / "photos" / "2024" / "b.jpg")
    sender = flyx.send(photos, "-n", "2")
    code = sender.code()
    blind = flyx.receive(code, tmp_path / "in", "--skip-existing").ends(EXIT_DONE)
    assert saved_by(blind) == []
    refused = flyx.receive(code, tmp_path / "in", "--checksum").ends(EXIT_REFUSED)
    assert "b.jpg already exists" in refused.event("error")["message"]
    receiver = flyx.receive(code, tmp_path / "in", "--checksum", "--overwrite").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert saved_by(receiver) == ["photos/2024/b.jpg"]
    assert digests_in(tmp_path / "in" / "photos") == digests_in(photos)


def test_two_receivers_compare_at_once(flyx: Flyx, tmp_path: Path, photos: Path) -> None:
    shutil.copytree(tmp_path / "in", tmp_path / "other")
    change(tmp_path / "in" / "photos" / "a.jpg")
    change(tmp_path / "other" / "photos" / "2024" / "c.jpg")
    sender = flyx.send(photos, "-n", "2")
    code = sender.code()
    first = flyx.receive(code, tmp_path / "in", "-c", "--overwrite")
    second = flyx.receive(code, tmp_path / "other", "-c", "--overwrite")
    assert saved_by(first.ends(EXIT_DONE)) == ["photos/a.jpg"]
    assert saved_by(second.ends(EXIT_DONE)) == ["photos/2024/c.jpg"]
    sender.ends(EXIT_DONE)


def test_of_a_big_tree_only_what_differs_is_sent(flyx: Flyx, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for n in range(5_000):
        path = tree / f"{n % 50}" / f"{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % n)
    shutil.copytree(tree, tmp_path / "in" / "tree")
    for path in (tmp_path / "in" / "tree").rglob("*"):
        os.utime(path, (0, 1_000_000_000))
    for n in (0, 2_500, 4_999):
        change(tmp_path / "in" / "tree" / f"{n % 50}" / f"{n}")
    sender = flyx.send(tree)
    receiver = flyx.receive(sender.code(), tmp_path / "in", "-c", "--overwrite").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert sorted(saved_by(receiver)) == ["tree/0/0", "tree/0/2500", "tree/49/4999"]
    for path in tree.rglob("*"):
        if path.is_file():
            assert (tmp_path / "in" / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("end", ["receiver", "sender"])
def test_an_interrupt_while_files_are_hashed_does_not_wait_for_their_end(
    flyx: Flyx, tmp_path: Path, end: str
) -> None:
    write_thin(tmp_path / "disk.img", LONG)
    (tmp_path / "in").mkdir()
    write_thin(tmp_path / "in" / "disk.img", LONG)
    os.utime(tmp_path / "in" / "disk.img", (0, 1_000_000_000))
    sender = flyx.send(tmp_path / "disk.img")
    receiver = flyx.receive(sender.code(), tmp_path / "in", "-c")
    sender.event("notice", message="Receiver 1 compares files that it has with these")
    receiver.event("notice")
    if end == "receiver":
        receiver.send_signal(signal.SIGINT).ends(EXIT_CTRL_C, within=5)
        sender.event("peer", state="failed")
    else:
        sender.send_signal(signal.SIGINT).ends(EXIT_CTRL_C, within=5)
        receiver.ends(EXIT_INTERRUPTED, within=5)
    assert not (tmp_path / "in" / ".flyx").exists()
    assert (tmp_path / "in" / "disk.img").stat().st_mtime == 1_000_000_000


@pytest.mark.parametrize(
    ("answer", "saved"),
    [("o", {"a.jpg"}), ("s", set()), ("r", {"a.jpg", "2024/b.jpg", "2024/c.jpg", "empty"})],
)
def test_on_a_terminal_what_differs_is_asked_about(
    flyx: Flyx, tmp_path: Path, photos: Path, answer: str, saved: set[str]
) -> None:
    change(tmp_path / "in" / "photos" / "a.jpg")
    before = digests_in(tmp_path / "in" / "photos")
    sender = flyx.send(photos)
    receiver = flyx.terminal("receive", "--server", flyx.server, "-c", "-o", tmp_path / "in", sender.code())
    receiver.says("Comparing 3 files").says("a.jpg already exists").says("[s/o/r/N] ").type(f"{answer}\r")
    receiver.says("? [y/N] ").type("y\r").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert receiver.err.count("Comparing") == 1
    assert sender.event("done")["files"] == len(saved)
    after = digests_in(tmp_path / "in" / "photos")
    assert {name for name in after if after[name] != before[name]} == (saved if answer == "o" else set())
    renamed = tmp_path / "in" / "photos (1)"
    assert renamed.exists() == (answer == "r")
    assert answer != "r" or digests_in(renamed) == digests_in(photos)


def test_new_names_leave_nothing_to_compare(flyx: Flyx, tmp_path: Path) -> None:
    receiver = flyx.receive("K7M2QX", tmp_path / "in", "--checksum", "--rename").fails(
        EXIT_USAGE, "bad_input"
    )
    assert "--checksum and --rename exclude each other" in receiver.event("error")["message"]
