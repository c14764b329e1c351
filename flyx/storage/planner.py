"""Carries out the operations that plan a transfer: they find out what is there, and change nothing.

Blocking, for a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from threading import Event
from typing import assert_never

from flyx.errors import DestinationExists, LocalProtocolError
from flyx.storage.holes import is_hole, may_have_holes
from flyx.storage.opening import OPEN_FLAGS
from flyx.storage.partial import Partials
from flyx.storage.plan import Plan
from flyx.storage.tree import Parts, Tree
from flyx.transfer.digests import RunningDigest
from flyx.transfer.disk import (
    EntriesPlanned,
    FilesHashed,
    FilesSettled,
    HashFiles,
    Kept,
    OperationResult,
    PlanEntries,
    Planning,
    PlanTree,
    SettleFiles,
    TreePlanned,
    Unfinished,
)
from flyx.transfer.manifest import BLOCK_SIZE, Entry, EntryKind


class Planner:
    """Plans one transfer into a directory.

    Attributes:
        found_bytes: bytes that are here from an earlier run, in files that it has saved and in others.
        elsewhere: where files are that it has saved under other names than planned.
    """

    def __init__(self, tree: Tree, plan: Plan, partials: Partials, given_up: Event) -> None:
        """Args:
        tree: the output directory.
        plan: made by what is carried out here.
        partials: what an earlier run has left.
        given_up: set by another thread when the transfer that waits for the digests has ended.
        """
        self._tree = tree
        self._plan = plan
        self._partials = partials
        self._given_up = given_up
        # Made when it is first needed.
        self._block = memoryview(b"")
        self.found_bytes = 0
        self.elsewhere: dict[int, Parts] = {}

    def carry_out(self, operation: Planning) -> OperationResult:
        """Return what came of it.

        Raises:
            FlyxError: the transfer cannot be, or was given up.
            OSError: the same, for what the filesystem says.
        """
        match operation:
            case PlanTree():
                return self._plan_tree(operation)
            case PlanEntries(first=first, entries=entries):
                return self._plan_entries(first, entries)
            case HashFiles(files=files):
                return FilesHashed(tuple(map(self._digest_here, files)))
            case SettleFiles(same=same):
                return FilesSettled(self._plan.settle(same))
        assert_never(operation)

    def _plan_tree(self, operation: PlanTree) -> TreePlanned:
        self._plan.check_roots(operation.roots)
        self._plan.check_place()
        others = self._partials.begin(operation.manifest_id, operation.roots, operation.algorithms)
        fresh = self._plan.begin(operation.roots, operation.total_bytes, operation.hole_bytes, self._partials)
        unfinished = tuple(Unfinished(other.first_root, other.time) for other in others)
        return TreePlanned(fresh and not self._partials.needs_all_first, unfinished, self._partials.algorithm)

    def _plan_entries(self, first: int, entries: Sequence[Entry]) -> EntriesPlanned:
        found = []
        for file, entry in enumerate(entries, first) if self._partials.has_remains else ():
            if entry.kind is EntryKind.FILE and (one := self._partials.find(file, entry)):
                found.append(one)
                if isinstance(one, Kept):
                    self.found_bytes += entry.size
                self.found_bytes += self._partials.written(file)
        kept = {one.file for one in found if isinstance(one, Kept)}
        below, without, in_doubt = self._plan.extend(first, entries, kept)
        absent = {index for index, _ in without}
        for file in kept - absent:
            entry = entries[file - first]
            if (parts := self._partials.kept_at(entry)) != self._plan.target_of(file):
                self.elsewhere[file] = parts
        wanted = tuple(one for one in found if one.file not in absent)
        return EntriesPlanned(below, wanted, without, in_doubt)

    def _digest_here(self, file: int) -> bytes | None:
        """The digest of what is here under the name of a file, if it is a file of that size.

        Raises:
            LocalProtocolError: the destination was given up.
        """
        target, size = self._plan.target_of(file), self._plan.entry(file).size
        # What cannot be read is not the same.
        with suppress(OSError, DestinationExists):
            handle = os.open(target[-1], OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=self._tree.handle(target[:-1]))
            try:
                return self._digest(handle, size)
            finally:
                os.close(handle)
        return None

    def _digest(self, handle: int, size: int) -> bytes | None:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode) or before.st_size != size:
            return None
        if hasattr(os, "posix_fadvise"):
            # Advice: a filesystem that takes none can be read all the same.
            with suppress(OSError):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._block = self._block or memoryview(bytearray(BLOCK_SIZE))
        sparse = may_have_holes(before)
        algorithm = self._partials.algorithm
        digest = RunningDigest(algorithm)
        for offset in range(0, size, BLOCK_SIZE):
            if self._given_up.is_set():
                raise LocalProtocolError(reason="the destination was given up")
            length = min(BLOCK_SIZE, size - offset)
            if sparse and is_hole(handle, offset, length):
                digest.add(algorithm.hole_digest(length))
                continue
            block = self._block[:length]
            if not _fill(block, handle, offset):
                return None
            digest.add(algorithm.digest(block))
        after = os.fstat(handle)
        unchanged = (after.st_size, after.st_mtime_ns) == (size, before.st_mtime_ns)
        return digest.value() if unchanged else None


def _fill(block: memoryview, handle: int, offset: int) -> bool:
    """Read a block; return whether the file has all of it."""
    done = 0
    # Only network filesystems give less than there is.
    while done < len(block) and (more := os.preadv(handle, [block[done:]], offset + done)):
        done += more
    return done == len(block)
