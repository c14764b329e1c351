"""A sender that says anything at all: nothing outside the output directory changes, nothing in it is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import (
    DiscardFile,
    FinishFile,
    FinishTree,
    Operation,
    OperationFailed,
    PlanEntries,
    PlanTree,
    WriteBlock,
)
from flyx.transfer.manifest import Entry, EntryKind
from tests.storage.support import snapshot

# Names of what is there, ways out, and names that mean something to some system.
PARTS = st.sampled_from(
    [
        "f",
        "F",
        "d",
        "link",
        "up",
        "dangling",
        "new",
        "..",
        ".",
        "",
        ".flyx",
        "C:",
        "con",
        "a.",
        "\u202e",
        "x\0",
    ]
)
PATHS = st.one_of(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.sampled_from(["/etc/flyx-was-here", "../outside/file", "d/../../outside/file", "..\\outside\\file"]),
)
NO_ROOTS = {"..", ".", "", "x\0"}
MODES = st.sampled_from([0o644, 0o7777, 0])
TIMES = st.sampled_from([0, -1, 1 << 62])
ENTRIES = st.one_of(
    st.builds(Entry, PATHS, st.just(EntryKind.FILE), st.sampled_from([0, 3]), MODES, TIMES),
    st.builds(Entry, PATHS, st.just(EntryKind.DIRECTORY), st.just(0), MODES, TIMES),
    st.builds(Entry, PATHS, st.just(EntryKind.SYMBOLIC_LINK), st.just(0), st.just(0), TIMES, target=PATHS),
    st.builds(
        Entry,
        PATHS,
        st.just(EntryKind.HARD_LINK),
        st.just(0),
        st.just(0),
        TIMES,
        same_as=st.integers(0, 4),
    ),
)
INDEXES = st.integers(-1, 4)
BLOCKS = st.builds(
    lambda file, offset, content, honest: WriteBlock(
        file, offset, [content], Algorithm.SHA256.digest(content if honest else b"")
    ),
    INDEXES,
    st.sampled_from([0, 1, 3]),
    st.sampled_from([b"abc", b"", b"ab"]),
    st.booleans(),
)
OPERATIONS = st.one_of(
    BLOCKS,
    st.builds(FinishFile, INDEXES),
    st.builds(DiscardFile, INDEXES),
    st.just(FinishTree()),
)


OURS = re.compile(r"out/\.flyx(/[0-9a-f]{16}(/(journal|[0-9]+\.part))?)?")


@contextmanager
def world() -> Iterator[tuple[Path, Path]]:
    """An output directory with traps in it, and the directory around it that must stay as it is."""
    with TemporaryDirectory() as name:
        around = Path(name)
        out = around / "out"
        (around / "outside").mkdir()
        (around / "outside" / "file").write_bytes(b"outside")
        (out / "d").mkdir(parents=True)
        (out / "f").write_bytes(b"mine")
        (out / "d" / "f").write_bytes(b"mine too")
        (out / "link").symlink_to("../outside")
        (out / "d" / "link").symlink_to("../../outside/file")
        (out / "up").symlink_to("..")
        (out / "dangling").symlink_to("../outside/new")
        yield around, out


@given(
    st.lists(ENTRIES, min_size=1, max_size=5),
    st.lists(OPERATIONS, max_size=8),
    st.sampled_from(ExistingPolicy),
    st.booleans(),
)
def test_whatever_a_sender_says_stays_inside_and_destroys_nothing(
    entries: list[Entry], operations: list[Operation], existing: ExistingPolicy, whole: bool
) -> None:
    with world() as (around, out):
        before = snapshot(around)
        with Destination(out, existing) as destination:
            planned = plan(destination, entries, lambda: Destination(out, existing))
            for operation in [*(honest(planned) if whole else operations), FinishTree()]:
                do(destination, operation)
        assert_nothing_lost(around, before, replaced=existing is ExistingPolicy.OVERWRITE)


def plan(destination: Destination, entries: list[Entry], another: Callable[[], Destination]) -> list[Entry]:
    """Plan what is not refused: a bad entry does not keep the others from being tried."""
    roots = dict.fromkeys(entry.root for entry in entries)
    safe = tuple(root for root in roots if root not in NO_ROOTS)
    if len(safe) < len(roots):
        assert not do(destination, PlanTree(tuple(roots), 0))
    tree = PlanTree(safe, sum(entry.size for entry in entries))
    planned: list[Entry] = []
    for entry in entries:
        with another() as trial:
            assert do(trial, tree)
            if do(trial, PlanEntries(0, [*planned, entry])):
                planned.append(entry)
    assert do(destination, tree)
    assert do(destination, PlanEntries(0, planned))
    return planned


def do(destination: Destination, operation: Operation) -> bool:
    (outcome,) = destination.apply([operation])
    if isinstance(outcome, OperationFailed):
        assert str(outcome.error).isprintable()
        return False
    return True


def honest(entries: list[Entry]) -> list[Operation]:
    """Deliver every file as announced."""
    operations: list[Operation] = []
    for index, entry in enumerate(entries):
        if entry.kind is EntryKind.FILE:
            content = b"abc"[: entry.size]
            operations += [
                WriteBlock(index, 0, [content], Algorithm.SHA256.digest(content)),
                FinishFile(index),
            ]
    return operations


def assert_nothing_lost(around: Path, before: dict[str, tuple[object, ...]], *, replaced: bool) -> None:
    after = snapshot(around)
    for path, (mode, content, time) in before.items():
        inside = path.startswith("out/")
        directory = content is None
        if directory and (inside or path == "out"):
            # Directories may be added to, which changes their time alone.
            assert after[path][:2] == (mode, content)
        elif not (inside and replaced):
            assert after[path] == (mode, content, time)
    assert {path for path in after if not path.startswith("out/")} <= before.keys()
    assert before.keys() <= after.keys()
    for path in after.keys() - before.keys():
        if os.path.islink(around / path):
            # Links may lead to what was there, which may be links of the person's own that lead elsewhere.
            target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(around / path)))
            assert target.startswith("out/")
            continue
        # What waits for a later run has names of ours alone.
        assert "/.flyx" not in path or OURS.fullmatch(path)
        assert (around / path).lstat().st_mode & 0o7000 == 0
