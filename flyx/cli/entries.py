"""The events `entries`: all names of a manifest, told in pieces between everything else that happens.

The list of a million entries is 80 MB of JSON and takes seconds to write. Here a piece is made, written and
forgotten before the next one, the event loop turns between any two, and none is made while the reader has not
read the events before. What is left when a transfer is done is written at once: that is little, unless the
reader is slow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flyx.errors import StorageError
from flyx.grammar import plain_json_size

if TYPE_CHECKING:
    from flyx.transfer.manifest import Manifest

MAX_ENTRIES = 500
"""Entries in one piece."""

_MAX_PATHS = 32_000
"""Characters of JSON in the paths of one piece: its line stays below 64 KiB, the default limit of many who
read lines (asyncio's StreamReader)."""

_PATIENCE = 0.05
"""Seconds until a reader that is behind is looked at again."""

Piece = tuple[int, list[dict[str, Any]]]
"""The index of the first entry, and the entries as they are printed."""


def pieces_of(manifest: Manifest) -> Iterator[Piece]:
    """Yield the entries of a manifest in order; one at least, which may be empty."""
    first, piece, size = 0, list[dict[str, Any]](), 0
    for index, entry in enumerate(manifest.entries):
        length = plain_json_size(entry.path) or len(json.dumps(entry.path))
        if piece and (len(piece) == MAX_ENTRIES or size + length > _MAX_PATHS):
            yield first, piece
            first, piece, size = index, [], 0
        piece.append({"path": entry.path, "type": entry.kind.value, "size": entry.size})
        size += length
    yield first, piece


class EntriesWriter:
    """Writes the pieces of one manifest at a time."""

    def __init__(
        self, write: Callable[[int, list[dict[str, Any]]], None], is_behind: Callable[[], bool]
    ) -> None:
        """Args:
        write: writes one piece.
        is_behind: says whether the reader has not read what was written before.
        """
        self._write = write
        self._is_behind = is_behind
        self._pieces: Iterator[Piece] = iter(())
        # Set while the event loop is to come back for the next piece.
        self._next: asyncio.Handle | None = None
        # Why a piece could not be written: raised by the next call.
        self._failure: BrokenPipeError | StorageError | None = None

    def begin(self, manifest: Manifest) -> None:
        """Write this one from now on, and no more of any other."""
        self._stop()
        self._pieces = pieces_of(manifest)
        # Without an event loop nothing else happens that would have to wait: finish() writes all.
        with suppress(RuntimeError):
            self._next = asyncio.get_running_loop().call_soon(self._go_on)

    def check(self) -> None:
        """Make sure that all that could be written was.

        Raises:
            BrokenPipeError, StorageError: as of write_data().
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def finish(self) -> None:
        """Write the rest at once.

        Raises:
            BrokenPipeError, StorageError: as of write_data().
        """
        self.check()
        pieces = self._pieces
        self._stop()
        for piece in pieces:
            self._write(*piece)

    def _stop(self) -> None:
        self._pieces = iter(())
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_behind():
            self._next = loop.call_later(_PATIENCE, self._go_on)
            return
        self._next = None
        piece = next(self._pieces, None)
        if piece is None:
            return
        try:
            self._write(*piece)
        except (BrokenPipeError, StorageError) as error:
            self._failure = error
            self._stop()
        else:
            self._next = loop.call_soon(self._go_on)
