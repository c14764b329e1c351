"""Coverage-guided fuzzing of the journal of an unfinished transfer with atheris; run by hand, not by pytest.

    pip install atheris
    python -m tests.fuzz.fuzz_journal -max_total_time=120

The first byte of the input chooses: the rest is a journal as it is; or it is the records of one, each given
the checksum that belongs to it, so that the fuzzer gets past that; or it is cut and changed in the middle of
an honest one. Any exception is a finding, and so are a journal that says something else when it is written
anew, more blocks than a file has, and work that grows faster than the input.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports(include=["flyx.storage.journal"]):
    from flyx.storage import journal
    from flyx.storage.journal import Contents, Heading, Identity, Record, Saved, parse, serialize

from flyx.transfer.manifest import BLOCK_SIZE, DIGEST_SIZE
from tests.fuzz.grammar import make_message

DIGESTS = bytes(range(DIGEST_SIZE)) * 3
HEADING = Heading.of("ab" * 32, ["photos", "notes"], 1_700_000_000)
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

STEPS_PER_LINE = 200
"""Lines of journal.py that one line of a journal may cost, with room: each is read once."""


def records(source: atheris.FuzzedDataProvider) -> bytes:
    """Return a journal whose checksums are right, whatever its records say."""
    examples = [{str(at): item for at, item in enumerate(record)} for record in EXAMPLES]
    lines = [serialize(HEADING.record())]
    while source.remaining_bytes() and len(lines) < 100:
        made = make_message(source, examples)
        try:
            record = list(json.loads(made).values())
        except (ValueError, AttributeError):
            record = [made]
        lines.append(serialize(record))
    return b"".join(lines)


def changed(source: atheris.FuzzedDataProvider) -> bytes:
    """Return an honest journal with other bytes in the middle."""
    at = source.ConsumeIntInRange(0, len(HONEST))
    skipped = source.ConsumeIntInRange(0, 100)
    return HONEST[:at] + source.ConsumeBytes(100) + HONEST[at + skipped :]


class Steps:
    """Counts the lines of journal.py that run."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Steps:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: object, event: str, argument: object) -> object:
        code = frame.f_code  # type: ignore[attr-defined]
        return self._line if code.co_filename == journal.__file__ else None

    def _line(self, frame: object, event: str, argument: object) -> object:
        self.count += 1
        return self._line


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
    source = atheris.FuzzedDataProvider(data)
    match source.ConsumeIntInRange(0, 2):
        case 0:
            text = source.ConsumeBytes(len(data))
        case 1:
            text = records(source)
        case _:
            text = changed(source)
    with Steps() as steps:
        contents = parse(text)
    assert steps.count <= STEPS_PER_LINE * (text.count(b"\n") + 1)
    if contents is not None:
        check(contents)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
