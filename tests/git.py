"""git as a judge of patterns: what it ignores in a tree of real files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

# Nothing of the person's own settings, nor of a repository around.
_ENVIRONMENT = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}


def run_git(tree: Path, *arguments: str, given: Iterable[str] = ()) -> set[str]:
    """Return the paths that git tells, each of them ending with a NUL, when it is given these."""
    home = {"HOME": str(tree), "GIT_CEILING_DIRECTORIES": str(tree.parent), "XDG_CONFIG_HOME": "/nonexistent"}
    done = subprocess.run(
        ["git", "-c", "core.ignoreCase=false", *arguments],
        cwd=tree,
        env=_ENVIRONMENT | home,
        input="".join(f"{path}\0" for path in given).encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
    )
    # 1: there are none.
    assert done.returncode in (0, 1), done.stderr
    return {os.fsdecode(path) for path in done.stdout.split(b"\0") if path}


def make_repository(tree: Path, files: Iterable[str], directories: Iterable[str] = ()) -> None:
    """Make a repository of empty files, and of these directories."""
    tree.mkdir()
    run_git(tree, "init", "-q", "--template=", ".")
    for directory in directories:
        (tree / directory).mkdir(parents=True, exist_ok=True)
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).touch()


def ignored(tree: Path, paths: Iterable[str], patterns: Mapping[str, bytes]) -> set[str]:
    """Return which paths git ignores when it finds these .gitignore files, by their directories."""
    written = [tree / directory / ".gitignore" for directory in patterns]
    for file, text in zip(written, patterns.values(), strict=True):
        file.write_bytes(text)
    try:
        return run_git(tree, "check-ignore", "--no-index", "--stdin", "-z", given=paths)
    finally:
        for file in written:
            file.unlink()
