"""What flyx makes of chosen inputs, for the same code in JavaScript to make as well."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from typing import Any

from flyx.client.codes import parse_invitation
from flyx.errors import InputError
from flyx.pairing.wordlist import WORDS
from flyx.pairing.words import check_own_words, resolve_words
from flyx.transfer.digests import Algorithm, RunningDigest
from flyx.transfer.manifest import MAX_MTIME_US, Content, Entry, EntryKind, Manifest, path_bytes
from flyx.transfer.messages import manifest_messages, serialize_control
from tests.client.test_codes import MARKS, WITH_SERVER

INVITATIONS = (
    *MARKS.values(),
    *WITH_SERVER.values(),
    *("K7M2QX", "k7m-2qx", "o0il1q lemn OTTE", "", "  ", "lemon-otter", "K7M2Q", "K7M2QU-lemon-otter"),
    *("flyx receive --yes K7M2QX-lemon-otter", "https://flyx.example.org/", "K7M2QX-ﬁne-STRAẞE-ΟΔΟΣ"),
)
TYPED = ("lemon-otter", "lemn otte", "lemno otter", "lemon", "aba otter", "xxxx otter", "lem otter")
OWN = (
    "nobody guesses this",
    "aaaaaaaa",
    "short",
    "Straße der Öfen",
    "a" * 101 + "bcdef",
    "one*two three",
    "",
)
PATHS = (
    *("a", "b/c/d.txt", 'quo"te\\back', "\t\n\x01\x7f", "\x85\xa0ä", "雨/の日", "\U0001f600", "\ufeff\u2028"),
    *("bytes \udcff\udc80", "\udced\udca0\udc80", "\ud7ff\ue000", "é\udcc3"),
)


def make() -> dict[str, Any]:
    """Return all of them."""
    return {
        "words": WORDS,
        "folds": _folds(),
        "invitations": [[text, _said(lambda text=text: _invitation(text))] for text in INVITATIONS],
        "typed": [[text, _said(lambda text=text: resolve_words(_words(text), 2))] for text in TYPED],
        "own": [[text, _said(lambda text=text: check_own_words(text))] for text in OWN],
        "paths": [[path_bytes(path).hex(), [ord(unit) for unit in _utf16(path)]] for path in PATHS],
        "manifests": [_manifest(content) for content in Content],
        "digests": [_digest(size) for size in (0, 1, 55, 56, 63, 64, 65, 1000)],
    }


def _folds() -> list[tuple[str, str]]:
    """Each letter that Python and every browser know, and what its case folds to."""
    known = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    return [(letter, letter.casefold()) for letter in known if unicodedata.category(letter)[0] == "L"]


def _words(text: str) -> tuple[str, ...]:
    return parse_invitation(f"000000 {text}").words


def _invitation(text: str) -> tuple[str | None, str, tuple[str, ...]]:
    found = parse_invitation(text)
    return found.server, found.room_id, found.words


def _said(work: Any) -> dict[str, Any]:
    try:
        return {"result": work()}
    except InputError as error:
        return {"error": str(error)}


def _utf16(text: str) -> list[str]:
    encoded = text.encode("utf-16-le", "surrogatepass")
    return [chr(int.from_bytes(encoded[at : at + 2], "little")) for at in range(0, len(encoded), 2)]


def _manifest(content: Content) -> dict[str, Any]:
    entries = [Entry("only", EntryKind.FILE, 0 if content is Content.STREAM else 7, 0o600, -1)]
    if content is Content.FILES:
        entries = [
            *(Entry(path, EntryKind.FILE, at, 0o644, at - 3) for at, path in enumerate(PATHS)),
            Entry("late", EntryKind.FILE, 2**52, 0o777, MAX_MTIME_US),
            Entry("d", EntryKind.DIRECTORY, 0, 0o755, -MAX_MTIME_US),
            Entry("link", EntryKind.SYMBOLIC_LINK, 0, 0, 0, target="d/\udcff"),
            Entry("again", EntryKind.HARD_LINK, 0, 0, 0, same_as=0),
        ]
    manifest = Manifest(entries, content=content)
    return {"id": manifest.id, "messages": [serialize_control(each) for each in manifest_messages(manifest)]}


def _digest(size: int) -> tuple[str, str, str]:
    content = random.Random(size).randbytes(size)
    running = RunningDigest(Algorithm.SHA256)
    running.add(content)
    assert running.value() == hashlib.sha256(content).digest()
    return content.hex(), running.value().hex(), Algorithm.SHA256.hole_digest(size).hex()
