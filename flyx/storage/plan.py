"""What a transfer will make of the output directory, found out before anything is changed there."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator, Sequence
from enum import Enum
from itertools import count

from flyx.errors import (
    DestinationExists,
    LocalProtocolError,
    RemoteProtocolError,
    StorageError,
    UnsafeName,
)
from flyx.storage.failures import free_space, no_space
from flyx.storage.partial import Partials
from flyx.storage.tree import Parts, Tree
from flyx.transfer.manifest import Entries, Entry, EntryKind
from flyx.transfer.names import NameLedger, check_path, fold, numbered


class ExistingPolicy(Enum):
    """What to do when a file that arrives has the name of one that is there.

    Whatever the policy, directories are merged with those that are there, and a file and a directory never
    replace each other.
    """

    REFUSE = "refuse"
    OVERWRITE = "overwrite"
    RENAME = "rename"
    """Give each root that is there another name, "photos (1)", so that a tree stays together."""


class Plan:
    """The entries that may be written, and where."""

    def __init__(self, tree: Tree, existing: ExistingPolicy) -> None:
        self._tree = tree
        self._existing = existing
        # All planned so far, or being planned; set anew with the first.
        self._entries = Entries()
        self._ledger = NameLedger(self._entries)
        # Entries that are planned, and whether more can be: what was refused is in the ledger all the same.
        self._planned = 0
        self._refused = False
        self._bytes = 0
        # Set by begin().
        self.total_bytes: int | None = None
        # The roots announced, and the name that each has here.
        self._names: dict[str, str] = {}
        # What no other root may be called: all names announced or chosen, by their fold().
        self._spoken_for: set[str] = set()
        # Roots of which something was there at the start, and still will be when their entries come.
        self._taken: set[str] = set()

    def check_roots(self, roots: Sequence[str]) -> None:
        """Raise UnsafeName unless every root is one safe name."""
        if self.total_bytes is not None:
            raise LocalProtocolError(reason="a transfer was planned twice")
        for root in roots:
            if len(check_path(root)) != 1:
                raise UnsafeName(name=root, reason="it is more than one name")

    def begin(self, roots: Sequence[str], total_bytes: int, partials: Partials) -> bool:
        """Look at the roots and the free space, after check_roots(); change nothing.

        Args:
            roots: all of them.
            total_bytes: bytes in all entries.
            partials: what there is of the transfer from before.

        Returns:
            Whether nothing can be in the way of any entry.
        """
        self._check_space(max(0, total_bytes - partials.found_bytes))
        self._names = {root: partials.names.get(root, root) for root in roots}
        self._spoken_for = {fold(name) for name in (*roots, *self._names.values())}
        if self._tree.open():
            self._taken = {root for root, name in self._names.items() if self._tree.status((name,))}
        if self._existing is ExistingPolicy.RENAME:
            self._taken = {root for root in self._taken if not partials.is_ours(root)}
        self.total_bytes = total_bytes
        return not self._taken or self._existing is ExistingPolicy.RENAME

    def _check_space(self, total_bytes: int) -> None:
        directory = self._tree.directory
        nearest = next(above for above in (directory, *directory.parents) if above.exists())
        if not nearest.is_dir():
            raise StorageError(action="write to", path=str(directory), reason=f"{nearest} is not a directory")
        if not os.access(nearest, os.W_OK | os.X_OK):
            read_only = os.statvfs(nearest).f_flag & os.ST_RDONLY
            reason = "the filesystem is read-only" if read_only else "permission denied"
            raise StorageError(action="write to", path=str(nearest), reason=reason)
        free = free_space(nearest)
        if free is not None and free < total_bytes:
            raise no_space(directory, total_bytes, free)

    def extend(self, first: int, entries: Sequence[Entry], kept: Container[int] = ()) -> int:
        """Check the next entries; return the number of entries that are planned by now. A refusal is final.

        Args:
            first: index of the first of them.
            entries: the entries.
            kept: indexes of files that are in their place already, saved by an earlier run.

        Raises:
            DestinationExists: with the first of these entries that has a file in its way, and how many more
                have.
            UnsafeName: a name that is refused.
            RemoteProtocolError: an entry that was not announced.
        """
        if self.total_bytes is None or self._refused or first != self._planned:
            raise LocalProtocolError(reason="entries were planned out of order")
        self._refused = True  # unless the end is reached
        self._keep(entries)
        taken: list[Parts] = []
        for file, entry in enumerate(entries, first):
            parts = self._ledger.add(entry.path, entry.kind is EntryKind.DIRECTORY)
            self._check_announced(parts[0], entry)
            if parts[0] in self._taken and file not in kept:
                self._meet(parts, entry, taken)
        if taken:
            others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise DestinationExists(path=self._tree.shown(taken[0]), others=others)
        self._planned += len(entries)
        self._refused = False
        return self._planned

    def _keep(self, entries: Sequence[Entry]) -> None:
        """Have the next entries where the ledger looks names up."""
        kept = self._entries.followed_by(entries)
        if kept is not self._entries:
            # They are the first, of a manifest that others keep, too.
            self._entries = kept
            self._ledger = NameLedger(kept)

    def _check_announced(self, root: str, entry: Entry) -> None:
        assert self.total_bytes is not None
        self._bytes += entry.size
        if root not in self._names:
            raise RemoteProtocolError(reason="an entry below a root that was not announced")
        if self._bytes > self.total_bytes:
            raise RemoteProtocolError(reason="more bytes than were announced")

    def _meet(self, parts: Parts, entry: Entry, taken: list[Parts]) -> None:
        """Judge an entry below a root of which something is there."""
        directory = entry.kind is EntryKind.DIRECTORY
        if self._existing is ExistingPolicy.RENAME:
            self._taken.remove(parts[0])
            self.choose_name(parts[0], is_directory=directory or len(parts) > 1)
            return
        target = self.target(parts)
        there = self._tree.status(target)
        if there is None:
            return
        if directory != stat.S_ISDIR(there.st_mode):
            raise self._tree.in_the_way(target)
        if not directory and self._existing is ExistingPolicy.REFUSE:
            taken.append(target)

    def choose_name(self, root: str, *, is_directory: bool) -> None:
        """Give a root another name, which is neither there nor any other root's."""
        for n in count(1):
            name = numbered(root, n, is_directory=is_directory)
            if fold(name) not in self._spoken_for and self._tree.status((name,)) is None:
                self._names[root] = name
                self._spoken_for.add(fold(name))
                return

    def new_names(self) -> dict[str, str]:
        """The roots that go by another name here."""
        return {root: name for root, name in self._names.items() if name != root}

    def entry(self, file: int) -> Entry:
        """The entry of a file that is planned."""
        if 0 <= file < self._planned and (entry := self._entries[file]).kind is EntryKind.FILE:
            return entry
        raise LocalProtocolError(reason=f"entry {file} is not a file that was planned")

    def target(self, parts: Parts) -> Parts:
        """Where the entry of this path goes."""
        return (self._names[parts[0]], *parts[1:])

    def directory_mode(self, parts: Parts) -> int:
        """The mode to make a directory with: that of its entry, but open to ourselves until all is done."""
        index = self._ledger.listed(parts)
        return (0o777 if index is None else self._entries[index].mode & 0o777) | 0o700

    def directories(self) -> Iterator[tuple[Parts, Entry]]:
        """The directories that are entries, by their path in the manifest, those above first."""
        depths = [
            (entry.path.count("/"), index)
            for index, entry in enumerate(self._entries[: self._planned])
            if entry.kind is EntryKind.DIRECTORY
        ]
        for _, index in sorted(depths):
            entry = self._entries[index]
            yield tuple(entry.path.split("/")), entry
