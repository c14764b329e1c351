"""`flyx help`: the documents by topics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyx.cli.app import app
from flyx.cli.documents import DOCUMENTS, EVENTS_SCHEMA, find_topic, topics
from flyx.errors import InputError
from tests.cli.pseudo_terminal import flyx_on_terminal

TOPICS = topics()


def shown(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        app(["help", *arguments])
    assert not caught.value.code
    out, err = capfd.readouterr()
    assert not err
    return out


def test_without_a_topic_all_documents_and_commands_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    listed = [line.split()[0] for line in shown(capfd).splitlines()]
    assert set(listed) == {path.stem for path in DOCUMENTS.glob("*.md")} | {"events-schema"} | set(
        "send receive serve demo bench doctor config help".split()
    )


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_shown_as_text_where_there_is_no_terminal(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = shown(capfd, name)
    assert TOPICS[name].title in text
    assert "\x1b" not in text
    assert "](" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_topic_ends_where_the_next_one_of_its_kind_begins() -> None:
    commands, send = TOPICS["commands"], TOPICS["send"]
    assert commands.text.startswith("# Commands\n")
    assert send.text in commands.text
    assert TOPICS["on-the-local-network"].text in send.text
    assert "## `flyx receive" not in send.text
    assert "\n# " not in commands.text


@pytest.mark.parametrize("asked", ["events-schema", "schema"])
def test_the_schema_of_the_events_is_printed_as_it_is(asked: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert shown(capfd, asked) == EVENTS_SCHEMA.read_text()


def test_a_comment_in_code_is_no_heading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# Paper\n\n## One\n\n```sh\n# not a heading\nls\n```\n\nend\n\n## Two\n"
    (tmp_path / "paper.md").write_text(text)
    monkeypatch.setattr("flyx.cli.documents.DOCUMENTS", tmp_path)
    assert topics()["one"].text.endswith("end")
    assert "not-a-heading" not in topics()


@pytest.mark.parametrize(
    ("asked", "found"),
    [("resume", "resume"), ("Resume", "resume"), ("exit", "exit-codes"), ("codes", "codes")],
)
def test_a_part_of_a_name_is_enough(asked: str, found: str) -> None:
    assert find_topic(asked).name == found


@pytest.mark.parametrize(
    ("asked", "reason", "hint"),
    [
        ("the", "the could be several topics", "there is when-the-network-is-gone, the-way-to-the-server, "),
        ("recieve", "there is nothing about recieve", "there is receive"),
        ("qqq", "there is nothing about qqq", "`flyx help` lists the topics"),
        ("", "there is nothing about ", "`flyx help` lists the topics"),
    ],
)
def test_what_there_is_instead_is_named(asked: str, reason: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        find_topic(asked)
    assert str(caught.value) == reason
    assert str(caught.value.hint).startswith(hint)


@pytest.mark.parametrize(
    ("pager", "expected"),
    [
        ("sed s/^/PAGED/", "PAGEDWhatever ends a transfer early"),
        ("/nowhere/pager", "warning: cannot start the pager /nowhere/pager"),
    ],
)
def test_on_a_terminal_the_pager_shows_it(pager: str, expected: str) -> None:
    status, text = flyx_on_terminal("help", "resume", answers={}, PAGER=pager, FLYX_CONFIG=os.devnull)
    assert status == 0
    assert expected in text
    assert "Whatever ends a transfer early" in text
