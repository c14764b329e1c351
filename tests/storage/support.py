"""What the tests of the disk share: offers from literals, whole trees compared, transfers without network."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from flyx.storage.reader import SourceReader
from flyx.storage.scan import Scan
from flyx.storage.writer import Destination
from flyx.transfer.digests import Algorithm
from flyx.transfer.disk import (
    BlockRead,
    BlockRequest,
    EntriesPlanned,
    FileSaved,
    FinishFile,
    FinishTree,
    Operation,
    OperationFailed,
    OperationResult,
    PlanEntries,
    PlanTree,
    WriteBlock,
)
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind, Manifest

MTIME_US = 1_600_000_000_123_456

ENVIRONMENT_OF_OTHERS = {**os.environ, "COVERAGE_PROCESS_CONFIG": ""}
"""Of programs that become another user: these cannot write down beside our own data what of flyx they run."""


def file_entry(path: str, size: int = 0, *, mode: int = 0o644, mtime_us: int = MTIME_US) -> Entry:
    return Entry(path, EntryKind.FILE, size, mode, mtime_us)


def directory_entry(path: str, *, mode: int = 0o755, mtime_us: int = MTIME_US) -> Entry:
    return Entry(path, EntryKind.DIRECTORY, 0, mode, mtime_us)


class Offer:
    """A transfer made from literals: paths with their contents; None makes a directory.

    Attributes:
        algorithms: what the sender can hash with, the fastest first.
    """

    def __init__(
        self,
        contents: Mapping[str, bytes | None],
        *,
        mode: int = 0o644,
        algorithms: tuple[Algorithm, ...] = (Algorithm.SHA256,),
    ) -> None:
        self.contents = contents
        self.algorithms = algorithms
        self.entries = [
            directory_entry(path) if content is None else file_entry(path, len(content), mode=mode)
            for path, content in contents.items()
        ]
        self.manifest = Manifest(self.entries)

    def index(self, path: str) -> int:
        return list(self.contents).index(path)

    def plan(self) -> list[Operation]:
        return [
            PlanTree(
                self.manifest.roots,
                self.manifest.total_bytes,
                self.manifest.id,
                algorithms=self.algorithms,
            ),
            PlanEntries(0, self.entries),
        ]

    def writes(self, path: str, algorithm: Algorithm | None = None) -> list[Operation]:
        content = self.contents[path] or b""
        hashed = algorithm or self.algorithms[0]
        return [
            write_block(self.index(path), offset, content[offset : offset + BLOCK_SIZE], hashed)
            for offset in range(0, len(content), BLOCK_SIZE)
        ]

    def finish(self, path: str) -> FinishFile:
        return FinishFile(self.index(path))

    def files(self) -> list[Operation]:
        operations: list[Operation] = []
        for path, content in self.contents.items():
            if content is not None:
                operations += [*self.writes(path), self.finish(path)]
        return operations

    def everything(self) -> list[Operation]:
        return [*self.plan(), *self.files(), FinishTree()]


def write_block(
    file: int, offset: int, content: bytes, algorithm: Algorithm = Algorithm.SHA256
) -> WriteBlock:
    return WriteBlock(file, offset, [content], algorithm.digest(content))


def failure(outcomes: list[OperationResult]) -> Exception:
    """The error that ended a batch."""
    last = outcomes[-1]
    assert isinstance(last, OperationFailed), outcomes
    return last.error


def succeed(destination: Destination, operations: list[Operation]) -> list[OperationResult]:
    """Apply operations, all of which must succeed."""
    outcomes = destination.apply(operations)
    if isinstance(outcomes[-1], OperationFailed):
        raise outcomes[-1].error
    assert len(outcomes) == len(operations)
    return outcomes


def saved_paths(outcomes: list[OperationResult]) -> list[str]:
    return [outcome.path for outcome in outcomes if isinstance(outcome, FileSaved)]


def block_requests(manifest: Manifest) -> list[BlockRequest]:
    """Every block of every file, as a sender asks for them."""
    requests: list[BlockRequest] = []
    for index, entry in enumerate(manifest.entries):
        if entry.kind is EntryKind.FILE:
            offsets = range(0, entry.size, BLOCK_SIZE) if entry.size else [0]
            requests += [BlockRequest(index, o, min(BLOCK_SIZE, entry.size - o)) for o in offsets]
    return requests


def transfer(found: Scan, destination: Destination) -> list[str]:
    """Move what was scanned to a destination, as the two machines would; return the paths it was saved as."""
    manifest = found.manifest
    reader = SourceReader(found)
    plan = PlanTree(manifest.roots, manifest.total_bytes, hole_bytes=manifest.hole_bytes)
    planned = succeed(destination, [plan, PlanEntries(0, manifest.entries)])[-1]
    assert isinstance(planned, EntriesPlanned)
    absent = {index for index, _ in planned.left_out}
    operations: list[Operation] = []
    for block in reader.read([r for r in block_requests(manifest) if r.file not in absent]):
        assert isinstance(block, BlockRead)
        request = block.request
        if request.length:
            data = () if block.hole else [block.data]
            operations.append(WriteBlock(request.file, request.offset, data, block.digest, hole=block.hole))
        if request.offset + request.length == manifest.entries[request.file].size:
            operations.append(FinishFile(request.file))
    reader.close()
    return saved_paths(succeed(destination, [*operations, FinishTree()]))


def snapshot(directory: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind, mode, content or target, and time; equal for equal trees."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        time = status.st_mtime_ns // 1000 if times else None
        found[str(path.relative_to(directory))] = (oct(status.st_mode), content, time)
    return found


def names_in(directory: Path) -> set[str]:
    """The paths of everything below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def saved_in(directory: Path) -> set[str]:
    """The paths of everything below an output directory, without what waits there for a later run."""
    return {path for path in names_in(directory) if path.split("/")[0] != ".flyx"}


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """A small filesystem of its own in a directory, or a skipped test."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and mount(8) for a filesystem of its own")
    directory.mkdir(exist_ok=True)
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mount is not permitted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def _limited(kind: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def descriptors_no_more_than(most: int) -> AbstractContextManager[None]:
    """Have the system refuse to open files once so many are open; those that are open stay so."""
    return _limited(resource.RLIMIT_NOFILE, most)


def descriptors_used_up() -> AbstractContextManager[None]:
    """No file can be opened: a failure that even root meets."""
    return descriptors_no_more_than(0)


def files_no_longer_than(size: int) -> AbstractContextManager[None]:
    """Have the system refuse files of more bytes, as a filesystem does that has such a limit."""
    return _limited(resource.RLIMIT_FSIZE, size)
