"""Transfers between flyx in Python and the engine of the page in Node, either way."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyx.errors import CorruptData, TransferInterrupted, WrongWords
from flyx.pairing.exchange import Paired
from flyx.transfer.frames import FRAME_HEADER
from flyx.transfer.manifest import BLOCK_SIZE, Content, Entry, EntryKind, Manifest
from flyx.transfer.receiver_events import Received
from flyx.transfer.sender_events import Delivered, Resumed
from flyx.transfer.session import EntryLeftOut
from tests.pairing import support
from tests.simulator import MemoryDestination, MemorySource, MemoryStream, manifest_of
from tests.web.conversation import WORDS, Conversation

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")

Make = Callable[..., Conversation]


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


FILES = {
    "no bytes": {"empty": b""},
    "one byte": {"one": b"1"},
    "one block": {"block": noise(BLOCK_SIZE)},
    "5 MiB": {"five": noise(5 * BLOCK_SIZE)},
    "several": {
        "a/one": b"1",
        "a/empty": b"",
        "a/b/more": noise(2 * BLOCK_SIZE + 1),
        "雨.txt": "雨".encode(),
        "zeros": bytes(3 * BLOCK_SIZE + 5),
        "last": b"",
    },
    "very many": {f"d{number % 7}/f{number}": b"x" * (number % 3) for number in range(600)},
}
cases = pytest.mark.parametrize("files", FILES.values(), ids=FILES)


@pytest.fixture
def receiving(tmp_path: Path) -> Make:
    """The engine receives into `in`."""

    def make(words: str = WORDS, held: dict[str, int] | None = None) -> Conversation:
        options = {"role": "receiver", "words": words, "directory": str(tmp_path / "in"), "held": held or {}}
        (tmp_path / "in").mkdir(exist_ok=True)
        return Conversation(str(NODE), options)

    return make


@pytest.fixture
def sending(tmp_path: Path) -> Make:
    """The engine sends these files."""

    def make(files: dict[str, bytes], words: str = WORDS, **options: Any) -> Conversation:
        paths = []
        for number, (path, content) in enumerate(files.items()):
            place = tmp_path / f"source{number}"
            place.write_bytes(content)
            paths.append([path, str(place)])
        return Conversation(str(NODE), {"role": "sender", "words": words, "paths": paths, **options})

    return make


def arrived(tmp_path: Path) -> dict[str, bytes]:
    root = tmp_path / "in"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def with_a_bit_changed(data: bytes) -> bytes:
    """Change the first byte of content; what frames it stays."""
    at = FRAME_HEADER.size
    return data if len(data) < 2000 else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@cases
async def test_the_engine_receives_what_is_sent(
    receiving: Make, tmp_path: Path, files: dict[str, bytes]
) -> None:
    run = receiving()
    await run.send(MemorySource(manifest_of(files), files))
    assert arrived(tmp_path) == files
    delivered = run.event(Delivered)
    (done,) = run.told_of("done")
    assert (done["files"], done["bytes"], done["digest"]) == (
        len(files),
        sum(map(len, files.values())),
        delivered.digest,
    )
    assert [event["path"] for event in run.told_of("file")] == list(files)


@cases
async def test_what_the_engine_sends_is_received(sending: Make, files: dict[str, bytes]) -> None:
    run = sending(files)
    destination = MemoryDestination(set())
    await run.receive(destination)
    assert destination.files == files
    assert run.event(Received).digest == run.told_of("done")[0]["digest"]
    assert [event["path"] for event in run.told_of("file")] == list(files)


async def test_holes_are_zeros(receiving: Make, tmp_path: Path) -> None:
    files = {"holes": bytes(BLOCK_SIZE) + noise(BLOCK_SIZE) + bytes(BLOCK_SIZE // 2)}
    run = receiving()
    await run.send(MemorySource(manifest_of(files), files, holes=True))
    assert arrived(tmp_path) == files
    assert run.event(Delivered).files == 1


@pytest.mark.parametrize("wrong", ["lemon-ocean", "abacus-zoom"])
async def test_wrong_words_are_found_out_by_both(receiving: Make, sending: Make, wrong: str) -> None:
    run = receiving(wrong)
    await run.send(MemorySource(manifest_of({"a": b"a"}), {"a": b"a"}))
    assert isinstance(run.failure(), WrongWords)
    assert run.told_of("error")[0]["code"] == "wrong_words"
    run = sending({"a": b"a"}, wrong)
    await run.receive(MemoryDestination(set()))
    assert isinstance(run.failure(), WrongWords)
    assert run.told_of("peer")[-1]["code"] == "wrong_words"


async def test_whoever_is_in_between_is_found_out(receiving: Make) -> None:
    run = receiving()
    exchange = support.sender(binding=support.other_binding(receiver=b"x" * 32))
    await run.send(MemorySource(manifest_of({"a": b"a"}), {"a": b"a"}), exchange)
    assert run.told_of("error")[0]["code"] == "connection_mismatch"


async def test_an_older_sender_pairs_in_turn(receiving: Make, tmp_path: Path) -> None:
    run = receiving()
    await run.send(MemorySource(manifest_of({"a": b"a"}), {"a": b"a"}), support.sender(older=True))
    assert isinstance(run.events[0], Paired)
    assert arrived(tmp_path) == {"a": b"a"}


async def test_a_damaged_block_is_not_taken(receiving: Make, sending: Make, tmp_path: Path) -> None:
    files = {"file": noise(3 * BLOCK_SIZE)}
    run = receiving()
    run.tap = with_a_bit_changed
    await run.send(MemorySource(manifest_of(files), files))
    assert run.told_of("error")[0]["code"] == "corrupt_data"
    assert "arrived damaged" in str(run.failure())
    assert arrived(tmp_path) == {}
    run = sending(files)
    run.tap = with_a_bit_changed
    await run.receive(MemoryDestination(set()))
    assert isinstance(run.failure(), CorruptData)
    assert run.told_of("peer")[-1]["state"] == "failed"


async def test_the_engine_goes_on_from_what_its_sink_holds(receiving: Make, tmp_path: Path) -> None:
    files = {
        "whole": noise(BLOCK_SIZE + 1, 1),
        "part": noise(5 * BLOCK_SIZE, 2),
        "other": noise(2 * BLOCK_SIZE, 3),
    }
    run = receiving(held={"whole": 2, "part": 3, "other": 1})
    for path, content in files.items():
        (tmp_path / "in" / path).write_bytes(content if path != "other" else noise(2 * BLOCK_SIZE, 4))
    await run.send(MemorySource(manifest_of(files), files))
    assert arrived(tmp_path) == files
    resumed = run.event(Resumed)
    assert (resumed.files, resumed.bytes) == (1, BLOCK_SIZE + 1 + 3 * BLOCK_SIZE + BLOCK_SIZE)
    assert run.told_of("resume") == [
        {"event": "resume", "peer": 1, "files": 1, "bytes": resumed.bytes},
    ]


async def test_the_engine_sends_only_what_a_receiver_lacks(sending: Make) -> None:
    files = {"first": noise(2 * BLOCK_SIZE, 1), "second": noise(6 * BLOCK_SIZE, 2), "third": b"3"}
    earlier = MemoryDestination(set())
    run = sending(files)
    received = 0

    def cut(data: bytes) -> bytes:
        nonlocal received
        received += len(data)
        return data if received < 5 * BLOCK_SIZE else b"nonsense"

    run.tap = cut
    await run.receive(earlier)
    assert not earlier.finished
    later = earlier.again()
    run = sending(files)
    await run.receive(later)
    assert later.files == files
    (resume,) = run.told_of("resume")
    assert resume["files"] == 1
    assert later.written == sum(map(len, files.values())) - resume["bytes"]


async def test_a_receiver_compares_files_with_those_of_the_engine(sending: Make) -> None:
    files = {"same": noise(3 * BLOCK_SIZE, 1), "differs": noise(1000, 2), "new": b"3"}
    destination = MemoryDestination(set())
    destination.here = {"same": files["same"], "differs": noise(1000, 9)}
    run = sending(files)
    await run.receive(destination)
    assert destination.files == {path: files[path] for path in ("differs", "new")}
    assert run.event(EntryLeftOut).code == "already_here"
    assert run.told_of("done")[0]["missing"] == 0


async def test_what_a_sender_cannot_read_is_missing_and_the_rest_is_there(
    receiving: Make, tmp_path: Path
) -> None:
    files = {"good": b"1", "bad": noise(3 * BLOCK_SIZE), "also": b"2"}
    run = receiving()
    await run.send(MemorySource(manifest_of(files), files, faults={"bad": (BLOCK_SIZE, "file_changed")}))
    assert arrived(tmp_path) == {"good": b"1", "also": b"2"}
    (done,) = run.told_of("done")
    assert (done["files"], done["missing"]) == (2, 1)
    assert "changed" in next(event["error"] for event in run.told_of("file") if "error" in event)


async def test_links_are_left_out_and_directories_are_made(receiving: Make, tmp_path: Path) -> None:
    manifest = Manifest(
        [
            Entry("d", EntryKind.DIRECTORY, 0, 0o755, 0),
            Entry("d/e", EntryKind.DIRECTORY, 0, 0o755, 0),
            Entry("d/file", EntryKind.FILE, 1, 0o644, 0),
            Entry("d/link", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="file"),
            Entry("d/again", EntryKind.HARD_LINK, 0, 0, 0, same_as=2),
        ]
    )
    run = receiving()
    await run.send(MemorySource(manifest, {"d/file": b"1"}))
    assert arrived(tmp_path) == {"d/file": b"1"}
    assert (tmp_path / "in" / "d" / "e").is_dir()
    left_out = [event.code for event in run.events if isinstance(event, EntryLeftOut)]
    assert left_out == ["links_not_possible", "not_written"]


async def test_a_name_that_leads_out_ends_the_transfer(receiving: Make, tmp_path: Path) -> None:
    run = receiving()
    await run.send(MemorySource(manifest_of({"../out": b"1"}), {"../out": b"1"}))
    assert run.told_of("error")[0]["code"] == "unsafe_name"
    assert not (tmp_path / "out").exists()


async def test_a_stream_is_received_block_by_block(receiving: Make, tmp_path: Path) -> None:
    stream = MemoryStream([b"a", noise(1000), noise(BLOCK_SIZE - 1001), noise(BLOCK_SIZE), b"end"])
    run = receiving()
    await run.send(stream)
    assert arrived(tmp_path) == {"stream": stream.content}


async def test_a_text_is_told_and_never_saved(receiving: Make, sending: Make, tmp_path: Path) -> None:
    text = "the rain, 雨\n"
    entry = Entry("text", EntryKind.FILE, len(text.encode()), 0o600, 0)
    manifest = Manifest([entry], content=Content.TEXT)
    run = receiving()
    await run.send(MemorySource(manifest, {"text": text.encode()}))
    assert run.told_of("text") == [{"event": "text", "peer": 1, "text": text}]
    assert arrived(tmp_path) == {}
    destination = MemoryDestination(set())
    run = sending({}, text=text)
    await run.receive(destination)
    assert destination.files == {"text": text.encode()}


async def test_data_in_disorder_ends_the_transfer(receiving: Make, tmp_path: Path) -> None:
    files = {"file": noise(2 * BLOCK_SIZE)}
    run = receiving()
    run.tap = lambda data: data[:12] + b"\0\0\0\0\0\0\0\7" + data[20:]
    await run.send(MemorySource(manifest_of(files), files))
    assert run.told_of("error")[0]["code"] == "protocol_error"
    assert isinstance(run.failure(), TransferInterrupted)


async def test_a_pairing_that_ends_ends_the_run(receiving: Make) -> None:
    run = receiving()
    exchange = support.sender(code=support.OPEN)
    await run.send(MemorySource(manifest_of({"a": b"a"}), {"a": b"a"}), exchange)
    assert run.told_of("error")[0]["code"] == "no_words_asked"
