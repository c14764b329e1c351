"""Messages of the transfer of a stream.

`stream-control`: the input is messages of the control channel, made as grammar.py says, to a sender that
offers a stream. `stream-data`: the input is a list of frames of the data channel, to a receiver that has
accepted one; each is an honest next one, changed in one place or none. Findings are, besides exceptions,
memory held beyond the window, and bytes in place that did not come in their order.
"""

from __future__ import annotations

from flyx.errors import RemoteProtocolError
from flyx.transfer import messages
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.frames import FRAME_HEADER, FrameKind
from flyx.transfer.receiver import WINDOW, Receiver
from flyx.transfer.sender import READ_AHEAD, READ_BATCH, Sender
from flyx.transfer.sender_events import Delivered
from tests.fuzz.fuzz_transfer import FROM_BOTH, FROM_RECEIVERS, NOW, drain
from tests.fuzz.grammar import make_message
from tests.fuzz.source import Source
from tests.fuzz.target import Target
from tests.simulator import MemoryStream, StreamDestination, manifest_of_stream

BLOCKS = [b"a" * 5000, b"b", b"c" * 12]
ANSWERS = [
    {"type": "go_on", "offset": 5000},
    {"type": "accept", "below": 1},
    {"type": "credit", "bytes": 100_000, "written": 5001},
    {"type": "left_out", "entries": [[0, "name_taken"]]},
    {"type": "saved", "files": [0]},
    {"type": "complete", "files": 1, "bytes": 5013, "sha256": "0" * 64},
    *FROM_RECEIVERS,
    *FROM_BOTH,
]


def fuzz_control(data: bytes) -> None:
    """Have a sender hear a receiver."""
    source = Source(data)
    stream = MemoryStream(BLOCKS, fails=source.boolean())
    machine = Sender(stream.manifest, max_message_size=messages.MIN_MESSAGE_SIZE, now=NOW)
    machine.release()
    while source.left and not machine.ended:
        text = make_message(source, ANSWERS)
        try:
            parsed = messages.parse_control_untrusted(text)
        except RemoteProtocolError:
            pass
        else:
            assert messages.parse_control_untrusted(messages.serialize_control(parsed)) == parsed
        machine.receive_control(text, NOW)
        while reads := machine.next_reads():
            machine.blocks_read(stream.read(reads), NOW)
        while machine.next_data() is not None:
            pass
        assert machine._packer.size <= READ_AHEAD + 2 * READ_BATCH
        while (event := machine.next_event()) is not None:
            # It takes the digest of all to confirm it, and with nothing left out that is of the stream.
            assert not isinstance(event, Delivered) or event.bytes in (0, len(stream.content))
        drain(machine, read=True)


def fuzz_data(data: bytes) -> None:
    """Feed frames to a receiver that waits for them."""
    source = Source(data)
    machine, destination = Receiver(ask=False, now=NOW), StreamDestination()
    for message in messages.manifest_messages(manifest_of_stream()):
        machine.receive_control(messages.serialize_control(message), NOW)
    work(machine, destination)
    content, block, digest = b"", b"", RunningDigest(Algorithm.SHA256)
    while source.left and not machine.ended:
        kind = FrameKind(source.pick([1, 1, 2, 2, 3, 4, 5]))
        start = len(content) - len(block) if kind is FrameKind.BLOCK_END else len(content)
        payload = b""
        if kind is FrameKind.DATA:
            payload = source.take(source.integer(0, 20)) * source.pick([1, 1, 300])
            block += payload
            content += payload
        elif kind is FrameKind.BLOCK_END:
            payload = Algorithm.SHA256.digest(block)
            digest.add(payload)
            block = b""
        elif kind is FrameKind.FILE_END:
            payload = digest.value()
        elif kind is FrameKind.FILE_FAILED:
            payload = source.pick([b"file_unreadable", b"not_wanted", b"\xff"])
        offset = start + source.pick([0, 0, 0, 0, 0, 0, 1, 1 << 40])
        file = source.pick([0, 0, 0, 0, 0, 0, 0, 1])
        machine.receive_data(FRAME_HEADER.pack(kind, file, len(payload), offset) + payload, NOW)
        work(machine, destination)
        drain(machine, read=True)
    # It came in its order, in blocks that were verified, to its end.
    assert content.startswith(destination.files.get("stream", b"") or b"")


def work(machine: Receiver, destination: StreamDestination) -> None:
    """Do what a receiver asks of its disk."""
    while operations := machine.next_operations():
        machine.operations_done(destination.apply(operations), NOW)
    assert machine.bytes_buffered <= WINDOW


TARGETS = {
    "stream-control": Target(fuzz_control, base=20_000, per_byte=400),
    "stream-data": Target(fuzz_data, base=20_000, per_byte=400),
}
