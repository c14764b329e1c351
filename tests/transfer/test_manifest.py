"""Entries kept in arrays are what a list of Entry objects would be, and have the same id."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import LocalProtocolError
from flyx.transfer.manifest import MAX_FILE_SIZE, MAX_MTIME_US, Entries, Entry, EntryKind, Manifest

PARTS = st.binary(min_size=1, max_size=8).filter(lambda name: not {0, ord("/")} & set(name)).map(os.fsdecode)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
TIMES = st.integers(-MAX_MTIME_US, MAX_MTIME_US)
ENTRIES = st.lists(
    st.builds(
        Entry, PATHS, st.just(EntryKind.FILE), st.integers(0, MAX_FILE_SIZE), st.integers(0, 0o7777), TIMES
    )
    | st.builds(Entry, PATHS, st.just(EntryKind.DIRECTORY), st.just(0), st.integers(0, 0o7777), TIMES)
    | st.builds(Entry, PATHS, st.just(EntryKind.SYMBOLIC_LINK), st.just(0), st.just(0), TIMES, target=PATHS)
    | st.builds(
        Entry, PATHS, st.just(EntryKind.HARD_LINK), st.just(0), st.just(0), TIMES, same_as=st.integers(0, 10)
    ),
    max_size=12,
)
ANY_PLACE = st.none() | st.integers(-14, 14)


@given(ENTRIES)
def test_entries_are_those_that_were_added(entries: list[Entry]) -> None:
    kept = Entries(entries)
    assert list(kept) == entries
    assert len(kept) == len(entries)
    for index in range(-len(entries), len(entries)):
        assert kept[index] == entries[index]
        # Asked for again, it is the same.
        assert kept[index] == entries[index]
    for index, entry in enumerate(entries):
        assert (kept.path(index), kept.kind(index), kept.size(index)) == (entry.path, entry.kind, entry.size)
    for index in (len(entries), -len(entries) - 1):
        with pytest.raises(IndexError):
            kept[index]


@given(ENTRIES)
def test_what_a_manifest_says_of_its_entries_is_true(entries: list[Entry]) -> None:
    manifest = Manifest(entries)
    assert manifest.file_count == sum(entry.kind is EntryKind.FILE for entry in entries)
    assert manifest.total_bytes == sum(entry.size for entry in entries)
    assert manifest.roots == tuple(dict.fromkeys(entry.path.split("/")[0] for entry in entries))
    assert manifest.entries.directory_count == sum(entry.kind is EntryKind.DIRECTORY for entry in entries)
    assert manifest.entries.paths_size == sum(
        len(os.fsencode(entry.path + entry.target)) + (entry.kind is EntryKind.SYMBOLIC_LINK)
        for entry in entries
    )
    digest = hashlib.sha256()
    for entry in entries:
        row = [entry.path, entry.kind.value, entry.size, entry.mode, entry.mtime_us]
        row += [entry.target] if entry.kind is EntryKind.SYMBOLIC_LINK else []
        row += [entry.same_as] if entry.kind is EntryKind.HARD_LINK else []
        digest.update(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    assert manifest.id == digest.hexdigest()


@given(ENTRIES, ANY_PLACE, ANY_PLACE, st.sampled_from([None, 1, 2, -1, -3]), ANY_PLACE, ANY_PLACE)
def test_a_slice_is_that_of_a_list(
    entries: list[Entry],
    start: int | None,
    stop: int | None,
    step: int | None,
    first: int | None,
    last: int | None,
) -> None:
    kept, part = Entries(entries)[start:stop:step], entries[start:stop:step]
    assert list(kept) == part
    assert len(kept) == len(part)
    assert list(kept[first:last]) == part[first:last]


@given(ENTRIES, ENTRIES, ENTRIES)
def test_pieces_of_one_manifest_are_kept_once_and_others_are_copied(
    one: list[Entry], two: list[Entry], three: list[Entry]
) -> None:
    source = Entries(one)
    planned = Entries().followed_by(source[:])
    assert planned is source or not one
    for entry in two:
        source.append(entry)
    # More may have been told than is planned.
    planned = planned.followed_by(source[len(one) :])
    assert list(planned) == one + two
    assert planned is source or not one + two
    planned = planned.followed_by(three)
    assert list(planned) == one + two + three


@given(ENTRIES.filter(bool), st.data())
def test_a_part_is_at_its_place_only_and_only_whole(entries: list[Entry], data: st.DataObject) -> None:
    kept = Entries(entries)
    index = data.draw(st.integers(0, len(entries) - 1))
    parts = entries[index].path.split("/")
    offset = 0
    for part in parts:
        assert kept.has_part(index, offset, part)
        assert not kept.has_part(index, offset, part + "x")
        assert len(part) == 1 or not kept.has_part(index, offset, part[:-1])
        offset += len(os.fsencode(part)) + 1


@pytest.mark.parametrize(
    "entry",
    [
        Entry("a", EntryKind.FILE, -1, 0, 0),
        Entry("a", EntryKind.FILE, MAX_FILE_SIZE + 1, 0, 0),
        Entry("a", EntryKind.FILE, 0, -1, 0),
        Entry("a", EntryKind.FILE, 0, 1 << 15, 0),
        Entry("a\0b", EntryKind.FILE, 0, 0, 0),
        Entry("a\ud800", EntryKind.FILE, 0, 0, 0),
        Entry("a", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="b\0"),
    ],
)
def test_what_cannot_be_kept_is_our_own_mistake_and_changes_nothing(entry: Entry) -> None:
    kept = Entries()
    with pytest.raises(LocalProtocolError):
        kept.append(entry)
    assert list(kept) == []
    assert kept.id == Entries().id
