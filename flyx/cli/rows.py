"""What is shown of transfers, in a bar's row or in words; bars draws the rows. Pure."""

from __future__ import annotations

from msgspec import Struct


class Glyphs(Struct, frozen=True):
    """The characters of a bar, and what stands for a part that is left out."""

    full: str
    empty: str
    cut: str


UNICODE = Glyphs("\N{BOX DRAWINGS HEAVY HORIZONTAL}", "\N{BOX DRAWINGS LIGHT HORIZONTAL}", "…")
ASCII = Glyphs("#", "-", "~")


def glyphs_for(encoding: str) -> Glyphs:
    """Return the characters that an encoding has."""
    try:
        f"{UNICODE.full}{UNICODE.empty}{UNICODE.cut}".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


class Row(Struct, frozen=True):
    """One transfer.

    Attributes:
        name: of it, printable.
        done: bytes.
        total: bytes; None if nobody knows: of a stream.
        pace: how fast it goes, or that it does not: "12.3 MB/s", "stalled for 7 s".
        is_stalled: whether pace is that it does not go.
        left: how long it still takes, in words; empty if that is not known.
        route: which way it takes, in a word; empty if that is not known.
        limit: what limits it, in words; empty if that is not known.
    """

    name: str
    done: int
    total: int | None
    pace: str = ""
    is_stalled: bool = False
    left: str = ""
    route: str = ""
    limit: str = ""


class Current(Struct, frozen=True):
    """The file under way.

    Attributes:
        number: files that are complete.
        count: files in all.
        name: its path, printable.
    """

    number: int
    count: int
    name: str


def percentage(done: int, total: int | None) -> str:
    """Return the part that is done; 100 % is all of it, and nothing if nobody knows how much that is."""
    if total is None:
        return ""
    return f"{100 * done // total if total else 100}%"
