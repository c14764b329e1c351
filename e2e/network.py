"""Networks on one machine: hosts, switches and routers, each of them a network namespace or a part of one.

    with Network() as network:
        lan, internet = network.switch(), network.switch()
        network.router("router", lan, ["10.0.0.1/24"], internet, ["203.0.113.1/24"], nat=PORT_RESTRICTED)
        host = network.host("laptop").plug(lan, "10.0.0.2/24", via="10.0.0.1")
        host.start(["send", …], environment, directory)

Needs root, iproute2 and, for routers, nftables; a test is skipped where it may not. All ends with the block.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from e2e.link import emulate, missing
from e2e.namespaces import files_of, inside, make_namespace, remove_namespace, run
from e2e.processes import FlyxProcess, Terminal, need

State = Literal["up", "down"]

_numbers = itertools.count()

_CONNECT = """
import socket, sys, time
deadline = time.monotonic() + 30
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
"""

_PASS_ON = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as made:
    socket.send_fds(socket.socket(fileno=0), [b"!"], [made.fileno()])
"""


@dataclass(frozen=True)
class Nat:
    """How a NAT behaves, in the words of RFC 4787.

    Attributes:
        symmetric: its mapping is address- and port-dependent: another port for each destination. Otherwise it
            is endpoint-independent.
        filtering: whose packets an existing mapping lets in: everybody's, those of an address that was sent
            to, or those of an address and port that were.
        hairpin: hosts behind it reach each other by their mapped addresses.
        timeout: seconds after which a mapping that carries nothing is gone.
    """

    symmetric: bool = False
    filtering: Literal["independent", "address", "address and port"] = "address and port"
    hairpin: bool = False
    timeout: int = 120


FULL_CONE = Nat(filtering="independent")
ADDRESS_RESTRICTED = Nat(filtering="address")
PORT_RESTRICTED = Nat()
SYMMETRIC = Nat(symmetric=True)


@dataclass(frozen=True)
class Firewall:
    """What a router forwards from its inside to its outside; answers always pass, all else never does.

    Attributes:
        udp: what becomes of UDP, name lookups excepted.
        tcp: destination ports that pass; None is all.
        ipv6: what becomes of all IPv6. A blackhole is what a tunnel is that no longer exists.
        everything: "reject" lets nothing pass: the way out is a proxy on the router.
        clamp: it mends the segment size that TCP announces to the MTU of its path.
    """

    udp: Literal["pass", "drop", "reject"] = "pass"
    tcp: tuple[int, ...] | None = None
    ipv6: Literal["pass", "drop"] = "pass"
    everything: Literal["pass", "reject"] = "pass"
    clamp: bool = False


OPEN = Firewall()


class Network:
    """Hosts, switches and routers that end with it."""

    def __init__(self) -> None:
        self._prefix = f"flyx-{os.getpid()}-{next(_numbers)}"
        self._namespaces: list[str] = []
        self._emulators: list[subprocess.Popen[str]] = []
        self._ports = itertools.count()
        self._bridges = itertools.count()

    def __enter__(self) -> Self:
        need("the right to make network namespaces", os.geteuid() == 0)
        need("ip, of the package iproute2", shutil.which("ip") is not None)
        try:
            self.switches = self.namespace("switches")
        except subprocess.CalledProcessError as error:
            self.__exit__(None, None, None)
            need(f"the right to make network namespaces ({error.stderr.strip()})", False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for emulator in self._emulators:
            emulator.terminate()
            emulator.communicate()
        for name in self._namespaces:
            remove_namespace(name)

    def namespace(self, part: str) -> str:
        """Make a network namespace with nothing but a loopback, and no name server; return its name."""
        name = f"{self._prefix}-{part}"
        self._namespaces.append(name)
        make_namespace(name)
        return name

    def switch(self) -> Switch:
        """Make a segment: what is plugged into it shares a link."""
        return Switch(self, f"switch{next(self._bridges)}")

    def host(self, name: str) -> Host:
        """Make a host that is plugged in nowhere."""
        return Host(self, name)

    def router(
        self,
        name: str,
        inside: Switch,
        inside_addresses: Sequence[str],
        outside: Switch,
        outside_addresses: Sequence[str],
        *,
        via: Sequence[str] = (),
        nat: Nat | None = None,
        firewall: Firewall = OPEN,
        mtu: int = 1500,
        round_trip: float = 0.0,
    ) -> Router:
        """Make a router between two segments.

        Args:
            name: of the host that it is.
            inside: where it serves.
            inside_addresses: its own there, with prefix lengths.
            outside: where it sends what is for nobody inside.
            outside_addresses: its own there, with prefix lengths.
            via: next routers outside, one of each family at most.
            nat: of IPv4; None routes the addresses as they are. IPv6 is never translated.
            firewall: what it forwards.
            mtu: of the path through it, bytes. If it is smaller than 1,500 the router drops what is longer
                and does not say so.
            round_trip: milliseconds to whatever is outside, see Host.plug_far().
        """
        router = Router(self, name, nat, firewall, mtu)
        router.plug(inside, *inside_addresses, device="inside", mtu=mtu)
        if round_trip:
            router.plug_far(outside, *outside_addresses, round_trip=round_trip, device="outside")
        else:
            router.plug(outside, *outside_addresses, device="outside", via=via, mtu=mtu)
        router.apply()
        return router

    def line(self, here: str, address: str, there: str, round_trip: float) -> None:
        """Join two namespaces by interfaces wan0 with a round trip of so many milliseconds."""
        missing_part = missing()
        need(missing_part or "nothing", missing_part is None)
        # Rate in Mbit/s, delay, loss, burst, queue, jitter, MTU, seed.
        figures = (1000, round_trip / 2, 0, 1, 1000, 0, 1500, 1)
        self._emulators.append(emulate([here, address, there, "10.255.255.1", *map(str, figures)]))

    def port(self, switch: str, isolated: bool) -> tuple[str, str]:
        """Make a port of a switch; return its name and the name of the other end, in the same namespace."""
        number = next(self._ports)
        port, plug = f"port{number}", f"plug{number}"
        run("ip", "-n", self.switches, "link", "add", port, "type", "veth", "peer", "name", plug)
        run("ip", "-n", self.switches, "link", "set", port, "master", switch, "up")
        if isolated:
            run("bridge", "-n", self.switches, "link", "set", "dev", port, "isolated", "on")
        return port, plug


class Switch:
    """A segment of a network."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        run("ip", "-n", network.switches, "link", "add", name, "type", "bridge")
        run(*inside(network.switches, ["sysctl", "-q", "-w", f"net.ipv6.conf.{name}.disable_ipv6=1"]))
        run("ip", "-n", network.switches, "link", "set", name, "up")


class Host:
    """A machine with any number of interfaces."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.namespace = network.namespace(name)
        # The ports of switches that its interfaces are plugged into, by device.
        self._ports: dict[str, str] = {}
        # Its IPv4 address, with prefix length, by device.
        self.addresses: dict[str, str] = {}
        # The next routers of its interfaces, by device.
        self._routes: dict[str, tuple[str, ...]] = {}

    def plug(
        self,
        switch: Switch,
        *addresses: str,
        device: str = "eth0",
        via: str | Sequence[str] = (),
        isolated: bool = False,
        mtu: int = 1500,
        metric: int = 0,
    ) -> Self:
        """Give it an interface on a segment.

        Args:
            switch: the segment.
            addresses: with prefix lengths.
            device: its name.
            via: its routers to everywhere else, one of each family at most.
            isolated: it does not reach others on the segment that are isolated, too, like guests of a wifi.
            mtu: bytes.
            metric: of the routes: the smallest wins. 0 is the default of the kernel.
        """
        port, plug = self.network.port(switch.name, isolated)
        run("ip", "-n", self.network.switches, "link", "set", plug, "netns", self.namespace, "name", device)
        self._ports[device] = port
        self._ip("link", "set", device, "mtu", str(mtu), "up")
        self._routes[device] = (via,) if isinstance(via, str) else tuple(via)
        self.address(*addresses, device=device, metric=metric)
        return self

    def plug_far(self, switch: Switch, address: str, *, round_trip: float, device: str = "eth0") -> Self:
        """Give it an interface whose packets take their time to and from a segment.

        Not by netem: not every kernel has it. The line ends at a host that answers for its address.

        Args:
            switch: the segment.
            address: IPv4, with a prefix length of 24.
            round_trip: milliseconds.
            device: its name.
        """
        interface = ipaddress.ip_interface(address)
        edge = Host(self.network, f"{self.name}-edge").plug(switch, f"{interface.ip + 100}/24")
        self.network.line(self.namespace, str(interface.ip), edge.namespace, round_trip)
        # It answers at once, not after up to 0.8 s.
        settings = ("conf.all.forwarding=1", "conf.eth0.proxy_arp=1", "neigh.eth0.proxy_delay=0")
        edge.run("sysctl", "-q", "-w", *(f"net.ipv4.{setting}" for setting in settings))
        edge.run("ip", "route", "add", f"{interface.ip}/32", "dev", "wan0")
        self._ip("link", "set", "wan0", "down", "name", device)
        self._ip("link", "set", device, "up")
        self._ip("route", "add", "default", "dev", device)
        return self

    def address(self, *addresses: str, device: str = "eth0", metric: int = 0) -> None:
        """Give an interface these addresses, with prefix lengths, and no others but fe80::."""
        self._ip("address", "flush", "dev", device, "scope", "global")
        for address in addresses:
            self._ip("address", "add", address, "dev", device)
            if ":" not in address:
                self.addresses[device] = address
        for router in self._routes.get(device, ()) if addresses else ():
            more = ["metric", str(metric)] if metric else []
            family = f"-{ipaddress.ip_address(router).version}"
            self._ip(family, "route", "replace", "default", "via", router, "dev", device, *more)

    def dead_end(self, *addresses: str, device: str, state: State = "up") -> None:
        """Give it an interface that nothing is behind: a bridge of containers that do not run, say."""
        self._ip("link", "add", device, "type", "bridge")
        for address in addresses:
            self._ip("address", "add", address, "dev", device)
        self._ip("link", "set", device, state)

    def reach(self, address: str, port: int) -> None:
        """Wait until a connection to there is made: a neighbour that was lost is looked for at times."""
        self.run(sys.executable, "-c", _CONNECT, address, str(port))

    def connection(self, address: str, port: int) -> socket.socket:
        """Connect to there from this host; return the connection, for a process on none of the hosts."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = self.on(sys.executable, "-c", _PASS_ON, address, str(port))
            subprocess.run(command, stdin=theirs, check=True)
            _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
            return socket.socket(fileno=descriptor)

    def cable(self, state: State, device: str = "eth0") -> None:
        """Pull the cable out of an interface ("down"), or put it in ("up"): addresses and routes stay."""
        run("ip", "-n", self.network.switches, "link", "set", self._ports[device], state)

    def limit(self, megabits: int, device: str = "eth0") -> None:
        """Let it send no faster than this, from now on."""
        rate = ["tbf", "rate", f"{megabits}mbit", "burst", "256k", "latency", "50ms"]
        self.run("tc", "qdisc", "replace", "dev", device, "root", *rate)

    def name_server(self, *addresses: str) -> Self:
        """Let it ask these name servers, and processes that run already as well."""
        lines = [f"nameserver {address}\n" for address in addresses]
        Path(files_of(self.namespace), "resolv.conf").write_text("".join(lines))
        return self

    def rules(self, ruleset: str) -> None:
        """Add to its rules of nftables."""
        need("nft, of the package nftables", shutil.which("nft") is not None)
        run(*self.on("nft", "-f", "-"), text=ruleset)

    def on(self, *command: str | Path) -> list[str]:
        """Return the command that runs this one on the host."""
        return inside(self.namespace, command)

    def run(self, *command: str | Path) -> str:
        """Run a command on the host to its end; return what it prints."""
        return run(*self.on(*command))

    def start(
        self,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
        directory: Path,
        stdin: int = subprocess.DEVNULL,
    ) -> FlyxProcess:
        """Run flyx on the host."""
        words = [str(argument) for argument in arguments]
        return OnHost(self, words, dict(environment), directory, stdin=stdin)

    def terminal(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str], directory: Path
    ) -> Terminal:
        """Run flyx on a terminal of the host."""
        words = [str(argument) for argument in arguments]
        return _TerminalOnHost(self, words, dict(environment), directory)

    def program(
        self, command: Sequence[str | Path], environment: Mapping[str, str], directory: Path
    ) -> Program:
        """Run any other program on the host."""
        return Program(self, [str(word) for word in command], dict(environment), directory)

    def _ip(self, *arguments: str) -> None:
        run("ip", "-n", self.namespace, *arguments)


class OnHost(FlyxProcess):
    """A process of flyx on a host."""

    def __init__(
        self,
        host: Host,
        arguments: Sequence[str],
        environment: dict[str, str],
        directory: Path,
        *,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self._host = host
        super().__init__(arguments, environment, directory, stdin=stdin)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(self._host.on(*command), environment, directory)


class _TerminalOnHost(Terminal):
    def __init__(
        self, host: Host, arguments: Sequence[str], environment: dict[str, str], directory: Path
    ) -> None:
        self._host = host
        super().__init__(arguments, environment, directory, pipe_stdout=True)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        program, *rest = self._host.on(*command)
        return super()._start([shutil.which(program) or program, *rest], environment, directory)


class Program(OnHost):
    """Another program on a host, listened to as a process of flyx is."""

    def __init__(self, host: Host, command: list[str], environment: dict[str, str], directory: Path) -> None:
        self._command = command
        super().__init__(host, [], environment, directory)
        self.name = " ".join(command)

    def _start(
        self, command: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        return super()._start(self._command, environment, directory)


class Router(Host):
    """A host that forwards between its interfaces `inside` and `outside`."""

    def __init__(self, network: Network, name: str, nat: Nat | None, firewall: Firewall, mtu: int) -> None:
        super().__init__(network, name)
        self._nat = nat
        self._firewall = firewall
        self._mtu = mtu
        settings = ("ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv4.conf.all.rp_filter")
        self.run("sysctl", "-q", "-w", *(f"net.{setting}=1" for setting in settings))

    def apply(self, *, nat: Nat | None = None, firewall: Firewall | None = None, ports: str = "") -> None:
        """Let it behave so from now on: all that it knew of connections is forgotten.

        Args:
            nat: instead of what it had.
            firewall: the same.
            ports: a range that the NAT maps to, such as "20000-29999"; by default it keeps ports if it can.
        """
        self._nat = nat or self._nat
        self._firewall = firewall or self._firewall
        rules = ["flush ruleset", _filter_rules(self._firewall, self._nat, self._mtu)]
        if self._nat:
            timeout = str(self._nat.timeout)
            names = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
            rules.append(_nat_rules(self._nat, self._outside(), ports))
            self.rules("\n".join(rules))
            self.run("sysctl", "-q", "-w", *(f"net.netfilter.{name}={timeout}" for name in names))
        else:
            self.rules("\n".join(rules))

    def narrow(self, mtu: int) -> None:
        """From now on drop what is longer than so many bytes, and do not say so."""
        self._mtu = mtu
        for device in ("inside", "outside"):
            self._ip("link", "set", device, "mtu", str(mtu))
        self.apply()

    def forget(self, *, ports: str = "") -> None:
        """Start anew, as after a loss of power: no mapping is left. `ports` as in apply()."""
        self.renumber(self._outside(), ports=ports)

    def renumber(self, address: str, *, ports: str = "") -> None:
        """Get another address outside, with its prefix length, and with that lose all mappings."""
        # First the rules: what flows on makes a new mapping as soon as the old one is gone.
        self.apply(ports=ports)
        # Its masquerading forgets the connections of an address that goes.
        self.address(address, device="outside")
        # The rules of a hairpin name the address.
        self.apply(ports=ports)

    def answer_for(self, address: str) -> None:
        """Take in, outside, what is for this IPv6 address of a host inside (RFC 4389: a proxy)."""
        settings = ("conf.outside.proxy_ndp=1", "neigh.outside.proxy_delay=0")
        self.run("sysctl", "-q", "-w", *(f"net.ipv6.{setting}" for setting in settings))
        self._ip("-6", "neighbor", "add", "proxy", address, "dev", "outside")

    def _outside(self) -> str:
        words = self.run("ip", "-4", "-brief", "address", "show", "dev", "outside").split()
        return words[2]


def _filter_rules(firewall: Firewall, nat: Nat | None, mtu: int) -> str:
    rules = ["tcp flags syn tcp option maxseg size set rt mtu"] if firewall.clamp else []
    rules.append("ct state established,related accept")
    outward = 'iifname "inside" oifname "outside"'
    if firewall.everything != "pass":
        rules.append("reject")
    if firewall.ipv6 == "drop":
        rules.insert(0, "meta nfproto ipv6 drop")
    if firewall.udp != "pass":
        rules.append("udp dport 53 accept")
        rules.append(f"meta l4proto udp {firewall.udp}")
    if firewall.tcp is not None:
        ports = ", ".join(map(str, firewall.tcp))
        rules.append(f"meta l4proto tcp tcp dport != {{ {ports} }} reject with tcp reset")
    rules.append(f"{outward} accept")
    # What the NAT lets in, and hosts inside among themselves.
    rules.append("ct status dnat accept")
    rules.append('iifname "inside" oifname "inside" accept')
    rules.append("drop")
    # A packet that is not let in leaves no trace: a connection to the router itself would take the port.
    incoming = ['iifname "outside" ct state new meta l4proto udp drop'] if nat else []
    silent = []
    if mtu < 1500:
        silent = ["icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"]
    return f"""
table inet filter {{
  chain forward {{ type filter hook forward priority filter; {_lines(rules)} }}
  chain input {{ type filter hook input priority filter; {_lines(incoming)} }}
  chain output {{ type filter hook output priority filter; {_lines(silent)} }}
}}
"""


def _nat_rules(nat: Nat, outside: str, ports: str) -> str:
    external = outside.partition("/")[0]
    how = (f" to :{ports}" if ports else "") + (" fully-random" if nat.symmetric else "")
    outgoing = [f'oifname "outside" meta l4proto {{ tcp, udp }} masquerade{how}']
    outgoing.append('oifname "outside" masquerade')
    if nat.symmetric:
        # Only answers come in, and of those Linux knows by itself.
        chain = f"chain out {{ type nat hook postrouting priority srcnat; {_lines(outgoing)} }}"
        return f"table ip nat {{\n  {chain}\n}}\n"
    # What is remembered of packets that leave, its types, and what has to be the same in one that comes in.
    contacted, known, key = {
        "independent": ("udp sport", "inet_service", "udp dport"),
        "address": ("udp sport . ip daddr", "inet_service . ipv4_addr", "udp dport . ip saddr"),
        "address and port": (
            "udp sport . ip daddr . udp dport",
            "inet_service . ipv4_addr . inet_service",
            "udp dport . ip saddr . udp sport",
        ),
    }[nat.filtering]
    # Packets of its own inside come in from there only if it has a hairpin.
    incoming = [f"fib daddr type local meta l4proto udp {key} @contacted dnat to udp dport map @mappings"]
    if nat.hairpin:
        outgoing.insert(0, f'ct status dnat iifname "inside" oifname "inside" snat to {external}')
    else:
        incoming.insert(0, 'iifname "inside" return')
    learn = [
        "update @mappings { udp sport : ct original ip saddr . ct original proto-src }",
        f"update @contacted {{ {contacted} }}",
    ]
    if nat.hairpin:
        learn = [f"ip saddr {external} {rule}" for rule in learn]
    else:
        learn = [f'oifname "outside" {rule}' for rule in learn]
    dynamic = f"size 65535; flags dynamic,timeout; timeout {nat.timeout}s"
    return f"""
table ip nat {{
  map mappings {{ type inet_service : ipv4_addr . inet_service; {dynamic}; }}
  set contacted {{ type {known}; {dynamic}; }}
  chain in {{ type nat hook prerouting priority dstnat; {_lines(incoming)} }}
  chain out {{ type nat hook postrouting priority srcnat; {_lines(outgoing)} }}
  chain learn {{ type filter hook postrouting priority srcnat + 1; {_lines(learn)} }}
}}
"""


def _lines(rules: Sequence[str]) -> str:
    return "".join(f"\n    {rule}" for rule in rules) + "\n  "
