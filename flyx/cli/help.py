"""`flyx help`: the documents, offline."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flyx.cli.output import make_console, report_line, write_data
from flyx.cli.terminal import run_program

if TYPE_CHECKING:
    from flyx.cli.documents import Topic

_PAGERS = ("less", "more")
"""What is tried, in this order, if PAGER names none."""

_LESS = "FRX"
"""Of less: go on by itself after one screen, show colours, leave the text on the screen."""


def _topic_names() -> list[str]:
    from flyx.cli.documents import topics

    return list(topics())


def help_(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="What to read about, by its name or a part of it; if left out, topics are listed",
            show_default=False,
            autocompletion=_topic_names,
        ),
    ] = None,
) -> None:
    """Read about a command or a topic, also without a network

    On a terminal by the screen, in the pager of PAGER.

    Example: flyx help resume
    """
    from flyx.cli.documents import find_topic, topics

    if topic is None:
        # A chapter of another document is found by its name, and listed at its beginning.
        there = [each for each in topics().values() if each.level == 1 or each.title.startswith("flyx ")]
        width = max(len(each.name) for each in there)
        for each in there:
            write_data(f"{each.name:<{width}}  {each.title}")
        return
    _show(find_topic(topic))


def _show(topic: Topic) -> None:
    """Show a topic by the screen where there is one, and as text anywhere else."""
    from rich.markdown import Markdown

    console = make_console(stderr=False)

    def render() -> None:
        if topic.is_markdown:
            console.print(Markdown(topic.text, hyperlinks=False))
        else:
            # A program may read it: its lines are never broken.
            console.print(topic.text, soft_wrap=True)

    with console.capture() as captured:
        render()
    if not sys.stdout.isatty():
        write_data("\n".join(line.rstrip() for line in captured.get().splitlines()))
        return
    pager = os.environ.get("PAGER") or next((each for each in _PAGERS if shutil.which(each)), "")
    try:
        if command := shlex.split(pager):
            run_program(command, captured.get().encode(), {"LESS": _LESS, **os.environ})
            return
    except (OSError, ValueError):
        report_line(f"warning: cannot start the pager {pager}")
    render()
