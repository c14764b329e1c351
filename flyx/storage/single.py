"""What there is to send where it is no file on a disk: a stream, or a text."""

from __future__ import annotations

import time

from flyx.errors import InputError, UnsafeName
from flyx.storage.scan import Scan, Sources
from flyx.transfer.manifest import MAX_TEXT_SIZE, Content, Entry, EntryKind, Manifest, path_bytes
from flyx.transfer.names import MAX_PART_BYTES, check_path, is_state_directory

TEXT_NAME = "text"
"""The path of a text in its manifest, which is never shown."""

_MODE = 0o666
"""What a program asks for when it makes a file: the receiver's umask says the rest."""


def scan_of_stream(name: str) -> Scan:
    """Return what there is to send of a stream: its blocks come from elsewhere.

    Args:
        name: under which it can be saved.

    Raises:
        InputError: it is no name of a file.
    """
    try:
        is_name = len(check_path(name)) == 1 and len(path_bytes(name)) <= MAX_PART_BYTES
    except UnsafeName:
        is_name = False
    if not is_name or is_state_directory(name):
        raise InputError(reason=f"no file can be saved as {name}", hint="a name is one part of a path")
    return _single(name, b"", Content.STREAM)


def scan_of_text(text: str) -> Scan:
    """Return what there is to send of a text, with bytes that are no UTF-8 as surrogateescape has them.

    Raises:
        InputError: it is empty, too long, or no text.
    """
    data = text.encode("utf-8", "surrogateescape")
    if not data:
        raise InputError(reason="the text is empty", hint="is a variable in the command not set?")
    if len(data) > MAX_TEXT_SIZE:
        raise InputError(reason=f"the text is longer than {MAX_TEXT_SIZE:,} bytes", hint="send it as a file")
    try:
        data.decode()
    except UnicodeDecodeError:
        hint = "send it as a file; `flyx send -` takes standard input as it is"
        raise InputError(reason="the text is not in UTF-8", hint=hint) from None
    return _single(TEXT_NAME, data, Content.TEXT)


def _single(name: str, data: bytes, content: Content) -> Scan:
    sources = Sources(follow_links=False)
    now = time.time_ns()
    sources.add_content(data)
    sources.add_time(now)
    entry = Entry(name, EntryKind.FILE, len(data), _MODE, now // 1000)
    return Scan(Manifest([entry], content=content), sources, {}, excluded=0)
