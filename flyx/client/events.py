"""What the client reports while it works; cli/ renders it for people or as NDJSON.

`peer` tells several receivers of one sender apart: 1, 2, 3 in the order of their arrival; a receiver's only
peer is its sender, 1. Text from the other side (paths) is raw here: cli/ escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyx.client.codes import browser_link
from flyx.client.limits import Limit
from flyx.errors import FlyxError
from flyx.rtc.attempts import Attempts
from flyx.rtc.path import CandidatePair
from flyx.transfer.manifest import Manifest


@dataclass(frozen=True, slots=True)
class RoomOpened:
    """The sender's room is open.

    Attributes:
        code: what receivers need.
        server: URL of the server, for others, without credentials.
        local: the sender serves itself, and is found on the local network.
        pass_on: receivers need the URL as well.
        here_only: the server is reached from this computer alone.
    """

    room_id: str
    code: str
    server: str
    local: bool
    pass_on: bool = False
    here_only: bool = False

    @property
    def link(self) -> str | None:
        """What opens the page of the server in a browser, with the code; None if others could not use it."""
        if self.local or self.here_only:
            return None
        return browser_link(self.room_id, self.code[len(self.room_id) + 1 :], self.server)


@dataclass(frozen=True, slots=True)
class RoomJoined:
    """The receiver is in the sender's room; `server` and `local` as in RoomOpened."""

    room_id: str
    server: str
    local: bool


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """The other side is in the room; a connection to it is being made."""

    peer: int


@dataclass(frozen=True, slots=True)
class Connecting:
    """The connection to the other side takes its time; this has been tried until now."""

    peer: int
    attempts: Attempts


@dataclass(frozen=True, slots=True)
class PeerPaired:
    """The other side knows the code, or the code has no words."""

    peer: int


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """The connection is up, or goes another way than before.

    Attributes:
        path: what it takes.
        rtt: round-trip time in seconds.
    """

    peer: int
    path: CandidatePair
    rtt: float


@dataclass(frozen=True, slots=True)
class Condition:
    """How the transfer goes. At most once a second, and as seen from this side.

    Attributes:
        limit: what keeps it from being faster; None if that is not seen from here.
        rtt: round-trip time of the data itself in seconds; None while nothing is known.
        delivered: bytes that have arrived at the other side, all overhead of data channels included.
        resent: bytes that have left again because they seemed lost.
    """

    peer: int
    limit: Limit | None
    rtt: float | None
    delivered: int
    resent: int


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The connection is lost in the middle of the transfer, and another one is being made.

    PeerConnected follows when it is made, PeerEnded or the end of the program when it cannot be.
    """

    peer: int
    error: FlyxError


@dataclass(frozen=True, slots=True)
class PeerEnded:
    """The transfer with this peer is over.

    Attributes:
        error: why it did not succeed; None if it did.
        code_is_good: a receiver that tries again is served.
    """

    peer: int
    error: FlyxError | None
    code_is_good: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The sender lists what it will offer, and has found so many entries. At most two a second."""

    entries: int


@dataclass(frozen=True, slots=True)
class ManifestKnown:
    """All that is offered is known; again when the sender offers something else to those who come later."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Resuming:
    """The receiver has a part from an earlier try: `files` that are complete, and `bytes` in all."""

    peer: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Verified bytes at the receiver so far. At most a few a second.

    Attributes:
        total: bytes in all; None if nobody knows: of a stream.
        arrived: bytes besides these that have come to the receiver and are not verified; 0 at a sender.
    """

    peer: int
    bytes: int
    total: int | None
    arrived: int = 0


@dataclass(frozen=True, slots=True)
class FileFinished:
    """A file is complete at the receiver.

    Attributes:
        path: in the manifest.
        saved_as: its final path on this machine; None at the sender.
        digest: of its content, in hex, as defined in transfer/digests.py; None at the sender.
        algorithm: what it is by, "sha256" or "blake3"; None at the sender.
    """

    peer: int
    path: str
    saved_as: str | None
    digest: str | None
    algorithm: str | None = None


@dataclass(frozen=True, slots=True)
class TextReceived:
    """The sender has sent a text, and this is it."""

    peer: int
    text: str


@dataclass(frozen=True, slots=True)
class FileLost:
    """An entry will not be at the receiver: the sender cannot read it, or the receiver cannot have it."""

    peer: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class TransferDone:
    """The transfer with this peer is complete and confirmed; `seconds` since it was accepted.

    Attributes:
        digest: of all of it, in hex: the same on both sides.
        algorithm: what it is by, "sha256" or "blake3".
        resumed: how many of the bytes were there before.
        missing: how many entries the receiver does not have, as told by FileLost.
        spared: how many of them had not to be sent, as they were compressed; 0 at a receiver.
    """

    peer: int
    files: int
    bytes: int
    seconds: float
    digest: str
    resumed: int = 0
    missing: int = 0
    spared: int = 0
    algorithm: str = "sha256"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth a line that changes nothing: a skipped symbolic link, a lost server."""

    message: str


def server_lost(reason: str) -> Notice:
    """Return what to tell when the connection to the server is lost; reason is a clause."""
    return Notice(f"The server is out of reach ({reason}). Trying to get back to it.")


SERVER_BACK = Notice("The server is there again.")

Event = (
    RoomOpened
    | RoomJoined
    | PeerJoined
    | Connecting
    | PeerPaired
    | PeerConnected
    | Condition
    | PeerLost
    | PeerEnded
    | Listing
    | ManifestKnown
    | Resuming
    | Progress
    | FileFinished
    | TextReceived
    | FileLost
    | TransferDone
    | Notice
)
