"""No server at all: hosts on one switch, where nobody has set anything up. Real processes and multicast."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from e2e.network import Network
from e2e.processes import LONG, Flyx, FlyxProcess, need, sha256, write_random, write_thin
from flyx.client.waiting import LOOK_AROUND_FOR
from flyx.signaling.local import LOCAL_PORTS

ROOT = Path(__file__).parents[1]

ADDRESSES = {"left": "10.91.0.1", "right": "10.91.0.2", "third": "10.91.0.3"}

SIZE = 3_000_000

# What two hosts may have, and what a receiver then finds the sender at.
NETWORKS = {
    "IPv4": (["192.168.7.1/24", "192.168.7.2/24"], "192.168.7.1"),
    "IPv6": (["fd00:7::1/64", "fd00:7::2/64"], "fd00:7::1"),
    "IPv4 that nobody has given out": (["169.254.7.1/16", "169.254.7.2/16"], "169.254.7.1"),
}


class Scene:
    """The network, and a file to be sent."""

    def __init__(self, network: Network, flyx: Flyx, directory: Path) -> None:
        switch = network.switch()
        self.hosts = {name: network.host(name).plug(switch, f"{at}/24") for name, at in ADDRESSES.items()}
        self._flyx = flyx
        self._directory = directory
        self.file = write_random(directory / "out" / "file.bin", SIZE)

    def start(self, host: str, *arguments: str | Path) -> FlyxProcess:
        """Run flyx on a host, as somebody does who has configured nothing."""
        process = self.hosts[host].start(arguments, self._flyx.environment, self._directory)
        return self._flyx.adopt(process)

    def addresses(self, host: str, *addresses: str) -> None:
        """Give a host these addresses, with their prefixes, besides the IPv6 one that it makes itself.

        Args:
            host: which.
            addresses: none of them: it has its own alone (fe80::); only the IPv4 ones: it has no IPv6.
        """
        only_v4 = bool(addresses) and not any(":" in address for address in addresses)
        self.hosts[host].address()
        self.run(host, "sysctl", "-q", "-w", f"net.ipv6.conf.eth0.disable_ipv6={int(only_v4)}")
        for state in ("down", "up"):
            self.interface(host, state)
        self.hosts[host].address(*addresses)

    def interface(self, host: str, state: str) -> None:
        """Switch the interface of a host off ("down") or on ("up")."""
        self.run(host, "ip", "link", "set", "eth0", state)

    def run(self, host: str, *command: str) -> None:
        self.hosts[host].run(*command)

    def send(self, host: str, *options: str) -> FlyxProcess:
        return self.start(host, "send", "--json", *options, self.file)

    def receive(self, host: str, code: str, name: str = "in", *options: str) -> FlyxProcess:
        """Receive, for one who was told the code and nothing else."""
        return self.start(host, "receive", "--json", "--yes", "-o", self._directory / name, *options, code)

    def arrived(self, name: str = "in") -> bool:
        return sha256(self._directory / name / "file.bin") == sha256(self.file)


@pytest.fixture
def scene(flyx: Flyx, tmp_path: Path) -> Iterator[Scene]:
    with Network() as network:
        yield Scene(network, flyx, tmp_path)
        flyx.close()


@contextmanager
def program(scene: Scene, host: str, module: str) -> Iterator[tuple[Callable[[], Any], Callable[[], None]]]:
    """Run one of ours that is no flyx; yields what waits for its next line, and what gives it one."""
    command = scene.hosts[host].on(sys.executable, "-m", module)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True) as started:
        assert started.stdout is not None
        assert started.stdin is not None
        lines, keys = started.stdout, started.stdin

        def tell() -> None:
            keys.write("\n")
            keys.flush()

        try:
            yield lambda: json.loads(lines.readline()), tell
        finally:
            started.kill()


@pytest.mark.parametrize("kind", NETWORKS)
def test_two_hosts_on_one_switch_need_nothing(scene: Scene, kind: str) -> None:
    given, address = NETWORKS[kind]
    for host, own in zip(("left", "right"), given, strict=True):
        scene.addresses(host, own)
    sender = scene.send("left")
    code = sender.code()
    assert sender.event("room")["local"] is True
    receiver = scene.receive("right", code)
    room = receiver.event("room")
    assert room["local"] is True
    assert urlsplit(room["server"]).hostname == address
    receiver.ends(0)
    sender.ends(0)
    assert scene.arrived()
    assert "Others may not find" not in sender.out


def test_two_hosts_that_have_link_local_addresses_alone_need_nothing(scene: Scene) -> None:
    for host in ("left", "right"):
        scene.addresses(host)
    sender = scene.send("left")
    receiver = scene.receive("right", sender.code())
    at = urlsplit(receiver.event("room")["server"]).hostname
    assert at is not None
    assert ip_address(at).is_link_local
    # It leads nowhere without the interface.
    assert "%" in at
    for each in (receiver.ends(0), sender.ends(0)):
        path = each.event("path")
        assert (path["local"], path["remote"], path["family"]) == ("host", "host", 6)
    assert scene.arrived()


def test_hosts_whose_addresses_are_of_other_networks_connect_by_their_link_local_ones(scene: Scene) -> None:
    for host, own in (("left", ["192.168.7.1/24"]), ("right", ["10.0.7.2/24"]), ("third", [])):
        scene.addresses(host, *own)
        scene.run(host, "sysctl", "-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=0")
    sender = scene.send("left", "--receivers", "2")
    code = sender.code()
    for host in ("right", "third"):
        assert scene.receive(host, code, f"in-{host}").ends(0).event("path")["family"] == 6
        assert scene.arrived(f"in-{host}")
    sender.ends(0)


def agreed(scene: Scene, host: str) -> FlyxProcess:
    """A sender in the room that receivers were told of beforehand."""
    return scene.send(host, "--local", "--room", "K7M2QX", "--code", "nobody guesses this")


@pytest.mark.parametrize("host", ["right", "left"])
def test_a_receiver_that_is_first_hears_of_its_sender_at_once(scene: Scene, host: str) -> None:
    receiver = scene.receive(host, "K7M2QX-nobody-guesses-this", "in", "--local", "--wait")
    receiver.event("notice", message="Waiting for a sender under the code K7M2QX")
    sender = agreed(scene, "left")
    began = sender.event("room")["time"]
    assert receiver.event("room")["time"] - began < LOOK_AROUND_FOR / 2
    receiver.ends(0)
    sender.ends(0)
    assert scene.arrived()
    assert len(receiver.named("notice")) == 1


def test_a_sender_that_is_first_is_found_by_a_receiver_that_would_wait(scene: Scene) -> None:
    sender = agreed(scene, "left")
    assert sender.code() == "K7M2QX-nobody-guesses-this"
    receiver = scene.receive("right", sender.code(), "in", "--local", "--wait")
    receiver.ends(0)
    sender.ends(0)
    assert scene.arrived()


def test_a_receiver_that_waits_has_a_network_later(scene: Scene) -> None:
    scene.interface("right", "down")
    scene.run("right", "ip", "address", "flush", "dev", "eth0")
    receiver = scene.receive("right", "K7M2QX-nobody-guesses-this", "in", "--wait")
    receiver.event("notice", message="Waiting for a sender under the code K7M2QX")
    sender = agreed(scene, "left")
    sender.event("room")
    scene.addresses("right", f"{ADDRESSES['right']}/24")
    receiver.ends(0)
    sender.ends(0)
    assert scene.arrived()


def test_one_sender_serves_two_hosts(scene: Scene) -> None:
    sender = scene.send("left", "--receivers", "2")
    code = sender.code()
    receivers = [scene.receive(host, code, f"in-{host}") for host in ("right", "third")]
    for receiver in receivers:
        receiver.ends(0)
    sender.ends(0)
    assert scene.arrived("in-right")
    assert scene.arrived("in-third")


def test_two_senders_on_one_network_are_told_apart(scene: Scene) -> None:
    senders = {host: scene.send(host) for host in ("left", "third", "right")}
    for host, sender in senders.items():
        scene.receive("right", sender.code(), f"in-{host}").ends(0)
        sender.ends(0)
        assert scene.arrived(f"in-{host}")


def test_a_false_announcement_of_a_room_keeps_no_receiver_from_its_sender(scene: Scene) -> None:
    with program(scene, "third", "e2e.peers.announcer") as (says, tell):
        assert says() == {"ready": True}
        sender = scene.send("right")
        code = sender.code()
        assert "copied" in says()
        # So that the liar is the only one who answers, at first.
        sender.stop()
        receiver = scene.receive("left", code)
        assert says()["asked"].startswith(f"/ws/{code[:6]}?role=receiver")
        receiver.event("room")
        sender.resume()
        tell()
        receiver.ends(0)
        sender.ends(0)
        assert scene.arrived()
        assert [urlsplit(room["server"]).hostname for room in receiver.named("room")] == [
            ADDRESSES["third"],
            ADDRESSES["right"],
        ]


def test_a_server_that_was_named_wins(scene: Scene) -> None:
    server = scene.start("third", "serve", "--stun", "none")
    server.prints("listening on")
    url = f"ws://{ADDRESSES['third']}:8000"
    sender = scene.send("left", "--server", url)
    code = sender.code()
    room = sender.event("room")
    assert (room["server"], room["local"]) == (url, False)
    # Nobody who asks the network finds it.
    scene.receive("right", code, "none", "--local").fails(3, "room_not_found")
    receiver = scene.receive("right", code, "in", "--server", url)
    assert receiver.event("room")["server"] == url
    receiver.ends(0)
    sender.ends(0)


def test_a_server_on_the_senders_computer_is_used_as_before(scene: Scene) -> None:
    scene.start("left", "serve", "--stun", "none").prints("listening on")
    sender = scene.send("left", "--receivers", "2")
    code = sender.code()
    room = sender.event("room")
    # It is found there, and named as others would name it.
    assert (room["server"], room["local"]) == (f"ws://{ADDRESSES['left']}:8000", False)
    scene.receive("left", code, "in-left").ends(0)
    # Where localhost is another computer.
    scene.receive("right", code, "in-right").ends(0)
    sender.ends(0)


def test_a_server_names_its_addresses_where_there_is_no_way_to_the_internet(scene: Scene) -> None:
    scene.start("third", "serve", "--stun", "none").says(f"ws://{ADDRESSES['third']}:8000")


def test_a_room_that_is_nowhere_is_told_with_where_it_was_looked_for(scene: Scene) -> None:
    receiver = scene.start("right", "receive", "K7M2QX-lemon-otter", "--yes")
    receiver.says("Looking for K7M2QX on this network")
    receiver.complains(
        3,
        "No sender is waiting under the code K7M2QX; it was looked for at ws://localhost:8000, "
        "on this computer and on this network.",
        "check the code",
    )


def test_without_the_local_network_it_is_as_it_was(scene: Scene) -> None:
    scene.send("left", "--no-local").fails(3, "server_unreachable")
    scene.receive("right", "K7M2QX-lemon-otter", "in", "--no-local").fails(3, "server_unreachable", within=10)


def test_a_computer_without_any_network_serves_itself(scene: Scene) -> None:
    scene.run("third", "ip", "address", "flush", "dev", "eth0")
    scene.interface("third", "down")
    doctor = scene.start("third", "doctor", "--json").ends(0)
    found = doctor.event("finding", lambda event: event["name"] == "mdns")
    assert found["words"] == "this computer has no network"
    sender = scene.send("third")
    code = sender.code()
    notice = sender.event("notice")["message"]
    assert notice == "Only a receiver on this computer can reach it: this computer has no network."
    assert urlsplit(scene.receive("third", code).ends(0).event("room")["server"]).port in LOCAL_PORTS
    sender.ends(0)
    assert scene.arrived()


def test_a_network_that_comes_later_is_used(scene: Scene) -> None:
    scene.interface("right", "down")
    scene.run("right", "ip", "address", "flush", "dev", "eth0")
    sender = scene.send("right")
    code = sender.code()
    sender.event("notice", lambda event: "no network" in event["message"])
    scene.addresses("right", f"{ADDRESSES['right']}/24")
    sender.event("notice", message="Others on this network can find this computer now.")
    scene.receive("left", code).ends(0)
    sender.ends(0)


def told_to_others(sender: FlyxProcess) -> str:
    """The URL that a sender which cannot be found has its receivers name."""
    notice = sender.event("notice", lambda event: "--server" in event["message"])["message"]
    return str(notice.rpartition(" ")[2])


def drop_multicast(scene: Scene, host: str) -> None:
    """Have the firewall of a host drop what comes to port 5353."""
    scene.run(host, "nft", "add", "table", "inet", "wall")
    chain = "add chain inet wall in { type filter hook input priority 0; }"
    scene.run(host, "nft", chain)
    scene.run(host, "nft", "add", "rule", "inet", "wall", "in", "udp", "dport", "5353", "drop")


def test_a_firewall_against_multicast_is_told_with_a_way_around_it(scene: Scene) -> None:
    need("nft, of the package nftables", shutil.which("nft") is not None)
    drop_multicast(scene, "left")
    sender = scene.send("left")
    code = sender.code()
    url = told_to_others(sender)
    assert url == f"ws://{ADDRESSES['left']}:{LOCAL_PORTS[0]}"
    scene.receive("right", code, "in", "--server", url).ends(0)
    sender.ends(0)


@pytest.mark.parametrize("own", [["192.168.7.1/24"], []], ids=["IPv4", "link-local IPv6"])
def test_a_doctor_says_whether_multicast_passes_though_there_is_no_route_for_it(
    scene: Scene, own: list[str]
) -> None:
    need("nft, of the package nftables", shutil.which("nft") is not None)
    scene.addresses("left", *own)

    def multicast() -> str:
        doctor = scene.start("left", "doctor", "--json").ends(0)
        return str(doctor.event("finding", lambda event: event["name"] == "mdns")["state"])

    assert multicast() == "ok"
    drop_multicast(scene, "left")
    assert multicast() == "warning"


def test_a_port_5353_that_another_program_keeps_is_told_and_the_own_computer_does_without(
    scene: Scene, tmp_path: Path
) -> None:
    with program(scene, "left", "e2e.peers.exclusive") as (says, _):
        assert says() == {"ready": True}
        sender = scene.send("left", "--receivers", "2")
        code = sender.code()
        url = told_to_others(sender)
        scene.receive("left", code, "in-left").ends(0)
        scene.receive("right", code, "in-right", "--server", url).ends(0)
        sender.ends(0)


def test_a_sender_that_is_killed_ends_its_receivers_soon(scene: Scene) -> None:
    scene.hosts["left"].limit(50)
    sender = scene.start("left", "send", "--json", write_thin(scene.file.with_name("large"), LONG))
    receiver = scene.receive("right", sender.code())
    receiver.mid_transfer()
    sender.kill()
    # Not before it is certain that nothing comes; with a server of its own it would be tried for 5 minutes.
    receiver.fails(6, "connection_lost")


@pytest.mark.parametrize("host", ["left", "third"])
def test_ctrl_c_ends_a_sender_that_waits_at_once(scene: Scene, host: str) -> None:
    if host == "third":
        scene.run(host, "ip", "address", "flush", "dev", "eth0")
    sender = scene.send(host)
    sender.code()
    sender.send_signal(signal.SIGINT).ends(130, within=5)


def test_ctrl_c_ends_a_receiver_that_looks_at_once(scene: Scene) -> None:
    receiver = scene.start("right", "receive", "K7M2QX-lemon-otter", "--yes")
    receiver.says("Looking for K7M2QX").send_signal(signal.SIGINT).ends(130, within=5)


def test_ctrl_c_ends_a_receiver_that_waits_at_once(scene: Scene) -> None:
    receiver = scene.start("right", "receive", "K7M2QX-lemon-otter", "--yes", "--wait")
    receiver.says("Waiting for a sender under the code K7M2QX").send_signal(signal.SIGINT)
    receiver.ends(130, within=5)


def test_wrong_words_are_told_and_the_next_try_is_good(scene: Scene) -> None:
    sender = scene.send("left")
    code = sender.code()
    room, *words = code.split("-")
    wrong = "-".join([room, *(["lemon"] * len(words))])
    scene.receive("right", wrong).fails(5, "wrong_words")
    sender.event("peer", state="failed")
    scene.receive("right", code, "again").ends(0)
    sender.ends(0)
    # The room was joined twice, and not once more for each address of the sender.
    assert len([event for event in sender.named("peer") if event["state"] == "joined"]) == 2
