from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flyx.cli.config import is_secret
from flyx.cli.path_options import connection_options_of, ice_server_of
from flyx.errors import InputError
from flyx.signaling.messages import IceServer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stun:stun.example.org", IceServer(urls=("stun:stun.example.org",))),
        (
            "turn:me:secret@turn.example.org:443?transport=tcp",
            IceServer(urls=("turn:turn.example.org:443?transport=tcp",), username="me", credential="secret"),
        ),
        (
            "turns:1700000000%3Ame:p@ss:word@[2001:db8::1]",
            IceServer(urls=("turns:[2001:db8::1]",), username="1700000000:me", credential="p@ss:word"),
        ),
    ],
)
def test_an_ice_server_is_named_with_user_and_password(
    text: str, expected: IceServer, tmp_path: Path
) -> None:
    assert ice_server_of(text) == expected
    (tmp_path / "server").write_text(f"{text}\n")
    assert ice_server_of(f"@{tmp_path / 'server'}") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "turn:", "turn:turn.example.org", "turn:hush@turn.example.org", "turn:me:hush@"),
        *("stun:me:hush@stun.example.org", "https://me:hush@example.org", "turn:me:hush:turn.example.org"),
        *("turns:me:hush@turn.example.org?transport=udp", "hush"),
    ],
)
def test_what_is_no_ice_server_is_refused_and_no_password_is_repeated(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ice_server_of(text)
    assert caught.value.hint
    assert "hush" not in str(caught.value)


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="exclude each other") as caught:
        connection_options_of(True, True, None, None)
    assert caught.value.hint


@pytest.mark.parametrize("bind", ["192.0.2.1", "no-such-interface", "2001:db8::1", ""])
def test_an_address_or_interface_that_is_not_here_is_refused(bind: str) -> None:
    with pytest.raises(InputError, match="--bind") as caught:
        connection_options_of(False, False, None, bind)
    assert caught.value.hint


@pytest.mark.parametrize("bind", ["127.0.0.1", "lo"])
def test_an_address_or_interface_of_this_computer_can_be_bound(bind: str) -> None:
    options = connection_options_of(False, False, ["stun:stun.example.org"], bind)
    assert "127.0.0.1" in options.policy.local_addresses()
    assert len(options.ice_servers) == 1


def test_a_link_local_address_can_be_bound() -> None:
    # The multicast address of all nodes: every machine has it on its loopback.
    address = f"ff02::1%{socket.if_indextoname(1)}"
    assert connection_options_of(False, False, None, address).policy.local_addresses() == [address]


def test_an_ice_server_in_a_configuration_file_is_a_secret_if_it_has_a_password() -> None:
    assert is_secret("ice-server", ["stun:stun.example.org", "turn:me:secret@turn.example.org"])
    assert not is_secret("ice-server", ["stun:stun.example.org", "@/etc/flyx/turn"])
