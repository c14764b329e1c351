"""Codes as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.client.codes import format_code, parse_code
from flyx.errors import InputError
from flyx.pairing.wordlist import WORDS
from flyx.pairing.words import password_of, resolve_words
from flyx.signaling.codes import ROOM_ID_ALPHABET

room_ids = st.text(st.sampled_from(ROOM_ID_ALPHABET), min_size=6, max_size=6)


@given(room_ids, st.lists(st.sampled_from(WORDS), max_size=8))
def test_what_the_sender_shows_is_understood(room_id: str, words: list[str]) -> None:
    assert parse_code(format_code(room_id, password_of(words))) == (room_id, tuple(words))


@given(room_ids, st.lists(st.sampled_from(WORDS), max_size=4), st.data())
def test_case_and_separators_do_not_matter(room_id: str, words: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 6))
    separator = st.text(" -\t", min_size=1, max_size=3)
    parts = [room_id[:at], room_id[at:], *words]
    typed = "".join(
        part + data.draw(separator)
        for part in (data.draw(st.sampled_from([p, p.lower(), p.upper()])) for p in parts)
    )
    found, typed_words = parse_code(typed)
    assert found == room_id
    assert resolve_words(typed_words, len(words)) == tuple(words)


MARKS = {
    "dashes of a chat": "K7M2QX\u2013lemon\u2014otter",
    "a minus": "K7M2QX\u2212lemon\u2212otter",
    "hyphens that do not break": "K7M2QX\u2011lemon\u2011otter",
    "quotation marks": "\u201cK7M2QX-lemon-otter\u201d",
    "code marks": "`K7M2QX-lemon-otter`",
    "a full stop": "K7M2QX-lemon-otter.",
    "invisible marks": "\ufeffK7M2QX\u200b-le\u00admon-otter\u200e",
    "underscores and slashes": "k7m2qx_lemon/otter",
    "blanks": " K7M 2QX  Lemon\u00a0Otter\n",
    "the command": "flyx receive K7M2QX-lemon-otter\n",
    "the command and its prompt": "$ flyx receive 'K7M2QX-lemon-otter'",
}


@pytest.mark.parametrize("text", MARKS.values(), ids=MARKS)
def test_what_programs_and_people_make_of_a_code_is_understood(text: str) -> None:
    assert parse_code(text) == ("K7M2QX", ("lemon", "otter"))


@given(st.text())
def test_any_text_is_a_code_or_an_input_error(text: str) -> None:
    try:
        room_id, words = parse_code(text)
    except InputError:
        return
    assert parse_code(format_code(room_id, password_of(words))) == (room_id, words)


@pytest.mark.parametrize(
    "text", ["", " ", "lemon-otter", "K7M2Q", "K7M2QXX-lemon", "K7M-2QXX-lemon", "K7M2Q!-lemon"]
)
def test_what_cannot_be_a_code_is_explained_without_repeating_it(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_code(text)
    assert "K7M2QX-lemon-otter" in (caught.value.hint or "")
    assert "lemon" not in str(caught.value)
