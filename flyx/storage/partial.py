"""Partial files: what has arrived of each file, out of reach of every name that a sender can give.

They live in a directory of this transfer below STATE_DIRECTORY in the output directory (state.py): on the
same filesystem, so that a finished file only needs a name; never at a path that names.check_path accepts;
never shared with another transfer into the same directory. All access is by handle, so nobody can move the
ground away. Beside them is the journal, from which a later run learns what it need not get again
(remains.py).

A later run changes nothing of what it finds before its transfer is accepted, that is, before it is to write,
finish or remove something: what is only offered costs nothing of what is there. It only lets itself read a
file whose mode forbids that.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event

from msgspec.structs import replace

from flyx.storage import journal, state
from flyx.storage.blocks import BlockWriter
from flyx.storage.durability import Durability
from flyx.storage.journal import Heading, Identity, Journal, Record, Saved
from flyx.storage.remains import Remains, open_part, part_name
from flyx.storage.state import StateDirectory
from flyx.storage.tree import Parts, Tree, make_file, names_in
from flyx.transfer.digests import DIGEST_SIZE, Algorithm, RunningDigest
from flyx.transfer.disk import BlocksKept, Changed, GoesOn, Kept
from flyx.transfer.manifest import BLOCK_SIZE, Entry
from flyx.transfer.names import STATE_DIRECTORY

logger = logging.getLogger("flyx.storage")

NEW_PART = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a partial file is opened that is made."""

_KNOWN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

CHECKPOINT_INTERVAL = 1.0
"""Seconds between two checkpoints: as much work as a crash can cost. An fsync for each block would cost more
than the block."""


RESERVE = BLOCK_SIZE
"""Bytes of disk taken before the data, and given back when it has used up the rest: without room, what was
verified could not be recorded. A copy-on-write filesystem needs some even to cut a file."""

_RESERVE_NAME = "reserve"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(slots=True)
class _Partial:
    """A partial file in use.

    Attributes:
        number: in its name, and in the journal.
        written: bytes written.
        digests: those of its blocks.
        recorded: bytes of `digests` that the journal has; None if it does not have the file.
        running: in the place of `digests`, of a stream: it may have any number of blocks.
    """

    number: int
    identity: Identity
    written: int = 0
    digests: bytearray = field(default_factory=bytearray)
    recorded: int | None = None
    running: RunningDigest | None = None


class Partials:
    """The partial files of one transfer, by the index of the file in the manifest.

    One of them is open at a time, however many there are.
    """

    def __init__(self, tree: Tree, durability: Durability, given_up: Event) -> None:
        """Args:
        tree: the output directory.
        durability: of the transfer.
        given_up: set by another thread when the transfer that waits for the read-back has ended.
        """
        self._tree = tree
        self._durability = durability
        self._given_up = given_up
        self._blocks = BlockWriter()
        # Set by begin().
        self._heading: Heading | None = None
        # Where unfinished transfers were found, or this one is.
        self.state_directory = STATE_DIRECTORY
        # Set when an unfinished transfer goes on, or when the first file is begun.
        self._own: StateDirectory | None = None
        # Whether the transfer has been accepted, and _own been made ready for it.
        self._prepared = False
        # Set with _prepared if an unfinished transfer goes on, else at the first checkpoint.
        self._journal: Journal | None = None
        # Set by begin() if an unfinished transfer goes on.
        self._remains: Remains | None = None
        # Where files are that an earlier run has saved.
        self.kept_directories: set[Parts] = set()
        # Whether the journal has files that were saved.
        self._has_saved = False
        self._files: dict[int, _Partial] = {}
        self._next_number = 0
        # The file in use and its handle.
        self._open: tuple[int, int] | None = None
        # Mode bits that the umask, or the directory's default ACL, lets new files have. Set with _prepared.
        self.permitted = 0
        # Directories that the journal has.
        self._recorded_made: set[Parts] = set()
        self._recorded_opened_up: set[Parts] = set()
        self._recorded_names: dict[str, str] = {}
        self._next_checkpoint = time.monotonic() + CHECKPOINT_INTERVAL
        # Set before the first file is begun: it is a stream, which no later run can go on with.
        self.is_stream = False

    # An unfinished transfer goes on.

    def begin(self, manifest_id: str, roots: Sequence[str], algorithms: Sequence[Algorithm]) -> list[Heading]:
        """Find the unfinished transfer of these roots, if there is one; return the headings of others.

        It is locked from then on, and not changed yet.

        Args:
            manifest_id: of what is offered.
            roots: all of them.
            algorithms: what digests can be by, the fastest first.
        """
        self._heading = Heading.of(manifest_id, roots, int(time.time()), algorithms[0])
        if not self._tree.open():
            return []
        own, others, self.state_directory = state.find(self._tree, self._heading)
        if own is None:
            return others
        found = journal.read(own.handle, self._tree)
        if found is None:
            own.release()
            return others
        self._own = own
        if (known := found.heading.algorithm) in algorithms:
            # What is here already need not be hashed anew.
            self._heading = replace(self._heading, algorithm=known)
        self._remains = Remains(
            self._tree, own.handle, found, self._blocks, self._given_up, self._heading.algorithm
        )
        self._has_saved = bool(found.saved)
        self._next_number = max(found.begun, default=-1) + 1
        found.heading = self._heading
        self._recorded_made = set(found.made)
        self._recorded_opened_up = set(found.opened_up)
        self._tree.opened_up |= found.opened_up
        self._tree.made |= found.made
        self._tree.unsynced |= found.made
        self._recorded_names = dict(found.names)
        return others

    def _prepare(self) -> StateDirectory:
        """The transfer has been accepted: return its directory, made ready for it."""
        if self._own is not None and self._prepared:
            return self._own
        state.remove_abandoned(self._tree)
        if self._own is None:
            self._own = state.make(self._tree)
            self.state_directory = self._own.parent
        remains = self._remains
        if remains:
            remains.forget_foreign()
            # First those that nothing is known of: the new journal may need the room.
            self._remove_unknown(self._own, {*remains.contents.begun, *remains.useless})
        self.permitted = self._probe(self._own)
        self._take_reserve(self._own)
        if remains:
            records, doubted = remains.contents.records(), bool(remains.doubted)
            self._journal = Journal(self._own.handle, records, self._durability, doubted=doubted)
            self._remove_unknown(self._own, remains.contents.begun)
        self._prepared = True
        return self._own

    @property
    def algorithm(self) -> Algorithm:
        """What the digests of the transfer are by, since begin()."""
        assert self._heading is not None
        return self._heading.algorithm

    @property
    def needs_all_first(self) -> bool:
        """Whether all entries are to be looked for, with find(), before anything is written: what is found
        has other digests than the transfer, until it is read back."""
        return self._remains is not None and self._remains.is_foreign

    @property
    def has_remains(self) -> bool:
        """Whether an unfinished transfer goes on, so that find() may find something."""
        return self._remains is not None

    @property
    def names(self) -> dict[str, str]:
        """The names that the unfinished transfer gave its roots, where they are not their own."""
        return self._remains.contents.names if self._remains else {}

    @property
    def found_bytes(self) -> int:
        """Bytes that the unfinished transfer has, in partial files and saved ones."""
        return self._remains.size if self._remains else 0

    def is_ours(self, root: str) -> bool:
        """Whether what is there under the name of a root came from the unfinished transfer."""
        name = self.names.get(root, root)
        saved = self._remains is not None and root in self._remains.contents.saved
        return (name,) in self._tree.made or saved

    def find(self, file: int, entry: Entry) -> Kept | BlocksKept | Changed | None:
        """Say what there is of a file from before; what can be used of it will be."""
        remains = self._remains
        if remains is None:
            return None
        number = remains.left.pop(entry.path, None)
        if kept := remains.saved(entry):
            if number is not None:
                remains.set_aside(number)
            self.kept_directories.add(kept.parts[:-1])
            return Kept(file, self._tree.shown(kept.parts), kept.digest)
        if number is None:
            return None
        begun = remains.contents.begun[number]
        digests = bytearray(begun.digests)
        self._files[file] = _Partial(number, begun.identity, begun.size, digests, len(digests))
        if begun.identity != Identity.of(entry):
            self._give_up(file, remains)
            return Changed(file)
        if not remains.is_sound(number):
            self._give_up(file, remains)
            return None
        self._files[file].digests[:] = begun.digests
        return BlocksKept(file, bytes(begun.digests))

    def kept_at(self, entry: Entry) -> Parts:
        """Where a file is that find() has said is Kept."""
        assert self._remains is not None
        return self._remains.contents.saved[entry.path].parts

    def _give_up(self, file: int, remains: Remains) -> None:
        """What was found of a file is of no use."""
        if self._prepared:
            self.discard(file)
        else:
            remains.set_aside(self._files.pop(file).number)

    def _remove_unknown(self, own: StateDirectory, known: Collection[int]) -> None:
        """Remove all but the journal and the partial files of these numbers."""
        names = {journal.NAME, journal.DOUBTED_NAME, *map(part_name, known)}
        for name in names_in(own.handle):
            if name not in names:
                with suppress(OSError):
                    os.unlink(name, dir_fd=own.handle)

    # Writing.

    def has(self, file: int) -> bool:
        """Whether a file has been begun, and has no final name yet."""
        return file in self._files

    def written(self, file: int) -> int:
        """Bytes written of a file so far."""
        return self._files[file].written if file in self._files else 0

    def gather(self, parts: Sequence[bytes | memoryview], unpacked: int = 0) -> memoryview:
        """Return a block, given in parts, as one, to be checked and given to append() before the next.

        Raises:
            ValueError: the parts claim to be a compressed block of `unpacked` bytes, and are none.
        """
        return self._blocks.gather(parts, unpacked)

    def append(self, file: int, entry: Entry, block: memoryview, digest: bytes) -> None:
        """Write a block after those written before.

        If it fails, what part of it was written does not count.
        """
        self._append(
            file,
            entry,
            len(block),
            digest,
            lambda handle, at: self._blocks.write(handle, at, block, max(entry.size, at + len(block))),
        )

    def append_hole(self, file: int, entry: Entry, length: int, digest: bytes) -> None:
        """Leave a hole of one block after those written before. If it fails, it does not count."""
        self._append(file, entry, length, digest, lambda handle, at: self._blocks.skip(handle, at, length))

    def _append(
        self, file: int, entry: Entry, length: int, digest: bytes, write: Callable[[int, int], None]
    ) -> None:
        """Call write() with the handle of a file and the offset after what it has; count what it wrote."""
        if self.checkpoint_is_due:
            self.checkpoint()
        handle = self._handle(file, entry)
        partial = self._files[file]
        try:
            write(handle, partial.written)
        except OSError as error:
            if error.errno not in _NO_SPACE or not self._free_reserve():
                raise
            # It may be just what is missing, once all that has arrived is recorded.
            self.checkpoint()
            write(self._handle(file), partial.written)
        if length:
            partial.written += length
            if partial.running:
                partial.running.add(digest)
            else:
                partial.digests += digest

    def new_place(self) -> tuple[int, str]:
        """Where the next file can be made: the handle of a directory, and a name that nothing has there."""
        return self._prepare().handle, part_name(self._next_number)

    def add_whole(self, file: int, identity: Identity, digest: bytes) -> None:
        """A file of one block, which has this digest, has been made at new_place()."""
        self._files[file] = _Partial(self._next_number, identity, identity.size, bytearray(digest))
        self._next_number += 1

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the next block is preceded by a checkpoint."""
        return time.monotonic() >= self._next_checkpoint

    def checkpoint(self) -> None:
        """Make durable what was written, then record it in the journal.

        Raises:
            OSError: it could not be done. If a sync has failed, now or before, nothing is recorded.
        """
        self._durability.check()
        pending = [(file, p) for file, p in self._files.items() if len(p.digests) > (p.recorded or 0)]
        if pending:
            records: list[Record] = []
            for file, partial in pending:
                handle = self._handle(file)
                self._durability.sync([handle])
                if partial.recorded is None:
                    inode = os.fstat(handle).st_ino
                    records.append(journal.begun_record(partial.number, partial.identity, inode))
                at = partial.recorded or 0
                records.append(journal.blocks_record(partial.number, at // DIGEST_SIZE, partial.digests[at:]))
            writer = self._writer()
            if any(partial.recorded is None for _, partial in pending):
                # Their names there are new as well.
                self._durability.sync([self.source(pending[0][0])[0]])
            writer.append(records)
            self._durability.sync([writer.handle])
            for _, partial in pending:
                partial.recorded = len(partial.digests)
            logger.debug("a checkpoint of %d files is durable", len(pending))
        self._next_checkpoint = time.monotonic() + CHECKPOINT_INTERVAL

    # Finishing.

    def take(self, file: int, entry: Entry) -> int:
        """Return the handle of a file, begun or not, to be closed by the caller: all of it is written.

        The file stays where source() says until forget() or discard().
        """
        handle = self._handle(file, entry)
        self._open = None
        return handle

    def digest_of(self, file: int) -> bytes:
        """The digest of a file that is all written, as digests.py defines it."""
        partial = self._files[file]
        return partial.running.value() if partial.running else self.algorithm.digest(partial.digests)

    def goes_on(self, file: int) -> GoesOn | None:
        """Say how much there is of a stream, if there is anything."""
        partial = self._files.get(file)
        if partial is None or partial.running is None or not partial.written:
            return None
        return GoesOn(file, partial.written, partial.running.copy())

    def source(self, file: int) -> tuple[int, str]:
        """Where a file that has been begun is: the handle of its directory, and its name there."""
        assert self._own is not None
        return self._own.handle, part_name(self._files[file].number)

    def spare(self) -> tuple[int, str]:
        """Return where something that is no file of the transfer can be made, to be moved to its final name.

        That is the handle of a directory, and a name that nothing has there.
        """
        own = self._prepare()
        self._next_number += 1
        return own.handle, f"{self._next_number - 1}.spare"

    def record_saved(self, saved: Sequence[Saved], names: dict[str, str]) -> int:
        """Record names that files will be given; return the handle to sync before they are.

        Args:
            saved: the files.
            names: what roots are called here, if not by their own names.
        """
        records = [["name", *item] for item in names.items() if self._recorded_names.get(item[0]) != item[1]]
        self._writer().append([*records, *(one.record() for one in saved)])
        self._recorded_names.update(names)
        self._has_saved = True
        return self._writer().handle

    def record_directories(self) -> bool:
        """Record what was done to directories since the last time; return whether that was anything.

        That is, which were made, and which get their modes back at the end.
        """
        made = self._tree.made - self._recorded_made
        opened_up = self._tree.opened_up.keys() - self._recorded_opened_up
        if not made and not opened_up:
            return False
        modes = self._tree.opened_up
        self._writer().append(journal.opened_record(parts, modes[parts]) for parts in sorted(opened_up))
        self._writer().append(["made", list(parts)] for parts in sorted(made))
        self._recorded_made |= made
        self._recorded_opened_up |= opened_up
        return True

    def forget(self, file: int) -> None:
        """A file has its final name."""
        del self._files[file]

    def discard(self, file: int) -> None:
        """Remove what there is of a file."""
        if file not in self._files:
            return
        with suppress(OSError):
            self._close_file()
        partial = self._files[file]
        directory, name = self.source(file)
        del self._files[file]
        if partial.recorded is not None:
            self._writer().append([["drop", partial.number]])
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)

    # The end.

    def remove(self) -> None:
        """The transfer is complete: nothing of it is left to go on with."""
        self._let_go(keep=False)

    def keep(self) -> bool:
        """The transfer ends here for now: keep what a later run can go on with, and return whether any is."""
        if self._prepared and not self._durability.failed:
            self._record_all()
        if self._durability.failed and self._own is not None:
            # To sync again would be told that all is well (durability.py).
            self._free_reserve()
            journal.doubt(self._own.handle)
        begun = any(partial.recorded for partial in self._files.values())
        remains = self._remains
        only_shown = remains is not None and not self._prepared
        left = remains is not None and bool(remains.left)
        has_saved = self._has_saved and not self.is_stream
        keep = begun or left or has_saved or only_shown
        logger.debug(
            "what has arrived is %s", "kept for a later run" if keep else "not kept: there is nothing"
        )
        self._let_go(keep=keep)
        return keep

    def _record_all(self) -> None:
        """Record what has arrived, as much of it as the disk has room for."""
        self._free_reserve()
        try:
            self.checkpoint()
        except OSError:
            # On a full disk, the last block makes room for the records of those before it, if the reserve did
            # not. If they cannot be written even so, what was recorded before stays good.
            with suppress(OSError):
                self._give_last_block_back()
                self.checkpoint()
        with suppress(OSError):
            if self._journal is not None:
                self.record_directories()

    def _give_last_block_back(self) -> None:
        self._durability.check()
        for file, partial in self._files.items():
            if len(partial.digests) > (partial.recorded or 0):
                partial.written = (partial.written - 1) // BLOCK_SIZE * BLOCK_SIZE
                del partial.digests[-DIGEST_SIZE:]
                # A copy-on-write filesystem may need space for that, and have found some by the next try.
                with suppress(OSError):
                    os.ftruncate(self._handle(file), partial.written)
                return

    def _let_go(self, *, keep: bool) -> None:
        # A filesystem may say only now that it did not store a file: a later run finds out.
        with suppress(OSError):
            self._close_file()
        self._files.clear()
        if self._journal is not None:
            with suppress(OSError):
                self._journal.close()
            self._journal = None
        if self._own is not None:
            if keep:
                self._own.release()
            else:
                self._own.remove()
            self._own = None
            self._prepared = False

    def _writer(self) -> Journal:
        own = self._prepare()
        if self._journal is None:
            assert self._heading is not None
            self._journal = Journal(own.handle, [self._heading.record()], self._durability)
            self._durability.sync(own.place())
        return self._journal

    # The reserve.

    def _take_reserve(self, own: StateDirectory) -> None:
        # Without it everything works, but on a full disk. macOS has no such call.
        with suppress(OSError):
            if hasattr(os, "posix_fallocate"):
                handle = os.open(_RESERVE_NAME, NEW_PART, 0o600, dir_fd=own.handle)
                try:
                    os.posix_fallocate(handle, 0, RESERVE)
                finally:
                    os.close(handle)

    def _free_reserve(self) -> bool:
        """Give the reserve back; return whether there was one."""
        with suppress(OSError):
            if self._own is not None:
                os.unlink(_RESERVE_NAME, dir_fd=self._own.handle)
                return True
        return False

    # Handles.

    def _handle(self, file: int, entry: Entry | None = None) -> int:
        """Return the handle of a file; `entry` is its own, if it may not have been begun."""
        if self._open and self._open[0] == file:
            return self._open[1]
        if self._open and (last := self._files.get(self._open[0])):
            # The kernel forgets with a file that is not open that it could not be written.
            if len(last.digests) > (last.recorded or 0):
                self._durability.sync([self._open[1]])
        self._close_file()
        own = self._prepare()
        if file in self._files:
            partial = self._files[file]
            handle = open_part(own.handle, partial.number, _KNOWN)
            # What is longer than the journal says was never verified, or never made durable.
            if os.fstat(handle).st_size > partial.written:
                os.ftruncate(handle, partial.written)
        else:
            assert entry is not None
            handle = os.open(part_name(self._next_number), NEW_PART, 0o600, dir_fd=own.handle)
            running = RunningDigest(self.algorithm) if self.is_stream else None
            self._files[file] = _Partial(self._next_number, Identity.of(entry), running=running)
            self._next_number += 1
        self._open = file, handle
        return handle

    def _close_file(self) -> None:
        if self._open:
            (_, handle), self._open = self._open, None
            os.close(handle)

    def _probe(self, own: StateDirectory) -> int:
        """Ask the kernel what mode a new file gets: to read the umask is to change it, for all threads."""
        try:
            return make_file("probe", 0o777, own.handle).st_mode & 0o777
        finally:
            with suppress(OSError):
                os.unlink("probe", dir_fd=own.handle)
