"""The wire grammar: what is written can be read, and what cannot be read is refused, never worse."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import LocalProtocolError, RemoteProtocolError
from flyx.grammar import plain_json_size
from flyx.pairing import messages as pairing
from flyx.transfer import left_out, messages
from flyx.transfer.frames import FRAME_HEADER, SHORTEST_DATA, FrameKind, FramePacker, parse_frames_untrusted
from flyx.transfer.manifest import MAX_ENTRIES, MAX_FILE_SIZE, Content, Entry, EntryKind, Manifest
from flyx.transfer.names import MAX_PATH_BYTES
from flyx.transfer.rate_limit import MAX_RATE, MIN_RATE
from flyx.transfer.sender import Sender

SHA = "0" * 64

rates = st.none() | st.integers(MIN_RATE, MAX_RATE)
START = f'{{"type":"manifest_start","manifest_id":"{SHA}","entries":1,"files":1,"bytes":1,"roots":1,%s}}'

control_messages = st.one_of(
    st.builds(
        messages.ManifestStart,
        manifest_id=st.just(SHA),
        entries=st.integers(1, 1000),
        files=st.integers(0, 1000),
        bytes=st.integers(0, 1 << 60),
        roots=st.integers(1, 1000),
        content=st.sampled_from([content.value for content in Content]),
        rate=rates,
    ),
    st.builds(messages.Roots, names=st.lists(st.text(max_size=50), max_size=5)),
    st.builds(messages.ManifestEnd),
    st.builds(messages.Compare, files=st.lists(st.integers(0, 1000), min_size=1, max_size=9)),
    st.builds(
        messages.Digests,
        files=st.lists(st.tuples(st.integers(0, 1000), st.sampled_from([SHA, None])), min_size=1, max_size=9),
    ),
    st.builds(messages.GoOn, offset=st.integers(1, MAX_FILE_SIZE)),
    st.builds(messages.Accept, below=st.integers(0, 1_000_000), rate=rates),
    st.builds(messages.Credit, bytes=st.integers(0, 1 << 60), written=st.integers(0, 1 << 60)),
    st.builds(messages.Saved, files=st.lists(st.integers(0, 1000), max_size=9)),
    st.builds(messages.Complete, files=st.integers(0, 9), bytes=st.integers(0, 9), sha256=st.just(SHA)),
    st.builds(messages.Done),
    st.builds(messages.Cancel, code=st.just("declined"), message=st.text(max_size=1000)),
    st.builds(messages.Ping, token=st.integers(0, 1 << 30)),
    st.builds(messages.Pong, token=st.integers(0, 1 << 30)),
)


@given(control_messages)
def test_control_messages_survive_the_wire(message: messages.ControlMessage) -> None:
    assert messages.parse_control_untrusted(messages.serialize_control(message)) == message


@given(control_messages, st.data())
def test_truncated_control_messages_are_refused(
    message: messages.ControlMessage, data: st.DataObject
) -> None:
    text = messages.serialize_control(message)
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.one_of(st.text(), st.binary()))
def test_garbage_on_the_control_channel_is_refused(garbage: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(garbage)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        '{"type":"accept","below":1e999}',
        '{"type":"accept","below":NaN}',
        '{"type":"accept","below":"1"}',
        '{"type":"accept","below":true}',
        '{"type":"accept","below":-1}',
        '{"type":"accept","below":' + "9" * 5000 + "}",
        '{"type":"complete","files":0,"bytes":0,"sha256":"' + "Z" * 64 + '"}',
        '{"type":"compare","files":[]}',
        '{"type":"compare","files":[1.0]}',
        '{"type":"compare","files":' + str([1] * (messages.SAVED_PER_MESSAGE + 1)) + "}",
        '{"type":"digests","files":[]}',
        '{"type":"digests","files":[[1,""]]}',
        '{"type":"digests","files":[[1]]}',
        '{"type":"nonsense"}',
        '{"type":["ping"]}',
        '{"type":"ping","token":0}' + " " * messages.MAX_CONTROL_SIZE,
        '{"type":"cancel","code":"declined","message":"\\ud800"}',
    ],
)
def test_hostile_control_messages_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(text)


def test_a_refusal_does_not_repeat_what_the_peer_wrote() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        messages.parse_control_untrusted('{"type":"accept","below":"\\u001b[2J secret"}')
    assert "secret" not in str(caught.value)


def test_unknown_fields_are_ignored() -> None:
    assert messages.parse_control_untrusted('{"type":"ping","token":7,"colour":"red"}') == messages.Ping(
        token=7
    )


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=200
) | st.binary(min_size=1, max_size=200).filter(lambda name: not {0, 47} & set(name)).map(os.fsdecode)
ROWS = st.lists(st.tuples(NAMES, NAMES, st.sampled_from(EntryKind)), min_size=1, max_size=40)


@given(ROWS, st.lists(st.tuples(NAMES, st.sampled_from(sorted(left_out.REASONS))), max_size=20))
def test_a_manifest_survives_the_wire_in_pieces_within_the_limit(
    rows: list[tuple[str, str, EntryKind]], absent: list[tuple[str, str]]
) -> None:
    extra: dict[EntryKind, dict[str, Any]] = {
        EntryKind.FILE: {"size": 7, "mode": 0o644},
        EntryKind.DIRECTORY: {"size": 0, "mode": 0o755},
        EntryKind.SYMBOLIC_LINK: {"size": 0, "mode": 0, "target": "../x"},
        EntryKind.HARD_LINK: {"size": 0, "mode": 0, "same_as": 3},
    }
    entries = [Entry(f"{root}/{name}", kind, mtime_us=-5, **extra[kind]) for root, name, kind in rows]
    manifest = Manifest(entries, hole_bytes=3, left_out=left_out.LeftOut(tuple(absent), 5, 1 << 40))
    texts = [messages.serialize_control(m) for m in messages.manifest_messages(manifest)]
    assert all(len(text.encode()) <= messages.MIN_MESSAGE_SIZE for text in texts)
    told: list[Entry] = []
    roots: list[str] = []
    absent_told: list[tuple[str, str]] = []
    start, *others = map(messages.parse_control_untrusted, texts)
    for message in others:
        if isinstance(message, messages.ManifestPiece):
            assert message.first == len(told)
            told += messages.entries_of(message)
        elif isinstance(message, messages.Roots):
            roots += map(messages.path_told, message.names)
        elif isinstance(message, messages.Absent):
            absent_told += [(messages.path_told(path), code) for path, code in message.entries]
    assert told == list(manifest.entries)
    assert tuple(roots) == manifest.roots
    assert absent_told == absent
    assert Manifest(told).id == manifest.id
    assert isinstance(start, messages.ManifestStart)
    assert (start.holes, start.failures, start.others) == (3, 5, 1 << 40)


@pytest.mark.parametrize(
    ("row", "targets"),
    [
        (["a", "directory", 1, 0, 0], []),
        (["a", "symbolic_link", 1, 0, 0], ["b"]),
        (["a", "symbolic_link", 0, 0, 0], []),
        (["a", "file", 0, 0, 0], ["b"]),
        (["a\0b", "file", 0, 0, 0], []),
        (["a", "symbolic_link", 0, 0, 0], ["b\0"]),
        ([{"base64": "YQBi"}, "file", 0, 0, 0], []),
        ([{"base64": "?"}, "file", 0, 0, 0], []),
        ([{"base64": "é"}, "file", 0, 0, 0], []),
    ],
)
def test_entries_that_cannot_be_are_refused(row: list[object], targets: list[str]) -> None:
    text = json.dumps({"type": "manifest", "first": 0, "entries": [row], "targets": targets})
    piece = messages.parse_control_untrusted(text)
    assert isinstance(piece, messages.ManifestPiece)
    with pytest.raises(RemoteProtocolError):
        messages.entries_of(piece)


@pytest.mark.parametrize("path", ['"\\ud800"', '"\\udce9"', '{"base64": 1}', "7", "null"])
def test_a_path_that_is_no_text_is_refused(path: str) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(f'{{"type": "roots", "names": [{path}]}}')


def test_the_longest_names_fit_into_pieces() -> None:
    manifest = Manifest(
        Entry(path[:3072], EntryKind.SYMBOLIC_LINK, 0, 0, -(1 << 52), target=path[:3072])
        for path in ['"/' * 1536, "é" * 1536, "\n" * 3072, "\udcff" * 3072] * 5
    )
    for message in messages.manifest_messages(manifest):
        text = messages.serialize_control(message)
        assert len(text.encode()) <= messages.MIN_MESSAGE_SIZE
        messages.parse_control_untrusted(text)


def test_a_manifest_of_100_000_entries_is_told_in_linear_time() -> None:
    manifest = Manifest(Entry(f"d/{i:06}", EntryKind.FILE, 1, 0o644, 0) for i in range(100_000))
    pieces = sum(1 for _ in messages.manifest_messages(manifest))
    # 16 KB at 45 bytes a row, as they are told here, and 80 as they are counted.
    assert pieces < 1000


@pytest.mark.parametrize("rate", ["0", "-1", "999", "1000000000001", "5000.0", '"5000"', "true", "1e4"])
@pytest.mark.parametrize("message", ['{"type":"accept","below":1,"rate":%s}', START % '"rate":%s'])
def test_a_rate_that_no_transfer_can_be_held_to_is_refused(message: str, rate: str) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(message % rate)
    assert messages.parse_control_untrusted(message % "5000")


@pytest.mark.parametrize("offset", ["0", "-1", str(MAX_FILE_SIZE + 1), "1.0", '"1"', "null"])
def test_a_stream_goes_on_after_some_bytes_only(offset: str) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(f'{{"type":"go_on","offset":{offset}}}')


def test_a_content_of_a_later_version_is_refused_and_none_is_files() -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_control_untrusted(START % '"content":"video"')
    start = messages.parse_control_untrusted(START % '"holes":0')
    assert isinstance(start, messages.ManifestStart)
    assert start.content == Content.FILES.value


INDEX, SIZE = MAX_ENTRIES, 1 << 62
LONGEST: dict[str, messages.ControlMessage] = {
    "the row of the longest path": messages.ManifestPiece(
        first=INDEX,
        entries=[('"' * MAX_PATH_BYTES, "directory", 1 << 53, 0o777, -(1 << 53))],
    ),
    "the longest root": messages.Roots(names=['"' * 255]),
    "kept files": messages.Kept(files=[(INDEX, SHA)] * messages.DIGESTS_PER_MESSAGE),
    "blocks": messages.Have(file=INDEX, first=SIZE, sha256=[SHA] * messages.DIGESTS_PER_MESSAGE),
    "files to compare": messages.Compare(files=[INDEX] * messages.SAVED_PER_MESSAGE),
    "digests": messages.Digests(files=[(INDEX, SHA)] * messages.DIGESTS_PER_MESSAGE),
    "saved files": messages.Saved(files=[INDEX] * messages.SAVED_PER_MESSAGE),
    "the longest reason": messages.Cancel(code="a" * 64, message="\x01" * 1000),
}


@pytest.mark.parametrize("message", LONGEST.values(), ids=LONGEST.keys())
def test_the_longest_message_of_each_kind_fits_into_what_every_peer_accepts(
    message: messages.ControlMessage,
) -> None:
    text = messages.serialize_control(message)
    assert len(text.encode()) <= messages.MIN_MESSAGE_SIZE
    assert messages.parse_control_untrusted(text) == message


def test_what_comes_before_a_transfer_fits_as_well() -> None:
    assert pairing.MAX_SIZE * 4 <= messages.MIN_MESSAGE_SIZE


def test_the_limit_of_a_control_message_is_in_bytes() -> None:
    row = ("\U0001f600" * 4000, "file", 0, 0, 0)
    text = json.dumps({"type": "manifest", "first": 0, "entries": [row] * 2}, ensure_ascii=False)
    assert len(text) < messages.MAX_CONTROL_SIZE < len(text.encode())
    with pytest.raises(RemoteProtocolError, match="too long"):
        messages.parse_control_untrusted(text)


@pytest.mark.parametrize("size", [-1, 0, 1, 60, 600, messages.MIN_MESSAGE_SIZE - 1])
def test_a_peer_that_accepts_too_little_is_never_sent_to(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"accepts {size} bytes"):
        Sender(Manifest([Entry("a", EntryKind.FILE, 1, 0o644, 0)]), max_message_size=size, now=0.0)


TIMES = st.integers(-(10**30), 10**30)


@given(st.lists(TIMES, min_size=1, max_size=5))
def test_a_file_of_any_time_can_be_told(times: list[int]) -> None:
    offered = Manifest(Entry(f"{i}", EntryKind.FILE, 1, 0o644, time) for i, time in enumerate(times))
    texts = [messages.serialize_control(m) for m in messages.manifest_messages(offered)]
    parsed = map(messages.parse_control_untrusted, texts)
    pieces = [m for m in parsed if isinstance(m, messages.ManifestPiece)]
    told = Manifest(entry for piece in pieces for entry in messages.entries_of(piece))
    assert told.id == offered.id
    assert [entry.mtime_us for entry in told.entries] == [
        max(-(1 << 53), min(time, 1 << 53)) for time in times
    ]


frames = st.lists(
    st.one_of(
        st.tuples(st.just(FrameKind.DATA), st.integers(0, 9), st.integers(0, 1 << 50), st.binary(min_size=1)),
        st.tuples(st.just(FrameKind.FILE_END), st.integers(0, 9), st.integers(0, 9), st.just(b"d" * 32)),
        st.tuples(
            st.just(FrameKind.FILE_FAILED), st.integers(0, 9), st.integers(0, 9), st.just(b"file_changed")
        ),
    ),
    min_size=1,
)


@given(frames, st.integers(messages.MIN_MESSAGE_SIZE, 70_000))
def test_frames_survive_packing(rows: list[tuple[FrameKind, int, int, bytes]], limit: int) -> None:
    packer = FramePacker(limit)
    for row in rows:
        packer.add(*row)
    packer.flush()
    assert packer.size == sum(map(len, packer.messages))
    parsed = []
    while packer.messages:
        message = packer.pop()
        assert len(message) <= limit
        parsed += [(f.kind, f.file, f.offset, bytes(f.payload)) for f in parse_frames_untrusted(message)]
    assert packer.size == 0
    assert parsed == rows


@given(st.binary(min_size=1, max_size=300_000), st.integers(messages.MIN_MESSAGE_SIZE, 70_000))
def test_a_long_block_is_split_without_splinters(block: bytes, limit: int) -> None:
    packer = FramePacker(limit)
    packer.add(FrameKind.FILE_END, 0, 0, b"d" * 32)
    packer.add(FrameKind.DATA, 1, 0, block)
    packer.flush()
    pieces = [f for m in packer.messages for f in parse_frames_untrusted(m) if f.kind is FrameKind.DATA]
    assert b"".join(piece.payload for piece in pieces) == block
    assert all(len(piece.payload) >= SHORTEST_DATA for piece in pieces[:-1])
    assert [piece.offset for piece in pieces] == [
        sum(len(p.payload) for p in pieces[:i]) for i in range(len(pieces))
    ]


@given(frames, st.data())
def test_truncated_frames_are_refused_or_end_on_a_boundary(
    rows: list[tuple[FrameKind, int, int, bytes]], data: st.DataObject
) -> None:
    packer = FramePacker(1 << 20)
    for row in rows:
        packer.add(*row)
    packer.flush()
    message = packer.pop()
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    try:
        parsed = parse_frames_untrusted(cut)
    except RemoteProtocolError:
        return
    assert sum(FRAME_HEADER.size + len(frame.payload) for frame in parsed) == len(cut)


@given(st.binary(max_size=200))
def test_garbage_on_the_data_channel_is_refused_or_parsed_but_never_crashes(garbage: bytes) -> None:
    try:
        parse_frames_untrusted(garbage)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    "message",
    [
        "text",
        b"",
        FRAME_HEADER.pack(9, 0, 1, 0) + b"x",
        FRAME_HEADER.pack(FrameKind.DATA, 0, 0, 0),
        FRAME_HEADER.pack(FrameKind.BLOCK_END, 0, 31, 0) + b"x" * 31,
        FRAME_HEADER.pack(FrameKind.FILE_FAILED, 0, 65, 0) + b"x" * 65,
        FRAME_HEADER.pack(FrameKind.DATA, 0, 0xFFFFFFFF, 0) + b"x",
    ],
)
def test_hostile_data_messages_are_refused(message: bytes | str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_frames_untrusted(message)


def test_control_messages_are_json_objects_with_a_type() -> None:
    assert json.loads(messages.serialize_control(messages.Done())) == {"type": "done"}


@given(st.text(st.sampled_from('ab"\\/ \x7f\n\u00e9')) | st.text())
def test_a_plain_text_is_measured_without_making_json_of_it(text: str) -> None:
    assert plain_json_size(text) in (0, len(json.dumps(text)))
    assert plain_json_size(text) or not (text.isascii() and text.isprintable())
