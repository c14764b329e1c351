"""Filesystems of one's own, for as long as a test takes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(arguments: list[str | Path], directory: Path) -> Iterator[None]:
    """Mount something at a directory, made if missing, by these arguments of mount(8); or skip the test."""
    directory.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *arguments, directory], capture_output=True, text=True, check=False)
    if made.returncode:
        # No package brings the right to do so, nor a kernel's filesystem: in CI, too, this is nothing to fail
        # for.
        pytest.skip(f"needs the right to mount a filesystem: {made.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily, because after a failure flyx may still use it.
        subprocess.run(["umount", "-l", directory], check=True)
