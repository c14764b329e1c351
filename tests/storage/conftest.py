"""Trees to be sent."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a bit of everything that is sent."""
    tree = tmp_path / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "b.txt").write_bytes(b"b")
    (tree / "a.txt").write_bytes(b"aa")
    (tree / "sub" / "deep" / "zero").touch()
    return tree
