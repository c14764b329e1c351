"""The wire grammar of a transfer, version 1.

Two ordered, reliable data channels. On `control`, once the two sides have paired (flyx/pairing/messages.py),
one JSON object a message, at most MAX_CONTROL_SIZE bytes of UTF-8:

    type            from       fields
    manifest_start  sender     manifest_id, entries, files, bytes, roots: how many there are of each
    roots           sender     names: the first parts of the paths, in order, in pieces
    manifest        sender     first, entries: rows [path, kind, size, mode, mtime_us], in order, in pieces
    manifest_end    sender
    kept            receiver   files: rows [file, sha256], complete from an earlier try: not to be sent
    have            receiver   file, first, sha256: its blocks from `first` on, here from an earlier try; in
                               pieces that together are the beginning of the file
    accept          receiver   below: entries with a smaller index may be sent
    credit          receiver   bytes: data bytes that may have been sent in all; written: file bytes verified
    saved           receiver   files: indexes that are complete under their final names
    complete        receiver   files, bytes, sha256: everything accepted is saved; the transfer's digest
    done            sender     the digest is the sender's too; last message, the receiver closes
    cancel          both       code, message: last message
    ping, pong      both       token: proof of life, and the round-trip time

On `data`, from the sender only: messages of one or more frames, no larger than the peer accepts. A frame is
FRAME_HEADER (kind, file index, payload length, offset; network byte order) and its payload:

    DATA         bytes of the file at offset; in order, never across a block boundary, and at least
                 SHORTEST_DATA of them unless they end their block
    BLOCK_END    SHA-256 of the block that began at offset
    FILE_END     the file's digest; offset is the file's size
    FILE_FAILED  a code from left_out.REASONS: this file cannot be completed

Files come in the order of the manifest, directories and kept files have no frames. Data bytes for credit are
the bytes of the data messages, headers included. Unknown fields are ignored, so that later versions can add
some.

`kept` and `have` come before the `accept` that covers their files, in the order of the manifest. Of a file
that the receiver has blocks of, the sender reads the last of these: if its SHA-256 is the receiver's, it goes
on after it (with FILE_END at once if that was the file's last), else it begins at offset 0, and the receiver
drops what it had. FILE_END bears the digest over the receiver's block digests and the new ones.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flyx.errors import LocalProtocolError, RemoteProtocolError
from flyx.transfer import disk
from flyx.transfer.manifest import (
    DIGEST_SIZE,
    MAX_ENTRIES,
    MAX_FILE_SIZE,
    MAX_MTIME_US,
    MAX_ROOTS,
    MAX_TOTAL_SIZE,
    Entry,
    EntryKind,
    Manifest,
)

MIN_MESSAGE_SIZE = 16_384
"""Bytes of a message that a peer must accept. Below 1,100 or so no DATA frame of SHORTEST_DATA fits, below
6,400 not the row of the longest path (names.MAX_PATH_BYTES, each of which JSON may escape), nor the longest
reason of a Cancel. So we take what every WebRTC stack accepts and RFC 8831 §6.6 has senders keep to, and no
message of the control channel is longer: only those of the data channel grow with what the peer accepts."""

MAX_DATA_SIZE = 262_144
"""Bytes of a message of the data channel, even if the peer accepts more: longer ones are no faster, and one
as long as all that may be read ahead would never be complete."""

MAX_CONTROL_SIZE = MIN_MESSAGE_SIZE
"""UTF-8 bytes in a control message."""

PIECE_ITEMS = 500
"""Most entries or roots that one piece of a manifest may have; MIN_MESSAGE_SIZE mostly ends it before."""

DIGESTS_PER_MESSAGE = 200
"""Rows of Kept, or digests of Have, in one message: at most 77 bytes each."""

SAVED_PER_MESSAGE = 2_000
"""Indexes of Saved in one message: at most 7 bytes each."""

SHORTEST_DATA = 1024
"""Bytes in a DATA frame that does not end its block: shorter ones would cost more memory than they fill."""

CONTROL_CHANNEL = "control"
DATA_CHANNEL = "data"

Index = Annotated[int, Field(ge=0, le=MAX_ENTRIES)]
Count = Annotated[int, Field(ge=0, le=MAX_TOTAL_SIZE)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Row = tuple[
    Annotated[str, Field(max_length=4096)],
    Literal["file", "directory"],
    Annotated[int, Field(ge=0, le=MAX_FILE_SIZE)],
    Annotated[int, Field(ge=0, le=0o777)],
    Annotated[int, Field(ge=-MAX_MTIME_US, le=MAX_MTIME_US)],
]


class _Message(BaseModel):
    # strict: a peer that sends "5" for 5 or 1 for true is not speaking this protocol.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ManifestStart(_Message):
    """How much is offered, before the entries themselves."""

    type: Literal["manifest_start"] = "manifest_start"
    manifest_id: Sha256
    entries: Annotated[Index, Field(ge=1)]
    files: Index
    bytes: Count
    roots: Annotated[int, Field(ge=1, le=MAX_ROOTS)]


class Roots(_Message):
    """The next roots: what a receiver must look for before it can promise that nothing is in the way."""

    type: Literal["roots"] = "roots"
    names: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=PIECE_ITEMS)]


class ManifestPiece(_Message):
    """The next entries of the manifest, as rows."""

    type: Literal["manifest"] = "manifest"
    first: Index
    entries: Annotated[list[Row], Field(max_length=PIECE_ITEMS)]


class ManifestEnd(_Message):
    """All entries have been told."""

    type: Literal["manifest_end"] = "manifest_end"


class Kept(_Message):
    """Files that are complete from an earlier try, with their digests."""

    type: Literal["kept"] = "kept"
    files: Annotated[list[tuple[Index, Sha256]], Field(min_length=1, max_length=PIECE_ITEMS)]


class Have(_Message):
    """Blocks of a file that are here from an earlier try: their digests, in order, in pieces."""

    type: Literal["have"] = "have"
    file: Index
    first: Count
    sha256: Annotated[list[Sha256], Field(min_length=1, max_length=PIECE_ITEMS)]


class Accept(_Message):
    """Entries below this index may be sent."""

    type: Literal["accept"] = "accept"
    below: Index


class Credit(_Message):
    """Flow control: how many data bytes may have been sent in all, and how many file bytes are verified."""

    type: Literal["credit"] = "credit"
    bytes: Count
    written: Count


class Saved(_Message):
    """Files that are complete under their final names."""

    type: Literal["saved"] = "saved"
    files: Annotated[list[Index], Field(max_length=SAVED_PER_MESSAGE)]


class Complete(_Message):
    """Everything that was sent is saved."""

    type: Literal["complete"] = "complete"
    files: Index
    bytes: Count
    sha256: Sha256


class Done(_Message):
    """The sender has seen `complete` and agrees."""

    type: Literal["done"] = "done"


class Cancel(_Message):
    """One side gives up, and why."""

    type: Literal["cancel"] = "cancel"
    code: Annotated[str, Field(max_length=64, pattern=r"^[a-z_]+$")]
    message: Annotated[str, Field(max_length=1000)]


class Ping(_Message):
    """To be answered with a Pong that bears the same token."""

    type: Literal["ping"] = "ping"
    token: Count


class Pong(_Message):
    """The answer to a Ping."""

    type: Literal["pong"] = "pong"
    token: Count


ControlMessage = (
    ManifestStart
    | Roots
    | ManifestPiece
    | ManifestEnd
    | Kept
    | Have
    | Accept
    | Credit
    | Saved
    | Complete
    | Done
    | Cancel
    | Ping
    | Pong
)

_control: TypeAdapter[ControlMessage] = TypeAdapter(Annotated[ControlMessage, Field(discriminator="type")])


def parse_control_untrusted(text: str | bytes) -> ControlMessage:
    """Parse one message of the control channel.

    Raises:
        RemoteProtocolError: it is too long, not JSON, or not in the grammar.
    """
    if not isinstance(text, str):
        raise RemoteProtocolError(reason="a binary message on the control channel")
    # A character has one to four bytes: most messages need no encoding to be judged.
    if len(text) > MAX_CONTROL_SIZE or (
        len(text) * 4 > MAX_CONTROL_SIZE and len(text.encode(errors="surrogatepass")) > MAX_CONTROL_SIZE
    ):
        raise RemoteProtocolError(reason="a control message is too long")
    try:
        return _control.validate_json(text)
    except (ValidationError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(reason=f"a malformed control message ({_summary(error)})") from error


def _summary(error: Exception) -> str:
    """What is wrong, without repeating what the peer wrote."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return str(first["type"])
    return type(error).__name__


def serialize_control(message: ControlMessage) -> str:
    """Return the message as it goes on the wire."""
    return message.model_dump_json()


# The numbers, quotes and commas of one row, and the rest of a message around its rows, generously.
_ROW_OVERHEAD = 80
_ENVELOPE = 100

Item = TypeVar("Item")


def _pieces(items: Sequence[Item], text_of: Callable[[Item], str]) -> Iterator[list[Item]]:
    """Split roots or entries into pieces, each of which fits into one message with the JSON of its texts."""
    piece: list[Item] = []
    room = MAX_CONTROL_SIZE - _ENVELOPE
    for item in items:
        size = len(json.dumps(text_of(item), ensure_ascii=False).encode()) + _ROW_OVERHEAD
        if piece and (size > room or len(piece) == PIECE_ITEMS):
            yield piece
            piece = []
            room = MAX_CONTROL_SIZE - _ENVELOPE
        piece.append(item)
        room -= size
    if piece:
        yield piece


def manifest_messages(manifest: Manifest) -> Iterator[ControlMessage]:
    """Yield the messages that tell a manifest: its start, roots, entries and end."""
    yield ManifestStart(
        manifest_id=manifest.id,
        entries=len(manifest.entries),
        files=manifest.file_count,
        bytes=manifest.total_bytes,
        roots=len(manifest.roots),
    )
    for names in _pieces(manifest.roots, str):
        yield Roots(names=names)
    first = 0
    for entries in _pieces(manifest.entries, lambda entry: entry.path):
        yield ManifestPiece(first=first, entries=[_row(entry) for entry in entries])
        first += len(entries)
    yield ManifestEnd()


def accept_messages(below: int, found: Sequence[disk.Kept | disk.Held]) -> Iterator[ControlMessage]:
    """Yield the messages that accept entries: what of them is there already, then which may be sent."""
    rows: list[tuple[int, str]] = []
    for one in found:
        if isinstance(one, disk.Held) or len(rows) == DIGESTS_PER_MESSAGE:
            if rows:
                yield Kept(files=rows)
            rows = []
        if isinstance(one, disk.Kept):
            rows.append((one.file, one.digest.hex()))
        else:
            yield from _have(one)
    if rows:
        yield Kept(files=rows)
    yield Accept(below=below)


def _have(held: disk.Held) -> Iterator[ControlMessage]:
    digests = [held.digests[at : at + DIGEST_SIZE] for at in range(0, len(held.digests), DIGEST_SIZE)]
    for first in range(0, len(digests), DIGESTS_PER_MESSAGE):
        piece = [digest.hex() for digest in digests[first : first + DIGESTS_PER_MESSAGE]]
        yield Have(file=held.file, first=first, sha256=piece)


def _row(entry: Entry) -> Row:
    kind: Literal["file", "directory"] = "file" if entry.kind is EntryKind.FILE else "directory"
    return (entry.path, kind, entry.size, entry.mode, entry.mtime_us)


def entries_of(piece: ManifestPiece) -> list[Entry]:
    """Return the entries that a manifest message tells."""
    return [
        Entry(path, EntryKind(kind), size, mode, mtime_us)
        for path, kind, size, mode, mtime_us in piece.entries
    ]


FRAME_HEADER = struct.Struct("!B3xIIQ")
"""Kind, three reserved bytes (zero), file index, payload length, offset: 20 bytes."""


class FrameKind(IntEnum):
    """What a frame of the data channel carries."""

    DATA = 1
    BLOCK_END = 2
    FILE_END = 3
    FILE_FAILED = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; the payload is a view into the message it came in."""

    kind: FrameKind
    file: int
    offset: int
    payload: memoryview


_PAYLOAD_LIMITS = {
    FrameKind.DATA: (1, 1 << 30),
    FrameKind.BLOCK_END: (DIGEST_SIZE, DIGEST_SIZE),
    FrameKind.FILE_END: (DIGEST_SIZE, DIGEST_SIZE),
    FrameKind.FILE_FAILED: (1, 64),
}


def parse_frames_untrusted(message: bytes | str) -> list[Frame]:
    """Split one message of the data channel into its frames.

    Raises:
        RemoteProtocolError: it is text or empty, or a frame is cut short, unknown or of impossible length.
    """
    if isinstance(message, str) or not message:
        raise RemoteProtocolError(reason="a data message without frames")
    frames = []
    view = memoryview(message)
    position = 0
    while position < len(view):
        start = position + FRAME_HEADER.size
        if start > len(view):
            raise RemoteProtocolError(reason="a frame is cut short")
        kind_value, file, length, offset = FRAME_HEADER.unpack_from(view, position)
        position = start + length
        try:
            kind = FrameKind(kind_value)
        except ValueError:
            raise RemoteProtocolError(reason=f"unknown frame kind {kind_value}") from None
        shortest, longest = _PAYLOAD_LIMITS[kind]
        if position > len(view) or not shortest <= length <= longest:
            raise RemoteProtocolError(reason=f"a frame of impossible length {length}")
        frames.append(Frame(kind, file, offset, view[start:position]))
    return frames


class FramePacker:
    """Packs frames into messages, so that many small files share one and large blocks fill each.

    Call add() for each frame, flush() when nothing follows soon, and take from `messages`.
    """

    def __init__(self, max_message_size: int) -> None:
        """Args:
        max_message_size: bytes in a message that the peer accepts, headers included; MAX_DATA_SIZE is enough.

        Raises:
            LocalProtocolError: it is less than MIN_MESSAGE_SIZE, so that not all that we say would fit.
        """
        if max_message_size < MIN_MESSAGE_SIZE:
            raise LocalProtocolError(reason=f"a peer was taken on that accepts {max_message_size} bytes only")
        self._limit = min(max_message_size, MAX_DATA_SIZE)
        self._pending: list[bytes | memoryview] = []
        self._pending_size = 0
        self.messages: deque[bytes] = deque()
        # Bytes in `messages` and pending, headers included.
        self.size = 0

    def add(self, kind: FrameKind, file: int, offset: int, payload: bytes | memoryview) -> None:
        """Append one frame; a DATA payload of any length is spread over as many frames as it needs."""
        view = memoryview(payload)
        if kind is FrameKind.DATA:
            while len(view) > (room := self._room()):
                if room < SHORTEST_DATA:
                    self.flush()
                    continue
                self._append(kind, file, offset, view[:room])
                view = view[room:]
                offset += room
            if not view:
                return
        elif len(view) > self._room():
            self.flush()
        self._append(kind, file, offset, view)

    def flush(self) -> None:
        """Make what is pending a message."""
        if self._pending:
            self.messages.append(b"".join(self._pending))
            self._pending.clear()
            self._pending_size = 0

    def pop(self) -> bytes:
        """Take the oldest message."""
        message = self.messages.popleft()
        self.size -= len(message)
        return message

    def _room(self) -> int:
        return self._limit - self._pending_size - FRAME_HEADER.size

    def _append(self, kind: FrameKind, file: int, offset: int, view: memoryview) -> None:
        self._pending.append(FRAME_HEADER.pack(kind, file, len(view), offset))
        self._pending.append(view)
        size = FRAME_HEADER.size + len(view)
        self._pending_size += size
        self.size += size
