"""Whole programs on a terminal of their own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Mapping


def flyx_on_terminal(*arguments: str, answers: Mapping[str, str], **variables: str) -> tuple[int, str]:
    """Run flyx, and return its exit status and what its terminal showed.

    Args:
        arguments: What comes after `flyx`.
        answers: What is typed, by the question that it is typed after.
        variables: Of the environment, besides ours.
    """
    screen, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flyx", *arguments],
        env={**os.environ, "TERM": "dumb", **variables},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        # Nobody else's terminal: Ctrl-C there is not for it.
        start_new_session=True,
    )
    os.close(inside)
    shown, answered = b"", 0
    try:
        while chunk := os.read(screen, 4096):
            shown += chunk
            for question, answer in answers.items():
                if question.encode() in shown[answered:]:
                    answered = len(shown)
                    os.write(screen, answer.encode())
    except OSError:
        # The end of what is on a terminal.
        pass
    finally:
        os.close(screen)
    return process.wait(60), shown.decode()
