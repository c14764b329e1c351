"""Which of a machine's paths a connection may use."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class IcePolicy:
    """What the person allows.

    Attributes:
        relay_only: TURN servers alone are spoken to, and no address of ours is told to anybody else.
        no_relay: No TURN server is used, neither ours nor the peer's.
        bind: Local addresses that may be used, and no others; None: all of them.
    """

    relay_only: bool = False
    no_relay: bool = False
    bind: tuple[str, ...] | None = None

    def allows(self, address: str) -> bool:
        """Whether a local address may be used."""
        return self.bind is None or address in self.bind

    def bind_socket(self, sock: socket.socket) -> None:
        """Bind a socket to a local address that may be used.

        Raises:
            OSError: There is none of its family, or it is not there any more.
        """
        if self.bind is None:
            return
        version = 6 if sock.family == socket.AF_INET6 else 4
        for address in self.bind:
            if ip_address(address).version == version:
                sock.bind((address, 0))
                return
        raise OSError(None, f"none of the local addresses that may be used is of IPv{version}")


ANY_PATH = IcePolicy()
