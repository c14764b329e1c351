"""What announces a room on the local network, and what is believed of announcements."""

from __future__ import annotations

import secrets
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyx.signaling.local import (
    LOCAL_PORTS,
    MAX_ADDRESSES,
    draw_label,
    is_announced,
    is_label,
    properties_of,
    url_of_address,
    worth_trying,
)

LABEL = "0123456789abcdef"
OWN = [ip_network(text) for text in ("192.168.1.0/24", "203.0.113.0/24", "2001:db8:1::/64", "fe80::/64")]

ADDRESSES = st.ip_addresses().map(str) | st.text() | st.sampled_from(["fe80::1%2", "fe80::1%eth0", "::1%1"])
PROPERTIES = st.dictionaries(
    st.sampled_from([b"txtvers", b"room"]) | st.binary(max_size=8),
    st.none() | st.just(b"1") | st.binary(max_size=40),
    max_size=4,
)


def announced(room_id: str, label: str) -> dict[bytes, bytes | None]:
    """The properties as they come from the network."""
    return {key.encode(): value.encode() for key, value in properties_of(room_id, label).items()}


def test_a_receiver_knows_the_announcement_of_its_room_and_of_no_other() -> None:
    properties = announced("K7M2QX", LABEL)
    assert is_announced("K7M2QX", LABEL, properties)
    assert not is_announced("K7M2QY", LABEL, properties)
    # One that was heard cannot be told of by another name, nor be prepared for all rooms once.
    assert not is_announced("K7M2QX", LABEL[::-1], properties)


def test_an_announcement_does_not_say_which_room_it_is() -> None:
    assert "K7M2QX" not in "".join(f"{key}{value}" for key, value in properties_of("K7M2QX", LABEL).items())
    assert properties_of("K7M2QX", LABEL)["room"] != properties_of("K7M2QX", LABEL[::-1])["room"]


def test_labels_are_drawn_and_known() -> None:
    labels = {draw_label(secrets.token_bytes) for _ in range(20)}
    assert len(labels) == 20
    assert all(map(is_label, labels))


@given(st.text(), PROPERTIES)
@example(LABEL, {b"txtvers": b"1", b"room": b"0" * 32})
@example(LABEL, {b"txtvers": b"1", b"room": None})
@example("x" * 16, {b"txtvers": b"1", b"room": b"0" * 32})
def test_no_other_announcement_is_taken_for_that_of_the_room(
    label: str, properties: dict[bytes, bytes | None]
) -> None:
    assert not is_announced("K7M2QX", label, properties)


@given(st.lists(ADDRESSES, max_size=40))
def test_an_announcement_leads_to_nothing_but_the_local_network(texts: list[str]) -> None:
    chosen = worth_trying(texts, OWN)
    assert len(chosen) <= MAX_ADDRESSES
    assert len(set(chosen)) == len(chosen)
    for text in chosen:
        address = ip_address(text)
        assert not address.is_loopback
        assert not address.is_multicast
        assert not address.is_unspecified
        ours = any(address.version == network.version and address in network for network in OWN)
        assert ours or address.is_private
        # What is chosen makes a URL that means the same.
        assert ip_address(urlsplit(url_of_address(text, 1)).hostname or "") == address


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "::1", "0.0.0.0", "::", "255.255.255.255", "224.0.0.251", "ff02::fb", "240.0.0.1"),
        *("::ffff:192.168.1.2", "::ffff:127.0.0.1", "::127.0.0.1"),
        *("8.8.8.8", "2606:4700::1111"),
        *("fe80::1", "2001:db8:1::1%2", "fe80::1%", "192.168.1.2%2", "192.168.1.2:80", "example.org", ""),
    ],
)
def test_addresses_that_no_room_on_the_local_network_has(text: str) -> None:
    assert worth_trying([text], OWN) == []


def test_likely_addresses_come_first() -> None:
    texts = ["10.9.9.9", "169.254.7.7", "fe80::1%2", "fd00::9", "192.168.1.7", "2001:db8:1::7", "192.168.1.7"]
    expected = ["2001:db8:1::7", "192.168.1.7", "fe80::1%2", "169.254.7.7", "fd00::9", "10.9.9.9"]
    assert worth_trying(texts, OWN) == expected


def test_ports_are_not_those_that_systems_give_out() -> None:
    # Linux from 32,768 on, others from 49,152; below 1,024 a person needs a privilege.
    assert all(1024 <= port < 32_768 for port in LOCAL_PORTS)
