"""What a receiver is doing: it waits for offers of the sender, connects, pairs and receives. Pure.

    WAITING ─BEGIN─> CONNECTING ─CONNECT─> PAIRING ─PAIR─> RECEIVING ─CONFIRM─> RECEIVED
       ^                 │                    │               │
       └──────RETRY──────┴────────────────────┴───────────────┘

One connection at a time: the next is begun when the last is closed, with the last offer that has come, so
that a server that makes offers up costs one connection. A connection that lives is not given up for an offer.

The transfer has succeeded in RECEIVED, and only there: CONFIRM needs what both ends have confirmed.

client/receive.py holds the link, the pairing and the driver, feeds what happens in here, and does what the
answers say. `now` is monotonic seconds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto

from msgspec import Struct

from flyx.client.confirmation import Confirmation
from flyx.errors import (
    ConnectionLost,
    FlyxError,
    LocalProtocolError,
    PairingTimedOut,
    PeerUnreachable,
    SenderLeft,
    SignalingError,
)
from flyx.rtc.description import MAX_REMOTE_CANDIDATES
from flyx.signaling.messages import Message, Offer

logger = logging.getLogger("flyx.client")


class ReceiveState(Enum):
    """What is going on."""

    # No offer is being followed.
    WAITING = auto()
    CONNECTING = auto()
    # The channels are open.
    PAIRING = auto()
    RECEIVING = auto()
    RECEIVED = auto()


class Step(Enum):
    """What moves the state."""

    BEGIN = auto()
    CONNECT = auto()
    PAIR = auto()
    CONFIRM = auto()
    RETRY = auto()


_S, _T = ReceiveState, Step

TRANSITIONS: Mapping[tuple[ReceiveState, Step], ReceiveState] = {
    (_S.WAITING, _T.BEGIN): _S.CONNECTING,
    (_S.WAITING, _T.RETRY): _S.WAITING,
    (_S.CONNECTING, _T.CONNECT): _S.PAIRING,
    (_S.CONNECTING, _T.RETRY): _S.WAITING,
    (_S.PAIRING, _T.PAIR): _S.RECEIVING,
    (_S.PAIRING, _T.RETRY): _S.WAITING,
    (_S.RECEIVING, _T.CONFIRM): _S.RECEIVED,
    (_S.RECEIVING, _T.RETRY): _S.WAITING,
}
"""Any other step is a mistake of the caller."""


class Feed(Struct, frozen=True):
    """Give this message to the connection that is being made."""

    message: Message


class GiveUp(Struct, frozen=True):
    """Give up connecting or pairing, for this reason."""

    error: FlyxError


class Doubt(Struct, frozen=True):
    """The transfer goes on if the sender comes back soon."""


class Check(Struct, frozen=True):
    """The sender says that the connection is lost: the transfer goes on if it answers all the same."""


Action = Feed | GiveUp | Doubt | Check


class ReceiveMachine:
    """The state of a reception, and what to do when something happens; one answer at most for each input."""

    def __init__(self, reconnect: float) -> None:
        """Args:
        reconnect: seconds for which another connection is waited for when one is lost; 0 for not.
        """
        self._reconnect = reconnect
        self.state = ReceiveState.WAITING
        # The last offer that no connection was begun for, and what followed it.
        self._offered: deque[Message] = deque()
        # Why the sender can offer no more; None while it may.
        self.gone: FlyxError | None = None
        # Why the last connection is no more, and until when another one is waited for.
        self.lost: ConnectionLost | None = None
        self._deadline = 0.0
        # Set in RECEIVED.
        self.confirmation: Confirmation | None = None

    @property
    def deadline(self) -> float | None:
        """When to stop waiting for an offer; None for as long as the sender is in the room."""
        return None if self.lost is None else self._deadline

    def message(self, message: Message) -> Action | None:
        """The sender has sent an offer or a candidate."""
        if isinstance(message, Offer):
            self._offered = deque([message])
            match self.state:
                case ReceiveState.CONNECTING:
                    return self._connect_anew()
                case ReceiveState.RECEIVING:
                    # It makes one when it has lost the one that there is, or the server has made it up.
                    return Check()
        elif self._offered:
            # It belongs to that offer. More than these are not taken anyway.
            if len(self._offered) <= MAX_REMOTE_CANDIDATES:
                self._offered.append(message)
        elif self.state is ReceiveState.CONNECTING:
            return Feed(message)
        return None

    @property
    def has_offer(self) -> bool:
        """Whether there is an offer that no connection was begun for."""
        return bool(self._offered)

    def sender_away(self) -> Action | None:
        """The server has lost the connection to the sender, and holds its place."""
        return Doubt() if self.state is ReceiveState.RECEIVING else None

    def sender_left(self) -> Action | None:
        """The sender has left the room."""
        self.gone = SenderLeft()
        match self.state:
            case ReceiveState.RECEIVING:
                return Doubt()
            case ReceiveState.CONNECTING | ReceiveState.PAIRING:
                return GiveUp(self.gone)
        return None

    def room_gone(self, error: FlyxError) -> Action | None:
        """The server will send nothing more. A connection that is there does without."""
        self.gone = error
        return GiveUp(error) if self.state is ReceiveState.CONNECTING else None

    def begin_anew(self) -> Action | None:
        """Messages may be lost, or the sender is new: it will offer a new connection."""
        self.gone = None
        if self.state is ReceiveState.CONNECTING:
            self._offered.clear()
            return self._connect_anew()
        if self.state is ReceiveState.WAITING:
            self._offered.clear()
        return None

    def _connect_anew(self) -> GiveUp:
        self._move(Step.RETRY)
        return GiveUp(PeerUnreachable(reason="the sender offers another one"))

    def begin(self) -> tuple[Message, ...] | None:
        """Begin a connection with what this returns; None if there is no offer yet.

        Raises:
            FlyxError: there will be none.
        """
        if self.gone:
            raise self.gone
        if not self._offered:
            return None
        self._move(Step.BEGIN)
        begun, self._offered = tuple(self._offered), deque()
        return begun

    def connected(self) -> None:
        """The channels are open."""
        self._move(Step.CONNECT)

    def paired(self) -> None:
        """Both ends have proved to know the code."""
        self._move(Step.PAIR)

    def confirmed(self, confirmation: Confirmation) -> None:
        """Both ends have confirmed the digest of everything."""
        self._move(Step.CONFIRM)
        self.confirmation = confirmation

    def failed(self, error: FlyxError, now: float) -> bool:
        """The connection is lost, or was not made: wait for the sender to offer another one, if it may.

        Returns:
            Whether a connection was lost that there was.

        Raises:
            FlyxError: it is over, for this reason.
        """
        if isinstance(error, ConnectionLost):
            if self.gone or not self._reconnect:
                raise error
            self.lost = error
            self._deadline = now + self._reconnect
        elif self.lost is None or not isinstance(error, PeerUnreachable | PairingTimedOut | SignalingError):
            raise error
        elif self.gone or now >= self._deadline:
            # That another connection could not be made says less than why it was wanted.
            raise self.lost from error
        self._move(Step.RETRY)
        return error is self.lost

    def _move(self, step: Step) -> None:
        following = TRANSITIONS.get((self.state, step))
        if following is None:
            raise LocalProtocolError(reason=f"{step.name} of a reception that is {self.state.name}")
        logger.debug("reception: %s by %s", following.name, step.name)
        self.state = following
