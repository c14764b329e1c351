"""Filesystems that refuse what others do, played: what they refuse is found out, and the rest is done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyx.storage.writer import Destination
from flyx.transfer.disk import BlocksKept, EntriesPlanned, FinishTree, RestartFile
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.support import MTIME_US, Offer, failure, names_in, saved_paths, succeed

TREE: dict[str, bytes | None] = {"d": None, "d/a": b"a", "d/b": os.urandom(BLOCK_SIZE + 1)}


def refuse(
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    when: Callable[..., bool] = lambda *args, **kwargs: True,
) -> list[tuple[Any, ...]]:
    """Have a system call fail; return the list of those that do, as it grows."""
    true_call, refused = getattr(os, call), []

    def refusing(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            refused.append(args)
            raise OSError(code, os.strerror(code))
        return true_call(*args, **kwargs)

    monkeypatch.setattr(os, call, refusing)
    return refused


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_refused_mode_costs_no_time_and_a_refused_time_no_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    offer = Offer(TREE, mode=0o404)
    with monkeypatch.context() as patch:
        refuse(patch, "fchmod", code)
        with Destination(tmp_path / "no modes") as destination:
            succeed(destination, offer.everything())
    times = [path.stat().st_mtime_ns for path in (tmp_path / "no modes").rglob("*")]
    assert times == [MTIME_US * 1000] * 3
    with monkeypatch.context() as patch:
        refuse(patch, "utime", code)
        with Destination(tmp_path / "no times") as destination:
            succeed(destination, offer.everything())
    assert (tmp_path / "no times" / "d" / "a").stat().st_mode & 0o777 == 0o404


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["fchmod", "utime"])
def test_a_disk_that_fails_to_note_a_mode_or_a_time_is_no_filesystem_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    # No file is made with that mode.
    offer = Offer(TREE, mode=0o444)
    with Destination(tmp_path) as destination:
        succeed(destination, offer.plan())
        with monkeypatch.context() as patch:
            refuse(patch, call, code)
            failure(destination.apply([*offer.writes("d/a"), offer.finish("d/a")]))
    assert not (tmp_path / "d" / "a").exists()


def test_a_link_that_is_refused_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer({f"f{number}": b"x" for number in range(200)})
    refused = refuse(monkeypatch, "link", errno.EPERM)
    with Destination(tmp_path) as destination:
        succeed(destination, offer.everything())
    assert len(names_in(tmp_path)) == 200
    assert len(refused) == 1


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_filesystem_that_knows_no_sync_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, "fsync", code)
    offer = Offer(TREE)
    with Destination(tmp_path) as destination:
        succeed(destination, offer.everything())
    assert names_in(tmp_path) == set(TREE)


def test_where_a_file_that_was_closed_cannot_be_gone_on_with_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone without a cache."""
    offer = Offer(TREE)
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/b")[:1]])
    new: set[int] = set()
    true_open = os.open

    def open_file(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        handle = true_open(name, flags, *args, **kwargs)
        new.discard(handle)
        if flags & os.O_CREAT:
            new.add(handle)
        return handle

    monkeypatch.setattr(os, "open", open_file)
    refuse(monkeypatch, "pwrite", errno.ESPIPE, lambda handle, *args: handle not in new)
    with Destination(tmp_path) as destination:
        planned = succeed(destination, offer.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert planned.found == ()
        succeed(destination, [*offer.files(), FinishTree()])
    assert (tmp_path / "d" / "b").read_bytes() == TREE["d/b"]
    assert names_in(tmp_path) == set(TREE)


def test_on_a_full_disk_what_is_there_is_still_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = Offer(TREE)
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("d/b")[:1]])
    with monkeypatch.context() as patch, Destination(tmp_path) as destination:
        refuse(patch, "pwrite", errno.ENOSPC)
        planned = succeed(destination, offer.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert [type(one) for one in planned.found] == [BlocksKept]


def refuse_to_close(patch: pytest.MonkeyPatch, name: str) -> None:
    """Have files with this in their path say only when they are closed that they were not stored."""
    true_close = os.close

    def close(handle: int) -> None:
        refused = name in os.readlink(f"/proc/self/fd/{handle}")
        true_close(handle)
        if refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    patch.setattr(os, "close", close)


def test_a_file_that_is_refused_when_it_is_closed_is_not_said_to_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = Offer(TREE)
    with Destination(tmp_path) as destination:
        succeed(destination, offer.plan())
        with monkeypatch.context() as patch:
            refuse_to_close(patch, "/1.part")
            outcomes = destination.apply(offer.files())
    assert str(failure(outcomes)) == f"Cannot save {tmp_path}/d/b: Input/output error"


@pytest.mark.parametrize("name", [".part", "journal"])
def test_a_file_that_is_refused_when_all_is_closed_costs_no_more_than_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    offer = Offer(TREE)
    destination = Destination(tmp_path)
    succeed(destination, [*offer.plan(), *offer.writes("d/b")[:1]])
    with monkeypatch.context() as patch:
        refuse_to_close(patch, name)
        destination.abandon()
    with Destination(tmp_path) as destination:
        succeed(destination, offer.plan())
        succeed(destination, [RestartFile(2), *offer.files(), FinishTree()])
    assert names_in(tmp_path) == set(TREE)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_files_are_saved_in_smaller_groups_if_fewer_can_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    offer = Offer({f"f{number}": b"x" for number in range(200)})
    already = len(os.listdir("/dev/fd"))
    refused = refuse(monkeypatch, "open", code, lambda *args, **kwargs: open_files() > already + 20)
    with Destination(tmp_path) as destination:
        outcomes = succeed(destination, offer.everything())
    assert len(saved_paths(outcomes)) == len(names_in(tmp_path)) == 200
    assert len(refused) in {1, 2}


def open_files() -> int:
    return len(os.listdir("/dev/fd"))
