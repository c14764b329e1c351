"""The choice of what becomes of symbolic links; alone here, as `flyx --help` has no time to load the rest."""

from enum import StrEnum


class Links(StrEnum):
    """What becomes of the symbolic links inside directories; one that is named is followed."""

    KEEP = "keep"
    """It is sent as a link if it stays inside what is sent, and left out if not."""

    FOLLOW = "follow"
    """What it leads to is sent under its name."""

    SKIP = "skip"
    """It is left out."""
