"""Completion by shells: what is installed for which, and what a shell is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flyx.cli.app import app
from flyx.cli.commands import Commands
from flyx.cli.completion import Shell, script


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of somebody who has never changed a thing."""
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "it's home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    return path


def run(*arguments: str, status: int = 0) -> None:
    with pytest.raises(SystemExit) as caught:
        app(list(arguments))
    assert (caught.value.code or 0) == status


PLACES = {
    Shell.BASH: (".local/share/flyx/completion.bash", ".bashrc"),
    Shell.ZSH: (".local/share/flyx/completion.zsh", ".zshrc"),
    Shell.FISH: (".config/fish/completions/flyx.fish", None),
}


@pytest.mark.parametrize("shell", PLACES)
def test_the_shell_that_is_named_is_taught_and_no_other(
    shell: Shell, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run("--install-completion", shell)
    file, profile = PLACES[shell]
    out, err = capfd.readouterr()
    assert out == f"{home / file}\n"
    assert shell in err
    made = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert made == {name for name in (file, profile) if name is not None}
    assert (home / file).read_text() == f"{script(shell)}\n"


@pytest.mark.parametrize("shell", [Shell.BASH, Shell.ZSH])
@pytest.mark.parametrize("before", [b"", b"alias l=ls\n", b"alias l=ls", b"# caf\xe9\n"])
def test_to_what_a_person_has_written_one_line_is_added_once(shell: Shell, before: bytes, home: Path) -> None:
    profile = home / str(PLACES[shell][1])
    profile.write_bytes(before)
    run("--install-completion", shell)
    once = profile.read_bytes()
    run("--install-completion", shell)
    assert profile.read_bytes() == once
    kept = before if not before or before.endswith(b"\n") else before + b"\n"
    assert once.startswith(kept)
    (line,) = once.removeprefix(kept).splitlines()
    assert line.endswith(b"; fi")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_line_that_is_added_runs_the_script_and_does_nothing_without_it(home: Path) -> None:
    run("--install-completion", "bash")
    command = ["bash", "--norc", "-c", ". ~/.bashrc; complete -p flyx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "_flyx_completion flyx" in done.stdout
    (home / PLACES[Shell.BASH][0]).unlink()
    done = subprocess.run([*command[:3], ". ~/.bashrc"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_directories_of_the_environment_are_used(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, name in {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config", "ZDOTDIR": "zsh"}.items():
        monkeypatch.setenv(variable, str(tmp_path / name))
    run("--install-completion", "zsh")
    run("--install-completion", "fish")
    assert str(tmp_path / "data/flyx/completion.zsh") in (tmp_path / "zsh/.zshrc").read_text()
    assert (tmp_path / "config/fish/completions/flyx.fish").exists()
    assert list(home.iterdir()) == []


def test_powershell_is_asked_for_its_profile(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a program in its place that answers as it does."""
    profile = home / "Documents" / "profile.ps1"
    program = tmp_path / "bin" / "pwsh"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$*" = "-NoProfile -Command \\$PROFILE" ] && echo "$HOME/Documents/profile.ps1"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    run("--install-completion", "powershell")
    file = home / ".local/share/flyx/completion.ps1"
    quoted = "'" + str(file).replace("'", "''") + "'"
    assert profile.read_text() == f"if (Test-Path {quoted}) {{ . {quoted} }}\n"
    assert "Register-ArgumentCompleter" in file.read_text()


def test_without_powershell_it_says_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    run("--install-completion", "powershell", status=2)
    assert "hint: add what `flyx --show-completion powershell` prints" in capfd.readouterr().err
    assert list(home.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (home / ".bashrc").mkdir()
    run("--install-completion", "bash", status=1)
    assert "error: Cannot write to " in capfd.readouterr().err


@pytest.mark.parametrize("shell", Shell)
def test_the_script_of_the_shell_that_is_named_is_printed(
    shell: Shell, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run("--show-completion", shell)
    assert capfd.readouterr() == (f"{script(shell)}\n", "")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_a_shell_that_there_is_no_script_for_is_refused(
    option: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(option, "tcsh", status=2)
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish', 'powershell'" in capfd.readouterr().err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_no_command_has_typer_s_own_which_writes_profiles_anew(
    option: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in Commands():
        run(command, option, status=2)
        assert "there is no option" in capfd.readouterr().err, command
    assert list(home.iterdir()) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_without_a_name_it_is_the_shell_that_runs() -> None:
    # Two commands, or bash would become the program and be no shell any more.
    command = f"{sys.executable} -m flyx --show-completion; true"
    environment = {**os.environ, "SHELL": "/bin/zsh"}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{script(Shell.BASH)}\n", done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("flyx rec", {"receive"}),
        ("flyx receive --overw", {"--overwrite"}),
        ("flyx send --congestion ", {"bbr", "cubic"}),
        ("flyx config show se", {"send", "serve"}),
        ("flyx --install-completion z", {"zsh"}),
        ("flyx send RE", set()),
    ],
)
def test_a_shell_is_told_what_could_come_next(words: str, expected: set[str], tmp_path: Path) -> None:
    assert asked(words, tmp_path) == expected


@pytest.mark.parametrize(
    "words", ["flyx --version ", "flyx --install-completion bash ", "flyx --show-completion bash "]
)
def test_to_complete_does_nothing_else(words: str, tmp_path: Path, home: Path) -> None:
    assert "send" in asked(words, tmp_path)
    assert list(home.iterdir()) == []


def test_a_configuration_with_mistakes_does_not_stop_completion(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[sned]\n")
    assert asked("flyx receive --overw", tmp_path) == {"--overwrite"}


def asked(words: str, tmp_path: Path) -> set[str]:
    """What flyx answers when bash asks, with the cursor at the end."""
    (tmp_path / "config.toml").touch()
    environment = {
        **os.environ,
        "FLYX_CONFIG": str(tmp_path / "config.toml"),
        "_FLYX_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    # As the installed program is called; `python -m flyx` has another name.
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['flyx']; from flyx.__main__ import main; main()",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())
