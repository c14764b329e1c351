"""Filesystems that do not keep owners, modes or inode numbers: FAT, shared folders, squashed root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyx.errors import DestinationExists
from flyx.storage.writer import Destination
from flyx.transfer.digests import DIGEST_SIZE
from flyx.transfer.disk import BlocksKept, EntriesPlanned, FinishTree, Kept
from flyx.transfer.manifest import BLOCK_SIZE
from tests.storage.forgetful_filesystem import ForgetfulFilesystem
from tests.storage.support import Offer, failure, names_in, succeed

OTHER = 64002
OFFER = Offer({"d": None, "d/small": b"small", "d/big": os.urandom(3 * BLOCK_SIZE)})


def receive(out: Path, blocks: int) -> tuple[list[str], int]:
    """Receive up to so many blocks of the large file, and stop; return the names kept and the blocks held."""
    with Destination(out) as destination:
        planned = succeed(destination, OFFER.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        kept = [OFFER.entries[one.file].path for one in planned.found if isinstance(one, Kept)]
        held = sum(len(one.digests) // DIGEST_SIZE for one in planned.found if isinstance(one, BlocksKept))
        if not kept:
            succeed(destination, [*OFFER.writes("d/small"), OFFER.finish("d/small")])
        if rest := OFFER.writes("d/big")[held:blocks]:
            succeed(destination, rest)
        if blocks == 3:
            succeed(destination, [OFFER.finish("d/big"), FinishTree()])
    return kept, held


FILESYSTEMS = {
    "FAT, umask=000": (1234, 0o777),
    "FAT, CIFS": (1234, 0o755),
    "FAT, uid of the user, umask=000": (None, 0o777),
    "vboxsf": (0, 0o770),
    "root_squash": (65534, None),
    "FAT, uid of the user, umask=077": (None, 0o700),
    "ext4": (None, None),
}


@pytest.mark.parametrize("keeps_inodes", [True, False], ids=["inodes kept", "inodes new"])
@pytest.mark.parametrize(("owner", "mode"), FILESYSTEMS.values(), ids=FILESYSTEMS)
def test_a_transfer_goes_on_whatever_the_filesystem_keeps_of_owners_and_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int | None, mode: int | None, keeps_inodes: bool
) -> None:
    filesystem = ForgetfulFilesystem(monkeypatch, owner, mode, keeps_inodes=keeps_inodes)
    assert receive(tmp_path, 1) == ([], 0)
    for blocks in (2, 3):
        filesystem.remount()
        assert receive(tmp_path, blocks) == (["d/small"], blocks - 1)
        # None is left beside it.
        assert len(list(tmp_path.glob(".flyx*/*"))) == (blocks < 3)
    assert names_in(tmp_path) == {"d", "d/small", "d/big"}
    assert (tmp_path / "d" / "big").read_bytes() == OFFER.contents["d/big"]


@pytest.mark.parametrize("unit", [0, 100, 1000, 10_000_000, 1_000_000_000, 2_000_000_000])
def test_a_transfer_goes_on_however_the_filesystem_counts_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: int
) -> None:
    filesystem = ForgetfulFilesystem(monkeypatch, time_unit=unit)
    receive(tmp_path, 1)
    for blocks in (2, 3):
        filesystem.remount()
        assert receive(tmp_path, blocks) == (["d/small"], blocks - 1)
    assert (tmp_path / "d" / "small").read_bytes() == b"small"


def test_what_is_changed_where_no_times_are_kept_is_the_persons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = ForgetfulFilesystem(monkeypatch, time_unit=0)
    receive(tmp_path, 1)
    (tmp_path / "d" / "small").write_bytes(b"SMALL")
    filesystem.remount()
    with Destination(tmp_path) as destination:
        assert isinstance(failure(destination.apply(OFFER.plan())), DestinationExists)
    assert (tmp_path / "d" / "small").read_bytes() == b"SMALL"


@pytest.mark.parametrize("name", ["small", "big"])
def test_a_file_with_a_new_inode_number_is_read_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    filesystem = ForgetfulFilesystem(monkeypatch, keeps_inodes=False)
    receive(tmp_path, 2)
    path = tmp_path / "d" / "small" if name == "small" else next(tmp_path.glob(".flyx/*/*.part"))
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"SMALL")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    # What was changed in the first block, its time put back, goes unseen while the number is the same.
    with Destination(tmp_path) as destination:
        planned = destination.apply(OFFER.plan())[-1]
        assert isinstance(planned, EntriesPlanned)
        assert len(planned.found) == 2
    filesystem.remount()
    with Destination(tmp_path) as destination:
        planned = destination.apply(OFFER.plan())[-1]
        if name == "big":
            assert isinstance(planned, EntriesPlanned)
            assert [type(one) for one in planned.found] == [Kept]
        else:
            # It is the person's.
            assert not isinstance(planned, EntriesPlanned)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
@pytest.mark.parametrize("change", ["owner", "mode"])
def test_where_root_is_another_user_the_owner_and_the_mode_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """NFS with root_squash: what root makes is nobody's, and what others make is theirs."""
    ForgetfulFilesystem(monkeypatch, 65534)
    receive(tmp_path, 1)
    if change == "owner":
        os.chown(tmp_path / ".flyx", OTHER, OTHER)
    else:
        (tmp_path / ".flyx").chmod(0o777)
    (tmp_path / "d" / "small").unlink()
    assert receive(tmp_path, 1) == ([], 0)
    assert sorted(os.listdir(tmp_path)) == [".flyx", f".flyx-{os.geteuid()}", "d"]
