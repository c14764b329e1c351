"""The commands, each loaded when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flyx.cli.commands import SUMMARIES, Commands

COMMANDS = Commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(name: str) -> None:
    assert SUMMARIES[name] == (COMMANDS[name].help or "").splitlines()[0]


def test_there_are_no_other_commands() -> None:
    assert "sent" not in COMMANDS
    assert COMMANDS.get("sent") is None


@pytest.mark.parametrize(("arguments", "loaded"), [("--help", ""), ("doctor --help", "flyx.cli.doctor")])
def test_a_command_that_is_not_asked_for_is_not_loaded(arguments: str, loaded: str) -> None:
    code = (
        "import sys\n"
        "from flyx.cli.app import app\n"
        f"sys.argv = ['flyx', *{arguments.split()!r}]\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "modules = {'send', 'receive', 'serve', 'demo', 'doctor', 'help', 'config_commands'}\n"
        "print('Usage', *({f'flyx.cli.{each}' for each in modules} & set(sys.modules)), file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.split() == ["Usage", *loaded.split()]
    assert run.stdout.startswith("Usage")
