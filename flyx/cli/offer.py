"""What a sender offers, as lines for the person who is asked whether to take it.

The first names are shown, and of the others those that could matter most: programs act on files whose names
begin with a dot without being told to (`.bashrc`, `.ssh/authorized_keys`, `.git/hooks/…`), and executable
files are run by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from flyx.cli.output import files_text, size_text
from flyx.errors import printable

if TYPE_CHECKING:
    from flyx.transfer.manifest import Entry, Manifest

LISTED = 20
"""Entries shown before the question, whatever they are."""

FEW = 5
"""Entries of one hidden directory, or executable ones of one directory, that are named one by one."""

MAX_POINTED_OUT = 100
"""Lines for the entries after LISTED that could matter. If there are more, they are counted."""


def offer_lines(manifest: Manifest) -> list[str]:
    """Return what is offered as lines for a person, every name escaped."""
    directories = len(manifest.entries) - manifest.file_count
    lines = [f"The sender offers {files_text(manifest.file_count, directories, manifest.total_bytes)}:"]
    lines += map(_entry_line, islice(manifest.entries, LISTED))
    if len(manifest.entries) > LISTED:
        lines.append(f"  and {len(manifest.entries) - LISTED:,} more; type a to see all")
        lines += _pointed_out(islice(manifest.entries, LISTED, None))
    return lines


def is_cut(manifest: Manifest) -> bool:
    """Whether offer_lines() leaves names out."""
    return len(manifest.entries) > LISTED


def all_lines(manifest: Manifest) -> Iterator[str]:
    """Yield a line for each entry, every name escaped."""
    return map(_entry_line, manifest.entries)


def pages(lines: Iterable[str], rows: int, columns: int) -> Iterator[list[str]]:
    """Yield lines by the screen.

    Args:
        lines: as they are shown.
        rows: of a screen that may be filled; a line longer than that has a page to itself.
        columns: of the screen: longer lines take several rows.
    """
    from rich.cells import cell_len

    page: list[str] = []
    room = rows
    for line in lines:
        needed = max(1, -(-cell_len(line) // columns))
        if page and needed > room:
            yield page
            page, room = [], rows
        page.append(line)
        room -= needed
    if page:
        yield page


def _entry_line(entry: Entry) -> str:
    suffix = "/" if _is_directory(entry) else f"  ({size_text(entry.size)})"
    return f"  {printable(entry.path)}{suffix}"


def _is_directory(entry: Entry) -> bool:
    return entry.kind.value == "directory"


@dataclass(slots=True)
class _Group:
    """Entries that could matter, of one directory; `first` are the first FEW of them."""

    executable: bool
    files: int = 0
    directories: int = 0
    size: int = 0
    first: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        if _is_directory(entry):
            self.directories += 1
        else:
            self.files += 1
        self.size += entry.size
        if len(self.first) < FEW:
            self.first.append(entry)

    @property
    def count(self) -> int:
        return self.files + self.directories


def _pointed_out(entries: Iterable[Entry]) -> list[str]:
    """Return lines for those that could matter."""
    groups: dict[tuple[bool, str], _Group] = {}
    for entry in entries:
        path = entry.path
        if (hidden := f"/{path}".rfind("/.")) >= 0:
            # Up to the last part that begins with a dot: each such name is shown.
            key = False, path[:end] if (end := path.find("/", hidden)) >= 0 else path
        elif entry.mode & 0o111 and not _is_directory(entry):
            key = True, path.rpartition("/")[0]
        else:
            continue
        groups.setdefault(key, _Group(executable=key[0])).add(entry)
    if not groups:
        return []
    lines = ["Among these begin with a dot, or can be run:"]
    shown = 0
    for (_, directory), group in groups.items():
        told = _group_lines(directory, group)
        if len(lines) + len(told) > MAX_POINTED_OUT:
            break
        lines += told
        shown += group.count
    if left := sum(group.count for group in groups.values()) - shown:
        lines.append(f"  and {left:,} more of these")
    return lines


def _group_lines(directory: str, group: _Group) -> list[str]:
    if group.count <= FEW:
        return [_entry_line(entry) for entry in group.first]
    amount = files_text(group.files, group.directories, group.size)
    return [f"  {printable(directory or '.')}/  ({amount}{', can be run' if group.executable else ''})"]
