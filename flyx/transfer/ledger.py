"""All names of one transfer, and what becomes of each at this receiver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

from flyx.errors import UnsafeName
from flyx.transfer import left_out
from flyx.transfer.key_table import KeyTable
from flyx.transfer.manifest import MAX_ENTRIES, Entries, path_bytes
from flyx.transfer.names import NameJudge, NamePolicy, check_path, fold, is_part, is_too_long


class NameLedger:
    """The names of a transfer, and which of them are left out or changed.

    Add the entries in the order of the manifest.

    Memory: an item of a KeyTable, 18 to 36 bytes, for each entry and for each directory that is named only
    inside the paths of other entries; MAX_ENTRIES of both in all. Names are not kept, but for those that
    are changed: they are looked up in the manifest. Work: by the length of each path, whatever there was
    before it.
    """

    def __init__(self, entries: Entries, judge: NameJudge, roots: Mapping[str, str | None]) -> None:
        """Args:
        entries: the manifest, which has each entry before the next one is added here.
        judge: of the names below the roots.
        roots: those that are left out, and the code why; the others have no fault, whatever they are called
            here.
        """
        self._entries = entries
        self._judge = judge
        self._root_faults = roots
        self._added = 0
        # A name that is there, by _key: the index of an entry that has it in its path, and its flags. Two
        # names that meet have one key. Others have one by chance (64 bits, not to be foreseen): then an
        # entry is left out that need not be, once in millions of the largest transfers.
        self._names = KeyTable()
        # Neighbours in a manifest mostly share their directory: the path of the last one, and its key, None
        # if it was left out.
        self._last_path = ""
        self._last_key: int | None = _TOP
        # What names are called here that have to be changed, by their keys.
        self._changed: dict[int, str] = {}

    def add(self, path: str, is_directory: bool) -> str | None:
        """Add one entry; return why it is left out, a code of left_out.py, or None.

        Raises:
            UnsafeName: it breaks a rule of check_path, is listed twice, or uses a file as a directory.
        """
        directory, _, name = path.rpartition("/")
        # The directory of the entry before has been judged.
        if not directory or directory != self._last_path or not is_part(name) or is_too_long(path):
            parts = check_path(path)
            if directory and directory != self._last_path:
                self._last_key = self._enter(path, parts[:-1])
                self._last_path = directory
        above = self._last_key if directory else _TOP
        code = left_out.ABOVE if above is None else self._add(above, path, name, is_directory)
        self._added += 1
        return code

    def listed(self, directory: tuple[str, ...]) -> int | None:
        """Return the index of a directory's own entry; None if it is only named in paths, or not at all."""
        way = list(self._way(directory))
        if len(way) < len(directory) or way[-1][1] & _FLAGS != _LISTED | _DIRECTORY:
            return None
        return way[-1][1] >> _FLAG_BITS

    def local(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the path of an entry that is not left out, below its root as it is called here."""
        if not self._changed:
            return parts
        known = [
            self._changed.get(key, part) for part, (key, _) in zip(parts, self._way(parts), strict=False)
        ]
        return (*known, *parts[len(known) :])

    def _way(self, parts: tuple[str, ...]) -> Iterator[tuple[int, int]]:
        """Yield the key and the item of each name on a path, as far as they are there."""
        key, offset = _TOP, 0
        for part in parts:
            key, there, exact = self._find(key, part, offset)
            if there is None or not exact:
                return
            yield key, there
            offset += len(path_bytes(part)) + 1

    def _add(self, above: int, path: str, name: str, is_directory: bool) -> str | None:
        offset = len(path) - len(name) if path.isascii() else len(path_bytes(path)) - len(path_bytes(name))
        key, there, exact = self._find(above, name, offset)
        kind = _DIRECTORY if is_directory else 0
        if there is not None and exact:
            if there & (_DIRECTORY | _LISTED) != _DIRECTORY or not is_directory:
                self._refuse(path, name, there, is_directory)
            self._names[key] = self._added << _FLAG_BITS | there & _LEFT_OUT | _LISTED | _DIRECTORY
            return (self._fault(above, name) or left_out.SAME_NAME) if there & _LEFT_OUT else None
        return self._settle(above, key, path, name, there is not None, kind | _LISTED)

    def _settle(self, above: int, key: int, path: str, name: str, is_taken: bool, flags: int) -> str | None:
        """Take note of a new name, changed if it has to be; return why it is left out.

        `is_taken`: the filesystem takes it for another one that is there.
        """
        code = left_out.SAME_NAME if is_taken else self._fault(above, name)
        if code and above != _TOP and self._judge.policy is NamePolicy.SAFE:
            for local in self._judge.changed(name, is_directory=bool(flags & _DIRECTORY)):
                place = _key(above, local)
                if place not in self._names:
                    break
            self._changed[key] = local
            if place != key:
                self._put(place, _RESERVED, path)
            code = None
        self._put(key, flags | (_LEFT_OUT if code else 0), path)
        return code

    def _fault(self, above: int, name: str) -> str | None:
        return self._root_faults.get(name) if above == _TOP else self._judge.fault(name)

    def _enter(self, path: str, directories: tuple[str, ...]) -> int | None:
        """Return the key of the directory that an entry is in, None if that is left out; note what is new."""
        above, offset = _TOP, 0
        for part in directories:
            key, there, exact = self._find(above, part, offset)
            if there is None or not exact:
                if self._settle(above, key, path, part, there is not None, _DIRECTORY):
                    return None
            elif there & _LEFT_OUT:
                return None
            elif not there & _DIRECTORY:
                self._refuse(path, part, there, is_directory=True)
            above = key
            offset += len(path_bytes(part)) + 1
        return above

    def _find(self, above: int, name: str, offset: int) -> tuple[int, int | None, bool]:
        """Look for a name in the directory with the key `above`, whose path has `offset` bytes.

        Returns:
            The key that it has, or would have; what is there, None if the name is free; and whether that is
            spelled exactly so.
        """
        key = _exact_key(above, name) if above == _TOP else _key(above, name)
        there = self._names.get(key)
        if there is None or self._is_at(offset, name, there):
            return key, there, there is not None
        exact_key = _exact_key(above, name)
        at_exact = self._names.get(exact_key)
        if at_exact is not None and self._is_at(offset, name, at_exact):
            return exact_key, at_exact, True
        if there & _RESERVED:
            return exact_key, there, False
        other = self._entries.part(there >> _FLAG_BITS, offset)
        if not there & _LEFT_OUT and self._judge.are_one(name, other):
            return exact_key, there, False
        # The filesystem may still take it for one of those that are beside the other.
        key = _common_key(above, self._judge.common(name))
        there = self._names.get(key)
        if there is None or self._is_at(offset, name, there):
            return key, there, there is not None
        return exact_key, None if there & _LEFT_OUT else there, False

    def _put(self, key: int, flags: int, path: str) -> None:
        if len(self._names) >= MAX_ENTRIES:
            raise UnsafeName(name=path, reason="there are too many directories")
        self._names[key] = self._added << _FLAG_BITS | flags

    def _is_at(self, offset: int, name: str, there: int) -> bool:
        """Whether a name that is there is spelled exactly so; the names above it have been found to be."""
        return not there & _RESERVED and self._entries.has_part(there >> _FLAG_BITS, offset, name)

    def _refuse(self, path: str, name: str, there: int, is_directory: bool) -> NoReturn:
        """Refuse a path, of which this part is there already."""
        if bool(there & _DIRECTORY) != is_directory:
            raise UnsafeName(name=path, reason=f"{name} would be both a file and a directory")
        raise UnsafeName(name=path, reason="it is listed twice")


_TOP = 0
# What is known of a name, below the index of an entry that has it.
_FLAG_BITS = 4
_DIRECTORY = 1
_LISTED = 2  # has an entry of its own
_LEFT_OUT = 4
_RESERVED = 8  # is what another name was changed to
_FLAGS = _DIRECTORY | _LISTED | _LEFT_OUT | _RESERVED


def _key(above: int, name: str) -> int:
    """What all names have in common that may meet in the directory with the key `above`.

    The hash of a string depends on a secret of the process, so no sender can aim at one.
    """
    return hash((above, fold(name))) & _KEY_BITS or 1


def _common_key(above: int, common: str) -> int:
    """The key of names that meet with another one by _key alone, and have NameJudge.common in common."""
    return hash((above, common, "common")) & _KEY_BITS or 1


def _exact_key(above: int, name: str) -> int:
    """The key of a name that the filesystem takes for another one: it is left out, or changed."""
    return hash((above, name, "exact")) & _KEY_BITS or 1


_KEY_BITS = (1 << 64) - 1
