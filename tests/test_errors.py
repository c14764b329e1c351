"""Errors as people read them, and text of strangers made harmless."""

from __future__ import annotations

import inspect
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx import errors
from flyx.errors import FlyxError, UnsafeName, printable, size_text


def all_errors() -> list[type[FlyxError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FlyxError)]


@given(st.text())
def test_printable_text_has_nothing_that_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    for character in shown:
        category = unicodedata.category(character)
        assert character == " " or category[0] not in "CZ" or category == "Cf"
    assert not set(shown) & set(
        "\x1b\x9b\r\n\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
    )


@given(st.text(), st.text())
def test_two_texts_never_look_the_same_after_escaping(one: str, other: str) -> None:
    assert (printable(one) == printable(other)) == (one == other)


@pytest.mark.parametrize("text", ["plain", "ü, ok", "日本語", "👩‍👩‍👧 family", "a b"])
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jboo", r"\x1b[2Jboo"),
        ("a\nb", r"a\nb"),
        ("back\\slash", r"back\\slash"),
        ("evil\u202egpj.exe", r"evil\u202egpj.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("no\u00a0break", r"no\xa0break"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_reads_as_a_message(kind: type[FlyxError]) -> None:
    template = inspect.getdoc(kind)
    assert template
    names = re.findall(r"{(\w+)", template)
    error = kind(**dict.fromkeys(names, 1.5 if "seconds:" in template else "something"))
    assert "{" not in str(error)
    assert str(error)
    assert re.fullmatch(r"[a-z_]+", kind.code)
    assert kind.hint is None or not kind.hint.endswith(".")


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(set(codes)) == len(codes)


def test_the_tree_in_the_module_docstring_is_complete() -> None:
    assert errors.__doc__ is not None
    for kind in all_errors():
        assert re.search(rf"\b{kind.__name__}\b", errors.__doc__), kind.__name__


def test_fields_are_escaped_in_the_message() -> None:
    error = UnsafeName(name="\x1b[31mred", reason="control characters")
    assert str(error) == r"The name \x1b[31mred is not safe to create: control characters."


def test_the_middle_of_a_very_long_name_is_left_out() -> None:
    message = str(UnsafeName(name="a" * 400 + "b" * 4000 + "c" * 400, reason="its path is too long"))
    assert "aaa…ccc" in message
    assert len(message) < errors.MAX_SHOWN + 100


def test_a_hint_of_the_moment_replaces_the_usual_one() -> None:
    assert UnsafeName(name="x", reason="y", hint="do this").hint == "do this"
    assert UnsafeName(name="x", reason="y").hint == UnsafeName.hint


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_995, "10.0 kB"),
        (12_345_678, "12.3 MB"),
        (99_949_999, "99.9 MB"),
        (99_950_000, "100 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.00 GB"),
        (1_050_000_000, "1.05 GB"),
        (2 * 10**12, "2.00 TB"),
        (5 * 10**21, "5,000 EB"),
    ],
)
def test_sizes_are_shown_to_three_digits_in_powers_of_a_thousand(size: int, shown: str) -> None:
    assert size_text(size) == shown
