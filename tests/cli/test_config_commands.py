"""`flyx config`, and what commands say of a configuration that they cannot use."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from flyx.cli.app import app
from flyx.cli.config import CONFIG_VARIABLE, HIDDEN, config_path, options_by_command
from flyx.cli.config_template import template
from flyx.cli.settings import bad_values_of_file
from tests.cli.pseudo_terminal import flyx_on_terminal
from tests.schema import check_event

GROUP: Any = typer.main.get_command(app)
TABLES = [name for name in options_by_command(GROUP.commands) if not GROUP.commands[name].hidden]
OPTIONS = [(name, option) for name in TABLES for option in options_by_command(GROUP.commands)[name]]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "of" / "flyx" / "config.toml"
    for variable in [name for name in os.environ if name.startswith("FLYX_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of"))
    return path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o600)


def run(*arguments: str, status: int = 0) -> None:
    with pytest.raises(SystemExit) as caught:
        app(list(arguments))
    assert (caught.value.code or 0) == status


def test_what_cannot_be_shown_is_an_event_for_who_reads_events(capfd: pytest.CaptureFixture[str]) -> None:
    run("config", "show", "--json", "nothing", status=2)
    told = capfd.readouterr()
    assert json.loads(told.out)["message"] == "nothing is no command that has options to set"
    assert not told.err


def shown(capfd: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[Any, Any]:
    """The settings that --json shows, by command and option."""
    run("config", "show", "--json", *arguments, status=status)
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    for event in events:
        check_event(event)
    return {(e["command"], e["option"]): e for e in events if e["event"] == "setting"}


def test_the_path_is_that_of_the_file(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("config", "path")
    assert capfd.readouterr().out == f"{file}\n"


def test_every_option_of_every_command_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    settings = shown(capfd)
    assert {(name, option) for name, option in settings if name} >= set(OPTIONS)
    assert settings[None, "debug"]["source"] == "default"


def test_what_is_shown_is_told_with_who_has_set_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(file, "[send]\nreceivers = 3\nwait = 5\n[receive]\nreconnect = 7\n")
    monkeypatch.setenv("FLYX_RECEIVERS", "4")
    settings = shown(capfd)

    def told(name: str, option: str) -> tuple[Any, ...]:
        return tuple(settings[name, option][field] for field in ("value", "source", "place"))

    assert told("send", "receivers") == (4, "environment", "FLYX_RECEIVERS")
    assert told("send", "wait") == (5.0, "file", str(file))
    assert told("send", "reconnect") == (7200.0, "default", None)
    assert told("receive", "reconnect") == (7.0, "file", str(file))
    assert told("send", "congestion") == ("bbr", "default", None)


def test_people_see_the_same_of_one_command(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(file, "[send]\nreceivers = 3\n")
    monkeypatch.setenv("FLYX_SERVER", "wss://flyx.example.org")
    run("config", "show", "send")
    out, err = capfd.readouterr()
    assert not err
    head, blank, title, *rows = out.splitlines()
    assert (head, blank, title) == (f"Configuration file: {file}", "", "send")
    columns = {row.split()[0]: row.split(maxsplit=1)[1].rstrip() for row in rows}
    assert columns["server"].split() == ['"wss://flyx.example.org"', "FLYX_SERVER"]
    assert columns["receivers"].split() == ["3", str(file)]
    assert columns["wait"].split() == ["not", "set", "default"]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_a_value_is_shown_as_the_command_has_it(
    name: str, option: str, file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the command itself, with a body that tells what it was called with."""
    command = GROUP.commands[name]
    parameter = options_by_command({name: command})[name][option]
    (line,) = [line for line in uncommented(name) if line.startswith(f"{option} = ")]
    write(file, f"[{name}]\n{line}\n")
    called: dict[str, Any] = {}
    monkeypatch.setattr(command, "callback", lambda **values: called.update(values))
    with pytest.raises(SystemExit):
        GROUP([name, *({"send": ["x"], "receive": ["K7M2QX"]}.get(name, []))])
    if HIDDEN in json.dumps(setting := shown(capfd, name)[name, option]):
        assert called[parameter.name] is not None
    else:
        assert json.loads(json.dumps(called[parameter.name], default=str)) == setting["value"]
    assert setting["source"] == "file"


SECRETS = [
    ("api-token", "FLYX_API_TOKEN", "hunter2", None),
    ("admin-token", "FLYX_ADMIN_TOKEN", "hunter2", None),
    ("metrics-token", "FLYX_METRICS_TOKEN", "hunter2", None),
    ("turn-secret", "FLYX_TURN_SECRET", "hunter2", None),
    ("code", "FLYX_SEND_CODE", "hunter2", None),
    ("CODE", "FLYX_CODE", "K7M2QX-hunter2-x", None),
    ("CODE", "FLYX_DOCTOR_CODE", "K7M2QX-hunter2-x", None),
    ("redis", "FLYX_REDIS", "redis://me:hunter2@example.org/0", "example.org/0"),
    ("redis", "FLYX_REDIS", "redis://example.org/0?password=hunter2", "example.org/0"),
    ("ice-server", "FLYX_ICE_SERVER", "turn:me:hunter2@example.org", "example.org"),
    ("server", "FLYX_SERVER", "https://me:hunter2@example.org", "example.org"),
]


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(("option", "variable", "value", "rest"), SECRETS)
def test_of_a_secret_it_is_shown_that_it_is_set(
    option: str,
    variable: str,
    value: str,
    rest: str | None,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    run("config", "show", *(["--json"] if as_json else []))
    out, err = capfd.readouterr()
    assert "hunter2" not in out + err
    (line, *_) = [line for line in out.splitlines() if variable in line]
    assert option in line
    assert HIDDEN in line
    assert rest is None or rest in line


def test_where_a_secret_is_to_be_found_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLYX_TURN_SECRET", "@/run/secrets/turn")
    assert shown(capfd)["serve", "turn-secret"]["value"] == "@/run/secrets/turn"


def test_a_bad_value_is_told_with_its_place_and_does_not_stop_the_rest(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(file, '[send]\nreceivers = "many"\nwords = 3\n')
    monkeypatch.setenv("FLYX_PORT", "tcp")
    run("config", "show", status=2)
    out, err = capfd.readouterr()
    assert f"`receivers` of [send] in {file}, line" in err
    assert "the variable FLYX_PORT cannot be used" in err
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert '"many" (cannot be used)' in rows["receivers"]
    assert rows["words"].split()[1:] == ["3", str(file)]
    assert '"tcp" (cannot be used)' in rows["port"]


def test_a_home_is_what_the_command_takes_it_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("FLYX_OUTPUT", "~/Downloads")
    assert shown(capfd)["receive", "output"]["value"] == "/home/me/Downloads"


def test_an_empty_token_is_what_the_command_takes_it_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLYX_ADMIN_TOKEN", "")
    run("config", "show", status=2)
    assert "error: the variable FLYX_ADMIN_TOKEN is empty" in capfd.readouterr().err


def test_without_a_home_there_is_no_file_and_all_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nowhere(name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_config_path", nowhere)
    run("config", "show", "demo")
    out, err = capfd.readouterr()
    assert not err
    assert out.startswith("Configuration file: none without a home")
    assert '"100MB"' in out
    for command in ("path", "edit"):
        run("config", command, status=2)
        assert "error: this user has no home, and so no configuration file" in capfd.readouterr().err


MISTAKES = [
    ("[send]\nrecievers = 4\n", "sets recievers, which is no option of send", "write receivers"),
    ("[send]\nas_json = true\n", "sets as_json, which is no option of send", "write json"),
    ("[sned]\nwait = 4\n", "has a table for sned, which is no command", "write [send]"),
    ("[config]\njson = true\n", "has a table for config, which has no options to set", "there are [send]"),
    ("[send]\nxyz = 4\n", "sets xyz, which is no option of send", "the options of send are api-token"),
    ("[send]\nice-server = 'stun:x'\n", "sets ice-server of send to one value, where a list should be", ""),
    ("[send]\nserver = ['ws://x']\n", "sets server of send to a list, where one value should be", ""),
    ("[send]\nserver = {x = 1}\n", "sets server of send to what is neither text nor a number", ""),
    ("[send]\nreceivers = true\n", "sets receivers of send to true or false, where a value should be", ""),
    ("[send]\nreceivers = 'x'\n", "line 2, cannot be used: x is no whole number", ""),
    ("[send]\ncongestion = 'x'\n", "line 2, cannot be used: 'x' is not one of 'bbr'", ""),
]


@pytest.mark.parametrize(("text", "reason", "hint"), MISTAKES)
def test_a_mistake_in_the_file_ends_a_command_and_is_shown(
    text: str, reason: str, hint: str, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(file, text)
    for arguments in (["send", "/nowhere"], ["config", "show"]):
        run(*arguments, status=2)
        err = capfd.readouterr().err
        assert f"{file}" in err
        assert reason in err
        assert err.startswith("error: ")
        assert f"hint: {hint}" in err or not hint


def test_a_file_that_is_no_toml_does_not_stop_what_shows_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(file, "[send\n")
    monkeypatch.setenv("FLYX_RECEIVERS", "4")
    assert shown(capfd, status=2)["send", "receivers"]["value"] == 4


def test_a_command_without_options_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    run("config", "show", "sned", status=2)
    assert "error: sned is no command that has options to set" in capfd.readouterr().err


def test_what_is_set_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLYX_OUTPUT", "a\x1b[2Jb\udc80\u202e")
    run("config", "show", "receive")
    out = capfd.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


# The template, and the editor.


def uncommented(name: str) -> list[str]:
    """The lines of a command in the template, each with its option set."""
    table = template(GROUP.commands).split(f"[{name}]\n")[1].split("\n\n")[0]
    return [line[1:] for line in table.splitlines() if not line.startswith("# ")]


def test_the_template_sets_nothing_and_has_every_option() -> None:
    assert tomllib.loads(template(GROUP.commands)) == {name: {} for name in TABLES}
    for name in TABLES:
        lines = uncommented(name)
        assert [line.split(" = ")[0] for line in lines] == list(options_by_command(GROUP.commands)[name])


@pytest.mark.parametrize("name", TABLES)
def test_every_line_of_the_template_could_be_set(name: str) -> None:
    values = tomllib.loads("\n".join(uncommented(name)))
    options = options_by_command(GROUP.commands)[name]
    by_parameter = {options[option].name: value for option, value in values.items()}
    with GROUP.context_class(GROUP, info_name="flyx") as root:
        assert list(bad_values_of_file(root, name, GROUP.commands[name], by_parameter)) == []


def test_a_number_in_the_template_is_the_default() -> None:
    assert "receivers = 1" in uncommented("send")
    assert "words = 2" in uncommented("send")
    assert "reconnect = 7200" in uncommented("send")
    assert "port = 8000" in uncommented("serve")


def editing(monkeypatch: pytest.MonkeyPatch, body: str, variable: str = "VISUAL") -> None:
    """Choose an editor: a program that does this with `path`."""
    program = f"import sys, pathlib; path = pathlib.Path(sys.argv[-1]); {body}"
    monkeypatch.setenv(variable, shlex.join([sys.executable, "-c", program]))


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    editing(monkeypatch, "print(path)")
    run("config", "edit")
    out, err = capfd.readouterr()
    assert out == f"{file}\n"
    assert err.startswith("No mistake found")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == template(GROUP.commands)


def test_a_file_that_is_there_is_edited_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, "[send]\nwait = 5\n")
    editing(monkeypatch, "path.write_text(path.read_text() + 'receivers = 3\\n')", "EDITOR")
    run("config", "edit")
    assert file.read_text() == "[send]\nwait = 5\nreceivers = 3\n"


def test_mistakes_are_named_after_editing_also_where_the_environment_says_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    editing(monkeypatch, "path.write_text('[send]\\nreceivers = -1\\n[sned]\\n')")
    monkeypatch.setenv("FLYX_RECEIVERS", "4")
    run("config", "edit", status=2)
    err = capfd.readouterr().err
    assert f"error: `receivers` of [send] in {file}, line" in err
    assert f"error: the configuration file {file} has a table for sned" in err


@pytest.mark.parametrize(("answer", "status", "edited"), [("\n", 0, 2), ("y\n", 0, 2), ("n\n", 2, 1)])
def test_on_a_terminal_a_mistake_can_be_mended_at_once(
    answer: str, status: int, edited: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It makes a mistake at first, and mends it the next time.
    text = "('wait = 1' if 'lots' in path.read_text() else 'wait = \\'lots\\'')"
    editing(monkeypatch, f"print('EDITED'); path.write_text('[send]\\n' + {text})")
    ended, text = flyx_on_terminal("config", "edit", answers={"Edit it again? [Y/n] ": answer})
    assert ended == status
    assert text.count("EDITED") == edited
    assert text.count(f"error: `wait` of [send] in {file}, line") == 1


def test_visual_wins_over_editor(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editing(monkeypatch, "path.write_text('[send]\\nwait = 1\\n')", "VISUAL")
    editing(monkeypatch, "path.write_text('[send]\\nwait = 2\\n')", "EDITOR")
    run("config", "edit")
    assert "wait = 1" in file.read_text()


@pytest.mark.parametrize(
    ("editor", "message"),
    [
        ("/nowhere/editor", "cannot start the editor /nowhere/editor: No such file or directory"),
        ("false", "the editor false ended with status 1"),
        ("'", "VISUAL in the environment is no command: '"),
    ],
)
def test_an_editor_that_fails_is_named(
    editor: str, message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUAL", editor)
    run("config", "edit", status=2)
    assert f"error: {message}" in capfd.readouterr().err


def test_without_an_editor_it_says_what_to_do(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    run("config", "edit", status=2)
    err = capfd.readouterr().err
    assert err == f"error: no editor was found\nhint: name yours in EDITOR, or edit {file} otherwise\n"


def test_a_place_where_no_file_can_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "file" / "config.toml"))
    editing(monkeypatch, "pass")
    run("config", "edit", status=2)
    assert f"error: cannot make the configuration file {config_path()}: " in capfd.readouterr().err
