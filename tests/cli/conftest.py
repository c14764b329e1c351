"""What tests of the command line share."""

from __future__ import annotations

import pytest

from flyx.cli import output


@pytest.fixture(autouse=True)
def own_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test be a program of its own: --json of one must not decide where another one's errors go."""
    monkeypatch.setattr(output, "_json_errors", False)
    monkeypatch.setattr(output, "_waiting_lines", [])
    monkeypatch.setattr(output, "_waiting_failure", None)
