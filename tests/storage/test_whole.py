"""Files of one block that arrive whole take a short way; what comes of them is what comes of the long one."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flyx.storage import durability
from flyx.storage.journal import Contents, parse
from flyx.storage.writer import Destination, ExistingPolicy
from flyx.transfer.disk import (
    FileSaved,
    FinishFile,
    FinishTree,
    Operation,
    OperationFailed,
    PlanEntries,
    PlanTree,
    WriteBlock,
)
from flyx.transfer.manifest import BLOCK_SIZE, Manifest
from flyx.transfer.names import STATE_DIRECTORY
from tests.storage.support import (
    MTIME_US,
    Offer,
    directory_entry,
    file_entry,
    saved_paths,
    succeed,
    write_block,
)

SIZES = (1, 2, 4000, BLOCK_SIZE)
MODES = (0, 0o400, 0o444, 0o600, 0o604, 0o644, 0o666, 0o755, 0o777)
TIMES = (-1, 0, 1, MTIME_US, 4_000_000_000_000_000)

CALLS = ("open", "pwrite", "utime", "fstat", "fchmod", "link", "unlink", "close", "fsync")


def zoo() -> tuple[Manifest, list[bytes]]:
    """Files of all sizes, modes and times in two directories, and one that is not listed."""
    contents: list[bytes] = []
    entries = [directory_entry("d"), directory_entry("e")]
    for number, mode in enumerate(MODES):
        for above in ("d", "d/unlisted", "e"):
            contents.append(os.urandom(SIZES[number % len(SIZES)]))
            time_us = TIMES[len(contents) % len(TIMES)]
            entries.append(file_entry(f"{above}/{number}", len(contents[-1]), mode=mode, mtime_us=time_us))
    return Manifest(entries), contents


def operations_of(manifest: Manifest, contents: list[bytes], *, short: bool) -> list[Operation]:
    """All that is to be written; what comes in two parts takes the long way."""
    operations: list[Operation] = []
    for file, content in enumerate(contents, 2):
        block = write_block(file, 0, content)
        parts: Sequence[bytes] = [content] if short else [b"", content]
        operations += [WriteBlock(file, 0, parts, block.digest), FinishFile(file)]
    return operations


def plan_of(manifest: Manifest) -> list[Operation]:
    return [
        PlanTree(manifest.roots, manifest.total_bytes, manifest.id),
        PlanEntries(0, manifest.entries),
    ]


def what_is_in(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and content of each file, by its path."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and STATE_DIRECTORY not in path.parts:
            status = path.stat()
            found[str(path.relative_to(out))] = status.st_mode, status.st_mtime_ns, path.read_bytes()
    return found


def journal_in(out: Path) -> Contents:
    (journal,) = (out / STATE_DIRECTORY).rglob("journal")
    contents = parse(journal.read_bytes())
    assert contents is not None
    return contents


@pytest.mark.parametrize("existing", ExistingPolicy)
@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_both_ways_lead_to_the_same(tmp_path: Path, existing: ExistingPolicy, umask: int) -> None:
    manifest, contents = zoo()
    found, recorded, told = [], [], []
    earlier = os.umask(umask)
    try:
        for short in (True, False):
            out = tmp_path / str(short)
            with Destination(out, existing) as destination:
                succeed(destination, plan_of(manifest))
                results = destination.apply(operations_of(manifest, contents, short=short))
                told.append([str(result).replace(str(out), "") for result in results])
                recorded.append(journal_in(out).saved)
                # It is what a later run will find there.
                for saved in recorded[-1].values():
                    assert saved.is_same(out.joinpath(*saved.parts).stat())
                succeed(destination, [FinishTree()])
            found.append(what_is_in(out))
    finally:
        os.umask(earlier)
    assert found[0] == found[1]
    assert [content for _, _, content in found[0].values()].sort() == contents.sort()
    assert told[0] == told[1]
    assert [(one.identity, one.parts, one.mtime_ns, one.digest) for one in recorded[0].values()] == [
        (one.identity, one.parts, one.mtime_ns, one.digest) for one in recorded[1].values()
    ]


class Calls:
    """Counts system calls, and has one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int | None = None, code: int = 0) -> None:
        self.made: Counter[str] = Counter()
        self._fails, self._code = fails, code
        for name in CALLS:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))
        monkeypatch.setattr(durability, "_syncfs", self._counted("syncfs", lambda handle: None))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if name == "close" and not stat.S_ISREG(os.stat(args[0]).st_mode):
                # What is said then is of no file.
                return call(*args)
            self.made[name] += 1
            if self.made.total() - 1 == self._fails:
                if name == "close":
                    call(*args)
                raise OSError(self._code, os.strerror(self._code))
            return call(*args, **kwargs)

        return counted


def test_a_small_file_takes_seven_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer({f"f{number}": b"x" * 4000 for number in range(256)})
    with Destination(tmp_path) as destination:
        succeed(destination, offer.plan())
        with monkeypatch.context() as patch:
            calls = Calls(patch)
            succeed(destination, offer.files())
    once = ("open", "pwrite", "utime", "fstat", "link", "unlink", "close")
    # Besides what it takes to begin, and to save a group.
    assert all(256 <= calls.made[name] < 300 for name in once), calls.made
    assert calls.made.total() - sum(calls.made[name] for name in once) < 30, calls.made


def test_a_checkpoint_that_is_due_splits_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer({f"f{number}": b"x" for number in range(256)})
    monotonic = time.monotonic
    with Destination(tmp_path) as destination:
        succeed(destination, [*offer.plan(), *offer.writes("f0"), offer.finish("f0")])
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 10)
        calls = Calls(monkeypatch)
        succeed(destination, offer.files()[2:])
    assert calls.made["syncfs"] + calls.made["fsync"] < 20, calls.made


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_whatever_fails_what_is_told_is_true_and_nothing_half_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    contents: dict[str, bytes | None] = {f"d/{number}": os.urandom(100 + number) for number in range(12)}
    offer = Offer({"first": b"x", "d": None, **contents}, mode=0o444)
    handles, failed = len(os.listdir("/dev/fd")), 0
    for fails in count():
        out = tmp_path / str(fails)
        with Destination(out) as destination:
            succeed(destination, [*offer.plan(), *offer.writes("first"), offer.finish("first")])
            with monkeypatch.context() as patch:
                calls = Calls(patch, fails, code)
                results = destination.apply(offer.files()[2:])
        assert len(os.listdir("/dev/fd")) == handles
        for path in (out / "d").glob("*"):
            assert path.read_bytes() == contents[f"d/{path.name}"]
        told = [Path(path) for path in saved_paths(results)]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in told)
        has_failed = isinstance(results[-1], OperationFailed)
        assert has_failed or len(told) == len(contents)
        failed += has_failed
        if calls.made.total() <= fails:
            break
    assert 0 < failed < fails


def test_what_is_not_what_it_should_be_is_refused_as_ever(tmp_path: Path) -> None:
    offer = Offer({"a": b"aa", "b": b"bb", "c": b"cc"})
    for block, said in (
        (WriteBlock(1, 0, [b"xx"], write_block(1, 0, b"bb").digest), "digest"),
        (write_block(1, 0, b"b"), "before it was complete"),
        (write_block(1, 0, b"bbb"), "out of sequence"),
        (write_block(7, 0, b"bb"), "not a file"),
    ):
        with Destination(tmp_path) as destination:
            succeed(destination, offer.plan())
            end = FinishFile(block.file)
            results = destination.apply([*offer.writes("a"), offer.finish("a"), block, end])
            assert results[1] == FileSaved(0, str(tmp_path / "a"))
            last = results[-1]
            assert isinstance(last, OperationFailed)
            assert said in str(last.error) or said == "digest", last.error
        assert not (tmp_path / "b").exists()
        (tmp_path / "a").unlink()
