"""The table of networks: addresses. IPv4 and IPv6, dead ones, neighbours, several interfaces, small MTUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from e2e.laboratory import (
    DEAD,
    DEAD6,
    HOME,
    NAMES,
    SERVER,
    SERVER6,
    SOAK,
    TURN,
    TURN6,
    UDP_RELAY,
    Case,
    Site,
    no_way,
)
from e2e.network import OPEN, PORT_RESTRICTED, Firewall, Host, Nat

Judge = Callable[[Case], None]

BOTH = {
    "server.example": {"A": [SERVER], "AAAA": [SERVER6]},
    "turn.example": {"A": [TURN], "AAAA": [TURN6]},
    "stun.example": {"A": [TURN], "AAAA": [TURN6]},
}
"""What the name server says where everything has IPv6, too."""
BY_NAME, BY_IPV6 = "ws://server.example:443", f"ws://[{SERVER6}]:443"
STUN_BY_NAME = ("stun:stun.example:3478",)
RELAY_BY_NAME, TCP_RELAY_BY_NAME = "turn:turn.example:3478", "turn:turn.example:3478?transport=tcp"


IPV4 = Site(PORT_RESTRICTED)
IPV6 = Site(families=(6,))
IPV6_HOME = Site(firewall=OPEN, families=(6,))
DUAL = Site(PORT_RESTRICTED, families=(4, 6))
BLACKHOLED = Site(PORT_RESTRICTED, firewall=Firewall(ipv6="drop"), families=(4, 6))


@pytest.mark.parametrize(
    ("name", "sender", "receiver"),
    [
        pytest.param("IPv6 only with IPv6 only", IPV6, IPV6, marks=SOAK),
        ("IPv6 only with IPv6 only, both behind firewalls", IPV6_HOME, IPV6_HOME),
        pytest.param("IPv6 only with dual stack", IPV6_HOME, DUAL, marks=SOAK),
        pytest.param("dual stack with IPv6 only", DUAL, IPV6, marks=SOAK),
    ],
)
def test_ipv6_alone_is_enough_for_clients_of_a_server_by_default(
    judge: Judge, name: str, sender: Site, receiver: Site
) -> None:
    judge(Case(name, sender, receiver, server=BY_IPV6, stun=(f"stun:[{TURN6}]:3478",), path="host"))


@pytest.mark.parametrize(("name", "sender", "receiver"), [
    ("IPv4 only with IPv6 only, TURN", IPV4, IPV6_HOME),
    pytest.param("IPv6 only with IPv4 only, TURN", IPV6_HOME, IPV4, marks=SOAK),
    pytest.param("IPv4 only with IPv6 only, without firewalls, TURN", Site(), IPV6, marks=SOAK),
])  # fmt: skip
def test_a_relay_joins_ipv4_and_ipv6(judge: Judge, name: str, sender: Site, receiver: Site) -> None:
    case = Case(name, sender, receiver, server=BY_NAME, names=BOTH, stun=STUN_BY_NAME)
    judge(replace(case, turn=(RELAY_BY_NAME,), path="relay"))


@SOAK
def test_a_relay_is_reached_by_an_ipv6_address_and_a_transport_in_capitals(judge: Judge) -> None:
    blocked = Site(firewall=Firewall(udp="drop"), families=(6,))
    case = Case("IPv6 only, UDP dropped, TURN over TCP by its address", blocked, IPV6_HOME, server=BY_IPV6)
    judge(replace(case, stun=(), turn=(f"turn:[{TURN6}]:3478?transport=TCP",), path="relay"))


# Tried each time by test_server_names.py.
@SOAK
def test_ipv6_that_leads_nowhere_is_no_matter(judge: Judge) -> None:
    case = Case("IPv6 blackholed", BLACKHOLED, BLACKHOLED, server=BY_NAME, names=BOTH, stun=STUN_BY_NAME)
    judge(case)


# Tried each time by test_server_names.py.
@SOAK
def test_of_a_server_of_two_addresses_one_may_be_dead(judge: Judge) -> None:
    names = {**NAMES, "server.example": {"A": [DEAD, SERVER], "AAAA": []}}
    judge(Case("the server's first address is dead", HOME, HOME, server=BY_NAME, names=names))


def test_of_a_relay_of_two_addresses_one_may_be_dead(judge: Judge) -> None:
    names = {**NAMES, "turn.example": {"A": [TURN], "AAAA": [DEAD6]}}
    blocked = Site(PORT_RESTRICTED, firewall=Firewall(udp="drop", ipv6="drop"), families=(4, 6))
    name = "TURN's name has a dead IPv6 address"
    judge(Case(name, blocked, HOME, names=names, turn=(TCP_RELAY_BY_NAME,), path="relay"))


# In one place.


# Tried each time by test_local.py.
@SOAK
def test_two_hosts_in_one_network_go_the_short_way(judge: Judge) -> None:
    judge(Case("the same NAT", HOME, "same network", path="host"))


def test_equal_private_addresses_are_no_matter(judge: Judge) -> None:
    home = replace(HOME, lan="192.168.1")
    judge(Case("equal private addresses behind two NATs", home, home))


CARRIER = Site(PORT_RESTRICTED, carrier=PORT_RESTRICTED)
HAIRPIN_CARRIER = Site(PORT_RESTRICTED, carrier=Nat(filtering="independent", hairpin=True))


def test_a_carrier_with_a_hairpin_joins_its_customers(judge: Judge) -> None:
    judge(Case("the same carrier-grade NAT, with hairpin", HAIRPIN_CARRIER, "same carrier"))


@pytest.mark.parametrize("where", [pytest.param("same carrier", marks=SOAK), "apart in one wifi"])
def test_where_neighbours_are_kept_apart_a_relay_is_the_path(judge: Judge, where: str) -> None:
    site = CARRIER if where == "same carrier" else HOME
    judge(Case(f"{where}, TURN", site, where, turn=(UDP_RELAY,), path="relay"))  # type: ignore[arg-type]


@SOAK
@pytest.mark.parametrize("where", ["same carrier", "apart in one wifi"])
def test_where_neighbours_are_kept_apart_and_there_is_no_relay_it_says_so(judge: Judge, where: str) -> None:
    site = CARRIER if where == "same carrier" else HOME
    judge(replace(no_way(f"{where}, no TURN", site, site), receiver=where))  # type: ignore[arg-type]


# More interfaces than one.


def host_only(host: Host) -> None:
    """As a machine with virtual ones has."""
    host.plug(host.network.switch(), "192.168.56.1/24", device="vboxnet0")


def second_lan(host: Host) -> None:
    """A network of devices, with an own router that knows no way out."""
    switch = host.network.switch()
    host.network.host(f"{host.name}-device").plug(switch, "10.8.8.1/24")
    host.plug(switch, "10.8.8.5/24", device="eth1")


def split_vpn(host: Host) -> None:
    """To an office, and nowhere else."""
    host.plug(host.network.switch(), "10.66.0.2/32", device="wg0")
    host.run("ip", "route", "add", "10.66.0.0/16", "dev", "wg0")


def interface_down(host: Host) -> None:
    """A socket without a cable."""
    host.dead_end("192.168.77.5/24", device="eth1", state="down")


EXTRAS = [
    host_only,
    pytest.param(second_lan, marks=SOAK),
    pytest.param(split_vpn, marks=SOAK),
    interface_down,
]


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.__name__)
@pytest.mark.parametrize("end", ["sender", *(pytest.param(end, marks=SOAK) for end in ("receiver", "both"))])
def test_an_interface_without_a_way_out_is_no_matter(
    judge: Judge, extra: Callable[[Host], None], end: str
) -> None:
    more = replace(HOME, furnish=extra)
    ends = {"sender": (more, HOME), "receiver": (HOME, more), "both": (more, more)}[end]
    judge(Case(f"one more interface ({end}): {extra.__name__.replace('_', ' ')}", *ends))


def bridges(count: int, *, masqueraded: bool) -> Callable[[Host], None]:
    def furnish(host: Host) -> None:
        for number in range(count):
            host.dead_end(f"172.{17 + number // 200}.{number % 200}.1/24", device=f"br{number}")
        if masqueraded:
            rule = 'ip saddr 172.16.0.0/12 oifname "eth0" masquerade'
            chain = f"chain out {{ type nat hook postrouting priority srcnat; {rule}; }}"
            host.rules(f"table ip docker {{ {chain}; }}")

    return furnish


@pytest.mark.parametrize(
    ("count", "masqueraded"),
    [
        pytest.param(10, True, marks=SOAK),
        (10, False),
        pytest.param(300, False, marks=SOAK),
    ],
)
def test_bridges_of_containers_are_no_matter(judge: Judge, count: int, masqueraded: bool) -> None:
    site = replace(HOME, furnish=bridges(count, masqueraded=masqueraded))
    name = f"{count} bridges, {'' if masqueraded else 'not '}masqueraded"
    judge(Case(name, site, site))


# Small packets.

LONG_NAMES = [f"one-of-the-relays-of-a-provider-{number:02}.example" for number in range(16)]
LONG_LIST = tuple(f"turn:{name}:3478?transport=udp" for name in LONG_NAMES)
"""More URLs than fit a packet of 1,280 bytes: what the signaling server hands out comes in two."""


# Tried each time by test_server_names.py.
@SOAK
@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("end", ["sender", "receiver", "both"])
def test_a_path_of_1280_bytes_that_says_nothing_is_no_matter(judge: Judge, clamp: bool, end: str) -> None:
    narrow = Site(PORT_RESTRICTED, firewall=Firewall(clamp=clamp), mtu=1280)
    ends = {"sender": (narrow, HOME), "receiver": (HOME, narrow), "both": (narrow, narrow)}[end]
    name = f"1,280 bytes without ICMP ({end}), {'MSS clamped' if clamp else 'not clamped'}"
    names = {**NAMES, **{name: {"A": [TURN], "AAAA": []} for name in LONG_NAMES}}
    judge(Case(name, *ends, names=names, turn=LONG_LIST))
