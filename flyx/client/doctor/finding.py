"""What a check has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class FindingState(StrEnum):
    """How good a finding is."""

    OK = "ok"
    # Transfers work, though not all of them, or not as fast as they could.
    WARNING = "warning"
    # Something that transfers rely on does not work.
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked, for scripts: "server", "stun", "turn".
        words: what was found, in one line. Text from servers in it is raw.
        meaning: what that means for a transfer.
        advice: what to do; empty if nothing.
        figures: the same for scripts. No addresses of this network.
    """

    name: str
    state: FindingState
    words: str
    meaning: str = ""
    advice: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)


def milliseconds(seconds: float) -> str:
    """Return a short time as people read it."""
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
