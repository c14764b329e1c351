"""The documents that come with flyx, by topics: each of them, and the chapters in it."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from pathlib import Path

from msgspec import Struct

import flyx
from flyx.errors import InputError

DOCUMENTS = Path(flyx.__file__).parent / "docs"

EVENTS_SCHEMA = DOCUMENTS / "events.schema.json"
"""What the events of --json are, as a JSON Schema."""

_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_INNER_LINK = re.compile(r"\[([^]]+)\]\((?!https?:)[^)]+\)")
"""Links to other places of the documents lead nowhere from a terminal."""


class Topic(Struct, frozen=True):
    """Something to read about.

    Attributes:
        name: what it is asked for by.
        title: its heading, as text.
        level: how deep it is in its document: 1 is all of that.
        text: all of it, with what is below.
        is_markdown: whether that is Markdown; else it is shown as it is.
    """

    name: str
    title: str
    level: int
    text: str
    is_markdown: bool = True


def topics() -> dict[str, Topic]:
    """Return what there is to read about, by name: the documents, and then the chapters in them."""
    papers = [
        _topics_in(path.read_text(encoding="utf-8"), path.stem) for path in sorted(DOCUMENTS.glob("*.md"))
    ]
    schema = EVENTS_SCHEMA.read_text(encoding="utf-8").strip()
    found = [paper[0] for paper in papers]
    found.append(Topic("events-schema", json.loads(schema)["title"], 1, schema, is_markdown=False))
    # One that begins with a number is a release.
    found += [each for paper in papers for each in paper[1:] if not each.name[:1].isdecimal()]
    by_name: dict[str, Topic] = {}
    for topic in found:
        by_name.setdefault(topic.name, topic)
    return by_name


def find_topic(asked: str) -> Topic:
    """Return the topic of this name, or the only one with this in its name.

    Raises:
        InputError: there is none, or there are several.
    """
    name, there = _name_of(asked), topics()
    if name in there:
        return there[name]
    fitting = [each for each in there if name and re.search(rf"\b{re.escape(name)}", each)]
    if len(fitting) == 1:
        return there[fitting[0]]
    nearest = fitting or get_close_matches(name, there, 3)
    hint = f"there is {', '.join(nearest)}" if nearest else "`flyx help` lists the topics"
    reason = f"{asked} could be several topics" if fitting else f"there is nothing about {asked}"
    raise InputError(reason=reason, hint=hint)


def _topics_in(document: str, name: str) -> list[Topic]:
    """Return the document, by this name, and then its chapters."""
    # A comment of a shell's code is no heading.
    plain = _BLOCK.sub(lambda block: "." * len(block[0]), document)
    headings = [(len(each[1]), each[2], each.start()) for each in _HEADING.finditer(plain)]
    found = []
    for n, (level, heading, start) in enumerate(headings):
        end = next((at for deep, _, at in headings[n + 1 :] if deep <= level), len(document))
        title = heading.replace("`", "")
        markdown = _INNER_LINK.sub(r"\1", document[start:end].strip())
        found.append(Topic(name if level == 1 else _name_of(title), title, level, markdown))
    return found


def _name_of(title: str) -> str:
    """Return `codes-and-trust` for "Codes and trust"; of a command's usage, its name."""
    words = re.findall(r"\w+", title.casefold())
    if len(words) > 1 and words[0] == "flyx":
        words = words[1:2]
    return "-".join(words)
