"""The output directory: all in it is reached from one handle, part by part, never through a symbolic link.

A path is walked with openat and O_NOFOLLOW, so that a directory that is, or in the middle of a transfer
becomes, a symbolic link is refused instead of followed: what the kernel has opened is what gets written to.
Only the output directory itself, which the person named, may be reached through links.

POSIX only: it needs the *at family of calls.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from flyx.errors import DestinationExists
from flyx.storage.copying import copied
from flyx.storage.durability import Durability
from flyx.transfer.manifest import BLOCK_SIZE
from flyx.transfer.names import STATE_DIRECTORY

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = getattr(os, "O_PATH", 0)
"""A handle that only stands for a place in the tree, and needs no right to read what is there."""

Parts = tuple[str, ...]
"""A path below the output directory; () is the output directory."""


def open_directory(name: str, parent: int) -> int:
    """Open a directory by its name in another one.

    Raises:
        NotADirectoryError: it is something else, or a symbolic link.
    """
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        raise


def names_in(directory: int) -> list[str]:
    """Return the names in an open directory, as they are now."""
    # A handle may see what was there when it was opened (btrfs, until it is moved), or nothing when it is
    # read for the second time (sshfs).
    try:
        handle = os.open(".", _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return []  # The directory has been removed.
    try:
        return os.listdir(handle)
    finally:
        os.close(handle)


def make_file(name: str, mode: int, directory: int) -> os.stat_result:
    """Make a file with something in it, to be removed or replaced; return its status.

    What is in it is what has rclone store it at once. An empty file it stores some time after it was closed:
    also when it has been removed, and over another file of its name.

    Raises:
        FileExistsError: something has this name.
    """
    handle = os.open(name, _NEW, mode, dir_fd=directory)
    try:
        os.write(handle, b"flyx")
        return os.fstat(handle)
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(handle)


class Tree:
    """The output directory and what is below it.

    Methods raise OSError as the system does, and DestinationExists for what can never be written over.
    """

    def __init__(self, directory: Path, durability: Durability) -> None:
        """Args:
        directory: the output directory, which need not exist.
        durability: of the transfer.
        """
        self.directory = directory
        self._durability = durability
        # What stands before the path of everything below it, as people know it.
        self._shown = str(directory / "_")[:-1]
        # Directories that this transfer made, below the output directory.
        self.made: set[Parts] = set()
        # Those of them whose names may not be durable yet.
        self.unsynced: set[Parts] = set()
        # Directories that were there, closed to their owner, and are open until close(): the modes that they
        # get back.
        self.opened_up: dict[Parts, int] = {}
        # Set while the output directory is open.
        self._base: int | None = None
        # The output directory and those above it, as far as this transfer made them; outermost first.
        self._made_above: list[Path] = []
        # The directory that was last asked for, and its handle: neighbours in a manifest mostly share theirs.
        self._recent: tuple[Parts, int] | None = None
        # Until one has been refused.
        self._has_links = True
        # What the filesystem said of a file that was made to find out what it keeps; set when first asked.
        self._probed: os.stat_result | None = None

    def shown(self, parts: Parts) -> str:
        """The path as people know it: below the directory as they named it."""
        return self._shown + "/".join(parts) if parts else str(self.directory)

    @property
    def base(self) -> int:
        """The handle of the output directory, which must be open."""
        assert self._base is not None
        return self._base

    def open(self) -> bool:
        """Open the output directory; return whether it exists."""
        if self._base is None:
            with suppress(FileNotFoundError):
                self._base = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._base is not None

    def open_or_make(self) -> None:
        """Open the output directory; make it, and those above it, if it is missing."""
        if self.open():
            return
        for directory in reversed((self.directory, *self.directory.parents)):
            if not directory.exists():
                with suppress(FileExistsError):
                    directory.mkdir()
                    self._made_above.append(directory)
        if not self.open():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def release(self) -> None:
        """Let go of the directory in use: the next call walks there anew, and sees what is there then."""
        if self._recent:
            os.close(self._recent[1])
            self._recent = None

    def close(self) -> None:
        """Put things back as they were: the modes of directories that were opened up; the output directory
        away, if this transfer made it and left it empty. Close all handles.
        """
        if self._base is not None:
            self.close_again()
        self.release()
        if self._base is not None:
            os.close(self._base)
            self._base = None
        while self._made_above:
            with suppress(OSError):
                self._made_above.pop().rmdir()

    def is_private(self, status: os.stat_result, kind: int, forbidden: int = WRITABLE_BY_OTHERS) -> bool:
        """Whether what was opened is ours and nobody else's; in a shared directory others can plant things.

        Args:
            status: of what was opened.
            kind: what it should be: stat.S_IFDIR or stat.S_IFREG.
            forbidden: mode bits that it must not have, if the filesystem keeps modes.

        Raises:
            OSError: what the filesystem keeps cannot be found out.
        """
        if stat.S_IFMT(status.st_mode) != kind or not self.is_ours(status):
            return False
        return not status.st_mode & forbidden or bool(self._probe().st_mode & OPEN_TO_OTHERS)

    def is_ours(self, status: os.stat_result) -> bool:
        """Whether what was opened has the owner that the filesystem gives to what we make.

        Raises:
            OSError: that cannot be found out.
        """
        return status.st_uid == os.geteuid() or status.st_uid == self._probe().st_uid

    def _probe(self) -> os.stat_result:
        """Ask the filesystem whose a new file is and who may get at it, of one that is for us alone.

        FAT, shared folders of virtual machines, and many network and FUSE filesystems give everything the
        same owner and mode, and an NFS server makes another user of root.
        """
        if self._probed is None:
            name = f"{STATE_DIRECTORY}-{secrets.token_hex(8)}"
            try:
                self._probed = make_file(name, 0o600, self.base)
            finally:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self.base)
        return self._probed

    def status(self, parts: Parts) -> os.stat_result | None:
        """Return what is at a path, links not followed; None if there is nothing.

        Raises:
            DestinationExists: one of the parts above is not a directory.
        """
        try:
            return os.stat(parts[-1], dir_fd=self.handle(parts[:-1]), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def target_of(self, parts: Parts) -> str | None:
        """Return the target of the symbolic link at a path; None if there is no link."""
        with suppress(OSError):
            return os.readlink(parts[-1], dir_fd=self.handle(parts[:-1]))
        return None

    def are_alike(self, one: Parts, other: Parts) -> bool:
        """Whether two names are those of one file, or one is of a copy of the other: content and time."""
        first, second = self.status(one), self.status(other)
        if first is None or second is None or os.path.samestat(first, second):
            return first is not None and second is not None
        if not (stat.S_ISREG(first.st_mode) and stat.S_ISREG(second.st_mode)):
            return False
        if (first.st_size, first.st_mtime_ns) != (second.st_size, second.st_mtime_ns):
            return False
        with suppress(OSError), self._reading(one) as first_file, self._reading(other) as second_file:
            while block := first_file.read(BLOCK_SIZE):
                if block != second_file.read(BLOCK_SIZE):
                    return False
            return not second_file.read(1)
        return False

    def _reading(self, parts: Parts) -> BinaryIO:
        return open(os.open(parts[-1], _READ, dir_fd=self.handle(parts[:-1])), "rb", buffering=0)

    @property
    def nearest(self) -> Path:
        """The output directory, or what is there of those above it."""
        return next(above for above in (self.directory, *self.directory.parents) if above.exists())

    def handle(self, parts: Parts, missing: Callable[[int], int] | None = None) -> int:
        """Return a handle for a directory, good until the next call of any method.

        Args:
            parts: where it is.
            missing: makes what is missing on the way; called with the number of parts down to the missing
                directory, it returns the mode for it.

        Raises:
            DestinationExists: on the way is something that is not a directory, or a symbolic link.
            FileNotFoundError: it does not exist, and `missing` is None.
        """
        if not parts:
            return self.base
        if self._recent and self._recent[0] == parts:
            return self._recent[1]
        self.release()
        handle = self.base
        try:
            for depth, name in enumerate(parts, 1):
                above, handle = handle, self._enter(handle, parts[:depth], name, missing)
                if above != self.base:
                    os.close(above)
        except BaseException:
            if handle != self.base:
                os.close(handle)
            raise
        self._recent = parts, handle
        return handle

    def _enter(self, above: int, parts: Parts, name: str, missing: Callable[[int], int] | None) -> int:
        try:
            return self._let_in(parts, open_directory(name, above), to_write=missing is not None)
        except PermissionError:
            self._unlock(parts, name, above)
            return open_directory(name, above)
        except NotADirectoryError:
            raise self.in_the_way(parts) from None
        except FileNotFoundError:
            if missing is None:
                raise
        with suppress(FileExistsError):
            os.mkdir(name, missing(len(parts)), dir_fd=above)
            self._made(parts)
        try:
            return open_directory(name, above)
        except NotADirectoryError:
            raise self.in_the_way(parts) from None

    # Directories of this user that are closed to the user, such as those of a tree that is read-only.

    def _let_in(self, parts: Parts, handle: int, *, to_write: bool) -> int:
        """Make sure that a directory which can be read lets us in; return its handle."""
        needed = stat.S_IWUSR | stat.S_IXUSR if to_write else stat.S_IXUSR
        user = os.geteuid()
        if user != 0:
            status = os.fstat(handle)
            if status.st_uid == user and status.st_mode & needed != needed:
                with suppress(OSError):
                    self._open_up(parts, handle, status)
        return handle

    def _unlock(self, parts: Parts, name: str, above: int) -> None:
        """Open a directory up that cannot be read.

        Raises:
            PermissionError: it is not ours, or it is no directory.
        """
        handle = os.open(name, _DIRECTORY | _PATH, dir_fd=above)
        try:
            status = os.fstat(handle)
            if not _PATH or status.st_uid != os.geteuid():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            # A handle that is only a place in the tree takes no fchmod(2).
            self._open_up(parts, f"/proc/self/fd/{handle}", status)
        finally:
            os.close(handle)

    def _open_up(self, parts: Parts, directory: int | str, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        os.chmod(directory, mode | stat.S_IRWXU)
        self.opened_up.setdefault(parts, mode)

    def close_again(self) -> None:
        """Give the directories that were opened up their modes back, the deepest first."""
        user = os.geteuid()
        # The way to one may need another one, above it, to be opened up anew.
        while self.opened_up:
            parts = max(self.opened_up, key=len)
            with suppress(OSError, DestinationExists):
                handle = self.handle(parts)
                status, mode = os.fstat(handle), self.opened_up[parts]
                if (status.st_uid, stat.S_IMODE(status.st_mode)) == (user, mode | stat.S_IRWXU):
                    os.fchmod(handle, mode)
            del self.opened_up[parts]

    def make_root(self, name: str, mode: int) -> bool:
        """Make a directory at the top; return False if something has its name."""
        try:
            os.mkdir(name, mode, dir_fd=self.base)
        except FileExistsError:
            return False
        self._made((name,))
        return True

    def _made(self, parts: Parts) -> None:
        # There may be very many: those in one directory share the strings of its path.
        parts = (*map(sys.intern, parts[:-1]), parts[-1])
        self.made.add(parts)
        self.unsynced.add(parts)

    def unmake(self) -> None:
        """Remove the directories whose names may not last, if they are empty: to be made anew."""
        for parts in sorted(self.unsynced, key=len, reverse=True):
            with suppress(OSError, DestinationExists):
                os.rmdir(parts[-1], dir_fd=self.handle(parts[:-1]))
                self.made.discard(parts)
        self.unsynced.clear()

    def in_the_way(self, parts: Parts) -> DestinationExists:
        """The error for what no policy replaces."""
        return DestinationExists(
            path=self.shown(parts),
            others="",
            hint="files and directories never replace each other, and symbolic links are never followed; "
            "move it away, or choose another directory with -o",
        )

    def place(self, source: tuple[int, str], directory: int, name: str) -> None:
        """Give a finished file its name, unless the name is taken.

        A hard link cannot replace anything, whatever else happens in the directory.

        Args:
            source: the directory that the file is in and its name there; it disappears from it.
            directory: the handle of the directory it shall be in.
            name: its name there.

        Raises:
            FileExistsError: the name is taken.
        """
        source_directory, source_name = source
        if self._has_links:
            try:
                os.link(
                    source_name,
                    name,
                    src_dir_fd=source_directory,
                    dst_dir_fd=directory,
                    follow_symlinks=False,
                )
            except FileExistsError:
                raise
            except OSError as error:
                if error.errno == errno.EXDEV:
                    self._place_copy(source, directory, name)
                    return
                # Where there are no hard links, filesystems say so in many ways: EPERM (FAT), EOPNOTSUPP,
                # ENOSYS, EACCES (Android), ERANGE (CryFS), EIO (rclone). If the true reason is another, what
                # follows says so, too.
            else:
                os.unlink(source_name, dir_fd=source_directory)
                return
        self._place_without_link(source, directory, name)
        self._has_links = False

    def _place_without_link(self, source: tuple[int, str], directory: int, name: str) -> None:
        """Reserve the name with a file, then replace that; a kill between the two leaves it."""
        make_file(name, 0o600, directory)
        try:
            self.replace(source, directory, name)
        except OSError:
            os.unlink(name, dir_fd=directory)
            raise

    def _place_copy(self, source: tuple[int, str], directory: int, name: str) -> None:
        """Place a file where another filesystem is mounted below the output directory."""
        with copied(source, directory, self._durability) as copy:
            try:
                os.link(copy, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                raise
            except OSError:
                self._place_without_link((directory, copy), directory, name)
        os.unlink(source[1], dir_fd=source[0])

    def replace(self, source: tuple[int, str], directory: int, name: str) -> None:
        """Give a finished file its name, in place of another file.

        A link that has the name is replaced, not followed.

        Raises:
            IsADirectoryError: the name is that of a directory.
        """
        try:
            os.replace(source[1], name, src_dir_fd=source[0], dst_dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with copied(source, directory, self._durability) as copy:
                os.replace(copy, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(source[1], dir_fd=source[0])
