"""The wire grammar of a transfer, version 1.

Two ordered, reliable data channels. On `control`, once the two sides have paired (flyx/pairing/messages.py),
one JSON object a message, at most MAX_CONTROL_SIZE bytes of UTF-8:

    type            from       fields
    manifest_start  sender     manifest_id, entries, files, bytes, roots: how many there are of each; holes:
                               how many of the bytes are in holes; failures, others: how much is left out;
                               content: "files", "stream" or "text" (manifest.Content);
                               rate: the data bytes a second that the sender keeps to for all its receivers
                               together, if it is held to any
    roots           sender     names: the first parts of the paths, in order, in pieces
    manifest        sender     first, entries: rows [path, kind, size, mode, mtime_us], in order, in pieces; a
                               hard_link has the index of its file in place of a size; targets: what the
                               symbolic_links among them lead to, in order
    absent          sender     entries: rows [path, code] of what is left out, in pieces
    manifest_end    sender
    hash_with       receiver   algorithm: what all digests are by; "sha256" until this is said
    compare         receiver   files: indexes of those that are here with this size: what do yours hash to?
    digests         sender     files: rows [file, digest], in the order of the questions; null if one cannot
                               be read
    left_out        receiver   entries: rows [index, code] that the receiver goes without
    kept            receiver   files: rows [file, digest], complete from an earlier try: not to be sent
    have            receiver   file, first, sha256: the digests of its blocks from `first` on, here from an
                               earlier try; in pieces that together are the beginning of the file
    go_on           receiver   offset: so much of the stream is here from an earlier connection
    accept          receiver   below: entries with a smaller index may be sent; rate: the data bytes a second
                               that the sender is to keep to, if any; anew: what it has sent is dropped, and
                               it begins again; both of the first accept, which is good for all
    credit          receiver   bytes: data bytes that may have been sent in all; written: file bytes verified
    saved           receiver   files: indexes that are complete under their final names
    complete        receiver   files, bytes, sha256: everything accepted is saved; the transfer's digest
    done            sender     the digest is the sender's too; last message, the receiver closes
    cancel          both       code, message: last message
    reject          receiver   reason: it was still pairing, with a sender that had paired; last message
    ping, pong      both       token: proof of life, and the round-trip time

Paths and targets are strings; one that is no UTF-8, or not printable, is {"base64": …} of its bytes.

On `data`, from the sender only: messages of one or more frames, no larger than the peer accepts. A frame is
FRAME_HEADER (kind, file index, payload length, offset; network byte order) and its payload:

    DATA         bytes of the file at offset; in order, never across a block boundary, and at least
                 frames.SHORTEST_DATA of them unless they end their block
    BLOCK_END    the digest of the block that began at offset; in a stream, the block ends here
    HOLE         nothing: the block that begins at offset is zeros, and need not be stored
    PACKED       a part of the block that begins at offset, compressed; for receivers with the feature ZSTD
    FILE_END     the file's digest; offset is the file's size, that of a stream too
    FILE_FAILED  a code from left_out.REASONS: this file cannot be completed
    ANEW         nothing: all before it was dropped; to receivers with the feature EAGER, file and offset 0

Files come in the order of the manifest; directories, links, and files that are kept or left out have no
frames. Data bytes, for credit and rates, are the bytes of the data messages, headers included. Unknown fields
are ignored, so that later versions can add some.

Digests (digests.py), in hex in messages, are by SHA-256, or by BLAKE3 if the receiver says so with
`hash_with`: before all else that it tells of entries, and only to a sender that has the feature BLAKE3. It
chooses, as it may have digests from an earlier try. Fields are called sha256 whatever they bear, as peers
without that feature know them so.

A receiver with the feature EAGER takes whatever is offered: it asks nobody, and wants no rate. A sender that
has it as well need not wait for the first `accept`: EAGER_CREDIT data bytes may come before that, and before
the manifest too, as the channels are two. They begin with the first file, and digests are, until `hash_with`
says otherwise, by BLAKE3 if both know it. The receiver keeps them until all is planned, and nothing of them
reaches its disk before. If it accepts all entries at once, and has told nothing else of them before, it takes
what came as if that had come then. If not, because something is here, is left out, is compared or has
digests by another algorithm, that `accept` says `anew`, whether anything came or not: the receiver drops all
data before the frame ANEW, and the sender begins, after that, with the first file that is to be sent. What
was dropped has taken its credit.

`compare` comes before the first `accept`, which waits for all answers; no file is compared twice.

A block is all DATA or all PACKED, and then BLOCK_END. In a stream, one that is PACKED ends at a multiple of
BLOCK_SIZE, and others before that or there. The payloads of its PACKED frames, each but the last of
frames.SHORTEST_DATA bytes at least, are one Zstandard frame (RFC 8878) together: smaller than the block, with
its size as Frame_Content_Size, no dictionary, and a Window_Size of at most a block. The digest is that of
the block itself.

`left_out`, `kept` and `have` come before the `accept` that covers their entries, each in the order of the
manifest; `left_out` also later, for what cannot be saved after all: instead of `saved`, or, if it is no file,
before `complete`. Of a file that the receiver has blocks of, the sender reads the last of these: if its
digest is the receiver's, it goes on after it (with FILE_END at once if that was the file's last), else it
begins at offset 0, and the receiver drops what it had. FILE_END bears the digest over the receiver's block
digests and the new ones. A stream goes on, over another connection, at the offset that `go_on` says, before
`accept`; it is the end of a block, and none that the receiver has said it has verified is read again.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Literal, TypeVar

from msgspec import Meta
from msgspec.json import Decoder, encode

from flyx.errors import RemoteProtocolError
from flyx.grammar import (
    HEX_256,
    MALFORMED,
    NAME,
    JsonMessage,
    JsonObject,
    fault_in,
    plain_json_size,
    written,
)
from flyx.transfer import disk
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.manifest import (
    MAX_ENTRIES,
    MAX_FILE_SIZE,
    MAX_MTIME_US,
    MAX_ROOTS,
    MAX_TOTAL_SIZE,
    Entry,
    EntryKind,
    Manifest,
    can_be_on_disk,
    path_bytes,
    path_of_bytes,
)
from flyx.transfer.rate_limit import MAX_RATE, MIN_RATE

MIN_MESSAGE_SIZE = 16_384
"""Bytes of a message that a peer must accept. Below 1,100 or so no DATA frame of SHORTEST_DATA fits, below
13,000 not the row of the longest path with the longest target (names.MAX_PATH_BYTES, MAX_TARGET_BYTES, each
byte of which JSON may escape), nor the longest reason of a Cancel. So we take what every WebRTC stack accepts
and RFC 8831 §6.6 has senders keep to, and no message of the control channel is longer: only those of the data
channel grow with what the peer accepts."""

MAX_CONTROL_SIZE = MIN_MESSAGE_SIZE
"""UTF-8 bytes in a control message."""

PIECE_ITEMS = 500
"""Most entries or roots that one piece of a manifest may have; MIN_MESSAGE_SIZE mostly ends it before."""

DIGESTS_PER_MESSAGE = 200
"""Rows of Kept or Digests, or digests of Have, in one message: at most 77 bytes each."""

LEFT_OUT_PER_MESSAGE = 200
"""Rows of LeftOut in one message: at most 75 bytes each."""

SAVED_PER_MESSAGE = 2_000
"""Indexes of Saved or Compare in one message: at most 7 bytes each."""

ZSTD = "zstd"
"""The feature (flyx/pairing/messages.py) of those who understand PACKED."""

EAGER = "eager"
"""The feature of receivers that take whatever is offered, and of senders that send before they hear so."""

EAGER_CREDIT = 262_144
"""Data bytes that may come before anything is accepted: they are in vain if the receiver has them already. In
its first round trip, a path of any length gets no more than half of them (sctp.congestion.initial_window)."""

CONTROL_CHANNEL = "control"
DATA_CHANNEL = "data"

Index = Annotated[int, Meta(ge=0, le=MAX_ENTRIES)]
Count = Annotated[int, Meta(ge=0, le=MAX_TOTAL_SIZE)]
Sha256 = Annotated[str, Meta(pattern=HEX_256)]
Digest = Annotated[str, Meta(pattern=HEX_256)]
Rate = Annotated[int, Meta(ge=MIN_RATE, le=MAX_RATE)]
Code = Annotated[str, Meta(max_length=64, pattern=NAME)]


class Raw(JsonObject):
    """A path or target that is not shown as text."""

    base64: Annotated[str, Meta(max_length=4096)]


Path = Annotated[str, Meta(max_length=4096)] | Raw
Row = tuple[
    Path,
    Literal["file", "directory", "symbolic_link", "hard_link"],
    Annotated[int, Meta(ge=0, le=MAX_FILE_SIZE)],
    Annotated[int, Meta(ge=0, le=0o777)],
    Annotated[int, Meta(ge=-MAX_MTIME_US, le=MAX_MTIME_US)],
]


class ManifestStart(JsonMessage, tag="manifest_start"):
    """How much is offered, before the entries themselves."""

    manifest_id: Sha256
    entries: Annotated[int, Meta(ge=1, le=MAX_ENTRIES)]
    files: Index
    bytes: Count
    roots: Annotated[int, Meta(ge=1, le=MAX_ROOTS)]
    holes: Count = written(0)
    failures: Count = written(0)
    others: Count = written(0)
    content: Literal["files", "stream", "text"] = written("files")
    rate: Rate | None = None


class Roots(JsonMessage, tag="roots"):
    """The next roots: what a receiver must look for before it can promise that nothing is in the way."""

    names: Annotated[list[Path], Meta(max_length=PIECE_ITEMS)]


class ManifestPiece(JsonMessage, tag="manifest"):
    """The next entries of the manifest, as rows."""

    first: Index
    entries: Annotated[list[Row], Meta(max_length=PIECE_ITEMS)]
    targets: Annotated[list[Path], Meta(max_length=PIECE_ITEMS)] = written([])


class Absent(JsonMessage, tag="absent"):
    """Paths that the sender leaves out, and why, as far as they are named."""

    entries: Annotated[list[tuple[Path, Code]], Meta(max_length=PIECE_ITEMS)]


class ManifestEnd(JsonMessage, tag="manifest_end"):
    """All entries have been told."""


class HashWith(JsonMessage, tag="hash_with"):
    """All digests of the transfer are by this algorithm."""

    algorithm: Algorithm


class Compare(JsonMessage, tag="compare"):
    """The receiver has files of these names and sizes, and asks what the sender's hash to."""

    files: Annotated[list[Index], Meta(min_length=1, max_length=SAVED_PER_MESSAGE)]


class Digests(JsonMessage, tag="digests"):
    """The digests of files that were asked for; none of one that cannot be read."""

    files: Annotated[list[tuple[Index, Digest | None]], Meta(min_length=1, max_length=PIECE_ITEMS)]


class LeftOut(JsonMessage, tag="left_out"):
    """Entries that the receiver goes without, and why."""

    entries: Annotated[list[tuple[Index, Code]], Meta(min_length=1, max_length=PIECE_ITEMS)]


class Kept(JsonMessage, tag="kept"):
    """Files that are complete from an earlier try, with their digests."""

    files: Annotated[list[tuple[Index, Digest]], Meta(min_length=1, max_length=PIECE_ITEMS)]


class Have(JsonMessage, tag="have"):
    """Blocks of a file that are here from an earlier try: their digests, in order, in pieces."""

    file: Index
    first: Count
    sha256: Annotated[list[Digest], Meta(min_length=1, max_length=PIECE_ITEMS)]


class GoOn(JsonMessage, tag="go_on"):
    """A stream goes on, over another connection, after so many bytes."""

    offset: Annotated[int, Meta(ge=1, le=MAX_FILE_SIZE)]


class Accept(JsonMessage, tag="accept"):
    """Entries below this index may be sent."""

    below: Index
    rate: Rate | None = None
    anew: bool = False


class Credit(JsonMessage, tag="credit"):
    """Flow control: how many data bytes may have been sent in all, and how many file bytes are verified."""

    bytes: Count
    written: Count


class Saved(JsonMessage, tag="saved"):
    """Files that are complete under their final names."""

    files: Annotated[list[Index], Meta(max_length=SAVED_PER_MESSAGE)]


class Complete(JsonMessage, tag="complete"):
    """Everything that was sent is saved."""

    files: Index
    bytes: Count
    sha256: Digest


class Done(JsonMessage, tag="done"):
    """The sender has seen `complete` and agrees."""


class Cancel(JsonMessage, tag="cancel"):
    """One side gives up, and why."""

    code: Code
    message: Annotated[str, Meta(max_length=1000)]


class Reject(JsonMessage, tag="reject"):
    """The receiver ends the pairing (flyx/pairing/messages.py) that the sender of a code without words has
    ended already."""

    reason: Code


class Ping(JsonMessage, tag="ping"):
    """To be answered with a Pong that bears the same token."""

    token: Count


class Pong(JsonMessage, tag="pong"):
    """The answer to a Ping."""

    token: Count


ControlMessage = (
    ManifestStart
    | Roots
    | ManifestPiece
    | Absent
    | ManifestEnd
    | HashWith
    | Compare
    | Digests
    | LeftOut
    | Kept
    | Have
    | GoOn
    | Accept
    | Credit
    | Saved
    | Complete
    | Done
    | Cancel
    | Reject
    | Ping
    | Pong
)

_DECODER = Decoder[ControlMessage](ControlMessage)


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
        return _DECODER.decode(text)
    except MALFORMED as error:
        place, fault = fault_in(error)
        raise RemoteProtocolError(reason=f"a malformed control message ({place or 'it'}: {fault})") from error


def serialize_control(message: ControlMessage) -> str:
    """Return the message as it goes on the wire."""
    return encode(message).decode()


# The numbers, quotes and commas of one row, and the rest of a message around its rows, generously.
_ROW_OVERHEAD = 80
_ENVELOPE = 100

Item = TypeVar("Item")


def _pieces(items: Sequence[Item], texts_of: Callable[[Item], Iterable[str]]) -> Iterator[list[Item]]:
    """Split items into pieces, each of which fits into one message with the paths that it has."""
    piece: list[Item] = []
    room = MAX_CONTROL_SIZE - _ENVELOPE
    for item in items:
        size = _ROW_OVERHEAD + sum(map(_path_size, texts_of(item)))
        if piece and (size > room or len(piece) == PIECE_ITEMS):
            yield piece
            piece = []
            room = MAX_CONTROL_SIZE - _ENVELOPE
        piece.append(item)
        room -= size
    if piece:
        yield piece


def _path_size(path: str) -> int:
    """Most bytes that a path takes in JSON."""
    if size := plain_json_size(path):
        return size
    if path.isprintable():
        return len(_PATH_JSON.encode(path).encode())
    return len(path_bytes(path)) * 4 // 3 + 20


_PATH_JSON = json.JSONEncoder(ensure_ascii=False)


def _path(path: str) -> Path:
    """Return a path as it is told."""
    return path if path.isprintable() else Raw(base64=b64encode(path_bytes(path)).decode())


def path_told(path: Path) -> str:
    """Return a path from what was told.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        text = path if isinstance(path, str) else path_of_bytes(b64decode(path.base64, validate=True))
    except ValueError as error:
        raise RemoteProtocolError(reason="a path that is not base64") from error
    if not can_be_on_disk(text):
        raise RemoteProtocolError(reason="a path that cannot be on a disk")
    return text


def manifest_messages(manifest: Manifest, rate: int | None = None) -> Iterator[ControlMessage]:
    """Yield the messages that tell a manifest: its start, roots, entries, what is left out, and its end.

    Args:
        manifest: what is offered.
        rate: bytes a second that the sender keeps to; None: as fast as it can.
    """
    left_out = manifest.left_out
    yield ManifestStart(
        manifest_id=manifest.id,
        entries=len(manifest.entries),
        files=manifest.file_count,
        bytes=manifest.total_bytes,
        roots=len(manifest.roots),
        holes=manifest.hole_bytes,
        failures=left_out.failures,
        others=left_out.others,
        content=manifest.content.value,
        rate=rate,
    )
    for names in _pieces(manifest.roots, lambda name: [name]):
        yield Roots(names=list(map(_path, names)))
    first = 0
    for entries in _pieces(manifest.entries, lambda entry: [entry.path, entry.target]):
        targets = [_path(entry.target) for entry in entries if entry.kind is EntryKind.SYMBOLIC_LINK]
        yield ManifestPiece(first=first, entries=[_row(entry) for entry in entries], targets=targets)
        first += len(entries)
    for absent in _pieces(left_out.named, lambda one: [one[0], one[1]]):
        yield Absent(entries=[(_path(path), code) for path, code in absent])
    yield ManifestEnd()


def compare_messages(files: Sequence[int]) -> Iterator[ControlMessage]:
    """Yield the messages that ask what files of the sender hash to."""
    for first in range(0, len(files), SAVED_PER_MESSAGE):
        yield Compare(files=list(files[first : first + SAVED_PER_MESSAGE]))


def digest_messages(rows: Sequence[tuple[int, str | None]]) -> Iterator[ControlMessage]:
    """Yield the messages that answer."""
    for first in range(0, len(rows), DIGESTS_PER_MESSAGE):
        yield Digests(files=list(rows[first : first + DIGESTS_PER_MESSAGE]))


def left_out_messages(entries: Sequence[tuple[int, str]]) -> Iterator[ControlMessage]:
    """Yield the messages that tell which entries the receiver goes without."""
    for first in range(0, len(entries), LEFT_OUT_PER_MESSAGE):
        yield LeftOut(entries=list(entries[first : first + LEFT_OUT_PER_MESSAGE]))


def accept_messages(
    below: int,
    found: Sequence[disk.Kept | disk.BlocksKept | disk.GoesOn],
    left_out: Sequence[tuple[int, str]],
    rate: int | None = None,
    *,
    anew: bool = False,
) -> Iterator[ControlMessage]:
    """Yield the messages that accept entries: what is left out or there already, then which may be sent."""
    yield from left_out_messages(left_out)
    rows: list[tuple[int, str]] = []
    for one in found:
        if not isinstance(one, disk.Kept) or len(rows) == DIGESTS_PER_MESSAGE:
            if rows:
                yield Kept(files=rows)
            rows = []
        match one:
            case disk.Kept():
                rows.append((one.file, one.digest.hex()))
            case disk.BlocksKept():
                yield from _have(one)
            case disk.GoesOn(offset=offset):
                yield GoOn(offset=offset)
    if rows:
        yield Kept(files=rows)
    yield Accept(below=below, rate=rate, anew=anew)


def _have(kept: disk.BlocksKept) -> Iterator[ControlMessage]:
    digests = [kept.digests[at : at + DIGEST_SIZE] for at in range(0, len(kept.digests), DIGEST_SIZE)]
    for first in range(0, len(digests), DIGESTS_PER_MESSAGE):
        piece = [digest.hex() for digest in digests[first : first + DIGESTS_PER_MESSAGE]]
        yield Have(file=kept.file, first=first, sha256=piece)


def _row(entry: Entry) -> Row:
    number = entry.same_as if entry.kind is EntryKind.HARD_LINK else entry.size
    return (_path(entry.path), entry.kind.value, number, entry.mode, entry.mtime_us)


def entries_of(piece: ManifestPiece) -> list[Entry]:
    """Return the entries that a manifest message tells.

    Raises:
        RemoteProtocolError: some of them cannot be.
    """
    targets = iter(piece.targets)
    entries = [_entry(row, targets) for row in piece.entries]
    if next(targets, None) is not None:
        raise RemoteProtocolError(reason="targets of more links than there are")
    return entries


def _entry(row: Row, targets: Iterator[Path]) -> Entry:
    path, kind_told, number, mode, mtime_us = row
    kind = EntryKind(kind_told)
    if kind is EntryKind.FILE:
        return Entry(path_told(path), kind, number, mode, mtime_us)
    if kind is EntryKind.HARD_LINK:
        return Entry(path_told(path), kind, 0, mode, mtime_us, same_as=number)
    if number:
        raise RemoteProtocolError(reason="a directory or link with a size")
    target = next(targets, None) if kind is EntryKind.SYMBOLIC_LINK else ""
    if target is None:
        raise RemoteProtocolError(reason="a symbolic link without a target")
    return Entry(path_told(path), kind, 0, mode, mtime_us, target=path_told(target))
