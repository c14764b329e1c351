"""Doctor's screen and its NDJSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from flyx.cli.doctor import show, verdict
from flyx.client.doctor.examination import ORDER
from flyx.client.doctor.finding import Finding, FindingState
from tests.hostile_text import HOSTILE
from tests.schema import check_event

OK = Finding("server", FindingState.OK, "flyx 0.1.0 answers in 3 ms", "the two sides can meet there")
WARNING = Finding("turn", FindingState.WARNING, "the server names no relay", "some cannot meet", "add one")


def shown(*findings: Finding, width: int = 100) -> str:
    text = io.StringIO()
    show(findings, ORDER, Console(file=text, width=width, markup=False, highlight=False))
    return text.getvalue()


def test_what_is_well_takes_a_line_and_the_rest_says_what_to_do() -> None:
    lines = [line.rstrip() for line in shown(WARNING, OK).splitlines()]
    assert lines == [
        "ok       server  flyx 0.1.0 answers in 3 ms: the two sides can meet there",
        "warning  relay   the server names no relay",
        "                 some cannot meet",
        "                 do: add one",
        "1 warning",
    ]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["ok"], "All is well."),
        (["ok", "warning"], "1 warning"),
        (["failing", "warning", "warning", "failing"], "2 checks fail, 2 warnings"),
        (["failing"], "1 check fails"),
    ],
)
def test_the_last_line_is_the_sum(states: list[str], words: str) -> None:
    assert verdict(states) == words


@pytest.mark.parametrize("nasty", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_server_says_steers_the_terminal(nasty: str) -> None:
    text = shown(Finding("server", FindingState.WARNING, nasty, nasty, nasty))
    assert all(c == "\n" or c.isprintable() for c in text)


def test_a_run_without_a_server_fails_with_findings_and_without_a_traceback() -> None:
    # Nothing listens at port 9, which is discard's (RFC 863).
    done = subprocess.run(
        [sys.executable, "-m", "flyx", "doctor", "--server", "ws://127.0.0.1:9", "--json"],
        env={**os.environ, "FLYX_CONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        check_event(event)
    assert {event["event"] for event in events[:-1]} == {"finding"}
    found = {event["name"]: event["state"] for event in events[:-1]}
    assert (found["server"], found["websocket"]) == ("failing", "failing")
    last = events[-1]
    assert (last["event"], last["failing"]) == ("examined", 2)
