"""The lists of a sender: fresh for each receiver, as it may wait for days, and shared where they can be."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path

from msgspec import Struct

from flyx.client import events
from flyx.storage.exclusions import NOTHING_EXCLUDED, Exclusions
from flyx.storage.links import Links
from flyx.storage.reader import BlockDigests
from flyx.storage.scan import NEWS_INTERVAL, Scan, scan

FRESH = 3.0
"""Seconds for which a list is as good as one made now."""

LONG = 5.0
"""Seconds that the making of a list may take while a connection waits for it."""

MAX_LEFT_OUT_SHOWN = 10
"""Entries left out that are named to the sender's person; the others are counted."""


class Listed(Struct, frozen=True):
    """A list, and what its blocks hash to; shared by all receivers that get what is in it."""

    found: Scan
    digests: BlockDigests


class _Stopped(Exception):
    """Nobody wants the list any more."""


class Lists:
    """Makes the lists of a sender."""

    def __init__(
        self,
        paths: Sequence[Path],
        links: Links,
        disk: Executor,
        exclusions: Exclusions = NOTHING_EXCLUDED,
    ) -> None:
        """Args:
        paths: what the person named.
        links: what becomes of symbolic links inside directories.
        disk: runs the scans, one at a time.
        exclusions: what the person wants left out.
        """
        self._paths = paths
        self._links = links
        self._exclusions = exclusions
        self._disk = disk
        # The newest, when it was made, and how many seconds that took.
        self.last: Listed | None = None
        self._made = 0.0
        self._seconds = 0.0
        # Set while one is being made.
        self._making: asyncio.Task[Listed] | None = None
        # Read by the thread that makes one.
        self._stop = threading.Event()
        # How many entries that has found, until it has been told; then 0.
        self._news = 0

    async def current(self, tell: Callable[[events.Event], None]) -> Listed:
        """Return a list made now, or a moment ago; the last one if nothing has changed since.

        Args:
            tell: told how far it is, and what is in a list that is new.

        Raises:
            InputError: there is nothing to send any more.
        """
        if self.last and time.monotonic() < self._made + FRESH:
            return self.last
        if self._making is None:
            self._making = asyncio.create_task(self._make(tell))
            self._making.add_done_callback(self._end)
        # Others may be waiting for it when this receiver leaves.
        return await asyncio.shield(self._making)

    @property
    def takes_long(self) -> bool:
        """Whether a list is to be made before the connection that it is for."""
        return self._seconds > LONG

    def close(self) -> None:
        """Make no more lists, and soon stop the one that is being made."""
        self._stop.set()
        if self._making:
            self._making.cancel()

    async def _make(self, tell: Callable[[events.Event], None]) -> Listed:
        begun = time.monotonic()
        listed = await self._list(tell)
        self._made = time.monotonic()
        self._seconds = self._made - begun
        if listed is not self.last:
            self.last = listed
            _tell_list(listed.found, tell)
        return listed

    async def _list(self, tell: Callable[[events.Event], None]) -> Listed:
        """Make a list on a thread, and tell how far it is."""
        self._news = 0
        work = asyncio.get_running_loop().run_in_executor(self._disk, self._list_blocking, self.last)
        try:
            while not (await asyncio.wait({work}, timeout=NEWS_INTERVAL))[0]:
                count, self._news = self._news, 0
                # The same number again says that it works on those.
                if count:
                    tell(events.Listing(count))
            return work.result()
        finally:
            work.cancel()

    def _list_blocking(self, last: Listed | None) -> Listed:
        found = scan(self._paths, self._links, self._note, self._exclusions)
        return last if last and found.is_same_as(last.found) else Listed(found, BlockDigests(found))

    def _note(self, count: int) -> None:
        self._news = count
        if self._stop.is_set():
            raise _Stopped

    def _end(self, made: asyncio.Task[Listed]) -> None:
        self._making = None
        if not made.cancelled():
            # Those who wait for it have its exception; there may be none.
            made.exception()


class OneList:
    """The only list of a sender whose content is a stream or a text, in the place of Lists."""

    takes_long = False

    def __init__(self, found: Scan) -> None:
        self.last = Listed(found, BlockDigests(found))
        self._is_told = False

    async def current(self, tell: Callable[[events.Event], None]) -> Listed:
        """Return the list."""
        if not self._is_told:
            self._is_told = True
            _tell_list(self.last.found, tell)
        return self.last

    def close(self) -> None:
        """Do nothing."""


def _tell_list(found: Scan, tell: Callable[[events.Event], None]) -> None:
    """Tell what is sent, and what is left out: the first of it, and how much in all."""
    left_out = found.manifest.left_out
    for text in islice(found.left_out_texts(), MAX_LEFT_OUT_SHOWN):
        tell(events.Notice(text))
    more = left_out.failures + left_out.others - MAX_LEFT_OUT_SHOWN
    if more > 0:
        tell(events.Notice(f"{more:,} more are left out"))
    if found.excluded:
        what = "file or directory is" if found.excluded == 1 else "files and directories are"
        tell(events.Notice(f"{found.excluded:,} {what} excluded"))
    tell(events.ManifestKnown(found.manifest))
