"""What is generated of the papers is as the commands are, and the manual page is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.papers import (
    COMMANDS,
    COMMANDS_PAPER,
    DOCUMENTS,
    MANUAL,
    PROGRAM,
    README,
    ROOT,
    date_of,
    exit_statuses,
    manual,
    options_of,
    row,
    with_fresh_rows,
)

STALE = "run `python -m tests.papers`"
SEND = options_of(COMMANDS["send"])
SERVE = options_of(COMMANDS["serve"])


def test_the_rows_of_options_say_what_the_commands_do() -> None:
    assert with_fresh_rows(COMMANDS_PAPER.read_text()) == COMMANDS_PAPER.read_text(), STALE


def test_the_manual_page_says_what_the_commands_and_the_documents_do() -> None:
    page = MANUAL.read_text()
    assert manual(COMMANDS_PAPER.read_text(), date_of(page)) == page, STALE


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            SEND["--receivers"],
            "| `-n`, `--receivers N` | `FLYX_RECEIVERS` | End when so many receivers have everything; 0 is "
            "to go on until interrupted; default 1 |",
        ),
        (
            SEND["--congestion"],
            "| `--congestion bbr\\|cubic` | `FLYX_CONGESTION` | Congestion control of what is sent; default "
            "`bbr` |",
        ),
        (
            SEND["--local"],
            "| `--local`, `--no-local` | `FLYX_LOCAL` | Meet on the local network alone, without any server; "
            "or never there |",
        ),
        (
            SERVE["--port"],
            "| `--port PORT` | `FLYX_PORT` | Port to listen on; 0 is any free one; default 8000 |",
        ),
        (
            SERVE["--turn-ttl"],
            "| `--turn-ttl SECONDS` | `FLYX_TURN_TTL` | Time for which TURN credentials are good; 60 to "
            "86,400; default 3,600 |",
        ),
        (
            SERVE["--allow-host"],
            "| `--allow-host NAME` | `FLYX_ALLOW_HOST` | Name under which clients may reach the server, "
            "repeatable; default: any |",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_row_tells_spellings_variable_bounds_and_default(option: object, expected: str) -> None:
    assert row(option) == expected


def test_what_the_document_adds_to_a_row_is_kept() -> None:
    (line,) = [line for line in COMMANDS_PAPER.read_text().splitlines() if line.startswith("| `--no-relay`")]
    assert line == row(SEND["--no-relay"], "Excludes `--relay-only`")
    changed = COMMANDS_PAPER.read_text().replace(
        line, line.replace("Go through no TURN server", "Go nowhere")
    )
    assert changed != COMMANDS_PAPER.read_text()
    assert with_fresh_rows(changed) == COMMANDS_PAPER.read_text()


def test_an_option_without_a_row_gets_one_below_the_option_before_it() -> None:
    paper = COMMANDS_PAPER.read_text()
    assert with_fresh_rows(paper.replace(f"{row(SERVE['--join-rate'])}\n", "")) == paper


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man-db")
def test_man_shows_the_page_without_a_warning() -> None:
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-P", "cat", str(MANUAL)]
    environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "500", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout).replace("\N{HYPHEN}", "-")
    for name, command_ in [("", PROGRAM), *COMMANDS.items()]:
        assert f"flyx {name}" in shown
        for option, parameter in options_of(command_).items():
            assert re.search(rf"(^|[ ,]){option}\b", shown, re.MULTILINE), option
            assert parameter.envvar is None or parameter.envvar in shown
    for status, meaning in exit_statuses():
        assert re.search(rf"^ +{status} +{re.escape(meaning.split()[0])}", shown, re.MULTILINE), status


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc")
def test_mandoc_finds_nothing_to_mend_in_the_page() -> None:
    done = subprocess.run(["mandoc", "-T", "lint", str(MANUAL)], capture_output=True, text=True, check=False)
    # Words that cannot be broken may be longer than a line.
    found = [line for line in done.stdout.splitlines() if "longer than 80 bytes" not in line]
    assert (found, done.stderr) == ([], "")


LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")


def anchors_of(paper: Path) -> set[str]:
    """What GitHub makes of the headings."""
    plain = re.sub(r"^ *```.*?^ *```", "", paper.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "paper",
    [README, *sorted(DOCUMENTS.glob("*.md")), *sorted((ROOT / ".github").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_every_link_of_a_paper_leads_somewhere(paper: Path) -> None:
    for target, anchor in LINK.findall(paper.read_text()):
        there = (paper.parent / target).resolve() if target else paper
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), (target, anchor)


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 200
