"""Connections that break in the middle of a transfer, and go on over new ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.network import Network
from e2e.processes import Flyx, FlyxProcess, names_in, need, sha256, write_random, write_text

MB = 1_000_000
SIZE = 60 * MB
RATE = 20
"""Mbit/s: SIZE takes 24 s, so that there is a middle."""

LONG_OUTAGE = 200.0
"""Seconds in which a repaired transfer must end."""


HOUR = 3600.0
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
"""Where Debian's package puts it: one, of the architecture of the machine."""


class Clock:
    """The wall clock of the processes that have its environment. Monotonic time goes on as it does."""

    def __init__(self, file: Path) -> None:
        need("libfaketime, of the package faketime", bool(LIBRARIES))
        self._file = file
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            # Seconds for which each of them takes what it has read of the file to be true.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: float) -> None:
        """Let it differ from the real one by so many seconds, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.0f}")
        os.replace(new, self._file)


ADDRESSES = {"left": "10.91.0.1/24", "right": "10.91.0.2/24", "third": "10.91.0.3/24"}


class Scene:
    """A server and a sender on the left, receivers on the other hosts: a network of their own."""

    def __init__(self, network: Network, flyx: Flyx, directory: Path) -> None:
        switch = network.switch()
        self.hosts = {name: network.host(name).plug(switch, at) for name, at in ADDRESSES.items()}
        self.hosts["left"].limit(RATE)
        self._flyx = flyx
        self._directory = directory
        listen = ["--host", "10.91.0.1", "--port", "0", "--stun", "none", "--log-level", "warning"]
        self.server = self._start("left", "serve", *listen)
        self.url = self.server.prints(r"ws://\S+(?=\n)")[0]
        self.source = write_random(directory / "file", SIZE)

    def send(self, *arguments: str | Path) -> FlyxProcess:
        return self._start("left", "send", "--server", self.url, "--json", *arguments, self.source)

    def receive(
        self, sender: FlyxProcess, directory: str, *arguments: str, host: str = "right"
    ) -> FlyxProcess:
        options = ["--server", self.url, "--json", "--yes", "-o", self._directory / directory, *arguments]
        return self._start(host, "receive", *options, sender.code())

    def _start(self, host: str, *arguments: str | Path) -> FlyxProcess:
        return self._flyx.adopt(self.hosts[host].start(arguments, self._flyx.environment, self._directory))

    def hurry(self) -> None:
        """The middle is over: what is left may go fast."""
        self.hosts["left"].limit(20 * RATE)

    def arrived(self, directory: str) -> bool:
        return sha256(self._directory / directory / "file") == sha256(self.source)


@pytest.fixture
def clock(flyx: Flyx, tmp_path: Path) -> Clock:
    """That of all processes that are started from now on."""
    clock = Clock(tmp_path / "clock")
    flyx.environment |= clock.environment
    return clock


@pytest.fixture
def scene(flyx: Flyx, tmp_path: Path) -> Iterator[Scene]:
    with Network() as network:
        yield Scene(network, flyx, tmp_path)
        flyx.close()


def in_the_middle(receiver: FlyxProcess) -> None:
    receiver.event("progress", lambda event: event["bytes"] > SIZE // 10)


def outage(scene: Scene, seconds: float) -> None:
    """The time is the condition here: so long there is no cable."""
    scene.hosts["right"].cable("down")
    time.sleep(seconds)
    scene.hosts["right"].cable("up")


def test_a_cable_that_is_out_for_10_seconds_is_not_even_noticed(scene: Scene, tmp_path: Path) -> None:
    sender = scene.send()
    receiver = scene.receive(sender, "in")
    in_the_middle(receiver)
    outage(scene, 10.0)
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")
    assert not [e for e in receiver.named("peer") if e["state"] == "lost"]


@pytest.mark.soak
def test_a_cable_that_is_out_for_60_seconds_costs_a_new_connection(scene: Scene, tmp_path: Path) -> None:
    sender = scene.send()
    receiver = scene.receive(sender, "in")
    in_the_middle(receiver)
    outage(scene, 60.0)
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")
    assert receiver.event("peer", state="lost")
    assert sender.event("peer", state="lost")
    # It is one transfer, told of once.
    assert len(receiver.named("done")) == len(receiver.named("file")) == len(receiver.named("manifest")) == 1
    assert receiver.event("done")["resumed"] == 0
    assert len(receiver.named("path")) == 2


def test_what_was_compared_before_a_connection_was_lost_is_not_compared_again(
    scene: Scene, tmp_path: Path
) -> None:
    write_random(tmp_path / "in" / "file", SIZE)
    sender = scene.send()
    receiver = scene.receive(sender, "in", "--checksum", "--overwrite")
    in_the_middle(receiver)
    scene.hosts["right"].address("10.91.0.77/24")
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")
    assert receiver.event("peer", state="lost")
    for process in (sender, receiver):
        assert len([e for e in process.named("notice") if "ompar" in e["message"]]) == 1


def test_a_receiver_whose_address_changes_goes_on_from_the_new_one(scene: Scene, tmp_path: Path) -> None:
    sender = scene.send()
    receiver = scene.receive(sender, "in")
    in_the_middle(receiver)
    scene.hosts["right"].address("10.91.0.77/24")
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")
    assert names_in(tmp_path / "in") == ["file"]


def test_a_compressed_transfer_goes_on_from_a_new_address_as_well(scene: Scene) -> None:
    write_text(scene.source, 2 * SIZE)
    sender = scene.send("--compress", "on")
    receiver = scene.receive(sender, "in")
    in_the_middle(receiver)
    scene.hosts["right"].address("10.91.0.77/24")
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")
    # What was spared before the repair counts as well.
    assert sender.event("done")["spared"] > 2 * SIZE * 0.4


def test_the_repair_of_one_receivers_connection_leaves_the_others_alone(scene: Scene) -> None:
    sender = scene.send("--receivers", "2")
    lost = scene.receive(sender, "lost")
    sender.event("peer", peer=1, state="joined")
    other = scene.receive(sender, "other", host="third")
    for receiver in (lost, other):
        in_the_middle(receiver)
    # What is left for the other takes longer than to notice the loss.
    scene.hosts["left"].limit(RATE // 4)
    scene.hosts["right"].cable("down")
    for end in (lost, sender):
        end.event("peer", peer=1, state="lost")
    assert other.named("done") == []
    scene.hurry()
    other.ends(0, LONG_OUTAGE)
    assert sender.event("done")["peer"] == 2
    scene.hosts["right"].cable("up")
    lost.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("lost")
    assert scene.arrived("other")
    assert [event["peer"] for event in sender.named("peer") if event["state"] == "lost"] == [1]
    # It kept its one connection and what came over it.
    assert len(other.named("path")) == 1
    assert not [event for event in other.named("peer") if event["state"] == "lost"]
    assert other.event("done")["resumed"] == 0


def test_a_transfer_under_way_outlives_its_server(scene: Scene) -> None:
    sender = scene.send()
    receiver = scene.receive(sender, "in")
    in_the_middle(receiver)
    scene.server.send_signal(signal.SIGKILL)
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")


def test_when_no_connection_can_be_made_what_arrived_is_kept(scene: Scene, tmp_path: Path) -> None:
    sender = scene.send("--reconnect", "5")
    receiver = scene.receive(sender, "in", "--reconnect", "5")
    in_the_middle(receiver)
    scene.hosts["right"].cable("down")
    receiver.fails(6, "connection_lost", 90.0)
    assert "nothing was heard from the sender" in receiver.event("error")["message"]
    assert sender.event("peer", state="failed")["code"] == "connection_lost"
    assert names_in(tmp_path / "in") == [".flyx"]
    scene.hosts["right"].cable("up")
    scene.hosts["right"].reach("10.91.0.1", int(scene.url.rpartition(":")[2]))
    scene.hurry()
    again = scene.receive(sender, "in")
    again.ends(0, LONG_OUTAGE)
    sender.ends(0)
    assert scene.arrived("in")
    assert again.event("done")["resumed"] > SIZE // 20


def tells_time(process: FlyxProcess, matches: Callable[[float], bool]) -> None:
    """Wait for progress at such a time of the process's own clock."""
    process.event("progress", lambda event: event["bytes"] < event["total"] and matches(event["time"]))


def test_a_clock_that_jumps_an_hour_ahead_and_two_back_disturbs_nothing(clock: Clock, scene: Scene) -> None:
    sender = scene.send("--receivers", "2")
    receiver = scene.receive(sender, "in")
    in_the_middle(receiver)
    ends = (sender, receiver)
    began = receiver.events[0]["time"]
    clock.set(HOUR)
    for end in ends:
        tells_time(end, lambda time: time > began + HOUR)
    clock.set(-HOUR)
    for end in ends:
        tells_time(end, lambda time: time < began - HOUR / 2)
    scene.hurry()
    receiver.ends(0, LONG_OUTAGE)
    # The server's clock has jumped as well: the room is still there.
    scene.receive(sender, "again").ends(0)
    sender.ends(0)
    assert scene.arrived("in")
    assert scene.arrived("again")
    for end in ends:
        assert not [event for event in end.named("peer") if event["state"] == "lost"]
        assert end.named("notice") == []
        # How long it took is no matter of the wall clock.
        assert all(0 < done["seconds"] < HOUR / 2 for done in end.named("done"))
