"""What names a filesystem can have, found out by trying: nothing else tells.

The same kernel mounts filesystems that take any bytes for a name, and others that refuse `a:b`, `aux.c` or
what is not UTF-8, keep `x.` as `x`, or find README for readme. What counts is the directory, not what its
filesystem is called: ext4 may fold case in one and not in the next, FUSE and network filesystems have the
rules of whatever is behind them.

Names are not tried one by one. Each oddity of a name is tried once, in a short name that has no other.

Blocking, for a thread; POSIX only.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from itertools import starmap
from types import TracebackType

from flyx.storage.tree import make_file, names_in, open_directory
from flyx.transfer.manifest import can_be_on_disk, path_bytes
from flyx.transfer.names import STATE_DIRECTORY

USUAL_LENGTH = 255
"""Bytes in the longest name of a usual filesystem (NAME_MAX of Linux)."""

_SHORT = 120
"""Names that are no longer are not tried: what encrypts names (eCryptfs, EncFS) has the least room, 143
bytes."""

# What Windows does not take in a name, and what begins there with the name of a device.
_ODD = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
_NO_TEXT = re.compile("[\udc80-\udcff]")
"""The bytes that are not UTF-8, as os.fsdecode() has them."""


class NameProbe:
    """Answers for the names in one directory, and those below it on the same filesystem.

    It tries them in a directory of its own there, for this user alone, made when first needed and removed by
    close(). Where none can be made, or nothing in it, it answers as a usual filesystem would: then writing
    fails as well, and says why.
    """

    def __init__(self, directory: int) -> None:
        """Args:
        directory: handle of a directory, which stays open as long as this is in use.
        """
        self._parent = directory
        # Set while there is a directory to try names in: its name, and its handle.
        self._own: tuple[str, int] | None = None
        # Nothing can be tried.
        self._failed = False
        # Whether names can have an oddity.
        self._tried: dict[str, bool] = {}
        # Bytes in the longest name known to be possible, and in the shortest known not to be.
        self._longest = _SHORT
        self._too_long = sys.maxsize

    def __enter__(self) -> NameProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Try no more names, and remove what was made for that. Any number of times."""
        self._failed = True
        self.rest()

    def rest(self) -> None:
        """Remove what was made to try names, until it is needed again."""
        if self._own is not None:
            name, handle = self._own
            self._own = None
            _clear(handle)
            _dispose(name, handle, self._parent)

    def holds(self, name: str) -> bool:
        """Whether the directory can have a file of exactly this name, byte for byte.

        Args:
            name: one part of a path, as os.fsdecode() makes it.
        """
        if len(name) <= self._longest and _PLAIN.fullmatch(name):
            return True
        if name in {"", ".", ".."} or "/" in name or not can_be_on_disk(name):
            return False
        return all(starmap(self._can_have, _oddities(name))) and self._can_be(len(path_bytes(name)))

    @cached_property
    def distinguishes_case(self) -> bool:
        """Whether `a` and `A` are two names."""
        return self._distinguishes("flyx", "FLYX")

    @cached_property
    def distinguishes_forms(self) -> bool:
        """Whether the composed `é` and the decomposed one (NFC and NFD) are two names."""
        return self._distinguishes("\u00e9", "e\u0301")

    def _can_have(self, oddity: str, sample: str) -> bool:
        if oddity not in self._tried:
            self._tried[oddity] = self._is_kept(sample)
        return self._tried[oddity]

    def _can_be(self, length: int) -> bool:
        """Whether a name can have so many bytes."""
        if not self._longest < length < self._too_long:
            return length <= self._longest
        kept = self._is_kept("x" * length)
        if self._failed:
            return length <= USUAL_LENGTH
        if kept:
            self._longest = length
        else:
            self._too_long = length
        return kept

    def _is_kept(self, name: str) -> bool:
        """Make a file of this name, look for it in the list of its directory, and remove it."""
        own = self._directory()
        if own is None:
            return True
        try:
            make_file(name, 0o600, own)
            return name in names_in(own)
        except OSError:
            # It is for the name only if others are still possible.
            _clear(own)
            return not self._works(own)
        finally:
            _clear(own)

    def _distinguishes(self, name: str, other: str) -> bool:
        """Make a file, and look for it under another name."""
        own = self._directory()
        if own is None:
            return True
        try:
            make_file(name, 0o600, own)
            os.stat(other, dir_fd=own, follow_symlinks=False)
        except OSError:
            # Either it is not there, or no file can have the first name and be taken for another.
            return True
        else:
            return False
        finally:
            _clear(own)

    def _directory(self) -> int | None:
        """Return the handle of the directory to try names in, made when first asked; None if none can be."""
        if self._own is None and not self._failed:
            name = f"{STATE_DIRECTORY}-{secrets.token_hex(8)}"
            try:
                os.mkdir(name, 0o700, dir_fd=self._parent)
                handle = open_directory(name, self._parent)
            except OSError:
                self._failed = True
                with suppress(OSError):
                    os.rmdir(name, dir_fd=self._parent)
                return None
            if self._works(handle):
                self._own = name, handle
            else:
                _dispose(name, handle, self._parent)
        return self._own[1] if self._own else None

    def _works(self, own: int) -> bool:
        """Whether files can be made in an empty directory at all; if not, nothing is tried any more."""
        try:
            make_file("flyx", 0o600, own)
            # Where others may rename what is ours, one could have put another directory in its place.
            works = names_in(own) == ["flyx"]
            os.unlink("flyx", dir_fd=own)
        except OSError:
            works = False
        self._failed = not works
        return works


def _clear(directory: int) -> None:
    """Remove all files in a directory of ours, whatever they are called there."""
    with suppress(OSError):
        for name in names_in(directory):
            os.unlink(name, dir_fd=directory)


def _dispose(name: str, handle: int, parent: int) -> None:
    """Close a directory, and remove it if nothing is in it."""
    os.close(handle)
    with suppress(OSError):
        os.rmdir(name, dir_fd=parent)


_PLAIN = re.compile(r"(?!con|prn|aux|nul|com|lpt)[a-z0-9._-]*[a-z0-9_-]", re.ASCII | re.IGNORECASE)
"""Most names have no oddity, and need no look for each."""


def _oddities(name: str) -> Iterator[tuple[str, str]]:
    """Yield what some filesystem cannot have in a name: each oddity, and a short name that has no other."""
    for odd in sorted(set(_ODD.findall(name))):
        yield ("control" if odd < " " else odd), f"x{odd}x"
    if name[-1] in ". ":
        yield f"{name[-1]} at the end", f"x{name[-1]}"
    if device := _DEVICE.fullmatch(name):
        yield ("device.", "aux.x") if device[1] else ("device", "aux")
    if name.isascii():
        return
    if _NO_TEXT.search(name):
        yield "no text", "x\udce9\udcffx"
    for character in sorted(set(_NO_TEXT.sub("", name))):
        if not character.isascii():
            yield _block(character)


@lru_cache(maxsize=4096)
def _block(character: str) -> tuple[str, str]:
    """The oddity of a character that not every character set has, and a name that has it.

    256 neighbours share a try, but for those that are made of others: some filesystems take them apart.
    """
    made = "made " if unicodedata.normalize("NFD", character) != character else ""
    # With an "e" before them, most marks that combine do.
    return f"{made}{ord(character) >> 8}", f"e{character}e"
