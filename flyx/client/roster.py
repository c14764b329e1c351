"""The receivers of one room as their sender sees them: in what state each is, and who has a place.

    WAITING ─CONNECT─> CONNECTING ─SERVE─> SERVING ─CONFIRM─> SERVED
                           └───────QUEUE──> QUEUED ─SERVE─> SERVING
    QUEUED, SERVING ─LOSE─> REPAIRING ─SERVE─> SERVING, or ─QUEUE─> QUEUED
    any of these but SERVED ─FAIL─> UNSERVED

A receiver counts as served by the confirmation of its digest and by nothing else: CONFIRM, which needs the
Confirmation, is the only way to SERVED. Every other end, whatever raised it, is a FAIL with its error.

Pure: no clock, no connection. client/send.py connects to the receivers and reports to the roster.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from flyx.client.confirmation import Confirmation
from flyx.errors import FlyxError, LocalProtocolError

logger = logging.getLogger("flyx.client")


class ReceiverState(Enum):
    """What a receiver has come to."""

    # In the room; no connection has been begun.
    WAITING = auto()
    # A connection is being made, or its other end has not proved to know the code.
    CONNECTING = auto()
    # Paired, while all places are taken.
    QUEUED = auto()
    # Paired, with a place: files are on their way.
    SERVING = auto()
    # Its connection was lost after pairing, and another one is being made. It keeps no place meanwhile.
    REPAIRING = auto()
    # It has confirmed the digest of everything that could be sent.
    SERVED = auto()
    # It will get nothing more, and has not confirmed.
    UNSERVED = auto()


class Step(Enum):
    """What moves a receiver to another state."""

    CONNECT = auto()
    QUEUE = auto()
    SERVE = auto()
    LOSE = auto()
    CONFIRM = auto()
    FAIL = auto()


_S, _T = ReceiverState, Step

TRANSITIONS: Mapping[tuple[ReceiverState, Step], ReceiverState] = {
    (_S.WAITING, _T.CONNECT): _S.CONNECTING,
    (_S.WAITING, _T.FAIL): _S.UNSERVED,
    (_S.CONNECTING, _T.QUEUE): _S.QUEUED,
    (_S.CONNECTING, _T.SERVE): _S.SERVING,
    (_S.CONNECTING, _T.FAIL): _S.UNSERVED,
    (_S.QUEUED, _T.SERVE): _S.SERVING,
    (_S.QUEUED, _T.LOSE): _S.REPAIRING,
    (_S.QUEUED, _T.FAIL): _S.UNSERVED,
    (_S.SERVING, _T.CONFIRM): _S.SERVED,
    (_S.SERVING, _T.LOSE): _S.REPAIRING,
    (_S.SERVING, _T.FAIL): _S.UNSERVED,
    (_S.REPAIRING, _T.QUEUE): _S.QUEUED,
    (_S.REPAIRING, _T.SERVE): _S.SERVING,
    (_S.REPAIRING, _T.FAIL): _S.UNSERVED,
}
"""Any other step is a mistake of the caller."""


@dataclass(eq=False, slots=True)
class Receiver:
    """One receiver, from its arrival on.

    Attributes:
        number: 1, 2, 3, in the order of arrival; how people know it.
        client_id: the server's name for it.
        state: changed by the roster alone.
        confirmation: set when it is SERVED.
        error: why it is UNSERVED.
    """

    number: int
    client_id: str
    state: ReceiverState = ReceiverState.WAITING
    confirmation: Confirmation | None = field(default=None)
    error: FlyxError | None = field(default=None)


class Roster:
    """All receivers of a room, and the places for them."""

    def __init__(self, wanted: int, max_connecting: int) -> None:
        """Args:
        wanted: receivers that must be served until the sender is done; 0 for no end. So many have places.
        max_connecting: receivers at a time that have not paired.
        """
        self._wanted = wanted
        self._max_connecting = max_connecting
        self._arrivals = 0
        self.served = 0
        # In the room, by client id. A receiver that has left may have a connection still.
        self._present: dict[str, Receiver] = {}
        # By state, in the order in which they came to it. The final states are counted, not kept.
        self._in: dict[ReceiverState, dict[Receiver, None]] = {state: {} for state in ReceiverState}

    @property
    def is_complete(self) -> bool:
        """Whether as many as wanted are served."""
        return 0 < self._wanted <= self.served

    @property
    def has_place(self) -> bool:
        """Whether one more may be served now."""
        return not self._wanted or self.served + len(self._in[ReceiverState.SERVING]) < self._wanted

    @property
    def is_serving(self) -> bool:
        """Whether any receiver is being served, or its connection repaired."""
        return bool(self._in[ReceiverState.SERVING] or self._in[ReceiverState.REPAIRING])

    def in_state(self, state: ReceiverState) -> tuple[Receiver, ...]:
        """Return the receivers in one state that is not final, oldest in it first."""
        return tuple(self._in[state])

    def find(self, client_id: str) -> Receiver | None:
        """Return a receiver that is in the room."""
        return self._present.get(client_id)

    def absent(self, client_ids: set[str]) -> tuple[Receiver, ...]:
        """Return the receivers that we think to be in the room, while only these are."""
        return tuple(receiver for key, receiver in self._present.items() if key not in client_ids)

    @property
    def present(self) -> int:
        """How many receivers are in the room."""
        return len(self._present)

    @property
    def has_served_present(self) -> bool:
        """Whether a receiver that has everything has not left the room yet."""
        return any(receiver.state is ReceiverState.SERVED for receiver in self._present.values())

    def arrive(self, client_id: str) -> Receiver:
        """Take a receiver that has come into the room; an earlier one of that id has left."""
        self._arrivals += 1
        receiver = Receiver(self._arrivals, client_id)
        self._present[client_id] = receiver
        self._in[receiver.state][receiver] = None
        return receiver

    def depart(self, receiver: Receiver) -> None:
        """It has left the room. What it is in the middle of goes on."""
        if self._present.get(receiver.client_id) is receiver:
            del self._present[receiver.client_id]

    def connect_next(self, *, in_vain: bool = False) -> Receiver | None:
        """Return the next receiver to connect to, if there is one, and a place for it.

        Args:
            in_vain: there will never be a place for it, and it is to be told.
        """
        waiting, connecting = self._in[ReceiverState.WAITING], self._in[ReceiverState.CONNECTING]
        is_due = self.has_place or in_vain
        if not waiting or not is_due or len(connecting) >= self._max_connecting:
            return None
        receiver = next(iter(waiting))
        self._move(receiver, Step.CONNECT)
        return receiver

    def serve_next(self) -> Receiver | None:
        """Return the next of those that are held for which a place has become free."""
        held = self._in[ReceiverState.QUEUED]
        if not held or not self.has_place:
            return None
        receiver = next(iter(held))
        self._move(receiver, Step.SERVE)
        return receiver

    def pair(self, receiver: Receiver) -> bool:
        """It has paired: it is served now, or held (False) until serve_next() returns it."""
        has_place = self.has_place
        self._move(receiver, Step.SERVE if has_place else Step.QUEUE)
        return has_place

    def lose(self, receiver: Receiver) -> None:
        """Its connection is lost."""
        self._move(receiver, Step.LOSE)

    def confirm(self, receiver: Receiver, confirmation: Confirmation) -> None:
        """It has confirmed that it has everything."""
        self._move(receiver, Step.CONFIRM)
        receiver.confirmation = confirmation
        self.served += 1

    def fail(self, receiver: Receiver, error: FlyxError) -> None:
        """It will not be served, for this reason. While it is in the room, it may arrive again."""
        self._move(receiver, Step.FAIL)
        receiver.error = error
        self.depart(receiver)

    def _move(self, receiver: Receiver, step: Step) -> None:
        following = TRANSITIONS.get((receiver.state, step))
        if following is None:
            raise LocalProtocolError(reason=f"{step.name} of a receiver that is {receiver.state.name}")
        logger.debug("receiver %d: %s by %s", receiver.number, following.name, step.name)
        del self._in[receiver.state][receiver]
        receiver.state = following
        if following not in (ReceiverState.SERVED, ReceiverState.UNSERVED):
            self._in[following][receiver] = None
