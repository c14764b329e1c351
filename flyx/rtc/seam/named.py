"""ICE: candidates whose addresses hide behind names (mDNS), as browsers have them.

aioice asks for each name once, for IPv4 alone, and for a second; and with dnspython 2.9 it cannot read what
Chromium answers. Here flyx.net.dnssd asks.

draft-ietf-mmusic-mdns-ice-candidates.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from aioice import Candidate, Connection
from aioice.mdns import is_mdns_hostname

if TYPE_CHECKING:
    from flyx.net.dnssd import HostNames

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    Connection: (
        *("_add_remote_candidate", "_closing", "_end_remote_candidates"),
        *("_remote_candidates_end", "_remote_candidates_resolving"),
    )
}
"""Attributes that instances of these classes have and this module uses."""


class NamingConnection(Connection):
    """An ICE connection to a peer that may have names for its addresses."""

    def __init__(self, *, ice_controlling: bool) -> None:
        super().__init__(ice_controlling=ice_controlling)
        # Set when there is a name.
        self._host_names: HostNames | None = None

    async def add_remote_candidate(self, remote_candidate: Candidate | None) -> None:
        """Take a candidate of the peer, or None after its last.

        Raises:
            ValueError: the last has come already.
        """
        if remote_candidate is None or not is_mdns_hostname(remote_candidate.host):
            await super().add_remote_candidate(remote_candidate)
            return
        if self._remote_candidates_end:
            raise ValueError("a candidate after the last one")
        # The end may be told meanwhile, and is that of what comes after it (RFC 8838 §14).
        self._remote_candidates_resolving += 1
        try:
            address = await self._resolve(remote_candidate.host)
            if address is not None and not self._closing:
                self._add_remote_candidate(copy.copy(remote_candidate), address)
        finally:
            self._remote_candidates_resolving -= 1
            self._end_if_resolved()

    def _end_if_resolved(self) -> None:
        if self._remote_candidates_end and not self._remote_candidates_resolving and not self._closing:
            self._end_remote_candidates()

    async def _resolve(self, name: str) -> str | None:
        """Return the address behind a name, if somebody tells it."""
        # Loaded when it is first needed: flyx itself hides no addresses.
        from flyx.net.dnssd import HostNames

        self._host_names = self._host_names or HostNames()
        return await self._host_names.resolve(name)
