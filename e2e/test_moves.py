"""Computers that sleep, and that change their networks, in the middle of a transfer: it goes on by itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from e2e.network import Host, Network
from e2e.processes import Flyx, FlyxProcess, sha256, write_random

MB = 1_000_000
SIZE = 60 * MB
RATE = 20
"""Mbit/s: SIZE takes 24 s, so that there is a middle."""

END = 120.0
"""Seconds in which a transfer that was repaired must end."""

ADDRESSES = {"left": "10.91.0.1/24", "right": "10.91.0.2/24"}
SECOND_ADDRESSES = {"left": "10.92.0.1/24", "right": "10.92.0.2/24"}

STANDSTILL = 3.0
"""Seconds without progress that a change of networks may cost."""


class Scene:
    """A server and one end on the left, the end that moves on the right."""

    def __init__(self, network: Network, flyx: Flyx, directory: Path, mover: str) -> None:
        """Args:
        network: where both are.
        flyx: its processes end with it.
        directory: of everything.
        mover: "sender" or "receiver".
        """
        self._network = network
        switch = network.switch()
        self.hosts = {name: network.host(name).plug(switch, at) for name, at in ADDRESSES.items()}
        for host in self.hosts.values():
            host.limit(RATE)
        self._flyx = flyx
        self._directory = directory
        self._places = {mover: "right"}
        listen = ["--host", "0.0.0.0", "--port", "0", "--stun", "none", "--log-level", "warning"]
        server = self._start("left", "serve", *listen)
        port = server.prints(r"ws://\S+:(\d+)\n")[1]
        self._server = f"ws://10.91.0.1:{port}"
        self.source = write_random(directory / "file", SIZE)
        self.sender = self._end("sender", "send", self.source)
        self.receiver = self._end("receiver", "receive", "--yes", "-o", directory / "in", self.sender.code())
        self.mover, self.other = self.sender, self.receiver
        if mover == "receiver":
            self.mover, self.other = self.receiver, self.sender

    def _end(self, role: str, command: str, *arguments: str | Path) -> FlyxProcess:
        host = self._places.get(role, "left")
        return self._start(host, command, "--server", self._server, "--json", *arguments)

    def _start(self, host: str, *arguments: str | Path) -> FlyxProcess:
        return self._flyx.adopt(self.hosts[host].start(arguments, self._flyx.environment, self._directory))

    def reach_the_middle(self) -> None:
        self.receiver.event("progress", lambda event: event["bytes"] > SIZE // 10)

    def hurry(self) -> None:
        """The middle is over: what is left may go fast."""
        for host in self.hosts.values():
            host.limit(20 * RATE)

    def plug_in(self, *, strict: bool = False) -> None:
        """Give the right a second cable to the left, which all goes through from now on.

        Args:
            strict: As with a VPN, what comes over it from the address of the first one is dropped, and there
                is no ARP. (Linux would ask for the gateway in the name of the address that sends through it
                first, that of the first cable, and get no answer for seconds.)
        """
        switch = self._network.switch()
        for name, address in SECOND_ADDRESSES.items():
            self.hosts[name].plug(switch, address, device="second")
        left, right = self.hosts["left"], self.hosts["right"]
        # Linux sees to the carriers of new interfaces once a second, and drops what is sent before.
        for host in (left, right):
            while _interface(host)["operstate"] != "UP":
                time.sleep(0.05)
        gateway = SECOND_ADDRESSES["left"].split("/")[0]
        if strict:
            left.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.second.rp_filter=1")
            at = ["lladdr", _interface(left)["address"], "dev", "second", "nud", "permanent"]
            right.run("ip", "neighbour", "replace", gateway, *at)
        there = ADDRESSES["left"].replace("/24", "/32")
        right.run("ip", "route", "replace", there, "via", gateway, "dev", "second")

    def arrives(self) -> None:
        self.receiver.ends(0, END)
        self.sender.ends(0)
        assert sha256(self._directory / "in" / "file") == sha256(self.source)

    def standstill(self) -> float:
        """The longest time in which nothing arrived."""
        progress = self.receiver.named("progress")
        grown = [after for before, after in pairwise(progress) if after["bytes"] > before["bytes"]]
        return max(after["time"] - before["time"] for before, after in pairwise(grown))

    def why_lost(self, end: FlyxProcess) -> str:
        """Why this end lost its connection: once."""
        [lost] = [event for event in end.named("peer") if event["state"] == "lost"]
        return str(lost["message"])


def _interface(host: Host) -> dict[str, str]:
    details: list[dict[str, str]] = json.loads(host.run("ip", "-j", "link", "show", "second"))
    return details[0]


@pytest.fixture(params=["sender", "receiver"])
def scene(request: pytest.FixtureRequest, flyx: Flyx, tmp_path: Path) -> Iterator[Scene]:
    with Network() as network:
        yield Scene(network, flyx, tmp_path, request.param)
        flyx.close()


def renumbered(scene: Scene) -> None:
    scene.hosts["right"].address("10.91.0.77/24")


def from_wifi_to_cable(scene: Scene) -> None:
    scene.plug_in()
    scene.hosts["right"].cable("down")
    scene.hosts["right"].address()


def vpn(scene: Scene) -> None:
    """All that leaves goes through it from now on, and what does not come from its address is dropped."""
    scene.plug_in(strict=True)


CHANGED = "the network of this computer has changed"


OFTEN = {("sender", from_wifi_to_cable), ("receiver", renumbered), ("receiver", vpn)}
"""Who moves, and how: what is tried each time."""


@pytest.mark.parametrize(
    ("scene", "moves"),
    [
        pytest.param(who, moves, marks=[] if (who, moves) in OFTEN else pytest.mark.soak)
        for who in ("sender", "receiver")
        for moves in (renumbered, from_wifi_to_cable, vpn)
    ],
    indirect=["scene"],
)
def test_a_change_of_networks_costs_seconds(scene: Scene, moves: Callable[[Scene], None]) -> None:
    scene.reach_the_middle()
    moves(scene)
    scene.mover.event("path", lambda _: len(scene.mover.named("path")) > 1)
    scene.hurry()
    scene.arrives()
    assert scene.standstill() < STANDSTILL
    assert CHANGED in scene.why_lost(scene.mover)
    assert "has lost the connection" in scene.why_lost(scene.other)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_an_end_that_sleeps_for_90_seconds_goes_on(scene: Scene) -> None:
    scene.reach_the_middle()
    scene.mover.stop()
    # The time is the condition here.
    time.sleep(90.0)
    scene.hurry()
    scene.mover.resume()
    scene.arrives()
    why = scene.why_lost(scene.mover)
    assert re.search("this computer slept, or this program was stopped, for [89][0-9] s", why), why
    assert "nothing was heard from the " in scene.why_lost(scene.other)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_an_end_that_is_offline_for_90_seconds_goes_on(scene: Scene) -> None:
    scene.reach_the_middle()
    scene.hosts["right"].cable("down")
    for end in (scene.mover, scene.other):
        end.event("peer", state="lost")
    # The time is the condition here.
    time.sleep(90.0)
    scene.hurry()
    scene.hosts["right"].cable("up")
    began = time.monotonic()
    scene.arrives()
    # It does not wait for the next try.
    assert time.monotonic() - began < END / 4
