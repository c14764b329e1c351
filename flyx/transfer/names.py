"""The only judge of destination names: what a sender may call an entry on a receiver's machine.

Two questions, asked in this order:

Could the name reach outside the output directory (absolute, `..`), or is it no name at all? No flyx sends
such a name: the transfer is refused.

Can this receiver have it? That is for its filesystem to say (DiskNames), not for us to guess: which names it
keeps as they are, and which two it takes for one. What it cannot have is left out, as is what could steer a
terminal, or what lies where flyx keeps its own files; or, if the person says so (NamePolicy), it is kept or
saved under a changed name. One entry never stops the others.

This module is pure: it never looks at a disk, and it trusts no other module to have checked anything.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Container, Iterator
from enum import StrEnum
from itertools import chain, count
from typing import Protocol

from flyx.errors import UnsafeName
from flyx.transfer import left_out
from flyx.transfer.manifest import (
    MAX_TARGET_BYTES,
    can_be_on_disk,
    path_bytes,
    path_of_bytes,
)

STATE_DIRECTORY = ".flyx"
"""Where a receiver keeps its partial files, inside the output directory; no peer may name it.

Where another user has it, the receiver's has its user id after the name: `.flyx-1000`.
"""

MAX_PART_BYTES = 255
"""Bytes in one part of a name that we make: NAME_MAX of every common filesystem."""

MAX_PATH_BYTES = 3072
"""Bytes in a path. PATH_MAX is 4096 on Linux; a quarter is left for the directory a person chose."""

MAX_DEPTH = 128
"""Parts in a path: far above real trees, far below what recursive tools (`rm -r`, backups) choke on."""

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
"""What a terminal acts on, or what changes the direction or the lines of the text around it."""

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""What some filesystems skip when they compare names, and what NFKC case folding drops: Unicode's
Default_Ignorable_Code_Point. `.f\u200clyx` is `.flyx` on HFS+, as `.g\u200cit` was `.git` (CVE-2014-9390)."""

_STATE_DIRECTORY = re.compile(rf"{re.escape(STATE_DIRECTORY)}(?:-[0-9a-f]+)?[. ]*", re.IGNORECASE)
"""With dots and blanks at the end, which Windows drops."""

_SHORT_STATE_DIRECTORY = re.compile(r"flyx(?:-[0-9a-f]*)?~[0-9]+", re.IGNORECASE)
"""The same as NTFS shortens it to 8.3 characters."""

_ODD = re.compile(r'[<>:"|?*\\]')
"""What Windows, and what is made for it, cannot have in a name."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:[.:]|$)", re.IGNORECASE)
"""Windows finds the device whatever the case, the extension, and the spaces between the two."""

_FEW = 10
"""How many of the names that would become one get small numbers."""

_STEM_AND_EXTENSION = re.compile(r"(.+?)((?:\.tar)?\.\w{1,16})?", re.DOTALL)
"""The extension of a name: ".jpg", ".tar.gz"; not "." or ".bashrc", which are all name."""


class NamePolicy(StrEnum):
    """What a receiver does about names that it cannot have, or that could steer a terminal."""

    SKIP = "skip"
    """Leave these entries out."""

    KEEP = "keep"
    """Take what could steer a terminal as it is, and leave out what cannot be had."""

    SAFE = "safe"
    """Save them under changed names."""


class DiskNames(Protocol):
    """What the filesystem of a receiver can have for names."""

    def holds(self, name: str) -> bool:
        """Whether it keeps a file of exactly this name."""

    @property
    def distinguishes_case(self) -> bool:
        """Whether names that differ in case alone can be side by side."""

    @property
    def distinguishes_forms(self) -> bool:
        """Whether names that differ in their Unicode normal form alone can be side by side."""


def check_path(path: str) -> tuple[str, ...]:
    """Return the parts of a path that stays below any base directory.

    Args:
        path: relative, joined by "/", as in an Entry.

    Raises:
        UnsafeName: with the path as its `name`, and the first rule that it breaks as its `reason`.
    """
    parts = tuple(path.split("/"))
    if fault := _fault(path, parts):
        raise UnsafeName(name=path, reason=fault)
    return parts


def _fault(path: str, parts: tuple[str, ...]) -> str | None:
    if not path:
        return "it is empty"
    if not can_be_on_disk(path):
        return "it has a NUL, or half of a character"
    if path[0] == "/":
        return "it is an absolute path"
    if "" in parts:
        return "a part of its path is empty"
    if "." in parts or ".." in parts:
        return f'its path has a part "{"." if "." in parts else ".."}"'
    if is_too_long(path):
        return f"its path is longer than {MAX_PATH_BYTES} bytes, or more than {MAX_DEPTH} directories deep"
    return None


def is_part(name: str) -> bool:
    """Whether what stands between two slashes of a path is what check_path() takes there."""
    return name not in {"", ".", ".."} and can_be_on_disk(name)


def is_too_long(path: str) -> bool:
    """Whether no receiver takes a path, for its length or its depth."""
    # A character has at most four bytes: most paths need no encoding to be found short enough.
    too_long = len(path) * 4 > MAX_PATH_BYTES and len(path_bytes(path)) > MAX_PATH_BYTES
    return too_long or path.count("/") >= MAX_DEPTH


def link_stays_inside(path: str, target: str, roots: Container[str]) -> bool:
    """Whether a symbolic link leads to something below one of the roots, wherever the roots are put.

    Judged without a disk, as POSIX resolves a target. The link may dangle. What it leads to may be a link as
    well: if each link of a transfer stays inside, no way through several of them leads out. That is why `..`
    is good at the beginning only: there it leaves a directory of the transfer, later on perhaps a link. A "."
    is the directory that it is in, so it is good anywhere, and counts for nothing.

    Args:
        path: of the link, as in an Entry; the directories in it are directories, not links.
        target: what the link has for its target.
        roots: the names of all roots of the transfer.
    """
    if not target or not can_be_on_disk(target) or len(path_bytes(target)) > MAX_TARGET_BYTES:
        return False
    parts = target.split("/")
    if parts[-1] == "":
        # One slash at the end says only that a directory is meant.
        parts.pop()
    if "" in parts:
        # "/" at the beginning, or two.
        return False
    names = [part for part in parts if part != "."]
    up = next((n for n, name in enumerate(names) if name != ".."), len(names))
    if ".." in names[up:]:
        return False
    depth = path.count("/")
    if up < depth:
        return True
    # At the top, where the roots are.
    return up == depth and up < len(names) and names[up] in roots


def is_state_directory(part: str) -> bool:
    """Whether a name is that of a state directory, of whatever user, on any system."""
    if part.isascii():
        return bool(_STATE_DIRECTORY.fullmatch(part) or _SHORT_STATE_DIRECTORY.fullmatch(part))
    # Compatibility forms too (full-width letters): here a false alarm costs nobody anything.
    visible = unicodedata.normalize("NFKC", _IGNORABLE.sub("", part)).casefold()
    return bool(_STATE_DIRECTORY.fullmatch(visible))


def fold(name: str) -> str:
    """Return what two names have in common if a filesystem may take them for one.

    Unicode's canonical caseless match (Unicode 3.13, D145): NFD, full case folding, NFD. That covers APFS and
    HFS+ (normalising, caseless), ext4 and F2FS with casefold, NTFS and exFAT (caseless). NFKC would cover ZFS
    with normalization=formKC as well; there the rename that never clobbers is the net.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class NameJudge:
    """Judges names one by one, by a receiver's filesystem and the person's wish."""

    def __init__(self, disk: DiskNames, policy: NamePolicy = NamePolicy.SKIP) -> None:
        self._disk = disk
        self.policy = policy

    def fault(self, name: str) -> str | None:
        """Why this receiver cannot have an entry of this name: a code of left_out.py, or None."""
        plain = name.isascii() and name.isprintable()
        if not plain and self.policy is not NamePolicy.KEEP and _CONTROLS.search(name):
            return left_out.CONTROLS
        # Only what begins so can be one; most names are judged by their first letter.
        if (not plain or name[0] in ".fF") and is_state_directory(name):
            return left_out.STATE
        return None if self._disk.holds(name) else left_out.NOT_HERE

    def are_one(self, name: str, other: str) -> bool:
        """Whether the filesystem takes two names for one."""
        if name == other or fold(name) != fold(other):
            return name == other
        return self.common(name) == self.common(other)

    def common(self, name: str) -> str:
        """Return what all names have in common that the filesystem takes for one."""
        if self._disk.distinguishes_forms:
            return name if self._disk.distinguishes_case else name.casefold()
        return unicodedata.normalize("NFD", name) if self._disk.distinguishes_case else fold(name)

    def changed(self, name: str, *, is_directory: bool) -> Iterator[str]:
        """Yield names that this receiver can have in place of one that it cannot, the most alike first."""
        safe = _CONTROLS.sub("_", _ODD.sub("_", _without_halves(name)))
        # What ends with a dot or a blank is one of those that Windows drops.
        bare = safe.rstrip(". ")
        safe = bare + "_" * (len(safe) - len(bare))
        if _DEVICE.match(safe) or is_state_directory(safe):
            safe = f"_{safe}"
        safe = shortened(safe, is_directory=is_directory)
        # Filesystems that keep no long names (eCryptfs: 143 bytes), or no letters but ASCII.
        short = re.sub("[^A-Za-z0-9._-]", "_", safe)[:64].rstrip(".") or "_"
        # Of many that would become one, each begins to count where no other does.
        own = int.from_bytes(hashlib.sha256(path_bytes(name)).digest()[:5])
        for n in chain(range(_FEW), count(own)):
            candidate = numbered(safe, n, is_directory=is_directory) if n else safe
            yield (
                candidate if self.fault(candidate) is None else numbered(short, n, is_directory=is_directory)
            )


def _without_halves(name: str) -> str:
    """Return a name whose bytes that are no UTF-8 have become underscores."""
    return path_bytes(name).decode(errors="replace").replace("\ufffd", "_")


def numbered(name: str, n: int, *, is_directory: bool = False) -> str:
    """Return the n-th variant of a name that is taken: "photo (1).jpg", "backup (1).tar.gz", ".bashrc (1)".

    A directory has no extension: "v1.2 (1)". A name that would be over-long loses the end of its stem. The
    variant of a safe name is safe.
    """
    stem, extension = _split(name, is_directory)
    return _cut(stem, f" ({n}){extension}")


def shortened(name: str, *, is_directory: bool = False) -> str:
    """Return a name that has at most MAX_PART_BYTES: the end of its stem is lost first."""
    if len(path_bytes(name)) <= MAX_PART_BYTES:
        return name
    return _cut(*_split(name, is_directory))


def _split(name: str, is_directory: bool) -> tuple[str, str]:
    if not is_directory and (match := _STEM_AND_EXTENSION.fullmatch(name)):
        return match[1], match[2] or ""
    return name, ""


def _cut(stem: str, ending: str) -> str:
    room = MAX_PART_BYTES - len(path_bytes(ending))
    encoded = path_bytes(stem)
    if len(encoded) <= room:
        return stem + ending
    # A character cut in half goes; so does what was joined to a character that is no longer there.
    while encoded[room] & 0xC0 == 0x80:
        room -= 1
    return path_of_bytes(encoded[:room]).rstrip(" \u200d") + ending
