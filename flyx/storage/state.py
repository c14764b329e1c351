"""The directory of one transfer below the state directory: made, locked, found again and removed.

It has a random name and belongs to one process at a time, which holds a lock (flock) on it. After the process
has ended, however it did, another one can take the directory up; while it runs, another transfer into the
same output directory makes its own.

The state directory belongs to one user. In an output directory that others may write to, such as /tmp, one of
them may have made STATE_DIRECTORY; then ours is the one with our user id after its name. What is used, down
to the files, is ours and nobody else's to write to. That is asked of what has been opened, not of a name,
which could stand for something else a moment later. Where the filesystem does not keep owners or modes, all
is to be had by everybody who can get there, no name is safer than another, and what looks like what we make
there is taken for ours.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress

from flyx.errors import StorageError
from flyx.storage import journal
from flyx.storage.journal import Heading
from flyx.storage.tree import OPEN_TO_OTHERS, Tree, names_in, open_directory
from flyx.transfer.names import STATE_DIRECTORY

_ATTEMPTS = 20
"""Attempts to make the state directory while other transfers, ending, remove it."""

_NAME = re.compile(r"[0-9a-f]{16}")


class StateDirectory:
    """The directory of one transfer, locked."""

    def __init__(self, tree: Tree, parent: str, state: int, own: int, name: str) -> None:
        """Args:
        tree: the output directory.
        parent: name of the state directory in it.
        state: handle of that, ours from now on.
        own: handle of the directory, ours from now on.
        name: its name in the state directory.
        """
        self._tree = tree
        self.parent = parent
        self._state = state
        self.handle = own
        self.name = name

    def exists(self) -> bool:
        """Whether it has not been removed by another process."""
        with suppress(OSError):
            return os.path.samestat(
                os.stat(self.name, dir_fd=self._state, follow_symlinks=False), os.fstat(self.handle)
            )
        return False

    def place(self) -> tuple[int, int]:
        """The handles of the directories that have its name, and that of the state directory."""
        return self._state, self._tree.base

    def remove(self) -> None:
        """Remove it with all that is in it, and the state directory if no other transfer uses that."""
        with suppress(OSError):
            for name in names_in(self.handle):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self.handle)
        with suppress(OSError):
            os.rmdir(self.name, dir_fd=self._state)
        self.release()
        with suppress(OSError):
            os.rmdir(self.parent, dir_fd=self._tree.base)

    def release(self) -> None:
        """Let another transfer take it up."""
        os.close(self.handle)
        os.close(self._state)


def names() -> tuple[str, str]:
    """What the state directory may be called, the usual name first."""
    return STATE_DIRECTORY, f"{STATE_DIRECTORY}-{os.geteuid()}"


def make(tree: Tree) -> StateDirectory:
    """Make a directory for a new transfer.

    Raises:
        StorageError: both names that the state directory may have are taken by what is not ours.
    """
    for attempt in range(_ATTEMPTS):
        state = None
        try:
            parent, state = _make_state(tree)
            name = secrets.token_hex(8)
            os.mkdir(name, 0o700, dir_fd=state)
            own = open_directory(name, state)
        except OSError as error:
            if state is not None:
                os.close(state)
            # Another transfer has just removed it as empty.
            if not isinstance(error, FileNotFoundError) or attempt == _ATTEMPTS - 1:
                raise
            continue
        # Whoever looks for unfinished ones may have locked it first, and removed it for want of a journal.
        # Where there are no locks (NFS, FUSE), it serves as well, and is never taken up again.
        with suppress(OSError):
            fcntl.flock(own, fcntl.LOCK_EX)
        made = StateDirectory(tree, parent, state, own, name)
        if made.exists():
            return made
        made.release()
    raise _unusable(tree, STATE_DIRECTORY, "something keeps removing what is in it")


def _make_state(tree: Tree) -> tuple[str, int]:
    """Open the state directory, made if it is missing; return its name and its handle."""
    for name in names():
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=tree.base)
        try:
            state = open_directory(name, tree.base)
        except (NotADirectoryError, PermissionError):
            status = os.stat(name, dir_fd=tree.base, follow_symlinks=False)
            if status.st_uid == os.geteuid():
                if not stat.S_ISDIR(status.st_mode):
                    raise _unusable(tree, name, "it is not a directory") from None
                raise
        else:
            status = os.fstat(state)
            if tree.is_private(status, stat.S_IFDIR):
                return name, state
            os.close(state)
    raise _unusable(tree, name, _fault(status))


def _fault(status: os.stat_result) -> str:
    """Why we do not use what is there under the name of the state directory."""
    if status.st_uid == os.geteuid():
        return "others than you may write to it"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"the user {status.st_uid}"
    return f"it belongs to {owner}, not to you"


def _unusable(tree: Tree, name: str, reason: str) -> StorageError:
    hint = "remove it if you may, or choose another directory with -o"
    return StorageError(action="use", path=tree.shown((name,)), reason=reason, hint=hint)


def find(tree: Tree, wanted: Heading) -> tuple[StateDirectory | None, list[Heading], str]:
    """Look for an unfinished transfer that this one goes on with, and for others.

    The one with the same manifest id goes on; failing that, the latest with the same roots, whose files may
    have changed since.

    Returns:
        Its directory, locked, or None; the headings of the others that nobody is working on; and the name of
        the state directory that they, or else it, are in.
    """
    state_directory = STATE_DIRECTORY
    best: StateDirectory | None = None
    best_heading: Heading | None = None
    others: list[Heading] = []
    for found in _unfinished(tree):
        heading = journal.read_heading(found.handle, tree)
        if heading is None:
            found.release()
            continue
        state_directory = found.parent
        if _rank(wanted, heading) <= _rank(wanted, best_heading):
            found.release()
            others.append(heading)
            continue
        if best is not None and best_heading is not None:
            best.release()
            others.append(best_heading)
        best, best_heading = found, heading
    return best, others, state_directory


def _rank(wanted: Heading, heading: Heading | None) -> tuple[bool, bool, int]:
    if heading is None or heading.roots != wanted.roots:
        return False, False, 0
    return heading.manifest_id == wanted.manifest_id, True, heading.time


def remove_abandoned(tree: Tree) -> None:
    """Remove what was begun and never got as far as a journal, if nobody is working on it."""
    for found in _unfinished(tree):
        if journal.exists(found.handle):
            found.release()
        else:
            found.remove()


def _unfinished(tree: Tree) -> Iterator[StateDirectory]:
    """Yield the directories that nobody is working on, each locked."""
    for parent in names():
        try:
            state = open_directory(parent, tree.base)
        except OSError:
            continue
        try:
            for name in sorted(names_in(state)) if _is_private(tree, state) else ():
                if (found := _lock(tree, parent, state, name)) is not None:
                    yield found
        finally:
            os.close(state)


def _is_private(tree: Tree, state: int) -> bool:
    with suppress(OSError):
        return tree.is_private(os.fstat(state), stat.S_IFDIR)
    return False


def _lock(tree: Tree, parent: str, state: int, name: str) -> StateDirectory | None:
    """Return a directory that is a transfer's, ours and free, or None."""
    if not _NAME.fullmatch(name):
        return None
    try:
        own = open_directory(name, state)
    except OSError:
        return None
    found = StateDirectory(tree, parent, os.dup(state), own, name)
    with suppress(OSError):
        # Files in it may have modes that let others write to them: only we may get there.
        if tree.is_private(os.fstat(own), stat.S_IFDIR, OPEN_TO_OTHERS):
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been removed before it was ours.
            if found.exists():
                return found
    found.release()
    return None
