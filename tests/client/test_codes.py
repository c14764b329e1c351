"""Codes as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.client.codes import (
    Invitation,
    browser_link,
    format_code,
    parse_code,
    parse_invitation,
    receive_command,
)
from flyx.client.websocket import websocket_url
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
    assert parse_invitation(text) == Invitation(None, "K7M2QX", ("lemon", "otter"))


# What the server is, as it was pasted along with the code.
WITH_SERVER = {
    "a URL": "https://flyx.example.org/#K7M2QX-lemon-otter",
    "a URL with a path": "https://flyx.example.org/flyx/#K7M2QX-lemon-otter",
    "a URL with the room in its path": "https://flyx.example.org/K7M2QX#lemon-otter",
    "a URL with the room in its path below another": "https://flyx.example.org/flyx/K7M2QX#Lemon%20otter",
    "a URL with a port": "ws://flyx.example.org:8000#K7M2QX-lemon-otter",
    "a URL in capitals": "HTTPS://flyx.example.org/#k7m2qx-LEMON-Otter",
    "a URL as a chat writes it": "<https://flyx.example.org/#K7M2QX%2Dlemon%2Dotter>.",
    "a URL in a sentence": "Open \u201cwss://flyx.example.org/#K7M2QX-lemon-otter\u201d",
    "a URL with blanks in its code": "https://flyx.example.org/#K7M2QX lemon otter",
    "the command": "flyx receive --server wss://flyx.example.org K7M2QX-lemon-otter\n",
    "the command, otherwise round": "$ flyx receive K7M2QX-lemon-otter --server=wss://flyx.example.org",
    "the command as a chat writes it": (
        "flyx receive \u2014server \u2018https://flyx.example.org\u2019 K7M2QX\u2013lemon\u2013otter"
    ),
    "the command and what is above it": (
        "Sending a (1 file, 1 kB)\nOn the other computer, run:\n"
        "flyx recv --server wss://flyx.example.org K7M2QX-lemon-otter"
    ),
    "the command and a variable": "$ FLYX_SERVER='wss://flyx.example.org' flyx receive K7M2QX-lemon-otter",
    "the command after a variable": (
        "export FLYX_SERVER=wss://flyx.example.org; flyx receive K7M2QX-lemon-otter"
    ),
    "the command and what runs it": (
        "> py -m flyx receive --server wss://flyx.example.org K7M2QX-lemon-otter"
    ),
    "the command of a path": r"C:\bin\flyx.exe receive --server wss://flyx.example.org K7M2QX-lemon-otter",
    "the command with a URL": ".venv/bin/flyx rx https://flyx.example.org/#K7M2QX-lemon-otter",
    "the command and invisible marks": (
        "flyx receive --server wss://fl\u200byx.example.org \ufeffK7M2QX-lemon-otter"
    ),
}


@pytest.mark.parametrize("text", WITH_SERVER.values(), ids=WITH_SERVER)
def test_a_server_that_was_pasted_with_the_code_is_understood(text: str) -> None:
    found = parse_invitation(text)
    assert (found.room_id, found.words) == ("K7M2QX", ("lemon", "otter"))
    url = websocket_url(found.server or "")
    assert url.split("://")[1].split("/")[0].split(":")[0] == "flyx.example.org"
    assert "otter" not in url.lower()
    assert "#" not in url


servers = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["ws", "wss", "http", "https"]),
    st.sampled_from(
        ["flyx.example.org", "192.0.2.7", "[2001:db8::7]", "[fe80::1%eth0]", "b\u00fccher.example"]
    ),
    st.sampled_from(["", ":8000", ":1"]),
    st.sampled_from(["", "/", "/flyx", "/a/b/"]),
)


@given(servers, room_ids, st.lists(st.sampled_from(WORDS), max_size=8))
def test_the_command_and_the_url_that_are_passed_on_say_all(
    server: str, room_id: str, words: list[str]
) -> None:
    code = format_code(room_id, password_of(words))
    expected = Invitation(server, room_id, tuple(words))
    assert parse_invitation(receive_command(code, server)) == expected
    assert parse_invitation(f"{server}#{code}") == expected
    assert parse_invitation(receive_command(code, None)) == Invitation(None, room_id, tuple(words))


@given(st.text() | st.from_regex(r"(flyx receive )?(--server )?(https://)?[^#]*#?.*"))
def test_any_text_is_an_invitation_or_an_input_error(text: str) -> None:
    try:
        found = parse_invitation(text)
    except InputError:
        return
    assert found.server != ""
    assert "#" not in (found.server or "")


@pytest.mark.parametrize(
    "text",
    [
        "flyx receive --yes K7M2QX-lemon-otter",
        "flyx receive --server ws://a -y K7M2QX-lemon-otter",
        "flyx receive -o /etc K7M2QX-lemon-otter",
        "flyx receive \u2014overwrite K7M2QX-lemon-otter",
    ],
)
def test_options_of_a_pasted_command_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="only --server"):
        parse_invitation(text)


def test_a_url_without_a_code_is_said_to_be_that() -> None:
    with pytest.raises(InputError, match="no code in this URL"):
        parse_invitation("https://flyx.example.org/")


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no code"),
        (" - ", "there is no code"),
        ("lemon-otter", "the 6 letters and digits before the words are missing"),
        ("Lemon otter", "the 6 letters and digits before the words are missing"),
        ("K7M2Q-lemon-otter", "has 5 characters instead of 6"),
        ("K7M-2QXX-lemon", "has 7 characters instead of 6"),
        ("K7M2", "has 4 characters instead of 6"),
        ("K", "has 1 character instead of 6"),
    ],
)
def test_what_is_wrong_with_a_code_is_said(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_code(text)


def test_a_room_in_the_path_of_a_url_is_no_part_of_the_server() -> None:
    for url, server, words in (
        ("https://flyx.example.org/K7M2QX#lemon-otter", "https://flyx.example.org/", ("lemon", "otter")),
        ("https://flyx.example.org/a/K7M2QX", "https://flyx.example.org/a/", ()),
        # A room is written in capitals there: this is a name like any other.
        ("https://flyx.example.org/secret#K7M2QX-lemon", "https://flyx.example.org/secret", ("lemon",)),
    ):
        assert parse_invitation(url) == Invitation(server, "K7M2QX", words)


@pytest.mark.parametrize(
    ("server", "link"),
    [
        ("wss://flyx.example.org", "https://flyx.example.org/K7M2QX#lemon-otter"),
        ("https://flyx.example.org:8443/", "https://flyx.example.org:8443/K7M2QX#lemon-otter"),
        ("WSS://[2001:db8::1]/flyx", "https://[2001:db8::1]/flyx/K7M2QX#lemon-otter"),
        # Without TLS a page of another computer may not encrypt.
        ("ws://flyx.example.org", None),
        ("http://192.0.2.7:8000", None),
    ],
)
def test_a_link_is_for_servers_at_which_a_browser_can_do_something(server: str, link: str | None) -> None:
    assert browser_link("K7M2QX", "lemon-otter", server) == link


@pytest.mark.parametrize("words", [(), ("lemon", "otter"), ("grösse", "100")])
def test_a_link_is_read_back_as_its_code(words: tuple[str, ...]) -> None:
    link = browser_link("K7M2QX", "-".join(words), "wss://flyx.example.org")
    assert link
    assert link.isascii()
    told = parse_invitation(link)
    assert (told.server, told.room_id) == ("https://flyx.example.org/", "K7M2QX")
    assert password_of(told.words) == password_of(words)
