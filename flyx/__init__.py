"""flyx: files straight from one computer to others over WebRTC data channels.

As a library it is what __all__ names, and flyx/docs/library.md describes; nothing else is promised.

The packages import one way only (tests/test_architecture.py holds it):

    cli, api -> client, server -> rtc, net, storage -> cores -> errors

The cores (signaling, pairing, transfer, sctp) do no I/O: no sockets, no disk, no clock and no randomness of
their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyx.api.receiving import receive
    from flyx.api.sending import send
    from flyx.api.server import Server
    from flyx.api.transfer import Event, EventsLost, Transfer
    from flyx.client.events import (
        Condition,
        Connecting,
        FileFinished,
        FileLost,
        Listing,
        ManifestKnown,
        Notice,
        PeerConnected,
        PeerEnded,
        PeerJoined,
        PeerLost,
        PeerPaired,
        Progress,
        Resuming,
        RoomJoined,
        RoomOpened,
        TextReceived,
        TransferDone,
    )
    from flyx.errors import FlyxError, InputError
    from flyx.transfer.manifest import Content, Entry, EntryKind, Manifest

__all__ = [
    "Condition",
    "Connecting",
    "Content",
    "Entry",
    "EntryKind",
    "Event",
    "EventsLost",
    "FileFinished",
    "FileLost",
    "FlyxError",
    "InputError",
    "Listing",
    "Manifest",
    "ManifestKnown",
    "Notice",
    "PeerConnected",
    "PeerEnded",
    "PeerJoined",
    "PeerLost",
    "PeerPaired",
    "Progress",
    "Resuming",
    "RoomJoined",
    "RoomOpened",
    "Server",
    "TextReceived",
    "Transfer",
    "TransferDone",
    "__version__",
    "receive",
    "send",
]

__version__ = "0.1.0"

AGENT = f"flyx/{__version__}"
"""Who we say we are, to servers and peers."""

_EVENTS = "flyx.client.events"
_HOMES = {
    "Content": "flyx.transfer.manifest",
    "Entry": "flyx.transfer.manifest",
    "EntryKind": "flyx.transfer.manifest",
    "Event": "flyx.api.transfer",
    "EventsLost": "flyx.api.transfer",
    "FlyxError": "flyx.errors",
    "InputError": "flyx.errors",
    "Manifest": "flyx.transfer.manifest",
    "Server": "flyx.api.server",
    "Transfer": "flyx.api.transfer",
    "receive": "flyx.api.receiving",
    "send": "flyx.api.sending",
}
"""Where names of __all__ are that are no events."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what is asked for (PEP 562): `flyx --help` has no time for all of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES.get(name, _EVENTS)), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
