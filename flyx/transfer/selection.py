"""What a receiver wants of what is offered: by patterns, or by paths as they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from flyx.transfer.left_out import BY_NATURE, LeftOut
from flyx.transfer.manifest import Entries, EntryKind, Manifest
from flyx.transfer.patterns import Patterns

_KEPT_VERDICTS = 1024
"""Directories whose verdict is kept: those of a path, and some more."""


class Selection:
    """What is wanted: all that a pattern chooses, and all in directories that one chooses.

    The patterns are those of patterns.py, for paths as they are in the manifest. The verdict on a directory
    holds for what is in it, until a pattern has one on that. If the first pattern begins with `!`, what no
    pattern speaks of is wanted, else it is not.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Args:
        texts: patterns; each also chooses the path that it is, character by character, if none matches that.
        """
        self._patterns = Patterns(texts)
        self._paths = frozenset(text.rstrip("/") for text in texts)
        self._otherwise = bool(texts) and texts[0].startswith("!")
        self._wants_directory = lru_cache(_KEPT_VERDICTS)(self._wants_below)

    def wants(self, path: str, *, is_directory: bool) -> bool:
        """Whether an entry is wanted. Of directories that are not, what is wanted in them needs some."""
        return self._wants_directory(path) if is_directory else self._wants_path(path, is_directory=False)

    def part_of(self, manifest: Manifest) -> Manifest:
        """Return what is wanted of a manifest, with the directories that it is in; the id is that of all."""
        entries = manifest.entries.only(self._wanted(manifest.entries))
        left_out = self._left_out(manifest.left_out)
        return Manifest(entries, hole_bytes=manifest.hole_bytes, left_out=left_out, content=manifest.content)

    def _wanted(self, entries: Entries) -> Iterator[int]:
        # Directories that are not wanted until something in them is, with what paths in them begin with.
        above: list[tuple[str, int]] = []
        for index in range(len(entries)):
            path, is_directory = entries.path(index), entries.kind(index) is EntryKind.DIRECTORY
            while above and not path.startswith(above[-1][0]):
                above.pop()
            if self.wants(path, is_directory=is_directory):
                for _, directory in above:
                    yield directory
                above.clear()
                yield index
            elif is_directory:
                above.append((f"{path}/", index))

    def _left_out(self, left_out: LeftOut) -> LeftOut:
        """Return what of it would have been wanted; what is not named might be."""
        named = tuple(one for one in left_out.named if self._wants_path(one[0], is_directory=False))
        unwanted = [code in BY_NATURE for path, code in left_out.named if (path, code) not in set(named)]
        failures = left_out.failures - unwanted.count(False)
        return LeftOut(named, failures=failures, others=left_out.others - unwanted.count(True))

    def _wants_path(self, path: str, *, is_directory: bool) -> bool:
        verdict = self._patterns.verdict(path, is_directory=is_directory)
        if verdict is None and path in self._paths:
            return True
        if verdict is not None:
            return verdict
        above = path.rpartition("/")[0]
        return self._wants_directory(above) if above else self._otherwise

    def _wants_below(self, directory: str) -> bool:
        return self._wants_path(directory, is_directory=True)
