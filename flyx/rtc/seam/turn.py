"""TURN: candidates that a server relays for (RFC 8656)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aioice import stun
from aioice.ice import StunProtocol
from aioice.ice import relayed_candidate as ice_relayed_candidate
from aioice.turn import TurnTransport
from aiortc import RTCIceCandidate, RTCPeerConnection
from aiortc.rtcicetransport import candidate_from_aioice

from flyx.rtc.seam.connection import COMPONENT
from flyx.rtc.seam.ice import add_local_candidate, connection_of

PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    TurnTransport: ("_TurnTransport__close_task", "_TurnTransport__send_tasks"),
}
"""Attributes that instances of these classes have and this module uses."""

ALLOCATION_TIMEOUT = 10.0
"""Seconds for a TURN server to make an allocation."""

RELAY_FAREWELL = 1.0
"""Seconds for a TURN server to hear that an allocation is not needed any more; unheard, it ends it later."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A TURN server (host, port) and how to be let in.

    Attributes:
        transport: "udp" or "tcp", to the server.
        secure: TLS over that.
    """

    address: tuple[str, int]
    username: str
    password: str
    transport: str
    secure: bool


class _RelayedProtocol(StunProtocol):
    """Ends in time even when its TURN server is out of reach, which aioice would ask for up to a minute.

    That is when there is no time to lose: the path through it is lost, and another one is wanted.
    """

    async def close(self) -> None:
        closing = asyncio.ensure_future(super().close())
        await asyncio.wait((closing,), timeout=RELAY_FAREWELL)
        if not closing.done():
            transport: Any = self.transport
            for task in (transport._TurnTransport__close_task, *transport._TurnTransport__send_tasks):
                task.cancel()
        await closing


async def relayed_candidate(pc: RTCPeerConnection, relay: Relay) -> RTCIceCandidate | None:
    """Have a TURN server relay for us, and return the address there; None if it does not.

    RFC 8656. The allocation lives and ends with the connection.
    """
    ice = connection_of(pc)
    try:
        async with asyncio.timeout(ALLOCATION_TIMEOUT):
            candidate, protocol = await ice_relayed_candidate(
                component=COMPONENT,
                hide_related_address=False,
                protocol_factory=lambda: _RelayedProtocol(ice),
                turn_server=relay.address,
                turn_username=relay.username,
                turn_password=relay.password,
                turn_ssl=relay.secure,
                turn_transport=relay.transport,
            )
    except (stun.TransactionError, OSError, TimeoutError, KeyError):
        return None
    add_local_candidate(ice, candidate, protocol)
    return candidate_from_aioice(candidate)
