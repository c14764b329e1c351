"""A laboratory of networks: two hosts, what is between them and the internet, and the servers there.

A row of the table of networks is a Case. Laboratory.run() builds it, sends a file with real processes, and
returns what came of it; check() compares that with what the case wants.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from e2e.network import OPEN, PORT_RESTRICTED, Firewall, Host, Nat, Network, Router, Switch
from e2e.processes import FlyxProcess, Terminal, clean_environment, sha256, write_random
from e2e.services import SECRET, Certificate, Coturn, Names, NameServer, http_proxy, socks_proxy

MB = 10**6

SOAK = pytest.mark.soak


SERVER, SERVER6 = "192.0.2.1", "2001:db8::1"
TURN, TURN6 = "192.0.2.2", "2001:db8::2"
NAME_SERVER, NAME_SERVER6 = "192.0.2.53", "2001:db8::53"
DEAD, DEAD6 = "192.0.2.66", "2001:db8::66"
"""Addresses in the internet: of `flyx serve`, of coturn, of the name server; some that swallow everything."""

ELSEWHERE = "192.0.2.254", "2001:db8::fe"
"""The routers from the internet to all that is not in it."""

STUN_URL = f"stun:{TURN}:3478"
UDP_RELAY = f"turn:{TURN}:3478"
TCP_RELAY = f"turn:{TURN}:3478?transport=tcp"
TLS_RELAY = "turns:turn.example:443?transport=tcp"
"""The URLs of coturn. It listens for TLS on 443, where the strictest networks let something through."""

NAMES: Names = {
    "server.example": {"A": [SERVER], "AAAA": []},
    "turn.example": {"A": [TURN], "AAAA": []},
    "stun.example": {"A": [TURN], "AAAA": []},
}

PROXY_PORTS = {"http": 3128, "socks": 1080}

LONGEST = 90.0
"""Seconds after which a case that is not over never will be."""

NO_CONNECTION = 4
"""Exit status of a receiver that reaches the server, but not the sender."""

Path_ = Literal["direct", "host", "relay", "tunnel", "none"]


@dataclass(frozen=True)
class Site:
    """A place where a host is: what is between it and the internet.

    Attributes:
        nat: of its router, for IPv4; without one, and without a firewall, the host is on the internet itself.
        carrier: of a second NAT behind the first (RFC 6598): the provider's.
        firewall: of its router.
        families: of IP that it has.
        lan: the first three numbers of its own network's addresses; by default no other site has them.
        proxy: what its router offers as a way out.
        variables: of the environment of flyx. "PROXY" in them stands for the host and port of the proxy, or,
            where there is none, for such that nobody has.
        round_trip: milliseconds to anywhere; of IPv4 only, and without a second NAT.
        mtu: of the path to the internet, in bytes.
        furnish: called with the host: adds what else is in there.
    """

    nat: Nat | None = None
    carrier: Nat | None = None
    firewall: Firewall | None = None
    families: tuple[int, ...] = (4,)
    lan: str | None = None
    proxy: Literal["http", "socks"] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    round_trip: float = 0.0
    mtu: int = 1500
    furnish: Callable[[Host], object] | None = None

    @property
    def routed(self) -> bool:
        """Whether there is a router of its own."""
        return bool(self.nat or self.firewall)


@dataclass(frozen=True)
class Case:
    """Two hosts, and how a transfer between them is to end.

    Attributes:
        name: a row of the table.
        sender: where it is.
        receiver: the same; or where the sender is: in the same network, as guests of a wifi that keeps them
            apart, or behind a router of its own of the same carrier.
        server: URL at which flyx reaches the signaling server; "" is not to name any.
        serve: more options of `flyx serve`.
        stun: URLs that it hands out.
        turn: URLs that it hands out, too.
        secret: of coturn, if it is not the one that the signaling server has.
        trusted: whether the clients trust coturn's certificate.
        names: what the name server says.
        size: bytes of the file.
        path: what the last path of either side has to be: "direct" is any without a relay, "host" one whose
            candidates are both of the hosts themselves, "none" that there is no way.
        exits: wanted exit status of sender and receiver; None of a sender that goes on waiting, or of a
            receiver that there never was.
        words: what the receiver says, among other things; it is compared in lower case.
        within: seconds in which it has to be over.
    """

    name: str
    sender: Site
    receiver: Site | Literal["same network", "apart in one wifi", "same carrier"]
    server: str = f"ws://{SERVER}:443"
    serve: tuple[str, ...] = ()
    stun: tuple[str, ...] = (STUN_URL,)
    turn: tuple[str, ...] = ()
    secret: str | None = None
    trusted: bool = True
    names: Names = field(default_factory=lambda: NAMES)
    size: int = 5 * MB
    path: Path_ = "direct"
    exits: tuple[int | None, int | None] = (0, 0)
    words: tuple[str, ...] = ()
    within: float = 60.0

    def __str__(self) -> str:
        return self.name


HOME = Site(PORT_RESTRICTED)
"""Behind the commonest router."""


def no_way(name: str, sender: Site, receiver: Site, *words: str, turn: tuple[str, ...] = ()) -> Case:
    """Return a case without a path: the receiver says so, and why, in 20 s (more on a busy machine)."""
    return Case(
        *(name, sender, receiver),
        turn=turn,
        path="none",
        exits=(None, NO_CONNECTION),
        words=("UDP to the other side got no answer", *words),
        within=25.0,
    )


@dataclass(frozen=True)
class Outcome:
    """What came of a transfer.

    Attributes:
        paths: the types of candidates, local and remote, of the last path of the sender and the receiver.
        seconds: from the start of the receiver to its first byte; if there was none, to its end.
        exits: status of sender and receiver; None still runs.
        words: of the error of either, receiver first.
        over: seconds from the end of the transfer to the end of both processes.
        right: whether the file is the same.
    """

    paths: tuple[tuple[str, str] | None, tuple[str, str] | None]
    seconds: float
    exits: tuple[int | None, int | None]
    words: str
    over: float
    right: bool

    @property
    def path(self) -> str:
        """The path as the receiver saw it, as in the table."""
        return "/".join(self.paths[1]) if self.paths[1] else ""

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Its cells of the table: path, seconds, exits, words."""
        exits = "/".join("-" if status is None else str(status) for status in self.exits)
        return self.path, f"{self.seconds:.1f}", exits, self.words


class Laboratory:
    """The internet, with the servers that are in it, and the sites that are added to it."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        self.directory = directory
        self.internet = network.switch()
        self.server = network.host("server")
        own = (SERVER, NAME_SERVER, DEAD), (SERVER6, NAME_SERVER6, DEAD6)
        own_addresses = (*(f"{a}/24" for a in own[0]), *(f"{a}/32" for a in own[1]))
        self.server.plug(self.internet, *own_addresses, via=ELSEWHERE)
        self.relay_host = network.host("relay").plug(
            self.internet, f"{TURN}/24", f"{TURN6}/32", via=ELSEWHERE
        )
        # Packets to private addresses vanish there, as in the real internet: it forwards nothing. Without a
        # route for them, coturn 4.6.1 was seen to end allocations after the first check to such an address.
        network.host("elsewhere").plug(self.internet, f"{ELSEWHERE[0]}/24", f"{ELSEWHERE[1]}/32")
        swallow = f"type filter hook input priority 0; ip daddr {DEAD} drop; ip6 daddr {DEAD6} drop;"
        self.server.rules(f"table inet dead {{ chain in {{ {swallow} }}; }}")
        # By the names of the hosts.
        self.hosts: dict[str, Host] = {}
        self.routers: dict[str, Router] = {}
        self.carriers: dict[str, Router] = {}
        self._lans: dict[str, Switch] = {}
        self._environments: dict[str, dict[str, str]] = {}
        self._numbers = iter(range(101, 200))
        self._processes: list[FlyxProcess] = []
        # When the last of sender and receiver was started, in seconds since the epoch.
        self._began = 0.0
        # Set by build().
        self.names: NameServer
        self.coturn: Coturn
        self._certificate: Certificate

    def close(self) -> None:
        """End all processes; none may have shown a traceback."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            assert not process.crashed, process

    # What is in the internet.

    def build(self, case: Case) -> None:
        """Start the servers of a case, and make its sites, with the hosts "sender" and "receiver"."""
        self.names = NameServer(self.server, self.directory, (NAME_SERVER, NAME_SERVER6), case.names)
        self._adopt(self.names.process)
        self._certificate = Certificate(self.directory / "certificate", "turn.example", TURN, TURN6)
        self.relay(case)
        self.signal(case)
        trusted = {"SSL_CERT_FILE": str(self._certificate.authority)} if case.trusted else {}
        match case.receiver:
            case Site():
                self._place("sender", case.sender, trusted)
                self._place("receiver", case.receiver, trusted)
            case "same carrier":
                self._place("sender", case.sender, trusted)
                self._place("receiver", case.sender, trusted, carrier="sender")
            case where:
                apart = where == "apart in one wifi"
                self._place("sender", case.sender, trusted, isolated=apart)
                self._join("receiver", case.sender, trusted, self._lans["sender"], 3, isolated=apart)

    def relay(self, case: Case, *options: str) -> Coturn:
        """Start coturn."""
        self.coturn = Coturn(
            *(self.relay_host, self.directory, TURN, TURN6),
            tls_port=443,
            certificate=self._certificate,
            secret=case.secret or SECRET,
            options=options,
        )
        self._adopt(self.coturn)
        return self.coturn

    def signal(self, case: Case) -> FlyxProcess:
        """Start `flyx serve`."""
        options = [word for url in case.stun or ("none",) for word in ("--stun", url)]
        options += [word for url in case.turn for word in ("--turn", url)]
        if case.turn:
            options += ["--turn-secret", SECRET]
        arguments = ["serve", "--port", "443", *options, *case.serve]
        environment = clean_environment(self.directory)
        server = self._adopt(self.server.start(arguments, environment, self.directory))
        server.prints("listening on")
        return server

    def second_stun(self, *, behavior_discovery: bool = False) -> Coturn:
        """Start another STUN server, on the host of the signaling server.

        Args:
            behavior_discovery: it has two addresses, and answers as RFC 5780 says.
        """
        addresses = (SERVER, NAME_SERVER) if behavior_discovery else (SERVER,)
        second = Coturn(self.server, self.directory, *addresses, behavior_discovery=behavior_discovery)
        self._adopt(second)
        return second

    # Where people are.

    def lan(self, name: str) -> Switch:
        """The network of a host's own site."""
        return self._lans[name]

    def second_way(self, name: str, device: str, lan: str) -> None:
        """Give a host another way to the internet, which it prefers: through a router and a NAT of its own.

        Args:
            name: of the host.
            device: its new interface.
            lan: the first three numbers of the addresses there.
        """
        number = next(self._numbers)
        switch, inside, outside = self.network.switch(), [f"{lan}.1/24"], [f"192.0.2.{number}/24"]
        at = f"{device}-{name}"
        via = ELSEWHERE[:1]
        self.network.router(at, switch, inside, self.internet, outside, via=via, nat=PORT_RESTRICTED)
        host = self.hosts[name]
        # The first one is not gone, but no longer the best.
        host.address(host.addresses["eth0"], metric=600)
        host.plug(switch, f"{lan}.2/24", device=device, via=f"{lan}.1")

    def stand(self, name: str, *addresses: str, switch: Switch) -> Host:
        """Make a host in a network that leads nowhere."""
        host = self.hosts[name] = self.network.host(name).plug(switch, *addresses)
        self._environments[name] = clean_environment(self.directory)
        return host

    def _place(
        self,
        name: str,
        site: Site,
        environment: Mapping[str, str],
        *,
        isolated: bool = False,
        carrier: str = "",
    ) -> None:
        """Make a site, with a host of this name in it; behind the carrier that this other host has, if so."""
        number = next(self._numbers)
        if not site.routed:
            self._join(name, site, environment, self.internet, number)
            return
        outside, number6 = [f"192.0.2.{number}/24"], f"2001:db8::{number}"
        switch, via = self.internet, [ELSEWHERE[0]]
        if site.carrier:
            if carrier:
                self.carriers[name] = self.carriers[carrier]
                switch = self._lans[f"carrier of {carrier}"]
            else:
                switch = self._lans[f"carrier of {name}"] = self.network.switch()
                inside = ["100.64.0.1/24"]
                self.carriers[name] = self.network.router(
                    f"carrier-{name}", switch, inside, self.internet, outside, via=via, nat=site.carrier
                )
            outside, via = [f"100.64.0.{number}/24"], ["100.64.0.1"]
        lan = self._lans[name] = self.network.switch()
        inside = [f"{site.lan or f'192.168.{number}'}.1/24"] if 4 in site.families else []
        if 6 in site.families:
            inside.append(f"2001:db8:{number}::1/64")
            outside.append(f"{number6}/32")
            via = [*via, ELSEWHERE[1]]
        router = self.network.router(
            *(f"router-{name}", lan, inside, switch, outside),
            via=via,
            nat=site.nat,
            firewall=site.firewall or OPEN,
            mtu=site.mtu,
            round_trip=site.round_trip,
        )
        router.name_server(NAME_SERVER)
        if 6 in site.families:
            router.answer_for(f"2001:db8:{number}::2")
        self.routers[name] = router
        if site.proxy:
            start = {"http": http_proxy, "socks": socks_proxy}[site.proxy]
            self._adopt(start(router, self.directory))
        self._join(name, site, environment, lan, 2, isolated=isolated, number=number)

    def _join(
        self,
        name: str,
        site: Site,
        environment: Mapping[str, str],
        switch: Switch,
        host_number: int,
        *,
        isolated: bool = False,
        number: int = 101,
    ) -> None:
        """Make a host with this last number in its address on a site's network."""
        host = self.hosts[name] = self.network.host(name)
        lan = site.lan or f"192.168.{number}"
        if site.routed:
            of_family = {4: (f"{lan}.{host_number}/24", f"{lan}.1")}
            of_family[6] = f"2001:db8:{number}::{host_number}/64", f"2001:db8:{number}::1"
            via = [of_family[family][1] for family in site.families]
        else:
            of_family = {4: (f"192.0.2.{host_number}/24", ""), 6: (f"2001:db8::{host_number}/32", "")}
            via = [ELSEWHERE[0 if family == 4 else 1] for family in site.families]
        addresses = [of_family[family][0] for family in site.families]
        if site.round_trip and not site.routed:
            host.plug_far(switch, addresses[0], round_trip=site.round_trip)
        else:
            host.plug(switch, *addresses, via=via, isolated=isolated)
        host.name_server(NAME_SERVER if 4 in site.families else NAME_SERVER6)
        if site.furnish:
            site.furnish(host)
        proxy = f"{lan}.1:{PROXY_PORTS[site.proxy]}" if site.proxy else f"{lan}.250:3128"
        variables = {key: value.replace("PROXY", proxy) for key, value in site.variables.items()}
        self._environments[name] = {**clean_environment(self.directory), **environment, **variables}

    # What they do.

    def start(self, name: str, *arguments: str | Path) -> FlyxProcess:
        """Run flyx on a host of a site."""
        return self._adopt(self.hosts[name].start(arguments, self._environments[name], self.directory))

    def send(self, case: Case, *options: str) -> FlyxProcess:
        """Start the sender of a case."""
        source = self.directory / "sent.bin"
        if not source.exists():
            write_random(source, case.size)
        self._began = time.time()
        arguments: list[str | Path] = ["send", *_server(case), "--json", *options, source]
        host = self.hosts["sender"]
        return self._adopt(host.start(arguments, self._environments["sender"], self.directory))

    def receive(self, case: Case, code: str, *options: str) -> FlyxProcess:
        """Start the receiver of a case."""
        self._began = time.time()
        arguments: list[str | Path] = ["receive", *_server(case), "--json", *options, code]
        arguments += ["--yes", "-o", self.directory / "in"]
        host = self.hosts["receiver"]
        return self._adopt(host.start(arguments, self._environments["receiver"], self.directory))

    def ask(self, case: Case, code: str) -> Terminal:
        """Start the receiver of a case on a terminal, where it asks before it takes anything."""
        arguments: list[str | Path] = ["receive", *_server(case), "--json", "-o", self.directory / "in", code]
        host = self.hosts["receiver"]
        terminal = host.terminal(arguments, self._environments["receiver"], self.directory)
        self._processes.append(terminal)
        return terminal

    def run(self, case: Case) -> Outcome:
        """Build a case, and send a file from one side to the other."""
        self.build(case)
        return self.transfer(case)

    def transfer(self, case: Case, sender: FlyxProcess | None = None) -> Outcome:
        """Send a file from one side to the other, by a sender that is started if there is none."""
        sender = sender or self.send(case)
        code = _code(sender)
        return self.outcome(sender, None if code is None else self.receive(case, code))

    def outcome(
        self,
        sender: FlyxProcess,
        receiver: FlyxProcess | None,
        *,
        began: float | None = None,
        deadline: float = LONGEST,
    ) -> Outcome:
        """Wait for the end of a transfer. A sender whose receiver failed goes on waiting: it is killed.

        Args:
            sender: a running process.
            receiver: the same; None if the sender has ended without a code.
            began: since when seconds count, in seconds since the epoch: by default, since the last start.
            deadline: seconds to wait for.
        """
        deadline += time.monotonic()
        ends = [end for end in (receiver, sender) if end]
        failed = receiver is None
        for end in ends:
            try:
                end.process.wait(1.0 if failed else deadline - time.monotonic())
            except subprocess.TimeoutExpired:
                end.process.kill()
            failed = failed or end.process.returncode != 0
        ended = time.time()
        began = began or self._began
        seconds = ended - began
        statuses = sender.process.returncode, receiver.process.returncode if receiver else None
        for end in ends:
            end.kill()
        for event in receiver.named("progress") if receiver else []:
            if event["bytes"]:
                seconds = event["time"] - began
                break
        done = [event["time"] for end in ends for event in end.named("done")]
        events = [event for end in ends for event in (*end.named("error"), *end.named("peer"))]
        words = [event["message"] for event in events if "message" in event]
        source, copy = self.directory / "sent.bin", self.directory / "in" / "sent.bin"
        return Outcome(
            paths=(_path(sender), _path(receiver) if receiver else None),
            seconds=seconds,
            exits=(_status(statuses[0]), _status(statuses[1])),
            words="; ".join(dict.fromkeys(words)),
            over=ended - max(done, default=ended),
            right=copy.exists() and sha256(copy) == sha256(source),
        )

    def _adopt(self, process: FlyxProcess) -> FlyxProcess:
        self._processes.append(process)
        return process


def check(case: Case, outcome: Outcome) -> None:
    """Fail if a case did not come out as it has to."""
    assert outcome.exits == case.exits, outcome
    assert outcome.right == (case.path != "none"), outcome
    for path in outcome.paths:
        match case.path:
            case "none":
                assert path is None, outcome
            case "direct":
                assert path, outcome
                assert not {"relay", "tunnel"} & set(path), outcome
            case "host":
                assert path == ("host", "host"), outcome
            case kind:
                assert path, outcome
                assert kind in path, outcome
    for words in case.words:
        assert words.lower() in outcome.words.lower(), outcome
    assert outcome.seconds <= case.within, outcome


def _code(sender: FlyxProcess) -> str | None:
    """Wait for the code of a sender, or for its end."""
    try:
        return sender.code()
    except AssertionError as error:
        # Its output may have ended a moment before it has.
        try:
            sender.process.wait(5.0)
        except subprocess.TimeoutExpired:
            raise error from None
        return None


def _server(case: Case) -> list[str]:
    return ["--server", case.server] if case.server else []


def _path(process: FlyxProcess) -> tuple[str, str] | None:
    paths = process.named("path")
    if not paths:
        return None
    last = paths[-1]
    return ("tunnel", "tunnel") if last["tunnelled"] else (last["local"], last["remote"])


def _status(code: int | None) -> int | None:
    """Return an exit status; None of a process that was killed."""
    return None if code is None or code < 0 else code
