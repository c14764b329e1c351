"""The end of a client's older connection, wherever it is, when the client resumes on this node.

The node of that connection knows what went over it. Otherwise the client could not be told what it missed.
"""

from __future__ import annotations

import asyncio

from flyx.server.redis import wire
from flyx.server.redis.backend import Backend
from flyx.server.redis.interfaces import Clients
from flyx.server.rooms.store import StillWanted
from flyx.signaling.commands import Resume

_TIMEOUT = 3.0
"""Seconds that a client waits for the end of its older connection on another node."""

_CHECK_INTERVAL = 0.02
"""Seconds between two looks whether it has ended."""


class Handover:
    """Has older connections ended, and waits for that."""

    def __init__(self, backend: Backend, clients: Clients) -> None:
        """Args:
        backend: tells how the room is, and the other node that a client has resumed.
        clients: those connected here.
        """
        self._backend = backend
        self._clients = clients

    async def prepare(self, room_id: str, command: Resume, now: float, still_wanted: StillWanted) -> None:
        """Wait until the older connection of a client is over, or for long enough.

        Raises:
            StoreUnavailable: The backend cannot be asked.
        """
        deadline = asyncio.get_running_loop().time() + _TIMEOUT
        asked = False
        while True:
            entry = await self._backend.load(room_id)
            member = entry.room.members.get(command.client_id) if entry else None
            if member is None or not member.accepts(command.shown_token, now) or not still_wanted():
                return
            if member.absence is not None and member.absence.settled:
                return
            if member.node == self._backend.node_id:
                if self._clients.holds(member.client_id, member.generation):
                    # The hub has ended it already, if it could.
                    return
            elif not asked:
                message = wire.encode([wire.TAKEOVER, room_id, member.client_id, member.generation])
                if not await self._backend.publish(member.node, message):
                    return
                asked = True
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_CHECK_INTERVAL)
