"""The table of networks: names, and servers that are dead, refuse or are not believed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from e2e.laboratory import (
    DEAD,
    HOME,
    NAMES,
    SOAK,
    STUN_URL,
    TCP_RELAY,
    TLS_RELAY,
    TURN,
    UDP_RELAY,
    Case,
    Laboratory,
    Outcome,
    Site,
    check,
    no_way,
)
from e2e.network import PORT_RESTRICTED, SYMMETRIC, Firewall

Judge = Callable[[Case], None]
Tell = Callable[[str, Outcome], None]

BY_NAME = "ws://server.example:443"
BLOCKED = Site(PORT_RESTRICTED, firewall=Firewall(udp="drop"))
STRICT = Site(SYMMETRIC)


@contextmanager
def later(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something after so much time, at the end of the block at the latest."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# Tried each time by test_server_names.py.
@SOAK
@pytest.mark.parametrize(("trouble", "seconds"), [("servfail", 5.0), ("silent", 20.0)])
@pytest.mark.parametrize("end", ["receiver", "both"])
def test_names_that_cannot_be_looked_up_at_first_are_looked_up_again(
    laboratory: Laboratory, tell: Tell, trouble: str, seconds: float, end: str
) -> None:
    name = f"DNS {trouble} for {seconds:.0f} s ({end})"
    case = Case(name, HOME, HOME, server=BY_NAME, stun=(f"stun:{TURN}:3478",))

    def mend() -> None:
        laboratory.names.set(case.names)

    laboratory.build(case)
    sender = None
    if end == "receiver":
        sender = laboratory.send(case)
        sender.code()
    laboratory.names.set({"*": trouble})
    with later(seconds, mend):
        outcome = laboratory.transfer(case, sender)
    tell(name, outcome)
    check(case, outcome)


NOT_NEEDED = [
    pytest.param("STUN's name is answered with silence", ("stun:stun.example:3478",), ()),
    pytest.param("STUN dead", (f"stun:{DEAD}:3478",), (), marks=SOAK),
    pytest.param("the first of two STUN servers dead", (f"stun:{DEAD}:3478", STUN_URL), ()),
    pytest.param("TURN dead", (STUN_URL,), (f"turn:{DEAD}:3478", f"turn:{DEAD}:3478?transport=tcp")),
    pytest.param(
        "TURN's name is answered with silence",
        (STUN_URL,),
        ("turn:turn.example:3478",),
        marks=SOAK,
    ),
]


@pytest.mark.parametrize(("name", "stun", "turn"), NOT_NEEDED)
def test_servers_that_are_not_needed_cost_nothing(
    laboratory: Laboratory, tell: Tell, name: str, stun: tuple[str, ...], turn: tuple[str, ...]
) -> None:
    names = {**NAMES, "stun.example": "silent", "turn.example": "silent"}
    sites = (HOME, HOME) if STUN_URL in stun else (Site(), Site())
    case = Case(f"{name}, not needed", *sites, names=names, stun=stun, turn=turn, within=20.0)
    outcome = laboratory.run(case)
    tell(case.name, outcome)
    check(case, outcome)
    # Nobody waits for them at the end either.
    assert outcome.over <= 5.0, outcome


WRONG = "another secret"
NEEDED = [
    ("TURN dead", {"turn": (f"turn:{DEAD}:3478",)}, (f"the relay {DEAD} did not answer",)),
    (
        "TURN dead by TCP",
        {"turn": (f"turn:{DEAD}:3478?transport=tcp",)},
        (f"the relay {DEAD} did not answer",),
    ),
    (
        "TURN with another secret",
        {"turn": (UDP_RELAY,), "secret": WRONG},
        (f"the relay {TURN} refused: wrong credentials (401)",),
    ),
    (
        "TURN by TLS that is not trusted",
        {"turn": (TLS_RELAY,), "trusted": False},
        ("the relay turn.example", "certificate"),
    ),
    (
        "TURN's name does not exist",
        {"turn": ("turn:nowhere.example:3478",)},
        ("the relay nowhere.example was not found",),
    ),
]


# One with another secret is tried each time by test_doctor.py.
@SOAK
@pytest.mark.parametrize(("name", "servers", "words"), NEEDED, ids=[row[0] for row in NEEDED])
def test_a_relay_that_is_needed_and_cannot_be_had_is_named(
    judge: Judge, name: str, servers: dict[str, str], words: tuple[str, ...]
) -> None:
    case = no_way(f"{name}, needed", STRICT, STRICT, *words)
    judge(replace(case, **servers))  # type: ignore[arg-type]


def test_of_many_relays_one_that_works_is_enough(judge: Judge) -> None:
    dead = (f"turn:{DEAD}:3478", f"turn:{DEAD}:3478?transport=tcp")
    case = Case("the third TURN URL alone works", BLOCKED, HOME, turn=(*dead, TCP_RELAY), path="relay")
    judge(case)


@SOAK
def test_a_server_that_nobody_has_is_told_of(judge: Judge) -> None:
    names = {**NAMES, "server.example": {"A": [DEAD], "AAAA": []}}
    case = Case("the server is dead", HOME, HOME, server=BY_NAME, names=names, path="none", exits=(3, None))
    judge(replace(case, words=("does not answer",), within=20.0))


@pytest.mark.parametrize("addresses", ["IPv4", pytest.param("IPv6", marks=SOAK), "link-local"])
def test_two_machines_and_one_cable_need_no_server(
    laboratory: Laboratory, tell: Tell, addresses: str
) -> None:
    own = {"IPv4": "10.0.7.{}/24", "IPv6": "fd00:7::{}/64", "link-local": ""}[addresses]
    cable = laboratory.network.switch()
    for number, name in enumerate(("sender", "receiver"), 1):
        laboratory.stand(name, *([own.format(number)] if own else []), switch=cable)
    case = Case(f"a cable, no server, {addresses}", Site(), Site(), server="", path="host")
    outcome = laboratory.transfer(case)
    tell(case.name, outcome)
    check(case, outcome)
