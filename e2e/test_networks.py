"""The table of networks, row by row: NATs with each other, and networks that let little through.

Each case says by which path a transfer has to go there, and, where there is none, what has to be said.
e2e/laboratory.py builds them. The run ends with the table.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.laboratory import (
    HOME,
    SOAK,
    TCP_RELAY,
    TLS_RELAY,
    UDP_RELAY,
    Case,
    Path_,
    Site,
    no_way,
)
from e2e.network import ADDRESS_RESTRICTED, FULL_CONE, PORT_RESTRICTED, SYMMETRIC, Firewall

Judge = Callable[[Case], None]

SITES = {
    "public": Site(),
    "full cone": Site(FULL_CONE),
    "address-restricted": Site(ADDRESS_RESTRICTED),
    "port-restricted": HOME,
    "carrier-grade": Site(PORT_RESTRICTED, carrier=PORT_RESTRICTED),
    "symmetric": Site(SYMMETRIC),
    "UDP dropped": Site(PORT_RESTRICTED, firewall=Firewall(udp="drop")),
    "UDP rejected": Site(PORT_RESTRICTED, firewall=Firewall(udp="reject")),
    "only 80 and 443": Site(PORT_RESTRICTED, firewall=Firewall(udp="drop", tcp=(80, 443))),
    "only a proxy": Site(
        PORT_RESTRICTED,
        firewall=Firewall(everything="reject"),
        proxy="http",
        variables={"HTTPS_PROXY": "http://PROXY", "HTTP_PROXY": "http://PROXY"},
    ),
}

REACHABLE = ("public", "full cone", "address-restricted", "port-restricted", "carrier-grade")
STRICT = ("port-restricted", "carrier-grade")
"""Behind these, nothing is heard from a port that was not sent to; of a symmetric NAT nobody knows which."""


def by_nature(sender: str, receiver: str) -> Path_:
    """Return what two NATs allow without a relay."""
    kinds = {sender, receiver}
    if kinds == {"symmetric"} or ("symmetric" in kinds and kinds & set(STRICT)):
        return "none"
    return "direct"


def pair(sender: str, receiver: str, *, relay: bool) -> Case:
    name = f"{sender} with {receiver}, {'' if relay else 'no '}TURN"
    sites = SITES[sender], SITES[receiver]
    if relay:
        path: Path_ = "relay" if by_nature(sender, receiver) == "none" else "direct"
        return Case(name, *sites, turn=(UDP_RELAY,), path=path)
    return no_way(name, *sites) if by_nature(sender, receiver) == "none" else Case(name, *sites)


OFTEN = {
    ("full cone", "address-restricted", False),
    ("port-restricted", "carrier-grade", True),
    ("symmetric", "public", False),
    ("symmetric", "port-restricted", True),
}
"""Two NATs, and whether there is a relay: what is tried each time."""

PAIRS = [(sender, receiver) for sender in REACHABLE for receiver in REACHABLE]
PAIRS += [(kind, "symmetric") for kind in REACHABLE] + [("symmetric", kind) for kind in REACHABLE]
PAIRS.append(("symmetric", "symmetric"))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(pair(*kinds, relay=relay), marks=[] if (*kinds, relay) in OFTEN else SOAK)
        for kinds in PAIRS
        for relay in (False, True)
        if by_nature(*kinds) == "direct" or relay
    ],
    ids=str,
)
def test_nats_that_some_path_crosses(judge: Judge, case: Case) -> None:
    judge(case)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(pair(*kinds, relay=False), marks=[] if (*kinds, True) in OFTEN else SOAK)
        for kinds in PAIRS
        if by_nature(*kinds) == "none"
    ],
    ids=str,
)
def test_nats_that_only_a_relay_crosses_and_there_is_none(judge: Judge, case: Case) -> None:
    judge(case)


@pytest.mark.parametrize("blocked", ["UDP dropped", "UDP rejected", "only 80 and 443"])
@SOAK
def test_without_udp_and_without_a_relay_it_says_so(judge: Judge, blocked: str) -> None:
    judge(no_way(f"{blocked} with port-restricted, no TURN", SITES[blocked], HOME))


LAST_RESORT = ("--relay", "2MB")
"""Options of `flyx serve` that let transfers go through the signaling connection itself, at such a rate."""


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        # What has no other way is tried each time by test_relay.py.
        pytest.param("symmetric", "symmetric", marks=SOAK),
        pytest.param("UDP dropped", "port-restricted", marks=SOAK),
        pytest.param("UDP dropped", "UDP rejected", marks=SOAK),
        pytest.param("port-restricted", "only 80 and 443", marks=SOAK),
        ("only a proxy", "port-restricted"),
        pytest.param("only a proxy", "only a proxy", marks=SOAK),
    ],
)
def test_the_signaling_connection_is_the_last_resort(judge: Judge, sender: str, receiver: str) -> None:
    name = f"{sender} with {receiver}, no TURN, a server with --relay"
    judge(Case(name, SITES[sender], SITES[receiver], serve=LAST_RESORT, path="tunnel"))


@pytest.mark.parametrize(
    ("blocked", "relay"),
    [
        ("UDP dropped", TCP_RELAY),
        pytest.param("UDP rejected", TLS_RELAY, marks=SOAK),
        ("only 80 and 443", TLS_RELAY),
    ],
)
@pytest.mark.parametrize("blocked_end", ["sender", pytest.param("receiver", marks=SOAK)])
def test_without_udp_a_relay_over_tcp_or_tls_is_the_path(
    judge: Judge, blocked: str, relay: str, blocked_end: str
) -> None:
    ends = (SITES[blocked], HOME) if blocked_end == "sender" else (HOME, SITES[blocked])
    name = f"{blocked} ({blocked_end}), TURN over {'TLS' if relay == TLS_RELAY else 'TCP'}"
    judge(Case(name, *ends, turn=(UDP_RELAY, relay), path="relay"))


# Tried each time by test_turn.py.
@SOAK
@pytest.mark.parametrize("blocked_end", ["sender", "receiver", "both"])
@pytest.mark.parametrize("round_trip", [20, 100, 300])
def test_a_relay_that_is_far_away_is_waited_for(judge: Judge, round_trip: int, blocked_end: str) -> None:
    far = Site(PORT_RESTRICTED, firewall=Firewall(udp="drop"), round_trip=round_trip)
    ends = {"sender": (far, HOME), "receiver": (HOME, far), "both": (far, far)}[blocked_end]
    name = f"UDP dropped ({blocked_end}), {round_trip} ms from TURN over TCP"
    judge(Case(name, *ends, turn=(UDP_RELAY, TCP_RELAY), path="relay"))


@pytest.mark.parametrize(
    ("end", "relay"),
    [
        ("sender", TCP_RELAY),
        # Over TLS it is tried each time by test_turn.py.
        pytest.param("receiver", TLS_RELAY, marks=SOAK),
        pytest.param("sender", TLS_RELAY, marks=SOAK),
        pytest.param("receiver", TCP_RELAY, marks=SOAK),
        pytest.param("both", TCP_RELAY, marks=SOAK),
        pytest.param("both", TLS_RELAY, marks=SOAK),
    ],
)
def test_a_relay_is_reached_through_the_only_way_out_a_proxy(judge: Judge, end: str, relay: str) -> None:
    only = SITES["only a proxy"]
    ends = {"sender": (only, HOME), "receiver": (HOME, only), "both": (only, only)}[end]
    name = f"only a proxy ({end}), TURN over {'TLS' if relay == TLS_RELAY else 'TCP'}"
    judge(Case(name, *ends, turn=(UDP_RELAY, relay), path="relay"))


def behind_socks(**variables: str) -> Site:
    nothing = Firewall(everything="reject")
    return Site(PORT_RESTRICTED, firewall=nothing, proxy="socks", variables=variables)


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"ALL_PROXY": "socks5h://PROXY"}, id="ALL_PROXY"),
        pytest.param({"HTTPS_PROXY": "socks5://PROXY"}, id="HTTPS_PROXY", marks=SOAK),
    ],
)
def test_a_relay_is_reached_through_a_socks_proxy(judge: Judge, variables: dict[str, str]) -> None:
    name = f"only a SOCKS proxy, in {next(iter(variables))}, TURN over TCP"
    judge(Case(name, behind_socks(**variables), HOME, turn=(TCP_RELAY,), path="relay"))


# Tried each time by test_server_names.py.
@SOAK
def test_a_dead_proxy_that_is_not_needed_is_no_matter(judge: Judge) -> None:
    dead = {"HTTPS_PROXY": "http://PROXY", "HTTP_PROXY": "http://PROXY"}
    judge(Case("a dead proxy that is not needed", Site(PORT_RESTRICTED, variables=dead), HOME))
