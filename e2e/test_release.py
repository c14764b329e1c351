"""A release is the same bytes, whoever builds it and when."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "flyx")


def built(place: Path, mtime: int, umask: int) -> dict[str, str]:
    """Build sdist and wheel from a copy whose files have this time and were made under this umask."""
    source = place / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    for path in (source, *source.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        os.utime(path, (mtime, mtime))
    environment = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(source)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (place / "dist").iterdir()}


def test_two_builds_of_a_release_are_the_same_bytes(tmp_path: Path) -> None:
    first = built(tmp_path / "one", 1_700_000_000, 0o022)
    second = built(tmp_path / "two" / "deeper", 1_800_000_000, 0o077)
    assert first == second
    assert len(first) == 2
    (wheel,) = (tmp_path / "one" / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "flyx/py.typed" in names
    own = {"flyx", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert {name.split("/")[0] for name in names} == own
