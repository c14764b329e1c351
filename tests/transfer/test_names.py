"""Names that a sender may give to files on a receiver's machine, and those that a receiver can have."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.errors import UnsafeName
from flyx.transfer import left_out
from flyx.transfer.names import (
    MAX_DEPTH,
    MAX_PART_BYTES,
    MAX_PATH_BYTES,
    NameJudge,
    NamePolicy,
    check_path,
    fold,
    numbered,
    shortened,
)
from tests.transfer.disk_names import APPLE, DISKS, LINUX, WINDOWS, FakeNames

REFUSED = {
    "empty": "",
    "absolute": "/etc/passwd",
    "only a slash": "/",
    "two slashes": "//server/share",
    "parent": "..",
    "parent first": "../x",
    "parent inside": "a/../../x",
    "parent last": "a/..",
    "this directory": ".",
    "this directory first": "./a",
    "this directory inside": "a/./b",
    "empty part": "a//b",
    "ends with a slash": "a/",
    "NUL": "a\0b",
    "half of a character that is no byte": "a\ud800",
    "too deep": "/".join("a" * (MAX_DEPTH + 1)),
    "path too long": "/".join(["a" * 100] * 40),
}

# Names that people have on Linux, each of which some other system refuses or changes.
ANY_LINUX_HAS = [
    "a",
    "photos/2024/IMG_0001.JPG",
    " leading space",
    "trailing space ",
    "R.E.M.",
    "-rf",
    "`id`",
    "12:30",
    "C:/x",
    '<>"|?*',
    "back\\slash",
    "..a",
    "...",
    "aux.h",
    "CON",
    "COM\u00b9",
    ".flyx.txt",
    ".flyx2",
    ".flyx-",
    ".flyx-notes",
    "flyx",
    "日本語/ファイル.txt",
    "e\u0301te\u0301",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # family: joiners
    "\u2764\ufe0f",  # heart: variation selector
    "a\ufdd0",  # a noncharacter
    os.fsdecode(b"caf\xe9"),
    "é" * (MAX_PART_BYTES // 2),
    "/".join("a" * MAX_DEPTH),
]

BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

# Parts that are dangerous somewhere, mixed with harmless ones, and any text at all.
PARTS = st.one_of(
    st.sampled_from(
        ["a", "A", "b", "é", "e\u0301", "ß", "SS", "\u017f", "K", "\u212a", "..", ".", "", "C:", "x:y"]
    ),
    st.sampled_from(["con", "nul.txt", ".flyx", "a.", "a ", "~", "a\\b", "\u202e", "a\n", "a\udce9"]),
    st.text(max_size=8),
)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
NAMES = st.binary(min_size=1, max_size=300).filter(lambda n: not {0, 47} & set(n)).map(os.fsdecode) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=200
)


@pytest.mark.parametrize("path", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(path: str) -> None:
    with pytest.raises(UnsafeName) as refused:
        check_path(path)
    assert refused.value.fields["name"] == path
    assert refused.value.fields["reason"]


@pytest.mark.parametrize("path", ANY_LINUX_HAS)
def test_accepts_what_linux_can_have(path: str) -> None:
    parts = check_path(path)
    assert parts == tuple(path.split("/"))
    assert [NameJudge(LINUX).fault(part) for part in parts] == [None] * len(parts)


def test_the_message_of_a_refusal_escapes_the_name() -> None:
    with pytest.raises(UnsafeName) as refused:
        check_path("a\x1b[2K\u202eb/..")
    assert str(refused.value).isprintable()


def test_a_path_of_the_greatest_length_is_accepted() -> None:
    path = ("a" * 127 + "/") * (MAX_PATH_BYTES // 128 - 1) + "b" * 128
    assert len(path) == MAX_PATH_BYTES
    assert check_path(path)
    with pytest.raises(UnsafeName, match="longer"):
        check_path(path + "b")


@given(PATHS)
@example("..")
def test_what_is_accepted_stays_below_its_base(path: str) -> None:
    try:
        parts = check_path(path)
    except UnsafeName:
        return
    for joined in (posixpath.join("/base", path), posixpath.join("/base", *parts)):
        assert posixpath.normpath(joined) == "/base/" + path


# What a receiver can have.


@pytest.mark.parametrize("character", [*BIDI_CONTROLS, *"\r\n\x1b\x7f\x9b\u2028\u2029"])
def test_what_steers_a_terminal_is_left_out_unless_it_is_wanted(character: str) -> None:
    # "photo<RLO>gpj.exe" is shown as "photoexe.jpg".
    name = f"photo{character}gpj.exe"
    assert NameJudge(LINUX).fault(name) == left_out.CONTROLS
    assert NameJudge(LINUX, NamePolicy.KEEP).fault(name) is None
    changed = next(NameJudge(LINUX, NamePolicy.SAFE).changed(name, is_directory=False))
    assert changed == "photo_gpj.exe"


@pytest.mark.parametrize("policy", NamePolicy)
@pytest.mark.parametrize(
    "name",
    [
        ".flyx",
        ".Flyx-1000",
        ".flyx-0123456789abcdef",
        ".flyx.",
        "FLYX-1~1",
        "FLYX~1",
        "\uff0e\uff46\uff4c\uff59\uff58",
        ".f\u200clyx",
    ],
)
def test_where_flyx_keeps_its_own_files_nothing_is_received(name: str, policy: NamePolicy) -> None:
    assert NameJudge(LINUX, policy).fault(name) == left_out.STATE


@pytest.mark.parametrize("name", ["aux.c", "a:b", "x.", "x ", "a\\b", "a?"])
def test_what_the_filesystem_does_not_hold_is_left_out(name: str) -> None:
    assert NameJudge(LINUX).fault(name) is None
    assert NameJudge(WINDOWS).fault(name) == left_out.NOT_HERE


def test_which_names_are_one_is_for_the_filesystem_to_say() -> None:
    case, form, both = ("Readme", "README"), ("caf\u00e9", "cafe\u0301"), ("CAF\u00c9", "cafe\u0301")
    pairs = (case, form, both)
    assert [NameJudge(LINUX).are_one(*pair) for pair in pairs] == [False, False, False]
    assert [NameJudge(WINDOWS).are_one(*pair) for pair in pairs] == [True, False, False]
    assert [NameJudge(APPLE).are_one(*pair) for pair in pairs] == [True, True, True]
    assert NameJudge(LINUX).are_one("a", "a")
    assert not NameJudge(APPLE).are_one("m2", "m²")


@given(NAMES, st.sampled_from(DISKS), st.booleans())
def test_a_changed_name_can_be_had_and_hides_nothing(name: str, disk: FakeNames, is_directory: bool) -> None:
    judge = NameJudge(disk, NamePolicy.SAFE)
    changed = list(islice(judge.changed(name, is_directory=is_directory), 120))
    assert [judge.fault(one) for one in changed] == [None] * 120
    assert len({fold(one) for one in changed}) == 120
    assert all(check_path(one) == (one,) for one in changed)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("aux.h", "_aux.h"),
        ("a:b?.txt", "a_b_.txt"),
        ("R.E.M.", "R.E.M_"),
        ("x ", "x_"),
        ("Icon\r", "Icon_"),
        ("caf\udce9.txt", "caf_.txt"),
        (".flyx", "_.flyx"),
        ("...", "___"),
    ],
)
def test_a_changed_name_is_like_the_one_that_was_sent(name: str, safe: str) -> None:
    assert next(NameJudge(WINDOWS, NamePolicy.SAFE).changed(name, is_directory=False)) == safe


@given(st.text(), st.text())
def test_fold_is_stable_and_blind_to_case_and_form(one: str, other: str) -> None:
    assert fold(fold(one)) == fold(one)
    assert fold(unicodedata.normalize("NFC", one)) == fold(unicodedata.normalize("NFD", one)) == fold(one)
    assert (fold(one) == fold(other)) == (fold(one.casefold()) == fold(other.casefold()))


# Numbering.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.jpg", "photo (2).jpg"),
        ("backup.tar.gz", "backup (2).tar.gz"),
        ("README", "README (2)"),
        (".bashrc", ".bashrc (2)"),
        (".config.json", ".config (2).json"),
        ("a.b.c", "a.b (2).c"),
        ("Chapter 1. The beginning", "Chapter 1. The beginning (2)"),
        ("photo (1).jpg", "photo (1) (2).jpg"),
        ("документ.док", "документ (2).док"),
    ],
)
def test_numbered(name: str, expected: str) -> None:
    assert numbered(name, 2) == expected


def test_a_directory_has_no_extension() -> None:
    assert numbered("v1.2", 1, is_directory=True) == "v1.2 (1)"


def test_an_over_long_name_loses_the_end_of_its_stem() -> None:
    assert numbered("a" * 251 + ".jpg", 1) == "a" * 247 + " (1).jpg"
    assert numbered("é" * 127, 10) == "é" * 125 + " (10)"


LONG_NAMES = st.text(st.sampled_from("aé.\u200d 😀"), min_size=40, max_size=260) | NAMES


@given(LONG_NAMES, st.integers(1, 10**6), st.booleans())
def test_the_variants_of_a_name_are_different_and_not_too_long(name: str, n: int, is_directory: bool) -> None:
    variant = numbered(name, n, is_directory=is_directory)
    assert 0 < len(os.fsencode(variant)) <= MAX_PART_BYTES
    assert variant != numbered(name, n + 1, is_directory=is_directory)


@given(LONG_NAMES, st.booleans())
def test_a_shortened_name_is_cut_between_characters(name: str, is_directory: bool) -> None:
    short = shortened(name, is_directory=is_directory)
    assert len(os.fsencode(short)) <= MAX_PART_BYTES
    if len(os.fsencode(name)) <= MAX_PART_BYTES:
        assert short == name
    elif name.isprintable():
        short.encode()
