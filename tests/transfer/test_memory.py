"""What a manifest costs: bytes of memory for each entry, on both sides, before anything is accepted.

The receiver's side is its state machine and its disk's plan, fed with the messages themselves; the sender's
is the scan of a directory and the messages made of it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyx.errors import FlyxError, UnsafeName
from flyx.storage.scan import scan
from flyx.storage.writer import Destination
from flyx.transfer import messages
from flyx.transfer.manifest import MAX_ENTRIES, MAX_PATHS_SIZE
from flyx.transfer.receiver import Receiver
from flyx.transfer.receiver_events import ManifestReceived
from flyx.transfer.session import Failed

NOW = 50.0

PROMISED = 300 * 10**6
"""Bytes that the manifest of MAX_ENTRIES ordinary entries takes at most, on either side."""

WHATEVER = 400 * 10**6
"""The same for any manifest at all, with the limits of manifest.py."""

REMEMBERED = 1_100_000
"""Bytes that the names judged last take, however many a manifest has."""

Rows = Callable[[int], Iterator[messages.Row]]


def ordinary(count: int) -> Iterator[messages.Row]:
    """A tree such as people have: directories of 100 files, paths of 67 bytes."""
    yield "holiday", "directory", 0, 0o755, 1_700_000_000_000_000
    for n in range(1, count):
        album = f"holiday/Pictures from the archive/2024-07-{n // 101:06}"
        if n % 101 == 1:
            yield album, "directory", 0, 0o755, 1_700_000_000_000_000 + n
        else:
            yield f"{album}/IMG_{n:09}.jpeg", "file", n % 1000, 0o644, 1_700_000_000_000_000 + n


def flat(count: int) -> Iterator[messages.Row]:
    """One directory with all files in it."""
    yield "flat", "directory", 0, 0o755, 1_700_000_000_000_000
    for n in range(1, count):
        yield f"flat/IMG from the archive of the year 2024-07-{n:09}.jpeg", "file", n % 1000, 0o644, 0


def emoji(count: int) -> Iterator[messages.Row]:
    """Paths of almost the greatest length, of characters that take four bytes each in a Python string."""
    for n in range(count):
        yield "d/" + "/".join(["\U0001f600" * 63] * 11) + f"/{n}", "file", 0, 0o644, 0


def deep(count: int) -> Iterator[messages.Row]:
    """Each names a hundred directories of which nobody has heard."""
    for n in range(count):
        yield "d/" + "/".join(f"{n:07}D{i}" for i in range(100)), "file", 0, 0o644, 0


def folding(count: int) -> Iterator[messages.Row]:
    """Names of which the folded copy is longer than the name."""
    for n in range(count):
        yield "d/" + "\u0390" * 100 + f"{n}", "file", 0, 0o644, 0


def start_of(rows: Iterator[messages.Row]) -> messages.ManifestStart:
    """Announce these rows, of one root, without keeping them."""
    digest = hashlib.sha256()
    entries = files = size = 0
    for row in rows:
        digest.update(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        entries, files, size = entries + 1, files + (row[1] == "file"), size + row[2]
    manifest_id = digest.hexdigest()
    return messages.ManifestStart(manifest_id=manifest_id, entries=entries, files=files, bytes=size, roots=1)


def told(made: Rows, count: int) -> Iterator[messages.ControlMessage]:
    """The messages of a manifest, of which no more than one is in memory."""
    yield start_of(made(count))
    yield messages.Roots(names=[next(made(1))[0].split("/")[0]])
    piece: list[messages.Row] = []
    first = size = 0
    for row in made(count):
        cost = len(json.dumps(row, ensure_ascii=False).encode()) + 1
        if size + cost > messages.MAX_CONTROL_SIZE - 100 or len(piece) == messages.PIECE_ITEMS:
            yield messages.ManifestPiece(first=first, entries=piece)
            first, size, piece = first + len(piece), 0, []
        piece.append(row)
        size += cost
    yield messages.ManifestPiece(first=first, entries=piece)
    yield messages.ManifestEnd()


class ReceivingEnd:
    """A receiver that is told a manifest, and its disk, which plans; nothing is accepted."""

    def __init__(self, directory: Path) -> None:
        self.receiver = Receiver(ask=True, now=NOW)
        self.destination = Destination(directory)
        self.error: FlyxError | None = None
        self.whole = False

    def hear(self, made: Rows, count: int) -> ReceivingEnd:
        for message in told(made, count):
            self.receiver.receive_control(messages.serialize_control(message), NOW)
            while operations := self.receiver.next_operations():
                self.receiver.operations_done(self.destination.apply(operations), NOW)
            while (event := self.receiver.next_event()) is not None:
                self.whole = self.whole or isinstance(event, ManifestReceived)
                if isinstance(event, Failed):
                    self.error = event.error
            if self.receiver.ended:
                break
        return self


def memory_of(made: Rows, count: int, directory: Path) -> tuple[int, ReceivingEnd]:
    """Bytes that a receiver holds of a manifest that has been told."""
    # What is made once, whatever is told.
    ReceivingEnd(directory).hear(made, 10)
    gc.collect()
    tracemalloc.start()
    try:
        end = ReceivingEnd(directory).hear(made, count)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], end
    finally:
        tracemalloc.stop()


def test_an_ordinary_entry_takes_less_than_the_promised_bytes(tmp_path: Path) -> None:
    # Just after a dictionary of so many has grown, when it is largest for what is in it.
    count = 5_600
    taken, end = memory_of(ordinary, count, tmp_path / "in")
    assert end.whole
    assert (taken - REMEMBERED) / count < PROMISED / MAX_ENTRIES


@pytest.mark.parametrize(
    ("made", "count"), [(emoji, 300), (folding, 1500), (deep, 50)], ids=["emoji", "folding", "deep"]
)
def test_no_name_takes_much_more_than_its_own_length_and_that_of_an_entry(
    made: Rows, count: int, tmp_path: Path
) -> None:
    taken, end = memory_of(made, count, tmp_path / "in")
    assert end.whole
    entries = end.receiver.manifest.entries if end.receiver.manifest else ()
    names = len({"/".join(parts[:n]) for e in entries for parts in [e.path.split("/")] for n in range(200)})
    paths = sum(len(entry.path.encode()) for entry in entries)
    assert taken < 1.2 * paths + 150 * names + REMEMBERED


# By hand: the same at full size, as the operating system counts it.


def peak(what: str, *arguments: str) -> int:
    """Bytes by which the memory of a process of its own grows at most, while it does one of the below."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.transfer.test_memory", what, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("made", "count", "limit"),
    [
        (ordinary, MAX_ENTRIES, PROMISED),
        (emoji, MAX_PATHS_SIZE // 2800, WHATEVER),
        (folding, 620_000, WHATEVER),
        (deep, 11_000, WHATEVER),
    ],
    ids=["ordinary", "emoji", "folding", "deep"],
)
def test_a_receiver_of_the_largest_manifest_stays_within_the_limit(
    made: Rows, count: int, limit: int, tmp_path: Path
) -> None:
    assert 0 < peak("receive", made.__name__, str(count), str(tmp_path / "in")) < limit


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("made", [ordinary, flat])
def test_a_sender_of_the_largest_manifest_stays_within_the_limit(made: Rows, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.touch()
    links = 0
    # Names are what is counted: many share a file, as many as every filesystem lets. Ten are left for
    # directories that have no row.
    root = next(made(1))[0]
    for path, kind, *_ in made(MAX_ENTRIES - 10):
        if kind == "directory":
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
            continue
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if links < 30_000:
            os.link(original, tmp_path / path)
            links += 1
        else:
            original, links = tmp_path / path, 0
            original.touch()
    assert 0 < peak("send", str(tmp_path / root)) < PROMISED


def _receive(made: str, count: str, directory: str) -> None:
    end = ReceivingEnd(Path(directory)).hear(
        {"ordinary": ordinary, "emoji": emoji, "folding": folding, "deep": deep}[made], int(count)
    )
    # Some have more directories than may be, or longer paths.
    assert end.whole or isinstance(end.error, UnsafeName), end.error


def _send(directory: str) -> None:
    found = scan([directory])
    for message in messages.manifest_messages(found.manifest):
        messages.serialize_control(message)


def _peak_of_this_process() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    before = _peak_of_this_process()
    {"receive": _receive, "send": _send}[sys.argv[1]](*sys.argv[2:])
    print(_peak_of_this_process() - before)  # noqa: T201 (what peak() reads)
