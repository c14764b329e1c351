"""Files of one block that arrive whole, as most do of a transfer of very many: each is written and completed
with as few system calls as there can be, each of which lets go of the interpreter and has to wait for it.

Blocking, for a thread; POSIX only.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from msgspec import Struct

from flyx.errors import CorruptData
from flyx.storage.attributes import set_mode, set_times
from flyx.storage.journal import Identity
from flyx.storage.partial import NEW_PART, Partials
from flyx.storage.plan import Plan
from flyx.storage.tree import Parts
from flyx.transfer.disk import WriteBlock
from flyx.transfer.manifest import Entry


class Finishing(Struct, frozen=True):
    """A file that is complete, and waits for its group to be saved.

    Attributes:
        target: where it goes, unless something is there by then.
        position: of its result among those of the batch.
        inode: what it is recorded with, as is `mtime_ns`.
    """

    file: int
    entry: Entry
    target: Parts
    handle: int
    position: int
    digest: bytes
    inode: int
    mtime_ns: int


class WholeFiles:
    """Makes partial files that are complete at once."""

    def __init__(self, plan: Plan, partials: Partials) -> None:
        self._plan = plan
        self._partials = partials

    def complete(self, block: WriteBlock, position: int) -> Finishing | None:
        """Verify, write and complete a file of this block alone; None if it is not, or there is a part of it.

        Raises:
            FlyxError: it is not to be written.
            OSError: it cannot be written; nothing is left of it.
        """
        file, partials = block.file, self._partials
        entry = self._plan.entry(file)
        is_one = len(block.parts) == 1 and not (block.unpacked or block.hole or block.offset)
        if not is_one or len(block.parts[0]) != entry.size or partials.is_stream or partials.has(file):
            return None
        data, hasher = block.parts[0], partials.algorithm.hasher
        if hasher(data).digest() != block.digest:
            raise CorruptData(path=entry.path)
        target = self._plan.target(tuple(entry.path.split("/")))
        directory, name = partials.new_place()
        mode = entry.mode & partials.permitted
        # What is there of it can always be opened by a later run.
        handle = os.open(name, NEW_PART, mode | 0o600, dir_fd=directory)
        try:
            if os.pwrite(handle, data, 0) != entry.size:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            set_times(handle, time.time_ns(), entry.mtime_us)
            status = os.fstat(handle)
            if status.st_mode & 0o7777 != mode:
                set_mode(handle, mode)
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise
        partials.add_whole(file, Identity.of(entry), block.digest)
        digest = hasher(block.digest).digest()
        return Finishing(file, entry, target, handle, position, digest, status.st_ino, status.st_mtime_ns)
