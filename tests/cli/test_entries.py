"""The events `entries`: every name, in pieces, without keeping the event loop from anything else."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli.entries import MAX_ENTRIES, EntriesWriter, pieces_of
from flyx.cli.output import JsonReporter
from flyx.cli.streams import is_behind
from flyx.client import events
from flyx.errors import InputError
from flyx.transfer.manifest import Entry, EntryKind, Manifest, can_be_on_disk
from tests.schema import check_event

MANY = 3 * MAX_ENTRIES + 1

LINE = 1 << 16
"""What asyncio's StreamReader takes for a line at most, if nothing else is said."""


def files(count: int, name: str = "f") -> Manifest:
    return Manifest(Entry(f"{name}{n}", EntryKind.FILE, n, 0o644, 0) for n in range(count))


def told(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was written since the last time, each of it as the schema has it and in a line of its own."""
    written = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    for event in written:
        check_event(event)
    return written


def names_in(written: list[dict[str, Any]]) -> list[str]:
    """All names in pieces that follow each other."""
    names: list[str] = []
    for event in written:
        if event["event"] == "entries":
            assert event["first"] == len(names)
            names += [entry["path"] for entry in event["entries"]]
    return names


class Recorder:
    """Takes pieces, and can fail."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.pieces: list[tuple[int, int]] = []
        self._failure = failure

    def __call__(self, first: int, entries: list[dict[str, Any]]) -> None:
        if self._failure:
            raise self._failure
        self.pieces.append((first, len(entries)))


def test_each_kind_of_entry_is_told_as_what_it_is() -> None:
    manifest = Manifest(
        [
            Entry("d", EntryKind.DIRECTORY, 0, 0o755, 0),
            Entry("d/file", EntryKind.FILE, 7, 0o644, 0),
            Entry("d/soft", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="file"),
            Entry("d/hard", EntryKind.HARD_LINK, 0, 0, 0, same_as=1),
        ]
    )
    ((first, entries),) = pieces_of(manifest)
    assert first == 0
    assert entries == [
        {"path": "d", "type": "directory", "size": 0},
        {"path": "d/file", "type": "file", "size": 7},
        {"path": "d/soft", "type": "symbolic_link", "size": 0},
        {"path": "d/hard", "type": "hard_link", "size": 0},
    ]


@pytest.mark.parametrize("count", [0, 1, MAX_ENTRIES - 1, MAX_ENTRIES, MAX_ENTRIES + 1, MANY])
def test_no_piece_has_more_than_so_many_entries(count: int) -> None:
    pieces = list(pieces_of(files(count)))
    assert [len(entries) for _, entries in pieces[:-1]] == [MAX_ENTRIES] * (len(pieces) - 1)
    assert sum(len(entries) for _, entries in pieces) == count
    assert [first for first, _ in pieces] == list(range(0, max(count, 1), MAX_ENTRIES))


paths = st.text(min_size=1, max_size=3000).filter(can_be_on_disk) | st.binary(min_size=1, max_size=3072).map(
    lambda path: os.fsdecode(path.replace(b"\0", b"_"))
)


@given(st.lists(paths, max_size=40))
def test_no_line_is_longer_than_programs_take_and_names_are_exact(paths: list[str]) -> None:
    paths = [path for path in paths if len(os.fsencode(path)) <= 3072]
    manifest = Manifest(Entry(path, EntryKind.FILE, 1 << 50, 0o644, 0) for path in paths)
    there: list[str] = []
    for first, entries in pieces_of(manifest):
        event = {"event": "entries", "time": 1764460000.123, "first": first, "entries": entries}
        line = json.dumps(event)
        assert len(line) < LINE
        assert first == len(there)
        there += [entry["path"] for entry in json.loads(line)["entries"]]
    assert list(map(os.fsencode, there)) == list(map(os.fsencode, paths))


def test_a_full_piece_of_long_rows_is_a_line_that_programs_take() -> None:
    row = Entry("p" * 64, EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="t")
    (_, entries), *_ = pieces_of(Manifest([row] * MANY))
    assert len(json.dumps({"event": "entries", "first": 999_999, "time": 1.0, "entries": entries})) < LINE


async def test_other_events_come_between_the_pieces(capfd: pytest.CaptureFixture[str]) -> None:
    with JsonReporter() as reporter:
        reporter(events.ManifestKnown(files(MANY)))
        assert [event["event"] for event in told(capfd)] == ["manifest"]
        await asyncio.sleep(0)
        reporter(events.Progress(1, 5, 15))
    written = told(capfd)
    assert [event["event"] for event in written].index("progress") < len(written) - 1
    assert names_in(written) == [f"f{n}" for n in range(MANY)]


async def test_all_pieces_come_by_themselves_while_nothing_else_happens(
    capfd: pytest.CaptureFixture[str],
) -> None:
    written: list[dict[str, Any]] = []
    with JsonReporter() as reporter:
        reporter(events.ManifestKnown(files(MANY)))
        while len(names_in(written)) < MANY:
            await asyncio.sleep(0)
            written += told(capfd)
    assert told(capfd) == []


async def test_all_names_have_been_told_when_a_transfer_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    with JsonReporter() as reporter:
        reporter(events.ManifestKnown(files(MANY)))
        reporter(events.TransferDone(1, MANY, 5, 1.5, "00" * 32))
        written = told(capfd)
        assert [event["event"] for event in written].index("done") == len(written) - 1
        assert names_in(written) == [f"f{n}" for n in range(MANY)]


async def test_another_list_takes_the_place_of_one_that_is_being_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with JsonReporter() as reporter:
        reporter(events.ManifestKnown(files(MANY, "old")))
        await asyncio.sleep(0)
        told(capfd)
        reporter(events.ManifestKnown(files(MANY, "new")))
    assert names_in(told(capfd)) == [f"new{n}" for n in range(MANY)]


@pytest.mark.parametrize(
    ("error", "count"), [(InputError(reason="it failed"), MANY), (KeyboardInterrupt(), 0)]
)
async def test_a_run_that_fails_tells_the_rest_and_one_that_is_interrupted_does_not(
    error: BaseException, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        with JsonReporter() as reporter:
            reporter(events.ManifestKnown(files(MANY)))
            raise error

    with pytest.raises(type(error)):
        run()
    assert len(names_in(told(capfd))) == count


async def test_what_keeps_a_piece_from_being_written_is_told_with_the_next_event() -> None:
    writer = EntriesWriter(Recorder(BrokenPipeError()), lambda: False)
    writer.begin(files(MANY))
    writer.check()
    await asyncio.sleep(0)
    with pytest.raises(BrokenPipeError):
        writer.check()
    writer.finish()


@contextmanager
def full_pipe() -> Iterator[int]:
    """Have more written to standard output, a pipe, than it holds; yield the end to read from."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as output, redirect_stdout(output):
        JsonReporter()(events.Notice("n" * (1 << 18)))
        yield reading
    os.close(reading)


async def test_while_the_reader_is_behind_no_piece_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyx.cli.entries._PATIENCE", 0.0)
    recorder = Recorder()
    with full_pipe() as reading:
        EntriesWriter(recorder, lambda: is_behind(sys.stdout)).begin(files(1))
        for _ in range(50):
            await asyncio.sleep(0)
        assert recorder.pieces == []
        while not recorder.pieces:
            with suppress(BlockingIOError):
                os.read(reading, 1 << 16)
            await asyncio.sleep(0)
    assert recorder.pieces == [(0, 1)]
