"""The receiver's disk: carries out the Operations of a transfer below one directory.

Whatever a sender says, nothing changes outside that directory, nothing in it is replaced unless the person
allowed it, no byte is written that does not match its digest, and no file has its final name before it is
complete and durable. names.py judges the names, tree.py walks the directories, partial.py keeps what is not
complete, durability.py makes it last, journal.py remembers it for a later run.

Blocking, for a thread; POSIX only.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import assert_never

from flyx.errors import CorruptData, DestinationExists, FlyxError, LocalProtocolError
from flyx.storage.attributes import set_attributes
from flyx.storage.durability import Durability, group_size
from flyx.storage.failures import refusal_code, write_error
from flyx.storage.journal import Identity, Saved
from flyx.storage.link_maker import LinkMaker
from flyx.storage.naming import Namer
from flyx.storage.partial import Partials
from flyx.storage.plan import ExistingPolicy, Plan, Skip
from flyx.storage.planner import Planner
from flyx.storage.tree import Parts, Tree
from flyx.storage.whole import Finishing, WholeFiles
from flyx.transfer import left_out
from flyx.transfer.disk import (
    BlockWritten,
    DiscardFile,
    FileDiscarded,
    FileRefused,
    FileRestarted,
    FileSaved,
    FinishFile,
    FinishTree,
    HashFiles,
    Operation,
    OperationFailed,
    OperationResult,
    PlanEntries,
    PlanTree,
    RestartFile,
    SettleFiles,
    TreeFinished,
    WriteBlock,
)
from flyx.transfer.manifest import BLOCK_SIZE, Entry
from flyx.transfer.names import NamePolicy
from flyx.transfer.selection import Selection

__all__ = ["Destination", "ExistingPolicy", "Skip"]

# For the journal, and the directories on the way to a name.
_SPARE = 4
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


class Destination:
    """Writes one transfer into a directory.

    One batch of operations at a time; abandon() may be called from another thread, and waits for the batch.
    What is read from the disk, it waits for to the end of a block.
    """

    outlives_connection = False

    def __init__(
        self,
        directory: Path,
        existing: ExistingPolicy = ExistingPolicy.REFUSE,
        names: NamePolicy = NamePolicy.SKIP,
        selection: Selection | None = None,
        skip: Skip = Skip.NOTHING,
    ) -> None:
        """Touch nothing yet.

        Args:
            directory: where the roots go; made, with those above it, when the first byte is written. It may
                be a symbolic link; nothing below it is followed if it is one.
            existing: what to do about files that are there.
            names: what to do about names that cannot be had here.
            selection: what is wanted of what is offered; None: all of it.
            skip: what is left out for what is there.
        """
        self._names, self._selection = names, selection
        # Set by abandon(), before it waits for the batch.
        self._given_up = threading.Event()
        self._durability = Durability()
        # Files that will have no name.
        self._missing: set[int] = set()
        # Files of which a part came that the filesystem cannot have: what else comes of them is dropped.
        self._too_large: set[int] = set()
        # How many files are saved together.
        self._group = group_size()
        # Files of the current batch that are complete, in order, at most so many.
        self._finishing: list[Finishing] = []
        # Descriptors that are kept for when there are no more: a group needs some to be saved.
        self._spare: list[int] = []
        self._lock = threading.Lock()
        self._ended = False
        # Set by abandon(): whether there is something that a later run can go on with.
        self.keeps = False
        self._begin(Tree(directory, self._durability), existing, skip)

    def _begin(self, tree: Tree, existing: ExistingPolicy, skip: Skip) -> None:
        self._tree, self._existing, self._bytes_written = tree, existing, 0
        self._plan = Plan(self._tree, existing, self._names, self._selection, skip)
        self._partials = Partials(self._tree, self._durability, self._given_up)
        self._planner = Planner(self._tree, self._plan, self._partials, self._given_up)
        self._whole_files = WholeFiles(self._plan, self._partials)
        self._namer = Namer(self._tree, self._plan, self._partials, existing)
        # Files that have another name than planned.
        self._elsewhere = self._planner.elsewhere

    @property
    def needs_all(self) -> bool:
        """Whether all that is offered is needed; if not, how much is, is known when all has been planned."""
        return self._plan.needs_all

    def begin_anew(self, existing: ExistingPolicy, skip: Skip) -> None:
        """Be as before anything was planned, with other policies; nothing but plans may have been made."""
        with self._lock:
            if not self._ended:
                self._partials.keep()
                self._plan.close()
                self._tree.close()
                self._begin(Tree(self._tree.directory, self._durability), existing, skip)

    def __enter__(self) -> Destination:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    @property
    def state_directory(self) -> str:
        """Where unfinished transfers are kept, as people know it."""
        return self._tree.shown((self._partials.state_directory,))

    def abandon(self) -> None:
        """Stop here: keep what was saved, and what a later run can go on with. Any number of times.

        After FinishTree there is nothing to keep or to remove.
        """
        self._given_up.set()
        with self._lock:
            if not self._ended:
                self._ended = True
                self._free_spare()
                for finishing in self._finishing:
                    with suppress(OSError):
                        os.close(finishing.handle)
                self.keeps = self._partials.keep()
                self._plan.close()
                self._tree.close()

    def apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        """Carry out operations in order, and return what came of each.

        FinishFiles are saved together, at the end of the batch or every durability.GROUP files: the
        more of them a batch holds, the cheaper each is.

        Returns:
            One result for each operation, or fewer, the last of which is OperationFailed. Operations after
            that have had no effect, except perhaps on partial files.
        """
        with self._lock:
            if self._ended:
                return [OperationFailed(LocalProtocolError(reason="the destination was given up"))]
            try:
                return self._apply(operations)
            finally:
                self._plan.rest()
                self._tree.release()

    def _apply(self, operations: Sequence[Operation]) -> list[OperationResult]:
        results: list[OperationResult] = []
        failure: FlyxError | None = None
        while True:
            if not self._take_whole(operations, results):
                return results
            if len(results) == len(operations):
                break
            operation = operations[len(results)]
            together = isinstance(operation, (FinishFile, WriteBlock)) and len(self._finishing) < self._group
            # A checkpoint would sync each of those that wait by itself.
            if (not together or self._partials.checkpoint_is_due) and not self._save(results):
                return results
            try:
                try:
                    results.append(self._carry_out(operation, len(results)))
                except OSError as error:
                    if error.errno not in _TOO_MANY_OPEN or not self._finishing:
                        raise
                    # The files that wait to be saved are open; there cannot be as many.
                    self._group = max(1, len(self._finishing) // 2)
                    self._free_spare()
                    if not self._save(results):
                        return results
                    results.append(self._carry_out(operation, len(results)))
            except OSError as error:
                failure = self._translated(error, operation)
            except FlyxError as error:
                failure = error
            if failure:
                break
        if failure and self._durability.failed and self._finishing:
            # What waits to be saved was not made durable, and cannot be any more.
            group, self._finishing = self._finishing, []
            results[group[0].position :] = [OperationFailed(failure)]
            self._let_go(group)
        elif self._save(results) and failure:
            results.append(OperationFailed(failure))
        return results

    def _take_whole(self, operations: Sequence[Operation], results: list[OperationResult]) -> bool:
        """Carry out what comes next as far as it is files of one block each, whole and of the usual kind.

        Thousands of them come in a row. What is unusual about one, and what fails, is left to the other ways.

        Returns:
            Whether all that had to be saved meanwhile was.
        """
        at = len(results)
        while at + 1 < len(operations):
            block, end = operations[at], operations[at + 1]
            if not (
                isinstance(block, WriteBlock)
                and isinstance(end, FinishFile)
                and block.file == end.file
                and block.file not in self._too_large
            ):
                break
            is_due = self._partials.checkpoint_is_due
            if (is_due or len(self._finishing) >= self._group) and not self._save(results):
                return False
            finishing = self._complete_whole(block, at + 1, is_due=is_due)
            if finishing is None:
                break
            self._finishing.append(finishing)
            length = finishing.entry.size
            self._bytes_written += length
            results += BlockWritten(block.file, 0, length, length), FileSaved(block.file, "")
            at += 2
        return True

    def _complete_whole(self, block: WriteBlock, position: int, *, is_due: bool) -> Finishing | None:
        """Write and complete a file of this block alone; None, and nothing is changed, if that cannot be.

        `is_due`: a checkpoint comes first.
        """
        try:
            if is_due:
                self._partials.checkpoint()
            self._tree.open_or_make()
            self._fill_spare()
            return self._whole_files.complete(block, position)
        except (OSError, FlyxError):
            return None

    def _carry_out(self, operation: Operation, position: int) -> OperationResult:
        match operation:
            case WriteBlock():
                return self._write(operation)
            case FinishFile(file=file) if file in self._too_large:
                return self._refuse(file, left_out.TOO_LARGE_HERE)
            case FinishFile(file=file):
                self._finishing.append(self._complete(file, position))
                # Its name is known when the group is saved.
                return FileSaved(file, "")
            case DiscardFile(file=file):
                self._missing.add(file)
                self._discard(file)
                return FileDiscarded(file)
            case RestartFile(file=file):
                self._too_large.discard(file)
                self._discard(file)
                return FileRestarted(file)
            case FinishTree():
                return TreeFinished(tuple(self._finish_tree()))
            case PlanTree() | PlanEntries() | HashFiles() | SettleFiles():
                return self._planner.carry_out(operation)
        assert_never(operation)

    def _translated(self, error: OSError, operation: Operation) -> FlyxError:
        directory = self._tree.directory
        match operation:
            case WriteBlock() | FinishFile() | DiscardFile() | RestartFile():
                path = self._tree.shown(self._target(operation.file))
            case _:
                path = str(directory)
        actions = {WriteBlock: "write", FinishFile: "save", DiscardFile: "remove", RestartFile: "remove"}
        action = actions.get(type(operation), "use")
        missing = self._missing_bytes
        size = self._plan.entry(operation.file).size if isinstance(operation, FinishFile) else None
        return write_error(error, action, path, directory, missing, size)

    @property
    def _missing_bytes(self) -> int | None:
        """Bytes that are still to be written, as far as is known."""
        return self._plan.needed_bytes - self._planner.found_bytes - self._bytes_written

    def _target(self, file: int) -> Parts:
        return self._plan.target_of(file)

    # Files.

    def _write(self, block: WriteBlock) -> BlockWritten:
        entry = self._plan.entry(block.file)
        try:
            data = None if block.hole else self._partials.gather(block.parts, block.unpacked)
        except ValueError:
            raise CorruptData(path=self._tree.shown(self._target(block.file))) from None
        length = min(BLOCK_SIZE, entry.size - block.offset) if data is None else len(data)
        too_large = block.file in self._too_large
        is_next = too_large or block.offset == self._partials.written(block.file)
        if not is_next or block.offset + length > self._most_bytes(entry):
            raise LocalProtocolError(reason=f"a block of {entry.path} out of sequence")
        algorithm = self._partials.algorithm
        if (algorithm.hole_digest(length) if data is None else algorithm.digest(data)) != block.digest:
            raise CorruptData(path=self._tree.shown(self._target(block.file)))
        self._tree.open_or_make()
        if not too_large:
            try:
                if data is None:
                    self._partials.append_hole(block.file, entry, length, block.digest)
                else:
                    self._partials.append(block.file, entry, data, block.digest)
                self._bytes_written += length
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
                self._too_large.add(block.file)
                self._discard(block.file)
        return BlockWritten(block.file, block.offset, length, buffered=sum(map(len, block.parts)))

    def _most_bytes(self, entry: Entry) -> int:
        """How long a file can be."""
        return entry.size

    def _size(self, file: int, entry: Entry) -> int:
        """How long a file is that is complete."""
        return entry.size

    def _discard(self, file: int) -> None:
        """Remove what has been written of a file."""
        self._bytes_written -= self._partials.written(file)
        self._partials.discard(file)

    def _complete(self, file: int, position: int) -> Finishing:
        """Give a file that is all written its mode and time."""
        entry = self._plan.entry(file)
        self._tree.open_or_make()
        handle = self._partials.take(file, entry)
        try:
            status = os.fstat(handle)
            if status.st_size != self._size(file, entry):
                raise LocalProtocolError(reason=f"{entry.path} was finished before it was complete")
            set_attributes(handle, entry.mode & self._partials.permitted, status.st_atime_ns, entry.mtime_us)
            status = os.fstat(handle)
        except BaseException:
            os.close(handle)
            raise
        self._fill_spare()
        digest = self._partials.digest_of(file)
        found = status.st_ino, status.st_mtime_ns
        return Finishing(file, entry, self._target(file), handle, position, digest, *found)

    def _fill_spare(self) -> None:
        if len(self._spare) < _SPARE:
            with suppress(OSError):
                while len(self._spare) < _SPARE:
                    self._spare.append(os.dup(self._tree.base))

    def _free_spare(self) -> None:
        while self._spare:
            with suppress(OSError):
                os.close(self._spare.pop())

    def _save(self, results: list[OperationResult]) -> bool:
        """Make the files that wait durable, name them, make the names durable; return whether it worked.

        If not, the results from the first file on that was not saved are replaced by the failure.
        """
        group, self._finishing = self._finishing, []
        if not group:
            return True
        named: list[tuple[Finishing, Parts]] = []
        lost = None
        try:
            journal = self._record(group)
            # All in one directory.
            self._durability.sync_alike([*(finishing.handle for finishing in group), journal])
            recorded = self._name_all(group, results, named)
            recorded |= self._partials.record_directories()
            self._sync_names({parts for _, parts in named}, [journal] if recorded else [])
        except (OSError, FlyxError) as error:
            if self._durability.failed:
                named = [one for one in named if not self._take_name_back(*one)]
                self._tree.unmake()
            self._fail(results, group[0], error)
        finally:
            for finishing, _ in named:
                self._partials.forget(finishing.file)
            lost = self._let_go(group)
        if lost and not isinstance(results[-1], OperationFailed):
            self._fail(results, *lost)
        return not isinstance(results[-1], OperationFailed)

    def _let_go(self, group: list[Finishing]) -> tuple[Finishing, OSError] | None:
        """Close files, saved or not; return the first that could not be, and why.

        Some network filesystems store a file when it is closed, or say only then that they did not.
        """
        lost = None
        for finishing in group:
            # One that got no name must be open to a later run, whatever its mode should be.
            if self._partials.has(finishing.file):
                with suppress(OSError):
                    os.fchmod(finishing.handle, 0o600)
            try:
                os.close(finishing.handle)
            except OSError as error:
                lost = lost or (finishing, error)
        return lost

    def _name_all(
        self, group: list[Finishing], results: list[OperationResult], named: list[tuple[Finishing, Parts]]
    ) -> bool:
        """Name the files of a group, up to the first that cannot be; add them and their names to `named`.

        A file whose name is refused is gone, and the others go on.

        Returns:
            Whether something was written to the journal.
        """
        elsewhere: list[Saved] = []
        self._namer.begin()
        for finishing in group:
            try:
                saved_as = self._namer.name(finishing)
            except (OSError, FlyxError) as error:
                if code := refusal_code(error):
                    results[finishing.position] = self._refuse(finishing.file, code)
                    continue
                self._fail(results, finishing, error)
                break
            if saved_as != finishing.target:
                self._elsewhere[finishing.file] = saved_as
                elsewhere.append(self._saved(finishing, saved_as))
            named.append((finishing, saved_as))
            results[finishing.position] = FileSaved(finishing.file, self._tree.shown(saved_as))
        if elsewhere:
            self._partials.record_saved(elsewhere, {})
        return bool(elsewhere)

    def _sync_names(self, named: Collection[Parts], files: Collection[int]) -> None:
        """Make these names durable, those of directories that were made, and files given by their handles."""
        directories = {parts[:-1] for parts in (*named, *self._tree.unsynced)}
        self._durability.sync(chain(files, self._there(directories)), len(files) + len(directories))
        self._tree.unsynced.clear()

    def _there(self, directories: Collection[Parts]) -> Iterator[int]:
        """Yield the handles of directories."""
        for parts in directories:
            try:
                handle = self._tree.handle(parts)
            except (FileNotFoundError, DestinationExists):
                # The person has removed it since, with what was in it.
                continue
            yield handle

    def _take_name_back(self, finishing: Finishing, parts: Parts) -> bool:
        """The name of this file may not last: have a later run give it anew. Return whether it is gone."""
        # Where this fails, too, the name stays; what has it was made durable before.
        with suppress(OSError, FlyxError):
            if self._existing is ExistingPolicy.OVERWRITE and parts[:-1] not in self._tree.unsynced:
                # It may have taken another file's place, and to remove it would leave none. But it is not
                # to be taken for the one that was sent.
                os.utime(finishing.handle)
                return False
            directory = self._tree.handle(parts[:-1])
            there = os.stat(parts[-1], dir_fd=directory, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(finishing.handle)):
                self._tree.replace((directory, parts[-1]), *self._partials.source(finishing.file))
                return True
        return False

    def _record(self, group: list[Finishing]) -> int:
        """Have the journal say under which names these files will be found; return its handle."""
        saved = [self._saved(finishing, finishing.target) for finishing in group]
        return self._partials.record_saved(saved, self._plan.new_names())

    def _saved(self, finishing: Finishing, parts: Parts) -> Saved:
        identity = Identity.of(finishing.entry)
        return Saved(identity, parts, finishing.inode, finishing.mtime_ns, finishing.digest)

    def _fail(self, results: list[OperationResult], at: Finishing, error: OSError | FlyxError) -> None:
        if isinstance(error, OSError):
            error = self._translated(error, FinishFile(at.file))
        results[at.position :] = [OperationFailed(error)]

    def _refuse(self, file: int, code: str) -> FileRefused:
        """A file cannot have its name: nothing is kept of it."""
        self._missing.add(file)
        self._discard(file)
        return FileRefused(file, code)

    # Directories.

    def _finish_tree(self) -> list[tuple[int, str]]:
        """Make what is missing but files; return what could not be made, and why."""
        self._tree.open_or_make()
        refused: list[tuple[int, str]] = []
        made = array("L")
        for index, entry in self._plan.directories():
            parts = tuple(entry.path.split("/"))
            if self._plan.is_only_above(index) and self._plan.target(parts) not in self._tree.made:
                continue
            try:
                self._namer.directory(parts)
            except (OSError, DestinationExists) as error:
                if (code := refusal_code(error)) is None:
                    raise
                refused.append((index, code))
                continue
            # Directories that were there keep their modes and times: they are not the sender's.
            if self._plan.target(parts) in self._tree.made:
                made.append(index)
        links = LinkMaker(self._tree, self._plan, self._partials, self._durability, self._namer.give_name)
        refused += links.make_all(self._missing, self._saved_at)
        others = self._partials.kept_directories | links.directories
        others |= {parts[:-1] for parts in self._tree.unsynced}
        try:
            self._durability.sync(self._finished(made, others), len(made) + len(others) + 1)
        except OSError:
            if self._durability.failed:
                self._tree.unmake()
            raise
        self._tree.close_again()
        self._partials.remove()
        return refused

    def _saved_at(self, file: int) -> Parts:
        """Where a file is that was saved, now or before."""
        return self._elsewhere.get(file) or self._target(file)

    def _finished(self, made: Sequence[int], others: Collection[Parts]) -> Iterator[int]:
        """Give directories their modes and times; yield the handle of each, and of the output directory.

        Args:
            made: indexes of the directories that this transfer made, those above first.
            others: directories of names that may not be durable: an earlier run may not have lived to sync
                those that it gave.
        """
        yield from self._there(others)
        # The deepest first: the mode of a directory may forbid the way to what is in it.
        for index in reversed(made):
            entry = self._plan.directory(index)
            handle = self._namer.directory(tuple(entry.path.split("/")))
            status = os.fstat(handle)
            # It was made with all of the entry's bits that the umask permits. Setgid came from the directory
            # above, never from the sender.
            mode = (entry.mode & status.st_mode & 0o777) | (status.st_mode & stat.S_ISGID)
            set_attributes(handle, mode, status.st_atime_ns, entry.mtime_us)
            yield handle
        yield self._tree.base
