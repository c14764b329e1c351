"""Listing what is to be sent."""

from __future__ import annotations

import mmap
import os
import socket
from collections import defaultdict
from pathlib import Path

import pytest

from flyx.errors import InputError, LocalProtocolError
from flyx.storage import scan as scanning
from flyx.storage.links import Links
from flyx.storage.reader import SourceReader
from flyx.storage.scan import Scan, scan
from flyx.transfer import messages
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import BlockFailed, BlockRead, BlockRequest
from flyx.transfer.left_out import (
    CHANGED,
    LINK_OUTSIDE,
    LINK_SKIPPED,
    NAME_TOO_LONG,
    NOTHING,
    SPECIAL,
    STATE,
    TOO_LARGE,
    UNREADABLE,
    VANISHED,
    LeftOut,
)
from flyx.transfer.manifest import MAX_MTIME_US, Entry, EntryKind
from flyx.transfer.messages import (
    ManifestPiece,
    entries_of,
    manifest_messages,
    parse_control_untrusted,
    serialize_control,
)
from flyx.transfer.names import MAX_DEPTH, MAX_PATH_BYTES
from tests.storage.support import MTIME_US, block_requests, descriptors_used_up


def paths_of(found: Scan) -> list[str]:
    return [entry.path for entry in found.manifest.entries]


def left_out_of(found: Scan) -> dict[str, str]:
    return dict(found.manifest.left_out.named)


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
    assert found.manifest.left_out == NOTHING
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


def test_files_too_large_in_all_are_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_TOTAL_SIZE", 2)
    assert left_out_of(scan([tree])) == {"tree/b.txt": TOO_LARGE}


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


@pytest.mark.parametrize("missing", ["missing", "missing/", "a.txt/below", "missing/.."])
def test_a_path_that_does_not_exist_is_the_persons_error(tree: Path, missing: str) -> None:
    with pytest.raises(InputError, match="no file or directory") as refused:
        scan([f"{tree}/{missing}"])
    assert refused.value.exit_status == 2


def test_an_empty_path_is_the_persons_error_whatever_else_is_named(tree: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        scan([tree, ""])


def test_all_paths_that_cannot_be_had_are_told_at_once(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    with pytest.raises(InputError) as refused:
        scan([tree / "missing", tree / "fifo", tree / "dangling", tree / "loop"])
    assert str(refused.value).replace(f"{tree}/", "") == (
        "there is no file or directory missing; dangling is a link to nowhere, which is missing; "
        "Cannot read loop: Too many levels of symbolic links; fifo is a FIFO, not a file or directory"
    )
    with pytest.raises(InputError, match=r"; and 90 more$"):
        scan([tree / f"missing {n}" for n in range(100)])


def test_a_path_that_cannot_be_had_is_left_out_if_another_can(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    found = scan([tree / "missing", tree / "a.txt", tree / "fifo"])
    assert paths_of(found) == ["a.txt"]
    assert found.manifest.left_out == LeftOut(
        (("missing", VANISHED), ("fifo", SPECIAL)), failures=1, others=1
    )
    assert [text.replace(f"{tree}/", "") for text in found.left_out_texts()] == [
        "there is no file or directory missing",
        "fifo is a FIFO, not a file or directory",
    ]


def test_a_missing_name_of_any_length_is_told_of_briefly(tree: Path) -> None:
    found = scan([tree / "a.txt", tree / ("x" * 100_000)])
    assert found.manifest.left_out.named == (("x" * 255, NAME_TOO_LONG),)


def test_a_path_that_is_named_twice_is_sent_once(tree: Path) -> None:
    assert paths_of(scan([tree / "empty", f"{tree}/empty/", tree / "sub" / ".." / "empty"])) == ["empty"]


def test_two_roots_of_one_name_are_refused_with_a_hint(tree: Path) -> None:
    (tree / "sub" / "a.txt").touch()
    with pytest.raises(InputError, match=r"both be sent as a\.txt") as refused:
        scan([tree / "a.txt", tree / "sub" / "a.txt"])
    assert refused.value.hint is not None


NAMES = [
    b"caf\xe9",
    b"a\nb",
    b"Icon\r",
    b"con",
    b"aux.c",
    b"trailing.",
    b"trailing ",
    b"C:x",
    b"a:b",
    b"R.E.M.",
    b"back\\slash",
    b"\xe2\x80\xae",
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    b"xt_TCPMSS.c",
    b"xt_tcpmss.c",
]


def test_names_that_some_receiver_cannot_have_are_sent_as_any_others(tree: Path) -> None:
    (tree / "names").mkdir()
    for name in NAMES:
        (tree / "names" / os.fsdecode(name)).write_bytes(name)
    found = scan([tree / "names"])
    assert [os.fsencode(path) for path in paths_of(found)[1:]] == sorted(b"names/" + name for name in NAMES)
    blocks = SourceReader(found).read(block_requests(found.manifest))
    assert [block.data for block in blocks if isinstance(block, BlockRead)] == sorted(NAMES)
    assert found.manifest.left_out == NOTHING


def test_a_root_may_have_a_name_that_some_receiver_cannot_have(tree: Path) -> None:
    (tree / "A.TXT").touch()
    (tree / os.fsdecode(b"\xff.")).touch()
    roots = scan([tree / "a.txt", tree / "A.TXT", tree / os.fsdecode(b"\xff.")]).manifest.roots
    assert roots == ("a.txt", "A.TXT", os.fsdecode(b"\xff."))


def test_names_too_deep_or_long_for_any_receiver_are_left_out_and_the_rest_is_sent(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Deeper than a path can be long, so that it is made from inside.
    monkeypatch.chdir(tree / "empty")
    for _ in range(MAX_DEPTH):
        os.mkdir("d")
        os.chdir("d")
    monkeypatch.chdir(tree / "sub")
    for _ in range(15):
        os.mkdir("\u00e9" * 127)
        os.chdir("\u00e9" * 127)
    found = scan([tree])
    depth = max(path.count("/") + 1 for path in paths_of(found))
    assert depth == MAX_DEPTH
    assert 2 * 1400 < max(len(os.fsencode(path)) for path in paths_of(found)) <= MAX_PATH_BYTES
    assert "tree/sub/deep/zero" in paths_of(found)
    assert set(left_out_of(found).values()) == {NAME_TOO_LONG}
    assert found.manifest.left_out.failures == 2
    # Receivers are told of it by no more than a path can be.
    assert max(len(os.fsencode(path)) for path in left_out_of(found)) == MAX_PATH_BYTES


def test_a_symbolic_link_that_the_person_names_is_followed(tree: Path) -> None:
    (tree.parent / "link").symlink_to("tree/a.txt")
    found = scan([tree.parent / "link"])
    assert paths_of(found) == ["a.txt"]
    assert isinstance(SourceReader(found).read([BlockRequest(0, 0, 2)])[0], BlockRead)


def test_a_named_link_to_nowhere_is_told_as_that(tree: Path) -> None:
    (tree / "dangling").symlink_to("nowhere")
    with pytest.raises(InputError, match="dangling is a link to nowhere, which is missing"):
        scan([tree / "dangling"])


def test_what_is_no_file_inside_a_tree_is_left_out(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tree / "sock"))
    found = scan([tree])
    assert left_out_of(found) == {"tree/fifo": SPECIAL, "tree/sock": SPECIAL}
    assert not {"tree/fifo", "tree/sock"} & set(paths_of(found))
    assert found.manifest.left_out.others == 2


def test_the_state_of_a_transfer_that_runs_is_not_sent(tree: Path) -> None:
    (tree / ".flyx" / "x").mkdir(parents=True)
    found = scan([tree])
    assert "tree/.flyx" not in paths_of(found)
    assert left_out_of(found) == {"tree/.flyx": STATE}
    with pytest.raises(InputError, match="its own files"):
        scan([tree / ".flyx"])


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_is_no_file_cannot_be_named(tree: Path, kind: str) -> None:
    path = tree / "fifo" if kind == "FIFO" else Path("/dev/null")
    if kind == "FIFO":
        os.mkfifo(path)
    with pytest.raises(InputError, match=f"is a {kind}"):
        scan([path])


def test_what_vanishes_while_it_is_listed_is_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def remove_and_look(path: str) -> os.stat_result:
        if path.endswith("b.txt"):
            os.unlink(path)
        if path.endswith("empty"):
            status = lstat(path)
            os.rmdir(path)
            return status
        return lstat(path)

    # What another program does meanwhile.
    monkeypatch.setattr(os, "lstat", remove_and_look)
    found = scan([tree])
    assert left_out_of(found) == {"tree/b.txt": VANISHED, "tree/empty": VANISHED}
    assert paths_of(found) == ["tree", "tree/a.txt", "tree/sub", "tree/sub/deep", "tree/sub/deep/zero"]


def test_what_cannot_be_listed_for_want_of_descriptors_is_left_out(tree: Path) -> None:
    with descriptors_used_up():
        assert left_out_of(scan([tree / "a.txt", tree])) == {"tree": UNREADABLE}
        with pytest.raises(InputError, match=r"tree cannot be sent: it could not be read"):
            scan([tree])


def test_of_all_that_is_left_out_failures_are_named_first_and_no_more_than_can_be_told(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "MAX_TOLD", 3)
    for name in "abcd":
        os.mkfifo(tree / name)
    named = tuple((f"tree/{name}", SPECIAL) for name in "ab")
    found = scan([tree, tree / "missing"])
    assert found.manifest.left_out == LeftOut((("missing", VANISHED), *named), failures=1, others=4)


# Symbolic links inside directories.


@pytest.fixture
def linked(tree: Path) -> Path:
    """The tree with links of every kind."""
    (tree / "above").symlink_to("../tree/a.txt")
    (tree / "absolute").symlink_to(tree / "a.txt")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    (tree / "outside").symlink_to("../elsewhere")
    (tree / "sub" / "up").symlink_to("..")
    (tree / "to-directory").symlink_to("sub/deep/")
    os.utime(tree / "to-directory", (5, -7), follow_symlinks=False)
    (tree.parent / "elsewhere").write_bytes(b"elsewhere")
    return tree


def test_links_that_stay_inside_are_kept_byte_for_byte_and_others_left_out(linked: Path) -> None:
    (linked / "latin").symlink_to(os.fsdecode(b"\xe9\n"))
    found = scan([linked])
    kept = {entry.path: entry for entry in found.manifest.entries if entry.kind is EntryKind.SYMBOLIC_LINK}
    assert {path: entry.target for path, entry in kept.items()} == {
        "tree/above": "../tree/a.txt",
        "tree/dangling": "nowhere",
        "tree/latin": os.fsdecode(b"\xe9\n"),
        "tree/loop": "loop",
        "tree/sub/up": "..",
        "tree/to-directory": "sub/deep/",
    }
    assert kept["tree/to-directory"] == Entry(
        "tree/to-directory", EntryKind.SYMBOLIC_LINK, 0, 0, -7_000_000, target="sub/deep/"
    )
    assert left_out_of(found) == {"tree/absolute": LINK_OUTSIDE, "tree/outside": LINK_OUTSIDE}
    assert found.manifest.left_out.failures == 0


def test_a_link_to_another_root_is_kept(linked: Path) -> None:
    found = scan([linked, linked.parent / "elsewhere"])
    assert "tree/outside" in paths_of(found)
    # Whichever is named first.
    assert "tree/outside" in paths_of(scan([linked.parent / "elsewhere", linked]))


def test_links_may_all_be_left_out(linked: Path) -> None:
    found = scan([linked], Links.SKIP)
    assert {entry.kind for entry in found.manifest.entries} == {EntryKind.FILE, EntryKind.DIRECTORY}
    assert set(left_out_of(found).values()) == {LINK_SKIPPED}
    assert found.manifest.left_out.others == 7


def test_what_links_lead_to_may_be_sent_in_their_place(linked: Path) -> None:
    (linked / "deep-loop").symlink_to(linked)
    os.mkfifo(linked.parent / "fifo")
    (linked / "to-fifo").symlink_to("../fifo")
    found = scan([linked], Links.FOLLOW)
    assert {entry.kind for entry in found.manifest.entries} == {EntryKind.FILE, EntryKind.DIRECTORY}
    assert {"tree/above", "tree/absolute", "tree/outside", "tree/to-directory/zero"} < set(paths_of(found))
    assert left_out_of(found) == {
        "tree/dangling": VANISHED,
        "tree/deep-loop": LINK_SKIPPED,
        "tree/loop": VANISHED,
        "tree/sub/up": LINK_SKIPPED,
        "tree/to-fifo": SPECIAL,
    }
    contents = {
        found.manifest.entries[block.request.file].path: block.data
        for block in SourceReader(found).read(block_requests(found.manifest))
        if isinstance(block, BlockRead)
    }
    assert contents["tree/outside"] == b"elsewhere"
    assert contents["tree/absolute"] == contents["tree/above"] == b"aa"


# Files that say they are empty.


def contents_of(found: Scan) -> dict[str, bytes]:
    contents: defaultdict[str, bytes] = defaultdict(bytes)
    for block in SourceReader(found).read(block_requests(found.manifest)):
        assert isinstance(block, BlockRead)
        assert block.digest == Algorithm.SHA256.digest(block.data)
        contents[found.manifest.entries[block.request.file].path] += block.data
    return contents


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc of Linux")
def test_a_file_that_says_it_is_empty_is_read_to_its_end(tree: Path) -> None:
    assert os.stat("/proc/version").st_size == 0
    (tree / "version").symlink_to("/proc/version")
    found = scan(["/proc/version", tree], Links.FOLLOW)
    text = Path("/proc/version").read_bytes()
    assert found.manifest.entries[0].size == len(text) > 0
    assert contents_of(found)["version"] == contents_of(found)["tree/version"] == text
    assert contents_of(found)["tree/sub/deep/zero"] == b""


@pytest.mark.skipif(not os.path.isdir("/sys/class/net/lo"), reason="needs /sys of Linux")
def test_a_file_that_says_it_has_a_page_is_read_to_its_end(tree: Path) -> None:
    address = Path("/sys/class/net/lo/address")
    assert os.stat(address).st_size == mmap.PAGESIZE
    found = scan([address])
    assert found.manifest.entries[0].size == len(address.read_bytes())
    assert contents_of(found) == {"address": address.read_bytes()}


def test_a_hole_of_a_page_stays_one(tmp_path: Path) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", mmap.PAGESIZE)
    found = scan([tmp_path / "sparse"])
    (block,) = SourceReader(found).read(block_requests(found.manifest))
    assert found.manifest.hole_bytes == mmap.PAGESIZE
    assert isinstance(block, BlockRead)
    assert block.hole


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc of Linux")
def test_files_that_say_they_are_empty_have_a_limit_in_all(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(Path("/proc/version").read_bytes())
    monkeypatch.setattr(scanning, "MAX_CONTENT", size + 1)
    for n in range(3):
        (tree / f"version {n}").symlink_to("/proc/version")
    found = scan([tree], Links.FOLLOW)
    assert left_out_of(found) == {"tree/version 1": TOO_LARGE, "tree/version 2": TOO_LARGE}
    assert len(contents_of(found)["tree/version 0"]) == size
    assert "tree/sub/deep/zero" in paths_of(found)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc of Linux")
def test_a_file_that_cannot_be_read_though_it_can_be_opened_is_left_out(tree: Path) -> None:
    # There is no memory at the address 0.
    found = scan([tree / "a.txt", "/proc/self/mem"])
    assert left_out_of(found) == {"mem": UNREADABLE}
    assert list(found.left_out_texts()) == ["/proc/self/mem cannot be sent: it could not be read"]


def test_a_fifo_in_the_place_of_an_empty_file_holds_nothing_up(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def replace(path: str) -> os.stat_result:
        status = lstat(path)
        if path.endswith("zero"):
            os.unlink(path)
            os.mkfifo(path)
        return status

    # What another program does meanwhile.
    monkeypatch.setattr(os, "lstat", replace)
    assert left_out_of(scan([tree])) == {"tree/sub/deep/zero": CHANGED}


# Hard links.


def test_another_name_of_a_file_that_is_sent_is_a_hard_link_to_it(tree: Path) -> None:
    os.link(tree / "a.txt", tree / "sub" / "again")
    os.link(tree / "a.txt", tree / "sub" / "deep" / "and again")
    os.link(tree / "b.txt", tree.parent / "not sent")
    os.utime(tree / "a.txt", (0, 5))
    found = scan([tree])
    first = paths_of(found).index("tree/a.txt")
    linked = [entry for entry in found.manifest.entries if entry.kind is EntryKind.HARD_LINK]
    assert linked == [
        Entry("tree/sub/again", EntryKind.HARD_LINK, 0, 0, 5_000_000, same_as=first),
        Entry("tree/sub/deep/and again", EntryKind.HARD_LINK, 0, 0, 5_000_000, same_as=first),
    ]
    assert found.manifest.total_bytes == 3
    request = BlockRequest(paths_of(found).index("tree/sub/again"), 0, 0)
    with pytest.raises(LocalProtocolError):
        SourceReader(found).read([request])


def test_a_hard_link_into_another_root_is_one(tree: Path) -> None:
    os.link(tree / "a.txt", tree.parent / "name")
    found = scan([tree.parent / "name", tree])
    kinds = {entry.path: entry.kind for entry in found.manifest.entries}
    assert (kinds["name"], kinds["tree/a.txt"]) == (EntryKind.FILE, EntryKind.HARD_LINK)


def test_two_files_that_a_filesystem_gives_one_inode_are_two(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def confuse(path: str) -> os.stat_result:
        status = lstat(path)
        more = {"st_blocks": status.st_blocks, "st_mtime_ns": status.st_mtime_ns}
        return os.stat_result((status.st_mode, 7, status.st_dev, 2, *status[4:]), more)

    # As some network filesystems do.
    monkeypatch.setattr(os, "lstat", confuse)
    kinds = {entry.kind for entry in scan([tree / "a.txt", tree / "b.txt"]).manifest.entries}
    assert kinds == {EntryKind.FILE}


def test_what_a_link_leads_to_twice_is_sent_twice(tree: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    found = scan([tree], Links.FOLLOW)
    assert EntryKind.HARD_LINK not in {entry.kind for entry in found.manifest.entries}
    assert found.manifest.total_bytes == 5


def test_too_many_entries_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_ENTRIES", 3)
    with pytest.raises(InputError, match="more than 3"):
        scan([tree])


def test_names_too_long_in_all_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_PATHS_SIZE", 20)
    with pytest.raises(InputError, match="too long in all"):
        scan([tree])


def test_a_file_too_large_for_a_browser_to_count_is_left_out(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "MAX_FILE_SIZE", 1)
    assert left_out_of(scan([tree])) == {"tree/a.txt": TOO_LARGE}
