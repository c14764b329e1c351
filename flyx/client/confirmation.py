"""What both ends of a transfer have agreed on at its end: nothing else makes it one that has succeeded."""

from __future__ import annotations

from dataclasses import dataclass

from flyx.errors import FilesFailed


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What both ends of a transfer have agreed on at its end.

    Attributes:
        files: how many are complete at the receiver.
        bytes: in these.
        sha256: the transfer's digest in hex; both ends have computed it.
        missing: how many entries the receiver does not have.
        first_missing: path and reason of the first of them.
    """

    files: int
    bytes: int
    sha256: str
    missing: int = 0
    first_missing: tuple[str, str] = ("", "")

    @property
    def error(self) -> FilesFailed | None:
        """What to tell of the missing entries; None if there are none."""
        if not self.missing:
            return None
        path, reason = self.first_missing
        total = self.files + self.missing
        return FilesFailed(failed=self.missing, total=total, path=path, reason=reason)
