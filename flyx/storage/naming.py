"""Final names: what is complete gets the one that the person wants it to have.

Blocking, for a thread; POSIX only.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from flyx.errors import DestinationExists
from flyx.storage.partial import Partials
from flyx.storage.plan import ExistingPolicy, Plan
from flyx.storage.tree import Parts, Tree
from flyx.storage.whole import Finishing
from flyx.transfer.names import numbered


class Namer:
    """Gives names in the output directory, and makes the directories that they are in."""

    def __init__(self, tree: Tree, plan: Plan, partials: Partials, existing: ExistingPolicy) -> None:
        """Args:
        tree: the output directory.
        plan: what becomes of each entry.
        partials: where files are before they have their names.
        existing: what to do about what has a name already.
        """
        self._tree = tree
        self._plan = plan
        self._partials = partials
        self._existing = existing
        # Neighbours mostly share their directory: that of the last file, and its handle, good until the tree
        # is asked for another one.
        self._above: tuple[Parts, int] | None = None

    def begin(self) -> None:
        """Files are named one after another from here on; of the tree nothing else is asked meanwhile."""
        self._above = None

    def name(self, finishing: Finishing) -> Parts:
        """Move a file that is durable to its final name, and return that."""
        source, target = self._partials.source(finishing.file), finishing.target
        if self._existing is not ExistingPolicy.REFUSE:
            self._above = None
            return self.give_name(
                tuple(finishing.entry.path.split("/")),
                lambda directory, name: self._tree.place(source, directory, name),
                lambda directory, name: self._tree.replace(source, directory, name),
            )
        if self._above is None or self._above[0] != target[:-1]:
            self._above = None
            self._above = target[:-1], self.directory(tuple(finishing.entry.path.split("/")[:-1]))
        try:
            self._tree.place(source, self._above[1], target[-1])
        except FileExistsError:
            raise self._exists(target) from None
        return target

    def give_name(
        self, parts: Parts, place: Callable[[int, str], None], replace: Callable[[int, str], None]
    ) -> Parts:
        """Give something the name of an entry, as the person wants it, and return that.

        Args:
            parts: the entry's path in the manifest.
            place: gives it a name in a directory, FileExistsError if that is taken.
            replace: the same, in place of what has the name, IsADirectoryError if that is a directory.
        """
        directory = self.directory(parts[:-1])
        target = self._plan.target(parts)
        if self._existing is ExistingPolicy.OVERWRITE:
            try:
                replace(directory, target[-1])
            except IsADirectoryError:
                raise self._tree.in_the_way(target) from None
            return target
        for n in count(1):
            try:
                place(directory, target[-1])
                break
            except FileExistsError:
                if self._existing is ExistingPolicy.REFUSE:
                    raise self._exists(target) from None
                target = (*target[:-1], numbered(parts[-1], n))
        return target

    def _exists(self, target: Parts) -> DestinationExists:
        """The error for what was not there when the transfer was planned."""
        return DestinationExists(path=self._tree.shown(target), others="")

    def directory(self, parts: Parts) -> int:
        """Return the handle of the directory with this path in the manifest; make what is missing of it."""
        if not parts:
            return self._tree.base
        if self._existing is ExistingPolicy.RENAME:
            self._claim_root(parts[0])
        return self._tree.handle(
            self._plan.target(parts), lambda depth: self._plan.directory_mode(parts[:depth])
        )

    def _claim_root(self, root: str) -> None:
        """Make sure that a tree is not poured into a directory that appeared since it was planned."""
        while (name := self._plan.target((root,))) not in self._tree.made:
            if not self._tree.make_root(name[0], self._plan.directory_mode((root,))):
                self._plan.choose_name(root, is_directory=True)
