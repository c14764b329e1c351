"""Messages of the transfer.

`transfer-control`: the input is messages of the control channel, made as grammar.py says, to a sender that
offers files or to a receiver that waits for an offer; each goes through the parser as well. `transfer-data`:
the input is a list of messages of the data channel, each led by its length in two bytes, to a receiver that
has accepted files, or, if the input's length is odd, accepts them when half of it has come; the high bit of
the length completes the lengths and digests of its frames, and compresses what is told as compressed, so that
the fuzzer gets past them. Findings are, besides exceptions, memory held beyond the window and a file in place
that is not as long as announced.
"""

from __future__ import annotations

import json

from flyx.errors import RemoteProtocolError
from flyx.storage.packing import BlockPacker
from flyx.transfer import messages
from flyx.transfer.digests import Algorithm
from flyx.transfer.frames import FRAME_HEADER, FrameKind
from flyx.transfer.receiver import WINDOW, Receiver
from flyx.transfer.sender import READ_AHEAD, READ_BATCH, Sender
from tests.fuzz.grammar import make_message
from tests.fuzz.source import Source
from tests.fuzz.target import Target
from tests.simulator import MemoryDestination, MemorySource, manifest_of

NOW = 50.0
FILES: dict[str, bytes | None] = {
    "d": None,
    "d/a": b"a" * 5000,
    "d/b": b"b" * 10,
    "d/empty": b"",
    "c": b"c" * 3,
}
MANIFEST = manifest_of(FILES)
MAX_QUEUED = 64
"""Messages that a machine may have ready for a peer that reads none; so few files make fewer."""


def drain(machine: Sender | Receiver, *, read: bool) -> None:
    """Take what is ready, as a driver does; without reading, control messages stay."""
    while machine.next_event() is not None:
        pass
    while read and machine.next_control() is not None:
        pass


class SenderEnd:
    """A sender whose files are in memory."""

    def __init__(self, *, eager: bool) -> None:
        self.machine = Sender(
            MANIFEST,
            max_message_size=messages.MIN_MESSAGE_SIZE,
            now=NOW,
            eager=Algorithm.SHA256 if eager else None,
        )
        self.machine.release()
        self._source = MemorySource(MANIFEST, FILES)

    def work(self) -> None:
        while reads := self.machine.next_reads():
            self.machine.blocks_read(self._source.read(reads), NOW)
        while self.machine.next_data() is not None:
            pass
        assert self.machine._packer.size <= READ_AHEAD + 2 * READ_BATCH


class ReceiverEnd:
    """A receiver that takes everything, into memory."""

    def __init__(self, *, eager: bool) -> None:
        self.machine = Receiver(ask=False, now=NOW, eager=eager)
        self.destination = MemoryDestination({"exists"})

    def accept(self) -> None:
        """Hear what is offered, and plan it."""
        for message in messages.manifest_messages(MANIFEST):
            self.machine.receive_control(messages.serialize_control(message), NOW)
        self.work()

    def work(self) -> None:
        while operations := self.machine.next_operations():
            self.machine.operations_done(self.destination.apply(operations), NOW)
        assert self.machine.bytes_buffered <= WINDOW
        assert sum(len(frame.payload) for frame in self.machine._ahead._held) <= messages.EAGER_CREDIT


HONEST = [json.loads(messages.serialize_control(message)) for message in messages.manifest_messages(MANIFEST)]
# What fills a memory: long paths of wide characters, deep ones, and small pieces, of a manifest without end.
FLOOD = [
    {
        "type": "manifest_start",
        "manifest_id": "0" * 64,
        **{"entries": 10**6, "files": 10**6, "bytes": 1 << 62, "roots": 1},
    },
    {"type": "roots", "names": ["d"]},
    {"type": "manifest", "first": 0, "entries": [["d/" + "\U0001f600" * 63, "file", 1 << 53, 0, 1 << 53]]},
    {"type": "manifest", "first": 0, "entries": [["d/" + "/".join("abcdefg" * 17), "file", 0, 0, -1]]},
    {"type": "manifest", "first": 1, "entries": [["D", "directory", 0, 0, 0]]},
]
DIGESTS = {"type": "digests", "files": [[1, "0" * 64], [4, None]]}
FROM_RECEIVERS = [
    {"type": "kept", "files": [[1, "0" * 64], [4, "0" * 64]]},
    {"type": "have", "file": 1, "first": 0, "sha256": ["0" * 64]},
    {"type": "compare", "files": [1, 4]},
    {"type": "accept", "below": 5},
    {"type": "accept", "below": 5, "anew": True},
    {"type": "credit", "bytes": 100_000, "written": 0},
    {"type": "credit", "bytes": 100_000, "written": 5013},
    {"type": "saved", "files": [1, 2]},
    {"type": "complete", "files": 4, "bytes": 5013, "sha256": "0" * 64},
    {"type": "hash_with", "algorithm": "blake3"},
]
FROM_BOTH = [
    {"type": "ping", "token": 1},
    {"type": "pong", "token": 1},
    {"type": "cancel", "code": "failed", "message": "text"},
]


def fuzz_control(data: bytes) -> None:
    """Have a sender hear a receiver, or a receiver a sender."""
    source = Source(data)
    sending, eager = source.boolean(), len(data) % 2 == 1
    end: SenderEnd | ReceiverEnd
    if sending:
        end = SenderEnd(eager=eager)
    else:
        end = ReceiverEnd(eager=eager)
        end.destination.here = {"d/a": b"A" * 5000, "c": b"c" * 3}
    examples = [*FROM_BOTH, *(FROM_RECEIVERS if sending else [*HONEST, *FLOOD, DIGESTS, {"type": "done"}])]
    while source.left and not end.machine.ended:
        text = make_message(source, examples)
        try:
            parsed = messages.parse_control_untrusted(text)
        except RemoteProtocolError:
            pass
        else:
            assert messages.parse_control_untrusted(messages.serialize_control(parsed)) == parsed
        end.machine.receive_control(text, NOW)
        end.work()
        drain(end.machine, read=True)


REPEATED = 16
"""Bytes of the input that a compressed block is made of."""


def complete(message: bytes) -> bytes:
    """Give each frame a length that fits, and the digest of what is before it where it has one."""
    frames, position, last = b"", 0, b""
    packer = BlockPacker()
    while position + FRAME_HEADER.size <= len(message):
        kind, file, length, offset = FRAME_HEADER.unpack_from(message, position)
        kind, file = kind % (len(FrameKind) + 1), file % (len(FILES) + 1)
        position += FRAME_HEADER.size
        size = length % 5001
        if kind in (FrameKind.BLOCK_END, FrameKind.FILE_END):
            payload = last = Algorithm.SHA256.digest(last)
        elif kind == FrameKind.PACKED:
            # A few bytes again and again: short inputs, too, have blocks that become smaller.
            few = message[position : position + REPEATED] or bytes(1)
            position += len(few)
            last = (few * size)[:size]
            payload = packer.pack(last) or last
        else:
            payload = last = message[position : position + size] or bytes(size)
            position += len(payload)
        frames += FRAME_HEADER.pack(kind, file, len(payload), offset % 5001) + payload
    return frames


def fuzz_data(data: bytes) -> None:
    """Feed data messages to a receiver that waits for them."""
    end = ReceiverEnd(eager=len(data) % 2 == 1)
    position, accepts_at = 0, len(data) // 2 if len(data) % 2 else 0
    is_accepted = False
    while position + 2 <= len(data):
        if position >= accepts_at and not is_accepted:
            is_accepted = True
            end.accept()
        length = int.from_bytes(data[position : position + 2], "big")
        message = data[position + 2 : position + 2 + (length & 0x7FFF)]
        position += 2 + len(message)
        end.machine.receive_data(complete(message) if length & 0x8000 else message, NOW)
        end.work()
        drain(end.machine, read=False)
        assert len(end.machine._outgoing) <= MAX_QUEUED
    # A whole file was announced with these sizes, and verified by its digests.
    for path, content in end.destination.files.items():
        expected = FILES[path]
        assert content is None or expected is None or len(content) == len(expected)


TARGETS = {
    "transfer-control": Target(fuzz_control, base=20_000, per_byte=400),
    "transfer-data": Target(fuzz_data, base=20_000, per_byte=400),
}
