"""A receiver that is stopped in the middle of a file, with a part of that in its journal."""

from __future__ import annotations

import time
from pathlib import Path

from e2e.processes import Flyx, FlyxProcess
from flyx.storage.partial import CHECKPOINT_INTERVAL

DIGITS = 64
"""Of a block of a MiB in the journal."""


def under_way(flyx: Flyx, sender: FlyxProcess, directory: Path, least: int) -> FlyxProcess:
    """A receiver that has at least so many bytes, many of them in its journal, standing still."""
    receiver = flyx.receive(sender.code(), directory)
    receiver.event("progress", lambda event: event["bytes"] >= least)
    receiver.stop()
    # However fast it is, it is not done before the next checkpoint is due.
    time.sleep(CHECKPOINT_INTERVAL)
    receiver.resume()
    receiver.event("progress", lambda _: in_journals(directory) > least // 2)
    return receiver.stop()


def in_journals(directory: Path) -> int:
    """Bytes, about, that the journals in this directory vouch for; they are written once a second."""
    lines = (
        line
        for path in directory.glob(".flyx/*/journal")
        for line in path.read_bytes().splitlines()
        if b'"blocks"' in line
    )
    return sum(len(line) // DIGITS for line in lines) << 20
