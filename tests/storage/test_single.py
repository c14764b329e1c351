"""What is sent where it is no file: its manifest."""

from __future__ import annotations

import pytest

from flyx.errors import InputError
from flyx.storage.reader import SourceReader
from flyx.storage.single import scan_of_stream, scan_of_text
from flyx.transfer.disk import BlockRead, BlockRequest
from flyx.transfer.manifest import MAX_TEXT_SIZE, Content, EntryKind


def test_a_stream_is_one_file_of_unknown_size() -> None:
    manifest = scan_of_stream("dump.sql").manifest
    (entry,) = manifest.entries
    assert (entry.path, entry.kind, entry.size) == ("dump.sql", EntryKind.FILE, 0)
    assert manifest.content is Content.STREAM


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/", "a\0", "x" * 256, ".flyx", ".flyx-1000"])
def test_what_is_no_name_is_no_name_of_a_stream(name: str) -> None:
    with pytest.raises(InputError, match="no file can be saved as"):
        scan_of_stream(name)


@pytest.mark.parametrize(
    "text", ["x", "zwei\nLinien\n", "\0\x1b[2J\x7f\u202e", "\U0001f600" * (MAX_TEXT_SIZE // 4)]
)
def test_a_text_is_one_block(text: str) -> None:
    found = scan_of_text(text)
    (entry,) = found.manifest.entries
    assert found.manifest.content is Content.TEXT
    (block,) = SourceReader(found).read([BlockRequest(0, 0, entry.size)])
    assert isinstance(block, BlockRead)
    assert block.data == text.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the text is empty"),
        ("x" * (MAX_TEXT_SIZE + 1), "the text is longer than 1,048,576 bytes"),
        # Cut in the middle of a character, as --text - reads it.
        ("\u00e4" * (MAX_TEXT_SIZE // 2) + "\udcc3", "the text is longer than 1,048,576 bytes"),
        ("caf\udce9", "the text is not in UTF-8"),
    ],
)
def test_what_is_no_text_is_not_sent(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        scan_of_text(text)
