"""The journal of an unfinished transfer: what a disk, another program or another user may have made of it.

The first byte of the input chooses: the rest is a journal as it is; or it is the records of one, each given
the checksum that belongs to it, so that the fuzzer gets past that; or it is cut and changed in the middle of
an honest one. A journal that says something else when it is written anew is a finding, and so are more
blocks than a file has.
"""

from __future__ import annotations

import json

from flyx.storage.journal import Contents, Heading, Identity, Record, Saved, parse, serialize
from flyx.transfer.digests import DIGEST_SIZE, Algorithm
from flyx.transfer.manifest import BLOCK_SIZE
from tests.fuzz.grammar import make_message
from tests.fuzz.source import Source
from tests.fuzz.target import Target

DIGESTS = bytes(range(DIGEST_SIZE)) * 3
HEADING = Heading.of("ab" * 32, ["photos", "notes"], 1_700_000_000, Algorithm.BLAKE3)
EXAMPLES: list[Record] = [
    ["name", "photos", "photos (1)"],
    ["made", ["photos (1)", "sub"]],
    ["file", 0, "photos/a", 5 * BLOCK_SIZE, 7, 11],
    ["file", 1, "photos/b", 10, 7, 12],
    ["blocks", 0, 0, DIGESTS.hex()],
    ["blocks", 0, 3, DIGESTS[:DIGEST_SIZE].hex()],
    ["blocks", 1, 0, DIGESTS[:DIGEST_SIZE].hex()],
    ["drop", 1],
    Saved(Identity("notes", 3, 9), ("notes",), 13, 9000, DIGESTS[:DIGEST_SIZE]).record(),
]
HONEST = b"".join(serialize(record) for record in (HEADING.record(), *EXAMPLES))


def records(source: Source) -> bytes:
    """Return a journal whose checksums are right, whatever its records say."""
    examples = [{str(at): item for at, item in enumerate(record)} for record in EXAMPLES]
    lines = [serialize(HEADING.record())]
    while source.left and len(lines) < 100:
        made = make_message(source, examples)
        try:
            record = list(json.loads(made).values())
        except (ValueError, AttributeError):
            record = [made]
        lines.append(serialize(record))
    return b"".join(lines)


def changed(source: Source) -> bytes:
    """Return an honest journal with other bytes in the middle."""
    at = source.integer(0, len(HONEST))
    skipped = source.integer(0, 100)
    return HONEST[:at] + source.take(100) + HONEST[at + skipped :]


def check(contents: Contents) -> None:
    """What was believed can be, and says the same when it is written anew."""
    for begun in contents.begun.values():
        assert len(begun.digests) % DIGEST_SIZE == 0
        assert 0 <= begun.size <= begun.identity.size
        assert len(begun.digests) // DIGEST_SIZE <= -(-begun.identity.size // BLOCK_SIZE)
    again = list(contents.records())
    known = parse(b"".join(serialize(record) for record in again))
    assert known is not None
    # Directories come in any order.
    assert sorted(map(repr, known.records())) == sorted(map(repr, again))


def one_input(data: bytes) -> None:
    """Read a journal, and what was believed of it once more."""
    source = Source(data)
    match source.integer(0, 2):
        case 0:
            text = source.rest()
        case 1:
            text = records(source)
        case _:
            text = changed(source)
    contents = parse(text)
    if contents is not None:
        check(contents)


TARGETS = {"journal": Target(one_input, base=10_000, per_byte=400)}
