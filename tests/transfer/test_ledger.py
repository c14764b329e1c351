"""What becomes of each name of a transfer at a receiver."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import islice, product
from types import FrameType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.errors import UnsafeName
from flyx.transfer import ledger as ledger_module
from flyx.transfer import left_out
from flyx.transfer.ledger import NameLedger
from flyx.transfer.manifest import Entries, Entry, EntryKind
from flyx.transfer.names import NameJudge, NamePolicy, check_path
from tests.transfer.disk_names import APPLE, DISKS, LINUX, WINDOWS, FakeNames

# Entries are written as paths below one root; those that end with "/" are directories.
MISTAKES = {
    "a file twice": ["a", "a"],
    "a directory twice": ["a/", "a/"],
    "a file and a directory": ["a", "a/"],
    "a directory and a file": ["a/", "a"],
    "a file under a file": ["a", "a/b"],
    "a file under a file, the other way round": ["a/b", "a"],
    "a file deep under a file": ["a/b", "a/b/c/d"],
    "a directory under a file": ["a", "a/b/"],
    "a way out": ["a", "../a"],
}


@pytest.mark.parametrize("policy", NamePolicy)
@pytest.mark.parametrize("paths", MISTAKES.values(), ids=MISTAKES.keys())
def test_what_no_sender_of_ours_says_is_refused(paths: list[str], policy: NamePolicy) -> None:
    listing = Listing(LINUX, policy)
    *others, last = paths
    for path in others:
        listing.add(path)
    with pytest.raises(UnsafeName) as refused:
        listing.add(last)
    assert refused.value.fields["name"] == f"r/{last.rstrip('/')}"


# Names that meet where neither case nor normal form matters.
MEETING = {
    "case": ["Readme", "README"],
    "case of a directory": ["Photos/", "photos/"],
    "case of directories that only their files name": ["Photos/a", "photos/b"],
    "case of a directory and one that a file names": ["Photos/a", "photos/"],
    "composed and decomposed": ["caf\u00e9", "cafe\u0301"],
    "case and composition": ["CAF\u00c9", "cafe\u0301"],
    "sharp s": ["stra\u00dfe", "STRASSE"],
    "Kelvin sign": ["k", "\u212a"],
    "final sigma": ["\u03c2", "\u03c3"],
    "a file under a file of other case": ["A", "a/b"],
}


@pytest.mark.parametrize("paths", MEETING.values(), ids=MEETING.keys())
def test_of_names_that_meet_the_first_is_kept(paths: list[str]) -> None:
    *others, last = paths
    apple, linux = Listing(APPLE), Listing(LINUX)
    assert [apple.add(path) for path in others] == [None] * len(others)
    assert apple.add(last) in {left_out.SAME_NAME, left_out.ABOVE}
    assert [linux.add(path) for path in paths] == [None] * len(paths)


def test_what_is_in_a_directory_that_is_left_out_is_left_out_and_nothing_else() -> None:
    listing = Listing(WINDOWS)
    codes = [listing.add(path) for path in ["aux/", "aux/a", "aux/b/", "aux/b/c", "a", "b/aux/x", "b/y"]]
    above = left_out.ABOVE
    assert codes == [left_out.NOT_HERE, above, above, above, None, above, None]


def test_a_name_that_is_left_out_is_free_for_others() -> None:
    listing = Listing(FakeNames(refused=WINDOWS.refused, case=str.lower))
    assert [listing.add(path) for path in ["AUX", "aux", "A:", "a:"]] == [left_out.NOT_HERE] * 4


def test_changed_names_stay_apart_and_take_what_is_below_along() -> None:
    listing = Listing(WINDOWS, NamePolicy.SAFE)
    paths = ["a:b/", "a:b/x?", "a_b/", "A?B/", "A?B/y", "Readme", "README", "readme"]
    assert [listing.add(path) for path in paths] == [None] * len(paths)
    assert [listing.local(path) for path in paths] == [
        "a_b",
        "a_b/x_",
        "a_b (1)",
        "A_B (2)",
        "A_B (2)/y",
        "Readme",
        "README (1)",
        "readme (2)",
    ]


def test_a_directory_is_found_by_its_own_entry_alone() -> None:
    listing = Listing(LINUX)
    for path in ["a/b/c", "a/", "A2/", "d"]:
        listing.add(path)
    assert [listing.ledger.listed(("r", *parts)) for parts in [("a",), ("A2",)]] == [1, 2]
    for parts in [("a", "b"), ("a", "b", "c"), ("d",), ("e",), ("e", "f"), ("a", "f"), ()]:
        assert listing.ledger.listed(("r", *parts)) is None


def test_directories_that_nobody_lists_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_ENTRIES", 12)
    listing = Listing(LINUX)
    listing.add("/".join("abcdefghijk"))
    with pytest.raises(UnsafeName, match="too many"):
        listing.add("z/y")


def test_below_a_root_that_is_left_out_is_nothing() -> None:
    entries = Entries()
    ledger = NameLedger(entries, NameJudge(LINUX), {"r": left_out.NOT_HERE})
    for path, code in [("r", left_out.NOT_HERE), ("r/a", left_out.ABOVE), ("s", None)]:
        assert ledger.add(path, is_directory=path == "r") == code
        entries.append(Entry(path, EntryKind.DIRECTORY, 0, 0, 0))


# Names that meet more often than they do not, in few directories.
NAMES = st.sampled_from(
    [
        "a",
        "A",
        "b",
        "é",
        "e\u0301",
        "É",
        "ß",
        "SS",
        "ss",
        "K",
        "\u212a",
        "aux",
        "a:",
        "A:",
        "a_",
        "A_",
        "x.",
        "\u202e",
    ]
) | st.binary(min_size=1, max_size=6).filter(lambda name: not {0, 47} & set(name)).map(os.fsdecode)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(st.tuples(PATHS, st.booleans()), max_size=14)


@given(ENTRIES, st.sampled_from(DISKS), st.sampled_from(NamePolicy))
@example([("a/b", False), ("a", True), ("A/b", False)], APPLE, NamePolicy.SKIP)
@example([("é/x", False), ("é", True), ("e\u0301", True)], APPLE, NamePolicy.SAFE)
@example([("a_", False), ("a:", False), ("A_", False)], WINDOWS, NamePolicy.SAFE)
@example([("a", False), ("A/a", False)], WINDOWS, NamePolicy.SAFE)
@example([("a", False), ("A/a", False), ("A", True)], WINDOWS, NamePolicy.SKIP)
@example([("a", False), ("A", False), ("A", False)], WINDOWS, NamePolicy.SKIP)
@example([("a:", False), ("a:/a", False)], WINDOWS, NamePolicy.SKIP)
@example([("\u00c9", False), ("e\u0301", False), ("\u00e9", False)], FakeNames(form="NFC"), NamePolicy.SKIP)
@example([("K", False), ("\u212a", False)], WINDOWS, NamePolicy.SKIP)
def test_what_is_not_left_out_can_be_there_side_by_side(
    entries: list[tuple[str, bool]], disk: FakeNames, policy: NamePolicy
) -> None:
    listing, twin, there = Listing(disk, policy), Twin(disk, policy), FakeTree(disk)
    kept: list[tuple[str, bool]] = []
    for path, is_directory in entries:
        try:
            code = listing.put(path, is_directory)
        except UnsafeName:
            # The twin does not change names.
            if policy is not NamePolicy.SAFE:
                with pytest.raises(UnsafeName):
                    twin.put(path, is_directory)
            return
        assert policy is NamePolicy.SAFE or code == twin.put(path, is_directory)
        if code is None:
            kept.append((path, is_directory))
    for path, is_directory in kept:
        there.create(tuple(listing.local(path).split("/")), is_directory)
    assert there.spellings_are_kept()
    if policy is NamePolicy.SAFE:
        assert len(kept) == len(entries)
    if disk is LINUX and policy is NamePolicy.KEEP:
        assert kept == entries
        assert [listing.local(path) for path, _ in entries] == [path for path, _ in entries]


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
    # Four times as much, and what the table of names costs when it grows.
    assert many < 6 * few


def lines_run(paths: list[str]) -> int:
    """Lines of flyx that it takes to add these paths to a ledger and its manifest."""
    listing, count = Listing(APPLE), 0

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


class FakeTree:
    """The directories and files of a filesystem."""

    def __init__(self, names: FakeNames) -> None:
        self._names = names
        # By what the disk compares: the spelling created first, and whether it is a directory.
        self._there: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = {}
        self._created: list[tuple[tuple[str, ...], bool]] = []

    def create(self, parts: tuple[str, ...], is_directory: bool) -> None:
        assert all(map(self._names.holds, parts)), f"{parts} cannot be"
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
        return tuple(map(self._names.comparable, parts))


class Listing:
    """A manifest below one root that grows, and its ledger."""

    def __init__(self, names: FakeNames, policy: NamePolicy = NamePolicy.SKIP) -> None:
        self.entries = Entries()
        self.ledger = NameLedger(self.entries, NameJudge(names, policy), {})

    def add(self, path: str) -> str | None:
        """Add an entry; the path of a directory ends with "/"."""
        return self.put(path.rstrip("/"), path.endswith("/"))

    def put(self, path: str, is_directory: bool) -> str | None:
        kind = EntryKind.DIRECTORY if is_directory else EntryKind.FILE
        code = self.ledger.add(f"r/{path}", is_directory)
        self.entries.append(Entry(f"r/{path}", kind, 0, 0, 0))
        return code

    def local(self, path: str) -> str:
        return "/".join(self.ledger.local(("r", *path.rstrip("/").split("/")))[1:])


class Twin:
    """What NameLedger does but for changed names, with all names in a tree: simple, 500 bytes an entry."""

    def __init__(self, names: FakeNames, policy: NamePolicy) -> None:
        self._judge = NameJudge(names, policy)
        self._root = TreeDirectory("r")

    def put(self, path: str, is_directory: bool) -> str | None:
        directory = self._root
        parts = check_path(path)
        for part in parts[:-1]:
            there = directory.find(part)
            if there is None:
                if fault := self._fault(directory, part):
                    directory.put(part, TreeDirectory(part, left_out=True), fault)
                    return left_out.ABOVE
                there = directory.children[part] = TreeDirectory(part)
            if isinstance(there, str):
                if part in directory.faults:
                    return left_out.ABOVE
                raise UnsafeName(name=path, reason="it is below a file")
            if there.left_out:
                return left_out.ABOVE
            directory = there
        name = parts[-1]
        there = directory.find(name)
        if there is None:
            fault = self._fault(directory, name)
            entry = TreeDirectory(name, listed=True, left_out=fault is not None) if is_directory else name
            directory.put(name, entry, fault)
            return fault
        if isinstance(there, str) or not is_directory or there.listed:
            raise UnsafeName(name=path, reason="it is there")
        there.listed = True
        return (self._judge.fault(name) or left_out.SAME_NAME) if there.left_out else None

    def _fault(self, directory: TreeDirectory, name: str) -> str | None:
        return left_out.SAME_NAME if directory.meets(name, self._judge) else self._judge.fault(name)


class TreeDirectory:
    def __init__(self, name: str, *, listed: bool = False, left_out: bool = False) -> None:
        self.name = name
        self.listed = listed
        self.left_out = left_out
        self.children: dict[str, str | TreeDirectory] = {}
        # Those that the filesystem takes for one of the others, and are left out.
        self.doubles: dict[str, str | TreeDirectory] = {}
        # Names of files and directories that are left out.
        self.faults: set[str] = set()

    def find(self, name: str) -> str | TreeDirectory | None:
        return self.children.get(name) or self.doubles.get(name)

    def put(self, name: str, entry: str | TreeDirectory, fault: str | None) -> None:
        (self.doubles if fault == left_out.SAME_NAME else self.children)[name] = entry
        if fault:
            self.faults.add(name)

    def meets(self, name: str, judge: NameJudge) -> bool:
        others = (one for one in self.children if one != name)
        return any(judge.are_one(name, other) and not self._is_out(other) for other in others)

    def _is_out(self, name: str) -> bool:
        child = self.children[name]
        return name in self.faults or (isinstance(child, TreeDirectory) and child.left_out)


def test_names_that_would_all_become_one_cost_no_more_the_more_they_are() -> None:
    asked: list[str] = []

    class Counting(FakeNames):
        def holds(self, name: str) -> bool:
            asked.append(name)
            return super().holds(name)

    listing = Listing(Counting(WINDOWS.refused), NamePolicy.SAFE)
    names = ["".join(name) for name in islice(product('<>:"|?*\\', repeat=5), 2_000)]
    for name in names:
        listing.add(name)
    assert len(asked) < 20 * len(names)
    local = [listing.local(name) for name in names]
    assert local[:3] == ["_____", "_____ (1)", "_____ (2)"]
    assert len(set(local)) == len(names)
