"""The examples of flyx/docs/sending.md, each run as it stands there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.documents import Shell, blocks_of
from e2e.processes import Flyx, names_in, snapshot, write_random
from flyx.errors import EXIT_DONE

PAPER = "flyx/docs/sending.md"

(
    SEND_FILES,
    SEND_TAR,
    RECEIVE_TAR,
    SEND_TEXT,
    SEND_KEY,
    RECEIVE_KEY,
    EXCLUDE,
    ONLY,
    UPDATE,
    COMPARE,
    LIMIT,
) = blocks_of(PAPER, "sh")


@pytest.fixture
def shell(flyx: Flyx) -> Shell:
    """Where the examples run; what arrives goes to `in`, which is there."""
    (flyx.directory / "in").mkdir()
    return Shell(flyx)


def receive(shell: Shell, example: str, code: str) -> str:
    """Run a receiver's example in `in`; return what it prints."""
    done = shell.run(f"cd in && {example.replace('CODE', code)}")
    assert done.returncode == EXIT_DONE, done
    return done.stdout


def photos(flyx: Flyx) -> Path:
    """Make what the examples send."""
    tree = flyx.directory / "photos"
    for name in ("a.jpg", "raw/b.jpg", "c.tmp", "best.tmp", "2023/d.png", "2024/e.png"):
        write_random(tree / name, 1000)
    return tree


def test_files_and_directories_lie_beside_each_other(flyx: Flyx, shell: Shell) -> None:
    write_random(flyx.directory / "holiday.jpg", 1000)
    write_random(flyx.directory / "notes" / "one", 1000)
    with shell.sending(SEND_FILES) as code:
        receive(shell, "flyx receive --yes CODE", code)
    assert names_in(flyx.directory / "in") == ["holiday.jpg", "notes"]


def test_a_directory_goes_through_pipes_as_an_archive(flyx: Flyx, shell: Shell) -> None:
    tree = photos(flyx)
    for path in (tree, *tree.rglob("*")):
        # GNU tar's own format has no parts of a second.
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with shell.sending(SEND_TAR) as code:
        receive(shell, RECEIVE_TAR, code)
    assert snapshot(flyx.directory / "in" / "photos") == snapshot(tree)


def test_a_text_is_shown_and_goes_into_a_file_exactly(flyx: Flyx, shell: Shell) -> None:
    with shell.sending(SEND_TEXT) as code:
        shown = receive(shell, "flyx receive --yes CODE", code)
    assert shown == "https://example.org/a/long/link"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 someone@example.org\n"
    (flyx.directory / "id_ed25519.pub").write_text(key)
    (flyx.directory / "in" / "authorized_keys").write_text("another key\n")
    with shell.sending(SEND_KEY) as code:
        receive(shell, RECEIVE_KEY, code)
    assert (flyx.directory / "in" / "authorized_keys").read_text() == f"another key\n{key}"


def test_parts_of_trees_are_left_out_or_chosen(flyx: Flyx, shell: Shell) -> None:
    photos(flyx)
    with shell.sending(EXCLUDE) as code:
        names = receive(shell, "flyx receive --yes CODE", code).split()
    assert sorted(names) == ["photos/2023/d.png", "photos/2024/e.png", "photos/a.jpg", "photos/best.tmp"]
    with shell.sending("flyx send photos") as code:
        names = receive(shell, f"{ONLY.rstrip()} -o chosen", code).split()
    assert sorted(names) == ["chosen/photos/2024/e.png", "chosen/photos/a.jpg", "chosen/photos/raw/b.jpg"]


def test_a_directory_is_brought_up_to_date(flyx: Flyx, shell: Shell) -> None:
    tree = photos(flyx)
    with shell.sending("flyx send photos") as code:
        receive(shell, "flyx receive --yes CODE", code)
    write_random(tree / "added.jpg", 1000)
    with shell.sending("flyx send photos") as code:
        assert receive(shell, UPDATE, code) == "photos/added.jpg\n"
    for path in tree.rglob("*"):
        os.utime(path)
    write_random(tree / "a.jpg", 1000)
    with shell.sending("flyx send photos") as code:
        assert receive(shell, COMPARE, code) == "photos/a.jpg\n"


def test_a_transfer_is_held_to_a_rate(flyx: Flyx, shell: Shell) -> None:
    tree = photos(flyx)
    with shell.sending(LIMIT) as code:
        receive(shell, "flyx receive --yes CODE", code)
    assert snapshot(flyx.directory / "in" / "photos") == snapshot(tree)
