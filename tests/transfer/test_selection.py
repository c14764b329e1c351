"""What a receiver wants of an offer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.transfer.left_out import SPECIAL, UNREADABLE, LeftOut
from flyx.transfer.manifest import Entry, EntryKind, Manifest
from flyx.transfer.selection import Selection

TREE = [
    "t/",
    "t/a.jpg",
    "t/a.raw",
    "t/[1].jpg",
    "t/deep/",
    "t/deep/er/",
    "t/deep/er/b.jpg",
    "t/empty/",
    "c.jpg",
]


def entry(path: str) -> Entry:
    if path.endswith("/"):
        return Entry(path.removesuffix("/"), EntryKind.DIRECTORY, 0, 0o755, 1)
    return Entry(path, EntryKind.FILE, len(path), 0o644, 1)


OFFER = Manifest([entry(path) for path in TREE])


def part(*texts: str) -> list[str]:
    entries = Selection(texts).part_of(OFFER).entries
    return [f"{each.path}{'/' if each.kind is EntryKind.DIRECTORY else ''}" for each in entries]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["*.jpg"], ["t/", "t/a.jpg", "t/[1].jpg", "t/deep/", "t/deep/er/", "t/deep/er/b.jpg", "c.jpg"]),
        (["/*.jpg"], ["c.jpg"]),
        (["t/deep"], ["t/", "t/deep/", "t/deep/er/", "t/deep/er/b.jpg"]),
        (["t/deep/"], ["t/", "t/deep/", "t/deep/er/", "t/deep/er/b.jpg"]),
        (["deep/er"], []),
        (["er"], ["t/", "t/deep/", "t/deep/er/", "t/deep/er/b.jpg"]),
        (["empty"], ["t/", "t/empty/"]),
        (["t/[1].jpg"], ["t/", "t/[1].jpg"]),
        (["t/a.jpg", "c.jpg"], ["t/", "t/a.jpg", "c.jpg"]),
        (["t", "!*.raw", "!deep"], ["t/", "t/a.jpg", "t/[1].jpg", "t/empty/"]),
        (["t", "!deep", "er/b.jpg", "b.*"], [p for p in TREE if p != "c.jpg"]),
        (["!*.jpg"], ["t/", "t/a.raw", "t/deep/", "t/deep/er/", "t/empty/"]),
        (["*.png"], []),
    ],
)
def test_a_selection_wants_what_its_patterns_choose(texts: list[str], expected: list[str]) -> None:
    assert part(*texts) == expected


def test_a_part_counts_what_is_in_it_and_bears_the_id_of_all() -> None:
    wanted = Selection(["*.raw", "c.jpg"]).part_of(OFFER)
    assert (wanted.file_count, wanted.entries.directory_count) == (2, 1)
    assert wanted.total_bytes == len("t/a.raw") + len("c.jpg")
    assert wanted.roots == ("t", "c.jpg")
    assert wanted.id == OFFER.id
    assert [*wanted.entries] == [entry("t/"), entry("t/a.raw"), entry("c.jpg")]


def test_links_are_wanted_by_their_own_names() -> None:
    linked = Manifest(
        [
            Entry("a", EntryKind.FILE, 5, 0o644, 1),
            Entry("b", EntryKind.HARD_LINK, 0, 0, 1, same_as=0),
            Entry("c", EntryKind.SYMBOLIC_LINK, 0, 0, 1, target="a"),
        ]
    )
    wanted = Selection(["b", "c"]).part_of(linked)
    assert [*wanted.entries] == [*linked.entries][1:]
    assert (wanted.file_count, wanted.total_bytes) == (0, 0)


def test_what_the_sender_leaves_out_counts_if_it_is_wanted_or_may_be() -> None:
    named = (("t/x.jpg", UNREADABLE), ("t/x.raw", UNREADABLE), ("t/fifo", SPECIAL))
    manifest = Manifest([entry("c.jpg")], left_out=LeftOut(named, failures=5, others=1))
    wanted = Selection(["*.jpg"]).part_of(manifest)
    assert wanted.left_out == LeftOut((("t/x.jpg", UNREADABLE),), failures=4, others=0)


@given(
    st.lists(
        st.sampled_from(["t", "*.jpg", "/t/a*", "deep/", "!er", "!*.raw", "!t", "c.jpg", "*"]), max_size=4
    )
)
def test_a_part_has_each_wanted_entry_and_each_directory_above_one(texts: list[str]) -> None:
    selection = Selection(texts)
    wanted = {
        path for path in TREE if selection.wants(path.removesuffix("/"), is_directory=path.endswith("/"))
    }
    above = {path for path in TREE if path.endswith("/") and any(one.startswith(path) for one in wanted)}
    assert set(part(*texts)) == wanted | above
