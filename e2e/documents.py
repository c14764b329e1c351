"""The examples of the documents, and a place where they run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from e2e.processes import DEADLINE, Flyx

ROOT = Path(__file__).parents[1]


def blocks_of(document: str, language: str, chapter: str = "") -> list[str]:
    """Return the blocks of code in this language, in order; without what they are indented by.

    Args:
        document: its path in the repository.
        language: what stands behind the three backticks.
        chapter: its heading, as it is written; empty: of all of the document.
    """
    text = (ROOT / document).read_text()
    if chapter:
        level = chapter.split(" ")[0]
        text = text.split(f"\n{chapter}\n", 1)[1]
        text = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


class Shell:
    """Runs examples as a person would, who has `flyx` in PATH, and whose server is named once and for all."""

    def __init__(self, flyx: Flyx) -> None:
        self._flyx = flyx
        self._programs = flyx.directory / "bin"
        self._programs.mkdir()
        flyx.environment |= {
            "FLYX_SERVER": flyx.server,
            "PATH": f"{self._programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.add("flyx", f'exec {sys.executable} -m flyx "$@"')

    def add(self, name: str, script: str) -> None:
        """Add a program to PATH, of this script for sh."""
        program = self._programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the directory of the test, with these variables besides, to its end."""
        return subprocess.run(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            cwd=self._flyx.directory,
            env=self._flyx.environment | variables,
            timeout=DEADLINE,
            check=False,
        )
