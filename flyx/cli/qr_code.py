"""A link as a QR code (ISO/IEC 18004) on a terminal, for the camera of a phone."""

from __future__ import annotations

QUIET_ZONE = 2
"""Modules of light around the code: half of what the standard has, and enough for phones, so that a code and
the lines above it fit 24 lines."""

# Each character is two modules, one above the other: dark is the foreground and light the background.
_HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
# Black on white, whatever the terminal's own colours are: not all phones read a code that is light on dark.
_DRAW, _RESET = "\x1b[38;5;16;48;5;231m", "\x1b[0m"


def qr_rows(text: str) -> list[str]:
    """Return the rows of the smallest QR code that says text, all of the same width, without colours."""
    # Loaded here: few commands draw one.
    import segno

    code = segno.make(text, error="l", micro=False)
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=QUIET_ZONE)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def coloured(row: str) -> str:
    """Return a row as it is written to a terminal."""
    return f"{_DRAW}{row}{_RESET}"


def can_be_written_in(encoding: str) -> bool:
    """Whether the characters of a code exist in an encoding."""
    try:
        "".join(_HALVES.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
