"""Entries that a transfer goes without, and why: one entry never stops the others.

Either side may leave an entry out: the sender what it cannot read, the receiver what its filesystem cannot
have. Each reason has a code for the wire, and words for people on both sides.
"""

from __future__ import annotations

from msgspec import Struct

MAX_TOLD = 1_000
"""Entries left out that one side names to the other; more are only counted."""

# What the sender says.
UNREADABLE = "file_unreadable"
CHANGED = "file_changed"
VANISHED = "file_vanished"
NAME_TOO_LONG = "name_too_long"
TOO_LARGE = "too_large"
SPECIAL = "special_file"
STATE = "state_directory"
LINK_SKIPPED = "link_skipped"

LINK_OUTSIDE = "link_outside"
"""What either says."""

# What the receiver says.
CONTROLS = "control_characters"
NOT_HERE = "name_not_possible"
SAME_NAME = "names_not_distinct"
ABOVE = "directory_left_out"
NO_LINKS = "links_not_possible"
NO_FILE = "file_left_out"
IN_THE_WAY = "in_the_way"
NOT_WRITTEN = "not_written"
TOO_LARGE_HERE = "too_large_here"
NOT_WANTED = "not_wanted"
ALREADY_HERE = "already_here"

REASONS = {
    UNREADABLE: "it could not be read",
    CHANGED: "it changed while it was sent",
    VANISHED: "it was not there to be sent",
    NAME_TOO_LONG: "its path is too long or too deep",
    TOO_LARGE: "it is too large",
    SPECIAL: "it is a device, FIFO or socket",
    STATE: "flyx keeps its own files under that name",
    LINK_SKIPPED: "it is a symbolic link",
    LINK_OUTSIDE: "it is a symbolic link that leads out of what is sent",
    CONTROLS: "its name has characters that control a terminal",
    NOT_HERE: "the receiver's filesystem cannot have its name",
    SAME_NAME: "the receiver's filesystem cannot tell its name from another's",
    ABOVE: "the directory that it is in was left out",
    NO_LINKS: "the receiver's filesystem has no symbolic links",
    NO_FILE: "the file that it is another name of was left out",
    IN_THE_WAY: "the receiver has something else under its name",
    NOT_WRITTEN: "the receiver could not write it",
    TOO_LARGE_HERE: "it is larger than a file can be on the receiver's filesystem",
    NOT_WANTED: "the receiver does not want it",
    ALREADY_HERE: "the receiver has it already",
}
"""The words for each code: why an entry is not at the receiver."""


def reason(code: str) -> str:
    """Return the words for a code, which may be one of a later version."""
    return REASONS.get(code, "it was left out")


NOT_NEEDED = frozenset({NOT_WANTED, ALREADY_HERE})
"""Reasons that a receiver has who goes without an entry as its person wants it: they are only counted."""

BY_NATURE = NOT_NEEDED | {SPECIAL, STATE, LINK_SKIPPED, LINK_OUTSIDE}
"""Reasons that are no failure: what is left out for one of them is not meant to be sent at all."""

AT_RECEIVER = frozenset(
    {CONTROLS, NOT_HERE, SAME_NAME, ABOVE, NO_LINKS, NO_FILE, IN_THE_WAY, NOT_WRITTEN, TOO_LARGE_HERE}
)
"""Reasons that another receiver, or another directory, may not have."""

BY_NAME = frozenset({CONTROLS, NOT_HERE, SAME_NAME})
"""Reasons that another name takes away."""


class LeftOut(Struct, frozen=True):
    """What a sender leaves out.

    Attributes:
        named: paths, as entries would have had them, and codes; at most MAX_TOLD, those that are failures
            first.
        failures: how many in all are left out for a reason that is a failure.
        others: how many in all for the reasons BY_NATURE.
    """

    named: tuple[tuple[str, str], ...] = ()
    failures: int = 0
    others: int = 0

    @property
    def first_failure(self) -> tuple[str, str]:
        """Path and code of the first that is a failure; without a path if none is named."""
        return next((one for one in self.named if one[1] not in BY_NATURE), ("", UNREADABLE))


NOTHING = LeftOut()
