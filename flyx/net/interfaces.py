"""The addresses of this machine, and which of them to offer to a peer.

read() asks the kernel; choose() is pure. RFC 8445 §5.1.1.1 says which host candidates not to gather; the
order among the rest is the local preference of §5.1.2.2, after RFC 6724 and RFC 8421.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

MAX_ADDRESSES = 8
"""Addresses offered: each costs a socket, and a check of each address of the peer. The best come first."""

_PROC_IF_INET6 = Path("/proc/net/if_inet6")
_SYS_CLASS_NET = Path("/sys/class/net")

_TEMPORARY, _DAD_FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x08, 0x20, 0x40
"""Of an IPv6 address: include/uapi/linux/if_addr.h."""

Address = tuple[Any, ...]
"""A socket address of IPv4 or IPv6: host, port, and for IPv6 flow and scope, if they are known."""

ELSEWHERE: dict[socket.AddressFamily, Address] = {
    socket.AF_INET: ("192.0.2.1", 9),
    socket.AF_INET6: ("2001:db8::1", 9),
}
"""Addresses of hosts that there are none of, on the Internet: which way leads there? RFC 5737, RFC 3849."""


class InterfaceAddress(Struct, frozen=True):
    """An address of an interface.

    Attributes:
        interface: its name.
        address: without a scope.
        up: the interface is up, and has a carrier.
        internal: it leads to virtual machines or containers of this machine only.
        point_to_point: it is a tunnel, of a VPN say.
        usable: not deprecated (RFC 4862 §5.5.4), tentative or a duplicate.
        temporary: changes so that a computer cannot be followed by it (RFC 8981).
    """

    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    up: bool = True
    internal: bool = False
    point_to_point: bool = False
    usable: bool = True
    temporary: bool = False

    @property
    def scoped(self) -> str:
        """The address as it is bound: a link-local one of IPv6 with its interface (RFC 4007 §11)."""
        link_local = self.address.version == 6 and self.address.is_link_local
        return f"{self.address}%{self.interface}" if link_local else str(self.address)


def choose(
    addresses: Sequence[InterfaceAddress], sources: Collection[str] = (), *, on_link: bool = False
) -> list[str]:
    """Return the addresses to offer to a peer, the best first, MAX_ADDRESSES at most.

    Link-local ones are offered of interfaces that have no other, those of bridges to this machine's own
    containers if there is nothing else, loopback ones never.

    Args:
        addresses: as read.
        sources: those that the kernel would send from, to somewhere on the Internet.
        on_link: the peer may share nothing else with this machine than a link, so link-local IPv6 addresses
            are offered of every interface.
    """
    found = [each for each in addresses if each.up and each.usable and _is_of_a_host(each.address)]
    outside = [each for each in found if not each.internal] or found
    global_on = {each.interface for each in outside if not each.address.is_link_local}
    private = {_prefix(each) for each in outside if each.temporary}

    def is_offered(each: InterfaceAddress) -> bool:
        if each.address.is_link_local:
            return each.interface not in global_on or (on_link and each.address.version == 6)
        return each.temporary or _prefix(each) not in private

    def order(each: InterfaceAddress) -> tuple[bool, bool, bool, bool]:
        preferred = str(each.address) in sources
        return not preferred, each.address.is_link_local, each.point_to_point, each.address.version == 4

    offered = sorted(filter(is_offered, outside), key=order)
    return list(dict.fromkeys(each.scoped for each in offered))[:MAX_ADDRESSES]


def _is_of_a_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        return False
    # Deprecated kinds (RFC 8445 §5.1.1.1): site-local, and IPv4 in IPv6.
    return address.version == 4 or not (address.is_site_local or address.ipv4_mapped)


def _prefix(each: InterfaceAddress) -> tuple[str, bytes]:
    """Return what the temporary and the lasting address of one network share."""
    return each.interface, each.address.packed[:8] if each.address.version == 6 else each.address.packed


def socket_address(address: str) -> tuple[Any, ...]:
    """Return what a socket binds for an address as InterfaceAddress.scoped has it, with any free port.

    Raises:
        OSError: its interface is not there.
    """
    found = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    return found[0][4]


def offered_addresses(*, on_link: bool = False) -> list[str]:
    """Return the addresses of this machine to offer to a peer, the best first. on_link as in choose()."""
    return choose(read(), sources(), on_link=on_link)


def read() -> list[InterfaceAddress]:
    """Return the addresses of this machine's interfaces, as far as the kernel tells."""
    states = psutil.net_if_stats()
    flags, internal = _ipv6_flags(), internal_interfaces()
    found = []
    for interface, addresses in psutil.net_if_addrs().items():
        state = states.get(interface)
        tunnel = state is not None and "pointopoint" in state.flags.split(",")
        for each in addresses:
            if each.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(each.address.partition("%")[0])
            flag = flags.get((interface, address.packed), 0)
            found.append(
                InterfaceAddress(
                    interface,
                    address,
                    up=state is not None and state.isup,
                    internal=interface in internal,
                    point_to_point=tunnel,
                    usable=not flag & (_DEPRECATED | _TENTATIVE | _DAD_FAILED),
                    temporary=bool(flag & _TEMPORARY),
                )
            )
    return found


def sources() -> set[str]:
    """Return the addresses that the kernel sends from, by its routes and RFC 6724."""
    return {source for source in map(outgoing_address, ELSEWHERE) if source is not None}


def outgoing_address(family: socket.AddressFamily) -> str | None:
    """Return the address that the kernel would send from to the Internet; None if it has no way there."""
    return source_towards(ELSEWHERE[family])


def source_towards(remote: Address) -> str | None:
    """Return the address that the kernel would send from to this one; None if it has no way there."""
    try:
        with udp_socket(remote) as probe:
            # Nothing is sent.
            probe.connect(remote)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def udp_socket(address: Address) -> socket.socket:
    """Return a new UDP socket of the family of an address."""
    return socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)


def _ipv6_flags() -> dict[tuple[str, bytes], int]:
    """Return the flags of each IPv6 address by interface and address; of Linux only, proc_net(5)."""
    flags = {}
    with contextlib.suppress(OSError):
        for line in _PROC_IF_INET6.read_text().splitlines():
            address, _, _, _, flag, interface = line.split()
            flags[interface, bytes.fromhex(address)] = int(flag, 16)
    return flags


def internal_interfaces(directory: Path = _SYS_CLASS_NET) -> set[str]:
    """Return the bridges no member of which leads out of this machine, and their members.

    Args:
        directory: the interfaces as sysfs has them; of Linux only.
    """
    internal: set[str] = set()
    # An interface may go in this moment.
    with contextlib.suppress(OSError):
        for members in [interface / "brif" for interface in directory.iterdir()]:
            if members.is_dir():
                names = [member.name for member in members.iterdir()]
                if not any(_leads_outside(directory / name) for name in names):
                    internal.update((members.parent.name, *names))
    return internal


def _leads_outside(interface: Path) -> bool:
    """Whether an interface is a device, or is made of one (a VLAN, a bond): pairs and taps are neither."""
    if (interface / "device").exists():
        return True
    try:
        return "DEVTYPE=" in (interface / "uevent").read_text()
    except OSError:
        return False
