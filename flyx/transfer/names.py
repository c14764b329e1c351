"""The only judge of destination names: what a sender may call a file on a receiver's machine.

A name is refused if any system would take it for something else than one new file or directory below the
base: a way out (`..`, absolute, a drive), a device (`CON`), another name than the one shown (trailing dots,
bidirectional controls), the same file as another entry (case, Unicode form), or flyx's own state. The rules
are the same on every system, so that what one receiver accepts all accept; only `<>:"|?*`, which are common
in names on POSIX, are refused on Windows alone.

Senders ask too, before they offer anything. This module is pure: it never looks at a disk, and it trusts no
other module to have checked anything.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NoReturn

from flyx.errors import UnsafeName
from flyx.transfer.manifest import MAX_ENTRIES, Entries

STATE_DIRECTORY = ".flyx"
"""Where a receiver keeps its partial files, inside the output directory; no peer may name it.

Where another user has it, the receiver's has its user id after the name: `.flyx-1000`.
"""

MAX_PART_BYTES = 255
"""UTF-8 bytes in one part: NAME_MAX of every common filesystem."""

MAX_PATH_BYTES = 3072
"""UTF-8 bytes in a path. PATH_MAX is 4096 on Linux; a quarter is left for the directory a person chose."""

MAX_DEPTH = 128
"""Parts in a path: far above real trees, far below what recursive tools (`rm -r`, backups) choke on."""

_BIDI_CONTROLS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_REFUSED_CHARACTERS = {
    r"\\": "a backslash separates directories on Windows",
    r"\0-\x1f\x7f-\x9f": "it has a control character",
    _BIDI_CONTROLS: "it has a character that changes the direction of the text around it",
    "\u2028\u2029": "it has a line separator",
    "\ud800-\udfff": "it is not valid Unicode",
    _NONCHARACTERS: "it has a code point that is not a character",
}
_REFUSED = re.compile("[" + "".join(_REFUSED_CHARACTERS) + "]")
_REFUSED_ON_WINDOWS = re.compile(r'[<>:"|?*]')

# At the start of any part, not only of the path: joined part by part, each would be a way out.
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:")

# Windows finds the device whatever the case, the extension, and the spaces between the two.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:[.:]|$)", re.IGNORECASE)

# What some filesystems skip when they compare names, and what NFKC case folding drops: Unicode's
# Default_Ignorable_Code_Point. `.f\u200clyx` is `.flyx` on HFS+, as `.g\u200cit` was `.git` (CVE-2014-9390).
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_STATE_DIRECTORY = re.compile(rf"{re.escape(STATE_DIRECTORY)}(?:-[0-9]+)?", re.IGNORECASE)
# The same as NTFS shortens it to 8.3 characters.
_SHORT_STATE_DIRECTORY = re.compile(r"flyx(?:-[0-9]*)?~[0-9]+", re.IGNORECASE)

# The extension of a name: ".jpg", ".tar.gz"; not "." or ".bashrc", which are all name.
_STEM_AND_EXTENSION = re.compile(r"(.+?)((?:\.tar)?\.\w{1,16})?", re.DOTALL)


def check_path(path: str, *, windows: bool = False) -> tuple[str, ...]:
    """Return the parts of a path that is safe to create below any base directory.

    Args:
        path: relative, joined by "/", as in an Entry.
        windows: also refuse the characters that Windows cannot store.

    Raises:
        UnsafeName: with the path as its `name`, and the first rule that it breaks as its `reason`.
    """
    reason = _fault_of_path(path, windows)
    if reason is None:
        parts = tuple(path.split("/"))
        for part in parts:
            reason = _fault_of_part(part)
            if reason is not None:
                break
        else:
            return parts
    raise UnsafeName(name=path, reason=reason)


def _fault_of_path(path: str, windows: bool) -> str | None:
    """The rules that need no parts."""
    if not path:
        return "it is empty"
    # Most paths are plain ASCII, and are told so an order of magnitude faster than by the pattern.
    plain = path.isascii() and path.isprintable() and "\\" not in path
    if not plain and (refused := _REFUSED.search(path)):
        return next(why for chars, why in _REFUSED_CHARACTERS.items() if re.match(f"[{chars}]", refused[0]))
    if path[0] == "/":
        return "it is an absolute path"
    if ":" in path and _DRIVE.search(path):
        return "a part of its path begins with a drive letter"
    # A character has at most four bytes: most paths need no encoding to be found short enough.
    if len(path) * 4 > MAX_PATH_BYTES and len(path.encode()) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    if path.count("/") >= MAX_DEPTH:
        return f"it is more than {MAX_DEPTH} directories deep"
    if windows and (refused := _REFUSED_ON_WINDOWS.search(path)):
        return f"Windows cannot store the character {refused[0]}"
    return None


# Entries share their directories, and often their names (index.html): most parts have been judged before.
@lru_cache(maxsize=4096)
def _fault_of_part(part: str) -> str | None:
    if not part:
        return "a part of its path is empty"
    if part in {".", ".."}:
        return f'its path has a part "{part}"'
    # Windows drops them, so that two names would be one file. A leading space is allowed: every system keeps
    # it, it hides nothing, and people have such files.
    if part[-1] in ". ":
        return "a part of its path ends with a dot or a space"
    if len(part) * 4 > MAX_PART_BYTES and len(part.encode()) > MAX_PART_BYTES:
        return f"a part of its path is longer than {MAX_PART_BYTES} bytes"
    if _DEVICE.match(part):
        return "it is the name of a device on Windows"
    if is_state_directory(part):
        return f"{STATE_DIRECTORY} is where flyx keeps its own files"
    return None


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
    with normalization=formKC as well, but would refuse pairs that people do have side by side, like `m2` and
    `m²`, or full-width and plain letters in Japanese names; there the rename that never clobbers is the net.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class NameLedger:
    """All names of one transfer: each is safe, and no two can meet on any filesystem.

    Add the entries in the order of the manifest. A refusal is final: the ledger is of no use after one.

    Memory: a dictionary item of two integers, 110 bytes, for each entry and for each directory that is named
    only inside the paths of other entries; MAX_ENTRIES of both in all. Names are not kept: they are looked up
    in the manifest. Work: by the length of each path, whatever there was before it.
    """

    def __init__(self, entries: Entries, *, windows: bool = False) -> None:
        """Args:
        entries: the manifest, which has each entry before the next one is added here.
        windows: see check_path.
        """
        self._entries = entries
        self._windows = windows
        self._added = 0
        # A name that is there, by _key: the index of an entry that has it in its path, and its flags. Two
        # names that meet have one key. Others have one by chance (60 bits, not to be foreseen): then an
        # entry is refused that need not be, once in millions of the largest transfers.
        self._names: dict[int, int] = {}
        # Neighbours in a manifest mostly share their directory: the path of the last one, and its key.
        self._last_path = ""
        self._last_key = _TOP

    def add(self, path: str, is_directory: bool) -> tuple[str, ...]:
        """Check one entry's path against the rules and against all entries before it; return its parts.

        Raises:
            UnsafeName: it breaks a rule of check_path, is listed twice, cannot be told from an earlier name,
                or uses a file as a directory.
        """
        parts = check_path(path, windows=self._windows)
        key = _key(self._directory_above(path, parts), parts[-1])
        there = self._names.get(key)
        if there is None:
            self._put(key, _LISTED | (_DIRECTORY if is_directory else 0), path)
        else:
            offset = len(path.encode()) - len(parts[-1].encode())
            if there & _FLAGS != _DIRECTORY or not is_directory or not self._is_at(offset, parts[-1], there):
                self._refuse(path, parts, there, is_directory)
            self._names[key] = self._added << _FLAG_BITS | _LISTED | _DIRECTORY
        self._added += 1
        return parts

    def listed(self, directory: tuple[str, ...]) -> int | None:
        """Return the index of a directory's own entry; None if it is only named in paths, or not at all."""
        key = _TOP
        for part in directory:
            key = _key(key, part)
        there = self._names.get(key, 0)
        return there >> _FLAG_BITS if there & _FLAGS == _LISTED | _DIRECTORY else None

    def _directory_above(self, path: str, parts: tuple[str, ...]) -> int:
        """Return the key of the directory that an entry is in; take note of those that are new."""
        above = path[: -len(parts[-1]) - 1]
        if above != self._last_path:
            key, offset = _TOP, 0
            for depth, part in enumerate(parts[:-1], 1):
                key = _key(key, part)
                there = self._names.get(key)
                if there is None:
                    self._put(key, _DIRECTORY, path)
                elif not there & _DIRECTORY or not self._is_at(offset, part, there):
                    self._refuse(path, parts[:depth], there, is_directory=True)
                offset += len(part.encode()) + 1
            self._last_path, self._last_key = above, key
        return self._last_key if above else _TOP

    def _put(self, key: int, flags: int, path: str) -> None:
        if len(self._names) >= MAX_ENTRIES:
            raise UnsafeName(name=path, reason="there are too many directories")
        self._names[key] = self._added << _FLAG_BITS | flags

    def _is_at(self, offset: int, name: str, there: int) -> bool:
        """Whether a name that is there is spelled exactly so; the names above it have been found to be."""
        return self._entries.has_part(there >> _FLAG_BITS, offset, name)

    def _refuse(self, path: str, parts: tuple[str, ...], there: int, is_directory: bool) -> NoReturn:
        """Refuse a path, of which these first parts meet with what is there."""
        name = parts[-1]
        there_name = self._entries.path(there >> _FLAG_BITS).split("/")[: len(parts)][-1]
        if there_name != name:
            reason = f"some systems cannot tell {name} from {there_name}"
        elif bool(there & _DIRECTORY) != is_directory:
            reason = f"{name} would be both a file and a directory"
        else:
            reason = "it is listed twice"
        raise UnsafeName(name=path, reason=reason)


_TOP = 0
# What is known of a name, below the index of an entry that has it.
_FLAG_BITS = 2
_DIRECTORY = 1
_LISTED = 2  # has an entry of its own
_FLAGS = _DIRECTORY | _LISTED


def _key(above: int, name: str) -> int:
    """What all names have in common that can meet in the directory with the key `above`.

    The hash of a string depends on a secret of the process, so no sender can aim at one. 60 bits are all that
    an integer of 32 bytes holds.
    """
    return hash((above, fold(name))) & (1 << 60) - 1


def numbered(name: str, n: int, *, is_directory: bool = False) -> str:
    """Return the n-th variant of a name that is taken: "photo (1).jpg", "backup (1).tar.gz", ".bashrc (1)".

    A directory has no extension: "v1.2 (1)". A name that would be over-long loses the end of its stem. The
    variant of a safe name is safe.
    """
    stem, extension = name, ""
    if not is_directory and (match := _STEM_AND_EXTENSION.fullmatch(name)):
        stem, extension = match[1], match[2] or ""
    ending = f" ({n}){extension}"
    room = MAX_PART_BYTES - len(ending.encode())
    # A character cut in half goes; so does what was joined to a character that is no longer there.
    shortened = stem.encode()[:room].decode(errors="ignore")
    if shortened != stem:
        shortened = shortened.rstrip(" \u200d")
    return shortened + ending
