"""What is fuzzed, and how much work an input may be."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.work import steps

CORPUS = Path(__file__).with_name("corpus")
"""A directory for each target: inputs that together reach what the fuzzer has reached."""

MODULES = {
    "association": "fuzz_association",
    "description": "fuzz_description",
    "candidates": "fuzz_description",
    "journal": "fuzz_journal",
    "manifest": "fuzz_manifest",
    "pairing": "fuzz_pairing",
    "sctp-parser": "fuzz_parser",
    "signaling": "fuzz_signaling",
    "stream-control": "fuzz_stream",
    "stream-data": "fuzz_stream",
    "transfer-control": "fuzz_transfer",
    "transfer-data": "fuzz_transfer",
}
"""The module of each target."""


@dataclass(frozen=True, slots=True)
class Target:
    """Code that takes a stranger's bytes.

    Attributes:
        one_input: takes an input; any exception is a finding.
        base: steps (see work.py) that any input may cost, its surroundings included.
        per_byte: steps that each of its bytes may cost.
    """

    one_input: Callable[[bytes], None]
    base: int
    per_byte: int

    def check(self, data: bytes) -> int:
        """Try an input, and return the steps that it cost.

        Raises:
            TooMuchWork: they are more than may be.
        """
        return steps(lambda: self.one_input(data), limit=self.base + self.per_byte * len(data))


def load(name: str) -> Target:
    """Return a target; its module, and what that tests, is imported now."""
    target = importlib.import_module(f"tests.fuzz.{MODULES[name]}").TARGETS[name]
    assert isinstance(target, Target)
    return target


def corpus(name: str) -> list[Path]:
    """Return the inputs kept for a target."""
    return sorted((CORPUS / name).iterdir())
