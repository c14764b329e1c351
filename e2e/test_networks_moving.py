"""The table of networks: waiting, sleeping, moving. What changes while a transfer waits or is under way."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from e2e.laboratory import (
    HOME,
    MB,
    SOAK,
    TCP_RELAY,
    UDP_RELAY,
    Case,
    Laboratory,
    Outcome,
    Site,
    check,
)
from e2e.network import PORT_RESTRICTED, Firewall, Nat, Router
from e2e.processes import FlyxProcess

Tell = Callable[[str, Outcome], None]

SIZE = 30 * MB
RATE = 10
"""Mbit/s: SIZE takes 24 s, so that there is a middle."""

STANDSTILL = 6.0
"""Seconds without progress after a change that the machine sees itself: 3, and those of a busy machine."""

LONG_STANDSTILL = 30.0
"""The same, where only silence tells of the change."""

BLOCKED = Site(PORT_RESTRICTED, firewall=Firewall(udp="drop"))


def begin(laboratory: Laboratory, case: Case, *options: str) -> tuple[FlyxProcess, FlyxProcess]:
    """Start a transfer, and wait for its middle."""
    laboratory.build(case)
    laboratory.hosts["sender"].limit(RATE)
    sender = laboratory.send(case, *options)
    receiver = laboratory.receive(case, sender.code(), *options)
    receiver.event("progress", lambda event: event["bytes"] > case.size // 10)
    return sender, receiver


def hurry(laboratory: Laboratory) -> None:
    """The middle is over: what is left may go fast."""
    laboratory.hosts["sender"].limit(20 * RATE)


def standstill(receiver: FlyxProcess) -> float:
    """Return the longest time without progress, in seconds."""
    times, most = [], 0
    for event in receiver.named("progress"):
        if event["bytes"] > most:
            times.append(event["time"])
            most = event["bytes"]
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def end(
    laboratory: Laboratory, tell: Tell, case: Case, ends: tuple[FlyxProcess, FlyxProcess], longest: float
) -> None:
    """Wait for the end of what begin() started, and judge it."""
    outcome = laboratory.outcome(*ends, deadline=450.0)
    stood = standstill(ends[1])
    tell(f"{case.name}: stood still for {stood:.1f} s", outcome)
    check(replace(case, within=450.0), outcome)
    assert stood < longest, outcome
    # One transfer, told of once.
    assert [len(each.named("done")) for each in ends] == [1, 1]


# What a router does.


def new_address(router: Router) -> None:
    router.renumber("192.0.2.177/24")


def new_ports(router: Router) -> None:
    router.forget(ports="20000-29999")


@pytest.mark.parametrize("change", [new_address, new_ports], ids=lambda change: change.__name__)
@pytest.mark.parametrize("who", ["sender", "receiver"])
@SOAK
def test_a_nat_that_starts_anew_does_not_end_a_transfer(
    laboratory: Laboratory, tell: Tell, change: Callable[[Router], None], who: str
) -> None:
    case = Case(f"{change.__name__.replace('_', ' ')} of the {who}'s router", HOME, HOME, size=SIZE)
    ends = begin(laboratory, case)
    change(laboratory.routers[who])
    hurry(laboratory)
    end(laboratory, tell, case, ends, LONG_STANDSTILL)


@SOAK
@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.timeout(240)
def test_a_person_who_is_asked_may_think_longer_than_mappings_last(
    laboratory: Laboratory, tell: Tell, relayed: bool
) -> None:
    forgetful = Site(Nat(timeout=30), firewall=Firewall(udp="drop") if relayed else None)
    name = "120 s at the question, mappings of 30 s"
    if relayed:
        case = Case(f"{name}, relayed", forgetful, forgetful, turn=(TCP_RELAY,), path="relay")
    else:
        case = Case(f"{name}, direct", forgetful, forgetful)
    laboratory.build(case)
    sender = laboratory.send(case)
    receiver = laboratory.ask(case, sender.code())
    receiver.says("[y/N]")
    time.sleep(120.0)
    began = time.time()
    receiver.type("y\n")
    outcome = laboratory.outcome(sender, receiver, began=began)
    tell(case.name, outcome)
    check(case, outcome)


# Machines that move.


def wifi_becomes_cable(laboratory: Laboratory, who: str) -> None:
    """The wifi is gone, and a cable to the same router is there."""
    host = laboratory.hosts[who]
    lan = laboratory.lan(who)
    router = f"{host.addresses['eth0'].rpartition('.')[0]}.1"
    wired = f"{host.addresses['eth0'].rpartition('.')[0]}.77/24"
    host.cable("down")
    host.address()
    host.plug(lan, wired, device="eth1", via=router)


def vpn_comes_up(laboratory: Laboratory, who: str) -> None:
    """Everything goes through it from now on; what comes with another address is dropped there."""
    laboratory.second_way(who, "tun0", "10.66.1")


def better_network_appears(laboratory: Laboratory, who: str) -> None:
    """A cable of another network, that the system prefers. The wifi stays."""
    laboratory.second_way(who, "eth1", "10.77.1")


def new_private_address(laboratory: Laboratory, who: str) -> None:
    """DHCP has another one for it."""
    host = laboratory.hosts[who]
    host.address(f"{host.addresses['eth0'].rpartition('.')[0]}.88/24")


# Without NATs, all but one of them are tried each time by test_moves.py.
@SOAK
@pytest.mark.parametrize(
    "change", [wifi_becomes_cable, vpn_comes_up, better_network_appears, new_private_address]
)
@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.timeout(480)
def test_a_machine_that_moves_takes_its_transfer_along(
    laboratory: Laboratory, tell: Tell, change: Callable[[Laboratory, str], None], who: str
) -> None:
    case = Case(f"{change.__name__.replace('_', ' ')} ({who})", HOME, HOME, size=SIZE)
    ends = begin(laboratory, case)
    change(laboratory, who)
    hurry(laboratory)
    end(laboratory, tell, case, ends, STANDSTILL)


@SOAK
@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("seconds", [90, 400])
@pytest.mark.timeout(900)
def test_a_machine_that_sleeps_goes_on_when_it_wakes(
    laboratory: Laboratory, tell: Tell, who: str, seconds: int
) -> None:
    case = Case(f"{who} suspended for {seconds} s", HOME, HOME, size=SIZE)
    ends = begin(laboratory, case)
    sleeper = ends[0 if who == "sender" else 1].stop()
    time.sleep(seconds)
    sleeper.resume()
    hurry(laboratory)
    end(laboratory, tell, case, ends, seconds + 60.0)


@SOAK
@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.timeout(600)
def test_a_machine_that_is_offline_for_90_seconds_goes_on(
    laboratory: Laboratory, tell: Tell, who: str
) -> None:
    case = Case(f"{who} offline for 90 s", HOME, HOME, size=SIZE)
    ends = begin(laboratory, case)
    laboratory.hosts[who].cable("down")
    time.sleep(90.0)
    laboratory.hosts[who].cable("up")
    hurry(laboratory)
    end(laboratory, tell, case, ends, 150.0)


# Long round trips, and credentials that end.


@SOAK
@pytest.mark.timeout(240)
def test_a_round_trip_of_700_ms_loses_no_connection(laboratory: Laboratory, tell: Tell) -> None:
    case = Case("700 ms round trip, 60 s", Site(round_trip=700.0), Site(), size=70 * MB)
    ends = begin(laboratory, case)
    end(laboratory, tell, case, ends, 15.0)
    assert len(ends[1].named("path")) == 1, ends[1]


@SOAK
@pytest.mark.timeout(300)
def test_a_relayed_transfer_outlives_its_credentials(laboratory: Laboratory, tell: Tell) -> None:
    case = Case("TURN credentials of 60 s, transfer of 130 s", BLOCKED, HOME, turn=(TCP_RELAY,), path="relay")
    case = replace(case, serve=("--turn-ttl", "60"), size=160 * MB)
    end(laboratory, tell, case, begin(laboratory, case), LONG_STANDSTILL)


@SOAK
@pytest.mark.timeout(600)
def test_a_relay_that_is_lost_when_the_credentials_are_over_is_had_again(
    laboratory: Laboratory, tell: Tell
) -> None:
    case = Case("credentials over, then 40 s without a network", BLOCKED, HOME, turn=(TCP_RELAY,))
    case = replace(case, path="relay", serve=("--turn-ttl", "60"), size=160 * MB)
    ends = begin(laboratory, case)
    time.sleep(70.0)
    laboratory.hosts["sender"].cable("down")
    time.sleep(40.0)
    laboratory.hosts["sender"].cable("up")
    hurry(laboratory)
    end(laboratory, tell, case, ends, 100.0)


@SOAK
@pytest.mark.timeout(240)
def test_a_sender_that_has_waited_has_credentials_that_are_good(laboratory: Laboratory, tell: Tell) -> None:
    case = Case("credentials over before the receiver comes", BLOCKED, BLOCKED, turn=(UDP_RELAY, TCP_RELAY))
    case = replace(case, path="relay", serve=("--turn-ttl", "60"))
    laboratory.build(case)
    sender = laboratory.send(case)
    sender.code()
    time.sleep(75.0)
    outcome = laboratory.transfer(case, sender)
    tell(case.name, outcome)
    check(case, outcome)
