"""What a sender offers, as lines for the person who accepts or refuses it.

The first names are shown, and of the others those that could matter most: programs act on files whose names
begin with a dot without being told to (`.bashrc`, `.ssh/authorized_keys`, `.git/hooks/…`), and executable
files are run by their names. If even those are too many, a yes without a look at all names is no consent: a
sender could hide one of them behind a flood of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from flyx.cli.output import amount_text, files_text
from flyx.errors import printable, size_text
from flyx.transfer.manifest import Content

if TYPE_CHECKING:
    from flyx.transfer.manifest import Entry, Manifest

LISTED = 20
"""Entries shown before the question, whatever they are."""

FEW = 5
"""Entries of one hidden directory, or executable ones of one directory, that are named one by one."""

MAX_POINTED_OUT = 100
"""Lines for the entries after LISTED that could matter. If there are more, the well-known ones and those
nearest the top are shown, and the others counted."""

_MOST_GROUPS = 10 * MAX_POINTED_OUT
"""Groups kept at a time, of which no more than MAX_POINTED_OUT can be shown: a bound of memory."""

_WELL_KNOWN_NAMES = (
    *(".bash_aliases", ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".cshrc", ".inputrc"),
    *(".kshrc", ".login", ".profile", ".tcshrc", ".zlogin", ".zprofile", ".zshenv", ".zshrc", ".config/fish"),
    *(".config/autostart", ".config/environment.d", ".config/systemd", ".local/share/applications"),
    *(".local/bin", ".pam_environment", ".xinitrc", ".xprofile", ".xsession", ".xsessionrc"),
    *(".forward", ".gnupg", ".netrc", ".rhosts", ".shosts", ".ssh", ".aws", ".docker", ".kube"),
    *(".config/git", ".git/config", ".git/hooks", ".gitconfig", ".github/workflows", ".gitmodules"),
    *(".emacs", ".emacs.d", ".exrc", ".gdbinit", ".screenrc", ".tmux.conf", ".vim", ".vimrc", ".vscode"),
    *(".cargo", ".curlrc", ".env", ".envrc", ".htaccess", ".npmrc", ".pypirc", ".wgetrc", ".yarnrc"),
)
"""What shells, sessions, editors and tools run, obey or trust without being asked."""

_WELL_KNOWN = re.compile(f"/(?:{'|'.join(map(re.escape, _WELL_KNOWN_NAMES))})(?=/)", re.IGNORECASE)
"""In a path between two slashes. Some file systems tell no capitals from small letters."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is shown of an offer before the question.

    Attributes:
        lines: for a person, every name escaped.
        is_cut: there are names that no line shows.
        left_out: how many of these could matter, and are neither in a line nor counted in that of their
            directory.
    """

    lines: list[str]
    is_cut: bool
    left_out: int


def summarize(manifest: Manifest, *, is_part: bool = False) -> Summary:
    """Return what to show of an offer before the question.

    Args:
        manifest: what is offered, or what of it is wanted.
        is_part: whether it is that.
    """
    amount = amount_text(manifest)
    lines = [f"Wanted of what the sender offers: {amount}:" if is_part else f"The sender offers {amount}:"]
    lines += islice(all_lines(manifest), LISTED)
    if len(manifest.entries) <= LISTED:
        return Summary(lines, is_cut=False, left_out=0)
    lines.append(f"  and {len(manifest.entries) - LISTED:,} more; type a to see all")
    pointed_out, left_out = _pointed_out(islice(manifest.entries, LISTED, None))
    return Summary(lines + pointed_out, is_cut=True, left_out=left_out)


def all_lines(manifest: Manifest) -> Iterator[str]:
    """Yield a line for each entry, every name escaped."""
    match manifest.content:
        case Content.STREAM:
            # Its size is known at its end.
            return (f"  {printable(entry.path)}" for entry in manifest.entries)
        case Content.TEXT:
            # It has no name.
            return iter(())
        case Content.FILES:
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
    match entry.kind.value:
        case "directory":
            suffix = "/"
        case "symbolic_link":
            suffix = f" -> {printable(entry.target)}"
        case "hard_link":
            suffix = "  (the same file as another)"
        case _:
            suffix = f"  ({size_text(entry.size)})"
    return f"  {printable(entry.path)}{suffix}"


def _is_directory(entry: Entry) -> bool:
    return entry.kind.value == "directory"


@dataclass(slots=True)
class _Group:
    """Entries that could matter, of one directory; `first` are the first FEW of them.

    Attributes:
        rank: the lowest are shown first: well-known or not (False is lower), and how deep it is in the tree.
    """

    executable: bool
    rank: tuple[bool, int]
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


_Groups = dict[tuple[bool, str], _Group]
"""By whether they can be run, and directory; in the order in which each first came."""


def _pointed_out(entries: Iterable[Entry]) -> tuple[list[str], int]:
    """Return lines for those that could matter, and how many of them they leave out."""
    groups: _Groups = {}
    count = 0
    for entry in entries:
        path = entry.path
        if "/." in (between := f"/{path}/"):
            # Up to the last part that begins with a dot: each such name is shown.
            end = between.find("/", between.rfind("/.") + 1)
            is_known = False
            for known in _WELL_KNOWN.finditer(between):
                is_known, end = True, max(end, known.end())
            key = False, path[: end - 1]
            rank = not is_known, key[1].count("/")
        elif entry.mode & 0o111 and not _is_directory(entry):
            key = True, path.rpartition("/")[0]
            rank = True, path.count("/")
        else:
            continue
        count += 1
        if key not in groups:
            if len(groups) >= _MOST_GROUPS:
                # Exact: one that is dropped here would be last of those shown, also if it came again.
                groups = dict(_best(groups))
            groups[key] = _Group(executable=key[0], rank=rank)
        groups[key].add(entry)
    if not count:
        return [], 0
    lines = ["Among these begin with a dot, or can be run:"]
    shown = 0
    for (_, directory), group in _best(groups):
        told = _group_lines(directory, group)
        if len(lines) + len(told) > MAX_POINTED_OUT:
            break
        lines += told
        shown += group.count
    if left_out := count - shown:
        lines.append(f"  and {left_out:,} more of these")
    return lines, left_out


def _best(groups: _Groups) -> list[tuple[tuple[bool, str], _Group]]:
    """Return as many groups as can be shown, the most important first."""
    return sorted(groups.items(), key=lambda item: item[1].rank)[:MAX_POINTED_OUT]


def _group_lines(directory: str, group: _Group) -> list[str]:
    if group.count <= FEW:
        return [_entry_line(entry) for entry in group.first]
    amount = files_text(group.files, group.directories, group.size)
    return [f"  {printable(directory or '.')}/  ({amount}{', can be run' if group.executable else ''})"]
