"""What a peer connection has tried to reach the other side, and the words for it.

PeerConnection.attempts() takes the snapshot. Addresses are in a snapshot to
be counted and, with --debug, to be logged: they are in no text for people, who pass these on.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

OK = "ok"
"""The outcome of a server that has done what it was asked for."""

NO_ANSWER = "did not answer"
"""The outcome of a server that was silent."""


class PairState(Enum):
    """The states of a candidate pair, RFC 8445 §6.1.2.6."""

    FROZEN = auto()
    WAITING = auto()
    IN_PROGRESS = auto()
    SUCCEEDED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class PairAttempt:
    """A candidate pair of the checklist.

    Attributes:
        local_type: host, srflx, prflx or relay (RFC 8445 §5.1.1).
        remote_type: the same; it is what the peer says.
        family: of the IP addresses, 4 or 6.
        state: of its checks.
        local_address: "host:port" of the local candidate.
        remote_address: the same of the remote one.
    """

    local_type: str
    remote_type: str
    family: int
    state: PairState
    local_address: str = ""
    remote_address: str = ""


@dataclass(frozen=True, slots=True)
class ServerAttempt:
    """A STUN or TURN server that was asked, by one URL.

    Attributes:
        url: as the signaling server gave it: "turn:host:port?transport=udp" (RFC 7064, RFC 7065).
        kind: what it was asked for: "stun" a reflexive address, "turn" an allocation.
        outcome: None while it is asked, OK, or a predicate: "did not answer", "refused: wrong credentials".
            refusal() and failure_outcome() have the words.
        code: of the STUN error response (RFC 8489 §14.8), if there was one.
    """

    url: str
    kind: Literal["stun", "turn"]
    outcome: str | None = None
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Attempts:
    """All that was tried for one connection.

    Attributes:
        pairs: candidate pairs, in any order.
        servers: each URL that was asked.
        remote_candidates: addresses that the other side has told, those that go with none of ours included.
    """

    pairs: tuple[PairAttempt, ...] = ()
    servers: tuple[ServerAttempt, ...] = ()
    remote_candidates: int = 0


_REFUSALS = {
    300: "refused: it names another server",
    400: "refused: bad request",
    401: "refused: wrong credentials",
    403: "refused: forbidden",
    437: "refused: allocation mismatch",
    438: "refused: stale nonce",
    440: "refused: address family not supported",
    441: "refused: wrong credentials",
    442: "refused: transport not supported",
    443: "refused: peer address of another family",
    486: "refused: quota reached",
    500: "refused: server error",
    508: "refused: insufficient capacity",
}
"""Error codes of RFC 8489 §14.8 and RFC 8656 §18.12."""


def refusal(code: int) -> str:
    """Return the outcome for a STUN or TURN error response."""
    return _REFUSALS.get(code, "refused")


def failure_outcome(error: BaseException) -> str:
    """Return the outcome for what kept us from asking, or the server from answering."""
    match error:
        case socket.gaierror():
            return "was not found: its name has no address here"
        case TimeoutError():
            return NO_ANSWER
        case ConnectionRefusedError():
            return "is not there: connection refused"
        case OSError(strerror=str(reason)):
            return f"was not reached: {reason}"
        case _:
            return NO_ANSWER
