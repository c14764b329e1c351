"""A receiver that takes a part of what is offered."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from e2e.processes import Flyx
from flyx.errors import EXIT_CTRL_C, EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED


def make_photos(photos: Path) -> None:
    for name in ["2023/a.jpg", "2024/b.jpg", "2024/b.raw", "2024/deep/c.jpg", "notes.txt"]:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(name.encode() * 1000)
    (photos / "empty").mkdir()


def names_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_only_what_is_wanted_arrives_and_the_rest_is_no_failure(flyx: Flyx, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos)
    sender = flyx.send(photos, "-n", "2")
    code = sender.code()
    part = flyx.receive(code, tmp_path / "part", "--only", "photos/2024", "--only", "!*.raw").ends(EXIT_DONE)
    everything = flyx.receive(code, tmp_path / "all").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert names_in(tmp_path / "part") == {"photos/2024/b.jpg", "photos/2024/deep/c.jpg"}
    assert not (tmp_path / "part" / "photos" / "empty").exists()
    size = sum((tmp_path / "part" / name).stat().st_size for name in names_in(tmp_path / "part"))
    manifest = part.event("manifest")
    assert (manifest["files"], manifest["directories"], manifest["bytes"]) == (2, 3, size)
    assert manifest["manifest_id"] == sender.event("manifest")["manifest_id"]
    for process, peer in [(part, 1), (sender, 1)]:
        done = process.event("done", peer=peer)
        assert (done["files"], done["bytes"], done["missing"]) == (2, size, 0)
        assert not [event for event in process.named("file") if "error" in event]
        assert {event["total"] for event in process.named("progress") if event["peer"] == peer} <= {size}
    notices = [event["message"] for event in sender.named("notice")]
    assert notices == ["Receiver 1 did not want 3 of the files and links"]
    assert everything.event("done")["files"] == 5


def test_a_selection_that_matches_nothing_is_told_on_both_sides(flyx: Flyx, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    sender = flyx.send(tmp_path / "photos")
    receiver = flyx.receive(sender.code(), tmp_path / "in", "--only", "*.png").ends(EXIT_REFUSED)
    assert receiver.event("error")["code"] == "nothing_wanted"
    assert "wants nothing" in sender.event("peer", state="failed")["message"]
    assert not (tmp_path / "in").exists()


def test_a_part_that_was_interrupted_or_taken_is_gone_on_with(flyx: Flyx, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos)
    sender = flyx.send(photos, "-n", "0")
    code = sender.code()
    flyx.receive(code, tmp_path / "in", "--only", "*.txt").ends(EXIT_DONE)
    (tmp_path / "in" / "photos" / "notes.txt").write_text("mine")
    # What is there, and not wanted, is not in the way.
    flyx.receive(code, tmp_path / "in", "--only", "2024/").ends(EXIT_DONE)
    assert (tmp_path / "in" / "photos" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "in" / "photos" / "2024" / "b.raw").exists()


def test_the_question_shows_what_is_wanted(flyx: Flyx, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    sender = flyx.send(tmp_path / "photos")
    arguments = ("receive", "--server", flyx.server, "-o", tmp_path / "in", "--only", "*.raw", sender.code())
    receiver = flyx.terminal(*arguments)
    receiver.says("Wanted of what the sender offers: 1 file, 10.0 kB:").says("photos/2024/b.raw")
    receiver.says("? [y/N] ").type("y\r").ends(EXIT_DONE)
    assert "notes.txt" not in receiver.err
    sender.ends(EXIT_DONE)
    assert names_in(tmp_path / "in") == {"photos/2024/b.raw"}


def test_a_directory_that_is_sent_again_with_one_more_photo_sends_that_one(
    flyx: Flyx, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    make_photos(photos)
    first = flyx.send(photos)
    flyx.receive(first.code(), tmp_path / "in").ends(EXIT_DONE)
    first.ends(EXIT_DONE)
    (photos / "2024" / "new.jpg").write_bytes(b"new" * 1000)
    sender = flyx.send(photos, "-n", "2")
    code = sender.code()
    refused = flyx.receive(code, tmp_path / "in").ends(EXIT_REFUSED)
    assert refused.event("error")["code"] == "destination_exists"
    receiver = flyx.receive(code, tmp_path / "in", "--skip-existing").ends(EXIT_DONE)
    again = flyx.receive(code, tmp_path / "in", "--skip-existing").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    saved = [event["path"] for event in receiver.named("file")]
    assert saved == ["photos/2024/new.jpg"]
    for process in (receiver, sender):
        done = process.event("done")
        assert (done["files"], done["bytes"], done["missing"]) == (1, 3000, 0)
    assert [event["message"] for event in receiver.named("notice")] == ["5 files are here already (54.0 kB)"]
    assert "Receiver 2 had 5 of the files and links already" in str(sender.named("notice"))
    assert again.event("done")["files"] == 0
    assert names_in(tmp_path / "in" / "photos") == names_in(photos)


@pytest.mark.parametrize(
    ("answer", "mine", "others"),
    [
        ("s", b"mine", {"photos/2024/b.jpg"}),
        ("overwrite", b"notes.txt" * 1000, {"photos/2024/b.jpg"}),
        ("R", b"mine", {"photos (1)/2024/b.jpg", "photos (1)/notes.txt"}),
    ],
)
def test_on_a_terminal_what_exists_is_asked_about(
    flyx: Flyx, tmp_path: Path, answer: str, mine: bytes, others: set[str]
) -> None:
    make_photos(tmp_path / "photos")
    notes = tmp_path / "in" / "photos" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_bytes(b"mine")
    sender = flyx.send(tmp_path / "photos")
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", tmp_path / "in", sender.code())
    receiver.says("notes.txt already exists").says("[s/o/r/N] ").type(f"{answer}\r")
    receiver.says("? [y/N] ").type("y\r").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    assert notes.read_bytes() == mine
    assert others <= names_in(tmp_path / "in")


def test_what_exists_is_refused_without_an_answer(flyx: Flyx, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_bytes(b"mine")
    sender = flyx.send(tmp_path / "photos" / "notes.txt")
    code = sender.code()
    command = ("receive", "--server", flyx.server, "-o", tmp_path / "in")
    receiver = flyx.terminal(*command, code).says("[s/o/r/N] ").type("\r").ends(EXIT_REFUSED)
    assert "--overwrite" in receiver.err
    # Nothing is asked where the answer is given.
    receiver = flyx.terminal(*command, "--overwrite", code).says("? [y/N] ").type("n\r").ends(EXIT_REFUSED)
    assert "[s/o/r/N]" not in receiver.err
    assert (tmp_path / "in" / "notes.txt").read_bytes() == b"mine"


def test_a_sender_that_leaves_ends_the_question_about_what_exists(flyx: Flyx, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    (tmp_path / "in" / "photos").mkdir(parents=True)
    (tmp_path / "in" / "photos" / "notes.txt").write_bytes(b"mine")
    sender = flyx.send(tmp_path / "photos")
    receiver = flyx.terminal("receive", "--server", flyx.server, "-o", tmp_path / "in", sender.code())
    receiver.says("[s/o/r/N] ")
    sender.send_signal(signal.SIGINT).ends(EXIT_CTRL_C)
    receiver.ends(EXIT_INTERRUPTED)
