"""The configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyx.cli.app import app
from flyx.cli.config import CONFIG_VARIABLE, config_path, load_config
from flyx.client import meeting
from flyx.errors import InputError
from tests.papers import COMMANDS, options_of


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def test_no_file_sets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_config() == {}


def test_a_file_that_was_named_must_be_there(file: Path) -> None:
    with pytest.raises(InputError, match=r"no configuration file .*config\.toml"):
        load_config()


@pytest.mark.parametrize(
    "text", ["[send]\nrecievers = 4\n", "[sned]\nreceivers = 4\n", "[send]\nas_json = true\n"]
)
def test_what_no_command_has_is_named(file: Path, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    with pytest.raises(SystemExit) as caught:
        app(["send", "x"])
    assert caught.value.code == 2
    err = capfd.readouterr().err
    assert "error: the configuration file" in err
    assert text.split("\n")[0].strip("[]") in err


def test_options_are_written_as_on_the_command_line(file: Path) -> None:
    file.write_text('[serve]\nmax-rooms = 5\nstun = ["none"]\n[send]\nserver = "wss://x"\n')
    assert load_config() == {"serve": {"max-rooms": 5, "stun": ["none"]}, "send": {"server": "wss://x"}}


@pytest.mark.parametrize("text", ["not toml", "server = 'ws://x'", "[send\n"])
def test_a_file_that_cannot_be_meant_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=r"config\.toml") as caught:
        load_config()
    assert "[send]" in str(caught.value.hint) or "flyx config edit" in str(caught.value.hint)


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"config\.toml: it is no text in UTF-8$"):
        load_config()


def test_a_directory_in_the_place_of_the_file_is_named_once(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()
    with pytest.raises(InputError, match=r"config\.toml: Is a directory$"):
        load_config()


def test_the_file_is_looked_for_where_the_system_keeps_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    path = config_path()
    assert path is not None
    assert path.name == "config.toml"
    assert path.parent.name == "flyx"


def test_the_default_of_reconnect_is_that_of_the_client() -> None:
    for command in ("send", "receive"):
        assert options_of(COMMANDS[command])["--reconnect"].default == meeting.RECONNECT_TIME


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('[serve]\napi-token = "t0ken"\n', "api-token of serve"),
        ('[serve]\nadmin-token = "t0ken"\n', "admin-token of serve"),
        ('[serve]\nmetrics-token = "t0ken"\n', "metrics-token of serve"),
        ('[serve]\nturn-secret = "t0ken"\n', "turn-secret of serve"),
        ('[serve]\nredis = "redis://:t0ken@localhost"\n', "redis of serve"),
        ('[send]\napi-token = "t0ken"\n', "api-token of send"),
        ('[send]\ncode = "t0ken of mine"\n', "code of send"),
    ],
)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_secret_that_others_may_read_is_said_on_standard_error(
    file: Path, text: str, secret: str, mode: int, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    file.chmod(mode)
    load_config()
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("warning: other users can read the configuration file")
    assert secret in err
    option = secret.partition(" ")[0]
    way = "set FLYX_REDIS in its place" if option == "redis" else f"write {option} as @FILE"
    assert err.endswith(f"\nhint: chmod 600 it, own it, or {way}\n")
    assert "t0ken" not in err
    file.chmod(0o600)
    load_config()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("serve", "api-token"),
        ("serve", "admin-token"),
        ("serve", "metrics-token"),
        ("serve", "turn-secret"),
        ("send", "api-token"),
        ("send", "code"),
    ],
)
def test_a_secret_in_the_file_can_be_that_of_another_file(
    file: Path, command: str, option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f'[{command}]\n{option} = "@{file.parent}/missing"\n')
    with pytest.raises(SystemExit) as caught:
        app([command, *(["x"] if command == "send" else [])])
    assert caught.value.code == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: cannot read --{option} from {file.parent}/missing: No such file")


@pytest.mark.parametrize(
    "text",
    [
        '[serve]\napi-token = "@/run/secrets/token"\n',
        '[serve]\nredis = "redis://localhost:6379/0"\n',
        '[send]\napi-token = "-"\n',
        "[send]\nreceivers = 3\n",
    ],
)
def test_a_file_without_secrets_may_be_read(file: Path, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    file.chmod(0o644)
    load_config()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_secret_in_a_file_of_another_user_is_said(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_text('[send]\napi-token = "t0ken"\n')
    file.chmod(0o600)
    os.chown(file, 12345, -1)
    load_config()
    assert "warning: other users can read" in capfd.readouterr().err
