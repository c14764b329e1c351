"""Filesystems in memory, as far as names go."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Form = Literal["NFC", "NFD"]

_NOT_ON_WINDOWS = re.compile(
    r'.*[<>:"|?*\\\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]) *(\..*)?',
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class FakeNames:
    """How a filesystem judges names.

    Attributes:
        refused: what no name may be.
        text: whether names must be UTF-8.
        case: what makes two names that differ in case alike.
        form: the normal form in which it compares them; None: none.
    """

    refused: re.Pattern[str] = re.compile("(?!)")
    text: bool = False
    case: Callable[[str], str] = str
    form: Form | None = None
    longest: int = 255

    def holds(self, name: str) -> bool:
        """As DiskNames."""
        encoded = os.fsencode(name)
        is_text = encoded.decode(errors="replace") == name
        return (
            len(encoded) <= self.longest and (is_text or not self.text) and not self.refused.fullmatch(name)
        )

    @property
    def distinguishes_case(self) -> bool:
        """As DiskNames."""
        return self.case("A") == "A"

    @property
    def distinguishes_forms(self) -> bool:
        """As DiskNames."""
        return self.form is None

    def comparable(self, name: str) -> str:
        """What two names have in common that are one."""
        folded = self.case(unicodedata.normalize(self.form, name) if self.form else name)
        return unicodedata.normalize(self.form, folded) if self.form else folded


LINUX = FakeNames()
WINDOWS = FakeNames(_NOT_ON_WINDOWS, text=True, case=str.lower)
APPLE = FakeNames(text=True, case=str.casefold, form="NFD")
ZFS = FakeNames(text=True, form="NFC")
ENCRYPTED = FakeNames(longest=143)
DISKS = [LINUX, WINDOWS, APPLE, ZFS, ENCRYPTED]
