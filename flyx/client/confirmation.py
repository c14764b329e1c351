"""What both ends of a transfer agree on at its end: only with this has it succeeded."""

from __future__ import annotations

from msgspec import Struct

from flyx.errors import FilesFailed
from flyx.transfer.left_out import AT_RECEIVER, BY_NAME, reason

_ABOUT_NAMES = "the other files are complete; `flyx receive --names` can take more, or save under other names"


class Confirmation(Struct, frozen=True):
    """What both ends of a transfer have agreed on at its end.

    Attributes:
        files: how many are complete at the receiver.
        bytes: in these.
        digest: of the transfer, in hex; both ends have computed it.
        missing: how many entries the receiver does not have.
        first_missing: path of the first of them, and why (a code of left_out.py).
    """

    files: int
    bytes: int
    digest: str
    missing: int = 0
    first_missing: tuple[str, str] = ("", "")

    @property
    def is_of_nothing(self) -> bool:
        """Whether the receiver could take nothing of what it was sent."""
        return not self.files and self.first_missing[1] in AT_RECEIVER

    @property
    def error(self) -> FilesFailed | None:
        """What to tell of the missing entries; None if there are none."""
        if not self.missing:
            return None
        path, code = self.first_missing
        total = self.files + self.missing
        hint = _ABOUT_NAMES if code in BY_NAME else None
        return FilesFailed(hint=hint, failed=self.missing, total=total, path=path, reason=reason(code))
