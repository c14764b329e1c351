"""The states of an association, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flyx.errors import RemoteProtocolError


class State(Enum):
    """States of RFC 9260 §4, by their names there."""

    CLOSED = "CLOSED"
    COOKIE_WAIT = "COOKIE-WAIT"
    COOKIE_ECHOED = "COOKIE-ECHOED"
    ESTABLISHED = "ESTABLISHED"
    SHUTDOWN_PENDING = "SHUTDOWN-PENDING"
    SHUTDOWN_SENT = "SHUTDOWN-SENT"
    SHUTDOWN_RECEIVED = "SHUTDOWN-RECEIVED"
    SHUTDOWN_ACK_SENT = "SHUTDOWN-ACK-SENT"


@dataclass(frozen=True, slots=True)
class Established:
    """Data can go both ways. Streams are how many each side may send on."""

    outbound_streams: int
    inbound_streams: int


@dataclass(frozen=True, slots=True)
class StreamsReset:
    """Streams have begun anew: `incoming` those of the peer, `outgoing` ours, as the peer has confirmed."""

    incoming: tuple[int, ...]
    outgoing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """The association is over.

    Attributes:
        error: why; None after a shutdown, or an abort of ours.
        violated: the peer broke the protocol; the path is as good as before.
    """

    error: RemoteProtocolError | None
    violated: bool = False


Event = Established | StreamsReset | Closed
