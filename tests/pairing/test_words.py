"""The words of codes: what is in the list, and what is understood of what people type."""

from __future__ import annotations

import re
import secrets
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.errors import InputError
from flyx.pairing import words
from flyx.pairing.wordlist import WORDS
from flyx.pairing.words import (
    check_own_words,
    completions,
    corrections,
    draw_words,
    is_one_typo,
    password_of,
    resolve_words,
    split_words,
)
from tests.papers import COMMANDS, options_of

listed = st.sampled_from(WORDS)
letters = st.sampled_from("abcdefghijklmnopqrstuvwxyz")


def test_each_word_is_worth_ten_bits() -> None:
    assert len(set(WORDS)) == len(WORDS) == 1024
    assert list(WORDS) == sorted(WORDS)


def test_words_are_short_and_plain() -> None:
    assert all(re.fullmatch(r"[a-z]{4,7}", word) for word in WORDS)


def test_four_letters_are_enough_for_any_word() -> None:
    assert len({word[:4] for word in WORDS}) == len(WORDS)
    assert all(completions(word[:4]) == [word] for word in WORDS)


def test_no_two_words_are_a_typo_apart() -> None:
    # Words that are a typo apart have something in common when each is left whole or loses a letter.
    shortened: dict[str, set[str]] = {}
    for word in WORDS:
        for part in {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}:
            shortened.setdefault(part, set()).add(word)
    alike = [pair for words in shortened.values() for pair in combinations(words, 2)]
    assert not [pair for pair in alike if is_one_typo(*pair)]


def slow_one_typo(one: str, other: str) -> bool:
    """What is_one_typo says, by trying everything."""
    edits = {one[:i] + one[i + 1 :] for i in range(len(one))}
    for letter in set(other):
        edits |= {one[:i] + letter + one[i:] for i in range(len(one) + 1)}
        edits |= {one[:i] + letter + one[i + 1 :] for i in range(len(one))}
    edits |= {one[:i] + one[i + 1] + one[i] + one[i + 2 :] for i in range(len(one) - 1)}
    return other in edits and one != other


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_a_typo_is_one_edit(one: str, other: str) -> None:
    assert is_one_typo(one, other) == slow_one_typo(one, other) == is_one_typo(other, one)


@given(listed, st.data())
def test_one_typo_is_corrected_or_the_words_it_could_be_are_named(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(letters)
    typed = data.draw(
        st.sampled_from(
            [
                word[:at] + word[at + 1 :],
                word[:at] + letter + word[at:],
                word[:at] + letter + word[at + 1 :],
                word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            ]
        )
    )
    candidates = [typed] if typed in WORDS else completions(typed) or corrections(typed)
    if len(candidates) == 1:
        assert resolve_words([typed], 1) == tuple(candidates)
        # Another word only if what was typed is its beginning.
        assert candidates == [word] or candidates[0].startswith(typed)
        return
    with pytest.raises(InputError) as caught:
        resolve_words([typed], 1)
    assert len(candidates) > 4 or all(candidate in str(caught.value.hint) for candidate in candidates)


@given(st.lists(listed, min_size=1, max_size=8), st.data())
def test_words_may_be_cut_short_in_any_case_and_with_any_separators(
    meant: list[str], data: st.DataObject
) -> None:
    separators = st.text(" -\t", min_size=1, max_size=3)
    typed = data.draw(separators).join(
        data.draw(st.sampled_from([word, word.upper(), word.capitalize(), word[:4], word[:5]])) + " "
        for word in meant
    )
    assert resolve_words(split_words(typed), len(meant)) == tuple(meant)


@given(st.text())
def test_common_form_is_stable(text: str) -> None:
    once = split_words(text)
    assert split_words(password_of(once)) == once
    assert split_words(text.upper().lower()) == split_words(text.upper())


@given(st.lists(st.text(min_size=1), max_size=4), st.integers(1, 8))
def test_anything_typed_is_words_of_the_list_or_an_input_error(typed: list[str], count: int) -> None:
    try:
        resolved = resolve_words(typed, count)
    except InputError:
        return
    assert len(resolved) == count
    assert set(resolved) <= set(WORDS)


@pytest.mark.parametrize(
    ("typed", "count", "reason", "hint"),
    [
        ([], 2, "2 words after the room's six characters; none was given", None),
        (["lemon"], 2, "1 was given", None),
        (["lemon"] * 3, 1, "1 word after the room's six characters; 3 were given", None),
        (["lemon", "qqqq"], 2, "the second word", "four letters"),
        (["can", "lemon"], 2, "the first word", "canal or candle or canoe or canyon"),
    ],
)
def test_what_cannot_be_right_is_explained(
    typed: list[str], count: int, reason: str, hint: str | None
) -> None:
    with pytest.raises(InputError) as caught:
        resolve_words(typed, count)
    assert reason in str(caught.value)
    assert (hint or "") in (caught.value.hint or "")


def test_an_error_does_not_repeat_what_was_typed() -> None:
    with pytest.raises(InputError) as caught:
        resolve_words(["hunter2"], 1)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_drawn_words_spell_what_was_chosen() -> None:
    choices = iter([0, 1023, 512])
    assert draw_words(3, lambda bound: next(choices) % bound) == (WORDS[0], WORDS[1023], WORDS[512])


def test_drawn_words_differ() -> None:
    assert len({draw_words(2, secrets.randbelow) for _ in range(200)}) > 190


@pytest.mark.parametrize(
    "text",
    ["", "-", "lemon", "a" * 12, "12341234", "pass$word!", "x" * 50 + "abcdefgh" * 9, "ab cd-ef"],
)
def test_words_of_ones_own_that_are_easy_to_guess_or_hard_to_type_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        check_own_words(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Correct Horse-Battery", ("correct", "horse", "battery")),
        ("käse brötchen", ("käse", "brötchen")),
        ("x7k2m9q4", ("x7k2m9q4",)),
        ("STRASSE straße", ("strasse", "strasse")),
    ],
)
def test_words_of_ones_own_are_taken_in_their_common_form(text: str, expected: tuple[str, ...]) -> None:
    assert check_own_words(text) == expected


def test_what_the_command_line_says_of_words_is_what_pairing_does() -> None:
    option = options_of(COMMANDS["send"])["--words"]
    assert (option.min, option.max) == (words.MIN_WORDS, words.MAX_WORDS)
    assert option.help.endswith(f"[default: {words.DEFAULT_WORDS}]")
