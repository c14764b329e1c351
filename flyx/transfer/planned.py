"""What the disk has planned of the entries that are not accepted yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flyx.transfer.digests import DIGEST_SIZE
from flyx.transfer.disk import BlocksKept, Changed, EntriesPlanned, GoesOn, Kept
from flyx.transfer.left_out import ALREADY_HERE
from flyx.transfer.manifest import BLOCK_SIZE, Entries, Entry


class Planned:
    """Adds up the answers of the disk to what it was to plan.

    Attributes:
        below: entries with a smaller index are planned.
        in_doubt: files of which it is not known yet whether they are here.
        kept_files: how many files are complete from an earlier try.
        found_bytes: bytes that are here from it, in those and in others.
        changed: files of which there was a part that is of no use.
        here_files: how many files are left out because they are here.
        here_bytes: bytes in those.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self.below = 0
        self.in_doubt: list[int] = []
        self.kept_files = self.found_bytes = 0
        self.changed: list[int] = []
        self.here_files = self.here_bytes = 0
        # What take() has not returned yet.
        self._found: list[Kept | BlocksKept | GoesOn] = []
        self._left_out: list[tuple[int, str]] = []

    def extend(self, plan: EntriesPlanned) -> None:
        """More entries are planned."""
        self.below = plan.below
        self.in_doubt += plan.in_doubt
        self._find(plan.found)
        self._leave_out(plan.left_out)

    def settle(self, left_out: Sequence[tuple[int, str]]) -> None:
        """No file is in doubt any more; these are left out, whatever there is of them from an earlier try."""
        self.in_doubt = []
        self._leave_out(left_out)
        self._left_out.sort()
        absent = {index for index, _ in left_out}
        self.changed = [file for file in self.changed if file not in absent]
        found, self._found = self._found, []
        self.kept_files = self.found_bytes = 0
        self._find(one for one in found if one.file not in absent)

    def take(self) -> tuple[list[Kept | BlocksKept | GoesOn], list[tuple[int, str]]]:
        """Return what is here from an earlier try, and what is left out, of the entries planned since the
        last call."""
        taken = self._found, self._left_out
        self._found, self._left_out = [], []
        return taken

    def _find(self, found: Iterable[Kept | BlocksKept | GoesOn | Changed]) -> None:
        for one in found:
            if isinstance(one, Changed):
                self.changed.append(one.file)
                continue
            self._found.append(one)
            if not isinstance(one, GoesOn):
                # What came over an earlier connection is from no earlier try.
                self.kept_files += isinstance(one, Kept)
                self.found_bytes += size_of(one, self._entries[one.file])

    def _leave_out(self, entries: Sequence[tuple[int, str]]) -> None:
        self._left_out += entries
        here = [index for index, code in entries if code == ALREADY_HERE]
        self.here_files += len(here)
        self.here_bytes += sum(self._entries[index].size for index in here)


def size_of(found: Kept | BlocksKept, entry: Entry) -> int:
    """Return how many bytes of a file are here."""
    if isinstance(found, Kept):
        return entry.size
    return min(len(found.digests) // DIGEST_SIZE * BLOCK_SIZE, entry.size)
