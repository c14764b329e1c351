"""The directory of one transfer below STATE_DIRECTORY: made, locked, found again and removed.

It has a random name and belongs to one process at a time, which holds a lock (flock) on it. After the process
has ended, however it did, another one can take the directory up; while it runs, another transfer into the
same output directory makes its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress

from flyx.errors import StorageError
from flyx.storage import journal
from flyx.storage.journal import Heading
from flyx.storage.tree import Tree, open_directory
from flyx.transfer.names import STATE_DIRECTORY

# Attempts to make the state directory while other transfers, ending, remove it.
_ATTEMPTS = 20

_NAME = re.compile(r"[0-9a-f]{16}")


class StateDirectory:
    """The directory of one transfer, locked."""

    def __init__(self, tree: Tree, state: int, own: int, name: str) -> None:
        """Args:
        tree: the output directory.
        state: handle of STATE_DIRECTORY, ours from now on.
        own: handle of the directory, ours from now on.
        name: its name in STATE_DIRECTORY.
        """
        self._tree = tree
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

    def sync(self) -> None:
        """Make its place durable: its name, and that of STATE_DIRECTORY."""
        os.fsync(self._state)
        os.fsync(self._tree.base)

    def remove(self) -> None:
        """Remove it with all that is in it, and STATE_DIRECTORY if no other transfer uses that."""
        for name in os.listdir(self.handle):
            with suppress(OSError):
                os.unlink(name, dir_fd=self.handle)
        with suppress(OSError):
            os.rmdir(self.name, dir_fd=self._state)
        self.release()
        with suppress(OSError):
            os.rmdir(STATE_DIRECTORY, dir_fd=self._tree.base)

    def release(self) -> None:
        """Let another transfer take it up."""
        os.close(self.handle)
        os.close(self._state)


def make(tree: Tree) -> StateDirectory:
    """Make a directory for a new transfer."""
    for attempt in range(_ATTEMPTS):
        with suppress(FileExistsError):
            os.mkdir(STATE_DIRECTORY, 0o700, dir_fd=tree.base)
        state = None
        try:
            state = open_directory(STATE_DIRECTORY, tree.base)
            name = secrets.token_hex(8)
            os.mkdir(name, 0o700, dir_fd=state)
            own = open_directory(name, state)
        except NotADirectoryError:
            path = tree.shown((STATE_DIRECTORY,))
            raise StorageError(action="use", path=path, reason="it is not a directory") from None
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
        made = StateDirectory(tree, state, own, name)
        if made.exists():
            return made
        made.release()
    path = tree.shown((STATE_DIRECTORY,))
    raise StorageError(action="use", path=path, reason="something keeps removing what is in it")


def find(tree: Tree, wanted: Heading) -> tuple[StateDirectory | None, list[Heading]]:
    """Look for an unfinished transfer that this one goes on with, and for others.

    The one with the same manifest id goes on; failing that, the latest with the same roots, whose files may
    have changed since.

    Returns:
        Its directory, locked, or None; and the headings of the others that nobody is working on.
    """
    best: StateDirectory | None = None
    best_heading: Heading | None = None
    others: list[Heading] = []
    for found, heading in _unfinished(tree):
        if _rank(wanted, heading) <= _rank(wanted, best_heading):
            found.release()
            others.append(heading)
            continue
        if best is not None and best_heading is not None:
            best.release()
            others.append(best_heading)
        best, best_heading = found, heading
    return best, others


def _rank(wanted: Heading, heading: Heading | None) -> tuple[bool, bool, int]:
    if heading is None or heading.roots != wanted.roots:
        return False, False, 0
    return heading.manifest_id == wanted.manifest_id, True, heading.time


def _unfinished(tree: Tree) -> Iterator[tuple[StateDirectory, Heading]]:
    """Yield the transfers that nobody is working on, each locked and with its heading.

    What was begun and never got as far as a journal is removed.
    """
    try:
        state = open_directory(STATE_DIRECTORY, tree.base)
    except OSError:
        return
    try:
        for name in sorted(os.listdir(state)):
            found = _lock(tree, state, name)
            if found is None:
                continue
            heading = journal.read_heading(found.handle)
            if heading is None:
                found.remove()
            else:
                yield found, heading
    finally:
        os.close(state)


def _lock(tree: Tree, state: int, name: str) -> StateDirectory | None:
    """Return a directory that is a transfer's, ours and free, or None."""
    if not _NAME.fullmatch(name):
        return None
    try:
        own = open_directory(name, state)
    except OSError:
        return None
    found = StateDirectory(tree, os.dup(state), own, name)
    with suppress(OSError):
        status = os.fstat(own)
        # In a directory that others may write to, they could plant one.
        if status.st_uid == os.geteuid() and not status.st_mode & 0o022:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been removed before it was ours.
            if found.exists():
                return found
    found.release()
    return None
