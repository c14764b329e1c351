"""Transfers that succeed: what arrives, to how many, and what both ends print about it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from e2e.processes import (
    CODE,
    LONG,
    Flyx,
    FlyxProcess,
    names_in,
    sha256,
    snapshot,
    write_random,
)

MB = 1_000_000


def make_tree(root: Path) -> Path:
    """Make a tree with everything that must be kept."""
    write_random(root / "notes.txt", 1234)
    write_random(root / "bin" / "run", 10).chmod(0o755)
    write_random(root / "bin" / "secret", 10).chmod(0o600)
    write_random(root / "deep" / "deeper" / "deepest" / "exactly-two-blocks", 2 << 20)
    write_random(root / "deep" / "empty-file", 0)
    (root / "empty" / "inside").mkdir(parents=True)
    (root / "private").mkdir()
    (root / "private").chmod(0o700)
    times = [1_000_000_000_123_456, 1_500_000_000_000_001, 86_400_000_000]
    for n, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        mtime = times[n % 3] * 1000
        os.utime(path, ns=(mtime, mtime))
    return root


# What arrives.


def test_one_file_arrives_with_its_bytes_mode_and_time(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "photo.jpg", 3 * MB + 17)
    source.chmod(0o640)
    os.utime(source, ns=(0, 1_234_567_890_123_456_000))
    sender = flyx.send(source)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert names_in(tmp_path / "in") == ["photo.jpg"]
    assert snapshot(tmp_path / "in" / "photo.jpg") == snapshot(source)
    assert sender.err == receiver.err == ""


def test_files_of_times_that_no_clock_has_arrive(flyx: Flyx, tmp_path: Path) -> None:
    # Tools and broken clocks make such: the years 2445, 2300, 1938 and the last microsecond of 1969.
    times = [15 * 10**18, 10_413_792_000 * 10**9, -(10**18), -1000]
    tree = tmp_path / "tree"
    for n, time in enumerate(times):
        os.utime(write_random(tree / f"{n}", 1000), ns=(0, time))
    sender = flyx.send(tree)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    for n in range(len(times)):
        ours, theirs = ((at / f"{n}") for at in (tree, tmp_path / "in" / "tree"))
        assert theirs.read_bytes() == ours.read_bytes()
        # Beyond 2255 a manifest has the last time that a browser can count in microseconds.
        assert theirs.stat().st_mtime_ns == min(ours.stat().st_mtime_ns, (1 << 53) * 1000)


def test_an_empty_file_arrives(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "nothing", 0)
    sender = flyx.send(source)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert snapshot(tmp_path / "in" / "nothing") == snapshot(source)
    assert receiver.event("done")["files"] == 1
    assert receiver.event("done")["bytes"] == 0


def test_a_tree_arrives_with_empty_directories_modes_and_times(flyx: Flyx, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    sender = flyx.send(tree)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert snapshot(tmp_path / "in" / "tree") == snapshot(tree)
    assert names_in(tmp_path / "in") == ["tree"]


def test_files_and_directories_go_together(flyx: Flyx, tmp_path: Path) -> None:
    file = write_random(tmp_path / "a" / "one.bin", 70_000)
    other = write_random(tmp_path / "b" / "two.bin", 1)
    tree = make_tree(tmp_path / "tree")
    bare = tmp_path / "bare"
    bare.mkdir()
    sender = flyx.send(file, tree, other, bare)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert names_in(tmp_path / "in") == ["bare", "one.bin", "tree", "two.bin"]
    for source in (file, tree, other, bare):
        assert snapshot(tmp_path / "in" / source.name) == snapshot(source)


def test_odd_names_arrive_as_they_are(flyx: Flyx, tmp_path: Path) -> None:
    names = [
        "with spaces  and more",
        " leading space",
        "-rf",
        "--json",
        "-",
        "🎈 emoji 👩‍👩‍👧‍👦.txt",
        "naïve café.txt",
        "日本語のファイル",
        "שלום",
        "[bold red]markup[]",
        "%s {0} $HOME `id` ;&|",
        "quote'\"s",
        ".hidden",
        "12:30 a*b? <c>",
        "x" * 255,
    ]
    directory = tmp_path / "names"
    for n, name in enumerate(names):
        write_random(directory / name, n)
        write_random(tmp_path / name, n)
    # By relative names too, where a dash in front could be taken for an option; alone it is standard input.
    given = ["./-" if name == "-" else name for name in names]
    sender = flyx.send("--", "names", *given)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert snapshot(tmp_path / "in" / "names") == snapshot(directory)
    for name in names:
        assert sha256(tmp_path / "in" / name) == sha256(tmp_path / name)
    told = [event["saved_as"] for event in receiver.named("file")]
    assert sorted(told) == sorted(str(p) for p in (tmp_path / "in").rglob("*") if p.is_file())


def test_500_small_files_arrive(flyx: Flyx, tmp_path: Path) -> None:
    tree = tmp_path / "many"
    for n in range(500):
        write_random(tree / f"{n % 7}" / f"file-{n}", n)
    sender = flyx.send(tree)
    receiver = flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert snapshot(tmp_path / "in" / "many") == snapshot(tree)
    for process in (sender, receiver):
        assert len({event["path"] for event in process.named("file")}) == 500


def test_a_symbolic_link_is_followed_when_named_and_left_out_where_it_leads_out(
    flyx: Flyx, tmp_path: Path
) -> None:
    target = write_random(tmp_path / "target.bin", 100)
    tree = tmp_path / "tree"
    write_random(tree / "kept", 5)
    (tree / "link").symlink_to("/etc/passwd")
    (tmp_path / "named").symlink_to("target.bin")
    sender = flyx.send(tree, "named")
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert names_in(tmp_path / "in") == ["target.bin", "tree"]
    assert names_in(tmp_path / "in" / "tree") == ["kept"]
    assert sha256(tmp_path / "in" / "target.bin") == sha256(target)
    assert "leads out of what is sent" in sender.event("notice")["message"]


@pytest.mark.parametrize(
    ("links", "arrives"), [("follow", ["kept", "out", "to-kept"]), ("skip", ["kept"])], ids=["follow", "skip"]
)
def test_what_symbolic_links_lead_to_is_sent_in_their_place_or_not_at_all(
    flyx: Flyx, tmp_path: Path, links: str, arrives: list[str]
) -> None:
    outside = write_random(tmp_path / "outside", 100)
    tree = tmp_path / "tree"
    kept = write_random(tree / "kept", 5)
    (tree / "to-kept").symlink_to("kept")
    (tree / "out").symlink_to(outside)
    sender = flyx.send(tree, "--links", links)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert names_in(tmp_path / "in" / "tree") == arrives
    assert not any(path.is_symlink() for path in (tmp_path / "in" / "tree").iterdir())
    assert sha256(tmp_path / "in" / "tree" / "kept") == sha256(kept)
    if links == "follow":
        assert sha256(tmp_path / "in" / "tree" / "out") == sha256(outside)


# Where it goes.


def test_the_output_directory_and_those_above_it_are_made(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 10)
    target = tmp_path / "made" / "by" / "flyx"
    sender = flyx.send(source)
    flyx.receive(sender.code(), target).ends(0)
    sender.ends(0)
    assert names_in(target) == ["file"]
    assert sha256(target / "file") == sha256(source)


def test_files_go_to_the_working_directory_when_none_is_named(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "elsewhere" / "file", 10)
    sender = flyx.send(source)
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", sender.code()).ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "file") == sha256(source)
    assert receiver.out == "file\n"


def test_a_directory_is_merged_into_one_that_is_there(flyx: Flyx, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    kept = write_random(tmp_path / "in" / "tree" / "deep" / "kept", 44)
    before = snapshot(kept)
    sender = flyx.send(tree)
    flyx.receive(sender.code(), tmp_path / "in").ends(0)
    sender.ends(0)
    assert snapshot(kept) == before
    arrived = {name: what for name, (what, *_) in snapshot(tmp_path / "in" / "tree").items()}
    assert arrived.pop("deep/kept") == sha256(kept)
    assert arrived == {name: what for name, (what, *_) in snapshot(tree).items()}


# To how many.


def test_three_receivers_at_once_each_get_everything(flyx: Flyx, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    write_random(tree / "large", 6 * MB)
    sender = flyx.send("--receivers", "3", tree)
    code = sender.code()
    receivers = [flyx.receive(code, tmp_path / f"in-{n}") for n in range(3)]
    for n, receiver in enumerate(receivers):
        receiver.ends(0)
        assert snapshot(tmp_path / f"in-{n}" / "tree") == snapshot(tree)
    sender.ends(0)
    assert sorted(event["peer"] for event in sender.named("done")) == [1, 2, 3]
    digests = {process.event("done")["digest"] for process in (sender, *receivers)}
    assert len(digests) == 1


def test_a_receiver_that_stands_still_holds_up_nobody_and_is_waited_for(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send("--receivers", "3", source)
    code = sender.code()
    slow = flyx.receive(code, tmp_path / "slow").mid_transfer().stop()
    others = [flyx.receive(code, tmp_path / f"in-{n}") for n in range(2)]
    for n, receiver in enumerate(others):
        receiver.ends(0)
        assert sha256(tmp_path / f"in-{n}" / "file") == sha256(source)
    for peer in (2, 3):
        sender.event("peer", peer=peer, state="done")
    assert sender.process.poll() is None
    slow.resume().ends(0)
    assert sha256(tmp_path / "slow" / "file") == sha256(source)
    sender.ends(0)
    assert [event["peer"] for event in sender.named("done")][-1] == 1


def test_a_receiver_too_many_waits_and_is_told_when_the_sender_is_done(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", LONG)
    sender = flyx.send("--receivers", "1", source)
    code = sender.code()
    first = flyx.receive(code, tmp_path / "first").mid_transfer().stop()
    second = flyx.receive(code, tmp_path / "second")
    sender.event("peer", peer=2, state="joined")
    first.resume().ends(0)
    sender.ends(0)
    assert sha256(tmp_path / "first" / "file") == sha256(source)
    assert second.fails(3, "sender_left").named("path") == []
    assert not (tmp_path / "second").exists()
    assert [event["peer"] for event in sender.named("done")] == [1]


def test_receivers_0_goes_on_until_interrupted(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.send("--receivers", "0", source)
    for n in range(2):
        flyx.receive(sender.code(), tmp_path / f"in-{n}").ends(0)
        assert sha256(tmp_path / f"in-{n}" / "file") == sha256(source)
        sender.event("peer", peer=n + 1, state="done")
    sender.send_signal(signal.SIGINT).ends(130)
    assert len(sender.named("done")) == 2


# What is printed.


def test_plain_output_is_the_command_and_the_saved_paths(flyx: Flyx, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    sender = flyx.start("send", "--server", flyx.server, tree)
    code = sender.code()
    receiver = flyx.start("receive", "--server", flyx.server, "--yes", "-o", "in", code).ends(0)
    sender.ends(0)
    assert sender.out == f"flyx receive --server {flyx.server} {code}\n"
    assert CODE.fullmatch(sender.out)
    files = sorted(p.relative_to(tmp_path) for p in (tmp_path / "in").rglob("*") if p.is_file())
    assert sorted(receiver.out.splitlines()) == [str(path) for path in files]
    for process, words in ((sender, "Receiver 1 has everything"), (receiver, "Received 5 files")):
        assert words in process.err
        # Not a terminal: no escape sequences, no bars, nothing that overwrites itself.
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", process.out + process.err), process
        assert "━" not in process.err


def test_quiet_prints_data_alone(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    sender = flyx.start("send", "--quiet", "--server", flyx.server, source)
    code = sender.code()
    receiver = flyx.start("receive", "-q", "--server", flyx.server, "-y", "-o", "in", code).ends(0)
    sender.ends(0)
    assert (sender.out, sender.err) == (f"flyx receive --server {flyx.server} {code}\n", "")
    assert (receiver.out, receiver.err) == ("in/file\n", "")


def first_places(process: FlyxProcess, *names: str) -> list[int]:
    """Where the first event of each of these names stands."""
    order = [event["event"] for event in process.events]
    return [order.index(name) for name in names]


def test_json_tells_events_in_order_on_both_ends(flyx: Flyx, tmp_path: Path) -> None:
    write_random(tmp_path / "tree" / "one", 2 * MB)
    write_random(tmp_path / "tree" / "two", 10)
    sender = flyx.send(tmp_path / "tree")
    code = sender.code()
    receiver = flyx.receive(code, tmp_path / "in").ends(0)
    sender.ends(0)

    for process in (sender, receiver):
        assert len(process.named("done")) == 1
        assert process.event("peer")["state"] == "joined"
        times = [event["time"] for event in process.events]
        assert times == sorted(times)
        path = process.event("path")
        assert (path["local"], path["remote"]) == ("host", "host")
        assert path["rtt"] > 0
        amounts = [event["bytes"] for event in process.named("progress")]
        assert amounts == sorted(amounts)
        assert amounts[-1] == process.event("progress")["total"] == 2 * MB + 10
        assert process.event("manifest")["files"] == 2
        assert process.event("manifest")["directories"] == 1
        assert process.event("manifest")["bytes"] == 2 * MB + 10
        assert [event["path"] for event in process.named("file")] == ["tree/one", "tree/two"]
        assert process.event("done")["files"] == 2
        assert process.event("done")["bytes"] == 2 * MB + 10
        assert process.event("done")["seconds"] > 0

    places = first_places(sender, "manifest", "room", "peer", "progress", "file", "done")
    assert places == sorted(places)
    places = first_places(receiver, "room", "peer", "manifest", "file", "done")
    assert places == sorted(places)
    # The path is looked at while the transfer begins.
    for process in (sender, receiver):
        places = first_places(process, "peer", "path", "done")
        assert places == sorted(places)
    assert receiver.events[-1]["event"] == "done"
    assert sender.events[-1]["event"] == "peer"
    assert sender.events[-1]["state"] == "done"
    assert sender.event("room")["room_id"] == receiver.event("room")["room_id"] == code[:6]
    assert "code" not in receiver.event("room")
    for field in ("manifest_id", "digest"):
        name = "done" if field == "digest" else "manifest"
        assert sender.event(name)[field] == receiver.event(name)[field]
    assert [event["saved_as"] for event in receiver.named("file")] == [
        str(tmp_path / "in" / "tree" / name) for name in ("one", "two")
    ]


# Where options come from.


def test_options_come_from_the_environment(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    everywhere = {"FLYX_SERVER": flyx.server, "FLYX_JSON": "1"}
    sender = flyx.start("send", source, **everywhere)
    code = sender.event("room")["code"]
    receiver = flyx.start("receive", code, **everywhere, FLYX_YES="1", FLYX_OUTPUT="in").ends(0)
    sender.ends(0)
    assert receiver.event("file")["saved_as"] == "in/file"
    assert sha256(tmp_path / "in" / "file") == sha256(source)


def test_options_come_from_the_configuration_file_and_give_way(flyx: Flyx, tmp_path: Path) -> None:
    source = write_random(tmp_path / "file", 1000)
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        [send]
        server = "{flyx.server}"
        receivers = 2
        json = true

        [receive]
        server = "{flyx.server}"
        yes = true
        output = "from-config"
        """
    )
    sender = flyx.start("send", source, FLYX_CONFIG=str(config))
    code = sender.event("room")["code"]
    flyx.start("receive", code, FLYX_CONFIG=str(config)).ends(0)
    assert sha256(tmp_path / "from-config" / "file") == sha256(source)
    flyx.start("receive", code, "-o", "in", FLYX_CONFIG=str(config), FLYX_OUTPUT="from-env").ends(0)
    assert sha256(tmp_path / "in" / "file") == sha256(source)
    assert not (tmp_path / "from-env").exists()
    sender.ends(0)


# The demonstration.


def test_the_demo_moves_random_data_and_tells_the_speed(flyx: Flyx) -> None:
    demo = flyx.start("demo", "--size", "5MB").ends(0)
    assert re.fullmatch(r"5000000 bytes in [0-9.]+ s, [0-9.]+ MB/s, identical\n", demo.out), demo
    digests = re.findall(r"\b[0-9a-f]{64}\b", demo.err)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert "\x1b" not in demo.err


def test_the_demo_moves_a_directory_and_leaves_it_alone(flyx: Flyx, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    before = snapshot(tree)
    demo = flyx.start("demo", "tree").ends(0)
    assert demo.out.endswith("MB/s, identical\n"), demo
    assert snapshot(tree) == before
    assert names_in(tmp_path) == ["tree"]


def test_the_demo_tells_what_a_transfer_leaves_out(flyx: Flyx, tmp_path: Path) -> None:
    write_random(tmp_path / "tree" / "file", 1000)
    os.mkfifo(tmp_path / "tree" / "fifo")
    assert flyx.start("demo", "tree").ends(0).out.endswith("MB/s, identical\n")
    write_random(tmp_path / "tree" / "red\x1b[31m", 1000)
    flyx.start("demo", "tree").complains(
        1, "Something went wrong: 1 of 2 files could not be delivered", "the other files are complete"
    )
