"""How much of what is drawn at random the tests try: one setting for examples, seeds and steps.

A part of it by default, so that the suite can be run at every change; all of it with FLYX_TESTS=thorough.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

THOROUGH = os.environ.get("FLYX_TESTS") == "thorough"

_PART = 1 if THOROUGH else 4

Item = TypeVar("Item")


def share(count: int) -> int:
    """Of so many examples or seeds, how many to try: at least one."""
    return -(-count // _PART)


def some(cases: Sequence[Item]) -> Sequence[Item]:
    """Of these cases, those to try, the first among them."""
    return cases[::_PART]


# Hypothesis does without a deadline for each example: other programs may use the machine, too.
settings.register_profile("flyx", max_examples=share(100), deadline=None)
settings.load_profile("flyx")
