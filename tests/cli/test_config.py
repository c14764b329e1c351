"""The configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyx.cli.config import CONFIG_VARIABLE, config_path, load_config
from flyx.errors import InputError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def test_no_file_sets_nothing(file: Path) -> None:
    assert load_config() == {}


def test_options_are_written_as_on_the_command_line(file: Path) -> None:
    file.write_text('[serve]\nmax-rooms = 5\nstun = ["none"]\n[send]\nserver = "wss://x"\n')
    assert load_config() == {"serve": {"max_rooms": 5, "stun": ["none"]}, "send": {"server": "wss://x"}}


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
