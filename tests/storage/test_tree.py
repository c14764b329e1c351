"""Walking and naming below one directory handle."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyx.errors import DestinationExists
from flyx.storage.durability import Durability
from flyx.storage.tree import Tree
from flyx.storage.writer import Destination
from flyx.transfer import left_out
from flyx.transfer.disk import FileRefused
from tests.storage.support import Offer, failure, names_in, saved_in, snapshot, succeed


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path / "out", Durability())
    tree.open_or_make()
    yield tree
    tree.close()


def test_a_handle_is_that_of_the_directory(tree: Tree) -> None:
    handle = tree.handle(("a", "b"), lambda depth: 0o755)
    assert os.path.sameopenfile(handle, tree.handle(("a", "b")))
    assert os.stat(tree.directory / "a" / "b").st_ino == os.fstat(handle).st_ino
    assert tree.made == {("a",), ("a", "b")}


def test_what_is_missing_is_made_with_the_mode_for_its_depth(tree: Tree) -> None:
    tree.handle(("a", "b"), {1: 0o711, 2: 0o700}.__getitem__)
    assert (tree.directory / "a").stat().st_mode & 0o777 == 0o711
    assert (tree.directory / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_nothing_is_made_unasked(tree: Tree) -> None:
    with pytest.raises(FileNotFoundError):
        tree.handle(("a", "b"))
    assert tree.status(("a", "b")) is None
    assert names_in(tree.directory) == set()


@pytest.mark.parametrize("link", [("link",), ("d", "link"), ("link", "d")])
def test_no_link_is_followed_wherever_it_is(tree: Tree, tmp_path: Path, link: tuple[str, ...]) -> None:
    (tmp_path / "outside" / "d").mkdir(parents=True)
    (tree.directory / "d").mkdir()
    for place in (tree.directory, tree.directory / "d"):
        (place / "link").symlink_to(tmp_path / "outside")
    before = snapshot(tmp_path)
    for attempt in (lambda: tree.handle((*link, "new"), lambda _: 0o755), lambda: tree.status((*link, "x"))):
        with pytest.raises(DestinationExists):
            attempt()
    assert snapshot(tmp_path) == before


def test_a_link_itself_can_be_looked_at(tree: Tree) -> None:
    (tree.directory / "link").symlink_to("nowhere")
    assert tree.status(("link",)) is not None


def test_after_release_the_walk_begins_anew(tree: Tree, tmp_path: Path) -> None:
    tree.handle(("d",), lambda _: 0o755)
    (tree.directory / "d").rename(tree.directory / "moved")
    (tree.directory / "d").symlink_to(tmp_path)
    tree.release()
    with pytest.raises(DestinationExists):
        tree.handle(("d",))


def test_failed_walks_leave_no_descriptor_open(tree: Tree) -> None:
    (tree.directory / "a" / "b").mkdir(parents=True)
    (tree.directory / "a" / "b" / "file").touch()
    before = sorted(os.listdir("/dev/fd"))
    for parts in (("a", "b", "file", "x"), ("a", "b", "missing")):
        with pytest.raises((DestinationExists, FileNotFoundError)):
            tree.handle(parts)
    assert sorted(os.listdir("/dev/fd")) == before


# Filesystems without hard links, played: the real ones need a kernel module and a disk image.


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def link(*args: object, **kwargs: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", link)


on_filesystems_without_hard_links = pytest.mark.parametrize(
    "no_hard_links",
    [errno.EPERM, errno.EOPNOTSUPP, errno.EACCES, errno.ERANGE, errno.EIO],
    indirect=True,
    # ERANGE is CryFS's, EIO rclone's.
    ids=["EPERM", "EOPNOTSUPP", "EACCES", "ERANGE", "EIO"],
)


@on_filesystems_without_hard_links
@pytest.mark.usefixtures("no_hard_links")
def test_files_arrive_without_hard_links(tmp_path: Path) -> None:
    with Destination(tmp_path) as destination:
        succeed(destination, Offer({"d": None, "d/f": b"content", "e": b""}).everything())
    assert names_in(tmp_path) == {"d", "d/f", "e"}
    assert (tmp_path / "d" / "f").read_bytes() == b"content"


@on_filesystems_without_hard_links
@pytest.mark.usefixtures("no_hard_links")
def test_nothing_is_replaced_without_hard_links(tmp_path: Path) -> None:
    offer = Offer({"f": b"new"})
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("f")])
        (tmp_path / "f").write_bytes(b"mine")
        assert destination.apply([offer.finish("f")]) == [FileRefused(0, left_out.IN_THE_WAY)]
    assert (tmp_path / "f").read_bytes() == b"mine"


@on_filesystems_without_hard_links
@pytest.mark.usefixtures("no_hard_links")
def test_a_name_reserved_in_vain_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", replace)
    with Destination(tmp_path) as destination:
        error = failure(destination.apply(Offer({"f": b"new"}).everything()))
    assert str(error).endswith("Input/output error")
    assert saved_in(tmp_path) == set()
