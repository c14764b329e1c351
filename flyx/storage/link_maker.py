"""Symbolic and hard links: made when all files have their names, and never followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator
from contextlib import suppress

from flyx.errors import DestinationExists
from flyx.storage.copying import copied
from flyx.storage.durability import Durability
from flyx.storage.failures import refusal_code
from flyx.storage.partial import Partials
from flyx.storage.plan import Plan
from flyx.storage.tree import Parts, Tree
from flyx.transfer import left_out
from flyx.transfer.manifest import Entry, EntryKind

GiveName = Callable[[Parts, Callable[[int, str], None], Callable[[int, str], None]], Parts]
"""Gives something the name of an entry: see Namer.give_name."""

_NO_SYMBOLIC_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
"""Of filesystems that have no symbolic links."""

_NO_HARD_LINKS = _NO_SYMBOLIC_LINKS | {errno.EACCES, errno.ERANGE, errno.EIO, errno.EMLINK, errno.EXDEV}
"""Of those that have no hard links, in whatever way they say so (see Tree.place), or no more of this file."""


class LinkMaker:
    """Makes the links of a transfer."""

    def __init__(
        self, tree: Tree, plan: Plan, partials: Partials, durability: Durability, give_name: GiveName
    ) -> None:
        self._tree = tree
        self._plan = plan
        self._partials = partials
        self._durability = durability
        self._give_name = give_name
        # Where links were made: names there may not be durable.
        self.directories: set[Parts] = set()

    def make_all(
        self, missing: Container[int], saved_at: Callable[[int], Parts]
    ) -> Iterator[tuple[int, str]]:
        """Make all links; yield the indexes of those that cannot be had here, and why (codes of left_out.py).

        Args:
            missing: files that were not saved.
            saved_at: returns where one is that was.

        Raises:
            OSError, FlyxError: it is not for one link alone.
        """
        for index, entry in self._plan.links():
            try:
                if entry.kind is EntryKind.SYMBOLIC_LINK:
                    code = self._make_symbolic(entry)
                elif entry.same_as in missing:
                    code = left_out.NO_FILE
                else:
                    code = self._make_hard(entry, saved_at(entry.same_as))
            except (OSError, DestinationExists) as error:
                code = refusal_code(error)
                if code is None:
                    raise
            if code:
                yield index, code

    def _make_symbolic(self, entry: Entry) -> str | None:
        """Make a symbolic link; return why that cannot be had here, a code of left_out.py, or None.

        Raises:
            OSError, DestinationExists: it could not be made.
        """
        parts = tuple(entry.path.split("/"))
        if self._tree.target_of(self._plan.target(parts)) == entry.target:
            return None

        def place(directory: int, name: str) -> None:
            os.symlink(entry.target, name, dir_fd=directory)

        def replace(directory: int, name: str) -> None:
            spare = self._partials.spare()
            place(*spare)
            self._tree.replace(spare, directory, name)

        try:
            made = self._give_name(parts, place, replace)
        except OSError as error:
            if error.errno not in _NO_SYMBOLIC_LINKS:
                raise
            return left_out.NO_LINKS
        self.directories.add(made[:-1])
        with suppress(OSError):
            times = (entry.mtime_us * 1000, entry.mtime_us * 1000)
            directory = self._tree.handle(made[:-1])
            os.utime(made[-1], ns=times, dir_fd=directory, follow_symlinks=False)
        return None

    def _make_hard(self, entry: Entry, file: Parts) -> str | None:
        """Make another name for a file that was saved, or, where there is no such thing, a copy of it.

        Args:
            entry: of the link.
            file: where the file is.

        Returns:
            Why it cannot be had here, a code of left_out.py, or None.

        Raises:
            OSError, DestinationExists: it could not be made.
        """
        parts = tuple(entry.path.split("/"))
        status = self._tree.status(file)
        if status is None or not stat.S_ISREG(status.st_mode):
            return left_out.NO_FILE
        there = self._tree.status(self._plan.target(parts))
        if there is not None and os.path.samestat(there, status):
            return None
        above = os.dup(self._tree.handle(file[:-1]))
        try:
            self._name_again((above, file[-1]), parts)
        except DestinationExists:
            # An earlier run may have left a copy there.
            if not self._tree.are_alike(self._plan.target(parts), file):
                raise
        finally:
            os.close(above)
        return None

    def _name_again(self, file: tuple[int, str], parts: Parts) -> None:
        def link(directory: int, name: str) -> None:
            os.link(file[1], name, src_dir_fd=file[0], dst_dir_fd=directory, follow_symlinks=False)

        def replace(directory: int, name: str) -> None:
            spare = self._partials.spare()
            link(*spare)
            self._tree.replace(spare, directory, name)

        def place_copy(directory: int, name: str) -> None:
            with copied(file, directory, self._durability) as copy:
                self._tree.place((directory, copy), directory, name)

        def replace_copy(directory: int, name: str) -> None:
            with copied(file, directory, self._durability) as copy:
                self._tree.replace((directory, copy), directory, name)

        try:
            made = self._give_name(parts, link, replace)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            made = self._give_name(parts, place_copy, replace_copy)
        self.directories.add(made[:-1])
