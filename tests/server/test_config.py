from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from flyx.cli import room_options, serve_options, turn_options
from flyx.cli.option_table import Chosen, OptionTable
from flyx.cli.options import check_standard_input, read_secret, secret_of, token_of
from flyx.errors import InputError
from flyx.server import config
from tests.papers import COMMANDS, options_of

TABLES = [
    *(serve_options.LISTENING, serve_options.LIMITS, serve_options.ACCESS, serve_options.OPERATION),
    *(room_options.ROOMS, room_options.KEEPING),
]


@pytest.mark.parametrize("table", TABLES)
def test_the_commands_defaults_are_the_servers(table: OptionTable) -> None:
    parameters = COMMANDS["serve"].make_context("serve", []).params
    chosen = Chosen(table, {name: parameters[name] for name in table.settings})
    default = table.config()
    assert chosen.fields() == {name: getattr(default, name) for name in table.settings}


def test_the_commands_defaults_of_relays_are_the_servers() -> None:
    parameters = COMMANDS["serve"].make_context("serve", []).params
    assert parameters["turn_ttl"] == config.TurnConfig((), "").ttl
    tunnels, coturn = config.TunnelConfig(1.0), config.CoturnConfig("", ())
    assert (parameters["max_pairs"], parameters["max_per_address"]) == (
        tunnels.max_pairs,
        tunnels.max_per_address,
    )
    assert (parameters["turn_port"], parameters["turn_relay_ports"]) == (coturn.port, "49152-65535")
    assert coturn.relay_ports == (49152, 65535)


def test_a_server_listens_on_port_8000_of_every_address_by_default() -> None:
    default = config.ServerConfig()
    assert (default.host, default.port) == (None, 8000)


def test_the_bounds_of_the_commands_rooms_are_those_of_the_servers() -> None:
    options = options_of(COMMANDS["serve"])
    bounds = {
        name: (options[name].min, options[name].max) for name in ("--max-clients", "--ttl", "--idle-timeout")
    }
    assert bounds == {
        "--max-clients": (config.MIN_MAX_CLIENTS, config.MAX_MAX_CLIENTS),
        # An operator may let every room live as long as a persistent one.
        "--ttl": (config.MIN_TTL, config.MAX_PERSISTENT_TTL),
        "--idle-timeout": (config.MIN_IDLE_TIMEOUT, config.MAX_IDLE_TIMEOUT),
    }


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
        serve_options.origins_of("--allow-origin", [text])


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
