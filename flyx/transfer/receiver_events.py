"""What a Receiver reports: see receiver.py."""

from __future__ import annotations

from msgspec import Struct

from flyx.transfer.disk import Unfinished
from flyx.transfer.manifest import Manifest
from flyx.transfer.session import EntryLeftOut, Failed, RoundTrip


class Offered(Struct, frozen=True):
    """The sender offers this much. More is known when the manifest is complete."""

    files: int
    bytes: int


class Comparing(Struct, frozen=True):
    """So many files, of so many bytes, are here with the size of those offered; both sides hash them now."""

    files: int
    bytes: int


class ManifestReceived(Struct, frozen=True):
    """The whole manifest is here and planned. If `question` is set, ask the person and call answer().

    What of it is left out is told by an EntryLeftOut each when it is accepted.

    Attributes:
        kept_files: how many are complete from an earlier try.
        found_bytes: bytes that are here from it, in those and in others.
        changed: the files of which there was a part that is of no use, because they are others now.
        here_files: how many are left out because they are here, whoever put them there.
        here_bytes: bytes in those.
    """

    manifest: Manifest
    question: bool
    kept_files: int = 0
    found_bytes: int = 0
    changed: tuple[int, ...] = ()
    here_files: int = 0
    here_bytes: int = 0


class UnfinishedFound(Struct, frozen=True):
    """In the same directory wait other transfers that were not completed."""

    transfers: tuple[Unfinished, ...]


class FileReceived(Struct, frozen=True):
    """A file is complete under its final name `path`; None if it has none: it was passed on.

    `digest` is in hex, by the receiver's algorithm, as that of Received.
    """

    file: int
    path: str | None
    digest: str


class Received(Struct, frozen=True):
    """Everything that the sender could deliver is complete. `digest` is that of the transfer."""

    files: int
    bytes: int
    digest: str


ReceiverEvent = (
    RoundTrip
    | Offered
    | UnfinishedFound
    | Comparing
    | ManifestReceived
    | FileReceived
    | EntryLeftOut
    | Received
    | Failed
)
