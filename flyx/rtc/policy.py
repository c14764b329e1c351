"""Which of a machine's paths a connection may use."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from msgspec import Struct

from flyx.net.interfaces import read, socket_address


class IcePolicy(Struct, frozen=True):
    """What the person allows.

    Attributes:
        relay_only: only TURN servers are contacted, and no address of ours goes to the peer.
        no_relay: no TURN server is used, neither ours nor the peer's.
        bind: the only local address that may be used, or the interface whose addresses are; None: any.
    """

    relay_only: bool = False
    no_relay: bool = False
    bind: str | None = None

    @property
    def limits_addresses(self) -> bool:
        """Whether there are local addresses that may not be offered."""
        return self.relay_only or self.bind is not None

    def local_addresses(self) -> list[str]:
        """Return the addresses that bind stands for at the moment."""
        assert self.bind is not None
        found = [each for each in read() if each.usable]
        try:
            bound = ip_address(self.bind)
        except ValueError:
            return [each.scoped for each in found if each.interface == self.bind]
        # Of a link-local address without its interface, that of each interface that has it.
        return [each.scoped for each in found if each.address == bound] or [str(bound)]

    def offered_addresses(self) -> list[str]:
        """Return the addresses to offer to the peer, where limits_addresses."""
        return [] if self.relay_only else self.local_addresses()

    def bind_socket(self, sock: socket.socket) -> None:
        """Bind a socket to a local address that may be used.

        Raises:
            OSError: there is none of its family, or it is not there any more.
        """
        if self.bind is None:
            return
        version = 6 if sock.family == socket.AF_INET6 else 4
        for address in self.local_addresses():
            if ip_address(address).version == version:
                sock.bind(socket_address(address))
                return
        raise OSError(None, f"{self.bind} has no IPv{version} address")


ANY_PATH = IcePolicy()
