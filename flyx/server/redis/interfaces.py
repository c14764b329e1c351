"""What the parts of a node ask of those around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from flyx.signaling.commands import Command, Effects
from flyx.signaling.messages import CloseCode, ErrorCode

Perform = Callable[[str, Command], Awaitable[None]]
"""Runs a command, which no client gave, on the room of this id.

Raises NoSuchRoom, and StoreUnavailable: then the command may have been run or not.
"""


class Clients(Protocol):
    """The clients connected to this node. Nothing here waits; what is not here is ignored."""

    def dispatch(self, effects: Effects) -> None:
        """Carry out the effects of a command that no client of this node has given."""

    def holds(self, client_id: str, generation: int) -> bool:
        """Tell whether this connection of the client is here and speaks for it."""

    def send(self, client_id: str, generation: int, text: str, *, counted: bool) -> None:
        """Send to a client; counted: the message is about a peer and must not get lost."""

    async def take_over(self, room_id: str, client_id: str, generation: int) -> None:
        """End a connection whose client has resumed elsewhere, and tell the room what went over it."""

    def relayed_elsewhere(self, clients: int) -> None:
        """Count a message of a client here that goes to so many clients of other nodes."""

    def close(self, client_id: str, generation: int, code: CloseCode, error: ErrorCode, reason: str) -> None:
        """End a connection; it speaks for the client no longer."""


class NodeEvents(Protocol):
    """What Membership and Gaps find out, and others have to act on."""

    def lost_touch(self) -> None:
        """The subscription to the channel began or ended: messages to this node may have been lost."""

    def messages_lost(self, node_id: str) -> None:
        """Messages of another node did not arrive, or may not have."""

    async def audit_due(self, *, data_lost: bool) -> bool:
        """Compare every replica with the backend; data_lost: put back what the backend has lost.

        Returns:
            False if that cannot be done now.
        """

    def audited(self) -> None:
        """A regular audit found this node in step with the backend."""

    async def renewed(self) -> None:
        """The lease was renewed, and this node is ready: a time for what has to be done every few seconds."""

    def renamed(self, old_name: str) -> None:
        """This node had been evicted under its old name, and goes on under a new one."""

    async def node_dead(self, node_id: str, room_ids: Collection[str]) -> None:
        """Another node was evicted, which had clients in these rooms."""
