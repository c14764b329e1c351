"""The examples of flyx/docs/scripting.md, each run as it stands there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from blake3 import blake3

from e2e.documents import Shell, blocks_of
from e2e.processes import LONG, Flyx, snapshot, write_random
from flyx.cli.documents import EVENTS_SCHEMA
from flyx.errors import EXIT_CTRL_C, EXIT_DONE, EXIT_SERVER, EXIT_USAGE

PAPER = "flyx/docs/scripting.md"

SEND_BY_SSH, RECEIVE, SHOW_SCHEMA, VERIFY = blocks_of(PAPER, "sh")
RECEIVER, VERIFIER = blocks_of(PAPER, "python")


@pytest.fixture
def shell(flyx: Flyx) -> Shell:
    """Where the examples run."""
    return Shell(flyx)


def wait_for_code(flyx: Flyx, *arguments: str | Path) -> str:
    """Run `flyx send`; return its code, which is in code.txt as well."""
    code = flyx.send(*arguments).code()
    (flyx.directory / "code.txt").write_text(f"{code}\n")
    return code


def test_what_the_sender_prints_is_run_by_another_computer(flyx: Flyx, shell: Shell) -> None:
    photos, backup = flyx.directory / "photos", flyx.directory / "backup"
    write_random(photos / "one.jpg", 1000)
    backup.mkdir()
    shell.add("ssh", '[ "$1" = nas.example.org ] && exec sh -c "$2"')
    done = shell.run(SEND_BY_SSH)
    assert done.returncode == EXIT_DONE, done
    assert done.stdout == "photos/one.jpg\n"
    assert snapshot(backup / "photos") == snapshot(photos)


def test_a_shell_reads_names_line_by_line(flyx: Flyx, shell: Shell) -> None:
    for name in ("plain", " spaces  and \\ ", "caf\udce9"):
        write_random(flyx.directory / "tree" / name, 10)
    wait_for_code(flyx, "tree")
    done = shell.run(RECEIVE)
    assert done.returncode == EXIT_DONE, done
    assert sorted(done.stdout.splitlines()) == [
        "new: inbox/tree/ spaces  and \\ ",
        "new: inbox/tree/caf\udce9",
        "new: inbox/tree/plain",
    ]


@pytest.mark.parametrize(("code", "status", "told"), [("000000", 75, "try again later\n"), ("0", 1, "")])
def test_a_shell_tells_by_the_status_whether_to_try_again(
    flyx: Flyx, shell: Shell, code: str, status: int, told: str
) -> None:
    (flyx.directory / "code.txt").write_text(f"{code}\n")
    done = shell.run(RECEIVE)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(told)


def test_the_schema_that_the_program_prints_is_the_one_beside_the_document(flyx: Flyx, shell: Shell) -> None:
    assert shell.run(SHOW_SCHEMA).returncode == EXIT_DONE
    assert (flyx.directory / "events.schema.json").read_bytes() == EVENTS_SCHEMA.read_bytes()


def test_a_program_receives_and_shows_how_far_it_is(flyx: Flyx, shell: Shell) -> None:
    size = LONG // 4
    code = wait_for_code(flyx, write_random(flyx.directory / "file", size))
    (flyx.directory / "receiver.py").write_text(
        f"{RECEIVER}\nimport sys\nsys.exit(receive(sys.argv[1], 'inbox'))\n"
    )
    done = shell.run(f"python3 receiver.py {code}")
    assert done.returncode == EXIT_DONE, done
    assert "%" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"1 files, {size} bytes")
    failed = shell.run("python3 receiver.py 000000")
    assert failed.returncode == EXIT_SERVER, failed
    assert failed.stdout.startswith("No sender is waiting under the code 000000. check the code")
    assert shell.run("python3 receiver.py 0").returncode == EXIT_USAGE


def test_a_program_verifies_what_is_on_the_disk(flyx: Flyx, shell: Shell) -> None:
    tree = flyx.directory / "tree"
    sizes = {"empty": 0, "block": 1 << 20, "blocks": (5 << 19) + 1, "caf\udce9": 10}
    for name, size in sizes.items():
        write_random(tree / name, size)
    with (tree / "sparse").open("wb") as file:
        file.truncate(3 << 20)
    (flyx.directory / "verify.py").write_text(VERIFIER)
    wait_for_code(flyx, "tree")
    done = shell.run(VERIFY, FLYX_OUTPUT="in")
    assert done.returncode == EXIT_DONE, done
    names = sorted(ascii(f"in/tree/{name}") for name in (*sizes, "sparse"))
    assert sorted(done.stdout.splitlines()) == [f"same {name}" for name in names]

    with (flyx.directory / "in" / "tree" / "blocks").open("r+b") as file:
        file.write(b"changed")
    again = shell.run(VERIFY.splitlines()[-1]).stdout.splitlines()
    assert [line for line in again if not line.startswith("same")] == ["DIFFERS 'in/tree/blocks'"]
    # Of a file of one block it is the hash of a hash.
    events = [json.loads(line) for line in (flyx.directory / "events.json").read_text().splitlines()]
    (block,) = [event for event in events if event.get("path") == "tree/block"]
    once = blake3((tree / "block").read_bytes()).digest()
    assert (block["digest"], block["algorithm"]) == (blake3(once).hexdigest(), "blake3")


def test_a_file_that_was_resumed_has_the_digest_of_all_of_it(flyx: Flyx, shell: Shell) -> None:
    wait_for_code(flyx, write_random(flyx.directory / "file", LONG))
    first = flyx.receive((flyx.directory / "code.txt").read_text().strip(), flyx.directory / "in")
    first.mid_transfer().send_signal(signal.SIGTERM).ends(EXIT_CTRL_C)
    (flyx.directory / "verify.py").write_text(VERIFIER)
    done = shell.run(VERIFY, FLYX_OUTPUT="in")
    assert done.returncode == EXIT_DONE, done
    assert done.stdout == "same 'in/file'\n"
    assert '"event": "resume"' in (flyx.directory / "events.json").read_text()


def test_both_ends_name_every_entry_and_names_on_the_disk_follow_from_them(flyx: Flyx) -> None:
    tree = flyx.directory / "tree"
    write_random(tree / "caf\udce9", 10)
    write_random(tree / "sub" / "two", 20)
    (tree / "link").symlink_to("sub/two")
    os.link(tree / "sub" / "two", tree / "twin")
    sender = flyx.send("tree")
    receiver = flyx.receive(sender.code(), flyx.directory / "in").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    for end in (sender, receiver):
        (piece,) = end.named("entries")
        assert piece["first"] == 0
        told = {os.fsencode(each["path"]): (each["type"], each["size"]) for each in piece["entries"]}
        kinds = sorted(kind for kind, _ in told.values())
        assert kinds == ["directory", "directory", "file", "file", "hard_link", "symbolic_link"]
        assert told[b"tree/caf\xe9"] == ("file", 10)
        assert told[b"tree/link"] == ("symbolic_link", 0)
        counts = end.event("manifest")
        assert (counts["files"], counts["directories"], counts["links"]) == (2, 2, 2)
    saved = {os.fsencode(each["saved_as"]) for each in receiver.named("file")}
    assert all(os.path.exists(path) for path in saved)


def test_of_many_entries_all_are_told_in_pieces(flyx: Flyx) -> None:
    tree = flyx.directory / "tree"
    tree.mkdir()
    for number in range(1200):
        (tree / f"{number:04}").touch()
    sender = flyx.send("tree")
    receiver = flyx.receive(sender.code(), flyx.directory / "in").ends(EXIT_DONE)
    sender.ends(EXIT_DONE)
    for end in (sender, receiver):
        pieces = end.named("entries")
        assert [piece["first"] for piece in pieces] == [0, 500, 1000]
        paths = [entry["path"] for piece in pieces for entry in piece["entries"]]
        assert sorted(paths) == ["tree", *(f"tree/{number:04}" for number in range(1200))]
        assert end.events.index(pieces[-1]) < end.events.index(end.event("done"))
