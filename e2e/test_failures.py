"""Transfers that do not go well: what each end says, how it ends, and what is left on the disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest

from e2e.processes import (
    DEADLINE,
    LONG,
    Flyx,
    Server,
    names_in,
    need,
    sha256,
    snapshot,
    write_random,
    write_sparse,
    write_thin,
)

MB = 1_000_000

# One that must be acted on while it is under way, and one that is never to arrive.
ENDLESS = 6000 * MB

SOON = 15.0
"""Seconds within which an end must notice that the other one has gone, with 20 s of silence allowed."""


@contextmanager
def closed_port() -> Iterator[str]:
    """The URL of a port on which nothing listens, and which nobody else can get."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{held.getsockname()[1]}"


# The sender has too little of something.


def test_a_sender_out_of_descriptors_serves_nobody_says_so_and_waits(flyx: Flyx, tmp_path: Path) -> None:
    file = write_random(tmp_path / "file", MB)
    sender = flyx.start("--debug", "send", "--server", flyx.server, "--json", file)
    code = sender.code()
    # Until then it opens a file now and then, whose descriptor would be free afterwards.
    sender.says("flyx.rtc.peer is loaded")
    program = psutil.Process(sender.process.pid)
    allowed = program.rlimit(psutil.RLIMIT_NOFILE)
    # No number may be left: those that are used need not be in a row.
    used = {int(name) for name in os.listdir(f"/proc/{program.pid}/fd")}
    free = next(number for number in count() if number not in used)
    program.rlimit(psutil.RLIMIT_NOFILE, (free, allowed[1]))
    first = flyx.receive(code, tmp_path / "first")
    ended = sender.event("peer", peer=1, state="failed")
    assert ended["code"] == "system_failure"
    assert "Too many open files" in ended["message"]
    assert sender.named("done") == []
    first.kill()
    program.rlimit(psutil.RLIMIT_NOFILE, allowed)
    flyx.receive(code, tmp_path / "second").ends(0)
    sender.ends(0)
    assert sender.event("done")["peer"] == 2
    assert sha256(tmp_path / "second" / "file") == sha256(file)


def test_a_file_from_a_far_future_arrives(flyx: Flyx, tmp_path: Path) -> None:
    file = write_random(tmp_path / "file", 1000)
    os.utime(file, (10_413_792_000, 10_413_792_000))
    sender = flyx.send(file)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(file)


# The sender leaves.


def test_a_sender_that_dies_is_missed_by_its_receiver(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send(write_thin(tmp_path / "file", ENDLESS))
    options = ["--server", flyx.server, "--yes", "-o", "in", "--reconnect", "0"]
    receiver = flyx.start("receive", *options, sender.code())
    sender.mid_transfer().send_signal(signal.SIGKILL)
    # The server's word shortens the wait, also for data that is under way still.
    receiver.complains(6, "The transfer was interrupted", "what has arrived is kept", SOON)
    assert receiver.out == ""
    assert names_in(tmp_path / "in") == [".flyx"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sender_that_is_interrupted_tells_its_receiver(
    flyx: Flyx, tmp_path: Path, number: signal.Signals
) -> None:
    small = write_random(tmp_path / "a-small", 1000)
    sender = flyx.send(small, write_thin(tmp_path / "file", ENDLESS))
    (tmp_path / "in").mkdir()
    receiver = flyx.receive(sender.code(), tmp_path / "in").mid_transfer()
    receiver.event("file")
    sender.send_signal(number).ends(130, SOON)
    receiver.fails(6, "interrupted", SOON)
    assert "the sender stopped it" in receiver.event("error")["message"]
    assert names_in(tmp_path / "in") == [".flyx", "a-small"]
    assert sha256(tmp_path / "in" / "a-small") == sha256(small)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sender_that_waits_can_be_interrupted(flyx: Flyx, tmp_path: Path, number: signal.Signals) -> None:
    sender = flyx.start("send", "--server", flyx.server, write_random(tmp_path / "file", 1))
    code = sender.code()
    sender.send_signal(number).ends(130)
    assert sender.err.splitlines()[-1] == "interrupted"
    flyx.receive(code, tmp_path / "in").fails(3, "no_such_room")


# A receiver leaves.


def test_a_receiver_that_dies_disturbs_nobody_and_can_try_again(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send("--receivers", "2", source)
    code = sender.code()
    dying = flyx.receive(code, tmp_path / "dying").mid_transfer().stop()
    other = flyx.receive(code, tmp_path / "other").mid_transfer()
    dying.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    other.ends(0)
    assert sha256(tmp_path / "other" / "file") == sha256(source)
    failed = sender.event("peer", state="failed")
    assert failed["code"] == "interrupted"
    assert "file" not in names_in(tmp_path / "dying")
    assert sender.process.poll() is None
    flyx.receive(code, tmp_path / "dying").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "dying" / "file") == sha256(source)
    assert len(sender.named("done")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_receiver_that_is_interrupted_tells_the_sender_which_stays(
    flyx: Flyx, tmp_path: Path, number: signal.Signals
) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.start("send", "--server", flyx.server, source)
    code = sender.code()
    receiver = flyx.receive(code, tmp_path / "in").mid_transfer()
    receiver.send_signal(number).ends(130, SOON)
    assert receiver.named("notice")[-1]["message"].startswith("What has arrived is kept")
    assert receiver.named("done") == receiver.named("file") == []
    assert names_in(tmp_path / "in") == [".flyx"]
    sender.says("Receiver 1: The transfer was interrupted: the receiver stopped it. The code is still good")
    flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_a_receiver_that_waits_can_be_interrupted(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send(source)
    code = sender.code()
    served = flyx.receive(code, tmp_path / "served").mid_transfer().stop()
    waiting = flyx.receive(code, tmp_path / "waiting")
    for side, number in ((sender, 2), (waiting, 1)):
        side.event("peer", peer=number, state="joined")
    waiting.send_signal(signal.SIGINT).ends(130)
    sender.event("peer", peer=2, state="failed")
    served.resume().ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "served" / "file") == sha256(source)
    assert not (tmp_path / "waiting").exists()


def test_a_receiver_that_waits_is_served_when_the_one_before_it_leaves(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send(source)
    code = sender.code()
    first = flyx.receive(code, tmp_path / "first").mid_transfer().stop()
    second = flyx.receive(code, tmp_path / "second")
    sender.event("peer", peer=2, state="joined")
    first.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    second.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "second" / "file") == sha256(source)
    assert [event["peer"] for event in sender.named("done")] == [2]


# The server and the code.


def test_a_code_that_nobody_waits_under_is_refused(flyx: Flyx, tmp_path: Path) -> None:
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", "in", "000000")
    receiver.complains(3, "No sender is waiting under the code 000000.", "check the code")
    assert receiver.out == ""
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("code", ["12345", "1234567", "UUUUUU", "../../", "", "K7M2Q\u0416", "\x1b[31m!"])
def test_a_code_that_is_none_is_a_usage_error(flyx: Flyx, code: str) -> None:
    with closed_port() as server:
        # Nobody is asked about it.
        receiver = flyx.start("receive", "--server", server, "--yes", "--", code).ends(2)
    assert receiver.err.splitlines()[0].startswith("error: ")
    assert "\x1b" not in receiver.err
    assert receiver.out == ""


def test_an_absent_server_is_named_with_what_to_do(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1)
    with closed_port() as server:
        sender = flyx.start("send", "--server", server, source)
        receiver = flyx.start("receive", "--server", server, "--yes", "K7M2QX")
        for process in (sender, receiver):
            process.complains(3, f"Cannot reach the signaling server {server}", "start one with `flyx serve`")
            assert process.out == ""


@pytest.mark.parametrize("server", ["ftp://example.org", "ws://", "ws://host:port"])
def test_a_server_that_is_no_url_is_a_usage_error(flyx: Flyx, tmp_path: Path, server: str) -> None:
    flyx.start("send", "--server", server, write_random(tmp_path / "file", 1)).complains(
        2, f"--server cannot be used: {server} is not the URL", "write it"
    )


def test_a_transfer_outlives_its_server(flyx: Flyx, own_server: Server, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.start("send", "--server", own_server.url, "--json", source)
    target = tmp_path / "in"
    receiver = flyx.start(
        "receive", "--server", own_server.url, "--json", "--yes", "-o", target, sender.code()
    )
    receiver.mid_transfer()
    own_server.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    receiver.ends(0)
    sender.ends(0)
    assert sha256(target / "file") == sha256(source)
    notice = "The server is out of reach (the connection was lost). Trying to get back to it."
    assert sender.event("notice")["message"] == notice


def test_a_sender_whose_room_is_gone_ends_when_those_served_have_everything(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.start("send", "--server", own_server.url, "--json", "--receivers", "2", source)
    target = tmp_path / "in"
    receiver = flyx.start(
        "receive", "--server", own_server.url, "--json", "--yes", "-o", target, sender.code()
    )
    receiver.mid_transfer()
    own_server.send_signal(signal.SIGKILL).ends(-signal.SIGKILL)
    # It comes back without its rooms.
    flyx.adopt(Server(flyx.environment, flyx.directory, port=own_server.port))
    receiver.ends(0)
    sender.fails(3, "room_lost")
    assert sha256(target / "file") == sha256(source)
    assert len(sender.named("done")) == 1


def test_a_server_that_forgot_its_rooms_is_the_end_of_waiting(
    flyx: Flyx, own_server: Server, tmp_path: Path
) -> None:
    sender = flyx.start("send", "--server", own_server.url, "--json", write_random(tmp_path / "file", 1))
    sender.code()
    own_server.send_signal(signal.SIGTERM).ends(0)
    sender.event("notice")
    flyx.adopt(Server(flyx.environment, flyx.directory, port=own_server.port))
    sender.fails(3, "room_lost")


def test_a_sender_gives_up_when_nobody_comes(flyx: Flyx, tmp_path: Path) -> None:
    sender = flyx.send("--wait", "0.2", write_random(tmp_path / "file", 1))
    sender.fails(4, "nobody_came")
    flyx.receive(sender.code(), tmp_path / "in").fails(3, "no_such_room")


# What is already there.


def test_what_exists_is_refused_until_told_otherwise(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 70_000)
    target = tmp_path / "in"
    mine = write_random(target / "file", 33)
    before = snapshot(target)
    sender = flyx.send("--receivers", "2", source)
    code = sender.code()

    refusing = flyx.start("receive", "--server", flyx.server, "--yes", "-o", "in", code)
    refusing.complains(7, "in/file already exists.", "add --overwrite to replace what exists, --rename")
    assert snapshot(target) == before
    assert refusing.out == ""
    told = sender.event("peer", peer=1, state="failed")
    assert told["code"] == "refused"
    assert str(tmp_path) not in told["message"]

    renaming = flyx.receive(code, target, "--rename").ends(0)
    assert renaming.event("file")["saved_as"] == str(target / "file (1)")
    assert sha256(target / "file (1)") == sha256(source)
    assert sha256(mine) == before["file"][0]

    flyx.receive(code, target, "--overwrite").ends(0)
    sender.ends(0)
    assert snapshot(mine) == snapshot(source)
    assert names_in(target) == ["file", "file (1)"]


def test_one_file_in_the_way_refuses_a_whole_tree(flyx: Flyx, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("one", "two", "sub/three"):
        write_random(tree / name, 1000)
    target = tmp_path / "in"
    write_random(target / "tree" / "sub" / "three", 5)
    before = snapshot(target)
    sender = flyx.send("--receivers", "2", tree)
    flyx.receive(sender.code(), target).fails(7, "destination_exists")
    assert snapshot(target) == before
    flyx.receive(sender.code(), target, "--rename").ends(0)
    assert snapshot(target / "tree (1)") == snapshot(tree)
    assert snapshot(target / "tree")["sub/three"] == before["tree/sub/three"]
    flyx.receive(sender.code(), target, "--overwrite").ends(0)
    sender.ends(0)
    contents = [{name: what[0] for name, what in snapshot(path).items()} for path in (target / "tree", tree)]
    assert contents[0] == contents[1]


def test_a_symbolic_link_in_the_destination_is_not_followed(flyx: Flyx, tmp_path: Path) -> None:
    write_random(tmp_path / "tree" / "file", 10)
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "in"
    target.mkdir()
    (target / "tree").symlink_to(outside)
    sender = flyx.send(tmp_path / "tree")
    for policy in ([], ["--overwrite"]):
        flyx.receive(sender.code(), target, *policy).fails(7, "destination_exists")
        assert names_in(outside) == []
        assert names_in(target) == ["tree"]
    flyx.receive(sender.code(), target, "--rename").ends(0)
    sender.ends(0)
    assert names_in(outside) == []
    assert snapshot(target / "tree (1)") == snapshot(tmp_path / "tree")


def test_overwrite_and_rename_exclude_each_other(flyx: Flyx) -> None:
    flyx.start("receive", "--overwrite", "--rename", "--yes", "K7M2QX").complains(
        2, "--overwrite and --rename"
    )


# The receiver's disk.


def test_an_output_directory_that_cannot_be_is_refused_and_the_sender_stays(
    flyx: Flyx, tmp_path: Path
) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.send(source)
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", "file/in", sender.code())
    receiver.complains(1, "Cannot write to file/in: file is not a directory", "choose another directory")
    told = sender.event("peer", peer=1, state="failed")
    assert told["message"].endswith("the receiver could not write where it wanted to")
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of LONG bytes and a little more."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={LONG + 4 * MB}", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        # No package brings the right to do so: in CI, too, this is nothing to fail for.
        pytest.skip(f"needs the right to mount a filesystem: {made.stderr.decode().strip()}")
    yield mount
    # Lazily, because after a failure flyx may still use it.
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_more_than_the_disk_holds_is_refused_before_anything_is_sent(
    flyx: Flyx, tmp_path: Path, small_disk: Path
) -> None:
    source = write_thin(tmp_path / "file", 3 * LONG)
    sender = flyx.start("send", "--server", flyx.server, source)
    receiver = flyx.receive(sender.code(), small_disk / "in").fails(7, "no_space")
    assert "needed" in receiver.event("error")["message"]
    assert [event["bytes"] for event in receiver.named("progress") if event["bytes"]] == []
    assert not (small_disk / "in").exists()
    sender.says("there is not enough space. The code is still good")
    sender.send_signal(signal.SIGINT).ends(130)


def test_holes_need_no_room(flyx: Flyx, tmp_path: Path, small_disk: Path) -> None:
    source = write_sparse(tmp_path / "file", 25 * LONG)
    sender = flyx.send(source)
    flyx.receive(sender.code(), small_disk / "in").ends(0)
    sender.ends(0)
    assert (small_disk / "in" / "file").stat().st_size == 25 * LONG


def test_a_disk_that_fills_up_in_the_middle_is_a_refusal_and_the_sender_stays(
    flyx: Flyx, tmp_path: Path, small_disk: Path
) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send(source)
    receiver = flyx.receive(sender.code(), small_disk / "in")
    # The last block may have to make room for the journal.
    receiver.event("progress", lambda event: event["bytes"] > 8 * MB)
    receiver.stop()
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free)
    receiver.resume().fails(7, "no_space")
    assert names_in(small_disk) == ["filler", "in"]
    assert names_in(small_disk / "in") == [".flyx"]
    assert "not enough space" in sender.event("peer", peer=1, state="failed")["message"]
    filler.unlink()
    flyx.receive(sender.code(), small_disk / "in").ends(0)
    sender.ends(0)
    assert sha256(small_disk / "in" / "file") == sha256(source)


QUOTA = 24 * MB


@pytest.fixture
def rationed(tmp_path: Path) -> Iterator[Path]:
    """A directory for QUOTA bytes, on a filesystem that has room for more: btrfs, which counts root, too."""
    need("mkfs.btrfs, of the package btrfs-progs", shutil.which("mkfs.btrfs") is not None)
    mount = tmp_path / "disk"
    mount.mkdir()
    image = write_sparse(tmp_path / "image", 256 * MB)
    subprocess.run(["mkfs.btrfs", "--quiet", image], check=True, capture_output=True)
    made = subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"needs the right to mount a btrfs: {made.stderr.decode().strip()}")
    try:
        directory = mount / "rationed"
        for command in (
            ["quota", "enable", mount],
            ["subvolume", "create", directory],
            ["qgroup", "limit", str(QUOTA), directory],
        ):
            subprocess.run(["btrfs", *command], check=True, capture_output=True)
        yield directory
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_a_quota_that_is_used_up_is_named_as_such_and_the_sender_stays(
    flyx: Flyx, tmp_path: Path, rationed: Path
) -> None:
    source = write_random(tmp_path / "file", 2 * QUOTA)
    sender = flyx.send(source)
    receiver = flyx.receive(sender.code(), rationed / "in").fails(7, "no_space")
    assert "quota" in receiver.event("error")["message"]
    assert names_in(rationed / "in") == [".flyx"]
    assert "not enough space" in sender.event("peer", peer=1, state="failed")["message"]
    subprocess.run(["btrfs", "qgroup", "limit", "none", rationed], check=True, capture_output=True)
    again = flyx.receive(sender.code(), rationed / "in").ends(0)
    sender.ends(0)
    # However soon it was used up.
    assert again.event("done")["resumed"] > QUOTA // 2
    assert sha256(rationed / "in" / "file") == sha256(source)


# The sender's disk.


def change(file: Path) -> None:
    """Other bytes, the same size."""
    with file.open("r+b") as f:
        f.seek(-100, os.SEEK_END)
        f.write(b"changed")


def grow(file: Path) -> None:
    with file.open("ab") as f:
        f.write(b"more")


def shrink(file: Path) -> None:
    os.truncate(file, LONG - 1)


@pytest.mark.parametrize("alter", [change, grow, shrink])
def test_a_file_that_changes_while_it_is_sent_is_not_delivered_but_the_others_are(
    flyx: Flyx, tmp_path: Path, alter: Callable[[Path], None]
) -> None:
    before = write_random(tmp_path / "before", 1000)
    changing = write_random(tmp_path / "changing", LONG)
    after = write_random(tmp_path / "after", 2 * MB)
    sender = flyx.send(before, changing, after)
    target = tmp_path / "in"
    receiver = flyx.receive(sender.code(), target)
    receiver.event("progress", lambda e: e["bytes"] > 1000)
    alter(changing)
    for process in (receiver, sender):
        process.fails(1, "files_failed")
        assert process.event("error")["message"].startswith(
            "1 of 3 files could not be delivered; the first: changing (it changed while it was sent)"
        )
        assert process.event("file", path="changing")["error"] == "it changed while it was sent"
        assert process.event("done")["missing"] == 1
    assert names_in(target) == ["after", "before"]
    for source in (before, after):
        assert snapshot(target / source.name) == snapshot(source)


def test_a_file_that_vanishes_before_its_turn_is_named_on_both_ends(flyx: Flyx, tmp_path: Path) -> None:
    first = write_random(tmp_path / "first", MB)
    vanishing = write_random(tmp_path / "vanishing", 1000)
    last = write_random(tmp_path / "last", 1000)
    sender = flyx.start("send", "--server", flyx.server, first, vanishing, last)
    code = sender.code()
    # It has been listed, and nobody has opened it yet.
    vanishing.unlink()
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", "in", code)
    for process in (receiver, sender):
        process.complains(
            1,
            "1 of 3 files could not be delivered; the first: vanishing (it was not there to be sent).",
            "the other files are complete",
        )
        assert " 2 of 3 files, 1.00 MB " in process.err
        assert "Left out:\n  vanishing: it was not there to be sent\n" in process.err
    assert receiver.out == "in/first\nin/last\n"
    assert names_in(tmp_path / "in") == ["first", "last"]
    for source in (first, last):
        assert sha256(tmp_path / "in" / source.name) == sha256(source)


def test_a_file_that_is_removed_while_it_is_read_still_arrives_whole(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    expected = sha256(source)
    sender = flyx.send(source)
    receiver = flyx.receive(sender.code(), tmp_path / "in").mid_transfer()
    source.unlink()
    receiver.ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "in" / "file") == expected


def test_what_is_not_there_is_a_usage_error_before_any_server_is_asked(flyx: Flyx) -> None:
    with closed_port() as server:
        sender = flyx.start("send", "--server", server, "missing\x1b[31m", "gone")
        sender.complains(
            2, "there is no file or directory missing\\x1b[31m; there is no file or directory gone"
        )
    assert sender.out == ""


def test_what_is_not_there_is_named_and_the_rest_is_sent(flyx: Flyx, tmp_path: Path) -> None:
    there = write_random(tmp_path / "there", 1)
    sender = flyx.send(there, "missing\x1b[31m")
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(1)
    sender.ends(1)
    assert [end.event("done")["missing"] for end in (sender, receiver)] == [1, 1]
    assert sender.event("notice")["message"] == "there is no file or directory missing\x1b[31m"
    assert names_in(tmp_path / "in") == ["there"]


def test_a_path_that_is_empty_shares_no_directory(flyx: Flyx) -> None:
    with closed_port() as server:
        sender = flyx.start("send", "--server", server, "").ends(2)
    assert "PATH cannot be used: it is empty" in sender.err
    assert sender.out == ""


# Standard output.


def run_into(stdout: int, flyx: Flyx, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run flyx to its end with this handle as its standard output."""
    ended = subprocess.run(
        [sys.executable, "-m", "flyx", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=flyx.directory,
        env=flyx.environment | {"FLYX_SERVER": flyx.server},
        timeout=DEADLINE,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    # What Python says when its own flush fails at the exit.
    assert "Exception ignored" not in ended.stderr
    return ended


@contextmanager
def unread_pipe() -> Iterator[int]:
    """A pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_that_cannot_be_written_is_an_error(flyx: Flyx, tmp_path: Path, options: list[str]) -> None:
    write_random(tmp_path / "file", 10)
    with open("/dev/full", "wb") as full:
        ended = run_into(full.fileno(), flyx, "send", *options, "file")
    assert ended.returncode == 1
    last = "error: Cannot write to standard output: No space left on device"
    assert ended.stderr.splitlines()[-1] == last


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_that_nobody_reads_ends_the_sender(flyx: Flyx, tmp_path: Path, options: list[str]) -> None:
    write_random(tmp_path / "file", 10)
    with unread_pipe() as pipe:
        assert run_into(pipe, flyx, "send", *options, "file").returncode == 1


def test_an_error_that_nobody_reads_as_an_event_is_told_in_words(flyx: Flyx) -> None:
    with unread_pipe() as pipe:
        ended = run_into(pipe, flyx, "receive", "--json", "K7M2QX")
    assert ended.returncode == 7
    assert ended.stderr.startswith("error: Nobody can be asked")


# Consent.


def test_without_a_terminal_and_without_yes_nothing_is_accepted(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 10)
    sender = flyx.send(source)
    receiver = flyx.start("receive", "--server", flyx.server, "-o", "in", sender.code())
    receiver.complains(7, "Nobody can be asked", "add --yes")
    assert receiver.out == ""
    assert not (tmp_path / "in").exists()
    # The sender was not even disturbed.
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert sender.event("done")["peer"] == 1
