"""The configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyx.cli import options
from flyx.cli.app import app
from flyx.cli.config import CONFIG_VARIABLE, config_path, load_config
from flyx.client import driver
from flyx.errors import InputError


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
    with pytest.raises(InputError, match=r"config\.toml"):
        load_config()


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"config\.toml"):
        load_config()


def test_the_file_is_looked_for_where_the_system_keeps_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert config_path().name == "config.toml"
    assert config_path().parent.name == "flyx"


def test_the_default_of_reconnect_is_that_of_the_client() -> None:
    assert options.DEFAULT_RECONNECT == driver.RECONNECT_TIME
