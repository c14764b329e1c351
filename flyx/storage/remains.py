"""What an earlier run of a transfer has left, and what of it can be believed.

That is: that a partial file of the inode in the journal, at least as long as the journal says, still has the
bytes that were verified before they were written. The last of their blocks is read from the disk to see that
it kept its word, and no more: the first new byte of a file of 10 GB does not wait for 10 GB to be read. A
file of another inode is read back whole: FAT and many FUSE filesystems number their files anew. So is a saved
file of another time, where the filesystem never had the time that it should have. So is all of it if its
digests are by an algorithm that the sender does not know, to have others. If a sync has failed, the run that
met it writes nothing more to the journal, and later ones read back all that the journal says, until one has
done so with all of it and goes on.

Nothing is changed here, but for the mode of a partial file that cannot be read.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from threading import Event

from msgspec.structs import replace

from flyx.errors import DestinationExists, LocalProtocolError
from flyx.storage.blocks import BlockWriter
from flyx.storage.journal import Contents, Identity, Saved
from flyx.storage.tree import Tree
from flyx.transfer.digests import DIGEST_SIZE, Algorithm, RunningDigest
from flyx.transfer.manifest import BLOCK_SIZE, Entry

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KNOWN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_REFUSALS = {
    *(errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.EINVAL, errno.EBADF, errno.ESPIPE),
}
"""Of filesystems that only upload whole files: EPERM and ESPIPE are rclone's."""


class Remains:
    """What the journal of an unfinished transfer says, beside what there is.

    Attributes:
        contents: what the journal says, without what has been found to be of no use.
        left: numbers of the partial files by path; without those that were asked for.
        useless: numbers of those that are of no use, and wait for the transfer to be accepted to be removed.
        doubted: what cannot be believed before it has been read back: numbers of partial files, paths of
            saved ones.
        is_foreign: its digests are by another algorithm than those of the transfer.
    """

    def __init__(
        self,
        tree: Tree,
        directory: int,
        contents: Contents,
        blocks: BlockWriter,
        given_up: Event,
        algorithm: Algorithm,
    ) -> None:
        """Args:
        tree: the output directory.
        directory: handle of the one that the partial files are in.
        contents: what the journal there says.
        blocks: reads them back.
        given_up: set by another thread when the transfer that waits for the read-back has ended.
        algorithm: what the digests of the transfer are by; what is found to be good has them so.
        """
        self._tree = tree
        self._directory = directory
        self._blocks = blocks
        self._given_up = given_up
        self.contents = contents
        self.left = {begun.identity.path: number for number, begun in contents.begun.items()}
        self.useless: set[int] = set()
        self._stored_by = contents.heading.algorithm
        self._algorithm = algorithm
        self.is_foreign = self._stored_by is not algorithm
        # What is believed unread.
        self._is_trusted = not (contents.doubted or self.is_foreign)
        self.doubted: set[int | str] = set() if self._is_trusted else {*contents.begun, *contents.saved}

    @property
    def size(self) -> int:
        """Bytes in partial files and saved ones."""
        saved = sum(saved.identity.size for saved in self.contents.saved.values())
        return saved + sum(begun.size for begun in self.contents.begun.values())

    def set_aside(self, number: int) -> None:
        """What is in this partial file is of no use."""
        del self.contents.begun[number]
        self.doubted.discard(number)
        self.useless.add(number)

    def forget_foreign(self) -> None:
        """The journal is written anew: leave out what has not been read back."""
        if self.is_foreign:
            for one in tuple(self.doubted):
                if isinstance(one, int):
                    self.left.pop(self.contents.begun[one].identity.path, None)
                    self.set_aside(one)
                else:
                    del self.contents.saved[one]
            self.doubted.clear()

    def saved(self, entry: Entry) -> Saved | None:
        """Where this file was saved before, if it is still there as it was.

        Raises:
            LocalProtocolError: the destination was given up meanwhile.
        """
        saved = self.contents.saved.get(entry.path)
        if saved is None or saved.identity != Identity.of(entry):
            return None
        with suppress(OSError, DestinationExists):
            status = self._tree.status(saved.parts)
            if status is None or not saved.is_like(status):
                return None
            known = saved.is_same(status) and self._is_trusted
            digest = saved.digest if known else self._read_saved(saved)
            self.doubted.discard(entry.path)
            if digest is None:
                del self.contents.saved[entry.path]
                return None
            saved = replace(saved, inode=status.st_ino, mtime_ns=status.st_mtime_ns, digest=digest)
            self.contents.saved[entry.path] = saved
            return saved
        return None

    def _read_saved(self, saved: Saved) -> bytes | None:
        """Read a file that was saved back; return its digest, None if the disk has another.

        Raises:
            OSError: it does not say.
            LocalProtocolError: the destination was given up meanwhile.
        """
        stored, wanted = RunningDigest(self._stored_by), RunningDigest(self._algorithm)
        handle = os.open(saved.parts[-1], _READ, dir_fd=self._tree.handle(saved.parts[:-1]))
        try:
            for one, other in self._read_back(handle, 0, saved.identity.size):
                stored.add(one)
                wanted.add(other)
        finally:
            os.close(handle)
        return wanted.value() if stored.value() == saved.digest else None

    def is_sound(self, number: int) -> bool:
        """Whether a partial file has what the journal says; more than that is cut off before it is used.

        Raises:
            LocalProtocolError: the destination was given up meanwhile.
        """
        begun = self.contents.begun[number]
        if not begun.digests or not self._files_grow:
            return False
        try:
            handle = open_part(self._directory, number, _READ)
        except OSError:
            return False
        try:
            status = os.fstat(handle)
            # Two names: a crash came between the two steps of giving it its final one.
            one = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size >= begun.size
            # Others cannot get here, so the mode does not matter: it may be the final one already.
            if not one or not self._tree.is_ours(status):
                return False
            whole = not self._is_trusted or status.st_ino != begun.inode
            first = 0 if whole else (begun.size - 1) // BLOCK_SIZE
            for index, (stored, wanted) in enumerate(self._read_back(handle, first, begun.size), first):
                place = slice(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE)
                if stored != begun.digests[place]:
                    return False
                begun.digests[place] = wanted
        except OSError:
            return False
        finally:
            os.close(handle)
        begun.inode = status.st_ino
        self.doubted.discard(number)
        return True

    @cached_property
    def _files_grow(self) -> bool:
        """Whether more can be written to a file that has been closed: what only uploads whole files cannot.

        If that cannot be found out, because the disk is full or fails, they are taken to grow. The file that
        is made to find out is removed, and the directory gets its time back.
        """
        name = f"{secrets.token_hex(8)}.probe"
        status = os.fstat(self._directory)
        try:
            for flags, at in ((_NEW, 0), (_KNOWN, 1)):
                handle = os.open(name, flags, 0o600, dir_fd=self._directory)
                try:
                    os.ftruncate(handle, at)
                    os.pwrite(handle, b"x", at)
                finally:
                    os.close(handle)
        except OSError as error:
            return error.errno not in _REFUSALS
        finally:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._directory)
                os.utime(self._directory, ns=(status.st_atime_ns, status.st_mtime_ns))
        return True

    def _read_back(self, handle: int, first: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the digest of each block from `first` on that the disk has of a file of this size, by the
        algorithm of the journal and by that of the transfer.

        Raises:
            OSError: it cannot be read.
            LocalProtocolError: the destination was given up meanwhile.
        """
        for at in range(first * BLOCK_SIZE, size, BLOCK_SIZE):
            if self._given_up.is_set():
                raise LocalProtocolError(reason="the destination was given up")
            block = self._blocks.read_back(handle, at, min(BLOCK_SIZE, size - at))
            stored = self._stored_by.digest(block)
            yield stored, self._algorithm.digest(block) if self.is_foreign else stored


def part_name(number: int) -> str:
    """The name of a partial file."""
    return f"{number}.part"


def open_part(directory: int, number: int, flags: int) -> int:
    """Open a partial file whatever its mode; return its handle.

    A run that is killed while it saves a file leaves it with its final mode, which may let its owner neither
    read nor write it.
    """
    name = part_name(number)
    try:
        return os.open(name, flags, dir_fd=directory)
    except PermissionError:
        os.chmod(name, 0o600, dir_fd=directory)
        return os.open(name, flags, dir_fd=directory)
