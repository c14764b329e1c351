"""Options that stand elsewhere than on the command line: what they mean, and how a bad one is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.cli.app import app
from flyx.cli.config import CONFIG_VARIABLE
from flyx.cli.environment import tidy
from flyx.cli.settings import line_of
from flyx.net import tls


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


def complaint(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that cannot begin."""
    with pytest.raises(SystemExit) as caught:
        app(arguments)
    assert caught.value.code == 2
    return next(line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))


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
