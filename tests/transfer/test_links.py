"""Symbolic links of a transfer: which of them lead out of it."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.transfer.manifest import MAX_TARGET_BYTES
from flyx.transfer.names import link_stays_inside

ROOTS = ("tree", "other")

INSIDE = [
    ("tree/link", "file"),
    ("tree/link", "./file"),
    ("tree/link", "sub/deep/file"),
    ("tree/link", "sub/./file"),
    ("tree/link", "sub/"),
    ("tree/link", "."),
    ("tree/link", "./"),
    ("tree/link", "link"),
    ("tree/link", "..."),
    ("tree/link", "..file"),
    ("tree/link", "..\\..\\etc"),
    ("tree/link", "\udce9t\udce9"),
    ("tree/link", "../tree/file"),
    ("tree/link", "../other"),
    ("tree/link", "./../other/x"),
    ("tree/a/b/link", ".."),
    ("tree/a/b/link", "../.."),
    ("tree/a/b/link", "../../"),
    ("tree/a/b/link", "../../../other/file"),
    ("tree", "other"),
    ("tree", "./other/file"),
    ("tree/link", "x" * MAX_TARGET_BYTES),
]

OUTSIDE = [
    ("tree/link", ""),
    ("tree/link", "/"),
    ("tree/link", "/etc/passwd"),
    ("tree/link", "//tree/file"),
    ("tree/link", "a//b"),
    ("tree/link", "a//"),
    ("tree/link", ".."),
    ("tree/link", "../"),
    ("tree/link", "../."),
    ("tree/link", "../.."),
    ("tree/link", "../../tree/file"),
    ("tree/link", "./../../tree"),
    ("tree/link", "../elsewhere"),
    ("tree/link", "../Tree"),
    ("tree/link", "../.flyx/x"),
    ("tree/link", "sub/.."),
    ("tree/link", "sub/../file"),
    ("tree/link", "sub/../../tree/file"),
    ("tree/a/link", ".././../.."),
    ("tree/link", "a\0b"),
    ("tree/link", "a\ud800"),
    ("tree/link", "x" * (MAX_TARGET_BYTES + 1)),
    ("tree/link", "\u00e9" * (MAX_TARGET_BYTES // 2) + "x"),
    ("tree", "elsewhere"),
    ("tree", "."),
    ("tree", "../tree"),
]


@pytest.mark.parametrize(("path", "target"), INSIDE)
def test_a_link_to_something_below_a_root_stays_inside(path: str, target: str) -> None:
    assert link_stays_inside(path, target, ROOTS)


@pytest.mark.parametrize(("path", "target"), OUTSIDE)
def test_a_link_that_may_lead_anywhere_else_does_not(path: str, target: str) -> None:
    assert not link_stays_inside(path, target, ROOTS)


DIRECTORIES = ("tree", "tree/sub", "tree/sub/deep", "other", "other/sub")
NAMES = st.sampled_from(["tree", "other", "elsewhere", "sub", "deep", "l0", "l1", "l2", "l3"])
PLACES = st.sampled_from(["", *(f"{directory}/" for directory in DIRECTORIES)])
TARGETS = st.lists(NAMES | st.sampled_from(["..", ".", ""])).map("/".join)


@given(PLACES, TARGETS)
def test_what_stays_inside_is_below_a_root_as_posix_resolves_it(place: str, target: str) -> None:
    if link_stays_inside(f"{place}link", target, ROOTS):
        assert posixpath.normpath(place + target).split("/")[0] in ROOTS


@given(PLACES, st.integers(0, 5), st.lists(NAMES | st.just(".")))
def test_what_goes_up_at_the_beginning_only_stays_inside_whenever_that_is_below_a_root(
    place: str, ups: int, names: list[str]
) -> None:
    target = "/".join([".."] * ups + names)
    below = posixpath.normpath(place + target).split("/")[0] in ROOTS
    assert link_stays_inside(f"{place}link", target, ROOTS) == (below and target != "")


@given(st.lists(st.tuples(PLACES, TARGETS), min_size=1, max_size=4))
@example([("tree/", "sub/deep"), ("tree/sub/deep/", "../../l0/l0"), ("other/", "../tree/l0/l1")])
@example([("tree/sub/deep/", "../.."), ("tree/", "sub/deep/l0/../..")])
def test_no_way_through_links_that_stay_inside_leads_out(links: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as name:
        base = Path(name).resolve() / "base"
        for directory in DIRECTORIES:
            (base / directory).mkdir(parents=True)
        made = []
        for n, (place, target) in enumerate(links):
            if link_stays_inside(f"{place}l{n}", target, ROOTS):
                (base / place / f"l{n}").symlink_to(target)
                made.append(base / place / f"l{n}")
        for link in made:
            try:
                way = os.path.realpath(link, strict=True)
            except OSError:
                # It leads to nowhere, or in a circle.
                continue
            assert any(way == f"{base}/{root}" or way.startswith(f"{base}/{root}/") for root in ROOTS), way
