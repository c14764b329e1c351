"""Which addresses of a machine are offered to a peer, and in which order."""

from __future__ import annotations

import ipaddress
import socket
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flyx.net.interfaces import (
    MAX_ADDRESSES,
    InterfaceAddress,
    choose,
    internal_interfaces,
    offered_addresses,
    read,
    sources,
)

ADDRESSES = st.one_of(
    st.ip_addresses(v=4, network="10.0.0.0/24"),
    st.ip_addresses(v=4, network="127.0.0.0/8"),
    st.ip_addresses(v=4, network="169.254.0.0/16"),
    st.ip_addresses(v=6, network="2001:db8::/126"),
    st.ip_addresses(v=6, network="fd00::/126"),
    st.ip_addresses(v=6, network="fe80::/126"),
    st.ip_addresses(),
)
FOUND = st.lists(
    st.builds(
        InterfaceAddress,
        interface=st.sampled_from(["eth0", "wlan0", "docker0", "tun0"]),
        address=ADDRESSES,
        up=st.booleans(),
        internal=st.booleans(),
        point_to_point=st.booleans(),
        usable=st.booleans(),
        temporary=st.booleans(),
    ),
    max_size=40,
)


def on(interface: str, address: str, **rest: bool) -> InterfaceAddress:
    return InterfaceAddress(interface, ipaddress.ip_address(address), **rest)


@given(FOUND, st.sets(ADDRESSES.map(str), max_size=2))
def test_what_is_offered_can_be_reached_and_is_little(
    found: list[InterfaceAddress], preferred: set[str]
) -> None:
    offered = choose(found, preferred)
    assert len(offered) == len(set(offered)) <= MAX_ADDRESSES
    usable = {each.scoped: each for each in found if each.up and each.usable}
    for address in offered:
        assert address in usable
        assert not usable[address].address.is_loopback
        assert not usable[address].address.is_multicast
        assert ("%" in address) == (usable[address].address.is_link_local and ":" in address)
    addresses = [each.address for each in usable.values()]
    if any(a.is_private and not (a.is_loopback or a.is_unspecified) for a in addresses):
        assert offered


@given(FOUND)
def test_nothing_depends_on_what_is_down_or_deprecated(found: list[InterfaceAddress]) -> None:
    assert choose(found) == choose([each for each in found if each.up and each.usable])


def test_a_bridge_to_containers_is_offered_only_if_there_is_nothing_else() -> None:
    bridge, card = on("docker0", "172.17.0.1", internal=True), on("eth0", "192.0.2.2")
    assert choose([bridge, card]) == ["192.0.2.2"]
    assert choose([bridge]) == ["172.17.0.1"]


def test_link_local_addresses_are_offered_with_their_scope_where_nothing_else_is() -> None:
    cable, card = on("eth1", "fe80::1"), on("eth0", "192.0.2.2")
    assert choose([cable, card, on("eth0", "fe80::2")]) == ["192.0.2.2", "fe80::1%eth1"]
    assert choose([cable, on("eth1", "169.254.3.4")]) == ["fe80::1%eth1", "169.254.3.4"]


def test_link_local_addresses_are_offered_besides_others_to_who_may_share_nothing_but_a_link() -> None:
    given = [on("eth0", "192.0.2.2"), on("eth0", "fe80::2"), on("eth0", "169.254.3.4"), on("eth1", "fd00::1")]
    assert choose(given) == ["fd00::1", "192.0.2.2"]
    assert choose(given, on_link=True) == ["fd00::1", "192.0.2.2", "fe80::2%eth0"]


def test_rfc_8445_section_5_1_1_1_a_temporary_address_stands_for_the_lasting_one_of_its_network() -> None:
    lasting, temporary = on("eth0", "2001:db8::1"), on("eth0", "2001:db8::2", temporary=True)
    elsewhere = on("eth0", "fd00::1")
    assert choose([lasting, temporary, elsewhere]) == ["2001:db8::2", "fd00::1"]


def test_the_addresses_that_the_kernel_sends_from_come_first_and_tunnels_last() -> None:
    found = [on("tun0", "10.8.0.2", point_to_point=True), on("eth1", "10.1.0.2"), on("eth0", "192.0.2.2")]
    assert choose(found, {"192.0.2.2"}) == ["192.0.2.2", "10.1.0.2", "10.8.0.2"]


def test_of_hundreds_of_interfaces_the_best_are_offered() -> None:
    found = [on(f"veth{number}", str(ipaddress.ip_address("10.1.0.0") + number)) for number in range(500)]
    offered = choose([*found, on("eth0", "192.0.2.2")], {"192.0.2.2"})
    assert offered[0] == "192.0.2.2"
    assert len(offered) == MAX_ADDRESSES


def bridge(directory: Path, name: str, members: list[str], *, card: bool = False) -> None:
    """Make a bridge in a directory like /sys/class/net, of pairs and perhaps a card."""
    (directory / name / "brif").mkdir(parents=True)
    for member in members:
        (directory / member).mkdir()
        (directory / member / "uevent").write_text(f"INTERFACE={member}\n")
        (directory / name / "brif" / member).mkdir()
    if card:
        (directory / members[-1] / "device").mkdir()


def test_a_bridge_is_internal_with_its_members_unless_one_leads_out(tmp_path: Path) -> None:
    bridge(tmp_path, "docker0", ["veth1", "veth2"])
    bridge(tmp_path, "br0", ["veth3", "eth0"], card=True)
    assert internal_interfaces(tmp_path) == {"docker0", "veth1", "veth2"}
    assert internal_interfaces(tmp_path / "nowhere") == set()


def test_hundreds_of_members_of_a_bridge_cost_little(tmp_path: Path) -> None:
    """All of them were looked at for each of them: 5 s for these."""
    members = [f"veth{number}" for number in range(300)]
    bridge(tmp_path, "docker0", members)
    begun = time.process_time()
    assert internal_interfaces(tmp_path) == {"docker0", *members}
    assert time.process_time() - begun < 1.0


def test_this_machine_s_addresses_can_be_bound() -> None:
    assert any(each.interface for each in read())
    assert sources() <= {str(each.address) for each in read()}
    for address in offered_addresses():
        family, kind, number, _, where = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, number) as bound:
            bound.bind(where)
