"""A manifest to a receiver: what a sender may offer.

The input is a list of entries, of files, a stream or a text, with the names that do harm somewhere. They come
in messages as an honest sender would pack them, some of which are changed as grammar.py says, left out or
repeated: what is planned is what was announced, or the receiver gives up.
"""

from __future__ import annotations

import json

from flyx.transfer import messages
from flyx.transfer.manifest import Content, Entry, EntryKind, Manifest
from flyx.transfer.receiver import Receiver
from tests.fuzz.grammar import make_message
from tests.fuzz.source import Source
from tests.fuzz.target import Target
from tests.simulator import MemoryDestination

NOW = 50.0
PARTS = [
    *("a", "A", "\u00e4", "a\u0308", "..", ".", "", ".flyx", "a ", "a.", "CON"),
    *("a\nb", "\u202e", "\x1b[2J", "x" * 255),
]
CONTENTS = {b"S": Content.STREAM, b"T": Content.TEXT}
SIZES = [0, 1, 1 << 20, (1 << 53) - 1, 1 << 53]


def entry(source: Source) -> Entry:
    """Return an entry that a manifest can have, though a sender of ours might never make it."""
    parts = [source.pick(PARTS) for _ in range(source.integer(1, 4))]
    directory = source.boolean()
    path = "/".join(parts) if source.integer(0, 7) else source.text(40)
    return Entry(
        path.replace("\0", "0"),
        EntryKind.DIRECTORY if directory else EntryKind.FILE,
        0 if directory else source.pick(SIZES),
        source.integer(0, 0o777),
        source.integer(-(1 << 53), 1 << 53),
    )


def one_input(data: bytes) -> None:
    """Have a receiver hear a manifest."""
    source = Source(data)
    entries = [entry(source) for _ in range(source.integer(1, 12))]
    # By the last byte, which leaves the inputs what they were before there were others than files.
    manifest = Manifest(entries, content=CONTENTS.get(data[-1:], Content.FILES))
    machine = Receiver(ask=source.boolean(), now=NOW)
    destination = MemoryDestination({"exists"})
    for message in messages.manifest_messages(manifest):
        text = messages.serialize_control(message)
        for _ in range(source.pick([1, 1, 1, 1, 1, 0, 2])):
            changed = source.integer(0, 3) == 3
            told = make_message(source, [json.loads(text)]) if changed else text
            if not machine.ended:
                machine.receive_control(told, NOW)
            while operations := machine.next_operations():
                machine.operations_done(destination.apply(operations), NOW)
    while machine.next_event() is not None:
        pass
    if machine.manifest is not None:
        assert machine.manifest.content is Content.FILES or len(machine.manifest.entries) == 1
        assert machine.manifest.total_bytes == sum(entry.size for entry in machine.manifest.entries)


TARGETS = {"manifest": Target(one_input, base=20_000, per_byte=400)}
