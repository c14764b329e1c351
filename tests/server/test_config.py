from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from flyx.cli import room_options, serve, serve_options, turn_options
from flyx.cli.options import check_standard_input, read_secret, secret_of, token_of
from flyx.errors import InputError
from flyx.server import config
from flyx.signaling import room


def test_the_commands_defaults_are_the_servers() -> None:
    for name in ("DEFAULT_HOST", "DEFAULT_PORT", "DEFAULT_STUN_URL", "DEFAULT_MAX_ROOMS"):
        assert getattr(serve, name) == getattr(config, name)
    for options in (serve_options, turn_options):
        for name in vars(options):
            if name.startswith("DEFAULT_"):
                assert getattr(options, name) == getattr(config, name), name
    for name in vars(room_options):
        if name.startswith("DEFAULT_"):
            owner = room if hasattr(room, name) else config
            assert getattr(room_options, name) == getattr(owner, name), name
        if name.startswith(("MIN_", "MAX_")) and name != "MAX_GRACE":
            assert getattr(room_options, name) == getattr(config, name), name
    default = config.ServerConfig()
    assert (default.host, default.port) == (None, 8000)


@pytest.mark.parametrize("text", ["", "many", "0/minute", "-1/minute", "5/fortnight", "5"])
def test_what_is_not_a_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError) as caught:
        config.parse_rate(text)
    assert "60/minute" in str(caught.value.hint)


def test_none_is_no_rate() -> None:
    assert config.parse_rate("none") is None
    rate = config.parse_rate("1000 per 2 hours")
    assert rate is not None
    assert (rate.amount, rate.get_expiry()) == (1000, 7200)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy", "10.0.0.300", ""])
def test_what_is_not_a_network_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        serve_options.networks_of("--trusted-proxy", [text])


@pytest.mark.parametrize("text", ["example.org", "https://example.org/path", "https://", ""])
def test_what_is_not_an_origin_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        serve_options.origins_of([text])


@pytest.mark.parametrize("option", ["--turn-secret", "--api-token", "--admin-token", "--metrics-token"])
def test_a_secret_is_what_it_is_or_in_a_file_or_on_standard_input(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\nrest\n"))
    for text in ("s3cret", f"@{file}", "-"):
        assert secret_of(option, text) == token_of(option, "s3cret") == "s3cret"
    assert secret_of(option, None) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb\n", "more than one secret"),
        (b"x" * 5000, "more than one secret"),
        (b"\xff\xfe", "no text"),
    ],
)
def test_a_file_without_a_secret_is_refused(content: bytes | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        token_of("--api-token", f"@{file}")
    assert "--api-token" in str(caught.value)
    assert caught.value.hint


def test_an_empty_standard_input_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(InputError, match="--turn-secret is empty"):
        turn_options.turn_of(["turn:turn.example.org"], "-", 60.0)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_standard_input_that_is_no_text_holds_no_secret(
    errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = io.BytesIO(b"s3cret\xff\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(typed, encoding="utf-8", errors=errors))
    with pytest.raises(InputError, match="cannot read CODE from standard input: it is no text"):
        read_secret("CODE", "-")


def test_an_argument_that_is_no_text_is_no_secret() -> None:
    with pytest.raises(InputError, match="CODE is no text"):
        read_secret("CODE", os.fsdecode(b"K7M2QX-\xff"))


def test_one_secret_at_most_is_on_standard_input() -> None:
    check_standard_input({"--api-token": "-", "--metrics-token": "@file", "--turn-secret": None})
    with pytest.raises(InputError, match="--api-token and --turn-secret"):
        check_standard_input({"--api-token": "-", "--turn-secret": "-"})


@pytest.mark.parametrize("token", ["", "with space", "gefüllt", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="--api-token"):
        token_of("--api-token", token)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(InputError):
        serve_options.tls_of(Path("certificate"), None)
    with pytest.raises(InputError):
        serve_options.tls_of(None, Path("key"))
