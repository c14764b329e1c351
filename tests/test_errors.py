"""Errors as people read them, and text of strangers made harmless."""

from __future__ import annotations

import errno
import inspect
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx import errors
from flyx.errors import (
    DestinationExists,
    FlyxError,
    InputError,
    LocalProtocolError,
    SystemFailure,
    UnsafeName,
    as_flyx_error,
    printable,
    size_text,
    without_credentials,
)


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


def test_one_name_exists_and_several_exist() -> None:
    assert (
        str(DestinationExists(path="img1.jpg", others=" and 4 more")) == "img1.jpg and 4 more already exist."
    )
    assert str(DestinationExists(path="img1.jpg", others="")) == "img1.jpg already exists."


def test_what_the_surroundings_did_is_no_mistake_of_ours() -> None:
    failures = [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", "ulimit -n"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "Permission denied (/x)", ""),
        (RuntimeError("can't start new thread"), "no more threads", "ulimit -u"),
        (RuntimeError("Could not determine home directory."), "home", "HOME"),
        (
            ModuleNotFoundError("No module named 'h11'"),
            "missing or damaged: No module named 'h11'",
            "install",
        ),
        (UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range(128)"), "encoding", "LC_ALL"),
        (MemoryError(), "out of memory", ""),
    ]
    for failure, told, hint in failures:
        error = as_flyx_error(failure)
        assert isinstance(error, SystemFailure)
        assert told in str(error)
        assert hint in (error.hint or "")
        assert error.__cause__ is failure
    for mistake in (RuntimeError("x"), KeyError("x"), TypeError("x")):
        assert isinstance(as_flyx_error(mistake), LocalProtocolError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ws://me:s3cret@host:80/x", "ws://host:80/x"),
        ("http://me:s3/cret@host", "http://host"),
        ("http://me:s3#c?ret@host/", "http://host/"),
        ("https://s3cret@host", "https://host"),
        ("at ws://me:s3cret@a and ws://b", "at ws://a and ws://b"),
        ("https://host:80/a@b", "https://host:80/a@b"),
        ("https://host/a@b", "https://host/a@b"),
        ("ws://[::1]:80/@", "ws://[::1]:80/@"),
        ("me@host", "me@host"),
    ],
)
def test_names_and_passwords_in_urls_are_left_out(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert str(InputError(reason=text)) == shown


@given(st.from_regex(r"[^\s/?#@:]{1,9}:(?!\d)[^\s@]{1,9}", fullmatch=True))
def test_no_part_of_a_password_is_left(credentials: str) -> None:
    assert without_credentials(f"ws://{credentials}@flyx.example.org/") == "ws://flyx.example.org/"
