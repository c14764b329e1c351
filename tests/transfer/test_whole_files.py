"""Files that come whole take a short way through the receiver, and plain rows one into the id of a manifest:
what comes of them is what comes of the long way."""

from __future__ import annotations

import json
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.disk import Operation, WriteBlock
from flyx.transfer.frames import FrameKind, parse_frames_untrusted
from flyx.transfer.inbox import FileInbox
from flyx.transfer.manifest import Entries, Entry, EntryKind
from flyx.transfer.messages import MIN_MESSAGE_SIZE, Accept, Credit
from flyx.transfer.sender import Sender
from flyx.transfer.session import Failed
from tests.simulator import MemorySource, manifest_of
from tests.thoroughness import share
from tests.transfer.test_hostile_peers import NOW, accepting_receiver, control, file_frames, frame

FILES: dict[str, bytes | None] = {
    "d": None,
    "d/a": b"a" * 1500,
    "d/b": b"b",
    "d/empty": b"",
    "d/e": None,
    "d/e/c": b"c" * 1500,
    "d/f": b"f" * 30,
}
MANIFEST = manifest_of(FILES)

Part = tuple[int, int, int, bytes]
"""Kind, file, offset and payload of a frame."""


def honest() -> list[Part]:
    parts: list[Part] = []
    for file, content in enumerate(FILES.values()):
        if content is None:
            continue
        digest = RunningDigest(Algorithm.SHA256)
        if content:
            block = Algorithm.SHA256.digest(content)
            digest.add(block)
            parts += (FrameKind.DATA, file, 0, content), (FrameKind.BLOCK_END, file, 0, block)
        parts.append((FrameKind.FILE_END, file, len(content), digest.value()))
    return parts


@st.composite
def changed(draw: st.DrawFn) -> list[Part]:
    """What an honest sender says, with up to two faults."""
    parts = honest()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(parts) - 1))
        kind, file, offset, payload = parts[at]
        match draw(st.integers(0, 6)):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[at])
            case 2:
                parts[at], parts[at - 1] = parts[at - 1], parts[at]
            case 3:
                parts[at] = kind, file, max(0, offset + draw(st.integers(-1, 1))), payload
            case 4:
                parts[at] = kind, max(0, file + draw(st.integers(-2, 20))), offset, payload
            case 5:
                parts[at] = kind, file, offset, bytes([payload[0] ^ 1]) + payload[1:]
            case 6:
                # Cut in two, as at the end of a message.
                half = len(payload) // 2 or 1
                first, second = (kind, file, offset, payload[:half]), (kind, file, half, payload[half:])
                parts[at : at + 1] = [first, second] if kind == FrameKind.DATA and payload[half:] else [first]
    return parts


def outcome(messages: list[bytes]) -> tuple[list[object], int, str | None]:
    """What is to be done by the disk, how many bytes wait for it, and what ended the transfer."""
    receiver, _ = accepting_receiver(MANIFEST)
    while receiver.next_event():
        pass
    for message in messages:
        receiver.receive_data(message, NOW)
    error = None
    while (event := receiver.next_event()) is not None:
        error = str(event.error) if isinstance(event, Failed) else error
    return list(map(_shown, receiver._operations)), receiver.bytes_buffered, error


def _shown(operation: Operation) -> object:
    if isinstance(operation, WriteBlock):
        return operation.file, operation.offset, b"".join(operation.parts), operation.digest, operation.hole
    return operation


@settings(max_examples=share(400))
@given(parts=changed(), data=st.data())
def test_frames_of_whole_files_are_taken_and_refused_as_one_by_one(
    parts: list[Part], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(parts) - 1)), max_size=3)))
    messages = [
        b"".join(frame(*part) for part in parts[begin:end])
        for begin, end in zip([0, *cuts], [*cuts, len(parts)], strict=True)
        if parts[begin:end]
    ]
    short = outcome(messages)
    with patch.object(FileInbox, "whole_file", lambda *_: None):
        assert outcome(messages) == short
    if parts == honest():
        assert short[2] is None


def test_a_whole_file_takes_the_short_way() -> None:
    receiver, _ = accepting_receiver(MANIFEST)
    with patch.object(FileInbox, "data", side_effect=AssertionError("the long way")):
        receiver.receive_data(b"".join(file_frames(1, b"a" * 1500) + file_frames(2, b"b")), NOW)
    assert not receiver.ended


@settings(max_examples=share(200))
@given(
    sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=30),
    limit=st.sampled_from([MIN_MESSAGE_SIZE, 20_000, 262_144]),
)
def test_whole_files_are_told_with_the_same_bytes_as_in_parts(sizes: list[int], limit: int) -> None:
    contents = {f"f{number}": bytes([number]) * size for number, size in enumerate(sizes)}
    short = _told(contents, limit)
    with patch.object(Sender, "_pack_whole", lambda *_: False):
        parts = _told(contents, limit)
    # Where a message ends may differ, what is said may not.
    assert _without_cuts(short) == _without_cuts(parts)
    assert all(len(message) <= limit for message in short)


def _told(contents: dict[str, bytes], limit: int) -> list[bytes]:
    source = MemorySource(manifest_of(contents), contents)
    sender = Sender(source.manifest, max_message_size=limit, now=NOW)
    sender.release()
    while sender.next_control():
        pass
    control(sender, Accept(below=len(contents)), Credit(bytes=1 << 30, written=0))
    messages: list[bytes] = []
    while requests := sender.next_reads():
        sender.blocks_read(source.read(requests), NOW)
        while (message := sender.next_data()) is not None:
            messages.append(message)
    return messages


def _without_cuts(messages: list[bytes]) -> list[tuple[FrameKind, int, bytes]]:
    """All frames, with those of data that follow one another as one."""
    frames: list[tuple[FrameKind, int, bytes]] = []
    for message in messages:
        for each in parse_frames_untrusted(message):
            payload = bytes(each.payload)
            if frames and each.kind is FrameKind.DATA and frames[-1][:2] == (each.kind, each.file):
                payload = frames.pop()[2] + payload
            frames.append((each.kind, each.file, payload))
    return frames


@given(
    path=st.text(st.characters(max_codepoint=0x17F, exclude_characters="\0"), min_size=1, max_size=20),
    target=st.text(st.characters(max_codepoint=0x17F, exclude_characters="\0"), max_size=5),
    numbers=st.tuples(st.integers(0, 1 << 53), st.integers(0, 0o777), st.integers(-(1 << 53), 1 << 53)),
)
def test_the_id_of_a_manifest_is_that_of_rows_as_json_has_them(
    path: str, target: str, numbers: tuple[int, int, int]
) -> None:
    size, mode, mtime_us = numbers
    entries = [
        Entry(path, EntryKind.FILE, size, mode, mtime_us),
        Entry(path, EntryKind.SYMBOLIC_LINK, 0, 0, mtime_us, target=target),
    ]
    rows = [[path, "file", size, mode, mtime_us], [path, "symbolic_link", 0, 0, mtime_us, target]]
    hashed = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    assert Entries(entries).id == Algorithm.SHA256.digest(hashed).hex()


def test_the_id_of_a_manifest_escapes_each_character_as_it_did() -> None:
    path = "".join(map(chr, range(1, 0x180)))
    for name in (path, *path):
        row = json.dumps([name, "file", 0, 0, 0], separators=(",", ":")) + "\n"
        entries = Entries([Entry(name, EntryKind.FILE, 0, 0, 0)])
        assert entries.id == Algorithm.SHA256.digest(row.encode()).hex()
