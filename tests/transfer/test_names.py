"""Names that a sender may and may not give to files on a receiver's machine."""

from __future__ import annotations

import ntpath
import posixpath
import sys
import unicodedata
from collections.abc import Callable
from types import FrameType
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.errors import UnsafeName
from flyx.transfer import names
from flyx.transfer.manifest import Entries, Entry, EntryKind
from flyx.transfer.names import (
    MAX_DEPTH,
    MAX_PART_BYTES,
    MAX_PATH_BYTES,
    STATE_DIRECTORY,
    NameLedger,
    check_path,
    fold,
    numbered,
)

Form = Literal["NFC", "NFD"]

BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

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
    "backslash": "a\\b",
    "backslash parent": "..\\..\\x",
    "UNC": "\\\\server\\share",
    "drive": "C:/x",
    "drive, relative": "c:x",
    "drive below": "a/D:b",
    "NUL": "a\0b",
    "newline": "a\nb",
    "escape sequence": "a\x1b[2Kb",
    "carriage return": "a\rb",
    "delete": "a\x7f",
    "C1 control": "a\x9b2K",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "surrogate": "a\udc80",
    "noncharacter": "a\ufdd0",
    "noncharacter at the end of a plane": "a\U0001ffff",
    "trailing dot": "a.",
    "trailing space": "a ",
    "trailing dot of a directory": "a./b",
    "three dots": "...",
    "device": "CON",
    "device in lower case": "nul",
    "device with extension": "aux.txt",
    "device with two extensions": "prn.tar.gz",
    "device with spaces before the extension": "con  .txt",
    "device below": "a/LPT1/b",
    "device with number": "com9.log",
    "device with zero": "COM0",
    "device with superscript": "COM\u00b9",
    "device with superscript and extension": "lpt\u00b3.txt",
    "console input": "CONIN$",
    "console output": "conout$.txt",
    "state directory": ".flyx",
    "state directory below": "a/.flyx/b",
    "state directory of a user": ".Flyx-1000",
    "short state directory of a user": "a/FLYX-1~1",
    "state directory in capitals": ".FLYX",
    "state directory in full width": "\uff0e\uff46\uff4c\uff59\uff58",
    "state directory with an ignorable character": ".f\u200clyx",
    "state directory by its short name": "FLYX~1",
    "part too long": "a" * (MAX_PART_BYTES + 1),
    "part too long in bytes": "é" * (MAX_PART_BYTES // 2 + 1),
    "too deep": "/".join("a" * (MAX_DEPTH + 1)),
    "path too long": "/".join(["a" * 100] * 40),
}

ACCEPTED = [
    "a",
    "photos/2024/IMG_0001.JPG",
    "with space.txt",
    " leading space",
    "-rf",
    "--help",
    "~",
    "$HOME",
    "`id`",
    "12:30",
    '<>"|?*',
    ".bashrc",
    ".flyx.txt",
    ".flyx2",
    ".flyx-",
    ".flyx-notes",
    "flyx",
    "..a",
    "a..b",
    "console.txt",
    "company/common.c",
    "COM10",
    "lpt",
    "日本語/ファイル.txt",
    "e\u0301te\u0301",  # combining characters
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # family: joiners
    "\u2764\ufe0f",  # heart: variation selector
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England: tag sequence
    "é" * (MAX_PART_BYTES // 2),
    "/".join("a" * MAX_DEPTH),
]

# Parts that are dangerous somewhere, mixed with harmless ones, and any text at all.
PARTS = st.one_of(
    st.sampled_from(
        ["a", "A", "b", "é", "e\u0301", "ß", "SS", "\u017f", "K", "\u212a", "..", ".", "", "C:", "x:y"]
    ),
    st.sampled_from(["con", "nul.txt", ".flyx", "a.", "a ", "~", "a\\b", "\u202e", "\u200d", "a\n"]),
    st.text(max_size=8),
)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("path", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(path: str) -> None:
    with pytest.raises(UnsafeName) as refused:
        check_path(path)
    assert refused.value.fields["name"] == path
    assert refused.value.fields["reason"]


@pytest.mark.parametrize("character", BIDI_CONTROLS)
def test_refuses_bidirectional_controls(character: str) -> None:
    # "photo<RLO>gpj.exe" is shown as "photoexe.jpg".
    with pytest.raises(UnsafeName, match="direction"):
        check_path(f"photo{character}gpj.exe")


@pytest.mark.parametrize("path", ACCEPTED)
def test_accepts(path: str) -> None:
    assert check_path(path) == tuple(path.split("/"))


@pytest.mark.parametrize("character", '<>:"|?*')
def test_only_windows_refuses_what_only_windows_cannot_store(character: str) -> None:
    assert check_path(f"ab{character}c") == (f"ab{character}c",)
    with pytest.raises(UnsafeName, match="Windows"):
        check_path(f"ab{character}c", windows=True)


def test_the_message_of_a_refusal_escapes_the_name() -> None:
    with pytest.raises(UnsafeName) as refused:
        check_path("a\x1b[2K\u202eb")
    assert str(refused.value).isprintable()


def test_a_path_of_the_greatest_length_is_accepted() -> None:
    path = ("a" * 127 + "/") * (MAX_PATH_BYTES // 128 - 1) + "b" * 128
    assert len(path) == MAX_PATH_BYTES
    assert check_path(path)
    with pytest.raises(UnsafeName, match="longer"):
        check_path(path + "b")


@given(PATHS)
@example("C:/Windows")
@example("a/C:b")
@example("..")
def test_what_is_accepted_stays_below_its_base_on_posix(path: str) -> None:
    parts = accepted_parts(path)
    if parts is None:
        return
    for joined in (posixpath.join("/base", path), posixpath.join("/base", *parts)):
        assert posixpath.normpath(joined) == "/base/" + path


@given(PATHS)
@example("C:/Windows")
@example("a/C:b")
@example("..\\x")
def test_what_is_accepted_stays_below_its_base_on_windows(path: str) -> None:
    parts = accepted_parts(path)
    if parts is None:
        return
    for joined in (ntpath.join("D:\\base", path), ntpath.join("D:\\base", *parts)):
        assert ntpath.normpath(joined) == "\\".join(("D:\\base", *parts))
        assert ntpath.dirname(ntpath.normpath(joined)).startswith("D:\\base")


@given(PATHS)
def test_what_is_accepted_has_nothing_that_steers_a_terminal(path: str) -> None:
    if accepted_parts(path) is None:
        return
    assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c in BIDI_CONTROLS for c in path)
    path.encode()


@given(st.text(max_size=300))
def test_any_text_is_judged_without_another_error(path: str) -> None:
    accepted_parts(path)
    accepted_parts(path, windows=True)


@given(PATHS)
def test_windows_refuses_whatever_posix_refuses(path: str) -> None:
    if accepted_parts(path, windows=True) is not None:
        assert accepted_parts(path) is not None


def accepted_parts(path: str, *, windows: bool = False) -> tuple[str, ...] | None:
    try:
        return check_path(path, windows=windows)
    except UnsafeName:
        return None


# The ledger. Entries are written as paths; those that end with "/" are directories.

CLASHES = {
    "a file twice": ["a", "a"],
    "a directory twice": ["a/", "a/"],
    "a file and a directory": ["a", "a/"],
    "a directory and a file": ["a/", "a"],
    "case": ["Readme", "README"],
    "case of a directory": ["Photos/", "photos/"],
    "case of directories that only their files name": ["Photos/a", "photos/b"],
    "case of a directory and one that a file names": ["Photos/a", "photos/"],
    "composed and decomposed": ["caf\u00e9", "cafe\u0301"],
    "case and composition": ["CAF\u00c9", "cafe\u0301"],
    "sharp s": ["stra\u00dfe", "STRASSE"],
    "Kelvin sign": ["k", "\u212a"],
    "final sigma": ["\u03c2", "\u03c3"],
    "a file under a file": ["a", "a/b"],
    "a file under a file, the other way round": ["a/b", "a"],
    "a file deep under a file": ["a/b", "a/b/c/d"],
    "a directory under a file": ["a", "a/b/"],
    "a file under a file of other case": ["A", "a/b"],
}


@pytest.mark.parametrize("paths", CLASHES.values(), ids=CLASHES.keys())
def test_the_ledger_refuses(paths: list[str]) -> None:
    listing = Listing()
    *others, last = paths
    for path in others:
        listing.add(path)
    with pytest.raises(UnsafeName) as refused:
        listing.add(last)
    assert refused.value.fields["name"] == last.rstrip("/")


@pytest.mark.parametrize(
    "paths",
    [
        ["a/", "a/b", "a/c/", "a/c/d"],
        ["a/b", "a/"],  # the directory after what is in it
        ["a/b", "a/c", "d/b"],
        ["a/x", "b/x", "a/y"],
        ["m2", "m²"],
        ["A", "\uff21"],  # plain and full-width
        ["s\u0131n\u0131r", "sinir"],  # two Turkish words
    ],
    ids=" ".join,
)
def test_the_ledger_accepts(paths: list[str]) -> None:
    listing = Listing()
    for path in paths:
        assert listing.add(path) == tuple(path.rstrip("/").split("/"))


def test_the_ledger_judges_each_name() -> None:
    with pytest.raises(UnsafeName, match="drive"):
        NameLedger(Entries()).add("C:x", is_directory=False)
    with pytest.raises(UnsafeName, match="Windows"):
        NameLedger(Entries(), windows=True).add("a?b", is_directory=False)


def test_directories_that_nobody_lists_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_ENTRIES", 11)
    listing = Listing()
    listing.add("/".join("abcdefghijk"))
    with pytest.raises(UnsafeName, match="too many"):
        listing.add("z/y")


def test_a_directory_is_found_by_its_own_entry_alone() -> None:
    listing = Listing()
    for path in ["a/b/c", "a/", "A2/", "d"]:
        listing.add(path)
    assert [listing.ledger.listed(parts) for parts in [("a",), ("A2",)]] == [1, 2]
    for parts in [("a", "b"), ("a", "b", "c"), ("d",), ("e",), ("e", "f"), ()]:
        assert listing.ledger.listed(parts) is None


@given(st.lists(st.tuples(PATHS, st.booleans()), max_size=12))
def test_an_accepted_set_can_be_created_on_any_filesystem(entries: list[tuple[str, bool]]) -> None:
    listing = Listing()
    disks = [FakeDisk(*form) for form in DISKS]
    for path, is_directory in entries:
        try:
            parts = listing.put(path, is_directory)
        except UnsafeName:
            return
        for disk in disks:
            disk.create(parts, is_directory)
    for disk in disks:
        assert disk.spellings_are_kept()


# Names that meet more often than they do not, in few directories.
MEETING_PARTS = st.sampled_from(["a", "A", "b", "é", "e\u0301", "É", "ß", "SS", "ss", "K", "\u212a"])
MEETING = st.lists(MEETING_PARTS, min_size=1, max_size=4).map("/".join)


@given(st.lists(st.tuples(st.one_of(MEETING, PATHS), st.booleans()), max_size=12))
@example([("a/b", False), ("a", True), ("a/b/c", False)])
@example([("a/b/c", False), ("A", True)])
@example([("é/x", False), ("é", True), ("e\u0301", True)])
def test_the_ledger_refuses_what_a_tree_of_names_refuses_and_says_the_same(
    entries: list[tuple[str, bool]],
) -> None:
    listing, twin = Listing(), TreeLedger()
    for path, is_directory in entries:
        judged = [judgement(judge, path, is_directory) for judge in (listing.put, twin.add)]
        assert judged[0] == judged[1]
        if isinstance(judged[0], dict):
            return


def judgement(
    judge: Callable[[str, bool], tuple[str, ...]], path: str, is_directory: bool
) -> tuple[str, ...] | dict[str, object]:
    """The parts of a path, or what its refusal says."""
    try:
        return judge(path, is_directory)
    except UnsafeName as refusal:
        return refusal.fields


# Paths of a manifest of n entries, made to cost as much as they can: what each costs may not grow with n.
COSTLY: dict[str, Callable[[int], list[str]]] = {
    "one directory": lambda n: [f"d/{i}" for i in range(n)],
    "directories in turn": lambda n: [f"{i % 2}/{'x/' * 100}{i}" for i in range(n)],
    "directories of their own": lambda n: [f"{i}/{'x/' * 5}f" for i in range(n)],
    "one below the other": lambda n: [f"{i // 100}/" + "/".join("d" * (i % 100 + 1)) + "/" for i in range(n)],
    "names that differ by an accent": lambda n: ["e\u0301" * (i % 50) + f"{i}" for i in range(n)],
    "directories after what is in them": lambda n: [
        path for i in range(n // 2) for path in (f"{i}/f", f"{i}/")
    ],
}


@pytest.mark.parametrize("paths", COSTLY.values(), ids=COSTLY.keys())
def test_the_work_of_a_ledger_is_linear(paths: Callable[[int], list[str]]) -> None:
    few, many = (lines_run(paths(n)) for n in (100, 400))
    assert many < 4.2 * few


def lines_run(paths: list[str]) -> int:
    """Lines of flyx that it takes to add these paths to a ledger and its manifest."""
    listing, count = Listing(), 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        nonlocal count
        count += event == "line"
        return trace if "flyx/transfer" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for path in paths:
            listing.add(path)
    finally:
        sys.settrace(before)
    return count


# Normal form and letter case as APFS and ext4 with casefold, HFS+, NTFS and a plain POSIX disk compare names.
DISKS: list[tuple[Form | None, Callable[[str], str]]] = [
    ("NFD", str.casefold),
    ("NFC", str.casefold),
    ("NFD", str.lower),
    (None, str.lower),
    (None, str),
]


class FakeDisk:
    """A filesystem that takes names for one if their normal forms are equal but for case."""

    def __init__(self, form: Form | None, case: Callable[[str], str]) -> None:
        self._form = form
        self._case = case
        # By what the disk compares: the spelling created first, and what it is: a set of names or a file.
        self._there: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = {}
        self._created: list[tuple[tuple[str, ...], bool]] = []

    def create(self, parts: tuple[str, ...], is_directory: bool) -> None:
        for depth in range(1, len(parts)):
            _, directory = self._there.setdefault(self._key(parts[:depth]), (parts[:depth], True))
            assert directory, f"{parts} goes through a file"
        key = self._key(parts)
        if key in self._there:
            assert self._there[key][1], f"{parts} is there already"
            assert is_directory, f"{parts} is a directory already"
        self._there[key] = parts, is_directory
        self._created.append((parts, is_directory))

    def spellings_are_kept(self) -> bool:
        return all(self._there[self._key(parts)] == (parts, kind) for parts, kind in self._created)

    def _key(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._comparable(part) for part in parts)

    def _comparable(self, name: str) -> str:
        normal = unicodedata.normalize(self._form, name) if self._form else name
        folded = self._case(normal)
        return unicodedata.normalize(self._form, folded) if self._form else folded


class Listing:
    """A manifest that grows, and its ledger."""

    def __init__(self) -> None:
        self.entries = Entries()
        self.ledger = NameLedger(self.entries)

    def add(self, path: str) -> tuple[str, ...]:
        """Add an entry; the path of a directory ends with "/"."""
        return self.put(path.rstrip("/"), path.endswith("/"))

    def put(self, path: str, is_directory: bool) -> tuple[str, ...]:
        parts = self.ledger.add(path, is_directory)
        self.entries.append(Entry(path, EntryKind.DIRECTORY if is_directory else EntryKind.FILE, 0, 0, 0))
        return parts


class TreeLedger:
    """What NameLedger does, with all names in a tree: simple, and 500 bytes an entry."""

    def __init__(self) -> None:
        self._root = TreeDirectory("")

    def add(self, path: str, is_directory: bool) -> tuple[str, ...]:
        parts = check_path(path)
        directory = self._root
        for part in parts[:-1]:
            there = directory.children.setdefault(fold(part), TreeDirectory(part))
            if isinstance(there, str) or there.name != part:
                raise UnsafeName(name=path, reason=clash(there, part, is_directory=True))
            directory = there
        key, name = fold(parts[-1]), parts[-1]
        known = directory.children.get(key)
        if known is None:
            directory.children[key] = TreeDirectory(name, listed=True) if is_directory else name
        elif isinstance(known, TreeDirectory) and is_directory and known.name == name and not known.listed:
            known.listed = True
        else:
            raise UnsafeName(name=path, reason=clash(known, name, is_directory))
        return parts


class TreeDirectory:
    def __init__(self, name: str, listed: bool = False) -> None:
        self.name = name
        self.listed = listed
        self.children: dict[str, str | TreeDirectory] = {}


def clash(there: str | TreeDirectory, name: str, is_directory: bool) -> str:
    there_name = there if isinstance(there, str) else there.name
    if there_name != name:
        return f"some systems cannot tell {name} from {there_name}"
    if isinstance(there, TreeDirectory) != is_directory:
        return f"{name} would be both a file and a directory"
    return "it is listed twice"


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


NAMES = st.one_of(st.text(min_size=1), st.text(st.sampled_from("aé.\u200d 😀"), min_size=40, max_size=260))


@given(NAMES, st.integers(1, 10**6), st.booleans())
def test_the_variants_of_a_safe_name_are_safe_and_different(name: str, n: int, is_directory: bool) -> None:
    if accepted_parts(name) is None or "/" in name:
        return
    variant = numbered(name, n, is_directory=is_directory)
    assert check_path(variant) == (variant,)
    assert len({fold(name), fold(variant), fold(numbered(name, n + 1, is_directory=is_directory))}) == 3


def test_the_state_directory_is_a_name_that_is_refused() -> None:
    assert accepted_parts(STATE_DIRECTORY) is None
