from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import InputError
from flyx.signaling.codes import ROOM_ID_ALPHABET, ROOM_ID_LENGTH, draw_room_id, normalise_room_id

room_ids = st.text(st.sampled_from(ROOM_ID_ALPHABET), min_size=ROOM_ID_LENGTH, max_size=ROOM_ID_LENGTH)


def test_alphabet_is_crockfords_base32() -> None:
    assert len(ROOM_ID_ALPHABET) == len(set(ROOM_ID_ALPHABET)) == 32
    assert not set("ILOU") & set(ROOM_ID_ALPHABET)


def test_drawn_ids_spell_what_was_chosen() -> None:
    choices = iter([0, 31, 10, 1, 17, 20])
    assert draw_room_id(lambda bound: next(choices) % bound) == "0ZA1HM"


def test_drawn_ids_are_normalised_and_differ() -> None:
    drawn = {draw_room_id(secrets.randbelow) for _ in range(1000)}
    assert len(drawn) > 990
    assert all(normalise_room_id(room_id) == room_id for room_id in drawn)


@given(room_ids, st.data())
def test_case_lookalikes_and_separators_are_forgiven(room_id: str, data: st.DataObject) -> None:
    typed = ""
    for character in room_id:
        lookalikes = {"1": "1IiLl", "0": "0Oo"}.get(character, character + character.lower())
        typed += data.draw(st.text(st.sampled_from(" -\t"), max_size=2))
        typed += data.draw(st.sampled_from(lookalikes))
    assert normalise_room_id(typed + "\n") == room_id


@given(st.text())
def test_any_text_is_a_room_id_or_an_input_error(text: str) -> None:
    try:
        room_id = normalise_room_id(text)
    except InputError:
        return
    assert len(room_id) == ROOM_ID_LENGTH
    assert set(room_id) <= set(ROOM_ID_ALPHABET)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" - ", "empty"),
        ("K7M2Q", "5 characters"),
        ("K7M2QXX", "7 characters"),
        ("K7M2QX-lemon-otter", "characters"),
        ("K7M2QU", "no room code has"),
        ("K7M2Q!", "no room code has"),
        # Upper case turns the dotless i into I, and so would let it pass for 1.
        ("K7M2Q\N{LATIN SMALL LETTER DOTLESS I}", "outside A-Z"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER K}7M2QX", "outside A-Z"),
    ],
)
def test_what_cannot_be_a_room_id_is_explained(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        normalise_room_id(text)
    assert reason in str(caught.value)
    assert "K7M2QX" in str(caught.value.hint)


def test_the_error_does_not_repeat_what_was_pasted() -> None:
    with pytest.raises(InputError) as caught:
        normalise_room_id("correct-horse-battery-staple")
    assert "horse" not in str(caught.value).lower()
