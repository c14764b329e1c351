"""What a Sender reports: see sender.py."""

from __future__ import annotations

from msgspec import Struct

from flyx.transfer.session import EntryLeftOut, Failed, RoundTrip


class Accepted(Struct, frozen=True):
    """The receiver has begun to accept the transfer."""


class Comparing(Struct, frozen=True):
    """The receiver has begun to compare files that it has."""


class Resumed(Struct, frozen=True):
    """The receiver has this much from an earlier try: files that are complete, and bytes in all."""

    files: int
    bytes: int


class FileConfirmed(Struct, frozen=True):
    """The receiver has saved this file under its final name."""

    file: int


class Delivered(Struct, frozen=True):
    """The receiver has everything that is not left out, and has confirmed its digest (hex), by the sender's
    algorithm."""

    files: int
    bytes: int
    digest: str


SenderEvent = RoundTrip | Comparing | Accepted | Resumed | FileConfirmed | EntryLeftOut | Delivered | Failed
