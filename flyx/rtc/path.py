"""The path that a connection takes, as people are told of it."""

from __future__ import annotations

from ipaddress import ip_address

from msgspec import Struct
from msgspec.structs import replace


class CandidatePair(Struct, frozen=True):
    """What a path leads from and to, and through.

    Attributes:
        local: type of the local candidate: host, srflx, prflx or relay (RFC 8445 §5.1.1).
        remote: the same of the remote one.
        tunnelled: it leads through the signaling server.
        family: of the IP addresses, 4 or 6.
        is_local: whether it stays within a local network: both are hosts, with addresses of such a one.
        relay: host of the TURN server that relays for us; None if none does, or it may be one of several.
    """

    local: str
    remote: str
    tunnelled: bool = False
    family: int = 4
    is_local: bool = False
    relay: str | None = None

    def is_like(self, other: CandidatePair) -> bool:
        """Whether people would call it the same; which relay it goes through may be known only later."""
        return replace(self, relay=None) == replace(other, relay=None)


def is_of_local_network(address: str) -> bool:
    """Return whether an address is one that only a local network has; a name (mDNS) stands for such a one."""
    try:
        return ip_address(address.partition("%")[0]).is_private
    except ValueError:
        return True
