"""What a transfer will make of the output directory, found out before anything is changed there."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
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
from flyx.storage.probe import NameProbe
from flyx.storage.tree import Parts, Tree
from flyx.transfer import left_out
from flyx.transfer.ledger import NameLedger
from flyx.transfer.manifest import Entries, Entry, EntryKind
from flyx.transfer.names import NameJudge, NamePolicy, check_path, fold, link_stays_inside, numbered
from flyx.transfer.selection import Selection

_ELSEWHERE = "choose another directory with -o"


class ExistingPolicy(Enum):
    """What to do when a file that arrives has the name of one that is there.

    Whatever the policy, directories are merged with those that are there, and a file and a directory never
    replace each other.
    """

    REFUSE = "refuse"
    OVERWRITE = "overwrite"
    RENAME = "rename"
    """Give each root that is there another name, "photos (1)", so that a tree stays together."""


class Skip(Enum):
    """Which files that arrive are left out, before ExistingPolicy says anything."""

    NOTHING = "nothing"
    SAME = "same"
    """Those that are there with the same size and time."""

    CONTENT = "content"
    """Those that are there with the same size and content."""

    EXISTING = "existing"
    """Those, and all others whose name something other than a directory has."""


def needs_all(selection: Selection | None, skip: Skip) -> bool:
    """Tell whether all that is offered is needed, whatever is there."""
    return selection is None and skip is Skip.NOTHING


class Plan:
    """The entries that may be written, and where."""

    def __init__(
        self,
        tree: Tree,
        existing: ExistingPolicy,
        names: NamePolicy,
        selection: Selection | None = None,
        skip: Skip = Skip.NOTHING,
    ) -> None:
        """Args:
        selection: what is wanted of what is offered; None: all of it.
        skip: what is left out for what is there.
        """
        self._tree = tree
        self._existing = existing
        self._name_policy = names
        self._selection = selection
        self._skip = skip
        self.needs_all = needs_all(selection, skip)
        # All planned so far, or being planned; set anew with the first.
        self._entries = Entries()
        # Entries that are planned, and whether more can be: what was refused is in the ledger all the same.
        self._planned = 0
        self._refused = False
        self._bytes = 0
        # Files that are there with the same size, until it is known whether with the same content.
        self._in_doubt: list[int] = []
        # By entry: whether it is left out, and whether it is a directory that is made only for others.
        self._absent = bytearray()
        self._only_above = bytearray()
        # Set by begin().
        self.total_bytes: int | None = None
        # Set by begin(): how much room there was, None if unknown, and how many bytes need none.
        self._free: int | None = None
        self._spared_bytes = 0
        # Of the entries that are not wanted, or here.
        self._unneeded_bytes = 0
        # Set by begin(): the directory to try names in, what tries them, and what judges them; the ledger is
        # set anew with the first entries.
        self._place: int | None = None
        self._probe: NameProbe | None = None
        self._judge: NameJudge | None = None
        self._ledger: NameLedger | None = None
        # The roots announced: the name that each has here, or why it is left out.
        self._names: dict[str, str] = {}
        self._root_faults: dict[str, str] = {}
        # What roots are called here, and those announced as well, by fold().
        self._spoken_for: defaultdict[str, list[str]] = defaultdict(list)
        # Roots of which something was there at the start, and still will be when their entries come.
        self._taken: set[str] = set()

    def check_roots(self, roots: Sequence[str]) -> None:
        """Raise UnsafeName unless every root is one safe name."""
        if self.total_bytes is not None:
            raise LocalProtocolError(reason="a transfer was planned twice")
        for root in roots:
            if len(check_path(root)) != 1:
                raise UnsafeName(name=root, reason="it is more than one name")

    def begin(self, roots: Sequence[str], total_bytes: int, hole_bytes: int, partials: Partials) -> bool:
        """Look at the roots and the free space, after check_roots() and check_place(); change nothing.

        Args:
            roots: all of them.
            total_bytes: bytes in all entries.
            hole_bytes: how many of them are in holes, and need no space.
            partials: what there is of the transfer from before.

        Returns:
            Whether nothing can be in the way of any entry, and all of them are needed: else it matters to
            know them all first.
        """
        self._free = free_space(self._tree.nearest)
        self._spared_bytes = hole_bytes + partials.found_bytes
        if self.needs_all:
            self._check_space(total_bytes)
        self._place = os.open(self._tree.nearest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._probe = NameProbe(self._place)
        self._judge = NameJudge(self._probe, self._name_policy)
        for root in roots:
            self._name_root(root, partials.names.get(root))
        for root in roots:
            self._spoken_for[fold(root)].append(root)
        if self._tree.open():
            self._taken = {root for root, name in self._names.items() if self._tree.status((name,))}
        if self._existing is ExistingPolicy.RENAME:
            self._taken = {root for root in self._taken if not partials.is_ours(root)}
        self.total_bytes = total_bytes
        nothing_in_the_way = not self._taken or self._existing is ExistingPolicy.RENAME
        return nothing_in_the_way and self.needs_all

    def close(self) -> None:
        """Leave nothing behind. Any number of times."""
        if self._probe is not None and self._place is not None:
            self._probe.close()
            os.close(self._place)
            self._place = None

    def rest(self) -> None:
        """Leave nothing behind until names are judged again."""
        if self._probe is not None:
            self._probe.rest()

    def _name_root(self, root: str, known: str | None) -> None:
        """Find out what a root is called here: what an earlier run called it, or its own name if possible."""
        assert self._judge is not None
        name, fault = known or root, None
        if known is None:
            fault = self._judge.fault(root)
            if fault is None and self._is_taken(root):
                fault = left_out.SAME_NAME
            if fault and self._name_policy is NamePolicy.SAFE:
                changed = self._judge.changed(root, is_directory=False)
                name, fault = next(one for one in changed if not self._is_taken(one)), None
        if fault:
            self._root_faults[root] = fault
        else:
            self._names[root] = name
            self._spoken_for[fold(name)].append(name)

    def _is_taken(self, name: str) -> bool:
        """Whether a root is called so here, or so that the filesystem cannot tell them apart."""
        assert self._judge is not None
        return any(self._judge.are_one(name, other) for other in self._spoken_for.get(fold(name), ()))

    def check_place(self) -> None:
        """Raise StorageError unless the output directory is one, or can be made, and may be written into."""
        directory, nearest = self._tree.directory, self._tree.nearest
        if not nearest.is_dir():
            reason = f"{nearest} is not a directory"
            raise StorageError(action="write to", path=str(directory), reason=reason, hint=_ELSEWHERE)
        if not os.access(nearest, os.W_OK | os.X_OK):
            read_only = os.statvfs(nearest).f_flag & os.ST_RDONLY
            reason = "the filesystem is read-only" if read_only else "permission denied"
            raise StorageError(action="write to", path=str(nearest), reason=reason, hint=_ELSEWHERE)

    def _check_space(self, size: int) -> None:
        """Make sure that there was room for so many bytes when the transfer began."""
        needed = max(0, size - self._spared_bytes)
        if self._free is not None and self._free < needed:
            raise no_space(self._tree.directory, needed, self._free)

    def extend(
        self, first: int, entries: Sequence[Entry], kept: Container[int] = ()
    ) -> tuple[int, tuple[tuple[int, str], ...], tuple[int, ...]]:
        """Check the next entries. A refusal is final.

        Args:
            first: index of the first of them.
            entries: the entries.
            kept: indexes of files that are in their place already, saved by an earlier run.

        Returns:
            The number of entries that are planned by now; indexes of those of them that are left out, and why
            (codes of left_out.py); and of files that settle() decides about.

        Raises:
            DestinationExists: with the first of these entries that has a file in its way, and how many more
                have.
            UnsafeName: a name that is refused.
            RemoteProtocolError: an entry that was not announced.
        """
        if self.total_bytes is None or self._refused or first != self._planned:
            raise LocalProtocolError(reason="entries were planned out of order")
        self._refused = True  # unless the end is reached
        ledger = self._keep(entries)
        taken: list[Parts] = []
        absent: list[tuple[int, str]] = []
        in_doubt: list[int] = []
        for index, entry in enumerate(entries, first):
            is_directory = entry.kind is EntryKind.DIRECTORY
            code = ledger.add(entry.path, is_directory)
            self._check_announced(entry)
            is_wanted = self._selection is None or self._selection.wants(
                entry.path, is_directory=is_directory
            )
            if not (is_wanted or is_directory):
                code = left_out.NOT_WANTED
            elif entry.kind is not EntryKind.FILE:
                code = code or self._fault_of_link(entry)
            self._absent.append(code is not None)
            self._only_above.append(not is_wanted)
            if not is_wanted:
                # Of a directory nothing is told: it may be made for what is in it.
                self._unneeded_bytes += entry.size
                absent += () if is_directory else [(index, left_out.NOT_WANTED)]
            elif code:
                absent.append((index, code))
            elif not self._taken or entry.root not in self._taken or index in kept:
                continue
            elif (code := self._skipped(entry)) == _IN_DOUBT:
                self._unneeded_bytes += entry.size
                in_doubt.append(index)
            elif code:
                # A hard link to a file that is here can be made.
                self._absent[index] = code != left_out.ALREADY_HERE
                self._unneeded_bytes += entry.size
                absent.append((index, code))
            else:
                self._meet(tuple(entry.path.split("/")), entry, taken)
        self._check_needs(taken)
        self._in_doubt += in_doubt
        self._planned += len(entries)
        self._refused = False
        return self._planned, tuple(absent), tuple(in_doubt)

    def settle(self, same: Container[int]) -> tuple[tuple[int, str], ...]:
        """Decide about the files in doubt, when all entries are planned.

        Args:
            same: indexes of those whose content is the same.

        Returns:
            As extend(), what is left out.

        Raises:
            DestinationExists: some are others, and not to be replaced.
        """
        in_doubt, self._in_doubt = self._in_doubt, []
        taken: list[Parts] = []
        for index in in_doubt:
            if index not in same:
                entry = self._entries[index]
                self._unneeded_bytes -= entry.size
                self._meet(tuple(entry.path.split("/")), entry, taken)
        self._check_needs(taken)
        return tuple((index, left_out.ALREADY_HERE) for index in in_doubt if index in same)

    def _check_needs(self, taken: Sequence[Parts]) -> None:
        """Make sure that there is room, and that nothing is in the way of what has been planned by now."""
        if not self.needs_all:
            self._check_space(self._bytes - self._unneeded_bytes)
        if taken:
            others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise DestinationExists(path=self._tree.shown(taken[0]), others=others)

    def _keep(self, entries: Sequence[Entry]) -> NameLedger:
        """Have the next entries where the ledger looks names up; return it."""
        assert self._judge is not None
        kept = self._entries.followed_by(entries)
        if kept is not self._entries or self._ledger is None:
            # They are the first, of a manifest that others keep, too.
            self._entries = kept
            self._ledger = NameLedger(kept, self._judge, self._root_faults)
        return self._ledger

    def _fault_of_link(self, entry: Entry) -> str | None:
        """Why a link cannot be made, as far as the manifest says; None for other entries."""
        if entry.kind is EntryKind.SYMBOLIC_LINK:
            stays = link_stays_inside(entry.path, entry.target, self._names)
            return None if stays else left_out.LINK_OUTSIDE
        if entry.kind is EntryKind.HARD_LINK:
            if entry.same_as >= len(self._absent) or self._entries.kind(entry.same_as) is not EntryKind.FILE:
                raise RemoteProtocolError(reason="a hard link to what is no file before it")
            return left_out.NO_FILE if self._absent[entry.same_as] else None
        return None

    def _check_announced(self, entry: Entry) -> None:
        assert self.total_bytes is not None
        self._bytes += entry.size
        root = entry.root
        if root not in self._names and root not in self._root_faults:
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
        if not directory and self._existing is ExistingPolicy.REFUSE and not self._is_made(entry, target):
            taken.append(target)

    def _skipped(self, entry: Entry) -> str | None:
        """Why an entry is left out for what is there under its name, if it is, or _IN_DOUBT."""
        if self._skip is Skip.NOTHING or entry.kind is EntryKind.DIRECTORY:
            return None
        target = self.target(tuple(entry.path.split("/")))
        there = self._tree.status(target)
        if there is None or stat.S_ISDIR(there.st_mode) or self._is_made(entry, target):
            return None
        if entry.kind is EntryKind.FILE and stat.S_ISREG(there.st_mode) and there.st_size == entry.size:
            if self._skip is Skip.CONTENT and entry.size:
                return _IN_DOUBT
            if self._skip is Skip.CONTENT or _has_time(there, entry):
                return left_out.ALREADY_HERE
        return left_out.NOT_WANTED if self._skip is Skip.EXISTING else None

    def _is_made(self, entry: Entry, target: Parts) -> bool:
        """Whether a link, or the copy that is in place of a hard one, is there from an earlier run."""
        if entry.kind is EntryKind.SYMBOLIC_LINK:
            return self._tree.target_of(target) == entry.target
        if entry.kind is EntryKind.HARD_LINK:
            file = self.target(tuple(self._entries.path(entry.same_as).split("/")))
            return self._tree.are_alike(target, file)
        return False

    def choose_name(self, root: str, *, is_directory: bool) -> None:
        """Give a root another name, which is neither there nor any other root's."""
        for n in count(1):
            name = numbered(root, n, is_directory=is_directory)
            if fold(name) not in self._spoken_for and self._tree.status((name,)) is None:
                self._names[root] = name
                self._spoken_for[fold(name)].append(name)
                return

    def new_names(self) -> dict[str, str]:
        """The roots that go by another name here."""
        return {root: name for root, name in self._names.items() if name != root}

    def entry(self, file: int) -> Entry:
        """The entry of a file that is planned."""
        if 0 <= file < self._planned and not self._absent[file]:
            entry = self._entries[file]
            if entry.kind is EntryKind.FILE:
                return entry
        raise LocalProtocolError(reason=f"entry {file} is not a file that was planned")

    def target_of(self, file: int) -> Parts:
        """Where a file that is planned goes."""
        return self.target(tuple(self.entry(file).path.split("/")))

    def target(self, parts: Parts) -> Parts:
        """Where the entry of this path goes."""
        assert self._ledger is not None
        return (self._names[parts[0]], *self._ledger.local(parts)[1:])

    def directory_mode(self, parts: Parts) -> int:
        """The mode to make a directory with: that of its entry, but open to ourselves until all is done."""
        assert self._ledger is not None
        index = self._ledger.listed(parts)
        return (0o777 if index is None else self._entries[index].mode & 0o777) | 0o700

    @property
    def needed_bytes(self) -> int:
        """Bytes in all entries that are wanted and not here, as far as is known."""
        return (self.total_bytes or 0) - self._unneeded_bytes

    def is_only_above(self, directory: int) -> bool:
        """Whether an entry is a directory that is wanted only if something in it is."""
        return bool(self._only_above[directory])

    def directory(self, index: int) -> Entry:
        """The entry of a directory that is planned."""
        return self._entries[index]

    def directories(self) -> Iterator[tuple[int, Entry]]:
        """The directories that are entries, and their indexes, those above first."""
        indexes = self._indexes(EntryKind.DIRECTORY)
        for _, index in sorted((self._entries.path(index).count("/"), index) for index in indexes):
            yield index, self._entries[index]

    def links(self) -> Iterator[tuple[int, Entry]]:
        """The links that are entries, and their indexes."""
        for index in self._indexes(EntryKind.SYMBOLIC_LINK, EntryKind.HARD_LINK):
            yield index, self._entries[index]

    def _indexes(self, *kinds: EntryKind) -> Iterator[int]:
        for index in range(self._planned):
            if not self._absent[index] and self._entries.kind(index) in kinds:
                yield index


_IN_DOUBT = "in_doubt"
"""In place of a code of left_out.py."""


def _has_time(there: os.stat_result, file: Entry) -> bool:
    """Whether what is there can have the time of a file."""
    time_us = there.st_mtime_ns // 1000
    if time_us == file.mtime_us:
        return True
    # Filesystems that keep no parts of a second may round to two of them.
    return time_us % 1_000_000 == 0 and abs(time_us - file.mtime_us) < 2_000_000
