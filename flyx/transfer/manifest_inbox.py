"""The manifest that arrives, message by message."""

from __future__ import annotations

from flyx.errors import RemoteProtocolError
from flyx.transfer import messages
from flyx.transfer.disk import PlanTree
from flyx.transfer.left_out import MAX_TOLD, LeftOut
from flyx.transfer.manifest import (
    MAX_PATHS_SIZE,
    MAX_ROOTS_SIZE,
    MAX_TEXT_SIZE,
    MAX_TOTAL_SIZE,
    Content,
    Entries,
    Entry,
    EntryKind,
    Manifest,
    path_bytes,
)
from flyx.transfer.messages import Absent, ManifestPiece, ManifestStart, Roots


class ManifestInbox:
    """Puts a manifest together, and makes sure that it is the one that was announced.

    Every method that takes a message raises RemoteProtocolError if no honest sender would send it now.
    """

    def __init__(self) -> None:
        # What was announced; None before the first message.
        self.start: ManifestStart | None = None
        self._roots: list[str] = []
        self._roots_size = 0
        # Those that have come.
        self.entries = Entries()
        # What the sender says that it leaves out: those that it names.
        self._absent: list[tuple[str, str]] = []

    def begin(self, message: ManifestStart) -> None:
        """Take the first message."""
        if self.start is not None:
            raise RemoteProtocolError(reason="a second manifest")
        if message.holes > message.bytes:
            raise RemoteProtocolError(reason="more bytes in holes than in all")
        content = Content(message.content)
        if content is not Content.FILES and not _is_single(message):
            raise RemoteProtocolError(reason=f"more than one {content.value}")
        if message.bytes > _MOST_BYTES[content]:
            raise RemoteProtocolError(reason=f"a {content.value} of {message.bytes} bytes")
        self.start = message

    def take_roots(self, message: Roots) -> PlanTree | None:
        """Take the next roots; with the last ones, return what the disk is to prepare for."""
        start = self.start
        if start is None or len(self._roots) + len(message.names) > start.roots:
            raise RemoteProtocolError(reason="roots that were not announced")
        names = list(map(messages.path_told, message.names))
        self._roots_size += sum(len(path_bytes(name)) for name in names)
        if self._roots_size > MAX_ROOTS_SIZE:
            raise RemoteProtocolError(reason="roots that are too long in all")
        self._roots += names
        if len(self._roots) < start.roots:
            return None
        return PlanTree(
            tuple(self._roots), start.bytes, start.manifest_id, start.holes, Content(start.content)
        )

    def take_piece(self, piece: ManifestPiece) -> None:
        """Take the next entries."""
        start = self._announced()
        first = len(self.entries)
        if piece.first != first or first + len(piece.entries) > start.entries:
            raise RemoteProtocolError(reason="entries out of place")
        for entry in messages.entries_of(piece):
            self._take_entry(entry, start)

    def take_absent(self, message: Absent) -> None:
        """Take what the sender leaves out."""
        start = self._announced()
        if len(self._absent) + len(message.entries) > min(MAX_TOLD, start.failures + start.others):
            raise RemoteProtocolError(reason="more is left out than was announced")
        self._absent += [(messages.path_told(path), code) for path, code in message.entries]

    def end(self) -> Manifest:
        """Return the manifest, whose last message has come."""
        start = self._announced()
        absent = LeftOut(tuple(self._absent), start.failures, start.others)
        manifest = Manifest(
            self.entries, hole_bytes=start.holes, left_out=absent, content=Content(start.content)
        )
        announced = (start.manifest_id, start.files, start.bytes, start.entries)
        counted = (manifest.id, manifest.file_count, manifest.total_bytes, len(manifest.entries))
        if announced != counted or manifest.roots != tuple(self._roots):
            raise RemoteProtocolError(reason="the manifest is not the one announced")
        if manifest.content is not Content.FILES and manifest.roots != (self.entries.path(0),):
            raise RemoteProtocolError(reason=f"a {start.content} in a directory")
        return manifest

    def _announced(self) -> ManifestStart:
        """What was announced, all roots included."""
        if self.start is None or len(self._roots) != self.start.roots:
            raise RemoteProtocolError(reason="a manifest that goes on before its roots")
        return self.start

    def _take_entry(self, entry: Entry, start: ManifestStart) -> None:
        """Keep an entry, if the manifest with it is still one that can be."""
        entries = self.entries
        if entry.kind is EntryKind.HARD_LINK and not (
            entry.same_as < len(entries) and entries.kind(entry.same_as) is EntryKind.FILE
        ):
            raise RemoteProtocolError(reason="a hard link to what is no file before it")
        if entries.total_bytes + entry.size > start.bytes:
            raise RemoteProtocolError(reason="more bytes than were announced")
        if entries.paths_size + len(path_bytes(entry.path)) + len(path_bytes(entry.target)) > MAX_PATHS_SIZE:
            raise RemoteProtocolError(reason="paths that are too long in all")
        roots = len(entries.roots)
        entries.append(entry)
        if len(entries.roots) > roots and entries.roots[roots:] != self._roots[roots : roots + 1]:
            raise RemoteProtocolError(reason="an entry below a root that was not announced")


_MOST_BYTES = {Content.FILES: MAX_TOTAL_SIZE, Content.STREAM: 0, Content.TEXT: MAX_TEXT_SIZE}


def _is_single(start: ManifestStart) -> bool:
    """Whether one file is announced, and nothing else."""
    counts = start.entries, start.files, start.roots, start.holes, start.failures, start.others
    return counts == (1, 1, 1, 0, 0, 0)
