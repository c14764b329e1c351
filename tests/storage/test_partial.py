"""The state directory: made, shared and removed while other transfers do the same."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyx.storage import partial
from flyx.storage.durability import Durability
from flyx.storage.partial import Partials
from flyx.storage.tree import Tree
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import BlocksKept
from tests.storage.support import file_entry

FILE = file_entry("f", 100)


def write(partials: Partials, file: int, content: bytes) -> None:
    partials.append(file, FILE, partials.gather([content]), Algorithm.SHA256.digest(content))


def begun(tree: Tree) -> Partials:
    partials = Partials(tree, Durability(), threading.Event())
    partials.begin("id", ["f"], [Algorithm.SHA256])
    return partials


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path, Durability())
    tree.open()
    yield tree
    tree.close()


def test_many_files_are_open_one_at_a_time(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first checkpoint opens the journal.
    monkeypatch.setattr(partial, "CHECKPOINT_INTERVAL", math.inf)
    partials = begun(tree)
    write(partials, 0, b"0")
    before = len(os.listdir("/dev/fd"))
    for turn in range(3):
        for file in range(1, 50):
            write(partials, file, b"%d" % turn)
    assert len(os.listdir("/dev/fd")) == before
    assert [partials.written(file) for file in (0, 1, 49, 50)] == [1, 3, 3, 0]
    partials.remove()


def test_a_file_that_is_taken_begins_anew(tree: Tree) -> None:
    partials = begun(tree)
    write(partials, 0, b"content")
    handle = partials.take(0, FILE)
    assert os.fstat(handle).st_size == 7
    os.close(handle)
    partials.forget(0)
    assert partials.written(0) == 0
    partials.remove()


def test_files_whose_names_are_not_utf8_are_gone_on_with(tree: Tree) -> None:
    name = "caf\udce9"
    entry = file_entry(f"{name}/\udcff\n", 100)
    first = Partials(tree, Durability(), threading.Event())
    first.begin("id", [name], [Algorithm.SHA256])
    first.append(0, entry, first.gather([bytes(100)]), Algorithm.SHA256.digest(bytes(100)))
    assert first.keep()
    second = Partials(tree, Durability(), threading.Event())
    assert second.begin("id", [name], [Algorithm.SHA256]) == []
    assert second.find(0, entry) == BlocksKept(0, Algorithm.SHA256.digest(bytes(100)))
    second.remove()


def test_a_name_planted_in_the_state_directory_is_never_opened(tree: Tree) -> None:
    partials = begun(tree)
    write(partials, 0, b"0")
    (own,) = (tree.directory / ".flyx").iterdir()
    (own / "1.part").symlink_to(tree.directory / "target")
    with pytest.raises(FileExistsError):
        write(partials, 1, b"1")
    partials.remove()
    assert not (tree.directory / "target").exists()


def test_transfers_that_begin_and_end_at_once_do_not_trip_over_each_other(tree: Tree) -> None:
    failures: list[BaseException] = []
    begin = threading.Barrier(4)

    def many_transfers() -> None:
        begin.wait()
        try:
            for _ in range(100):
                partials = begun(tree)
                write(partials, 0, b"x")
                partials.remove()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=many_transfers) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tree.directory) == []


def test_a_state_directory_removed_under_our_hands_is_made_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, calls = os.mkdir, 0

    def mkdir_beside_another_transfer_that_ends(name: str, mode: int, *, dir_fd: int) -> None:
        nonlocal calls
        calls += 1
        if name != ".flyx" and calls < 6:
            (tree.directory / ".flyx").rmdir()
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir_beside_another_transfer_that_ends)
    partials = begun(tree)
    write(partials, 0, b"x")
    partials.remove()
    assert os.listdir(tree.directory) == []


def test_a_state_directory_that_never_stays_is_an_error_and_not_a_loop(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "mkdir", lambda name, mode, *, dir_fd: None)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(FileNotFoundError):
        write(begun(tree), 0, b"x")
    assert len(os.listdir("/dev/fd")) == before
