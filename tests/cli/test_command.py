"""Options that stand elsewhere than on the command line: what they mean, and how a bad one is told."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flyx
from flyx.cli.app import app
from flyx.cli.config import CONFIG_VARIABLE
from flyx.cli.environment import tidy
from flyx.cli.settings import line_of
from flyx.net import tls
from flyx.sctp import association


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


EMPTY = "cannot be used: it is empty. Is a variable in the command not set?"
USAGE = {
    "send": (
        "there is nothing to send",
        "name files or directories, or - for standard input, or give a --text",
    ),
    "send - x": (
        "standard input and files exclude each other",
        "send it alone; a file that is called - is ./-",
    ),
    "send - -n 0": (
        "standard input cannot be sent to any number of --receivers",
        "give their number: a stream waits for all of them, and is sent once",
    ),
    "send x --text y": ("--text and files exclude each other", "send one after the other"),
    "send - --code -": (
        "--code and PATH cannot both be read from standard input",
        "give the others as @FILE, or in the environment",
    ),
    "send ''": (f"PATH {EMPTY}", None),
    "send x --tls-ca ''": (f"--tls-ca {EMPTY}", None),
    "receive K7M2QX -o ''": (f"--output {EMPTY}", None),
    "doctor -o ''": (f"--output {EMPTY}", None),
    "demo ''": (f"PATH {EMPTY}", None),
    "serve --state ''": (f"--state {EMPTY}", None),
    "serve --tls-cert '' --tls-key x": (f"--tls-cert {EMPTY}", None),
    "serve --tls-cert x --tls-key ''": (f"--tls-key {EMPTY}", None),
    "send x --recievers 3": ("there is no option --recievers", "write --receivers"),
    "send x --zzz": ("there is no option --zzz", "`flyx send --help` tells what it takes"),
    "send x --words": ("option '--words' requires an argument", "`flyx send --help` tells what it takes"),
    "send x -n many": ("--receivers cannot be used: many is no whole number", None),
    "send x --wait soon": ("--wait cannot be used: soon is no number", None),
    "send x --words 1": ("--words cannot be used: 1 is less than 2", None),
    "send x --words 9": ("--words cannot be used: 9 is more than 8", None),
    "send x --links all": ("--links cannot be used: 'all' is not one of 'keep', 'follow', 'skip'", None),
    "demo x y": ("got unexpected extra argument(s) (y)", "`flyx demo --help` tells what it takes"),
    "sned x": ("no such command 'sned'. Did you mean 'send'?", "`flyx --help` tells what it takes"),
    "--zzz": ("there is no option --zzz", "`flyx --help` tells what it takes"),
    "config shwo": (
        "no such command 'shwo'. Did you mean 'show'?",
        "`flyx config --help` tells what it takes",
    ),
    "--show-completion tcsh": (
        "--show-completion cannot be used: 'tcsh' is not one of 'bash', 'zsh', 'fish', 'powershell'",
        None,
    ),
}


def test_the_version_says_whether_packets_are_handled_by_machine_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        app(["--version"], prog_name="flyx")
    kind = "compiled" if Path(association.__file__).suffix == ".so" else "pure Python"
    assert capfd.readouterr().out == f"flyx {flyx.__version__} ({kind})\n"


@pytest.mark.parametrize("typed", USAGE)
def test_a_wrong_command_line_is_told_like_any_other_error(
    typed: str, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        app(shlex.split(typed), prog_name="flyx")
    assert caught.value.code == 2
    reason, hint = USAGE[typed]
    expected = [f"error: {reason}", *([f"hint: {hint}"] if hint else [])]
    assert capfd.readouterr().err.splitlines() == expected


@pytest.mark.parametrize("how", ["--json", "FLYX_JSON", "json = true"])
@pytest.mark.parametrize("typed", ["send", "send x --words 1", "send x --zzz"])
def test_a_wrong_command_line_is_an_event_for_who_reads_events(
    typed: str,
    how: str,
    file: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how.startswith("FLYX"):
        monkeypatch.setenv(how, "1")
    elif not how.startswith("--"):
        file.write_text(f"[send]\n{how}\n")
    with pytest.raises(SystemExit) as caught:
        app([*typed.split(), *([how] if how.startswith("--") else [])])
    assert caught.value.code == 2
    told = capfd.readouterr()
    assert json.loads(told.out)["code"] == "bad_input"
    assert not told.err


def test_where_the_directory_is_gone_that_is_the_hint(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit):
        app(["send", "x"])
    hint = "hint: the directory that you are in has been removed; change to another one"
    assert capfd.readouterr().err.splitlines() == ["error: there is no file or directory x", hint]


def test_a_wrong_variable_of_flyx_itself_is_told_by_its_name(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYX_DEBUG", "maybe")
    expected = "error: the variable FLYX_DEBUG cannot be used: maybe is neither true nor false"
    assert complaint(capfd, "config", "path") == expected


def test_a_bad_value_is_told_with_its_place_in_one_form(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[send]\nserver = "ftp://x"\n')
    not_one = "cannot be used: ftp://x is not the URL of a signaling server"
    assert complaint(capfd, "send", "x") == f"error: `server` of [send] in {file}, line 2, {not_one}"
    monkeypatch.setenv("FLYX_SERVER", "ftp://x")
    assert complaint(capfd, "send", "x") == f"error: the variable FLYX_SERVER {not_one}"
    assert complaint(capfd, "send", "x", "--server", "ftp://x") == f"error: --server {not_one}"
    file.write_text("[receive]\noverwrite = true\n")
    monkeypatch.setenv("FLYX_SERVER", "")
    told = complaint(capfd, "receive", "K7M2QX", "--yes", "--rename")
    exclude = "--overwrite and --rename exclude each other"
    monkeypatch.setenv("FLYX_BIND", "nowhere0")
    assert complaint(capfd, "send", "x").startswith(
        "error: the variable FLYX_BIND cannot be used: nowhere0: "
    )
    monkeypatch.setenv("FLYX_BIND", "")
    monkeypatch.setenv("FLYX_ICE_SERVER", "nowhere")
    assert complaint(capfd, "send", "x").startswith("error: the variable FLYX_ICE_SERVER cannot be used: it ")
    assert told == f"error: {exclude} (--overwrite is set by `overwrite` of [receive] in {file}, line 2)"


def complaint(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that cannot begin."""
    with pytest.raises(SystemExit) as caught:
        app(arguments)
    assert caught.value.code == 2
    return next(line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize(
    ("command", "usage", "argument"),
    [
        ("send", "[OPTIONS] [PATH]...", "PATH  Files"),
        ("receive", "[OPTIONS] [CODE]...", "CODE  Code"),
        ("demo", "[OPTIONS] [PATH]", "PATH  "),
        ("doctor", "[OPTIONS] [CODE]", "CODE  "),
        ("help", "[OPTIONS] [TOPIC]", "TOPIC  "),
        ("config show", "[OPTIONS] [COMMAND]", "COMMAND  "),
    ],
)
def test_the_help_shows_arguments_as_people_write_them(
    command: str, usage: str, argument: str, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        app([*command.split(), "--help"], prog_name="flyx")
    shown = capfd.readouterr().out.splitlines()
    assert shown[0] == f"Usage: flyx {command} {usage}"
    assert any(line.startswith(f"  {argument}") for line in shown)


BAD = {
    "FLYX_RECEIVERS": ("send", "receivers", "many"),
    "FLYX_WAIT": ("send", "wait", "-1"),
    "FLYX_SERVER": ("send", "server", "gopher://x"),
    "FLYX_CONGESTION": ("send", "congestion", "reno"),
    "FLYX_SEND_CODE": ("send", "code", "short"),
    "FLYX_BIND": ("send", "bind", "nowhere0"),
    "FLYX_TLS_CA": ("send", "tls-ca", "/nowhere"),
    "FLYX_PORT": ("serve", "port", "http"),
    "FLYX_JOIN_RATE": ("serve", "join-rate", "often"),
    "FLYX_RELAY": ("serve", "relay", "fast"),
    "FLYX_LIMIT": ("send", "limit", "fast"),
    "FLYX_TLS_CERT": ("serve", "tls-cert", "/nowhere"),
    "FLYX_DEMO_SIZE": ("demo", "size", "big"),
}


@pytest.mark.parametrize("variable", BAD)
def test_a_bad_value_names_where_it_came_from(
    variable: str, file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, option, value = BAD[variable]
    arguments = [command, *(["x"] if command == "send" else [])]
    file.write_text(f'# A comment.\n[receive]\nyes = true\n[{command}]\n{option} = "{value}"\n')
    told = complaint(capfd, *arguments)
    assert f"`{option}` of [{command}] in {file}, line 5" in told
    monkeypatch.setenv(variable, value)
    assert f"the variable {variable}" in complaint(capfd, *arguments)
    monkeypatch.delenv(variable)
    file.write_text("")
    with pytest.raises(SystemExit) as caught:
        app([*arguments, f"--{option}", value])
    assert caught.value.code == 2
    assert f"--{option}" in capfd.readouterr().err


def test_a_bad_code_names_its_variable(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYX_CODE", "lemon-otter")
    assert "the variable FLYX_CODE cannot be used" in complaint(capfd, "receive")


def test_a_server_out_of_reach_is_told_with_who_named_it(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hint(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            app(["receive", "--yes", *arguments])
        assert caught.value.code == 3
        return capfd.readouterr().err.splitlines()[-1]

    monkeypatch.setenv("FLYX_SERVER", "http://127.0.0.1:9/")
    assert hint("K7M2QX-lemon-otter").startswith("hint: the variable FLYX_SERVER names this server; ")
    for named in (["ws://127.0.0.1:19/#K7M2QX"], ["K7M2QX", "--server", "ws://127.0.0.1:19"]):
        assert hint(*named).startswith("hint: start one with")


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("FLYX_API_TOKEN", "send"),
        ("FLYX_API_TOKEN", "doctor"),
        ("FLYX_API_TOKEN", "serve"),
        ("FLYX_ADMIN_TOKEN", "serve"),
        ("FLYX_METRICS_TOKEN", "serve"),
        ("FLYX_TURN_SECRET", "serve"),
    ],
)
def test_an_empty_token_is_no_token(
    variable: str,
    command: str,
    file: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [command, *(["x"] if command == "send" else [])]
    option = "--" + variable.removeprefix("FLYX_").lower().replace("_", "-")
    monkeypatch.setenv(variable, "")
    assert f"the variable {variable} is empty" in complaint(capfd, *arguments)
    monkeypatch.delenv(variable)
    assert f"{option} is empty" in complaint(capfd, *arguments, option, "")


def test_empty_variables_are_unset_ones(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(file.parent / "none"))
    for variable in (
        CONFIG_VARIABLE,
        "FLYX_SERVER",
        "FLYX_RECONNECT",
        "FLYX_YES",
        "FLYX_CODE",
        "FLYX_TLS_CA",
    ):
        monkeypatch.setenv(variable, "")
    assert "there is no code" in complaint(capfd, "receive")


def test_home_is_found_where_no_shell_looks(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_added", [])
    (file.parent / "elsewhere.toml").write_text('[send]\ntls-ca = "~/there"\napi-token = "@~/token"\n')
    monkeypatch.setenv(CONFIG_VARIABLE, "~/elsewhere.toml")
    assert f"cannot read certificates from {file.parent}/there: No such" in complaint(capfd, "send", "x")
    monkeypatch.setenv("FLYX_TLS_CA", "~/here")
    assert f"cannot read certificates from {file.parent}/here: No such" in complaint(capfd, "send", "x")
    monkeypatch.setenv("FLYX_TLS_CA", "~nobody-has-this-name/here")
    assert "nobody knows which directory ~nobody-has-this-name is" in complaint(capfd, "send", "x")
    monkeypatch.delenv("FLYX_TLS_CA")
    (file.parent / "elsewhere.toml").write_text('[send]\napi-token = "@~/token"\n')
    assert "cannot read --api-token from ~/token: No such" in complaint(capfd, "send", "x")
    (file.parent / "token").write_text("not one\nbut two\n")
    assert "it is more than one secret" in complaint(capfd, "send", "x")


def test_what_kubernetes_says_of_a_service_is_none_of_our_options(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"FLYX_PORT": "8000", "FLYX_TURN_RELAY_PORTS": "1-2", "FLYX_SERVER": "tcp://x"}
    theirs = {"FLYX_TURN_PORT": "udp://10.0.0.1:3478", "FLYX_METRICS_PORT": "tcp://10.0.0.1:9"}
    empty = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}
    for name, value in (ours | theirs | empty).items():
        monkeypatch.setenv(name, value)
    tidy()
    assert {name: os.environ.get(name) for name in ours} == ours
    assert not {*theirs, *empty} & set(os.environ)


@given(
    st.lists(
        st.sampled_from(["", "# c", "[send]", " [ 'receive' ] # c", "wait=1", '"wait" = 2', "x.wait = 3"])
    )
)
def test_the_line_of_a_key_is_one_that_sets_it(lines: list[str]) -> None:
    number = line_of(lines, "send", "wait")
    if number is None:
        return
    assert "wait" in lines[number - 1]
    assert [line for line in lines[:number] if "[" in line][-1] == "[send]"
