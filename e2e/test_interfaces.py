"""Which addresses of a machine are offered, with interfaces as the kernel has them; needs root."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from e2e.namespaces import inside
from e2e.network import Network

_numbers = itertools.count()

OFFERED = """
import json, time
from flyx.net.interfaces import offered_addresses
began = time.perf_counter()
print(json.dumps([offered_addresses(), time.perf_counter() - began]))
"""

ANNOUNCED = """
import json
from flyx.net.dnssd import interfaces
print(json.dumps(interfaces().addresses))
"""

PEER = """
import asyncio, json, sys
from flyx.rtc.peer import PeerConnection

async def main(role):
    loop = asyncio.get_running_loop()
    connection = PeerConnection(("control", "data"), [], lambda candidate: None)
    def say(sdp):
        print(json.dumps(sdp), flush=True)
    async def hear():
        return json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    if role == "offer":
        say(await connection.offer())
        await connection.accept_answer(await hear())
    else:
        say(await connection.answer(await hear()))
    channels = await connection.connected()
    say([connection.path().local, [each.local_address for each in connection.attempts().pairs]])
    await hear()
    await connection.close()

asyncio.run(main(sys.argv[1]))
"""


@contextmanager
def host() -> Iterator[str]:
    """A machine without interfaces but its loopback."""
    with Network() as network:
        yield network.namespace("host")


@pytest.fixture
def machine() -> Iterator[str]:
    with host() as name:
        yield name


def ip(name: str, *commands: str) -> None:
    """Run ip(8) commands in a namespace, all in one go."""
    lines = "".join(f"{command}\n" for command in commands)
    subprocess.run(["ip", "-n", name, "-batch", "-"], input=lines, text=True, check=True)


def card(number: int, *addresses: str) -> list[str]:
    """Commands that plug in a card with a cable whose other end is up."""
    names = f"card{number}", f"plug{number}"
    return [
        f"link add {names[0]} type veth peer name {names[1]}",
        f"link set {names[1]} addrgenmode none up",
        f"link set {names[0]} addrgenmode none up",
        *(f"address add {address} dev {names[0]}{' nodad' * (':' in address)}" for address in addresses),
    ]


def bridge(name: str, address: str, member: int) -> list[str]:
    """Commands that make a bridge to a container."""
    return [
        f"link add name {name} type bridge",
        f"address add {address} dev {name}",
        f"link set {name} up",
        *card(member),
        f"link set card{member} master {name}",
    ]


def ask(name: str, program: str) -> Any:
    """What a program prints on a machine, as JSON."""
    command = inside(name, [sys.executable, "-c", program])
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def offered(name: str) -> tuple[list[str], float]:
    """The addresses that a machine offers, and how many seconds it takes to find them."""
    addresses, seconds = ask(name, OFFERED)
    return addresses, seconds


def test_a_machine_without_a_network_offers_nothing(machine: str) -> None:
    assert offered(machine)[0] == []


def test_the_address_of_the_route_comes_first_and_what_is_down_or_without_a_cable_is_left_out(
    machine: str,
) -> None:
    ip(machine, *card(0, "10.1.0.2/24"), *card(1, "10.2.0.2/24"), "route add default via 10.2.0.1")
    ip(machine, *card(2, "10.3.0.2/24"), "link set card2 down")
    ip(machine, *card(3, "10.4.0.2/24"), "link set plug3 down")
    assert offered(machine)[0] == ["10.2.0.2", "10.1.0.2"]


def test_bridges_to_containers_are_left_out(machine: str) -> None:
    ip(machine, *card(0, "10.1.0.2/24"))
    for number in range(10):
        ip(machine, *bridge(f"docker{number}", f"172.{17 + number}.0.1/16", 100 + number))
    assert offered(machine)[0] == ["10.1.0.2"]
    ip(machine, "link set card0 down")
    assert len(offered(machine)[0]) > 1


def test_a_room_is_announced_on_the_network_before_bridges_to_containers_whatever_their_names(
    machine: str,
) -> None:
    for number in range(20):
        ip(machine, *bridge(f"shop{number}", f"172.{17 + number}.0.1/16", 100 + number))
    ip(machine, *card(0, "10.1.0.2/24"))
    assert ask(machine, ANNOUNCED)[0] == "10.1.0.2"


def test_deprecated_addresses_are_left_out(machine: str) -> None:
    ip(machine, *card(0, "2001:db8::2/64"), "address add 2001:db8::3/64 dev card0 nodad preferred_lft 0")
    assert offered(machine)[0] == ["2001:db8::2"]


def test_hundreds_of_interfaces_are_few_addresses_soon(machine: str) -> None:
    for number in range(300):
        ip(machine, *card(number, f"10.{number // 250}.{number % 250}.2/24"))
    addresses, seconds = offered(machine)
    assert len(addresses) == 8
    assert seconds < 1.0


def test_two_machines_and_one_cable_need_no_addresses_but_link_local_ones() -> None:
    with ExitStack() as stack:
        left, right = stack.enter_context(host()), stack.enter_context(host())
        ip(left, f"link add cable type veth peer name cable netns {right}")
        for name in (left, right):
            ip(name, "link set cable up")
        while not all("%cable" in "".join(offered(name)[0]) for name in (left, right)):
            # Until the kernel knows that nobody else has the address.
            time.sleep(0.2)
        offering, answering = (
            stack.enter_context(
                subprocess.Popen(
                    inside(name, [sys.executable, "-c", PEER, role]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
            for name, role in ((left, "offer"), (right, "answer"))
        )

        def say(to: subprocess.Popen[str], line: str) -> None:
            assert to.stdin is not None
            to.stdin.write(line)
            to.stdin.flush()

        def hear(of: subprocess.Popen[str]) -> str:
            assert of.stdout is not None
            return of.stdout.readline()

        say(answering, hear(offering))
        say(offering, hear(answering))
        for each in (offering, answering):
            kind, pairs = json.loads(hear(each))
            assert kind == "host"
            assert pairs
            assert all(address.startswith("[fe80::") for address in pairs)
        for each in (offering, answering):
            say(each, "0\n")
            assert each.wait(20) == 0
