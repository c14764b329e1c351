"""Completion by the shell: `flyx --install-completion SHELL` and `flyx --show-completion SHELL`.

The scripts are Typer's, which knows how each shell asks. They are installed by us: Typer takes whichever
shell runs, writes the person's own files anew, and lets PowerShell run any script.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path

from flyx.errors import InputError, StorageError

VARIABLE = "_FLYX_COMPLETE"
"""Set by the scripts when they ask."""


class Shell(StrEnum):
    """The shells that there are scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


_ZSH_FIRST = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
"""What zsh needs before the script, if nothing else of its has been there."""


def running_shell() -> Shell:
    """Return the shell that flyx was called from.

    Raises:
        InputError: it is none of those that there are scripts for, or is not known.
    """
    import shellingham  # type: ignore[import-untyped]  # it has no types

    hint = f"name one: {', '.join(Shell)}"
    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        raise InputError(reason="it is not known which shell this is", hint=hint) from None
    name = "powershell" if name == "pwsh" else name
    if name not in list(Shell):
        raise InputError(reason=f"there is no completion for {name}", hint=hint)
    return Shell(name)


def register() -> None:
    """Make the shells known to Typer, which does so by itself only with options of its own."""
    from typer.completion import completion_init  # type: ignore[attr-defined]  # used there

    completion_init()


def script(shell: Shell) -> str:
    """Return what makes a shell complete, to be run when it starts."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # used there

    text = get_completion_script(prog_name="flyx", complete_var=VARIABLE, shell=shell.value)
    return f"{_ZSH_FIRST if shell is Shell.ZSH else ''}{text}"


def install(shell: Shell) -> Path:
    """Have a shell complete from its next start on, and return the file with its script.

    Of the person's own files one has a line added, if it is not there.

    Raises:
        InputError: the shell, or the person's directory, cannot be found.
        StorageError: a file cannot be written.
    """
    if shell is Shell.FISH:
        file = _directory("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "flyx.fish"
        _write(file, script(shell), anew=True)
        return file
    ending = "ps1" if shell is Shell.POWERSHELL else shell.value
    file = _directory("XDG_DATA_HOME", ".local/share") / "flyx" / f"completion.{ending}"
    if shell is Shell.POWERSHELL:
        profile, quoted = _profile(), "'{}'".format(str(file).replace("'", "''"))
        line = f"if (Test-Path {quoted}) {{ . {quoted} }}"
    else:
        home = Path(os.environ.get("ZDOTDIR") or _home()) if shell is Shell.ZSH else _home()
        profile, quoted = home / f".{shell}rc", shlex.quote(str(file))
        line = f"if [ -r {quoted} ]; then . {quoted}; fi"
    _write(file, script(shell), anew=True)
    _write(profile, line, anew=False)
    return file


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        hint = "set HOME, or run what `flyx --show-completion SHELL` prints when your shell starts"
        raise InputError(reason="you have no home directory", hint=hint) from None


def _directory(variable: str, usual: str) -> Path:
    return Path(named) if (named := os.environ.get(variable)) else _home() / usual


def _profile() -> Path:
    """Return the file that PowerShell runs when it starts."""
    for program in ("pwsh", "powershell"):
        if found := shutil.which(program):
            command = [found, "-NoProfile", "-Command", "$PROFILE"]
            told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
            if told:
                return Path(told)
    hint = "add what `flyx --show-completion powershell` prints to the file that $PROFILE names"
    raise InputError(reason="no PowerShell was found that tells its profile", hint=hint)


def _write(file: Path, text: str, *, anew: bool) -> None:
    """Write a file, or add a line to it that is not there."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if anew:
            file.write_text(f"{text}\n", encoding="utf-8")
            return
        with file.open("a+b") as added:
            added.seek(0)
            there = added.read()
            if text.encode() not in there.splitlines():
                added.write(b"" if there.endswith(b"\n") or not there else b"\n")
                added.write(f"{text}\n".encode())
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(action="write to", path=str(file), reason=reason) from error
