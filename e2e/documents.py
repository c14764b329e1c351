"""The examples of the documents, and a place where they run as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from e2e.processes import DEADLINE, Flyx
from flyx.errors import EXIT_DONE

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
        with self._start(script, variables) as process:
            out, err = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(script, process.returncode, out, err)

    @contextmanager
    def sending(self, script: str) -> Iterator[str]:
        """Run a script that sends, and yield the code that it shows; it must end well after the block."""
        with self._start(script, {}) as process:
            try:
                assert process.stdout is not None
                yield process.stdout.readline().split()[-1]
                _, err = process.communicate(timeout=DEADLINE)
                assert process.returncode == EXIT_DONE, err
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _start(self, script: str, variables: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            cwd=self._flyx.directory,
            env=self._flyx.environment | variables,
            # A process group that is ended as a whole.
            start_new_session=True,
        )
