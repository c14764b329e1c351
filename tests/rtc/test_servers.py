"""Which STUN and TURN servers URLs name."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyx.rtc.servers import (
    STUN_SERVERS_ASKED,
    TURN_SERVERS_ASKED,
    StunAddress,
    Transport,
    TurnServer,
    check_url,
    stun_servers,
    turn_servers,
)

UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("turn:example.org", ("example.org", 3478, UDP)),
        ("turns:example.org", ("example.org", 5349, TLS)),
        ("turn:example.org:80?transport=tcp", ("example.org", 80, TCP)),
        ("turn:example.org?transport=UDP", ("example.org", 3478, UDP)),
        ("turn:example.org?transport=TCP", ("example.org", 3478, TCP)),
        ("TURNS:example.org:443?Transport=Tcp", ("example.org", 443, TLS)),
        ("turn:[2001:db8::1]", ("2001:db8::1", 3478, UDP)),
        ("turns:[2001:db8::1]:443?transport=tcp", ("2001:db8::1", 443, TLS)),
        ("turn:192.0.2.1:3479", ("192.0.2.1", 3479, UDP)),
        ("turn:my_host.example.", ("my_host.example.", 3478, UDP)),
    ],
)
def test_a_turn_url_names_host_port_and_transport(url: str, expected: tuple[str, int, Transport]) -> None:
    (address,), unusable = turn_servers([TurnServer(url, "somebody", "secret")])
    assert (address.host, address.port, address.transport) == expected
    assert (address.username, address.credential, address.url) == ("somebody", "secret", url)
    assert unusable == ()
    check_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("stun:example.org", ("example.org", 3478)),
        ("STUN:example.org:19302", ("example.org", 19302)),
        ("stun:[2001:db8::1]:3479", ("2001:db8::1", 3479)),
    ],
)
def test_a_stun_url_names_host_and_port(url: str, expected: tuple[str, int]) -> None:
    assert stun_servers([url]) == ((StunAddress(*expected, url),), ())
    check_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("turn:", "neither a name"),
        ("turn:example.org:0", "port"),
        ("turn:example.org:99999", "port"),
        ("turn:example.org:port", "not the URL"),
        ("turn://example.org", "not the URL"),
        ("turn:user@example.org", "not the URL"),
        ("turn:2001:db8::1", "not the URL"),
        ("turn:[192.0.2.1]", "brackets"),
        ("turn:[example.org]", "brackets"),
        ("turn:256.256.256.256", "neither a name"),
        ("turn:exam ple.org", "neither a name"),
        ("turn:example..org", "neither a name"),
        ("turn:-example.org", "neither a name"),
        ("turn:example.org?transport=sctp", "transport"),
        ("turns:example.org?transport=udp", "DTLS"),
        ("turn:example.org\n", "neither a name"),
    ],
)
def test_a_turn_url_that_cannot_be_used_is_named_and_the_others_are_used(url: str, reason: str) -> None:
    good = TurnServer("turn:example.org", "somebody", "secret")
    found, unusable = turn_servers([TurnServer(url, "somebody", "secret"), good])
    assert [address.url for address in found] == ["turn:example.org"]
    assert [each.url for each in unusable] == [url]
    assert reason in unusable[0].reason
    with pytest.raises(ValueError, match=reason):
        check_url(url)


@pytest.mark.parametrize("url", ["stun:", "stuns:example.org", "stun:example.org?transport=udp", "stun:[::1"])
def test_a_stun_url_that_cannot_be_used_is_named(url: str) -> None:
    found, unusable = stun_servers([url, "stun:example.org", "turn:elsewhere.example"])
    assert found == (StunAddress("example.org", 3478, "stun:example.org"),)
    assert [each.url for each in unusable] == [url]


@pytest.mark.parametrize("url", ["http://example.org", "", "example.org"])
def test_a_url_of_something_else_is_no_ice_server(url: str) -> None:
    with pytest.raises(ValueError, match="not the URL"):
        check_url(url)


def test_no_more_stun_servers_than_the_bound_are_asked_and_the_rest_is_named() -> None:
    stuns = [f"stun:s{number}.example" for number in range(STUN_SERVERS_ASKED + 2)]
    found, unusable = stun_servers([*stuns, stuns[0]])
    assert (len(found), len(unusable)) == (STUN_SERVERS_ASKED, 2)
    turns = [TurnServer(f"turn:s{number}.example", "a", "b") for number in range(TURN_SERVERS_ASKED + 2)]
    ways, left = turn_servers([*turns, turns[0]])
    assert (len(ways), len(left)) == (TURN_SERVERS_ASKED, 2)


@given(st.ip_addresses(), st.integers(1, 65535), st.sampled_from(["udp", "tcp", "UDP", "Tcp"]))
def test_every_address_and_port_comes_back(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, transport: str
) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    (found,), _ = turn_servers([TurnServer(f"turn:{host}:{port}?transport={transport}", "a", "b")])
    assert (found.host, found.port, found.transport.value) == (str(address), port, transport.upper())


@given(st.text() | st.from_regex(r"(stun|turn)s?:[ -~]*", fullmatch=True))
def test_no_text_does_anything_but_name_a_server_or_be_named(url: str) -> None:
    found, unusable = turn_servers([TurnServer(url, "a", "b")])
    assert len(found) + len(unusable) == 1
    assert len(stun_servers([url])[0]) <= 1
