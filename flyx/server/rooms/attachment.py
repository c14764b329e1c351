"""A client inside a room, as one process sees it: its connection, and what has gone over that."""

from __future__ import annotations

import asyncio
from typing import Protocol

from flyx.server.rooms.store import UNAVAILABLE
from flyx.signaling.members import Member, Tail, Traffic
from flyx.signaling.messages import CloseCode, ErrorCode


class ClientTransport(Protocol):
    """A connection, as the hub sees it. Neither method waits."""

    @property
    def queued_size(self) -> int:
        """Bytes that wait for the client."""

    @property
    def gone(self) -> bool:
        """Nothing more reaches the client."""

    def send(self, text: str) -> None:
        """Queue one message; a client that does not keep up is closed instead."""

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        """Say why, then close; what is queued goes out first."""


class Attachment:
    """A client inside a room, and the connection of this process that is its own.

    Attributes:
        room_id: where it is.
        client_id: who it is.
        role: what it is there.
        generation: of the connection.
        over: the connection speaks for the client no longer.
    """

    __slots__ = (
        "_busy",
        "_idle",
        "_received",
        "_tail",
        "_transport",
        "client_id",
        "generation",
        "over",
        "role",
        "room_id",
    )

    def __init__(
        self, transport: ClientTransport, room_id: str, member: Member, *, sent: int, received: int
    ) -> None:
        """Args:
        transport: the connection.
        room_id: where the client is.
        member: who it is there.
        sent: messages that it has seen already.
        received: messages that were taken from it already.
        """
        self.room_id = room_id
        self.client_id = member.client_id
        self.role = member.role
        self.generation = member.generation
        self.over = False
        self._transport = transport
        self._tail = Tail(sent)
        self._received = received
        # While a message of the client is being relayed; set by the task that waits for the end of that.
        self._busy = False
        self._idle: asyncio.Future[None] | None = None

    def send(self, text: str, *, counted: bool) -> None:
        """Send to the client; counted: it is about a peer, and must come again if it does not arrive."""
        if counted:
            self._tail.append(text)
        self._transport.send(text)

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        """End the connection; nothing else is sent on it or taken from it."""
        self.over = True
        self._transport.close(code, error_code, reason)

    def count(self) -> None:
        """Count a message that was taken from the client."""
        self._received += 1

    def refuse_relay(self) -> None:
        """The message was not taken after all, and the client is to send it again when it is back."""
        self._received -= 1
        self._transport.close(CloseCode.TRY_AGAIN_LATER, ErrorCode.UNAVAILABLE, UNAVAILABLE)

    def begin_relay(self) -> None:
        """Count a message of the client, whose relaying begins."""
        self._received += 1
        self._busy = True

    def end_relay(self) -> None:
        """The message has gone its way."""
        self._busy = False
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    async def traffic(self) -> Traffic:
        """Return what went over the connection, once what is under way has gone its way."""
        if self._busy:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)
        return Traffic(self._received, self._tail.count, self._tail.texts)
