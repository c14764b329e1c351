"""Commands, which tell a room what happened, and effects, which tell the server what to do.

Commands go into `flyx.signaling.room.step`, effects come out, to be carried out in their order.
"""

from __future__ import annotations

from msgspec import Struct

from flyx.signaling.members import Member, Traffic
from flyx.signaling.messages import (
    NO_ICE_SERVERS,
    CloseCode,
    ErrorCode,
    IceServersData,
    Joined,
    Message,
    Paired,
    Relayed,
    Role,
)

# Commands.


class Enter(Struct, frozen=True):
    """A new client has connected.

    Attributes:
        client_id: new; made by the server.
        resume_token: new and secret; the client is sent it, the room keeps its hash.
        role: the only role that it will have; None: whichever is free.
        node: the process that holds the connection.
        ice: to be handed to it.
        address: what its address counts as, of at most MAX_ADDRESS_LENGTH characters.
        hold: seconds for which it would like its place held after its connection was lost.
    """

    client_id: str
    resume_token: str
    role: Role | None = None
    node: str = ""
    ice: IceServersData = NO_ICE_SERVERS
    address: str = ""
    hold: float = 0.0


class Resume(Struct, frozen=True):
    """A client that was inside has connected again; its older connection, if there is one, is over.

    Attributes:
        client_id: the client that it claims to be.
        shown_token: its proof.
        resume_token: the next one, new and secret.
        received: messages that it has seen; None: it does not count.
        handover: what went over its older connection, if that is known to be over: (generation, traffic).
        node: the process that holds the connection.
        ice: to be handed to it.
    """

    client_id: str
    shown_token: str
    resume_token: str
    received: int | None = None
    handover: tuple[int, Traffic] | None = None
    node: str = ""
    ice: IceServersData = NO_ICE_SERVERS


class Relay(Struct, frozen=True):
    """A client has sent a message for its peers, or for its room about one of them."""

    client_id: str
    generation: int
    message: Relayed | Paired


class Leave(Struct, frozen=True):
    """A client has gone for good; reason is for people."""

    client_id: str
    generation: int
    reason: str


class LoseConnection(Struct, frozen=True):
    """The connection of a client has ended without a goodbye.

    Attributes:
        client_id: whose connection it was.
        generation: of the connection.
        reason: for people.
        traffic: what went over it; None: unknown.
        settled: nothing else can have been on its way to it; else an AppendMissed says what was.
        died: the program of the client seems to have ended, by how its kernel closed: it hardly comes back.
    """

    client_id: str
    generation: int
    reason: str
    traffic: Traffic | None
    settled: bool = True
    died: bool = False


class LoseNode(Struct, frozen=True):
    """A process has died, and its connections with it."""

    node: str
    reason: str


class AppendMissed(Struct, frozen=True):
    """A connection should have been given more than was known when it was lost.

    Attributes:
        client_id: whose connection it was.
        generation: of the connection.
        texts: what it should have been given last, oldest first; empty: nothing; None: unknown.
    """

    client_id: str
    generation: int
    texts: tuple[str, ...] | None


class Restart(Struct, frozen=True):
    """All processes were down. No client is connected, and each has the whole grace time to resume."""


class CloseRoom(Struct, frozen=True):
    """The room is to be closed.

    Attributes:
        owner_token: of the client that says that the room is its own; None: the server's operator asks.
    """

    owner_token: str | None


class Expire(Struct, frozen=True):
    """Time has passed."""


Disconnection = LoseConnection | Resume | LoseNode | AppendMissed | Restart
"""Says that a connection is over. Named, because a union written in place is made anew at each message."""

Command = (
    Enter | Resume | Relay | Leave | LoseConnection | LoseNode | AppendMissed | Restart | CloseRoom | Expire
)


# Effects.


class Admit(Struct, frozen=True):
    """The connection that asked to come in is now that of `member`, and is sent `joined` first.

    Attributes:
        member: as it is inside.
        joined: for the client.
        sent: messages that the client has seen already: where the count goes on.
        received: messages that were taken from it already.
        replay: what it missed, to be sent and counted.
    """

    member: Member
    joined: Joined
    sent: int = 0
    received: int = 0
    replay: tuple[str, ...] = ()


class Refuse(Struct, frozen=True):
    """Tell the connection that asked why not, with a fatal `error`, and close it; no other is concerned."""

    close_code: CloseCode
    error_code: ErrorCode
    reason: str


class Deliver(Struct, frozen=True):
    """Send message to a member that is connected, on the connection of that generation alone."""

    member: Member
    message: Message

    @property
    def client_id(self) -> str:
        """Whom it is for."""
        return self.member.client_id


class CloseClient(Struct, frozen=True):
    """Tell a client why with a fatal `error`, then close its connection of that generation.

    Attributes:
        member: a client that was inside until now, or whose older connection this was.
        close_code: for the close frame.
        error_code: for the `error`.
        reason: a sentence for people.
    """

    member: Member
    close_code: CloseCode
    error_code: ErrorCode
    reason: str

    @property
    def client_id(self) -> str:
        """Whose connection it is."""
        return self.member.client_id


class RoomClosed(Struct, frozen=True):
    """The room is over."""

    room_id: str
    error_code: ErrorCode


Effect = Admit | Refuse | Deliver | CloseClient | RoomClosed
Effects = tuple[Effect, ...]
