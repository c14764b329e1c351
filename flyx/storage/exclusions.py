"""What a person wants left out of what is sent: patterns, and those that a tree brings along."""

from __future__ import annotations

import errno
import os
import stat

from msgspec import Struct

from flyx.errors import InputError
from flyx.storage.opening import OPEN_FLAGS, read_to_end
from flyx.transfer.patterns import MAX_PATTERNS_SIZE, NO_PATTERNS, Patterns, pattern_lines

GITIGNORE = ".gitignore"

_REPOSITORY = ".git"


class Exclusions(Struct, frozen=True):
    """What is excluded.

    Attributes:
        patterns: for the paths below each directory that is named; those without a slash are also for what is
            named itself.
        gitignore: the .gitignore files in the trees are heeded as git heeds them, where no pattern says
            otherwise; what is called .git is excluded in any case.
    """

    patterns: Patterns = NO_PATTERNS
    gitignore: bool = False

    def __bool__(self) -> bool:
        """Whether anything may be excluded."""
        return self.gitignore or bool(self.patterns)


NOTHING_EXCLUDED = Exclusions()


class Excluder:
    """Says what is excluded while trees are walked, from the top down: what is excluded is not entered."""

    def __init__(self, exclusions: Exclusions) -> None:
        self._patterns = exclusions.patterns
        self._gitignore = exclusions.gitignore
        # Of each directory that the walk is in: how long its name is, and the patterns of its .gitignore.
        self._levels: list[tuple[int, Patterns]] = []

    def excludes_root(self, name: str, *, is_directory: bool) -> bool:
        """Whether what a person named is excluded."""
        return self._patterns.name_verdict(name, is_directory=is_directory) is True

    def excludes(self, name: str, *, is_directory: bool) -> bool:
        """Whether something in the directory that the walk is in is excluded.

        Args:
            name: its path, the root's name included.
            is_directory: whether that is what is there.
        """
        if self._gitignore and name.endswith(f"/{_REPOSITORY}"):
            # A pattern like `!*/` does not mean that.
            return True
        root_size, _ = self._levels[0]
        for size, patterns in [(root_size, self._patterns), *reversed(self._levels)]:
            verdict = patterns.verdict(name[size + 1 :], is_directory=is_directory)
            if verdict is not None:
                return verdict
        return False

    def enter(self, path: str, name: str) -> None:
        """The walk is now in this directory.

        Raises:
            InputError: its .gitignore cannot be read, so that more might be sent than the person wants.
        """
        self._levels.append((len(name), _read(f"{path}/{GITIGNORE}") if self._gitignore else NO_PATTERNS))

    def leave(self) -> None:
        """The walk is where it was before that directory."""
        self._levels.pop()


def _read(path: str) -> Patterns:
    """Return the patterns of a .gitignore file, if there is one."""
    try:
        handle = os.open(path, OPEN_FLAGS | os.O_NOFOLLOW)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return NO_PATTERNS
            if status.st_size > MAX_PATTERNS_SIZE:
                raise InputError(reason=f"{path} is too large for a file of patterns", hint=_HINT)
            content = read_to_end(handle, MAX_PATTERNS_SIZE + 1)
        finally:
            os.close(handle)
    except OSError as error:
        # There is none, or it is a link: git heeds no such, as they may lead anywhere.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return NO_PATTERNS
        raise InputError(reason=f"cannot heed {path}: {error.strerror}", hint=_HINT) from error
    return Patterns(pattern_lines(content))


_HINT = "mend it, or go without --gitignore and say with --exclude what to leave out"
