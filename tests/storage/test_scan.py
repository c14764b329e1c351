"""Listing what is to be sent."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from flyx.errors import InputError, StorageError, UnsafeName
from flyx.storage import scan as scanning
from flyx.storage.reader import SourceReader
from flyx.storage.scan import Scan, scan
from flyx.transfer import messages
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.manifest import MAX_MTIME_US, EntryKind
from flyx.transfer.messages import (
    ManifestPiece,
    entries_of,
    manifest_messages,
    parse_control_untrusted,
    serialize_control,
)
from tests.storage.support import MTIME_US, block_requests, descriptors_used_up


def paths_of(found: Scan) -> list[str]:
    return [entry.path for entry in found.manifest.entries]


def test_a_tree_is_listed_in_order_with_its_empty_directories(tree: Path) -> None:
    found = scan([tree])
    assert paths_of(found) == [
        "tree",
        "tree/a.txt",
        "tree/b.txt",
        "tree/empty",
        "tree/sub",
        "tree/sub/deep",
        "tree/sub/deep/zero",
    ]
    assert [entry.kind for entry in found.manifest.entries].count(EntryKind.DIRECTORY) == 4
    assert found.manifest.total_bytes == 3
    assert found.skipped == ()
    assert [found.sources.path(entry) for entry in found.manifest.entries] == [
        str(tree.parent / entry.path) for entry in found.manifest.entries
    ]


def test_two_scans_of_one_tree_are_equal(tree: Path) -> None:
    assert scan([tree]).manifest.id == scan([tree]).manifest.id


def test_files_and_directories_mix_in_the_order_given(tree: Path) -> None:
    assert paths_of(scan([tree / "b.txt", tree / "empty", tree / "a.txt"])) == ["b.txt", "empty", "a.txt"]


def test_modes_are_masked_and_times_are_in_microseconds(tree: Path) -> None:
    path = tree / "a.txt"
    path.chmod(0o6751)
    os.utime(path, ns=(0, MTIME_US * 1000 + 789))
    entry = scan([path]).manifest.entries[0]
    assert (entry.mode, entry.mtime_us) == (0o751, MTIME_US)


@pytest.mark.parametrize(
    "time_ns",
    [-1, -(10**18), -(1 << 62), 10**19, 2**63, 15 * 10**18, 10**25],
    ids=["1969", "1938", "1823", "2286", "2262", "2445", "far away"],
)
def test_a_file_of_any_time_is_offered_and_read(tree: Path, time_ns: int) -> None:
    path = tree / "a.txt"
    try:
        os.utime(path, ns=(0, time_ns))
    except OverflowError:
        pytest.skip("the system has no such time")
    found = scan([tree])
    told = [messages.serialize_control(message) for message in messages.manifest_messages(found.manifest)]
    assert all(map(messages.parse_control_untrusted, told))
    time_us = found.manifest.entries[1].mtime_us
    # The filesystem may have moved it already.
    assert time_us == max(-(1 << 53), min(path.stat().st_mtime_ns // 1000, 1 << 53))
    reader = SourceReader(found)
    assert all(isinstance(one, BlockRead) for one in reader.read(block_requests(found.manifest)))
    # Towards our time: the first and last of a filesystem are where they are.
    nearer = 1_000_000_000 if time_ns < 0 else -1_000_000_000
    os.utime(path, ns=(0, path.stat().st_mtime_ns + nearer))
    assert reader.read([BlockRequest(1, 0, 2)]) == [BlockFailed(BlockRequest(1, 0, 2), "file_changed")]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a\udfffb"])
def test_a_path_that_no_file_can_have_is_the_persons_error(name: str) -> None:
    with pytest.raises(InputError) as refused:
        scan([name])
    assert str(refused.value).isprintable()


def test_a_path_may_be_bytes(tree: Path) -> None:
    # As os.PathLike allows it, and os.listdir() returns it.
    assert paths_of(scan([os.fsencode(tree / "a.txt")])) == ["a.txt"]  # type: ignore[list-item]


def test_too_many_roots_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_ROOTS", 1)
    with pytest.raises(InputError, match="too many"):
        scan([tree / "a.txt", tree / "b.txt"])
    monkeypatch.undo()
    monkeypatch.setattr(scanning, "MAX_ROOTS_SIZE", 9)
    with pytest.raises(InputError, match="too many"):
        scan([tree / "a.txt", tree / "b.txt"])


def test_files_too_large_in_all_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_TOTAL_SIZE", 2)
    with pytest.raises(InputError, match="too large in all"):
        scan([tree])


@pytest.mark.parametrize(
    ("given", "name"), [(".", "tree"), ("sub/..", "tree"), ("sub/", "sub"), ("./sub/deep/", "deep")]
)
def test_a_root_has_the_name_that_its_path_resolves_to(
    tree: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str
) -> None:
    monkeypatch.chdir(tree)
    assert scan([given]).manifest.roots == (name,)


def test_the_parent_of_the_working_directory_can_be_sent(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "sub")
    assert scan([".."]).manifest.roots == ("tree",)


def test_the_root_directory_has_no_name() -> None:
    with pytest.raises(InputError, match="no name"):
        scan(["/"])


# The largest file systems have times to 2446 (ext4) and 2486 (XFS), and before 1970.
@pytest.mark.parametrize("seconds", [10_413_792_000, 15_000_000_000, -2_000_000_000])
def test_a_time_beyond_the_grammar_is_sent_as_the_nearest_within(tree: Path, seconds: int) -> None:
    os.utime(tree / "a.txt", (seconds, seconds))
    stored = (tree / "a.txt").stat().st_mtime_ns // 1000
    manifest = scan([tree / "a.txt"]).manifest
    assert manifest.entries[0].mtime_us == max(-MAX_MTIME_US, min(stored, MAX_MTIME_US))
    pieces = [parse_control_untrusted(serialize_control(piece)) for piece in manifest_messages(manifest)]
    assert entries_of(next(piece for piece in pieces if isinstance(piece, ManifestPiece))) == [
        *manifest.entries
    ]


def test_nothing_is_nothing_to_send() -> None:
    with pytest.raises(InputError, match="nothing to send"):
        scan([])


@pytest.mark.parametrize("missing", ["missing", "a.txt/below", ""])
def test_a_path_that_does_not_exist_is_the_persons_error(tree: Path, missing: str) -> None:
    with pytest.raises(InputError, match="no file or directory") as refused:
        scan([f"{tree}/{missing}" if missing else ""])
    assert refused.value.exit_status == 2


def test_two_roots_of_one_name_are_refused_with_a_hint(tree: Path) -> None:
    (tree / "sub" / "a.txt").touch()
    with pytest.raises(InputError, match=r"both be sent as a\.txt") as refused:
        scan([tree / "a.txt", tree / "sub" / "a.txt"])
    assert refused.value.hint is not None


def test_two_roots_that_a_filesystem_may_confuse_are_refused(tree: Path) -> None:
    (tree / "A.TXT").touch()
    with pytest.raises(UnsafeName, match="cannot tell"):
        scan([tree / "a.txt", tree / "A.TXT"])


def test_names_that_meet_on_some_filesystem_are_refused_before_anything_is_offered(tree: Path) -> None:
    (tree / "caf\u00e9").touch()
    (tree / "cafe\u0301").touch()
    with pytest.raises(UnsafeName, match="cannot tell"):
        scan([tree])


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"con", b"trailing.", b"C:x", b"back\\slash"])
def test_names_that_a_receiver_would_refuse_are_refused_at_once(tree: Path, name: bytes) -> None:
    (tree / os.fsdecode(name)).touch()
    with pytest.raises(UnsafeName) as refused:
        scan([tree])
    assert str(refused.value).isprintable()


def test_a_symbolic_link_that_the_person_names_is_followed(tree: Path) -> None:
    (tree.parent / "link").symlink_to("tree/a.txt")
    found = scan([tree.parent / "link"])
    assert paths_of(found) == ["a.txt"]
    assert isinstance(SourceReader(found).read([BlockRequest(0, 0, 2)])[0], BlockRead)


def test_what_is_no_file_inside_a_tree_is_skipped_and_reported(tree: Path) -> None:
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "to-directory").symlink_to("sub")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tree / "sock"))
    found = scan([tree])
    assert not {"tree/link", "tree/fifo", "tree/sock"} & set(paths_of(found))
    assert {Path(s.path).name: s.reason for s in found.skipped} == {
        "dangling": "it is a symbolic link",
        "fifo": "it is a FIFO",
        "link": "it is a symbolic link",
        "sock": "it is a socket",
        "to-directory": "it is a symbolic link",
    }


def test_the_state_of_a_transfer_that_runs_is_not_sent(tree: Path) -> None:
    (tree / ".flyx" / "x").mkdir(parents=True)
    found = scan([tree])
    assert "tree/.flyx" not in paths_of(found)
    assert [Path(skipped.path).name for skipped in found.skipped] == [".flyx"]
    with pytest.raises(UnsafeName, match="its own files"):
        scan([tree / ".flyx"])


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_is_no_file_cannot_be_named(tree: Path, kind: str) -> None:
    path = tree / "fifo" if kind == "FIFO" else Path("/dev/null")
    if kind == "FIFO":
        os.mkfifo(path)
    with pytest.raises(InputError, match=f"is a {kind}"):
        scan([path])


def test_a_file_that_may_not_be_read_is_found_before_anything_is_offered(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so the system's answer is played.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("b.txt"))
    with pytest.raises(StorageError, match=r"Cannot read .*b\.txt: permission denied"):
        scan([tree])


def test_a_directory_that_cannot_be_listed_is_named(tree: Path) -> None:
    with descriptors_used_up(), pytest.raises(StorageError, match=r"Cannot read .*tree: Too many open files"):
        scan([tree])


def test_a_loop_of_links_is_a_clear_error(tree: Path) -> None:
    (tree / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match="symbolic links"):
        scan([tree / "loop"])


def test_too_many_entries_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_ENTRIES", 3)
    with pytest.raises(InputError, match="more than 3"):
        scan([tree])


def test_names_too_long_in_all_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_PATHS_SIZE", 20)
    with pytest.raises(InputError, match="too long in all"):
        scan([tree])


def test_a_file_too_large_for_a_browser_to_count_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "MAX_FILE_SIZE", 1)
    with pytest.raises(InputError, match=r"a\.txt is too large"):
        scan([tree])
