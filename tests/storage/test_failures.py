"""What the operating system says, in words for people."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flyx.errors import NoSpace, StorageError
from flyx.storage.failures import free_space, storage_error, write_error
from flyx.storage.writer import Destination
from tests.storage.support import Offer, failure, mounted


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def test_an_error_names_what_was_done_to_what_and_why() -> None:
    error = storage_error(os_error(errno.EACCES), "read", "notes.txt")
    assert str(error) == "Cannot read notes.txt: Permission denied"


def test_an_error_without_a_reason_still_says_something() -> None:
    assert str(storage_error(OSError("odd"), "read", "notes.txt")) == "Cannot read notes.txt: odd"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE, errno.EFBIG])
def test_what_is_not_about_space_is_a_storage_error(tmp_path: Path, code: int) -> None:
    assert isinstance(write_error(os_error(code), "save", "f", tmp_path, 1), StorageError)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_quota_are_about_space(tmp_path: Path, code: int) -> None:
    assert isinstance(write_error(os_error(code), "save", "f", tmp_path, 1), NoSpace)


def test_storage_that_is_full_below_a_filesystem_that_is_not_is_named(tmp_path: Path) -> None:
    below, full = (
        write_error(os_error(errno.ENOSPC), "save", "f", tmp_path, missing) for missing in (0, 1 << 60)
    )
    lies_on = "the storage that its filesystem lies on is full, though the filesystem is not"
    assert str(below) == f"Not enough space in {tmp_path}: {lies_on}."
    assert "needed" in str(full)
    assert full.hint == NoSpace.hint


def test_a_quota_that_is_used_up_is_told_without_sizes_that_nobody_knows(tmp_path: Path) -> None:
    error = write_error(os_error(errno.EDQUOT), "save", "f", tmp_path, 1)
    assert str(error) == f"Not enough space in {tmp_path}: your disk quota is used up."


def test_a_filesystem_without_room_for_more_files_is_named(tmp_path: Path) -> None:
    """Its bytes are not used up, and nothing lies below it."""
    offer = Offer({f"f{number}": b"x" for number in range(30)})
    with mounted(tmp_path / "disk", "size=8m,nr_inodes=12"):
        with Destination(tmp_path / "disk") as destination:
            error = failure(destination.apply(offer.everything()))
        assert isinstance(error, NoSpace)
        there = f"Not enough space in {tmp_path / 'disk'}"
        assert str(error) == f"{there}: its filesystem has no room for more files (inodes)."


def test_a_directory_that_is_gone_has_no_known_space(tmp_path: Path) -> None:
    assert free_space(tmp_path / "gone") is None
    assert (free_space(tmp_path) or 0) > 0
