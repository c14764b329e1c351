"""The journal: what it says survives, what it half says is not believed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from flyx.storage import journal
from flyx.storage.durability import Durability
from flyx.storage.journal import Contents, Heading, Identity, Journal, Record, Saved, parse, serialize
from flyx.storage.tree import Tree
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.manifest import BLOCK_SIZE

HEADING = Heading.of("ab" * 32, ["photos", "notes"], 1_700_000_000)
DIGESTS = bytes(range(DIGEST_SIZE * 3))
RECORDS: list[Record] = [
    HEADING.record(),
    ["name", "photos", "photos (1)"],
    ["made", ["photos (1)", "sub"]],
    ["file", 0, "photos/a", 5 * BLOCK_SIZE, 7, 11],
    ["blocks", 0, 0, DIGESTS.hex()],
    ["file", 1, "photos/日本\n", 10, 7, 12],
    ["drop", 1],
    ["blocks", 0, 3, DIGESTS[:DIGEST_SIZE].hex()],
    Saved(Identity("notes", 3, 9), ("notes",), 13, 9000, DIGESTS[:DIGEST_SIZE]).record(),
]
LINES = [serialize(record) for record in RECORDS]


def told(data: bytes) -> list[Record]:
    contents = parse(data)
    return [] if contents is None else list(contents.records())


def known(records: list[Record]) -> list[Record]:
    return told(b"".join(serialize(record) for record in records))


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path, Durability())
    tree.open()
    yield tree
    tree.close()


@pytest.fixture
def directory(tree: Tree) -> int:
    return tree.base


def test_what_was_written_is_read_back(directory: int, tree: Tree) -> None:
    writer = Journal(directory, RECORDS[:3], Durability())
    writer.append(RECORDS[3:])
    writer.close()
    contents = journal.read(directory, tree)
    assert contents is not None
    assert contents.heading == HEADING == journal.read_heading(directory, tree)
    assert contents.names == {"photos": "photos (1)"}
    assert contents.made == {("photos (1)", "sub")}
    assert contents.begun[0].digests == DIGESTS + DIGESTS[:DIGEST_SIZE]
    assert contents.begun[0].size == 4 * BLOCK_SIZE
    assert contents.saved["notes"].parts == ("notes",)
    # Written anew, it says the same with fewer words.
    assert known(list(contents.records())) == list(contents.records())


def test_a_torn_journal_says_what_its_whole_lines_say() -> None:
    data = b"".join(LINES)
    whole = {sum(map(len, LINES[:count])): known(RECORDS[:count]) for count in range(len(LINES) + 1)}
    expected: list[Record] = []
    for length in range(len(data) + 1):
        expected = whole.get(length, expected)
        assert told(data[:length]) == expected


@given(st.integers(0, sum(map(len, LINES)) - 1), st.integers(1, 255))
def test_a_flipped_byte_ends_the_journal_there(position: int, flip: int) -> None:
    data = bytearray(b"".join(LINES))
    data[position] ^= flip
    intact = 0
    while sum(map(len, LINES[: intact + 1])) <= position:
        intact += 1
    assert told(bytes(data)) == known(RECORDS[:intact])


@given(st.binary(max_size=200))
def test_rubbish_is_no_journal(data: bytes) -> None:
    assert parse(data) is None


@pytest.mark.parametrize(
    "record",
    [
        ["file", 0, "again", 1, 1, 1],
        ["file", 2, "negative", -1, 1, 1],
        ["blocks", 5, 0, DIGESTS.hex()],
        ["blocks", 0, 0, DIGESTS.hex()],
        ["blocks", 0, 4, DIGESTS.hex()],
        ["blocks", 0, 4, "abc"],
        ["blocks", 0, 4, "ab"],
        ["drop", 5],
        ["made", []],
        ["made", [1]],
        ["made", ["d", ".."]],
        ["made", ["d/e"]],
        ["saved", "p", 1, 1, [], 1, 1, "00" * DIGEST_SIZE],
        ["saved", "p", 1, 1, ["..", "p"], 1, 1, "00" * DIGEST_SIZE],
        ["saved", "p", -1, 1, ["p"], 1, 1, "00" * DIGEST_SIZE],
        ["saved", "p", 1, 1, ["p"], 1, 1, "00"],
        ["saved", "p", 1, 1, ["p"], 1, 1, "00" + " " * 2 * (DIGEST_SIZE - 1)],
        ["unknown"],
        [],
    ],
    ids=str,
)
def test_an_impossible_record_ends_the_journal(record: Record) -> None:
    assert known([*RECORDS, record, ["name", "after", "it"]]) == known(RECORDS)


def test_a_journal_by_sha256_is_one_that_an_older_flyx_goes_on_with() -> None:
    assert HEADING.record()[1] == 1
    assert len(HEADING.record()) == 6


def test_a_journal_by_another_algorithm_says_which_and_is_none_to_an_older_flyx() -> None:
    heading = replace(HEADING, algorithm=Algorithm.BLAKE3)
    contents = parse(serialize(heading.record()) + b"".join(LINES[1:]))
    assert contents is not None
    assert contents.heading == heading
    assert list(contents.records())[1:] == known(RECORDS)[1:]
    assert heading.record()[1] == 2


@pytest.mark.parametrize(
    "first",
    [
        b"[]\n",
        serialize(["flyx", 3, "", "", "", 0]),
        serialize(["flyx", 2, "", "", "", 0]),
        serialize(["flyx", 2, "", "", "", 0, "md5"]),
        serialize(["flyx", 2, "", "", "", 0, ["blake3"]]),
        LINES[1],
    ],
)
def test_a_journal_of_another_version_or_without_a_heading_is_none(first: bytes) -> None:
    assert parse(first + b"".join(LINES)) is None


def test_what_a_full_disk_cut_short_is_taken_back(
    directory: int, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Journal(directory, RECORDS[:1], Durability())
    with monkeypatch.context() as full:
        pwrite = os.pwrite

        def half(handle: int, data: bytes, offset: int) -> int:
            if len(data) < 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return pwrite(handle, data[: len(data) // 2], offset)

        full.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="No space"):
            writer.append(RECORDS[1:4])
    writer.append(RECORDS[1:2])
    writer.close()
    contents = journal.read(directory, tree)
    assert contents is not None
    assert list(contents.records()) == RECORDS[:2]


def test_a_journal_that_is_a_link_or_a_fifo_is_not_read(directory: int, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"".join(LINES))
    (tmp_path / "journal").symlink_to("elsewhere")
    assert journal.read(directory, tree) is None
    assert journal.read_heading(directory, tree) is None
    (tmp_path / "journal").unlink()
    os.mkfifo(tmp_path / "journal")
    assert journal.read(directory, tree) is None
    assert journal.read_heading(directory, tree) is None


def test_roots_in_another_order_are_the_same_roots() -> None:
    assert HEADING.roots == Heading.of("cd" * 32, ["notes", "photos"], 0).roots
    assert HEADING.roots != Heading.of("ab" * 32, ["notes"], 0).roots


def test_contents_begin_empty() -> None:
    assert list(Contents(HEADING).records()) == [HEADING.record()]


def test_roots_are_told_apart_whatever_bytes_their_names_have() -> None:
    digests = {
        Heading.of("ab" * 32, roots, 0).roots
        for roots in (["a\nb"], ["a", "b"], ["caf\udce9"], ["caf\u00e9"], ["caf?"])
    }
    assert len(digests) == 5


@given(
    name=st.binary(min_size=1, max_size=20).map(
        lambda name: os.fsdecode(name.translate(None, b"/\0") or b"x")
    )
)
def test_names_of_any_bytes_are_read_back(name: str) -> None:
    name += "x"  # not "." nor ".."
    saved = Saved(Identity(name, 3, 9), (name,), 13, 9000, DIGESTS[:DIGEST_SIZE])
    records = [
        Heading.of("ab" * 32, [name], 0).record(),
        ["name", name, f"{name} (1)"],
        ["made", [name, name]],
        ["file", 0, name, 10, 7, 12],
        saved.record(),
    ]
    assert known(records) == records
