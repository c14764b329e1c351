"""The documents, --help and the code say the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from flyx import errors
from flyx.signaling.messages import CLOSE_CODES
from tests import papers
from tests.papers import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS_TEXT = papers.COMMANDS_PAPER.read_text()
PROTOCOL_TEXT = (papers.DOCUMENTS / "protocol.md").read_text()
EXIT_CODES_TEXT = papers.EXIT_CODES_PAPER.read_text()


def options_of(command: str) -> list[tuple[str, str | None, str | None]]:
    """Name, environment variable and help of each option of a command."""
    return [
        (name, option.envvar, option.help) for name, option in papers.options_of(COMMANDS[command]).items()
    ]


ALL_OPTIONS = [(command, *option) for command in COMMANDS for option in options_of(command)]


def test_every_command_is_documented_and_has_help() -> None:
    for name, command in COMMANDS.items():
        assert f"`flyx {name}" in COMMANDS_TEXT
        assert command.help.splitlines()[0].strip()
        assert not command.help.splitlines()[0].endswith(".")
        assert "Example: flyx" in command.help


@pytest.mark.parametrize("option", ALL_OPTIONS, ids=lambda option: f"{option[0]} {option[1]}")
def test_every_option_is_documented_with_its_variable_and_has_help(
    option: tuple[str, str, str | None, str | None],
) -> None:
    _, name, variable, text = option
    assert name in COMMANDS_TEXT
    assert variable is not None
    assert variable.startswith("FLYX_")
    assert f"`{variable}`" in COMMANDS_TEXT
    assert text
    assert not text.endswith(".")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_values_of_options_as_its_document_does(command: str) -> None:
    section = papers.section_of(COMMANDS_TEXT, command)
    rows = re.findall(r"^\| (?:`-\w`, )?`(--[\w-]+) ([^`]+)`", section, re.MULTILINE)
    own = {max(each.opts, key=len): each for each in COMMANDS[command].params}
    for name, value in rows:
        # Of a choice the help has the few that there are.
        if not own[name].type_descriptor.choices:
            assert own[name].metavar == value.replace("\\|", "|"), name


def test_every_exit_status_is_documented() -> None:
    raised = {
        kind.exit_status
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_status")
    }
    for status in raised | {errors.EXIT_DONE, errors.EXIT_CTRL_C}:
        assert re.search(rf"^\| {status} \|", EXIT_CODES_TEXT, re.MULTILINE), status


def test_a_document_tells_how_a_second_signal_ends_a_process() -> None:
    row = next(line for line in EXIT_CODES_TEXT.splitlines() if line.startswith(f"| {errors.EXIT_CTRL_C} |"))
    # As shells count what a process died of; tests/cli/test_runtime.py sees it die of it.
    for number in (signal.SIGINT, signal.SIGTERM):
        assert str(128 + number) in row.partition("second")[2]


def test_a_document_names_the_failure_of_a_computer_that_has_too_little() -> None:
    row = next(
        line
        for line in EXIT_CODES_TEXT.splitlines()
        if line.startswith(f"| {errors.SystemFailure.exit_status} |")
    )
    assert f"`{errors.SystemFailure.code}`" in row


def test_every_close_code_is_documented() -> None:
    for row in CLOSE_CODES.values():
        line = (
            f"| {int(row.code)} | {row.code.name.lower()} | {'yes' if row.retry else 'no'} | {row.meaning} |"
        )
        assert line in PROTOCOL_TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_one_place_in_the_section_of_its_command(command: str) -> None:
    section = papers.section_of(COMMANDS_TEXT, command)
    rows = Counter(re.findall(r"^\| (?:`-\w`, )?`(--[\w-]+)", section, re.MULTILINE))
    names = {name for name, *_ in options_of(command)}
    assert set(rows) <= names
    for name in names:
        # Outside of tables: those that another command has as well, and the only one of `flyx demo`.
        assert rows[name] == 1 or (rows[name] == 0 and f"`{name}`" in section), name


@pytest.mark.parametrize(
    ("paper", "least"), [("flyx/docs/development.md", 50), ("flyx/docs/security.md", 20)]
)
def test_every_test_that_a_paper_names_is_there(paper: str, least: int) -> None:
    named = re.findall(r"`((?:tests|e2e)/[\w/]+\.py)(?:::(\w+))?`", (ROOT / paper).read_text())
    assert len(named) > least
    for file, name in named:
        definition = rf"^\s*(async def|def) {name}\(|^{name} = " if name else ""
        assert re.search(definition, (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_ci_runs_the_command_of_the_readme() -> None:
    command = next(line for line in README.splitlines() if "pytest tests e2e" in line)
    assert "pip install" in command
    assert "grep -m 1 'pytest tests e2e' README.md" in (ROOT / ".ci/run").read_text()


def test_the_top_level_is_what_it_should_be() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout")
    tops = {line.split("/")[0] for line in listed.splitlines()}
    assert {top for top in tops if not top.startswith(".")} == {
        *("pyproject.toml", "README.md", "LICENSE", "flyx", "tests", "e2e", "findings")
    }


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from flyx.cli.app import app\n"
        f"sys.argv = ['flyx', *{command.split()!r}, '--help']\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'aiortc', 'fastapi', 'uvicorn', 'websockets', 'cryptography', 'zeroconf'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    environment = {**os.environ, "FLYX_CONFIG": os.devnull}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "Usage" in run.stdout
