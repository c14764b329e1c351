"""Connections of this node that a message did not reach although their room counts it as sent."""

from __future__ import annotations

from msgspec.structs import replace

from flyx.signaling.commands import Command, Leave, LoseConnection, Resume
from flyx.signaling.room import Room

Connection = tuple[str, int]
"""Client id and generation."""


class Undelivered:
    """Remembers such connections until their rooms know."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()

    def add(self, client_id: str, generation: int) -> None:
        """Remember a connection."""
        self._connections.add((client_id, generation))

    def corrected(self, command: Resume | LoseConnection) -> Resume | LoseConnection:
        """Return command without what it says of the traffic of a connection that lacks a message."""
        if isinstance(command, LoseConnection):
            lacking = (command.client_id, command.generation) in self._connections
            return replace(command, traffic=None) if lacking else command
        if command.handover is not None and (command.client_id, command.handover[0]) in self._connections:
            return replace(command, handover=None)
        return command

    def told(self, room: Room, command: Command) -> None:
        """Forget a connection: its room, as it was before this command, knows now or will not ask again."""
        if isinstance(command, Leave | LoseConnection):
            self._connections.discard((command.client_id, command.generation))
        elif isinstance(command, Resume) and command.client_id in room.members:
            self._connections.discard((command.client_id, room.members[command.client_id].generation))
