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
        lost: path and reason of each file that could not be read as it was offered.
    """

    files: int
    bytes: int
    sha256: str
    lost: tuple[tuple[str, str], ...] = ()

    @property
    def error(self) -> FilesFailed | None:
        """What to tell of the lost files; None if there are none."""
        if not self.lost:
            return None
        path, reason = self.lost[0]
        total = self.files + len(self.lost)
        return FilesFailed(failed=len(self.lost), total=total, path=path, reason=reason)
